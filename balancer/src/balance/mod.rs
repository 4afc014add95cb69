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
//!
//! A server that is just coming up (`--slow-start`) counts with a part of its weight. With a key that would mean another
//! table at each step, and each moves a few clients of servers that have nothing to do with it. Instead there are two, one
//! with the server and one without: its share decides how many of its own keys are its already, and the others stay where
//! they were. So every key moves once at most.

mod leastconn;
mod maglev;
mod random;
mod roundrobin;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use crossbeam_utils::CachePadded;

use crate::config;
use crate::persist::decide::Refused;
use crate::server::{Servers, State, WHOLE};
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
#[derive(Debug, Default)]
struct Plan {
    /// [`Servers::changes`] when it was made.
    changes: u64,
    primaries: Group,
    /// Only when no primary will do.
    backups: Group,
}

#[derive(Debug, Default)]
struct Group {
    /// In the order of the command line.
    members: Vec<Member>,
    schedule: Schedule,
    /// Only for the algorithms that hash.
    table: Option<Keyed>,
    /// Without those that are just coming up, should there be such and such.
    settled: Option<Keyed>,
}

/// Servers by key. A table takes a moment to make, so one that would be the same again is kept.
#[derive(Clone, Debug)]
struct Keyed {
    /// Places and weights; a place has one name for ever.
    of: Vec<(u16, u32)>,
    table: Arc<maglev::Table>,
}

/// A server that may be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Member {
    place: u16,
    /// Not 0.
    weight: u32,
    /// Sixteenths of it that count.
    share: u32,
}

/// Turns of a round while a server is coming up: a round is written down anew at each of its steps, beside the requests.
/// Sixteen steps of each of the most servers there may be.
const MOST_TURNS_RISING: u64 = 16 * 1024;

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
        let plan = ArcSwap::from_pointee(Plan::new(&algorithm, servers, &Plan::default()));
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
        match (&self.algorithm, key) {
            (config::Balance::First, _) => {
                group.members.iter().map(|member| usize::from(member.place)).find(|&place| will_do(place))
            }
            (config::Balance::LeastConn, _) => leastconn::least(group.loads(servers, turn(), will_do)),
            (config::Balance::Random, _) => {
                let loads: Vec<_> = group.loads(servers, 0, will_do).collect();
                random::choose(&loads, maglev::hash(&turn().to_le_bytes()))
            }
            (algorithm, Key(Some(hash))) if algorithm.hashes() => group.by_key(servers, hash, will_do),
            _ => group.schedule.from(turn()).find(|&place| will_do(place)),
        }
    }

    fn plan(&self, servers: &Servers) -> Guard<Arc<Plan>> {
        let plan = self.plan.load();
        if plan.changes == servers.changes() {
            return plan;
        }
        // One makes the new one; the others do not wait for it.
        let Ok(_turn) = self.planning.try_lock() else { return plan };
        self.plan.store(Plan::new(&self.algorithm, servers, &plan).into());
        self.plan.load()
    }
}

impl Plan {
    /// `old`: the one before it, of which tables are kept that would be the same again.
    fn new(algorithm: &config::Balance, servers: &Servers, old: &Self) -> Self {
        // Read first: a change that comes while we look at the states is one more reason for another plan.
        let changes = servers.changes();
        let group = |backup, old| {
            let member = |place: usize| {
                let server = &servers[place];
                let takes_new = server.state() == State::Up && server.backup == backup;
                // Never fails: there are no more places than that.
                let place = u16::try_from(place).ok()?;
                let member = Member { place, weight: server.weight(), share: server.share() };
                Some(member).filter(|member| takes_new && member.weight > 0)
            };
            let members = servers.places().into_iter().filter_map(member).collect();
            Group::new(algorithm, members, servers, old)
        };
        Self { changes, primaries: group(false, &old.primaries), backups: group(true, &old.backups) }
    }
}

impl Keyed {
    /// The table of these servers, which is one of `old`'s if it is of the same.
    fn of(members: &[Member], servers: &Servers, old: &Group) -> Self {
        let of: Vec<_> = members.iter().map(|member| (member.place, member.weight)).collect();
        if let Some(known) = [&old.table, &old.settled].into_iter().flatten().find(|known| known.of == of) {
            return known.clone();
        }
        let named: Vec<_> =
            of.iter().map(|&(place, weight)| (place, &*servers[usize::from(place)].name, weight)).collect();
        let table = Arc::new(maglev::Table::new(&named));
        Self { of, table }
    }
}

impl Group {
    fn new(algorithm: &config::Balance, members: Vec<Member>, servers: &Servers, old: &Self) -> Self {
        let schedule = Schedule::new(&turns(&members));
        if !algorithm.hashes() {
            return Self { members, schedule, ..Self::default() };
        }
        let table = Keyed::of(&members, servers, old);
        let settled: Vec<_> = members.iter().copied().filter(|member| member.share == WHOLE).collect();
        let is_mixed = !settled.is_empty() && settled.len() < members.len();
        let settled = is_mixed.then(|| Keyed::of(&settled, servers, old));
        Self { members, schedule, table: Some(table), settled }
    }

