//! What a packet costs in the XDP program, and what that comes to on the way: the goals beside what was measured.
//!
//! The costs of packets are measured by `benches/datapath`, which loads the program itself; connections by [`super::fast`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::fast::{FAST_PATH, NAT};
use super::measure::{Reuse, Workload};
use super::{Options, fast, report, write_json};
use crate::build;

/// Builds the benchmark of packets, as the user, and says where it is.
pub(super) fn build() -> Result<PathBuf> {
    println!("build: cargo bench -p balancer --bench datapath --no-run");
    let built = build::artifacts(&["bench", "-p", "balancer", "--bench", "datapath", "--no-run"])?;
    let made = built.into_iter().find(|made| made.kind == "bench");
    Ok(made.context("cargo built no benchmark called datapath")?.executable)
}

pub(super) fn run(options: &Options, balancer: &Path, packets: &Path) -> Result<()> {
    println!("bench: packets through the program, by BPF_PROG_TEST_RUN");
    let costs = costs(packets)?;
    costs_table(&costs);
    println!();
    let paths = fast::run(options, balancer)?;
    paths_table(&paths);
    if let Some(path) = &options.json {
        let command = format!("{}   # as root", packets.display());
        write_json(
            path,
            &json!({
                "machine": report::machine(), "packets": costs, "packets_command": command, "connections": paths,
            }),
        )?;
    }
    Ok(())
}

fn costs(packets: &Path) -> Result<Value> {
    let output = Command::new(packets)
        .arg("--bench")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", packets.display()))?;
    ensure!(output.status.success(), "the benchmark of packets: {}", output.status);
    serde_json::from_slice(&output.stdout).context("the benchmark has not written JSON")
}

fn costs_table(costs: &Value) {
    println!("\n### A packet, above the floor ({})\n", report::machine());
    println!("| packet | flows | goal | measured |\n|---|---:|---:|---:|");
    for row in costs["rows"].as_array().into_iter().flatten() {
        let goal = row["goal"].as_u64().map_or("–".to_owned(), |goal| format!("≤ {goal} ns"));
        let flows = row["flows"].as_u64().map_or("–".to_owned(), |flows| flows.to_string());
        let (name, family) = (row["name"].as_str().unwrap_or("?"), row["family"].as_str().unwrap_or("?"));
        let measured = row["ns_above_floor"].as_f64().unwrap_or(f64::NAN);
        println!("| {family}: {name} | {flows} | {goal} | {measured:.0} ns |");
    }
    if let (Some(flows), Some(bytes)) = (costs["table"]["flows"].as_u64(), costs["table"]["bytes"].as_u64()) {
        println!(
            "\nA table for {flows} flows takes {} MiB, full or not: {} bytes a flow.",
            bytes >> 20,
            bytes / flows.max(1)
        );
    }
}

/// One goal for connections: of what, to what, and by how much.
struct Goal {
    reuse: Reuse,
    to: &'static str,
    at_least: f64,
}

const GOALS: [Goal; 3] = [
    Goal { reuse: Reuse::KeepAlive, to: "to_direct", at_least: 0.95 },
    Goal { reuse: Reuse::NewConnections, to: "to_direct", at_least: 1.0 },
    Goal { reuse: Reuse::NewConnections, to: "to_nat", at_least: 1.4 },
];

fn paths_table(paths: &Value) {
    println!("\n### Connections\n\n| the fast path | goal | measured |\n|---|---:|---:|");
    for goal in GOALS {
        let workload = Workload::SMALL.iter().find(|workload| workload.reuse == goal.reuse).copied();
        let name = workload.map_or_else(String::new, Workload::name);
        let is_it = |row: &&Value| row["path"] == FAST_PATH && row["workload"] == name.as_str();
        let row = paths["rows"].as_array().and_then(|rows| rows.iter().find(is_it));
        let measured = row.and_then(|row| row[goal.to].as_f64()).unwrap_or(f64::NAN);
        let to = if goal.to == "to_nat" { NAT } else { "direct" };
        println!("| {name}, to {to} | ≥ {:.2} | {measured:.2} |", goal.at_least);
    }
}
