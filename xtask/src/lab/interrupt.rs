//! Ctrl-C as an error: whoever waits gets it, returns, and what they own is dropped on the way out.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::syscall;

static ASKED: AtomicBool = AtomicBool::new(false);

/// The person asked to stop.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on SIGINT and SIGTERM end the program through [`check`]. Programs started from here have process
/// groups of their own and so do not see the terminal's Ctrl-C.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn install() -> Result<()> {
    syscall::on_interrupt(note).context("cannot install signal handlers")
}

/// True once the person has asked to stop.
#[must_use]
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// # Errors
/// [`Interrupted`] once the person has asked to stop.
pub fn check() -> Result<()> {
    if asked() { Err(Interrupted.into()) } else { Ok(()) }
}

extern "C" fn note(_signal: libc::c_int) {
    const MESSAGE: &[u8] = b"\ninterrupted: cleaning up\n";
    if !ASKED.swap(true, Ordering::Relaxed) {
        // One system call and async-signal-safe; whether the message arrives does not matter.
        let _ = nix::unistd::write(std::io::stderr(), MESSAGE);
    }
}
