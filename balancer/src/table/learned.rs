//! One learned table.
//!
//! A key that comes out of a request or an answer is first kept on *probation*, in a store of its own a quarter of the
//! table's size, and moves to the main store when it is used a second time: so a flood of keys that are never seen again
//! pushes out others of its kind, and no user. Addresses need no probation, as nobody can make one up who has completed a
//! handshake.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use balancer_ebpf::affinity::Affinity;

use super::moves::Moves;
use super::{HashKey, Key, Store, Walk, mask, source_key};
use crate::persist::{SourceMethod, TableOptions};

/// Writes of one key happen one at a time; different keys seldom share a lock.
const LOCKS: usize = 64;

/// Life of a reservation, in seconds: longer than any wait for a first answer should be.
pub const RESERVATION_SECONDS: u32 = 10;

/// The probation of a table of that size.
pub fn probation_size(size: u32) -> u32 {
    (size / 4).max(1)
}

/// An entry, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The entry, live or not.
    pub entry: Affinity,
    /// The key was used once so far. [`Table::learn`] is worth a call even if nothing else about the entry is news.
    pub probation: bool,
}

impl Found {
    /// Whether a request at `now` that finds it is the key's second one. A reservation is a first request still.
    pub fn is_proof(&self, now: u32) -> bool {
        self.entry.is_live(now) && !self.entry.is_tentative()
    }
}

/// Who is told what answers have taught, right after it was written; by any thread, and not to wait for long.
pub type Listener = Box<dyn Fn(Key, Found) + Send + Sync>;

/// What the keys of a table are made of.
#[derive(Clone, Copy, Debug)]
enum Keys {
    /// Addresses, of which so many bits count.
    Addresses { mask4: u8, mask6: u8 },
    /// Ids.
    Hashes(HashKey),
}

/// A handle to a learned table.
pub struct Table {
    main: Box<dyn Store>,
    probation: Option<Box<dyn Store>>,
    keys: Keys,
    /// Life of an entry after its last use, in seconds.
    pub timeout: u32,
    /// Most entries of the main store.
    pub size: u32,
    /// Whether it was made at this start, so that what an earlier process has learned may be missing.
    pub is_new: bool,
    locks: Arc<[Mutex<()>; LOCKS]>,
    moves: Arc<Moves>,
    listener: Arc<ArcSwapOption<Listener>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("store", &self.kind()).field("timeout", &self.timeout).finish()
    }
}

impl Table {
    /// A table of addresses over `store`.
    pub fn new(store: Box<dyn Store>, timeout: u32) -> Self {
        Self {
            main: store,
            probation: None,
            keys: Keys::Addresses { mask4: 32, mask6: 128 },
            timeout,
            size: u32::MAX,
            is_new: true,
            locks: Arc::new([const { Mutex::new(()) }; LOCKS]),
            moves: Arc::default(),
            listener: Arc::default(),
        }
    }

    /// The table of `source`.
    pub fn of_sources(store: Box<dyn Store>, method: &SourceMethod) -> Self {
        let keys = Keys::Addresses { mask4: method.mask4, mask6: method.mask6 };
        Self { keys, ..Self::new(store, method.table.timeout) }
    }

    /// A table of ids, hashed with `key`.
    pub fn of_ids(
        main: Box<dyn Store>,
        probation: Option<Box<dyn Store>>,
        key: HashKey,
        options: &TableOptions,
    ) -> Self {
        Self { keys: Keys::Hashes(key), probation, ..Self::new(main, options.timeout) }
    }

