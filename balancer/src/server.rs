//! The servers of a service, their states, and who may be given a request.
//!
//! The set is fixed at start; states are atomics, so that the request path reads them without a lock. A change goes
//! through [`Servers::set_operator`] or [`Servers::set_health`], which publish it to the kernel in the same step.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

/// What a server may be used for now: the operator's wish and the health check taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes everyone.
    Up,
    /// Keeps the users it has, takes no new ones: the operator's wish, or its own (`drain-on=`).
    Drain,
    /// The health check failed.
    Down,
    /// Taken out by the operator: nobody is sent there, whatever the options.
    Maint,
}

impl State {
    /// A user bound to a server in this state stays there.
    pub fn keeps_users(self) -> bool {
        matches!(self, Self::Up | Self::Drain)
    }

    /// The word used in tables, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Maint => "maint",
        }
    }
}

/// The operator's wish, kept across restarts in the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Operator {
    /// No wish: health decides.
    #[default]
    Ready = 0,
    /// Existing users stay, new ones go elsewhere.
    Drain = 1,
    /// Nobody.
    Maint = 2,
}

impl Operator {
    /// The wish stored as `value`; an unknown value (a newer version's) is taken as [`Self::Ready`].
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Drain,
            2 => Self::Maint,
            _ => Self::Ready,
        }
    }

    /// The wish called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|wish| wish.as_str() == word)
    }

    /// The word used in commands, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// What the health checks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet, or checks are off: usable.
    #[default]
    Unknown = 0,
    /// The last checks succeeded.
    Up = 1,
    /// The last checks failed.
    Down = 2,
    /// The last check succeeded, and the server asks to be given nobody new.
    Draining = 3,
}

impl Health {
    /// The word used in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
        }
    }
}

/// How tables and the kernel name a server: never by its place in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// From the registry, stable for a name across restarts; never 0.
    pub id: u16,
    /// Counts the addresses this name has had.
    pub generation: u8,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    /// The name of the command line; tables and the operator use it.
    pub name: String,
    /// The value of the persistence cookie that names it; `None`: clients get no cookie from it.
    pub cookie: Option<String>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its identity in tables.
    pub identity: Identity,
    /// Serves only when no primary can.
    pub backup: bool,
    weight: AtomicU32,
    operator: AtomicU8,
    health: AtomicU8,
    /// Requests being served by it now.
    pub in_flight: CachePadded<AtomicU32>,
    /// Requests given to it since start.
    pub requests: CachePadded<AtomicU64>,
}

impl Server {
    /// A server that is usable until something says otherwise.
    pub fn new(name: String, cookie: Option<String>, address: SocketAddr, identity: Identity) -> Self {
        Self {
            name,
            cookie,
            address,
            identity,
            backup: false,
            weight: AtomicU32::new(1),
            operator: AtomicU8::new(Operator::Ready as u8),
            health: AtomicU8::new(Health::Unknown as u8),
            in_flight: CachePadded::new(AtomicU32::new(0)),
            requests: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Starts with the operator's wish that an earlier process recorded.
    #[must_use]
    pub fn with_operator(self, operator: Operator) -> Self {
        self.operator.store(operator as u8, Ordering::Relaxed);
        self
    }

    /// With this share of what is balanced; 0: none of it.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        self.weight.store(weight, Ordering::Relaxed);
        self
    }

    /// Serves only when no primary can.
    #[must_use]
    pub fn as_backup(self, backup: bool) -> Self {
        Self { backup, ..self }
    }

    /// Its share of what is balanced, against the other servers' weights.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Starts with what the checks of an earlier process have found.
    #[must_use]
    pub fn with_health(self, health: Health) -> Self {
        self.health.store(health as u8, Ordering::Relaxed);
        self
    }

    /// The operator's wish.
    pub fn operator(&self) -> Operator {
        Operator::from_u8(self.operator.load(Ordering::Relaxed))
    }

    /// The verdict of the health checks.
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            3 => Health::Draining,
            _ => Health::Unknown,
        }
    }

    /// Both taken together.
    pub fn state(&self) -> State {
        match (self.operator(), self.health()) {
            (Operator::Maint, _) => State::Maint,
            (_, Health::Down) => State::Down,
            (Operator::Drain, _) | (_, Health::Draining) => State::Drain,
            (Operator::Ready, _) => State::Up,
        }
    }
}

