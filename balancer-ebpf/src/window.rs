//! Counting things that live a fixed time, without a timer: two windows, the current and the one before.
//!
//! What was added in the last window or the one before may still be alive; older cannot be. The count is therefore
//! at most one window too old. Nothing here is atomic: when two CPUs add at the same instant one of the two is lost, which a
//! bound against floods can bear.

use crate::phase::HALF_OPEN_NS;

/// Half-open flows of one source, or of a service, over two windows of their lifetime.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    number: u64,
    current: u64,
    previous: u64,
}

/// The number of the window that `now` (nanoseconds) lies in.
#[inline(always)]
pub const fn number(now: u64) -> u64 {
    now / HALF_OPEN_NS
}

impl Window {
    /// A count of one, begun in window `number`.
    #[inline(always)]
    pub const fn started(number: u64) -> Self {
        Self { number, current: 1, previous: 0 }
    }

    /// How many may be alive in window `number`.
    #[inline(always)]
    pub fn count(&self, number: u64) -> u64 {
        match number.wrapping_sub(self.number) {
            0 => at_least_zero(self.current).saturating_add(at_least_zero(self.previous)),
            1 => at_least_zero(self.current),
            _ => 0,
        }
    }

    /// One more in window `number`.
    #[inline(always)]
    pub fn add(&mut self, number: u64) {
        match number.wrapping_sub(self.number) {
            0 => {
                self.current = self.current.wrapping_add(1);
                return;
            }
            1 => self.previous = self.current,
            _ => self.previous = 0,
        }
        self.current = 1;
        self.number = number;
    }

    /// One that was added in window `added` has ended.
    #[inline(always)]
    pub fn remove(&mut self, added: u64) {
        match self.number.wrapping_sub(added) {
            0 => self.current = self.current.wrapping_sub(1),
            1 => self.previous = self.previous.wrapping_sub(1),
            _ => {}
        }
    }
}

/// A race of two CPUs at the turn of a window may remove what was not counted.
#[inline(always)]
fn at_least_zero(count: u64) -> u64 {
    if count > u64::MAX / 2 { 0 } else { count }
}

const _: () = assert!(size_of::<Window>() == 24);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_two_windows_and_forgets_the_third() {
        let mut window = Window::default();
        window.add(5);
        window.add(5);
        assert_eq!(window.count(5), 2);
        window.add(6);
        assert_eq!((window.count(6), window.count(7), window.count(8)), (3, 1, 0));
        window.add(9);
        assert_eq!(window.count(9), 1);
    }

    #[test]
    fn what_ended_is_taken_off_the_window_it_was_added_in() {
        let mut window = Window::started(5);
        window.add(5);
        window.add(6);
        window.remove(5);
        assert_eq!(window.count(6), 2);
        window.remove(6);
        assert_eq!(window.count(6), 1);
        window.remove(3);
        assert_eq!(window.count(6), 1, "long gone anyway");
    }

    #[test]
    fn never_goes_below_zero() {
        let mut window = Window::started(5);
        window.remove(5);
        window.remove(5);
        assert_eq!(window.count(5), 0);
    }

    proptest! {
        /// However many are removed that were never added: a count is neither below zero nor above what was added.
        #[test]
        fn counts_no_more_than_was_added_and_never_less_than_none(
            steps in proptest::collection::vec((0_u64..3, any::<bool>(), 0_u64..4), 0..60),
        ) {
            let (mut window, mut now, mut added) = (Window::default(), 3, Vec::new());
            for (later, adds, ago) in steps {
                now += later;
                if adds {
                    window.add(now);
                    added.push(now);
                } else {
                    window.remove(now - ago.min(now));
                }
                let recent = added.iter().filter(|then| now - **then <= 1).count() as u64;
                prop_assert!(window.count(now) <= recent, "{} of {recent}", window.count(now));
            }
        }

        /// What is removed was added, as long as no two CPUs are at it: then the count is exact.
        #[test]
        fn is_exact_for_one_cpu(steps in proptest::collection::vec((0_u64..2, any::<bool>(), any::<proptest::sample::Index>()), 0..60)) {
            let (mut window, mut now, mut alive) = (Window::default(), 3, Vec::new());
            for (later, adds, which) in steps {
                now += later;
                if adds || alive.is_empty() {
                    window.add(now);
                    alive.push(now);
                } else {
                    window.remove(alive.swap_remove(which.index(alive.len())));
                }
                let recent = alive.iter().filter(|then| now - **then <= 1).count() as u64;
                prop_assert_eq!(window.count(now), recent);
            }
        }
    }
}
