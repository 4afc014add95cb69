//! The servers of a service, their states, and who may be given a request.
//!
//! | module | what it is |
//! |---|---|
//! | [`Server`] | one of them: what it is stays, what may be done with it changes |
//! | `state` | what it may be used for |
//! | `set` | all of them, by place, name, cookie and id |
//! | `fast` | what the fast path knows of them |
//! | `marks` | what real traffic says about them |
//! | `checks` | what its checks have found |
//! | `capacity` | how much they take at one time, and who waits |
//!
//! States are atomics, so that the request path reads them without a lock. A change goes through [`Servers`], which
//! publishes it to the kernel in the same step.

mod capacity;
mod checks;
mod fast;
mod marks;
mod set;
mod state;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::config::ServerConfig;

use capacity::Limit;
pub use capacity::{QueueFull, Ticket, Turn, Wish};
pub use checks::{CheckState, Checked, Checks};
pub use fast::{FastLoads, NoFastLoads};
pub use marks::{Mark, Marks, Streak};
pub use set::{Ended, NoPlace, Publisher, Servers};
pub use state::{Health, Operator, State};

/// The share of its weight that a server has unless it is just coming up.
pub const WHOLE: u32 = 16;

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
    /// Where it listens; the unspecified address while it has none, see [`Server::is_unresolved`].
    pub address: SocketAddr,
    /// The name of its host, if that is how its address is found.
    pub host: Option<String>,
    /// Its identity in tables.
    pub identity: Identity,
    /// Serves only when no primary can.
    pub backup: bool,
    /// Its weight when nobody has changed that at run time.
    pub initial_weight: u32,
    weight: AtomicU32,
    /// Sixteenths of the weight that count now.
    share: AtomicU32,
    operator: AtomicU8,
    health: AtomicU8,
    is_hearsay: bool,
    /// Wakes whoever watches over it.
    stir: Notify,
    /// What its checks have found.
    pub checks: Checks,
    /// What real traffic says about it.
    pub marks: Marks,
    retired: AtomicBool,
    limit: Option<Limit>,
    /// Counts how often its sessions were ended.
    endings: AtomicU32,
    /// The most requests that it has served at one time.
    pub most_in_flight: AtomicU32,
    /// The most that have waited for it and no other.
    pub most_waiting: AtomicU32,
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
            host: None,
            identity,
            backup: false,
            initial_weight: 1,
            weight: AtomicU32::new(1),
            share: AtomicU32::new(WHOLE),
            operator: AtomicU8::new(Operator::Ready as u8),
            health: AtomicU8::new(Health::Unknown as u8),
            is_hearsay: false,
            stir: Notify::new(),
            checks: Checks::default(),
            marks: Marks::default(),
            retired: AtomicBool::new(false),
            limit: None,
            endings: AtomicU32::new(0),
            most_in_flight: AtomicU32::new(0),
            most_waiting: AtomicU32::new(0),
            in_flight: CachePadded::new(AtomicU32::new(0)),
            requests: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// As it is configured.
    pub fn configured(settings: ServerConfig, identity: Identity) -> Self {
        let cookie = settings.cookie();
        Self::new(settings.name, cookie, settings.address, identity)
            .with_host(settings.host)
            .with_weight(settings.weight)
            .as_backup(settings.backup)
            .with_capacity(settings.maxconn, settings.maxqueue)
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
        self.set_weight(weight);
        Self { initial_weight: weight, ..self }
    }

    /// With another share for now than it is configured to have.
    #[must_use]
    pub fn with_weight_now(self, weight: u32) -> Self {
        self.set_weight(weight);
        self
    }

    /// Its address is that of the host of this name.
    #[must_use]
    pub fn with_host(self, host: Option<String>) -> Self {
        Self { host, ..self }
    }

    /// The same server at another address, where nobody has checked it and where clients may know it by another cookie.
    #[must_use]
    pub fn moved(&self, address: SocketAddr, cookie: Option<String>, identity: Identity) -> Self {
        let moved = Self::new(self.name.clone(), cookie, address, identity)
            .with_host(self.host.clone())
            .with_weight(self.initial_weight)
            .as_backup(self.backup)
            .with_capacity(self.maxconn(), self.limit.as_ref().and_then(|limit| limit.maxqueue))
            .with_operator(self.operator())
            .with_weight_now(self.weight());
        moved.checks.switch(self.checks.are_on());
        moved
    }

    /// Serves only when no primary can.
    #[must_use]
    pub fn as_backup(self, backup: bool) -> Self {
        Self { backup, ..self }
    }

    /// Serves no more than `maxconn` at one time, while `maxqueue` may wait for it. `None`: there is no such limit.
    #[must_use]
    pub fn with_capacity(self, maxconn: Option<u32>, maxqueue: Option<u32>) -> Self {
        Self { limit: maxconn.map(|maxconn| Limit::new(maxconn, maxqueue)), ..self }
    }

    /// The most that it serves at one time.
    pub fn maxconn(&self) -> Option<u32> {
        self.limit.as_ref().map(|limit| limit.maxconn)
    }

    /// How many may wait for it and no other.
    pub fn maxqueue(&self) -> Option<u32> {
        self.limit.as_ref().and_then(|limit| limit.maxqueue)
    }

    /// Its share of what is balanced, against the other servers' weights.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Starts with what the checks of an earlier process have found.
    #[must_use]
    pub fn with_health(self, health: Health) -> Self {
        self.health.store(health as u8, Ordering::Relaxed);
        Self { is_hearsay: false, ..self }
    }

    /// Starts with what was on record of a process that is gone: true until somebody has looked.
    #[must_use]
    pub fn with_health_on_record(self, health: Health) -> Self {
        Self { is_hearsay: true, ..self.with_health(health) }
    }

    /// What it started with was on record only: the first look at it is worth more.
    pub fn has_health_on_record(&self) -> bool {
        self.is_hearsay
    }

    /// Sixteenths of its weight that count now; [`WHOLE`] unless it is just coming up.
    pub fn share(&self) -> u32 {
        self.share.load(Ordering::Relaxed)
    }

    /// Its weight in sixteenths, as much of it as counts now: what it is balanced by.
    pub fn effective_weight(&self) -> u32 {
        self.weight() * self.share()
    }

    /// Takes new clients.
    pub fn takes_new(&self) -> bool {
        self.state() == State::Up && self.weight() > 0
    }

    /// Until something about it has changed that concerns whoever watches over it. What has changed since the last time
    /// counts as well.
    pub fn stirred(&self) -> Notified<'_> {
        self.stir.notified()
    }

    /// The operator's wish.
    pub fn operator(&self) -> Operator {
        Operator::from_u8(self.operator.load(Ordering::Relaxed))
    }

    /// The verdict of the health checks.
    pub fn health(&self) -> Health {
        Health::from_u8(self.health.load(Ordering::Relaxed))
    }

    /// Both taken together.
    pub fn state(&self) -> State {
        if self.is_retired() {
            return State::Maint;
        }
        // Whatever anybody finds at the address that it does not have.
        let health = if self.is_unresolved() { Health::Down } else { self.health() };
        State::of(self.operator(), health)
    }

    /// It was deleted, or is at another address now, under the same name at another place.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// The name of its host has never been resolved, so it has no address; one that was found stays until another is.
    /// It is down meanwhile, whatever anybody finds at the address that it does not have.
    pub fn is_unresolved(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// Serves one request more.
    pub(crate) fn one_more_in_flight(&self) {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        // Seldom true, so that what others read is seldom written.
        if now > self.most_in_flight.load(Ordering::Relaxed) {
            self.most_in_flight.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn forget_most(&self) {
        self.most_in_flight.store(self.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
        self.most_waiting.store(0, Ordering::Relaxed);
    }

    /// Changes when its sessions are ended: what was begun before is to end.
    pub fn endings(&self) -> u32 {
        self.endings.load(Ordering::Relaxed)
    }

    /// Returns how many that are.
    fn end_sessions(&self) -> u32 {
        self.endings.fetch_add(1, Ordering::Relaxed);
        self.in_flight.load(Ordering::Relaxed)
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn set_operator(&self, wish: Operator) {
        self.operator.store(wish as u8, Ordering::Relaxed);
    }

    fn set_health(&self, health: Health) -> bool {
        self.health.swap(health as u8, Ordering::Relaxed) != health as u8
    }

    fn set_share(&self, share: u32) -> bool {
        self.share.swap(share, Ordering::Relaxed) != share
    }

    fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The server s`n`, with a cookie of the same name.
    pub(crate) fn named(n: usize) -> Server {
        let identity = Identity { id: n as u16, generation: 1 };
        let address = SocketAddr::from(([127, 0, 0, 1], 8000 + n as u16));
        Server::new(format!("s{n}"), Some(format!("s{n}")), address, identity)
    }

    /// Servers named s1, s2, …
    pub(crate) fn servers(count: usize) -> Servers {
        Servers::new((1..=count).map(named).collect())
    }

    /// The same with weights; `true`: a backup.
    pub(crate) fn weighted(weights: &[(u32, bool)]) -> Servers {
        let server =
            |(n, &(weight, backup)): (usize, &(u32, bool))| named(n).with_weight(weight).as_backup(backup);
        Servers::new((1..).zip(weights).map(server).collect())
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

    #[test]
    fn a_server_without_an_address_is_down_until_it_has_one() {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 80));
        let identity = |generation| Identity { id: 1, generation };
        let server = Server::new("s1".into(), None, nowhere, identity(1)).with_host(Some("app".into()));
        let set = Servers::new(vec![server.with_weight(7).as_backup(true).with_health(Health::Up)]);
        assert_eq!(set[0].state(), State::Down);
        set.set_operator(0, Operator::Drain);
        set.set_weight(0, 3);
        let somewhere = SocketAddr::from(([192, 0, 2, 1], 80));
        let place = set.replace(0, set[0].moved(somewhere, None, identity(2))).expect("a place");
        let moved = &set[place];
        assert_eq!(
            (moved.state(), moved.health(), moved.address),
            (State::Drain, Health::Unknown, somewhere)
        );
        assert_eq!((moved.weight(), moved.initial_weight, moved.backup), (3, 7, true));
        assert_eq!((moved.host.as_deref(), moved.identity), (Some("app"), identity(2)));
    }
}
