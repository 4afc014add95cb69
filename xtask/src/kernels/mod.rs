//! `cargo xtask kernels`: the XDP program in the oldest kernel that it is promised for.
//!
//! Debian's packaged kernel boots under qemu, with this machine's fixture tests as its first and only program: they load
//! the program through that kernel's verifier and run packets through it. Emulated, since nested virtualisation is
//! seldom there and sometimes hangs; nobody has to be root for it.
//!
//! | module | what it does |
//! |---|---|
//! | [`image`] | the guest's file system: the tests, `ip` and `ethtool`, and the libraries they need |
//! | [`machine`] | qemu: started, listened to, ended |
//! | [`guest`] | inside: what the first process does before and after the tests |

pub(crate) use machine::QEMU;

pub mod guest;
mod image;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::build::{self, Artifact};
use crate::lab::interrupt;
use crate::lab::scratch::Scratch;
use crate::setup::kernel::{self, Kernel};
use crate::setup::{self, Needs};
use crate::test::Tally;

/// The test program that is run inside.
pub(crate) const FIXTURES: &str = "xdp_fixtures";

/// Which kernel, and which tests.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only tests whose names contain this
    filter: Option<String>,
    /// Another kernel than the oldest: a Debian package of one
    #[arg(long, value_name = "PATH")]
    deb: Option<PathBuf>,
}

/// Builds the tests and runs them inside; exit 1 when one fails.
///
/// # Errors
/// When something is missing, the build fails, or the guest does not come to its end.
pub fn command(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    setup::ensure(Needs {
        ebpf: true,
        lab: true,
        kernel: options.deb.is_none(),
        qemu: true,
        ..Needs::NOTHING
    })?;
    println!("kernels: cargo test -p balancer --test {FIXTURES} --no-run");
    let built = build::artifacts(&["test", "-p", "balancer", "--test", FIXTURES, "--no-run"])?;
    let tests = built.iter().find(|made| made.is_test).context("cargo built no tests")?;
    let scratch = scratch()?;
    let kernel = match &options.deb {
        Some(package) => kernel::unpack(package, &scratch.fresh("kernel"))?,
        None => kernel::oldest()?,
    };
    let tally = run_in(&kernel, &scratch, tests, options.filter.as_deref())?;
    println!("\nkernels: Linux {}: {tally}", kernel.release);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the tests in the oldest kernel, which has been set up.
///
/// # Errors
/// When something is missing, or the guest does not come to its end.
pub(crate) fn run(tests: &Artifact) -> Result<Tally> {
    run_in(&kernel::oldest()?, &scratch()?, tests, None)
}

fn run_in(kernel: &Kernel, scratch: &Scratch, tests: &Artifact, filter: Option<&str>) -> Result<Tally> {
    println!("\nkernels: {} in Linux {}, under qemu", tests.name, kernel.release);
    let image = scratch.fresh("image");
    image::write(&image, &stripped(&tests.executable, scratch), &kernel.modules)?;
    let run = |name: Option<&str>| machine::run(&kernel.image, &image, name);
    run(filter)?.once_more(|name| run(Some(name)))
}

/// Removed with everything in it when dropped. The name says whose it is, to those who sweep.
fn scratch() -> Result<Scratch> {
    Scratch::new(&format!("bal-{}-kernels", std::process::id()))
}

/// The guest has to unpack all of it: without what is for debuggers that is a tenth.
fn stripped(program: &Path, scratch: &Scratch) -> PathBuf {
    let smaller = scratch.fresh("stripped");
    let done = std::process::Command::new("strip").arg("-o").arg(&smaller).arg(program).status();
    if done.is_ok_and(|status| status.success()) { smaller } else { program.to_path_buf() }
}
