//! `cargo xtask demo`: the story of a known client, each step checked against what can be observed.

mod narrator;
mod stage;
mod story;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use narrator::Narrator;
use stage::Stage;

use crate::lab::{self, Forward, interrupt};
use crate::setup::Needs;
use crate::{build, privilege, setup};

/// How to run the demo.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A daemon that is already built, instead of building this workspace's
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
    /// How fast packets travel
    #[arg(long, value_enum, default_value_t = Forward::Nat)]
    forward: Forward,
}

/// Builds as the user, plays as root.
///
/// # Errors
/// When something is missing, the build fails, or an observation differs from the story.
pub fn command(options: &Options) -> Result<ExitCode> {
    let balancer = match &options.balancer {
        Some(balancer) => balancer.clone(),
        None => {
            setup::ensure(Needs { ebpf: true, lab: true, ..Needs::NOTHING })?;
            build::release_daemon()?
        }
    };
    if !privilege::is_root() {
        println!("demo: network namespaces and XDP need root: going on through sudo");
        let arguments = ["demo", "--forward", options.forward.word(), "--balancer"].map(OsString::from);
        return Err(privilege::again_as_root(&[&arguments[..], &[balancer.into()]].concat()));
    }
    if let Some(reason) = lab::unavailable() {
        bail!("the demo cannot run here: {reason}");
    }
    interrupt::install()?;
    play(&balancer, options.forward)?;
    println!("\nThe story holds; its namespaces, processes and pinned maps are gone.");
    Ok(ExitCode::SUCCESS)
}

/// Everything the demo makes lives in the stage, so it is gone when this returns, however it does.
fn play(balancer: &Path, forward: Forward) -> Result<()> {
    let mut narrator = Narrator::new();
    let mut stage = Stage::set(balancer, forward, &mut narrator)?;
    let told = story::tell(&mut stage, &mut narrator);
    if told.is_err() && !interrupt::asked() {
        narrator.last_words_of(&stage.daemon);
    }
    told
}
