//! All servers of a service: who there is now, by name, by cookie and by id.
//!
//! A server keeps its place for as long as the process lives, and a place is never given to another: whoever holds the
//! number of one that was deleted meanwhile finds a server that is retired, and nobody else's. So the request path reads
//! without a lock what the control thread changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::capacity::Queue;
use super::{FastLoads, Health, Mark, NoFastLoads, Operator, Server};

/// Places of one process: plans hold them in 16 bits. Who adds and deletes a server every ten minutes gets by for a year.
const MOST_PLACES: usize = u16::MAX as usize;

/// What is told of every change of a server.
pub type Publisher = Box<dyn Fn(&Server) + Send + Sync>;

/// The servers of the service. Elsewhere a server is its place here, a `usize`.
#[derive(Default)]
pub struct Servers {
    places: boxcar::Vec<Server>,
    roster: ArcSwap<Roster>,
    /// Held by whoever makes a new roster.
    enrolling: Mutex<()>,
    publisher: OnceLock<Publisher>,
    pub(super) fast: OnceLock<Box<dyn FastLoads>>,
    /// Another process sets the limits of the fast path.
    pub(super) has_left_fast_path: AtomicBool,
    changes: AtomicU64,
    /// Wakes whoever has to know who there is.
    enrolled: Notify,
    pub(super) queue: Queue,
    /// Told whenever the sessions of a server are ended.
    endings: watch::Sender<()>,
}

/// Who is there: the places that count, and how they are found.
#[derive(Debug, Default)]
struct Roster {
    /// In the order of the command line, what was added at run time behind it.
    order: Vec<usize>,
    by_name: HashMap<String, usize>,
    by_cookie: HashMap<Vec<u8>, usize>,
    /// Cookie values of servers that have gone.
    former_cookies: HashSet<Vec<u8>>,
    /// Asked several times a request: a number need not be hashed.
    by_id: BTreeMap<u16, usize>,
}

/// What [`Servers::end_sessions`] has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ended {
    /// Requests and connections that the proxy was serving.
    pub slow: u64,
    /// Connections on the fast path.
    pub fast: u64,
}

/// There is no place left for another server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this process has had {MOST_PLACES} servers; restart it (USR2) to add another")]
pub struct NoPlace;

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl std::ops::Index<usize> for Servers {
    type Output = Server;

    fn index(&self, place: usize) -> &Server {
        &self.places[place]
    }
}

impl Servers {
    /// The set; names, cookie values and identities are unique, which `Config` has checked.
    pub fn new(list: Vec<Server>) -> Self {
        let servers = Self { places: list.into_iter().collect(), ..Self::default() };
        servers.enroll((0..servers.places.count()).collect());
        servers
    }

    /// Installs what is told of every change of a server: the kernel's server map and the registry.
    pub fn publish_with(&self, publisher: Publisher) {
        for server in self.iter() {
            publisher(server);
        }
        // Only the start-up code calls this, once; a second publisher would be a bug without consequences.
        let _ = self.publisher.set(publisher);
    }

    /// Installs what counts the fast connections.
    pub fn count_fast_with(&self, loads: Box<dyn FastLoads>) {
        // As above.
        let _ = self.fast.set(loads);
        self.places().into_iter().for_each(|place| self.limit_fast_path(place));
    }

    /// A successor sets the limits of the fast path from here on. What is lent to it stays lent.
    pub fn leave_fast_path(&self) {
        self.has_left_fast_path.store(true, Ordering::Relaxed);
    }

    /// What the fast path knows of servers.
    pub fn fast(&self) -> &dyn FastLoads {
        self.fast.get().map_or(&NoFastLoads, |loads| &**loads)
    }

    /// Somebody counts the fast connections.
    pub fn counts_fast(&self) -> bool {
        self.fast.get().is_some()
    }

    /// Fast connections that the server at `place` has now.
    pub fn fast_connections(&self, place: usize) -> u32 {
        self.fast.get().map_or(0, |loads| loads.connections(self.places[place].identity.id))
    }

    /// Fast connections of all servers now, and how often one was opened.
    pub fn fast_in_all(&self) -> (u64, u64) {
        let Some(loads) = self.fast.get() else { return (0, 0) };
        self.places()
            .into_iter()
            .map(|place| self.places[place].identity.id)
            .fold((0, 0), |(now, opened), id| {
                (now + u64::from(loads.connections(id)), opened + loads.opened(id))
            })
    }

    /// Connections that servers of that name have now, by the proxy and on the fast path, made or being made, and those
    /// that wait for them: also at addresses that the name had before.
    pub fn connections(&self, name: &str) -> u64 {
        let of_that_name = self.places.iter().filter(|(_, server)| server.name == name);
        let slow = of_that_name.map(|(place, server)| {
            u64::from(server.in_flight.load(Ordering::Relaxed)) + self.waiting_for(place) as u64
        });
        slow.sum::<u64>() + self.by_name(name).map_or(0, |place| u64::from(self.fast_connections(place)))
    }

