//! `--balance`: who gets a request that no persistence method has decided.
//!
//! | module | what it does |
//! |---|---|
//! | [`roundrobin`] | in turn, by weight |
//! | [`leastconn`] | whoever has the least to do |
//! | [`random`] | the less loaded of two |
//! | [`maglev`] | the same key, the same server: `source`, `uri`, `header=`, `query=` |
//!
//! Each is a pure function of the servers that may be chosen, which a [`Plan`] holds. A plan is made anew when a state or
//! a weight has changed, beside the requests that are served meanwhile by the old one; what has happened since is seen
//! all the same, since a server is looked at again before it is chosen.

mod leastconn;
mod maglev;
mod random;
mod roundrobin;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use crossbeam_utils::CachePadded;

use crate::config;
use crate::persist::decide::Refused;
use crate::server::{Servers, State};
use leastconn::Load;
use roundrobin::Schedule;

/// Bytes of a key that are hashed; what is beyond does not change the server.
pub const KEY_LIMIT: usize = 1024;

/// The algorithm of a service and what it remembers.
#[derive(Debug)]
pub struct Balance {
    algorithm: config::Balance,
    /// Counts turns. Shared by all workers: users notice when it is not even.
    cursor: CachePadded<AtomicU64>,
    plan: ArcSwap<Plan>,
    /// Held by whoever makes a new plan.
    planning: Mutex<()>,
}

/// The servers that may be chosen, prepared for the algorithm.
#[derive(Debug)]
struct Plan {
    /// [`Servers::changes`] when it was made.
    changes: u64,
    primaries: Group,
    /// Only when no primary will do.
    backups: Group,
}

#[derive(Debug, Default)]
struct Group {
    /// Places and weights, in the order of the command line.
    members: Vec<(u16, u32)>,
    schedule: Schedule,
    /// Only for the algorithms that hash.
    table: Option<maglev::Table>,
}

/// What a request is balanced by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Key(Option<u64>);

impl Key {
    /// Has nothing to be balanced by: takes its turn, whatever the algorithm.
    pub const NONE: Self = Self(None);

    /// By these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Some(maglev::hash(&bytes[..bytes.len().min(KEY_LIMIT)])))
    }
}

impl Balance {
    /// The algorithm, over the servers as they are.
    pub fn new(algorithm: config::Balance, servers: &Servers) -> Self {
        let plan = ArcSwap::from_pointee(Plan::new(&algorithm, servers));
        Self { algorithm, cursor: CachePadded::default(), plan, planning: Mutex::default() }
    }

    /// What of a request the key is made of.
    pub fn algorithm(&self) -> &config::Balance {
        &self.algorithm
    }

    /// A server that is up and has not `refused` this request already; `None`: there is none.
    pub fn pick(&self, servers: &Servers, refused: &Refused, key: Key) -> Option<usize> {
        let plan = self.plan(servers);
        let will_do = |place: usize| servers[place].state() == State::Up && !refused.contains(place);
        [&plan.primaries, &plan.backups]
            .into_iter()
            .find_map(|group| self.pick_of(group, servers, key, will_do))
    }

    fn pick_of(
        &self,
        group: &Group,
        servers: &Servers,
        key: Key,
        will_do: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if group.members.is_empty() {
            return None;
        }
        let turn = || self.cursor.fetch_add(1, Ordering::Relaxed);
        match (&self.algorithm, &group.table, key) {
            (config::Balance::First, ..) => {
                group.members.iter().map(|&(place, _)| usize::from(place)).find(|&place| will_do(place))
            }
            (config::Balance::LeastConn, ..) => leastconn::least(group.loads(servers, turn(), will_do)),
            (config::Balance::Random, ..) => {
                let loads: Vec<_> = group.loads(servers, 0, will_do).collect();
                random::choose(&loads, maglev::hash(&turn().to_le_bytes()))
            }
            (_, Some(table), Key(Some(hash))) => table.from(hash).find(|&place| will_do(place)),
            _ => group.schedule.from(turn()).find(|&place| will_do(place)),
        }
    }

