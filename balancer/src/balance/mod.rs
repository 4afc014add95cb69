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

/// Turns that are drawn for one request before the round is gone through from one of them.
const MOST_DRAWS: usize = 8;

/// What a request is balanced by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Key(Option<u64>);

/// Who gets a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The server at this place, which has room.
    Free(usize),
    /// The server at this place, with room or without: the request's key says so.
    Keyed(usize),
    /// Whoever has room first: nobody has now.
    Full,
    /// Nobody.
    None,
}

impl Pick {
    /// Who it is, if that is known.
    pub fn place(self) -> Option<usize> {
        match self {
            Self::Free(place) | Self::Keyed(place) => Some(place),
            Self::Full | Self::None => None,
        }
    }
}

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

    /// A server that is up and has not `refused` this request already. Those that are full (`maxconn=`) are passed over,
    /// but neither for backups, as in HAProxy, nor by a key, which would lead to another server with every rush.
    pub fn pick(&self, servers: &Servers, refused: &Refused, key: Key) -> Pick {
        let plan = self.plan(servers);
        let is_keyed = key != Key::NONE && self.algorithm.hashes();
        let is_usable = |place: usize| servers[place].state() == State::Up && !refused.contains(place);
        let will_do = |place: usize| is_usable(place) && (is_keyed || servers.has_room(place));
        for group in [&plan.primaries, &plan.backups] {
            match self.pick_of(group, servers, key, will_do) {
                Some(place) if is_keyed => return Pick::Keyed(place),
                Some(place) => return Pick::Free(place),
                None if group.members.iter().any(|member| is_usable(usize::from(member.place))) => {
                    return Pick::Full;
                }
                None => {}
            }
        }
        Pick::None
    }

    /// Who could be chosen, in the order in which they would be now; nobody's turn is taken. Where a key decides, it is the
    /// one server that [`Self::pick`] would choose.
    pub fn candidates(&self, servers: &Servers, refused: &Refused, key: Key) -> Vec<usize> {
        let plan = self.plan(servers);
        let is_keyed = key != Key::NONE && self.algorithm.hashes();
        let is_usable = |place: usize| servers[place].state() == State::Up && !refused.contains(place);
        for group in [&plan.primaries, &plan.backups] {
            if let (true, Key(Some(hash))) = (is_keyed, key) {
                if let Some(place) = group.by_key(servers, hash, is_usable) {
                    return vec![place];
                }
                continue;
            }
            let turn = self.cursor.load(Ordering::Relaxed);
            let mut loads: Vec<_> = group.loads(servers, turn, is_usable).collect();
            match self.algorithm {
                // Stable, so equals stay in turn.
                config::Balance::LeastConn => loads.sort_by(|one, other| one.order(*other)),
                config::Balance::First => loads.sort_by_key(|load| load.place),
                _ => {}
            }
            // Those that are full come last: they are passed over.
            loads.sort_by_key(|load| !servers.has_room(load.place));
            if !loads.is_empty() {
                return loads.into_iter().map(|load| load.place).collect();
            }
        }
        Vec::new()
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
            _ => {
                // The turn of one who will not do goes to whose turn is next, which is not always the same neighbour.
                let mut draws = (0..MOST_DRAWS).filter_map(|_| group.schedule.from(turn()).next());
                let drawn = draws.find(|&place| will_do(place));
                drawn.or_else(|| group.schedule.from(turn()).find(|&place| will_do(place)))
            }
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
mod tests;
