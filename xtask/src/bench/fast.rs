//! The fast path beside a direct connection. Nothing but wrk is kept on a core: what is measured runs in the kernel,
//! wherever that is.

use std::path::Path;

use anyhow::Result;

use super::contender::{self, Contender};
use super::measure::{Body, Reuse, Series, Workload, measure};
use super::{Options, report};
use crate::lab::Lab;
use crate::lab::nginx::Nginx;

pub(super) fn run(options: &Options, balancer: &Path) -> Result<()> {
    // The fast path gets a network of its own: the direct row is not to pay for its program on the interfaces.
    let (plain, with_xdp) = (contender::network()?, contender::network()?);
    let origins = [origin(&plain)?, origin(&with_xdp)?];
    let contenders = [
        contender::direct("direct", &plain),
        contender::fast_path(&with_xdp, balancer)?,
        // The same interfaces, the program on them passing everything: what is left is the path itself.
        contender::direct("direct beside XDP", &with_xdp),
    ];
    contenders.iter().try_for_each(|contender| contender.prove(&[Body::Small]))?;
    println!("- {}, shared by client, balancer and server in every row", report::machine());
    println!("- {}", report::version("nginx", "-v"));
    println!("- {}; 13-byte body", report::load(options));
    println!("- offloads, direct: {}", report::offloads(&plain)?);
    println!("- offloads, beside XDP: {}\n", report::offloads(&with_xdp)?);
    let all = measure(&contenders, Workload::SMALL, options)?;
    tables(&contenders, &all);
    let commands = report::commands(&contenders, Workload::SMALL, options)?;
    println!("\n### Commands\n\n```text\n{}\n```", commands.join("\n"));
    // Until here they had to live.
    drop(origins);
    Ok(())
}

fn origin(lab: &Lab) -> Result<Nginx> {
    let server = lab.server(1);
    Nginx::start(&server.ns, server.at(contender::ORIGIN_PORT), contender::ORIGIN_NAME)
}

/// One table for each workload.
fn tables(contenders: &[Contender], all: &[Series]) {
    for &workload in Workload::SMALL {
        println!("\n### {}\n", workload.name());
        println!("| path | req/s | / direct | p50 | p99 | errors | rounds |");
        println!("|---|---:|---:|---:|---:|---:|---|");
        let rows: Vec<&Series> = all.iter().filter(|series| series.workload == workload).collect();
        for row in &rows {
            println!("{}", line(&contenders[row.contender], row, rows[0]));
        }
        if workload.reuse == Reuse::NewConnections {
            println!("\nOn each of these paths the server pays for every accept.");
        }
    }
}

fn line(contender: &Contender, row: &Series, direct: &Series) -> String {
    let rounds: Vec<String> = row.figures.iter().map(|figures| format!("{:.0}", figures.rate)).collect();
    let forwarded = if contender.is_fast_path() {
        format!("; {} connections by XDP", row.forwarded)
    } else {
        String::new()
    };
    format!(
        "| {} | {:.0} | {:.2} | {} | {} | {} | {}{forwarded} |",
        contender.name,
        report::median(&row.figures, |figures| figures.rate),
        report::ratio(&row.figures, &direct.figures, |figures| figures.rate),
        report::time(report::median(&row.figures, |figures| figures.p50.as_secs_f64())),
        report::time(report::median(&row.figures, |figures| figures.p99.as_secs_f64())),
        row.errors(),
        rounds.join(", ")
    )
}
