//! What the operator reads on stderr: one line each, its weight first.
//!
//! Where stderr is the journal, which `JOURNAL_STREAM` tells, a line begins with its priority as sd-daemon(3) has it,
//! and the journal takes that off again.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::fstat;

/// How much a line matters, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Level {
    /// Something that stops the service or a part of it.
    Error,
    /// Something the operator should look at; the service goes on.
    Warn,
    /// Something the operator may like to know.
    #[default]
    Info,
}

impl Level {
    /// The word that lines begin with.
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }

    /// What syslog(3) and the journal know it as.
    const fn priority(self) -> &'static str {
        match self {
            Self::Error => "<3>",
            Self::Warn => "<4>",
            Self::Info => "<6>",
        }
    }
}

/// What is written: this and what is more urgent. Until it is set everything is.
static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// What tells a process that its stderr is the journal. It may have been inherited from somebody whose stderr was, while
/// ours is a file: so it says which.
pub(crate) const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Stderr is the journal.
static IS_JOURNAL: LazyLock<AtomicBool> =
    LazyLock::new(|| AtomicBool::new(std::env::var(JOURNAL_STREAM).is_ok_and(|stream| stream == stderr())));

/// Our stderr, as [`JOURNAL_STREAM`] has it.
pub(crate) fn stderr() -> String {
    fstat(io::stderr()).map(|stderr| format!("{}:{}", stderr.st_dev, stderr.st_ino)).unwrap_or_default()
}

/// Whether stderr is the journal.
pub(crate) fn is_journal() -> bool {
    IS_JOURNAL.load(Ordering::Relaxed)
}

/// Stderr is another one now.
pub(crate) fn set_journal(is_journal: bool) {
    IS_JOURNAL.store(is_journal, Ordering::Relaxed);
}

/// Lines that are less urgent than `level` are not written from here on (`--log-level`).
pub fn limit(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
}

/// See [`Level::Info`].
pub fn info(message: impl Display) {
    line(Level::Info, &message);
}

/// See [`Level::Warn`].
pub fn warn(message: impl Display) {
    line(Level::Warn, &message);
}

/// See [`Level::Error`].
pub fn error(message: impl Display) {
    line(Level::Error, &message);
}

/// What the journal wants a line of that weight to begin with; nothing where stderr is something else.
pub(crate) fn prefix(level: Level) -> &'static str {
    if is_journal() { level.priority() } else { "" }
}

/// Between two complaints of the same kind.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A warning that may be due many times a second and is worth a line once in a while.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    /// Warns, unless that was done a moment ago.
    pub(crate) fn make(&mut self, message: impl Display) {
        if self.last.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            self.last = Some(Instant::now());
            warn(message);
        }
    }
}

fn line(level: Level, message: &dyn Display) {
    if level as u8 > LEAST.load(Ordering::Relaxed) {
        return;
    }
    let line = one_line(&format!("{}{}: {message}", prefix(level), level.word()));
    // One write, so that lines of several threads do not mix. Whoever closed our stderr does not want to know.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// `text` as exactly one line: names and values come from outside and may hold line ends or terminal codes.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.trim_end().chars().map(plain).collect();
    line.push('\n');
    line
}

/// A space instead of what controls a terminal, is not seen, or turns the direction of writing (Unicode's `Bidi_Control`): a
/// line is what it looks like.
pub(crate) fn plain(c: char) -> char {
    let is_hidden = matches!(c,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || is_hidden { ' ' } else { c }
}

/// The first few names, and how many more there are.
pub(crate) fn first_few<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// `1 connection`, `2 connections`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// An error and what has led to it, in words alone, and what to do where descriptors have run out.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let code = |cause: &(dyn Error + 'static)| {
        let of_io = cause.downcast_ref().and_then(io::Error::raw_os_error);
        of_io.or_else(|| cause.downcast_ref::<Errno>().map(|errno| *errno as i32))
    };
    let told = |cause: &(dyn Error + 'static)| {
        code(cause).map_or_else(|| cause.to_string(), |code| reason(&io::Error::from_raw_os_error(code)))
    };
    let line = error.chain().map(told).collect::<Vec<_>>().join(": ");
    let is_shortage = |cause| matches!(code(cause), Some(libc::EMFILE | libc::ENFILE));
    let remedy = if error.chain().any(is_shortage) { "; raise the descriptor limit (ulimit -n)" } else { "" };
    line + remedy
}

/// Why a system call failed, as it stands inside a sentence: `connection refused`.
pub fn reason(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let text = Errno::from_raw(code).desc();
    let mut chars = text.chars();
    match chars.next() {
        // An abbreviation (`I/O error`) keeps its case.
        Some(first) if chars.as_str().starts_with(|c: char| c.is_lowercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_part_of_a_sentence() {
        let of = |errno: Errno| reason(&io::Error::from_raw_os_error(errno as i32));
        assert_eq!(of(Errno::ECONNREFUSED), "connection refused");
        assert_eq!(of(Errno::EIO), "I/O error");
        assert_eq!(reason(&io::Error::other("it broke")), "it broke");
    }

    #[test]
    fn a_chain_of_causes_has_no_numbers_of_the_kernel_and_says_what_to_do_about_a_shortage() {
        let of = |error: anyhow::Error| chain(&error.context("cannot open x"));
        assert_eq!(of(io::Error::from_raw_os_error(libc::EACCES).into()), "cannot open x: permission denied");
        assert_eq!(of(Errno::EACCES.into()), "cannot open x: permission denied");
        assert_eq!(
            of(io::Error::from_raw_os_error(libc::EMFILE).into()),
            "cannot open x: too many open files; raise the descriptor limit (ulimit -n)"
        );
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let names: Vec<_> = (1..=10).map(|n| format!("s{n}")).collect();
        let shown = |count: usize| first_few(names[..count].iter().map(String::as_str));
        assert_eq!(shown(2), "s1, s2");
        assert_eq!(shown(8), "s1, s2, s3, s4, s5, s6, s7, s8");
        assert_eq!(shown(10), "s1, s2, s3, s4, s5, s6, s7, s8 and 2 more");
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line("a\nb\x1b[31m\n"), "a b [31m\n");
        assert_eq!(one_line("é\u{202e}b\u{200b}c"), "é b c\n");
        assert_eq!(one_line("s\u{202e}1 is gone"), "s 1 is gone\n");
    }
}
