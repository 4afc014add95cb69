//! `cargo xtask test`: builds every test as the user, runs what needs privileges as root, adds up the
//! results.

mod binary;
mod tally;

use std::process::ExitCode;

use anyhow::{Result, bail};
use binary::{As, Job};
pub(crate) use tally::{Tally, failed_test};

use crate::build::{self, Artifact};
use crate::lab::interrupt;
use crate::setup::{Needs, kernel};
use crate::{kernels, privilege, setup};

/// What to test, and how.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leave out what needs privileges, although they may be there
    #[arg(long)]
    unprivileged: bool,
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// Runs the tests; exit 1 when one fails.
///
/// # Errors
/// When something is missing or the build fails.
pub fn command(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    let old_kernel = !options.unprivileged && options.filter.is_none() && kernel::is_possible();
    let lab = !options.unprivileged;
    setup::ensure(Needs {
        ebpf: true,
        lab,
        browser: lab,
        qemu: old_kernel,
        kernel: old_kernel,
        ..Needs::NOTHING
    })?;
    println!("test: cargo test --workspace --no-run");
    let mut built = build::artifacts(&["test", "--workspace", "--no-run"])?;
    // A test target may use programs of the workspace, which cargo then builds and announces as well.
    built.retain(|made| made.is_test);
    let (integration, unit): (Vec<Artifact>, Vec<Artifact>) =
        built.into_iter().partition(|made| made.kind == "test");

    let mut tally = Tally::default();
    for made in &unit {
        tally += binary::run(made, As::User, options.filter.as_deref())?;
    }
    let identity = integration_identity(options.unprivileged)?;
    for made in &integration {
        tally += binary::run(made, identity, options.filter.as_deref())?;
    }
    if options.filter.is_none() {
        tally += Job::documentation().run()?;
        tally += without_fast_path()?;
        tally += in_the_oldest_kernel(old_kernel, &integration)?;
    }
    println!("\n{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without privileges the integration tests still run, and report what they could not do as ignored; where
/// results count that would hide a failure.
fn integration_identity(unprivileged: bool) -> Result<As> {
    if unprivileged {
        return Ok(As::UserWithout);
    }
    if privilege::can_be_root() {
        return Ok(As::Root);
    }
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("CI is set and privileged tests cannot run: neither root nor a usable sudo here");
    }
    println!("test: neither root nor a usable sudo: privileged tests will be ignored");
    Ok(As::UserWithout)
}

/// The fixtures once more, where the XDP program has to work too. That kernel is Debian's: elsewhere one is skipped.
fn in_the_oldest_kernel(is_possible: bool, tests: &[Artifact]) -> Result<Tally> {
    let fixtures = tests.iter().find(|made| made.name == kernels::FIXTURES);
    let Some(fixtures) = fixtures.filter(|_| is_possible) else {
        println!(
            "\ntest: the oldest kernel: skipped; it takes the privileged tests, x86-64, and Debian's package of it"
        );
        return Ok(Tally { skipped: 1, ..Tally::default() });
    };
    kernels::run(fixtures)
}

/// The proxy alone has to build where there is no eBPF toolchain: one more test, in effect.
fn without_fast_path() -> Result<Tally> {
    println!("\ntest: cargo check -p balancer --no-default-features");
    let status = build::cargo().args(["check", "-p", "balancer", "--no-default-features"]).status()?;
    interrupt::check()?;
    Ok(if status.success() {
        Tally { passed: 1, ..Tally::default() }
    } else {
        Tally { failed: 1, ..Tally::default() }
    })
}
