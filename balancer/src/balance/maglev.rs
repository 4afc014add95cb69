//! Consistent hashing by a lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, §3.4): even shares, and a server that leaves moves its own share and little more.
//!
//! Names are hashed, under a fixed key: instances of a fleet agree as long as they see the same servers, whatever the
//! order of their flags.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Slots of a table: a prime, a hundred times as many as the servers of most services, so that shares differ by less
/// than a percent. The paper's own choice for small tables.
const SLOTS: usize = 65_537;

/// Server by slot.
#[derive(Debug)]
pub(super) struct Table(Box<[u16]>);

/// A server's own order of preference among the slots.
struct Permutation {
    place: u16,
    weight: u64,
    /// What it has been due, in units of the largest weight.
    due: u64,
    slot: usize,
    skip: usize,
}

impl Table {
    /// From the servers' places, names and weights. Those without weight get no slot.
    pub(super) fn new(servers: &[(u16, &str, u32)]) -> Self {
        let mut servers: Vec<_> = servers.iter().filter(|(_, _, weight)| *weight > 0).collect();
        // Whoever comes first chooses first, so that must not depend on the order of the flags.
        servers.sort_unstable_by_key(|(_, name, _)| *name);
        let most = servers.iter().map(|(_, _, weight)| u64::from(*weight)).max().unwrap_or(1);
        let mut permutations: Vec<_> =
            servers.iter().map(|&&(place, name, weight)| Permutation::new(place, name, weight)).collect();
        if permutations.is_empty() {
            return Self(Box::default());
        }
        let mut slots = vec![u16::MAX; SLOTS].into_boxed_slice();
        let (mut free, mut round) = (SLOTS, 0);
        loop {
            round += 1;
            for permutation in &mut permutations {
                // In each round the heaviest takes a slot, the others as often as their weight says.
                if round * permutation.weight < permutation.due + most {
                    continue;
                }
                permutation.due += most;
                permutation.take_a_slot(&mut slots);
                free -= 1;
                if free == 0 {
                    return Self(slots);
                }
            }
        }
    }

    /// The server of that hash, then where it would go should that one not do.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = if self.0.is_empty() { 0 } else { (hash % SLOTS as u64) as usize };
        self.0[start..].iter().chain(&self.0[..start]).map(|&place| usize::from(place))
    }
}

impl Permutation {
    fn new(place: u16, name: &str, weight: u32) -> Self {
        Self {
            place,
            weight: u64::from(weight),
            due: 0,
            slot: (keyed(*b"offset", name.as_bytes()) % SLOTS as u64) as usize,
            skip: (keyed(*b"skip  ", name.as_bytes()) % (SLOTS as u64 - 1)) as usize + 1,
        }
    }

    /// Takes the slot that it likes best of those that are free, of which there is one.
    fn take_a_slot(&mut self, slots: &mut [u16]) {
        while slots[self.slot] != u16::MAX {
            self.slot = (self.slot + self.skip) % SLOTS;
        }
        slots[self.slot] = self.place;
    }
}

/// The hash of what a request is balanced by.
pub(super) fn hash(key: &[u8]) -> u64 {
    keyed(*b"lookup", key)
}

/// SipHash under a key that is the same everywhere and for ever.
fn keyed(purpose: [u8; 6], bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f] = purpose;
    let mut hasher =
        SipHasher13::new_with_keys(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), 0x6d61_676c_6576);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(servers: &[(&str, u32)]) -> Table {
        Table::new(
            &servers
                .iter()
                .zip(0..)
                .map(|(&(name, weight), place)| (place, name, weight))
                .collect::<Vec<_>>(),
        )
    }

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("server-{n}")).collect()
    }

    fn by_name(names: &[String]) -> Vec<String> {
        let table = table(&names.iter().map(|name| (&**name, 1)).collect::<Vec<_>>());
        table.0.iter().map(|&place| names[usize::from(place)].clone()).collect()
    }

    fn shares(table: &Table, count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        table.0.iter().for_each(|&place| shares[usize::from(place)] += 1);
        shares
    }

    #[test]
    fn shares_are_even_to_a_percent_and_follow_the_weights() {
        let names = names(50);
        let even = shares(&table(&names.iter().map(|name| (&**name, 7)).collect::<Vec<_>>()), 50);
        let (least, most) = (even.iter().min().expect("50"), even.iter().max().expect("50"));
        assert!(most - least <= 1, "{least} {most}");
        let weighted = shares(&table(&[("a", 1), ("b", 2), ("c", 5), ("gone", 0)]), 4);
        for (share, of_eight) in weighted.iter().zip([1, 2, 5, 0]) {
            let exact = SLOTS as f64 * f64::from(of_eight) / 8.0;
            assert!((*share as f64 - exact).abs() <= 3.0, "{weighted:?}");
        }
    }

    #[test]
    fn a_server_that_leaves_moves_its_own_share_and_at_most_four_percent_more() {
        // The paper's figure 12 is for a table of 65537 slots, too: a few percent.
        for count in [2, 3, 10, 100] {
            let all = names(count);
            let before = by_name(&all);
            for leaves in [0, count / 2, count - 1] {
                let mut rest = all.clone();
                let gone = rest.remove(leaves);
                let moved = before
                    .iter()
                    .zip(by_name(&rest))
                    .filter(|(before, after)| **before != gone && *before != after)
                    .count();
                assert!(
                    moved * 100 <= SLOTS * 4,
                    "{count} servers, {gone} leaves: {moved} slots of others move"
                );
            }
        }
    }

    #[test]
    fn servers_that_fail_together_move_few_of_the_others() {
        // The experiment of the paper's figure 12: a thousand servers, of which some fail at the same time. It goes up to
        // a tenth; what moves there is few percent at first and grows slowly.
        let all = names(1000);
        let before = by_name(&all);
        for (failures, percent) in [(1, 1), (10, 3), (50, 4), (100, 4)] {
            let fails = |n: usize| n.is_multiple_of(1000 / failures);
            let rest: Vec<_> =
                all.iter().enumerate().filter(|(n, _)| !fails(*n)).map(|(_, name)| name.clone()).collect();
            let gone: std::collections::HashSet<_> =
                all.iter().enumerate().filter(|(n, _)| fails(*n)).map(|(_, name)| name).collect();
            let after = by_name(&rest);
            let moved =
                before.iter().zip(&after).filter(|(was, is)| !gone.contains(was) && was != is).count();
            assert!(moved * 100 <= SLOTS * percent, "{failures} fail: {moved} slots of others move");
        }
    }

    #[test]
    fn the_order_of_the_flags_does_not_matter_and_the_table_never_changes() {
        let mut names = names(5);
        let before = by_name(&names);
        names.reverse();
        assert_eq!(before, by_name(&names));
        // A fleet that is upgraded host by host must agree all the while.
        assert_eq!(&before[..6], ["server-2", "server-4", "server-3", "server-2", "server-4", "server-1"]);
        assert_eq!(hash(b"10.0.0.1"), 16_296_875_626_884_606_273);
    }

    #[test]
    fn one_server_has_everything_and_none_nothing() {
        assert_eq!(shares(&table(&[("a", 3)]), 1), [SLOTS]);
        assert_eq!(table(&[]).from(5).next(), None);
        assert_eq!(table(&[("a", 0)]).from(5).next(), None);
    }
}
