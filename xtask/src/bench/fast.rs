//! The fast path beside a direct connection, and beside the kernel's own translation of addresses. Nothing but wrk is kept on
//! a core: what is measured runs in the kernel, wherever that is.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::contender::{self, Contender, Process};
use super::measure::{Body, Reuse, Series, Workload, measure};
use super::{Options, report};
use crate::lab::nginx::Nginx;
use crate::lab::{Forward, Lab};

pub(super) const FAST_PATH: &str = "fast path";
pub(super) const NAT: &str = "nftables DNAT";
const DIRECT: &str = "direct";
const BESIDE_XDP: &str = "direct beside XDP";

/// Measures, prints, and returns the figures for scripts.
pub(super) fn run(options: &Options, balancer: &Path) -> Result<Value> {
    // Networks of their own: neither is the direct row to pay for the program on the interfaces, nor for the tracking of
    // connections.
    let forward = options.forward;
    let (plain, with_xdp) = (contender::network(forward)?, contender::network(forward)?);
    // Where servers see clients, a direct connection could not be told from a fast one of the same port.
    let beside_xdp = contender::network(forward)?;
    let with_nat = contender::network(Forward::Nat)?;
    let origins = [
        origin(&plain, forward)?,
        origin(&with_xdp, forward)?,
        origin(&beside_xdp, forward)?,
        origin(&with_nat, Forward::Nat)?,
    ];
    let idle = contender::fast_path(&beside_xdp, balancer, forward)?;
    let contenders = [
        contender::direct(DIRECT, &plain),
        contender::fast_path(&with_xdp, balancer, forward)?,
        // The program on the interfaces passes everything: what is left is the path itself.
        contender::direct(BESIDE_XDP, &beside_xdp),
        nat(&with_nat)?,
    ];
    contenders.iter().try_for_each(|contender| contender.prove(&[Body::Small]))?;
    let conditions = [
        format!("{}, shared by client, balancer and server in every row", report::machine()),
        report::version("nginx", "-v"),
        format!("{}; 13-byte body", report::load(options)),
        format!("--forward {}; with dsr answers take a link of their own, but for {NAT}", forward.word()),
        format!("offloads, {DIRECT} and {NAT}: {}", report::offloads(&plain)?),
        format!("offloads, {FAST_PATH} and {BESIDE_XDP}: {}", report::offloads(&with_xdp)?),
    ];
    conditions.iter().for_each(|condition| println!("- {condition}"));
    println!();
    let all = measure(&contenders, Workload::SMALL, options)?;
    let rows: Vec<Row<'_>> = all.iter().map(|series| Row::of(&contenders, &all, series)).collect();
    tables(&rows);
    let commands = report::commands(&contenders, Workload::SMALL, options)?;
    println!("\n### Commands\n\n```text\n{}\n```", commands.join("\n"));
    // Until here they had to live.
    drop((origins, idle));
    let rows: Vec<Value> = rows.iter().map(Row::json).collect();
    Ok(json!({ "conditions": conditions, "rows": rows, "commands": commands }))
}

fn origin(lab: &Lab, forward: Forward) -> Result<Nginx> {
    let server = lab.server(1);
    let at = forward.origin(server, contender::ORIGIN_PORT);
    Nginx::start(&server.ns, at, contender::ORIGIN_NAME)
}

/// The destination alone is translated, as `--forward nat` does with the source as well; for the answers to come back this
/// way the balancer is the server's gateway.
fn nat(lab: &Lab) -> Result<Contender> {
    let (listen, server) = (lab.client().gateway_at(8000), lab.server(1).at(contender::ORIGIN_PORT));
    let rules = format!(
        "table ip bench {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {} tcp dport {} dnat to {server}
    }}
}}
",
        listen.ip(),
        listen.port()
    );
    let file = lab.balancer.fresh_path("rules.nft");
    fs::write(&file, &rules)?;
    lab.balancer.output("nft", &["-f", &file.to_string_lossy()])?;
    let lines = std::iter::once(format!("nft -f {}", file.display()));
    let lines = lines.chain(rules.lines().map(|line| format!("#   {line}"))).collect();
    Ok(Contender::new(NAT, lab, listen, lines, Process::Nobody))
}

/// One contender under one workload, compared round by round.
struct Row<'a> {
    contender: &'a Contender,
    series: &'a Series,
    to_direct: f64,
    to_beside: f64,
    to_nat: f64,
}

impl<'a> Row<'a> {
    fn of(contenders: &'a [Contender], all: &'a [Series], series: &'a Series) -> Self {
        let ratio_to = |name: &str| {
            let is_it = |other: &&Series| {
                other.workload == series.workload && contenders[other.contender].name == name
            };
            let other = all.iter().find(is_it).map_or(&[][..], |other| &other.figures);
            report::ratio(&series.figures, other, |figures| figures.rate)
        };
        Self {
            contender: &contenders[series.contender],
            series,
            to_direct: ratio_to(DIRECT),
            to_beside: ratio_to(BESIDE_XDP),
            to_nat: ratio_to(NAT),
        }
    }

    fn rate(&self) -> f64 {
        report::median(&self.series.figures, |figures| figures.rate)
    }

    fn line(&self) -> String {
        let series = self.series;
        let rounds: Vec<String> =
            series.figures.iter().map(|figures| format!("{:.0}", figures.rate)).collect();
        let forwarded = if self.contender.is_fast_path() {
            format!("; {} connections by XDP", series.forwarded)
        } else {
            String::new()
        };
        format!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {} | {} | {} | {}{forwarded} |",
            self.contender.name,
            self.rate(),
            self.to_direct,
            self.to_beside,
            self.to_nat,
            report::time(report::median(&series.figures, |figures| figures.p50.as_secs_f64())),
            report::time(report::median(&series.figures, |figures| figures.p99.as_secs_f64())),
            series.errors(),
            rounds.join(", ")
        )
    }

    fn json(&self) -> Value {
        json!({
            "path": self.contender.name,
            "workload": self.series.workload.name(),
            "requests_per_second": self.rate(),
            "to_direct": self.to_direct,
            "to_direct_beside_xdp": self.to_beside,
            "to_nat": self.to_nat,
            "errors": self.series.errors(),
            "connections_by_xdp": self.series.forwarded,
        })
    }
}

/// One table for each workload.
fn tables(rows: &[Row<'_>]) {
    for &workload in Workload::SMALL {
        println!("\n### {}\n", workload.name());
        println!("| path | req/s | / {DIRECT} | / {BESIDE_XDP} | / {NAT} | p50 | p99 | errors | rounds |");
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
        rows.iter().filter(|row| row.series.workload == workload).for_each(|row| println!("{}", row.line()));
        if workload.reuse == Reuse::NewConnections {
            println!("\nOn each of these paths the server pays for every accept.");
        }
    }
}
