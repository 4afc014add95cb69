//! What real traffic says about a server: errors in a row, and what the last one was.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use nix::errno::Errno;

/// An error of real traffic that is the server's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// It cannot be connected to: the error's number, 0 when it has not answered in time.
    NotConnected(u16),
    /// It says that it has failed.
    Status(u16),
    /// It has ended the connection without an answer.
    NoAnswer,
    /// It has ended the connection in the middle of its answer.
    CutAnswer,
    /// It has answered nothing in time.
    Silent,
    /// Its answer is malformed.
    Malformed,
    /// It has refused a connection on the fast path.
    FastRefused,
    /// It has not answered a connection on the fast path.
    FastUnanswered,
}

impl Mark {
    fn pack(self) -> u32 {
        let (kind, detail) = match self {
            Self::NotConnected(errno) => (0, errno),
            Self::Status(status) => (1, status),
            Self::NoAnswer => (2, 0),
            Self::CutAnswer => (3, 0),
            Self::Silent => (4, 0),
            Self::Malformed => (5, 0),
            Self::FastRefused => (6, 0),
            Self::FastUnanswered => (7, 0),
        };
        kind << 16 | u32::from(detail)
    }

    fn unpack(packed: u32) -> Self {
        let detail = (packed & 0xffff) as u16;
        match packed >> 16 {
            0 => Self::NotConnected(detail),
            1 => Self::Status(detail),
            2 => Self::NoAnswer,
            3 => Self::CutAnswer,
            4 => Self::Silent,
            5 => Self::Malformed,
            6 => Self::FastRefused,
            _ => Self::FastUnanswered,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotConnected(0) => f.write_str("no connection in time"),
            Self::NotConnected(errno) => {
                let error = std::io::Error::from(Errno::from_raw(i32::from(errno)));
                f.write_str(&crate::log::reason(&error))
            }
            Self::Status(status) => write!(f, "an answer {status}"),
            Self::NoAnswer => f.write_str("closed without an answer"),
            Self::CutAnswer => f.write_str("an answer that breaks off"),
            Self::Silent => f.write_str("no answer in time"),
            Self::Malformed => f.write_str("a malformed answer"),
            Self::FastRefused => f.write_str("a fast connection refused"),
            Self::FastUnanswered => f.write_str("a fast connection not answered for 3 s"),
        }
    }
}

/// Errors in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Streak {
    /// How many.
    pub count: u32,
    /// The last one.
    pub last: Mark,
}

/// The errors in a row of one server, told by all workers: one word, so that a request costs one atomic access.
#[derive(Debug, Default)]
pub struct Marks(CachePadded<AtomicU64>);

impl Marks {
    /// Traffic has gone well. Mostly only a read, of a word that nobody writes while all is well.
    pub fn succeeded(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// Traffic has gone wrong; how often in a row it has.
    pub(super) fn failed(&self, mark: Mark) -> u32 {
        let next = |word: u64| {
            let count = u64::from(((word >> 32) as u32).saturating_add(1));
            Some(count << 32 | u64::from(mark.pack()))
        };
        // Never refused: `next` is always `Some`.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(0);
        ((before >> 32) as u32).saturating_add(1)
    }

    /// The errors since the last success.
    pub fn streak(&self) -> Option<Streak> {
        let word = self.0.load(Ordering::Relaxed);
        let count = (word >> 32) as u32;
        (count > 0).then(|| Streak { count, last: Mark::unpack(word as u32) })
    }

    /// What was said is dealt with.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_row_are_counted_and_the_last_one_is_known() {
        let marks = Marks::default();
        assert_eq!(marks.streak(), None);
        assert_eq!(marks.failed(Mark::NotConnected(111)), 1);
        assert_eq!(marks.failed(Mark::Status(503)), 2);
        assert_eq!(marks.streak(), Some(Streak { count: 2, last: Mark::Status(503) }));
        marks.succeeded();
        assert_eq!(marks.streak(), None);
        assert_eq!(marks.failed(Mark::NotConnected(0)), 1);
        marks.clear();
        assert_eq!(marks.streak(), None);
    }

    #[test]
    fn every_error_is_told_as_it_was() {
        let table = [
            (Mark::NotConnected(111), "connection refused"),
            (Mark::NotConnected(0), "no connection in time"),
            (Mark::Status(599), "an answer 599"),
            (Mark::NoAnswer, "closed without an answer"),
            (Mark::CutAnswer, "an answer that breaks off"),
            (Mark::Silent, "no answer in time"),
            (Mark::Malformed, "a malformed answer"),
            (Mark::FastRefused, "a fast connection refused"),
            (Mark::FastUnanswered, "a fast connection not answered for 3 s"),
        ];
        for (mark, text) in table {
            assert_eq!((Mark::unpack(mark.pack()), mark.to_string().as_str()), (mark, text));
        }
    }

    #[test]
    fn no_error_of_several_threads_is_lost() {
        let marks = Marks::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| {
                        marks.failed(Mark::Silent);
                    });
                });
            }
        });
        assert_eq!(marks.streak().map(|streak| streak.count), Some(4000));
    }
}
