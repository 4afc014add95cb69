//! The thread that takes the lines to their file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::queue::{Orders, Queue, Sender};
use super::record::Layout;
use crate::config::{AccessLogConfig, LogTarget, Owner};
use crate::log::{self, Complaint};

/// Pause of the writer after a batch, so that a busy service is written in large pieces and a quiet one promptly.
const BATCH_PAUSE: Duration = Duration::from_millis(5);

/// The log's target, open; the thread is missing still. Threads are not started before privileges are given up.
pub struct Opened {
    target: Target,
    layout: Layout,
}

impl Opened {
    /// Opens the target for the lines of `service`; a file that is made here is `owner`'s. One that was there stays whose it is: a link could lead
    /// to it.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn new(config: &AccessLogConfig, service: &str, owner: Option<&Owner>) -> io::Result<Self> {
        if let (LogTarget::File(path), Some(owner)) = (&config.target, owner)
            && let Ok(file) = OpenOptions::new().append(true).create_new(true).open(path)
        {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(Self { target: Target::open(&config.target)?, layout: Layout::new(config.format, service) })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(self) -> io::Result<AccessLog> {
        let Self { target, layout } = self;
        let queue = Arc::<Queue>::default();
        let theirs = Arc::clone(&queue);
        let writer =
            thread::Builder::new().name("access-log".into()).spawn(move || write_lines(&theirs, target))?;
        Ok(AccessLog { queue, layout: Arc::new(layout), writer: Some(writer) })
    }
}

/// The log and its thread. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    queue: Arc<Queue>,
    layout: Arc<Layout>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn open(config: &AccessLogConfig, service: &str) -> io::Result<Self> {
        Opened::new(config, service, None)?.start()
    }

    /// An end for a worker.
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.queue), Arc::clone(&self.layout))
    }

    /// Opens the file anew before the next line: it has been rotated.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// The next line goes there, and all that follow.
    pub fn write_to(&self, target: Target) {
        self.queue.write_to(target);
    }

    /// Lines that were dropped since start.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It does not panic; and if it did, there would be nobody to tell.
            let _ = writer.join();
        }
    }
}

/// Where lines go, open.
#[derive(Debug)]
pub struct Target(Open);

#[derive(Debug)]
enum Open {
    Stdout,
    File { file: File, path: PathBuf },
}

impl Target {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(Self(match target {
            LogTarget::Stdout => Open::Stdout,
            LogTarget::File(path) => Open::File { file: append_to(path)?, path: path.clone() },
        }))
    }

    /// Keeps the old file when the new one cannot be opened: a line in the wrong place beats a lost one.
    fn reopen(&mut self) {
        if let Open::File { file, path } = &mut self.0 {
            match append_to(path) {
                Ok(opened) => {
                    *file = opened;
                    log::info(format_args!("access log {} opened anew", path.display()));
                }
                Err(error) => {
                    let (path, reason) = (path.display(), log::reason(&error));
                    log::warn(format_args!(
                        "access log {path} cannot be opened anew: {reason}; lines go on to the old file, \
                         until a HUP finds it mended"
                    ));
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Open::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Open::File { file, .. } => file.write_all(lines),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Open::Stdout => f.write_str("-"),
            Open::File { path, .. } => path.display().fmt(f),
        }
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    // A FIFO that nobody reads is an error, instead of an open() that never returns.
    let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(file)
}

fn write_lines(queue: &Queue, mut target: Target) {
    let mut batch = Vec::new();
    let mut has_failed = false;
    let (mut dropped, mut complaint) = (0, Complaint::default());
    loop {
        batch.clear();
        let Orders { reopen, target: other, closed } = queue.take(&mut batch);
        // Lines from before the rotation belong to either file; the new one is sure to be the one that is kept.
        if reopen {
            target.reopen();
        }
        if let Some(other) = other {
            target = other;
        }
        let outcome = target.write(&batch);
        if let (Err(error), false) = (&outcome, has_failed) {
            let reason = log::reason(error);
            log::warn(format_args!(
                "access log {target} cannot be written: {reason}; lines are lost until it can, and clients \
                 are served"
            ));
        }
        if has_failed && outcome.is_ok() && !batch.is_empty() {
            log::info(format_args!("access log {target} is written again"));
        }
        has_failed = outcome.is_err() || has_failed && batch.is_empty();
        let now = queue.dropped();
        if std::mem::replace(&mut dropped, now) != now {
            complaint.make(format_args!(
                "access log {target} is written more slowly than requests come: {now} lines are lost so far"
            ));
        }
        if closed {
            return;
        }
        thread::sleep(BATCH_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn open(path: PathBuf) -> io::Result<AccessLog> {
        let config = AccessLogConfig { target: LogTarget::File(path), format: LogFormat::Text };
        AccessLog::open(&config, "web")
    }

    #[test]
    fn lines_are_in_the_file_when_the_log_is_closed_and_after_a_rotation_in_the_new_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        let log = open(path.clone()).expect("open");
        log.sender().send(b"one\n");
        while std::fs::read(&path).expect("read").is_empty() {
            thread::yield_now();
        }
        std::fs::rename(&path, folder.path().join("log.1")).expect("rotate");
        log.reopen();
        log.sender().send(b"two\n");
        assert_eq!(log.dropped(), 0);
        drop(log);
        assert_eq!(std::fs::read(&path).expect("read"), b"two\n");
        assert_eq!(std::fs::read(folder.path().join("log.1")).expect("read"), b"one\n");
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_refused_instead_of_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let error = open(path).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    }
}
