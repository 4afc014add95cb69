//! Events of the last second, and the most there were in one.
//!
//! What is counted is looked at four times a second. A burst that is shorter than three quarters of a second is never
//! cut in two, so its peak is exact.

use std::collections::VecDeque;
use std::time::Duration;

/// From one look to the next.
pub const LOOK: Duration = Duration::from_millis(250);

/// Looks in the window of a second.
const LOOKS: usize = 4;

/// One counter, observed.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// What the counter was at the last looks, the latest first; it began at zero.
    seen: VecDeque<u64>,
    most: u64,
}

impl Rate {
    /// The counter says so, [`LOOK`] after the last time.
    pub fn look(&mut self, count: u64) {
        self.seen.push_front(count);
        self.seen.truncate(LOOKS + 1);
        self.most = self.most.max(self.now(count, Duration::ZERO));
    }

    /// Events in the second before now: the counter says so, and the last look is so long ago.
    pub fn now(&self, count: u64, since_look: Duration) -> u64 {
        let at = |look: usize| self.seen.get(look).copied().unwrap_or(0) as f64;
        let (before, after) = (at(LOOKS), at(LOOKS - 1));
        let share = (since_look.as_secs_f64() / LOOK.as_secs_f64()).min(1.0);
        let then = before + (after - before) * share;
        (count as f64 - then).max(0.0).round() as u64
    }

    /// The most there were, and there are `now`.
    pub fn most(&self, now: u64) -> u64 {
        self.most.max(now)
    }

    /// Begins anew to look for the most.
    pub fn forget_most(&mut self) {
        self.most = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_a_second() {
        let mut rate = Rate::default();
        assert_eq!(rate.now(3, LOOK / 2), 3, "before the first look");
        for count in [3, 3, 3] {
            rate.look(count);
        }
        assert_eq!((rate.now(3, Duration::ZERO), rate.most(0)), (3, 3));
        rate.look(7);
        assert_eq!(rate.now(7, Duration::ZERO), 7, "the first three are less than a second old");
        rate.look(7);
        assert_eq!(rate.now(7, Duration::ZERO), 4);
        assert_eq!(rate.now(9, LOOK), 6, "a moment before the next look");
        for _ in 0..5 {
            rate.look(7);
        }
        assert_eq!((rate.now(7, Duration::ZERO), rate.most(0), rate.most(9)), (0, 7, 9));
        rate.forget_most();
        assert_eq!(rate.most(1), 1);
    }

    #[test]
    fn a_steady_stream_has_its_rate() {
        let mut rate = Rate::default();
        (0..20).for_each(|look| rate.look(look * 25));
        for (tenths, count) in [(0, 475), (1, 485), (2, 495)] {
            assert_eq!(rate.now(count, Duration::from_millis(tenths * 100)), 100);
        }
    }
}
