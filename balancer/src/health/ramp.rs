//! Slow start: a server that comes up gets its weight back by and by. Pure, no clock.
//!
//! Sixteen steps, from a sixteenth to all of it, as in HAProxy: enough that none of them is a shock, few enough that
//! balancing is not planned anew all the time. While a server is out its share is the first one already, so that nothing
//! happens between the moment it comes back and the moment somebody takes notice.

use std::time::{Duration, Instant};

use crate::server::{State, WHOLE};

/// How much of its weight a server has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ramp {
    /// From the first step to the whole weight; `None`: no slow start.
    length: Option<Duration>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Whole,
    /// Not in use: it begins small when it comes back.
    Out,
    Rising(Instant),
}

impl Ramp {
    /// Of a server that has been serving all the time; `is_new`: it has not.
    pub(super) fn new(length: Option<Duration>, is_new: bool) -> Self {
        Self { length, phase: if is_new { Phase::Out } else { Phase::Whole } }
    }

    /// Another length, also for who is rising.
    pub(super) fn stretch(&mut self, length: Option<Duration>) {
        self.length = length;
    }

    /// The server is in that state now. One that keeps its users has never been out: a drain that is called off starts
    /// nothing.
    pub(super) fn follow(&mut self, now: Instant, state: State) {
        match (state, self.phase) {
            (State::Down | State::Maint, _) => self.phase = Phase::Out,
            (State::Up, Phase::Out) => self.phase = Phase::Rising(now),
            _ if self.share(now) == WHOLE => self.phase = Phase::Whole,
            _ => {}
        }
    }

    /// Sixteenths of its weight.
    pub(super) fn share(&self, now: Instant) -> u32 {
        match (self.length, self.phase) {
            (None, _) | (_, Phase::Whole) => WHOLE,
            (_, Phase::Out) => 1,
            (Some(length), Phase::Rising(since)) => {
                let passed = now.saturating_duration_since(since).as_nanos();
                let steps = passed * u128::from(WHOLE) / length.as_nanos().max(1);
                (steps.min(u128::from(WHOLE - 1)) as u32) + 1
            }
        }
    }

    /// When the share changes next, should nothing happen before.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let (length, Phase::Rising(since)) = (self.length?, self.phase) else { return None };
        let share = self.share(now);
        // A step begins with the first whole nanosecond that belongs to it.
        let next = (length.as_nanos() * u128::from(share)).div_ceil(u128::from(WHOLE));
        // No flag takes a time that 64 bits of nanoseconds do not.
        let next = Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX));
        (share < WHOLE).then(|| since + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(16);

    fn after(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_server_that_comes_back_rises_in_sixteen_steps() {
        let start = Instant::now();
        let mut ramp = Ramp::new(Some(LENGTH), false);
        assert_eq!((ramp.share(start), ramp.next(start)), (16, None), "it has not been away");
        ramp.follow(start, State::Down);
        assert_eq!((ramp.share(start), ramp.next(start)), (1, None));
        ramp.follow(start, State::Up);
        for (seconds, share) in [(0.0, 1), (0.999, 1), (1.0, 2), (7.5, 8), (14.9, 15), (15.0, 16), (99.0, 16)]
        {
            assert_eq!(ramp.share(start + after(seconds)), share, "after {seconds} s");
        }
        let (mut now, mut shares) = (start, vec![1]);
        while let Some(next) = ramp.next(now) {
            now = next;
            shares.push(ramp.share(now));
        }
        assert_eq!(shares, (1..=16).collect::<Vec<_>>(), "every step is announced");
        assert_eq!(now, start + after(15.0));
    }

    #[test]
    fn steps_that_are_no_whole_number_of_nanoseconds_are_announced_all_the_same() {
        for nanos in [1, 7, 1_000_003] {
            let start = Instant::now();
            let mut ramp = Ramp::new(Some(Duration::from_nanos(nanos)), true);
            ramp.follow(start, State::Up);
            let mut now = start;
            for _ in 0..=WHOLE {
                let Some(next) = ramp.next(now) else { break };
                assert!(ramp.share(next) > ramp.share(now), "{nanos}");
                now = next;
            }
            assert_eq!(ramp.share(now), WHOLE, "{nanos}");
        }
    }

    #[test]
    fn only_who_was_out_starts_small() {
        let now = Instant::now();
        let share = |is_new, states: &[State]| {
            let mut ramp = Ramp::new(Some(LENGTH), is_new);
            states.iter().for_each(|&state| ramp.follow(now, state));
            ramp.share(now)
        };
        use State::{Down, Drain, Maint, Up};
        assert_eq!(share(false, &[Up]), WHOLE);
        assert_eq!(share(true, &[Up]), 1, "added at run time");
        assert_eq!(share(false, &[Drain, Up]), WHOLE, "its users have stayed");
        assert_eq!(share(false, &[Maint, Up]), 1);
        assert_eq!(share(false, &[Down, Drain, Up]), 1, "nobody new has come meanwhile");
        assert_eq!(
            share(false, &[Down, Up, Drain, Up]),
            1,
            "a drain does not stop the clock, nor start it anew"
        );
    }

    #[test]
    fn who_falls_again_starts_again() {
        let start = Instant::now();
        let mut ramp = Ramp::new(Some(LENGTH), true);
        ramp.follow(start, State::Up);
        ramp.follow(start + after(8.0), State::Down);
        assert_eq!(ramp.next(start + after(9.0)), None);
        ramp.follow(start + after(9.0), State::Up);
        assert_eq!(ramp.share(start + after(9.0)), 1);
        ramp.follow(start + after(40.0), State::Up);
        ramp.follow(start + after(40.0), State::Drain);
        assert_eq!(ramp.share(start), WHOLE, "it is over once and for all");
    }

    #[test]
    fn without_slow_start_the_share_is_whole() {
        let mut ramp = Ramp::new(None, true);
        let now = Instant::now();
        ramp.follow(now, State::Down);
        assert_eq!((ramp.share(now), ramp.next(now)), (WHOLE, None));
        ramp.follow(now, State::Up);
        assert_eq!((ramp.share(now), ramp.next(now)), (WHOLE, None));
    }
}