type Publisher = Box<dyn Fn(&Server) + Send + Sync>;

/// All servers of the service, in the order of the command line. Elsewhere a server is a `usize` into this.
#[derive(Default)]
pub struct Servers {
    list: Vec<Server>,
    publisher: OnceLock<Publisher>,
    changes: AtomicU64,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.list.fmt(f)
    }
}

impl std::ops::Index<usize> for Servers {
    type Output = Server;

    fn index(&self, index: usize) -> &Server {
        &self.list[index]
    }
}

impl Servers {
    /// The set; names, cookie values and identities are unique, which `Config` has checked.
    pub fn new(list: Vec<Server>) -> Self {
        Self { list, publisher: OnceLock::new(), changes: AtomicU64::new(0) }
    }

    /// Installs what is told of every change of state: the kernel's server map and the registry.
    pub fn publish_with(&self, publisher: Publisher) {
        for server in &self.list {
            publisher(server);
        }
        // Only the start-up code calls this, once; a second publisher would be a bug without consequences.
        let _ = self.publisher.set(publisher);
    }

    /// Counts changes of state: whoever has drawn conclusions from the states knows by it when they are out of date.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// In the order of the command line.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Server> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Never true in a running service.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The server of that name.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|server| server.name == name)
    }

    /// The server that this cookie value names.
    pub fn by_cookie(&self, value: &[u8]) -> Option<usize> {
        self.list.iter().position(|server| server.cookie.as_deref().is_some_and(|id| id.as_bytes() == value))
    }

    /// The server of that registry id, whatever its generation: names are what counts on the slow path.
    pub fn by_id(&self, id: u16) -> Option<usize> {
        self.list.iter().position(|server| server.identity.id == id)
    }

    /// Records the operator's wish and publishes it.
    pub fn set_operator(&self, index: usize, wish: Operator) {
        self.list[index].operator.store(wish as u8, Ordering::Relaxed);
        self.publish(index);
    }

    /// Records what the checks found and publishes it; true if that changed anything.
    pub fn set_health(&self, index: usize, health: Health) -> bool {
        let before = self.list[index].health.swap(health as u8, Ordering::Relaxed);
        let changed = before != health as u8;
        if changed {
            self.publish(index);
        }
        changed
    }

    /// Publishes all of them again: somebody else may have written over it.
    pub fn publish_all(&self) {
        (0..self.list.len()).for_each(|index| self.publish(index));
    }

    fn publish(&self, index: usize) {
        self.changes.fetch_add(1, Ordering::Release);
        if let Some(publish) = self.publisher.get() {
            publish(&self.list[index]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Servers named s1, s2, … with cookies of the same names.
    pub(crate) fn servers(count: usize) -> Servers {
        Servers::new(
            (1..=count)
                .map(|n| {
                    let identity = Identity { id: n as u16, generation: 1 };
                    let address = SocketAddr::from(([127, 0, 0, 1], 8000 + n as u16));
                    Server::new(format!("s{n}"), Some(format!("s{n}")), address, identity)
                })
                .collect(),
        )
    }

    /// The same with weights; `true`: a backup.
    pub(crate) fn weighted(weights: &[(u32, bool)]) -> Servers {
        let named = servers(weights.len()).list.into_iter().zip(weights);
        Servers::new(
            named.map(|(server, &(weight, backup))| server.with_weight(weight).as_backup(backup)).collect(),
        )
    }

    #[test]
    fn maintenance_wins_over_health_and_health_over_drain() {
        let set = servers(1);
        set.set_health(0, Health::Down);
        set.set_operator(0, Operator::Drain);
        assert_eq!(set[0].state(), State::Down);
        set.set_operator(0, Operator::Maint);
        assert_eq!(set[0].state(), State::Maint);
        set.set_health(0, Health::Up);
        assert_eq!(set[0].state(), State::Maint);
        set.set_operator(0, Operator::Drain);
        assert_eq!(set[0].state(), State::Drain);
        set.set_operator(0, Operator::Ready);
        set.set_health(0, Health::Draining);
        assert_eq!(set[0].state(), State::Drain, "the server's own wish");
    }
}
