//! Least connections, weighted: whoever has the least to do for what it can.

use std::cmp::Ordering;

/// What a server has to do, and what it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Load {
    pub(super) place: usize,
    /// Requests being served.
    pub(super) busy: u32,
    /// Not 0.
    pub(super) weight: u32,
}

impl Load {
    /// Has less to do for its weight than `other`. Idle ones are equal, whatever their weights.
    pub(super) fn is_less_than(self, other: Self) -> bool {
        self.order(other).is_lt()
    }

    /// By what they have to do for their weights.
    pub(super) fn order(self, other: Self) -> Ordering {
        let (ours, theirs) = (u64::from(self.busy), u64::from(other.busy));
        (ours * u64::from(other.weight)).cmp(&(theirs * u64::from(self.weight)))
    }
}

/// The least loaded one; of equals the first, so whoever calls starts at another one each time.
pub(super) fn least(loads: impl Iterator<Item = Load>) -> Option<usize> {
    loads.reduce(|best, next| if next.is_less_than(best) { next } else { best }).map(|load| load.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least_of(loads: &[(u32, u32)]) -> Option<usize> {
        least(loads.iter().enumerate().map(|(place, &(busy, weight))| Load { place, busy, weight }))
    }

    #[test]
    fn the_least_loaded_for_its_weight() {
        assert_eq!(least_of(&[(3, 1), (1, 1), (2, 1)]), Some(1));
        assert_eq!(least_of(&[(3, 4), (1, 1)]), Some(0));
        assert_eq!(least_of(&[(0, 1), (0, 256)]), Some(0));
        assert_eq!(least_of(&[(1, 1), (1, 1)]), Some(0));
        assert_eq!(least_of(&[(u32::MAX, 1), (u32::MAX, 256)]), Some(1));
        assert_eq!(least_of(&[]), None);
    }
}
