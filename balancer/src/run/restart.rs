//! USR2: starts the same command line again, with `--takeover`. What the new process then does is its own business; here
//! it is only watched until it has taken over or has ended.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::log;
use crate::takeover::HAND_OVER_LIMIT;
use crate::takeover::attempt::Attempt;

/// For the new process to begin the conversation, on top of what that may take.
pub(super) const START_LIMIT: Duration = Duration::from_secs(30);

pub(super) const TAKEOVER: &str = "--takeover";

/// How this process was started.
#[derive(Debug)]
pub(super) struct Restart {
    program: io::Result<PathBuf>,
    arguments: Vec<OsString>,
    attempt: Rc<Attempt>,
}

impl Restart {
    /// To be called early: a process that has given up root may not be allowed to ask what its program is.
    pub(super) fn new(says_takeover: bool) -> Self {
        let mut arguments: Vec<_> = env::args_os().collect();
        let program = program(arguments.first().map(Path::new));
        arguments.drain(..arguments.len().min(1));
        if !says_takeover {
            arguments.push(TAKEOVER.into());
        }
        Self { program, arguments, attempt: Rc::default() }
    }

    /// What is known of the new process.
    pub(super) fn attempt(&self) -> Rc<Attempt> {
        Rc::clone(&self.attempt)
    }

    /// Starts the new process. `obstacle`: what this one has given up and the new one would need.
    pub(super) fn begin(&self, obstacle: Option<&str>) {
        if self.attempt.is_going() {
            return log::warn(
                "USR2: a new process is taking over just now; wait until it has, or has failed to",
            );
        }
        if let Some(obstacle) = obstacle {
            return log::warn(format_args!(
                "USR2: no new process is started, as {obstacle}; start one as root, or by the service manager: {}",
                self.line()
            ));
        }
        match self.start() {
            Ok(child) => {
                log::info(format_args!("USR2: pid {} is to take over: {}", child.id(), self.line()));
                self.attempt.begin(pid_of(&child));
                spawn_local(watch(child, self.attempt()));
            }
            Err(error) => {
                let reason = log::reason(&error);
                log::warn(format_args!("USR2: cannot start {}: {reason}; this process goes on", self.line()));
            }
        }
    }

    /// Somebody has taken over: the new process is on its own from here on.
    pub(super) fn is_over(&self) {
        self.attempt.end();
    }

    /// This process is told to stop: so is the one that was to take over, which would find nobody and serve instead.
    pub(super) fn call_off(&self) {
        if let Some(pid) = self.attempt.end() {
            // It may have ended, and has not been reaped then.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }

    fn start(&self) -> io::Result<Child> {
        let program =
            self.program.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let mut command = Command::new(program);
        command.args(&self.arguments).stdin(Stdio::null());
        // Ours may be that of the process before, and then the environment does not know of it.
        if log::is_journal() {
            command.env(log::JOURNAL_STREAM, log::stderr());
        }
        command.spawn()
    }

    fn line(&self) -> String {
        let program = self.program.as_deref().unwrap_or(Path::new("balancer"));
        let words =
            std::iter::once(program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }
}

/// The file to start: the path that the user wrote, when that leads to the running program, since an upgrade may let a
/// link lead elsewhere; else the program's own path. Both mean the file that is there when the time comes.
pub(super) fn program(written: Option<&Path>) -> io::Result<PathBuf> {
    let running = env::current_exe()?;
    let is_a_path = |path: &&Path| path.components().count() > 1;
    let written = written.filter(is_a_path).and_then(|path| std::path::absolute(path).ok());
    match written {
        Some(path) if path.canonicalize().is_ok_and(|found| found == running) => Ok(path),
        _ => Ok(without_mark(running)),
    }
}

/// The kernel marks the path of a program whose file has been replaced.
fn without_mark(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

/// Until the child has ended, so that it is reaped; says so if that is a failure.
async fn watch(mut child: Child, attempt: Rc<Attempt>) {
    let pid = pid_of(&child);
    let Ok(mut ends) = signal(SignalKind::child()) else { return };
    let mut limit = std::pin::pin!(sleep(HAND_OVER_LIMIT + START_LIMIT));
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            attempt.silence().await;
            if attempt.end().is_some() {
                let why = attempt.account(status);
                log::warn(format_args!("USR2: pid {pid} has not taken over: {why}; this process goes on"));
            }
            return;
        }
        tokio::select! {
            _ = ends.recv() => {}
            () = &mut limit, if !limit.is_elapsed() => {
                if attempt.is_going() {
                    attempt.is_lost(format!("it was not ready within {:?}", HAND_OVER_LIMIT + START_LIMIT));
                    let _ = child.kill();
                }
            }
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_program_is_found_where_it_was() {
        assert_eq!(without_mark("/usr/bin/balancer (deleted)".into()), Path::new("/usr/bin/balancer"));
        assert_eq!(without_mark("/usr/bin/balancer".into()), Path::new("/usr/bin/balancer"));
    }

    #[test]
    fn a_link_is_kept_when_it_leads_here_and_only_then() {
        let folder = tempfile::tempdir().expect("folder");
        let link = folder.path().join("balancer");
        let running = env::current_exe().expect("known");
        std::os::unix::fs::symlink(&running, &link).expect("linked");
        assert_eq!(program(Some(&link)).expect("known"), link);
        assert_eq!(program(Some(Path::new("/bin/sh"))).expect("known"), running);
        assert_eq!(program(Some(Path::new("balancer"))).expect("known"), running);
    }
}