    /// Another handle to the same table.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self {
            main: self.main.handle(),
            probation: self.probation.as_ref().map(|probation| probation.handle()),
            keys: self.keys,
            timeout: self.timeout,
            size: self.size,
            is_new: self.is_new,
            locks: Arc::clone(&self.locks),
            moves: Arc::clone(&self.moves),
            listener: Arc::clone(&self.listener),
        }
    }

    /// The key of an id. An empty one has none, so it neither matches nor is stored; nor has a table of addresses keys
    /// for ids.
    pub fn key(&self, id: &[u8]) -> Option<Key> {
        match &self.keys {
            Keys::Hashes(key) if !id.is_empty() => Some(key.hash(id)),
            Keys::Hashes(_) | Keys::Addresses { .. } => None,
        }
    }

    /// The key of a client's address, or of the block that it is in.
    pub fn source_key(&self, address: IpAddr) -> Key {
        match self.keys {
            Keys::Addresses { mask4, mask6 } => mask(source_key(address), mask4, mask6),
            Keys::Hashes(_) => source_key(address),
        }
    }

    /// Makes blocks of addresses out of those that an earlier process has learned one by one, or in smaller blocks: of
    /// several in a block the one that was used last counts. Returns how many keys have changed.
    pub fn fold_addresses(&self) -> usize {
        let Keys::Addresses { mask4, mask6 } = self.keys else { return 0 };
        let mut strangers = Vec::new();
        self.for_each(|key, found| {
            if mask(key, mask4, mask6) != key {
                strangers.push((key, found.entry));
            }
        });
        for (key, entry) in &strangers {
            let block = mask(*key, mask4, mask6);
            let is_newer = self.get(&block).is_none_or(|known| known.expiry() < entry.expiry());
            // A table that refuses forgets.
            if is_newer && self.main.put(&block, *entry).is_err() {
                break;
            }
            self.main.remove(key);
        }
        strangers.len()
    }

    /// Its keys are addresses.
    pub fn is_of_sources(&self) -> bool {
        matches!(self.keys, Keys::Addresses { .. })
    }

    /// What counts for a request: the entry, or the reservation of another request of the client, which is being moved.
    pub fn look(&self, key: &Key, now: u32) -> Option<Found> {
        let found = self.find(key);
        match self.moves.get(key, now) {
            Some(entry) => Some(Found { entry, probation: found.is_some_and(|found| found.probation) }),
            None => found,
        }
    }

    /// The entry and where it is, live or not.
    pub fn find(&self, key: &Key) -> Option<Found> {
        if let Some(entry) = self.main.get(key) {
            return Some(Found { entry, probation: false });
        }
        let entry = self.probation.as_ref()?.get(key)?;
        Some(Found { entry, probation: true })
    }

    /// The entry, live or not.
    pub fn get(&self, key: &Key) -> Option<Affinity> {
        self.find(key).map(|found| found.entry)
    }

    /// Writes the entry without probation: what an operator says, and what is known of addresses.
    ///
    /// # Errors
    /// When the table refuses.
    pub fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        self.main.put(key, entry)?;
        if let Some(probation) = &self.probation {
            probation.remove(key);
        }
        self.moves.remove(key, None);
        Ok(())
    }

    /// Writes what an answer has taught. `seen` is what the request had found before it reserved anything: with that the
    /// key has been used before, and needs no probation any more. `entry` has its full life.
    ///
    /// # Errors
    /// When the table refuses, which costs the client its memory and not its answer. A key on probation stays there.
    pub fn learn(&self, key: &Key, entry: Affinity, seen: Option<Found>) -> io::Result<()> {
        let written = self.write(key, entry, seen);
        self.moves.remove(key, None);
        if let Some(listener) = &*self.listener.load()
            && let Some(found) = self.find(key)
        {
            listener(*key, found);
        }
        written
    }

    /// Whoever [`Self::learn`]s something by any handle tells it to `listener` from now on.
    pub fn tell(&self, listener: Option<Listener>) {
        self.listener.store(listener.map(Arc::new));
    }

    fn write(&self, key: &Key, entry: Affinity, seen: Option<Found>) -> io::Result<()> {
        let Some(probation) = &self.probation else { return self.main.put(key, entry) };
        let now = entry.expiry().saturating_sub(self.timeout);
        let _turn = self.turn(key);
        if self.main.get(key).is_some() {
            return self.main.put(key, entry);
        }
        if !seen.is_some_and(|seen| seen.is_proof(now)) {
            return probation.put(key, entry);
        }
        // In this order: nobody is to find nothing.
        match self.main.put(key, entry) {
            Ok(()) => {
                probation.remove(key);
                Ok(())
            }
            Err(error) => probation.put(key, entry).and(Err(error)),
        }
    }

    /// Writes an entry where another process had it.
    ///
    /// # Errors
    /// When the table refuses.
    pub fn restore(&self, key: &Key, found: Found) -> io::Result<()> {
        match &self.probation {
            Some(probation) if found.probation => probation.put(key, found.entry),
            _ => self.main.put(key, found.entry),
        }
    }

    /// Forgets the key.
    pub fn forget(&self, key: &Key) {
        self.moves.remove(key, None);
        self.stores().for_each(|store| store.remove(key));
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.moves.clear();
        self.stores().for_each(Store::clear);
    }

    /// Visits every entry. A key that is just moving may be seen twice.
    pub fn for_each(&self, mut visit: impl FnMut(Key, Found)) {
        let mut walk = TableWalk::default();
        while !self.walk(&mut walk, &mut visit) {}
    }

    /// Visits the next thousand entries or so; true: that was the end.
    pub fn walk(&self, walk: &mut TableWalk, visit: &mut impl FnMut(Key, Found)) -> bool {
        let probation = walk.probation;
        let store = self.probation.as_deref().filter(|_| probation).unwrap_or(&*self.main);
        if !store.walk(&mut walk.walk, &mut |key, entry| visit(key, Found { entry, probation })) {
            return false;
        }
        walk.probation = !probation && self.probation.is_some();
        !walk.probation
    }

    /// Forgets those of the next thousand entries or so that are not live at `now`; true: that was the end.
    pub fn collect(&self, walk: &mut TableWalk, now: u32) -> bool {
        let mut dead = Vec::new();
        let is_end = self.walk(walk, &mut |key, found| {
            if !found.entry.is_live(now) {
                dead.push((key, found.probation));
            }
        });
        for (key, probation) in dead {
            let store = self.probation.as_deref().filter(|_| probation).unwrap_or(&*self.main);
            let _turn = self.turn(&key);
            // It may have come back to life meanwhile.
            if store.get(&key).is_some_and(|entry| !entry.is_live(now)) {
                store.remove(&key);
            }
        }
        is_end
    }

    /// `kernel` or `memory`.
    pub fn kind(&self) -> &'static str {
        self.main.kind()
    }

    /// Reserves the key for `server` until its request is answered, unless somebody else has taken it since the
    /// caller looked and saw `seen`.
    ///
    /// # Errors
    /// The entry that won: decide again with it.
    pub fn reserve(
        &self,
        key: &Key,
        seen: Option<Affinity>,
        server: Affinity,
        now: u32,
    ) -> Result<(), Affinity> {
        let _turn = self.turn(key);
        let entry = server.tentative();
        match self.look(key, now) {
            Some(winner) if Some(winner.entry) != seen && winner.entry.is_live(now) => {
                return Err(winner.entry);
            }
            // Of somebody who is known: that stays until a server has answered.
            Some(known) if known.entry.is_live(now) && self.find(key).is_some_and(|f| is_proven(f, now)) => {
                self.moves.put(key, entry);
            }
            found => {
                let probation = found.is_none_or(|found| found.probation);
                // A table that refuses costs parallel first requests their common server, not their answer.
                let _ = self.restore(key, Found { entry, probation });
            }
        }
        Ok(())
    }

    /// Takes a reservation back: the request failed before any server answered. What it had found before, `seen`, is as
    /// true as it was: a server that could not serve then is the client's again when it can.
    pub fn release(&self, key: &Key, reserved: Affinity, seen: Option<Found>) {
        let _turn = self.turn(key);
        if self.moves.remove(key, Some(reserved.tentative())) || self.get(key) != Some(reserved.tentative()) {
            return;
        }
        match seen.filter(|seen| !seen.entry.is_tentative()) {
            // It has its place still: the reservation's.
            Some(seen) => drop(self.restore(key, seen)),
            None => self.forget(key),
        }
    }

    fn stores(&self) -> impl Iterator<Item = &dyn Store> {
        std::iter::once(&*self.main).chain(self.probation.as_deref())
    }

    fn turn(&self, key: &Key) -> MutexGuard<'_, ()> {
        let lock = &self.locks[usize::from(key[15] ^ key[7]) % LOCKS];
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server has answered the key.
fn is_proven(found: Found, now: u32) -> bool {
    found.entry.is_live(now) && !found.entry.is_tentative()
}

