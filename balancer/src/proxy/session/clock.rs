//! When a request has come how far: for the statistics, and for whoever writes a log.
//!
//! A look at the clock costs as much as a hundred instructions, so it is not looked at where nothing can have taken time.

use std::time::Instant;

use crate::stats::Elapsed;

/// The marks of one request, each as far as it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Its first byte had come.
    started: Instant,
    /// Its head was complete: a server is looked for.
    complete: Instant,
    /// A server had room.
    admitted: Option<Instant>,
    /// There was a connection to it.
    reached: Option<Instant>,
    /// The head of the final response was there.
    answered: Option<Instant>,
}

impl Clock {
    /// `has_waited`: the head did not come in one piece.
    pub(super) fn new(started: Instant, has_waited: bool) -> Self {
        let complete = if has_waited { Instant::now() } else { started };
        Self { started, complete, admitted: None, reached: None, answered: None }
    }

    /// A server has room; `has_waited`: that took time.
    pub(super) fn admitted(&mut self, has_waited: bool) {
        // After an attempt that has failed time has passed, too.
        let is_first = self.admitted.is_none();
        self.admitted = Some(if has_waited || !is_first { Instant::now() } else { self.complete });
        (self.reached, self.answered) = (None, None);
    }

    /// There is a connection; returns when that was. `is_kept`: there was one already.
    pub(super) fn reached(&mut self, is_kept: bool) -> Instant {
        let reached = self.admitted.filter(|_| is_kept).unwrap_or_else(Instant::now);
        self.reached = Some(reached);
        reached
    }

    /// The server has answered.
    pub(super) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// What took how long, now that it is over.
    pub(super) fn elapsed(&self, now: Instant) -> Elapsed {
        let since =
            |start: Option<Instant>, end: Option<Instant>| Some(end?.saturating_duration_since(start?));
        Elapsed {
            // Who was never let in has waited until now.
            queue: since(Some(self.complete), self.admitted.or(Some(now))),
            connect: since(self.admitted, self.reached),
            response: since(self.reached, self.answered),
            total: now.saturating_duration_since(self.started),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_part_ends_where_the_next_begins() {
        let pause = Duration::from_millis(2);
        let mut clock = Clock::new(Instant::now(), false);
        assert_eq!(clock.elapsed(clock.started + pause).queue, Some(pause), "never let in");
        clock.admitted(false);
        sleep(pause);
        clock.reached(false);
        sleep(pause);
        clock.answered();
        let elapsed = clock.elapsed(clock.started + 10 * pause);
        assert_eq!((elapsed.queue, elapsed.total), (Some(Duration::ZERO), 10 * pause));
        assert!(elapsed.connect >= Some(pause) && elapsed.response >= Some(pause), "{elapsed:?}");
        // It failed, and another one is tried on a connection that was kept.
        clock.admitted(false);
        assert!(clock.elapsed(clock.started).queue >= Some(2 * pause), "the first attempt is waiting, too");
        clock.reached(true);
        let elapsed = clock.elapsed(clock.started);
        assert_eq!((elapsed.connect, elapsed.response), (Some(Duration::ZERO), None));
    }
}
