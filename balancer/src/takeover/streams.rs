//! Where the log goes: stdout and stderr of the predecessor become those of its successor, if whoever started that does not
//! stay (`balancer reload`). Otherwise the log would go on in a terminal that is somebody's, and who waits for the end of a
//! pipe would wait for the end of the service.

use std::os::fd::OwnedFd;

use nix::unistd::{dup2_stderr, dup2_stdout, getppid};

use crate::log;

/// How `balancer reload` tells its child who it is, so that a later process with the same environment is not meant.
pub const RELOAD: &str = "BALANCER_RELOAD_PID";

/// Second descriptors of them.
#[derive(Debug)]
pub struct Streams {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) is_journal: bool,
}

/// Whether this process was started by a `balancer reload` that waits for it.
pub fn are_wanted() -> bool {
    std::env::var(RELOAD).is_ok_and(|pid| pid == getppid().to_string())
}

impl Streams {
    /// What is written from here on goes there; nothing of what this process has begun with stays open.
    pub fn adopt(self) {
        let adopted = dup2_stdout(self.stdout).and_then(|()| dup2_stderr(self.stderr));
        match adopted {
            Ok(()) => log::set_journal(self.is_journal),
            Err(error) => log::warn(format_args!(
                "the log goes on here, and not where that of the process before went: {}",
                log::reason(&error.into())
            )),
        }
    }
}