/// How far a walk over a table has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableWalk {
    walk: Walk,
    probation: bool,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::table::memory::Memory;

    const TIMEOUT: u32 = 1600;

    fn addresses() -> Table {
        Table::new(Box::new(Memory::new(16)), 60)
    }

    fn ids(main: Memory, probation: u32) -> Table {
        let options = TableOptions { timeout: TIMEOUT, size: 8, nopurge: false };
        let probation = Box::new(Memory::new(probation));
        Table::of_ids(Box::new(main), Some(probation), HashKey::from_bytes([7; 16]), &options)
    }

    fn entry(server: u16, now: u32) -> Affinity {
        Affinity::learned(server, now + TIMEOUT)
    }

    /// A request of that key which `server` answers.
    fn serve(table: &Table, key: &Key, server: u16, now: u32) -> Option<Found> {
        let seen = table.find(key);
        let _ = table.learn(key, entry(server, now), seen);
        seen
    }

    #[test]
    fn the_second_reservation_of_a_key_loses_to_the_first() {
        for table in [addresses(), ids(Memory::new(8), 2)] {
            let (key, now) = ([7; 16], 100);
            let first = Affinity::new(1, 1, now + RESERVATION_SECONDS);
            let second = Affinity::new(2, 1, now + RESERVATION_SECONDS);
            assert_eq!(table.reserve(&key, None, first, now), Ok(()));
            assert_eq!(table.reserve(&key, None, second, now), Err(first.tentative()));
            let later = now + RESERVATION_SECONDS;
            assert_eq!(table.reserve(&key, None, second, later), Ok(()), "reservations expire");
        }
    }

    #[test]
    fn an_entry_that_was_seen_to_be_useless_may_be_replaced() {
        let table = addresses();
        let dead = Affinity::new(9, 1, 1_000);
        table.put(&[7; 16], dead).expect("put");
        assert_eq!(table.reserve(&[7; 16], Some(dead), Affinity::new(1, 1, 110), 100), Ok(()));
    }

    #[test]
    fn releasing_takes_back_only_ones_own_reservation() {
        for table in [addresses(), ids(Memory::new(8), 2)] {
            let (key, mine) = ([7; 16], Affinity::new(1, 1, 110));
            table.reserve(&key, None, mine, 100).expect("free");
            table.release(&key, mine, None);
            assert_eq!(table.find(&key), None);
            table.reserve(&key, None, mine, 100).expect("free");
            table.put(&key, Affinity::new(2, 1, 500)).expect("put");
            table.release(&key, mine, None);
            assert_eq!(table.get(&key).map(Affinity::server), Some(2));
        }
    }

    #[test]
    fn releasing_puts_back_what_was_there() {
        for table in [addresses(), ids(Memory::new(8), 2)] {
            let (key, mine) = ([7; 16], Affinity::new(1, 1, 110));
            let before = Found { entry: Affinity::new(2, 1, 500), probation: !table.is_of_sources() };
            table.restore(&key, before).expect("put");
            table.reserve(&key, Some(before.entry), mine, 100).expect("it was seen to be useless");
            table.release(&key, mine, Some(before));
            assert_eq!(table.find(&key), Some(before));
            let others = Found { entry: Affinity::new(3, 1, 110).tentative(), ..before };
            table.reserve(&key, Some(before.entry), mine, 100).expect("as above");
            table.release(&key, mine, Some(others));
            assert_eq!(table.find(&key), Some(before));
        }
    }

    #[test]
    fn addresses_become_blocks_when_the_mask_is_shorter() {
        let method = |mask4| SourceMethod {
            mask4,
            mask6: 64,
            table: TableOptions { timeout: 60, size: 16, nopurge: false },
        };
        let table = Table::of_sources(Box::new(Memory::new(16)), &method(32));
        let at = |table: &Table, address: &str| {
            let key = table.source_key(address.parse().expect("address"));
            table.get(&key).map(Affinity::server)
        };
        for (address, server, expiry) in [("10.0.1.7", 1, 500), ("10.0.1.8", 2, 900), ("10.0.2.7", 3, 500)] {
            let key = table.source_key(address.parse().expect("address"));
            table.put(&key, Affinity::new(server, 1, expiry)).expect("put");
        }
        assert_eq!(table.fold_addresses(), 0);
        let wide = Table::of_sources(table.main.handle(), &method(24));
        assert_eq!(wide.fold_addresses(), 3);
        assert_eq!((at(&wide, "10.0.1.99"), at(&wide, "10.0.2.1")), (Some(2), Some(3)));
        let mut left = 0;
        wide.for_each(|_, _| left += 1);
        assert_eq!(left, 2);
    }

    #[test]
    fn what_is_known_of_somebody_stays_until_a_server_has_answered() {
        for table in [addresses(), ids(Memory::new(8), 2)] {
            let (key, mine) = ([7; 16], Affinity::new(1, 1, 110));
            let before = Found { entry: Affinity::new(2, 1, 5000), probation: false };
            table.restore(&key, before).expect("put");
            table.reserve(&key, Some(before.entry), mine, 100).expect("it was seen to be useless");
            assert_eq!(table.find(&key), Some(before), "should this process end now, nothing is lost");
            let other = table.handle();
            assert_eq!(other.look(&key, 100).map(|found| found.entry), Some(mine.tentative()));
            let second = Affinity::new(3, 1, 110);
            assert_eq!(other.reserve(&key, Some(before.entry), second, 101), Err(mine.tentative()));
            assert_eq!(
                table.look(&key, 110),
                Some(before),
                "reservations expire, and what was there does not"
            );
            table.release(&key, mine, Some(before));
            assert_eq!(table.look(&key, 100), Some(before));
            table.reserve(&key, Some(before.entry), mine, 100).expect("free again");
            table.learn(&key, Affinity::new(1, 1, 6000), Some(before)).expect("learned");
            assert_eq!(table.look(&key, 101).map(|found| found.entry.server()), Some(1));
            table.reserve(&key, Some(Affinity::new(1, 1, 6000)), second, 102).expect("it is down again");
            table.put(&key, before.entry).expect("the operator's word");
            assert_eq!(table.look(&key, 103), Some(before));
        }
    }

    #[test]
    fn ids_have_keys_unless_they_are_empty() {
        let table = ids(Memory::new(8), 2);
        assert_eq!(table.key(b""), None);
        assert_eq!(table.key(b"abc"), Some(HashKey::from_bytes([7; 16]).hash(b"abc")));
        assert_eq!(addresses().key(b"abc"), None);
    }

    #[test]
    fn a_key_moves_to_the_main_store_when_it_is_used_a_second_time() {
        let (table, key) = (ids(Memory::new(8), 2), [1; 16]);
        assert_eq!(serve(&table, &key, 1, 100), None);
        assert_eq!(table.find(&key), Some(Found { entry: entry(1, 100), probation: true }));
        assert!(serve(&table, &key, 1, 101).is_some());
        assert_eq!(table.find(&key), Some(Found { entry: entry(1, 101), probation: false }));
        let mut seen = 0;
        table.for_each(|_, _| seen += 1);
        assert_eq!(seen, 1, "it is in one place");
    }

    #[test]
    fn neither_a_reservation_nor_what_has_expired_is_a_first_use() {
        let (table, key) = (ids(Memory::new(8), 2), [1; 16]);
        table.reserve(&key, None, Affinity::learned(1, 110), 100).expect("free");
        let parallel = table.find(&key);
        table.learn(&key, entry(1, 100), None).expect("learned");
        table.learn(&key, entry(1, 100), parallel).expect("learned");
        assert!(table.find(&key).expect("there").probation, "two parallel first requests are one use");
        serve(&table, &key, 1, 100 + TIMEOUT);
        assert!(table.find(&key).expect("there").probation, "it was dead");
        serve(&table, &key, 1, 101 + TIMEOUT);
        assert!(!table.find(&key).expect("there").probation);
    }

    #[test]
    fn a_full_table_that_refuses_leaves_the_key_on_probation() {
        let table = ids(Memory::refusing(1), 2);
        for key in [[1; 16], [2; 16]] {
            serve(&table, &key, 1, 100);
            serve(&table, &key, 1, 101);
        }
        assert!(!table.find(&[1; 16]).expect("there").probation);
        assert_eq!(table.find(&[2; 16]), Some(Found { entry: entry(1, 101), probation: true }));
    }

    #[test]
    fn a_flood_of_keys_that_come_once_pushes_no_user_out() {
        let table = ids(Memory::new(8), 2);
        let user = |n: u8| [n; 16];
        for n in 1..=8 {
            serve(&table, &user(n), 1, 100);
            serve(&table, &user(n), 1, 100);
        }
        for n in 0..10_000_u32 {
            let mut key = [0; 16];
            key[12..].copy_from_slice(&n.to_be_bytes());
            serve(&table, &key, 2, 200);
        }
        for n in 1..=8 {
            assert_eq!(table.find(&user(n)), Some(Found { entry: entry(1, 100), probation: false }));
        }
    }

    #[test]
    fn what_has_expired_is_collected_and_nothing_else() {
        let table = ids(Memory::new(8), 4);
        for (n, expiry) in [(1, 100), (2, 200)] {
            table
                .restore(&[n; 16], Found { entry: Affinity::learned(1, expiry), probation: false })
                .expect("put");
            let probation = Found { entry: Affinity::learned(1, expiry), probation: true };
            table.restore(&[n + 10; 16], probation).expect("put");
        }
        let mut walk = TableWalk::default();
        while !table.collect(&mut walk, 100) {}
        let mut left = Vec::new();
        table.for_each(|key, _| left.push(key[0]));
        left.sort_unstable();
        assert_eq!(left, [2, 12]);
    }

    proptest! {
        /// Whatever is used twice in a row stays as long as the main store has a place for it; no key is in both stores;
        /// a key that was forgotten is nowhere.
        #[test]
        fn keys_on_probation_and_users(uses in prop::collection::vec((0_u8..20, any::<bool>()), 0..300)) {
            let table = ids(Memory::refusing(6), 3);
            let mut users = BTreeSet::new();
            for (now, (n, is_forgotten)) in (1_u32..).zip(uses) {
                let key = [n; 16];
                if is_forgotten && n % 4 == 0 {
                    table.forget(&key);
                    users.remove(&n);
                    prop_assert_eq!(table.find(&key), None);
                    continue;
                }
                let seen = serve(&table, &key, 1, now);
                if seen.is_some() && users.len() < 6 {
                    users.insert(n);
                }
                prop_assert!(table.find(&key).is_some(), "what was just used is there");
            }
            let (mut main, mut all) = (BTreeSet::new(), Vec::new());
            table.for_each(|key, found| {
                all.push(key[0]);
                if !found.probation {
                    main.insert(key[0]);
                }
            });
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "in one place each");
            prop_assert!(all.len() - main.len() <= 3);
            prop_assert_eq!(main, users);
        }
    }
}