    /// The server of a key.
    fn by_key(&self, servers: &Servers, hash: u64, will_do: impl Fn(usize) -> bool) -> Option<usize> {
        let table = &self.table.as_ref()?.table;
        let owner = table.from(hash).next()?;
        // The remainder that the table looks at depends on all bits, so these are as good as others.
        let is_its_own_already = hash >> 60 < u64::from(servers[owner].share());
        match &self.settled {
            Some(settled) if !is_its_own_already => {
                settled.table.from(hash).chain(table.from(hash)).find(|&place| will_do(place))
            }
            _ => table.from(hash).find(|&place| will_do(place)),
        }
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
            self.members.iter().position(|member| Some(usize::from(member.place)) == first).unwrap_or(0);
        let in_turn = self.members[start..].iter().chain(&self.members[..start]);
        in_turn.filter_map(move |&Member { place, weight, share }| {
            let (place, weight) = (usize::from(place), weight * share);
            let busy = servers[place].in_flight.load(Ordering::Relaxed);
            let busy = busy.saturating_add(servers.fast_connections(place));
            will_do(place).then_some(Load { place, busy, weight })
        })
    }
}

/// Weights for a schedule. Those that are whole stay what they are to each other, whoever else is rising; so that a part
/// of a small one is a part as well, all are multiplied as far as the round does not get too long.
fn turns(members: &[Member]) -> Vec<(u16, u32)> {
    let whole: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let scale = (MOST_TURNS_RISING / whole.max(1)).clamp(1, u64::from(WHOLE)) as u32;
    members
        .iter()
        .map(|&Member { place, weight, share }| (place, (weight * scale * share).div_ceil(WHOLE)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Balance::{First, LeastConn, Random, RoundRobin, Source};
    use crate::server::tests::{named, servers, weighted};
    use crate::server::{FastLoads, Health, Operator};

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

    /// As many fast connections as it says, by id.
    #[derive(Debug)]
    struct Fast(Vec<u32>);

    impl FastLoads for Fast {
        fn connections(&self, id: u16) -> u32 {
            self.0.get(usize::from(id)).copied().unwrap_or(0)
        }

        fn set_limit(&self, _id: u16, _limit: u32) {}

        fn refused(&self, _id: u16) -> u64 {
            0
        }

        fn unanswered(&self, _id: u16) -> u64 {
            0
        }

        fn end(&self, _id: u16) -> u64 {
            0
        }
    }

    #[test]
    fn connections_of_the_fast_path_are_connections() {
        // The ids are 1, 2 and 3.
        let set = servers(3);
        set.count_fast_with(Box::new(Fast(vec![99, 10, 4, 7])));
        let balance = Balance::new(LeastConn, &set);
        for _ in 0..9 {
            let pick = balance.pick(&set, &Refused::default(), Key::NONE).expect("up");
            set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
        }
        let slow = [0, 1, 2].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed));
        assert_eq!(slow, [0, 6, 3], "until all three have ten");
        let picks = picks(&Balance::new(Random, &set), &set, 300);
        assert_eq!(share(&picks, 0) + share(&picks, 1) + share(&picks, 2), 300);
    }

    #[test]
    fn the_first_one_has_everything_for_as_long_as_it_will_do() {
        let set = weighted(&[(1, false), (256, false), (1, false)]);
        let balance = Balance::new(First, &set);
        assert_eq!(picks(&balance, &set, 5), [0; 5], "weights do not count");
        set.set_operator(0, Operator::Drain);
        assert_eq!(picks(&balance, &set, 3), [1; 3]);
        set.set_operator(0, Operator::Ready);
        assert_eq!(picks(&balance, &set, 2), [0; 2]);
    }

    #[test]
    fn turns_are_shared_by_all_threads() {
        let set = weighted(&[(3, false), (2, false), (1, false)]);
        let balance = Balance::new(RoundRobin, &set);
        let picked: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| picks(&balance, &set, 300))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!([0, 1, 2].map(|place| share(&picked, place)), [600, 400, 200]);
    }

    /// s2 is just coming up with that share.
    fn rising(weights: &[(u32, bool)], share: u32) -> Servers {
        let set = weighted(weights);
        set.set_share(1, share);
        set
    }

    #[test]
    fn a_server_that_is_coming_up_gets_its_share_by_and_by() {
        let set = rising(&[(1, false), (1, false)], 1);
        let balance = Balance::new(RoundRobin, &set);
        for sixteenths in 1..=16_usize {
            set.set_share(1, sixteenths as u32);
            let picks = picks(&balance, &set, 16 * (16 + sixteenths));
            assert_eq!([share(&picks, 0), share(&picks, 1)], [256, 16 * sixteenths], "{sixteenths}/16");
        }
        let set = rising(&[(3, false), (2, false)], 8);
        let idle = picks(&Balance::new(LeastConn, &set), &set, 400);
        assert_eq!([share(&idle, 0), share(&idle, 1)], [300, 100]);
        let balance = Balance::new(LeastConn, &set);
        for _ in 0..40 {
            let pick = balance.pick(&set, &Refused::default(), Key::NONE).expect("up");
            set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!([0, 1].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed)), [30, 10]);
        let set = rising(&[(1, false), (1, false)], 4);
        let drawn = picks(&Balance::new(Random, &set), &set, 5000);
        assert!(share(&drawn, 1).abs_diff(1000) < 150, "{}", share(&drawn, 1));
    }

    #[test]
    fn a_round_stays_short_while_a_server_is_coming_up() {
        let turns = |weights: &[(u32, bool)]| {
            let group = &Plan::new(&RoundRobin, &rising(weights, 7), &Plan::default()).primaries;
            (group.schedule.len(), share(&group.schedule.from(0).collect::<Vec<_>>(), 1))
        };
        assert_eq!(turns(&[(1, false); 1000]), (999 * 16 + 7, 7));
        assert_eq!(turns(&[(101, false), (256, false)]), (101 + 112, 112));
        // So heavy that the weights themselves are fine enough, or so many that a small one is there at once.
        let (length, of_rising) = turns(&[(256, false); 100]);
        assert_eq!((length, of_rising), (99 * 16 + 7, 7));
        let mut uneven = [(255, false); 100];
        uneven[0].0 = 254;
        let (length, of_rising) = turns(&uneven);
        assert!(length < 2 * 100 * 255 && of_rising == 112, "{length} {of_rising}");
        uneven[1].0 = 1;
        assert_eq!(turns(&uneven).1, 1);
    }

    #[test]
    fn keys_come_to_a_server_that_is_coming_up_once_and_nobody_elses_move_meanwhile() {
        let set = servers(5);
        let balance = Balance::new(Source, &set);
        let keys: Vec<_> = (0..4000_u32).map(|n| Key::new(&n.to_be_bytes())).collect();
        let places = || -> Vec<usize> {
            let pick = |&key| balance.pick(&set, &Refused::default(), key).expect("somebody");
            keys.iter().map(pick).collect()
        };
        let whole = places();
        set.set_health(2, Health::Down);
        set.set_share(2, 1);
        let without = places();
        set.set_health(2, Health::Up);
        let mut before = places();
        let foreign = before.iter().zip(&without).filter(|(now, then)| now != then && **now != 2).count();
        assert!(foreign <= 4000 * 4 / 100, "{foreign} keys of others move when it comes");
        for sixteenths in 2..=16 {
            set.set_share(2, sixteenths);
            let after = places();
            for ((key, then), now) in keys.iter().zip(&before).zip(&after) {
                assert!(then == now || *now == 2, "{key:?} moves from {then} to {now} at {sixteenths}/16");
            }
            let its_own = share(&after, 2);
            let exact = share(&whole, 2) * sixteenths as usize / 16;
            assert!(its_own.abs_diff(exact) < 60, "{its_own} at {sixteenths}/16, not {exact}");
            before = after;
        }
        assert_eq!(before, whole);
    }

    #[test]
    fn a_step_of_a_slow_start_makes_no_table() {
        let set = servers(3);
        let first = Plan::new(&Source, &set, &Plan::default());
        let table = |plan: &Plan| Arc::as_ptr(&plan.primaries.table.as_ref().expect("a table").table);
        set.set_health(1, Health::Down);
        let without = Plan::new(&Source, &set, &first);
        set.set_share(1, 1);
        set.set_health(1, Health::Up);
        let rising = Plan::new(&Source, &set, &without);
        let settled = |plan: &Plan| plan.primaries.settled.as_ref().map(|keyed| Arc::as_ptr(&keyed.table));
        assert_eq!(settled(&rising), Some(table(&without)));
        set.set_share(1, 2);
        let step = Plan::new(&Source, &set, &rising);
        assert_eq!((table(&step), settled(&step)), (table(&rising), settled(&rising)));
        set.set_share(1, WHOLE);
        let whole = Plan::new(&Source, &set, &step);
        assert_eq!((table(&whole), settled(&whole)), (table(&rising), None));
        (0..3).for_each(|place| set.set_share(place, 1));
        assert_eq!(settled(&Plan::new(&Source, &set, &whole)), None, "nobody to stay with");
    }

    #[test]
    fn instances_agree_whatever_the_order_of_their_flags() {
        let mut others: Vec<_> = (1..=5).map(named).collect();
        others.reverse();
        let (one, other) = (servers(5), Servers::new(others));
        let name = |set: &Servers, key| {
            let pick = Balance::new(Source, set).pick(set, &Refused::default(), key);
            set[pick.expect("somebody")].name.clone()
        };
        for key in (0..50_u32).map(|n| Key::new(&n.to_be_bytes())) {
            assert_eq!(name(&one, key), name(&other, key));
        }
    }

    #[test]
    fn a_request_without_the_key_takes_its_turn() {
        let set = servers(2);
        let balance = Balance::new(config::Balance::Header("x-user".into()), &set);
        assert_eq!(picks(&balance, &set, 4), [0, 1, 0, 1]);
    }
}