    fn plan(&self, servers: &Servers) -> Guard<std::sync::Arc<Plan>> {
        let plan = self.plan.load();
        if plan.changes == servers.changes() {
            return plan;
        }
        // One makes the new one; the others do not wait for it.
        let Ok(_turn) = self.planning.try_lock() else { return plan };
        self.plan.store(Plan::new(&self.algorithm, servers).into());
        self.plan.load()
    }
}

impl Plan {
    fn new(algorithm: &config::Balance, servers: &Servers) -> Self {
        // Read first: a change that comes while we look at the states is one more reason for another plan.
        let changes = servers.changes();
        let group = |backup| {
            let member = |place: usize| {
                let server = &servers[place];
                let takes_new = server.state() == State::Up && server.backup == backup;
                // Never fails: there are no more places than that.
                let place = u16::try_from(place).ok()?;
                Some((place, server.weight())).filter(|(_, weight)| takes_new && *weight > 0)
            };
            Group::new(algorithm, servers.places().into_iter().filter_map(member).collect(), servers)
        };
        Self { changes, primaries: group(false), backups: group(true) }
    }
}

impl Group {
    fn new(algorithm: &config::Balance, members: Vec<(u16, u32)>, servers: &Servers) -> Self {
        let name = |place: u16| servers[usize::from(place)].name.as_str();
        let table = algorithm.hashes().then(|| {
            let named: Vec<_> = members.iter().map(|&(place, weight)| (place, name(place), weight)).collect();
            maglev::Table::new(&named)
        });
        Self { schedule: Schedule::new(&members), table, members }
    }

