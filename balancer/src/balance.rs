//! `--balance`: who gets a request that no persistence method has decided.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use crate::persist::decide::Refused;
use crate::server::{Servers, State};

/// One after the other, over one cursor that all workers share: users notice when it is not even.
#[derive(Debug, Default)]
pub struct RoundRobin {
    cursor: CachePadded<AtomicUsize>,
}

impl RoundRobin {
    /// The next server that is up and has not `refused` this request already; `None`: there is none.
    pub fn pick(&self, servers: &Servers, refused: &Refused) -> Option<usize> {
        let usable = |index: &usize| servers[*index].state() == State::Up && !refused.contains(*index);
        let count = (0..servers.len()).filter(usable).count();
        if count == 0 {
            return None;
        }
        // Counting over the usable ones keeps the shares even while some are out.
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % count;
        // A server that left since they were counted must not make the last one look like none.
        (0..servers.len()).filter(usable).nth(turn).or_else(|| (0..servers.len()).find(usable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Operator;
    use crate::server::tests::servers;

    #[test]
    fn goes_round_and_leaves_out_who_takes_nobody() {
        let (set, balance) = (servers(3), RoundRobin::default());
        let picks: Vec<_> = (0..6).filter_map(|_| balance.pick(&set, &Refused::default())).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
        set.set_operator(1, Operator::Drain);
        let picks: Vec<_> = (0..4).filter_map(|_| balance.pick(&set, &Refused::default())).collect();
        assert_eq!(picks.iter().filter(|&&p| p == 0).count(), 2);
        assert_eq!(picks.iter().filter(|&&p| p == 2).count(), 2);
    }

    #[test]
    fn passes_over_who_refused_this_request() {
        let (set, balance) = (servers(70), RoundRobin::default());
        (2..68).for_each(|index| {
            set.set_operator(index, Operator::Maint);
        });
        let mut refused = Refused::default();
        [0, 68].into_iter().for_each(|index| refused.insert(index));
        let mut picks: Vec<_> = (0..4).filter_map(|_| balance.pick(&set, &refused)).collect();
        picks.sort_unstable();
        assert_eq!(picks, [1, 1, 69, 69]);
        [1, 69].into_iter().for_each(|index| refused.insert(index));
        assert_eq!(balance.pick(&set, &refused), None);
    }
}
