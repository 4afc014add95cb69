//! The access log: one line a request, written by a thread of its own.
//!
//! ```text
//! 2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI persist=cookie:miss,balance>s1
//! ```
//!
//! Time, client, method, target, status, bytes of the body, duration, server, the two letters of persistence, its
//! trace, and `fault=…` when the request did not end well. Workers append to one bounded buffer and never wait for
//! the disk; what does not fit is dropped and counted.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::config::LogTarget;
use crate::log;
use crate::persist::learn::Letters;

/// Bytes of lines that wait for the writer: a second of a very busy service.
const BACKLOG: usize = 16 * 1024 * 1024;

/// Pause of the writer after a batch, so that a busy service is written in large pieces and a quiet one promptly.
const BATCH_PAUSE: Duration = Duration::from_millis(5);

/// Bytes of a target that are shown, escapes included: enough to recognise a request by.
const TARGET_LIMIT: usize = 1024;

/// What stands for the request line when there was no well-formed one. No target starts like this.
pub const NO_REQUEST: &[u8] = b"- <bad-request>";

/// A request and what became of it.
pub struct Record<'a, T> {
    /// When it ended, milliseconds since 1970.
    pub unix_millis: u64,
    /// The peer of the connection.
    pub client: SocketAddr,
    /// From [`write_request`], or [`NO_REQUEST`].
    pub request: &'a [u8],
    /// Of the response; `None`: there was nobody to send one to.
    pub status: Option<u16>,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// From the first byte of the request to the last of the response.
    pub elapsed: Duration,
    /// Who answered, or was to.
    pub server: Option<&'a str>,
    /// Of persistence.
    pub letters: Letters,
    /// Of the decision; `None`: it did not come to one.
    pub trace: Option<T>,
    /// What went wrong.
    pub fault: Option<&'static str>,
}

impl<T: Display> Record<'_, T> {
    /// Appends the line.
    pub fn write(&self, line: &mut Vec<u8>) {
        write_time(line, self.unix_millis);
        let client = SocketAddr::new(self.client.ip().to_canonical(), self.client.port());
        let micros = self.elapsed.as_micros();
        let mut text = Text(line);
        // Writing to memory does not fail.
        let _ = write!(text, " {client} ");
        text.0.extend_from_slice(self.request);
        let _ = match self.status {
            Some(status) => write!(text, " {status}"),
            None => write!(text, " -"),
        };
        let _ = write!(text, " {} {}.{}ms", self.bytes, micros / 1000, micros % 1000 / 100);
        let _ = write!(
            text,
            " {} {}{} persist=",
            self.server.unwrap_or("-"),
            self.letters.request,
            self.letters.response
        );
        let _ = match &self.trace {
            Some(trace) => write!(text, "{trace}"),
            None => write!(text, "-"),
        };
        if let Some(fault) = self.fault {
            let _ = write!(text, " fault={fault}");
        }
        line.push(b'\n');
    }
}

/// Appends method and target so that nothing a client sends can end the line or look like another field.
pub fn write_request(line: &mut Vec<u8>, method: &str, target: &str) {
    escape(line, method.as_bytes());
    line.push(b' ');
    escape(line, target.as_bytes());
}

fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let start = line.len();
    for &byte in text {
        if line.len() - start >= TARGET_LIMIT {
            line.extend_from_slice(b"...");
            return;
        }
        if byte.is_ascii_graphic() && byte != b'\\' {
            line.push(byte);
        } else {
            let _ = write!(Text(line), "\\x{byte:02x}");
        }
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// RFC 3339 in UTC.
fn write_time(line: &mut Vec<u8>, unix_millis: u64) {
    let (days, millis) = (unix_millis / 86_400_000, unix_millis % 86_400_000);
    let (year, month, day) = civil_date(days);
    let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
    let (second, milli) = (millis / 1000 % 60, millis % 1000);
    let _ = write!(Text(line), "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
}

/// Year, month and day of a count of days since 1970: the Gregorian calendar repeats every 146 097 days, and a year
/// that starts in March has its leap day last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    reopen: bool,
    closed: bool,
    /// The writer waits for [`Queue::filled`].
    waiting: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if std::mem::take(&mut state.waiting) {
            self.filled.notify_one();
        }
    }
}

/// A worker's end of the log.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Queue>);

impl Sender {
    /// Hands whole lines over, or drops them when the writer is too far behind.
    pub fn send(&self, lines: &[u8]) {
        self.0.change(|state| {
            if state.lines.len() + lines.len() > BACKLOG {
                state.dropped += 1;
            } else {
                state.lines.extend_from_slice(lines);
            }
        });
    }
}

