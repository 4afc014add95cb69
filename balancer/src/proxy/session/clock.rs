//! When a request has come how far: for the statistics, and for whoever writes a log.
//!
//! A look at the clock costs as much as a hundred instructions, so it is not looked at where nothing can have taken time.

use std::time::Instant;

use crate::access_log::Times;
use crate::stats::Elapsed;

/// Where a request is at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::proxy) enum Phase {
    /// Its head is not complete.
    Head,
    /// No server has room, or none may have it.
    Queue,
    /// The server is being connected to.
    Connect,
    /// The head of the answer is not complete.
    Answer,
    /// Its body, or that of the answer.
    Data,
}

impl Phase {
    /// HAProxy's.
    pub(in crate::proxy) fn letter(self) -> u8 {
        match self {
            Self::Head => b'R',
            Self::Queue => b'Q',
            Self::Connect => b'C',
            Self::Answer => b'H',
            Self::Data => b'D',
        }
    }
}

/// What has held a request up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delays {
    /// Attempts to connect after the first.
    pub(super) retries: u32,
    /// The first server that had room.
    pub(super) first_server: Option<usize>,
    /// It was sent to another one.
    pub(super) was_moved: bool,
    /// The last attempt to connect has ended by `--timeout-connect`.
    pub(super) has_timed_out: bool,
    /// Where it stood among those who waited for its server, and for any; 0: it did not wait.
    pub(super) waited_behind: (u32, u32),
}

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
    /// What has held it up.
    pub(super) delays: Delays,
}

impl Clock {
    /// `has_waited`: the head did not come in one piece.
    pub(super) fn new(started: Instant, has_waited: bool) -> Self {
        let complete = if has_waited { Instant::now() } else { started };
        Self { started, complete, admitted: None, reached: None, answered: None, delays: Delays::default() }
    }

    /// A server has room; `has_waited`: that took time.
    pub(super) fn admitted(&mut self, has_waited: bool) {
        // After an attempt that has failed time has passed, too.
        let is_first = self.admitted.is_none();
        self.admitted = Some(if has_waited || !is_first { Instant::now() } else { self.complete });
        (self.reached, self.answered) = (None, None);
    }

    /// The server that has room is the one at `place`.
    pub(super) fn goes_to(&mut self, place: usize) {
        let delays = &mut self.delays;
        delays.was_moved |= *delays.first_server.get_or_insert(place) != place;
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

    /// How far it has come.
    pub(super) fn phase(&self) -> Phase {
        match (self.admitted, self.reached, self.answered) {
            (None, ..) => Phase::Queue,
            (_, None, _) => Phase::Connect,
            (_, _, None) => Phase::Answer,
            _ => Phase::Data,
        }
    }

    /// What took how long, for a log. Who was never let in has waited, or was sent away at once.
    pub(super) fn times(&self) -> Times {
        let Elapsed { queue, connect, response, .. } = self.elapsed(Instant::now());
        let has_queued = self.admitted.is_some() || self.delays.waited_behind != (0, 0);
        let head = Some(self.complete.saturating_duration_since(self.started));
        Times { head, queue: queue.filter(|_| has_queued), connect, response }
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
        assert_eq!((clock.phase(), clock.times().queue), (Phase::Queue, None), "it has not waited either");
        clock.admitted(false);
        assert_eq!((clock.phase(), clock.times().queue), (Phase::Connect, Some(Duration::ZERO)));
        sleep(pause);
        clock.reached(false);
        sleep(pause);
        assert_eq!((clock.phase(), clock.times().response), (Phase::Answer, None));
        clock.answered();
        assert_eq!(clock.phase(), Phase::Data);
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
