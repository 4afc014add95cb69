//! A count that never passes its limit, with both in one word, so that nobody sees the one without the other.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many are taken (the lower half), of how many (the upper half).
#[derive(Debug)]
pub(super) struct Slots(AtomicU64);

impl Slots {
    pub(super) fn new(limit: u32) -> Self {
        Self(AtomicU64::new(pack(0, limit)))
    }

    /// Takes one, if there is one.
    pub(super) fn take(&self) -> bool {
        self.change(|taken, limit| (taken < limit).then(|| (taken + 1, limit)))
    }

    /// Gives one back that was taken.
    ///
    /// Whoever then finds nobody waiting has not overlooked anybody who has found no slot before: both sides write
    /// first and look afterwards, in the one order that all threads agree on. See [`super`].
    pub(super) fn give_back(&self) {
        self.change(|taken, limit| Some((taken.saturating_sub(1), limit)));
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> u32 {
        unpack(self.0.load(Ordering::SeqCst)).0
    }

    /// One could be taken.
    pub(super) fn has_room(&self) -> bool {
        let (taken, limit) = unpack(self.0.load(Ordering::SeqCst));
        taken < limit
    }

    /// Sets the limit to what `of` makes of the number that are taken and of the limit so far. `None`: it stays.
    pub(super) fn set_limit(&self, mut of: impl FnMut(u32, u32) -> Option<u32>) -> bool {
        self.change(|taken, limit| of(taken, limit).map(|limit| (taken, limit)))
    }

    fn change(&self, mut change: impl FnMut(u32, u32) -> Option<(u32, u32)>) -> bool {
        let change = |word| {
            let (taken, limit) = unpack(word);
            change(taken, limit).map(|(taken, limit)| pack(taken, limit))
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).is_ok()
    }
}

fn pack(taken: u32, limit: u32) -> u64 {
    u64::from(limit) << 32 | u64::from(taken)
}

fn unpack(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_and_what_is_over_a_new_one_may_stay() {
        let slots = Slots::new(2);
        assert!(slots.take() && slots.take() && !slots.take() && !slots.has_room());
        assert!(slots.set_limit(|taken, limit| Some(taken + limit)));
        assert!(slots.take() && slots.take() && !slots.take());
        assert!(slots.set_limit(|_, _| Some(1)) && !slots.set_limit(|_, _| None));
        (0..3).for_each(|_| slots.give_back());
        assert_eq!((slots.taken(), slots.take()), (1, false));
        slots.give_back();
        assert!(slots.take());
    }
}
