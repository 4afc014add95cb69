//! `cargo xtask bench`: the paths side by side, under the same load, in one run; and what a request's head costs.
//!
//! | module | what it does |
//! |---|---|
//! | [`fast`] | the fast path beside a direct connection and nftables |
//! | [`datapath`] | what a packet costs in the XDP program, and the goals of the fast path |
//! | [`proxy`] | the proxy beside HAProxy and nginx, each alone on a core |
//! | [`head`] | instructions per request, counted under valgrind |
//! | [`contender`], [`rivals`] | who is measured: set up, and shown to do what the row says |
//! | [`measure`] | the rounds, interleaved, so that what disturbs one row disturbs the others |
//! | [`pin`] | which core a process is kept on |
//! | [`report`] | figures as people read them |
//!
//! Absolute figures move from run to run; the ratios are what to hold.

mod contender;
mod datapath;
mod fast;
mod head;
mod measure;
mod pin;
mod proxy;
mod report;
mod rivals;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::lab::{self, Forward, interrupt};
use crate::setup::Needs;
use crate::{build, privilege, setup};

/// What to measure, and for how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What
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
    /// How packets of the fast path travel
    #[arg(long, value_enum, default_value_t = Forward::Nat)]
    forward: Forward,
    /// The benchmark of packets, likewise
    #[arg(long, value_name = "PATH", hide = true)]
    packets: Option<PathBuf>,
    /// Leave the figures in a file, for scripts; of `all` those of the proxy
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Paths {
    /// The proxy beside other proxies
    Proxy,
    /// The fast path
    Fast,
    /// Packets in the XDP program, then the fast path, beside their goals
    Datapath,
    /// Instructions per request head, under valgrind
    Head,
    /// The proxy, then the fast path
    All,
}

/// Builds as the user, measures as root where it takes that.
///
/// # Errors
/// When something is missing, the build fails, or a contender does not do what is to be measured.
pub fn command(options: &Options) -> Result<ExitCode> {
    if options.paths == Paths::Head {
        setup::ensure(Needs { ebpf: true, valgrind: true, ..Needs::NOTHING })?;
        return head::run(options.json.as_deref());
    }
    let balancer = match &options.balancer {
        Some(balancer) => balancer.clone(),
        None => {
            setup::ensure(Needs { ebpf: true, lab: true, ..Needs::NOTHING })?;
            build::release_daemon()?
        }
    };
    let packets = match (&options.packets, options.paths) {
        (Some(packets), _) => Some(packets.clone()),
        (None, Paths::Datapath) => Some(datapath::build()?),
        _ => None,
    };
    if !privilege::is_root() {
        println!("bench: network namespaces and XDP need root: going on through sudo");
        return Err(privilege::again_as_root(&options.words(&balancer, packets.as_deref())?));
    }
    if let Some(reason) = lab::unavailable() {
        bail!("the benchmark cannot run here: {reason}");
    }
    interrupt::install()?;
    if let Some(packets) = packets {
        datapath::run(options, &balancer, &packets)?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.paths != Paths::Fast {
        proxy::run(options, &balancer)?;
    }
    if options.paths != Paths::Proxy {
        let figures = fast::run(options, &balancer)?;
        if let (Paths::Fast, Some(path)) = (options.paths, &options.json) {
            write_json(path, &figures)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn words(&self, balancer: &Path, packets: Option<&Path>) -> Result<Vec<OsString>> {
        let paths =
            self.paths.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let (seconds, rounds) = (self.seconds.to_string(), self.rounds.to_string());
        let forward = self.forward.word();
        let words =
            ["bench", &paths, "--seconds", &seconds, "--rounds", &rounds, "--forward", forward, "--balancer"];
        let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        words.push(balancer.into());
        if let Some(packets) = packets {
            words.extend(["--packets".into(), packets.into()]);
        }
        if let Some(json) = &self.json {
            words.push("--json".into());
            words.push(std::path::absolute(json)?.into());
        }
        Ok(words)
    }
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("\nbench: figures in {}", path.display());
    Ok(())
}