/// The log and its thread. Dropping it writes what is left.
#[derive(Debug)]
pub struct AccessLog {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread cannot be started.
    pub fn open(target: &LogTarget) -> io::Result<Self> {
        let sink = Sink::open(target)?;
        let queue = Arc::<Queue>::default();
        let theirs = Arc::clone(&queue);
        let writer =
            thread::Builder::new().name("access-log".into()).spawn(move || write_lines(&theirs, sink))?;
        Ok(Self { queue, writer: Some(writer) })
    }

    /// An end for a worker.
    pub fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.queue))
    }

    /// Opens the file anew before the next line: it has been rotated.
    pub fn reopen(&self) {
        self.queue.change(|state| state.reopen = true);
    }

    /// Lines that were dropped since start.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.queue.change(|state| state.closed = true);
        if let Some(writer) = self.writer.take() {
            // It does not panic; and if it did, there would be nobody to tell.
            let _ = writer.join();
        }
    }
}

enum Sink {
    Stdout,
    File { file: File, path: PathBuf },
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Stdout => Self::Stdout,
            LogTarget::File(path) => Self::File { file: append_to(path)?, path: path.clone() },
        })
    }

    /// Keeps the old file when the new one cannot be opened: a line in the wrong place beats a lost one.
    fn reopen(&mut self) {
        if let Self::File { file, path } = self {
            match append_to(path) {
                Ok(opened) => *file = opened,
                Err(error) => {
                    let (path, reason) = (path.display(), log::reason(&error));
                    log::warn(format_args!("access log {path}: {reason}; still writing to the old file"));
                }
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Self::File { file, .. } => file.write_all(lines),
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

fn write_lines(queue: &Queue, mut sink: Sink) {
    let mut batch = Vec::new();
    let mut has_failed = false;
    loop {
        batch.clear();
        let mut state = queue.lock();
        while state.lines.is_empty() && !state.reopen && !state.closed {
            state.waiting = true;
            state = queue.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut batch, &mut state.lines);
        let (reopen, closed) = (std::mem::take(&mut state.reopen), state.closed);
        drop(state);
        // Lines from before the rotation belong to either file; the new one is sure to be the one that is kept.
        if reopen {
            sink.reopen();
        }
        let outcome = sink.write(&batch);
        if let (Err(error), false) = (&outcome, has_failed) {
            let reason = log::reason(error);
            log::warn(format_args!("access log: {reason}; lines are lost until it can be written again"));
        }
        has_failed = outcome.is_err();
        if closed {
            return;
        }
        thread::sleep(BATCH_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request: &[u8]) -> String {
        let mut line = Vec::new();
        let record = Record {
            unix_millis: 1_795_342_272_345,
            client: "[::ffff:10.10.1.2]:40000".parse().expect("address"),
            request,
            status: Some(200),
            bytes: 123,
            elapsed: Duration::from_micros(1_234),
            server: Some("s1"),
            letters: Letters { request: 'N', response: 'I' },
            trace: Some("cookie:miss,balance>s1"),
            fault: None,
        };
        record.write(&mut line);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_line_has_its_fields_in_order() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/path");
        assert_eq!(
            line(&request),
            "2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI \
             persist=cookie:miss,balance>s1\n"
        );
    }

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        let dates =
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (11_017, (2000, 3, 1)), (20_513, (2026, 3, 1))];
        for (days, date) in dates {
            assert_eq!(civil_date(days), date);
        }
    }

    #[test]
    fn nothing_in_a_target_can_forge_a_line_or_a_field() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/a b\n2026 \u{1b}[31m\\é\x7f");
        assert_eq!(request, br"GET /a\x20b\x0a2026\x20\x1b[31m\x5c\xc3\xa9\x7f");
        let mut long = Vec::new();
        write_request(&mut long, "GET", &"x".repeat(100_000));
        assert_eq!(long.len(), "GET ".len() + TARGET_LIMIT + "...".len());
    }

    #[test]
    fn lines_are_in_the_file_when_the_log_is_closed_and_after_a_rotation_in_the_new_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        let log = AccessLog::open(&LogTarget::File(path.clone())).expect("open");
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
    fn a_writer_that_is_too_far_behind_loses_lines_and_says_so() {
        let sender = Sender(Arc::default());
        let large = vec![b'x'; BACKLOG];
        sender.send(&large);
        sender.send(b"one too many\n");
        assert_eq!(sender.0.lock().dropped, 1);
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_refused_instead_of_waited_for() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        let error = AccessLog::open(&LogTarget::File(path)).expect_err("nobody reads");
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    }
}
