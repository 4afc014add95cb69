//! What the operator reads on stderr: one line each, its weight first.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// Something the operator may like to know.
pub fn info(message: impl Display) {
    line("info", &message);
}

/// Something the operator should look at; the service goes on.
pub fn warn(message: impl Display) {
    line("warn", &message);
}

/// Something that stops the service or a part of it.
pub fn error(message: impl Display) {
    line("error", &message);
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

fn line(weight: &str, message: &dyn Display) {
    // One write, so that lines of several threads do not mix. Whoever closed our stderr does not want to know.
    let _ = io::stderr().write_all(one_line(&format!("{weight}: {message}")).as_bytes());
}

/// `text` as exactly one line: names and values come from outside and may hold line ends or terminal codes.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.push('\n');
    line
}

/// The first few names, and how many more there are.
pub(crate) fn first_few<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
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
    }
}