    /// Everybody's load, starting with whose turn it is: among equals the first is taken, so their shares follow the
    /// weights.
    fn loads(
        &self,
        servers: &Servers,
        turn: u64,
        will_do: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = Load> {
        let first = self.schedule.from(turn).next();
        let start =
            self.members.iter().position(|&(place, _)| Some(usize::from(place)) == first).unwrap_or(0);
        let in_turn = self.members[start..].iter().chain(&self.members[..start]);
        in_turn.filter_map(move |&(place, weight)| {
            let place = usize::from(place);
            let busy = servers[place].in_flight.load(Ordering::Relaxed);
            let busy = busy.saturating_add(servers.fast_connections(place));
            will_do(place).then_some(Load { place, busy, weight })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Balance::{First, LeastConn, Random, RoundRobin, Source};
    use crate::server::Operator;
    use crate::server::tests::{servers, weighted};

    fn picks(balance: &Balance, set: &Servers, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| balance.pick(set, &Refused::default(), Key::NONE)).collect()
    }

    fn share(picks: &[usize], of: usize) -> usize {
        picks.iter().filter(|&&pick| pick == of).count()
    }

    #[test]
    fn round_robin_goes_round_and_leaves_out_who_takes_nobody() {
        let set = servers(3);
        let balance = Balance::new(RoundRobin, &set);
        assert_eq!(picks(&balance, &set, 6), [0, 1, 2, 0, 1, 2]);
        set.set_operator(1, Operator::Drain);
        let picks = picks(&balance, &set, 4);
        assert_eq!((share(&picks, 0), share(&picks, 2)), (2, 2));
    }

    #[test]
    fn passes_over_who_refused_this_request() {
        let set = servers(70);
        let balance = Balance::new(RoundRobin, &set);
        (2..68).for_each(|index| {
            set.set_operator(index, Operator::Maint);
        });
        let mut refused = Refused::default();
        [0, 68].into_iter().for_each(|index| refused.insert(index));
        let pick = |refused: &Refused| balance.pick(&set, refused, Key::NONE);
        assert!((0..8).all(|_| matches!(pick(&refused), Some(1 | 69))));
        [1, 69].into_iter().for_each(|index| refused.insert(index));
        assert_eq!(pick(&refused), None);
    }

    #[test]
    fn weights_are_exact_and_nothing_comes_to_weight_zero() {
        let set = weighted(&[(3, false), (1, false), (0, false)]);
        let picks = picks(&Balance::new(RoundRobin, &set), &set, 400);
        assert_eq!([share(&picks, 0), share(&picks, 1), share(&picks, 2)], [300, 100, 0]);
    }

    #[test]
    fn backups_serve_when_no_primary_will_do() {
        let set = weighted(&[(1, false), (1, true), (1, true)]);
        for algorithm in [RoundRobin, LeastConn, Random, First, Source] {
            let balance = Balance::new(algorithm, &set);
            assert_eq!(picks(&balance, &set, 5), [0; 5]);
            let mut refused = Refused::default();
            refused.insert(0);
            assert!(matches!(balance.pick(&set, &refused, Key::NONE), Some(1 | 2)));
            set.set_operator(0, Operator::Maint);
            assert!(picks(&balance, &set, 5).iter().all(|&pick| pick > 0));
            set.set_operator(0, Operator::Ready);
        }
    }

    #[test]
    fn least_connections_fill_up_by_weight_and_take_turns_when_equal() {
        let set = weighted(&[(1, false), (3, false)]);
        let balance = Balance::new(LeastConn, &set);
        for _ in 0..40 {
            let pick = balance.pick(&set, &Refused::default(), Key::NONE).expect("up");
            set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
        }
        let busy = [0, 1].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed));
        assert_eq!(busy, [10, 30]);
        let idle = weighted(&[(1, false), (3, false)]);
        let picks = picks(&Balance::new(LeastConn, &idle), &idle, 40);
        assert_eq!(share(&picks, 0), 10, "in turn by weight while nobody is busy");
    }

    #[test]
    fn random_avoids_the_busy_one_and_is_even_among_the_idle() {
        let set = servers(4);
        set[0].in_flight.store(100, Ordering::Relaxed);
        let picks = picks(&Balance::new(Random, &set), &set, 4000);
        // Only drawn twice does it get anything.
        assert!((150..350).contains(&share(&picks, 0)), "{}", share(&picks, 0));
        assert!((1..4).all(|place| (1100..1400).contains(&share(&picks, place))));
        let idle = weighted(&[(1, false), (2, false), (5, false)]);
        let picks = super::tests::picks(&Balance::new(Random, &idle), &idle, 8000);
        for (place, expected) in [(0, 1000), (1, 2000), (2, 5000)] {
            assert!(share(&picks, place).abs_diff(expected) < 200, "{place}: {}", share(&picks, place));
        }
    }

    #[test]
    fn a_key_keeps_its_server_and_moves_only_when_it_must() {
        let set = servers(5);
        let balance = Balance::new(Source, &set);
        let keys: Vec<_> = (0..1000_u32).map(|n| Key::new(&n.to_be_bytes())).collect();
        let places =
            || keys.iter().map(|&key| balance.pick(&set, &Refused::default(), key)).collect::<Vec<_>>();
        let before = places();
        assert_eq!(before, places());
        assert!(
            (0..5).all(|place| (150..250).contains(&before.iter().filter(|p| **p == Some(place)).count()))
        );
        set.set_operator(2, Operator::Drain);
        let after = places();
        assert!(!after.contains(&Some(2)));
        let moved =
            before.iter().zip(&after).filter(|(before, after)| **before != Some(2) && before != after);
        assert!(moved.count() <= 40);
        set.set_operator(2, Operator::Ready);
        assert_eq!(before, places());
    }

    #[test]
    fn a_request_without_the_key_takes_its_turn() {
        let set = servers(2);
        let balance = Balance::new(config::Balance::Header("x-user".into()), &set);
        assert_eq!(picks(&balance, &set, 4), [0, 1, 0, 1]);
    }
}
