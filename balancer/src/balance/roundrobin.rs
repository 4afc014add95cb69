//! Weighted round robin, smooth: turns in proportion to the weights, and those of a heavy server spread out instead of
//! in a row (the algorithm of nginx's `ngx_http_upstream_round_robin.c`, 2012).

/// A whole round, written down: who is in it is looked up, not computed, so one shared counter is all that moves.
#[derive(Debug, Default)]
pub(super) struct Schedule(Vec<u16>);

impl Schedule {
    /// From the servers' places and weights. Those without weight have no turn.
    pub(super) fn new(weights: &[(u16, u32)]) -> Self {
        let divisor = weights.iter().fold(0, |divisor, &(_, weight)| gcd(divisor, weight)).max(1);
        let mut standing: Vec<_> = weights
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|&(place, weight)| (place, i64::from(weight / divisor), 0_i64))
            .collect();
        let total: i64 = standing.iter().map(|(_, weight, _)| weight).sum();
        if standing.iter().all(|(_, weight, _)| *weight == 1) {
            return Self(standing.iter().map(|(place, ..)| *place).collect());
        }
        let round = (0..total).filter_map(|_| {
            standing.iter_mut().for_each(|(_, weight, credit)| *credit += *weight);
            // The first of equals, which `max_by_key` would not give.
            let next = standing.iter_mut().rev().max_by_key(|(_, _, credit)| *credit)?;
            next.2 -= total;
            Some(next.0)
        });
        Self(round.collect())
    }

    /// Turns of a round.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The servers from that turn on, each turn of the round once.
    pub(super) fn from(&self, turn: u64) -> impl Iterator<Item = usize> {
        let start = if self.0.is_empty() { 0 } else { (turn % self.0.len() as u64) as usize };
        self.0[start..].iter().chain(&self.0[..start]).map(|&place| usize::from(place))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &[u32]) -> Vec<u16> {
        Schedule::new(&weights.iter().zip(0..).map(|(&weight, place)| (place, weight)).collect::<Vec<_>>()).0
    }

    #[test]
    fn turns_are_spread_out() {
        assert_eq!(round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round(&[100, 100]), [0, 1]);
        assert_eq!(round(&[2, 0, 1]), [0, 2, 0]);
        assert!(round(&[0, 0]).is_empty());
        assert!(round(&[]).is_empty());
    }

    #[test]
    fn a_turn_starts_the_round_where_it_stands() {
        let schedule = Schedule::new(&[(7, 1), (8, 1), (9, 1)]);
        assert_eq!(schedule.from(4).collect::<Vec<_>>(), [8, 9, 7]);
        assert_eq!(Schedule::new(&[]).from(4).next(), None);
    }

    proptest! {
        #[test]
        fn everyone_gets_exactly_their_share_and_no_long_row(weights in proptest::collection::vec(0_u32..=256, 1..12)) {
            let round = round(&weights);
            let total: u32 = weights.iter().sum();
            for (place, &weight) in weights.iter().enumerate() {
                let turns = round.iter().filter(|&&turn| usize::from(turn) == place).count();
                prop_assert_eq!(turns as u64 * u64::from(total), round.len() as u64 * u64::from(weight));
            }
            // Within any stretch nobody is more than one turn per server ahead of their share.
            let mut so_far = vec![0_f64; weights.len()];
            for (turn, &place) in round.iter().enumerate() {
                so_far[usize::from(place)] += 1.0;
                let share = f64::from(weights[usize::from(place)]) / f64::from(total);
                prop_assert!(so_far[usize::from(place)] <= share * (turn + 1) as f64 + weights.len() as f64);
            }
        }
    }
}
