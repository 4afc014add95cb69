//! The less loaded of two drawn at random: nearly as even as knowing everybody's load, without the herd that runs to
//! the one that looks idle (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use super::leastconn::Load;

/// Draws two by weight from `loads`, which are not empty, and takes the less loaded. `draw`: random.
pub(super) fn choose(loads: &[Load], draw: u64) -> Option<usize> {
    let total: u64 = loads.iter().map(|load| u64::from(load.weight)).sum();
    let (one, other) = (drawn(loads, total, draw >> 32)?, drawn(loads, total, draw & 0xffff_ffff)?);
    Some(if other.is_less_than(one) { other.place } else { one.place })
}

/// `draw` is 32 bits wide, taken as a fraction of `total`.
fn drawn(loads: &[Load], total: u64, draw: u64) -> Option<Load> {
    let mut left = (draw * total) >> 32;
    loads.iter().copied().find(|load| match left.checked_sub(u64::from(load.weight)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(of: &[(u32, u32)]) -> Vec<Load> {
        of.iter().enumerate().map(|(place, &(busy, weight))| Load { place, busy, weight }).collect()
    }

    #[test]
    fn takes_the_less_loaded_of_the_two_it_draws() {
        let loads = loads(&[(9, 1), (2, 1), (0, 2)]);
        let quarter = 1_u64 << 30;
        assert_eq!(choose(&loads, 0), Some(0), "twice the same");
        assert_eq!(choose(&loads, quarter), Some(1));
        assert_eq!(choose(&loads, (quarter << 32) | (2 * quarter)), Some(2));
        assert_eq!(choose(&loads, u64::MAX), Some(2));
        assert_eq!(choose(&[], 0), None);
    }
}
