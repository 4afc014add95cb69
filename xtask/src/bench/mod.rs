//! `cargo xtask bench`: the paths side by side, under the same load, in one run.
//!
//! Client, balancer and server share the machine's cores in every row, offloads are the same on every link,
//! and the rounds are interleaved, so that what disturbs one row disturbs the others. Absolute figures move
//! from run to run; the ratios are what to hold.

mod contender;
mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::ValueEnum;
use contender::{Contender, Field};

use crate::lab::wrk::{Figures, Load};
use crate::lab::{self, interrupt};
use crate::setup::Needs;
use crate::{build, privilege, setup};

const CONNECTIONS: u32 = 64;
const WARM_UP_SECONDS: u32 = 1;

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Which paths
    #[arg(value_enum, default_value_t = Paths::All)]
    paths: Paths,
    /// Length of one measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=300))]
    seconds: u32,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// A daemon that is already built, instead of building this workspace's
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
}

/// Sets of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Paths {
    /// The proxy beside other proxies
    Proxy,
    /// The fast path
    Fast,
    /// Both
    All,
}

/// How clients use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    KeepAlive,
    NewConnections,
}

/// Builds as the user, measures as root.
///
/// # Errors
/// When something is missing, the build fails, or a contender does not do what is to be measured.
pub fn command(options: &Options) -> Result<ExitCode> {
    let balancer = match &options.balancer {
        Some(balancer) => balancer.clone(),
        None => {
            setup::ensure(Needs { ebpf: true, lab: true, lints: false })?;
            build::release_daemon()?
        }
    };
    if !privilege::is_root() {
        println!("bench: network namespaces and XDP need root: going on through sudo");
        return Err(privilege::again_as_root(&options.words(&balancer)));
    }
    if let Some(reason) = lab::unavailable() {
        bail!("the benchmark cannot run here: {reason}");
    }
    interrupt::install()?;
    let field = Field::prepare(options.paths, &balancer)?;
    report::conditions(&field, options)?;
    let results = measure(&field, options)?;
    report::tables(&field, &results);
    report::commands(&field, options)?;
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn words(&self, balancer: &std::path::Path) -> Vec<OsString> {
        let paths =
            self.paths.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let (seconds, rounds) = (self.seconds.to_string(), self.rounds.to_string());
        let words = ["bench", &paths, "--seconds", &seconds, "--rounds", &rounds, "--balancer"];
        words.into_iter().map(OsString::from).chain([balancer.into()]).collect()
    }
}

impl Workload {
    const ALL: [Self; 2] = [Self::KeepAlive, Self::NewConnections];

    fn load(self, contender: &Contender, seconds: u32) -> Load {
        // Every row sends the cookie, so that every row sends the same bytes.
        let mut headers = vec!["Cookie: SRV=s1".to_owned()];
        if self == Self::NewConnections {
            headers.push("Connection: close".to_owned());
        }
        // The load stays on one core; who is measured goes where the scheduler likes, in every row.
        Load { url: contender.url.clone(), headers, connections: CONNECTIONS, seconds, core: Some(0) }
    }
}

/// All rounds of one contender under one workload, with what the path itself counted.
struct Series {
    contender: usize,
    workload: Workload,
    figures: Vec<Figures>,
    /// Connections that XDP forwarded, where the contender counts them.
    forwarded: u64,
}

fn measure(field: &Field, options: &Options) -> Result<Vec<Series>> {
    let mut all: Vec<Series> = Vec::new();
    for workload in Workload::ALL {
        for contender in 0..field.contenders.len() {
            all.push(Series { contender, workload, figures: Vec::new(), forwarded: 0 });
        }
    }
    for round in 0..=options.rounds {
        for series in &mut all {
            interrupt::check()?;
            let contender = &field.contenders[series.contender];
            let seconds = if round == 0 { WARM_UP_SECONDS } else { options.seconds };
            let before = contender.forwarded()?;
            let figures = series.workload.load(contender, seconds).run(contender.client())?;
            let label = if round == 0 { "warm-up".to_owned() } else { format!("round {round}") };
            println!(
                "bench: {label:<8} {:<16} {:<15} {:>8.0} req/s",
                contender.name,
                series.workload.name(),
                figures.rate
            );
            if round > 0 {
                series.forwarded += contender.forwarded()? - before;
                series.figures.push(figures);
            }
        }
    }
    Ok(all)
}

impl Workload {
    fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::NewConnections => "new connections",
        }
    }
}
