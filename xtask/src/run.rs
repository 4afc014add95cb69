//! `cargo xtask run`: builds the daemon as the user and becomes it, as root.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::setup::Needs;
use crate::{build, privilege, setup};

/// Builds the daemon and replaces this process with it, so that signals and the exit code are its own.
///
/// # Errors
/// When something is missing, the build fails or the daemon cannot be started.
pub fn command(flags: &[String]) -> Result<ExitCode> {
    setup::ensure(Needs { ebpf: true, ..Needs::NOTHING })?;
    let daemon = build::release_daemon()?;
    let mut balancer = privilege::as_root(&daemon)?;
    // Flags alone are flags of the daemon; any other command of the binary is named first.
    if flags.first().is_none_or(|first| first.starts_with('-')) {
        balancer.arg("run");
    }
    let error = balancer.args(flags).exec();
    Err(error).with_context(|| format!("cannot start {}", daemon.display()))
}
