//! What was measured, as Markdown, with everything it takes to do it again.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::contender::{Contender, Field};
use super::{CONNECTIONS, Options, Series, WARM_UP_SECONDS, Workload};
use crate::lab::wrk::Figures;
use crate::privilege::find_program;

/// The features that change what a packet costs.
const OFFLOADS: &[&str] =
    &["tx-checksumming", "tx-tcp-segmentation", "generic-segmentation-offload", "generic-receive-offload"];

/// Where and how, before the figures.
pub(super) fn conditions(field: &Field, options: &Options) -> Result<()> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    println!("- kernel {}, {cores} cores shared by client, balancer and server in every row", kernel.trim());
    println!("- {}; {}", version("haproxy", "-v"), version("nginx", "-v"));
    println!(
        "- wrk, {CONNECTIONS} connections, 1 thread on core 0; 13-byte body; {} rounds of {} s, interleaved, after a \
         warm-up of {WARM_UP_SECONDS} s; medians",
        options.rounds, options.seconds
    );
    for (lab, what) in field.labs.iter().zip(["all rows but the fast path", "the fast path"]) {
        println!(
            "- offloads, {what}: hosts {}",
            offloads(&lab.client().ns.output("ethtool", &["-k", "eth0"])?)
        );
        let own = lab.balancer.output("ethtool", &["-k", &lab.client().interface])?;
        println!("- offloads, {what}: balancer {}", offloads(&own));
    }
    println!();
    Ok(())
}

/// One table for each workload.
pub(super) fn tables(field: &Field, all: &[Series]) {
    for workload in Workload::ALL {
        let rows: Vec<&Series> = all.iter().filter(|series| series.workload == workload).collect();
        let row_of =
            |name: &str| rows.iter().copied().find(|row| field.contenders[row.contender].name == name);
        let (direct, haproxy) = (row_of("direct"), row_of("HAProxy"));
        println!("\n### {}\n", workload.name());
        println!("| path | req/s | / direct | / HAProxy | p50 | p99 | errors | rounds |");
        println!("|---|---:|---:|---:|---:|---:|---:|---|");
        for row in &rows {
            println!("{}", line(&field.contenders[row.contender], row, direct, haproxy));
        }
        if workload == Workload::NewConnections {
            println!(
                "\nThe proxies keep their connections to the server, so the server accepts less; on the direct and the \
                 fast path it pays for every accept."
            );
        }
    }
}

fn line(contender: &Contender, row: &Series, direct: Option<&Series>, haproxy: Option<&Series>) -> String {
    let rate = median(&row.figures, |figures| figures.rate);
    let ratio = |to: Option<&Series>| to.map_or("–".to_owned(), |to| format!("{:.2}", ratio(row, to)));
    let p50 = median(&row.figures, |figures| figures.p50.as_secs_f64());
    let p99 = median(&row.figures, |figures| figures.p99.as_secs_f64());
    let errors: u64 = row.figures.iter().map(|figures| figures.refused + figures.broken).sum();
    let rounds: Vec<String> = row.figures.iter().map(|figures| format!("{:.0}", figures.rate)).collect();
    let forwarded = if contender.is_fast_path() {
        format!("; {} connections by XDP", row.forwarded)
    } else {
        String::new()
    };
    format!(
        "| {} | {rate:.0} | {} | {} | {} | {} | {errors} | {}{forwarded} |",
        contender.name,
        ratio(direct),
        ratio(haproxy),
        time(p50),
        time(p99),
        rounds.join(", ")
    )
}

/// What was run, word by word.
pub(super) fn commands(field: &Field, options: &Options) -> Result<()> {
    println!("\n### Commands\n\n```text");
    for contender in &field.contenders {
        println!("# {}\n{}", contender.name, contender.line);
        for workload in Workload::ALL {
            println!("{}", workload.load(contender, options.seconds).command(contender.client())?.line());
        }
    }
    println!("```");
    Ok(())
}

/// Round by round, since what slows a round down slows its neighbours down too; then the median.
fn ratio(row: &Series, to: &Series) -> f64 {
    middle(row.figures.iter().zip(&to.figures).map(|(one, other)| one.rate / other.rate).collect())
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    middle(figures.iter().map(of).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

fn time(seconds: f64) -> String {
    let time = Duration::from_secs_f64(seconds);
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

fn offloads(features: &str) -> String {
    let told = features.lines().filter_map(|line| line.trim().split_once(": "));
    let wanted = told.filter(|(name, _)| OFFLOADS.contains(name));
    let states = wanted.map(|(name, state)| format!("{name} {}", state.split(' ').next().unwrap_or(state)));
    states.collect::<Vec<_>>().join(", ")
}

/// The first line of what a program says of itself, wherever it says it.
fn version(program: &str, flag: &str) -> String {
    let said = find_program(program).and_then(|path| Command::new(path).arg(flag).output().ok());
    let text = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((middle(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((middle(vec![3.0, 1.0]) - 2.0).abs() < 1e-9);
        assert!(middle(Vec::new()).abs() < 1e-9);
    }
}
