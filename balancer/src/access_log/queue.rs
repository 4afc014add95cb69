//! Lines on their way from the workers to the writer.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::record::Layout;
use super::writer::Target;

/// Bytes of lines that wait for the writer: a second of a very busy service.
const BACKLOG: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    reopen: bool,
    target: Option<Target>,
    closed: bool,
    /// The writer waits for [`Queue::filled`].
    waiting: bool,
}

/// What workers and writer share.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

/// What the writer is to do besides writing what it took.
pub(super) struct Orders {
    /// Open the file anew first.
    pub(super) reopen: bool,
    /// Write to this from now on.
    pub(super) target: Option<Target>,
    /// There will be no more.
    pub(super) closed: bool,
}

impl Queue {
    /// Waits for something to do; swaps the lines that are there for the empty `batch`.
    pub(super) fn take(&self, batch: &mut Vec<u8>) -> Orders {
        let mut state = self.lock();
        while state.lines.is_empty() && !state.reopen && state.target.is_none() && !state.closed {
            state.waiting = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(batch, &mut state.lines);
        Orders {
            reopen: std::mem::take(&mut state.reopen),
            target: state.target.take(),
            closed: state.closed,
        }
    }

    /// The file is to be opened anew before the next line.
    pub(super) fn reopen(&self) {
        self.change(|state| state.reopen = true);
    }

    /// Lines go there from now on.
    pub(super) fn write_to(&self, target: Target) {
        self.change(|state| state.target = Some(target));
    }

    /// What is there is the last.
    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// Lines that were dropped since start.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

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
pub struct Sender {
    queue: Arc<Queue>,
    /// What the lines are to look like.
    pub layout: Arc<Layout>,
}

impl Sender {
    pub(super) fn new(queue: Arc<Queue>, layout: Arc<Layout>) -> Self {
        Self { queue, layout }
    }

    /// Lines that were dropped since start.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Hands whole lines over, or drops them when the writer is too far behind.
    pub fn send(&self, lines: &[u8]) {
        self.queue.change(|state| {
            if state.lines.len() + lines.len() > BACKLOG {
                state.dropped += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
            } else {
                state.lines.extend_from_slice(lines);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    #[test]
    fn a_writer_that_is_too_far_behind_loses_lines_and_says_so() {
        let sender = Sender::new(Arc::default(), Arc::new(Layout::new(LogFormat::Text, "web")));
        let large = vec![b'x'; BACKLOG];
        sender.send(&large);
        sender.send(b"one too many\n");
        assert_eq!(sender.queue.dropped(), 1);
    }
}