    /// Counts changes of servers: whoever has drawn conclusions from them knows by it when they are out of date.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Until a server has been added, replaced or deleted. What happens from this call on counts, awaited or not.
    pub fn enrolled(&self) -> Notified<'_> {
        self.enrolled.notified()
    }

    /// In the order of the command line.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Server> {
        self.places().into_iter().map(|place| &self.places[place])
    }

    /// The places of [`Self::iter`].
    pub fn places(&self) -> Vec<usize> {
        self.roster.load().order.clone()
    }

    /// How many places there are, with those of servers that have gone.
    pub fn places_ever(&self) -> usize {
        self.places.count()
    }

    /// Begins anew to look for the most at one time.
    pub fn forget_most(&self) {
        self.places.iter().for_each(|(_, server)| server.forget_most());
        self.queue.forget_most();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.roster.load().order.len()
    }

    /// Possible once the last one was deleted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The server of that name.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.roster.load().by_name.get(name).copied()
    }

    /// The server that this cookie value names.
    pub fn by_cookie(&self, value: &[u8]) -> Option<usize> {
        self.roster.load().by_cookie.get(value).copied()
    }

    /// The cookie value has named a server that has gone since the process was started.
    pub fn has_named(&self, value: &[u8]) -> bool {
        self.roster.load().former_cookies.contains(value)
    }

    /// The server of that registry id, whatever its generation: names are what counts on the slow path.
    pub fn by_id(&self, id: u16) -> Option<usize> {
        self.roster.load().by_id.get(&id).copied()
    }

    /// Adds a server behind the others, whose name, cookie value and id no other has.
    ///
    /// # Errors
    /// See [`NoPlace`].
    pub fn add(&self, server: Server) -> Result<usize, NoPlace> {
        let _turn = self.turn();
        let place = self.push(server)?;
        self.limit_fast_path(place);
        let mut order = self.places();
        order.push(place);
        self.enroll(order);
        self.publish(place);
        Ok(place)
    }

    /// Puts `server` where the one at `place` was, which is retired: the same name at another address.
    ///
    /// # Errors
    /// See [`NoPlace`].
    pub fn replace(&self, place: usize, server: Server) -> Result<usize, NoPlace> {
        let _turn = self.turn();
        let new = self.push(server)?;
        let order = self.places().into_iter().map(|old| if old == place { new } else { old });
        self.enroll(order.collect());
        self.places[place].retire();
        self.limit_fast_path(new);
        self.publish(new);
        self.reconsider(place);
        Ok(new)
    }

    /// Takes the server at `place` out for good. Who is being served by it may finish.
    pub fn retire(&self, place: usize) {
        let _turn = self.turn();
        let mut order = self.places();
        order.retain(|&known| known != place);
        self.enroll(order);
        self.places[place].retire();
        self.publish(place);
    }

    /// Ends what is being served by the server at `place`, on both paths.
    pub fn end_sessions(&self, place: usize) -> Ended {
        let server = &self.places[place];
        let slow = u64::from(server.end_sessions());
        self.endings.send_replace(());
        Ended { slow, fast: self.fast().end(server.identity.id) }
    }

    /// The same for all servers of that name, also at addresses that the name had before.
    pub fn end_sessions_of(&self, name: &str) -> Ended {
        let of_that_name = self.places.iter().filter(|(_, server)| server.name == name);
        let slow = of_that_name.map(|(_, server)| u64::from(server.end_sessions())).sum();
        self.endings.send_replace(());
        // All of them have one id.
        let fast = self.by_name(name).map_or(0, |place| self.fast().end(self.places[place].identity.id));
        Ended { slow, fast }
    }

    /// Changes whenever sessions are ended: whoever serves some looks then whether they are still to go on.
    pub fn endings(&self) -> watch::Receiver<()> {
        self.endings.subscribe()
    }

    /// Records the operator's wish and publishes it.
    pub fn set_operator(&self, place: usize, wish: Operator) {
        self.places[place].set_operator(wish);
        self.publish(place);
    }

    /// Records what the checks found and publishes it; true if that changed anything.
    pub fn set_health(&self, place: usize, health: Health) -> bool {
        let changed = self.places[place].set_health(health);
        if changed {
            self.publish(place);
        }
        changed
    }

    /// Records how many sixteenths of its weight count now. The kernel knows no weights, so it is not told.
    pub fn set_share(&self, place: usize, share: u32) {
        if self.places[place].set_share(share) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Counts an error of real traffic; with the `limit`th in a row whoever watches over the server is woken.
    pub fn mark(&self, place: usize, mark: Mark, limit: u32) {
        let server = &self.places[place];
        if server.marks.failed(mark) == limit {
            server.stir.notify_one();
        }
    }

    /// Gives the server another weight and publishes it.
    pub fn set_weight(&self, place: usize, weight: u32) {
        self.places[place].set_weight(weight);
        self.publish(place);
    }

    /// Publishes all of them again: somebody else may have written over it.
    pub fn publish_all(&self) {
        self.places().into_iter().for_each(|place| self.publish(place));
    }

    /// Says that something about the server at `place` has changed.
    pub fn publish(&self, place: usize) {
        self.changes.fetch_add(1, Ordering::Release);
        let server = &self.places[place];
        // Whoever still holds the place of a server that has moved, or come back, says nothing about where it is now.
        if server.is_retired() && self.by_id(server.identity.id).is_some() {
            return;
        }
        if let Some(publish) = self.publisher.get() {
            publish(server);
        }
        self.places[place].stir.notify_one();
        self.reconsider(place);
    }

    fn push(&self, server: Server) -> Result<usize, NoPlace> {
        if self.places.count() >= MOST_PLACES { Err(NoPlace) } else { Ok(self.places.push(server)) }
    }

    fn enroll(&self, order: Vec<usize>) {
        let before = self.roster.load_full();
        let mut roster = Roster::default();
        for &place in &order {
            let server = &self.places[place];
            roster.by_name.insert(server.name.clone(), place);
            roster.by_id.insert(server.identity.id, place);
            if let Some(cookie) = &server.cookie {
                roster.by_cookie.insert(cookie.clone().into_bytes(), place);
            }
        }
        let known = before.former_cookies.iter().chain(before.by_cookie.keys());
        roster.former_cookies =
            known.filter(|cookie| !roster.by_cookie.contains_key(*cookie)).cloned().collect();
        self.roster.store(Roster { order, ..roster }.into());
        self.enrolled.notify_waiters();
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.enrolling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::server::tests::{named, servers};
    use crate::server::{Operator, State};

    fn names(set: &super::Servers) -> Vec<&str> {
        set.iter().map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn a_server_that_is_added_is_found_and_the_others_stay_where_they_are() {
        let set = servers(2);
        let place = set.add(named(7)).expect("a place");
        assert_eq!((place, set.len(), names(&set)), (2, 3, vec!["s1", "s2", "s7"]));
        assert_eq!((set.by_name("s7"), set.by_cookie(b"s7"), set.by_id(7)), (Some(2), Some(2), Some(2)));
        assert_eq!(set.by_name("s1"), Some(0));
    }

    #[test]
    fn a_server_that_is_retired_is_found_by_nobody_and_takes_nobody() {
        let set = servers(3);
        let before = set.changes();
        set.retire(1);
        assert_eq!(names(&set), ["s1", "s3"]);
        assert_eq!((set.by_name("s2"), set.by_cookie(b"s2"), set.by_id(2)), (None, None, None));
        assert!(set.has_named(b"s2") && !set.has_named(b"s1") && !set.has_named(b"s9"));
        assert_eq!((set[1].state(), set[1].is_retired(), &*set[1].name), (State::Maint, true, "s2"));
        assert!(set.changes() > before);
        set.set_operator(1, Operator::Ready);
        assert_eq!(set[1].state(), State::Maint, "for good");
        let again = set.add(named(2)).expect("a place");
        assert_eq!((again, set.by_name("s2")), (3, Some(3)), "a place of its own");
    }

    #[test]
    fn one_that_replaces_another_stands_where_it_stood() {
        let set = servers(3);
        assert_eq!(set.replace(1, named(2)), Ok(3));
        assert_eq!(names(&set), ["s1", "s2", "s3"]);
        assert_eq!((set.by_name("s2"), set[1].is_retired()), (Some(3), true));
    }

    #[test]
    fn who_holds_an_old_place_says_nothing_about_who_is_there_now() {
        let set = servers(2);
        let (sender, published) = std::sync::mpsc::channel();
        set.publish_with(Box::new(move |server| {
            let _ = sender.send((server.name.clone(), server.state()));
        }));
        set.replace(0, named(1)).expect("a place");
        set.retire(1);
        assert_eq!(published.try_iter().last(), Some(("s2".to_owned(), State::Maint)));
        set.set_operator(0, Operator::Drain);
        assert_eq!(published.try_iter().count(), 0, "s1 is elsewhere");
        set.add(named(2)).expect("a place");
        set.set_operator(1, Operator::Ready);
        assert_eq!(
            published.try_iter().collect::<Vec<_>>(),
            [("s2".to_owned(), State::Up)],
            "the new one alone"
        );
    }

    #[test]
    fn every_change_is_published() {
        let set = servers(1);
        let (sender, published) = std::sync::mpsc::channel();
        set.publish_with(Box::new(move |server| {
            let _ = sender.send((server.name.clone(), server.state(), server.weight()));
        }));
        set.set_operator(0, Operator::Drain);
        set.set_weight(0, 5);
        set.add(named(2)).expect("a place");
        set.retire(0);
        let said: Vec<_> = published.try_iter().collect();
        let expected = [
            ("s1", State::Up, 1),
            ("s1", State::Drain, 1),
            ("s1", State::Drain, 5),
            ("s2", State::Up, 1),
            ("s1", State::Maint, 5),
        ];
        assert_eq!(said, expected.map(|(name, state, weight)| (name.to_owned(), state, weight)));
    }
}
