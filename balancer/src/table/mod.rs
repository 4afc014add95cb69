//! Learned tables: which server a key belongs to, kept outside the request path's memory where the kernel allows.
//!
//! A [`Table`] is a handle: each worker has its own ([`Table::handle`]), all of them see the same entries. The
//! entries live in a pinned kernel map when there is one, and outlive the process; otherwise in [`memory`].

pub mod memory;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use balancer_ebpf::affinity::Affinity;

/// A table's key: an address in its IPv6 form (RFC 4291 §2.5.5.2 for IPv4), later also the hash of a session id.
pub type Key = [u8; 16];

/// The key of a client's address.
pub fn source_key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of a key, as an operator writes it.
pub fn source_address(key: &Key) -> IpAddr {
    IpAddr::from(*key).to_canonical()
}

/// Where entries are kept. Implementations evict about the least recently written entry when they are full.
pub trait Store: Send {
    /// The entry, live or not.
    fn get(&self, key: &Key) -> Option<Affinity>;
    /// Writes the entry, which also counts as its use.
    ///
    /// # Errors
    /// When the kernel refuses; the request is served all the same.
    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()>;
    /// Forgets the key; forgetting an unknown key is no error.
    fn remove(&self, key: &Key);
    /// Visits every entry, in no order; entries that change meanwhile may be missed or seen twice.
    fn for_each(&self, visit: &mut dyn FnMut(Key, Affinity));
    /// Another handle to the same entries.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    fn handle(&self) -> io::Result<Box<dyn Store>>;
    /// `kernel` or `memory`, for `show info`.
    fn kind(&self) -> &'static str;
}

/// Reservations of one key happen one at a time; different keys seldom share a lock.
const RESERVATION_LOCKS: usize = 64;

/// Life of a reservation, in seconds: longer than any wait for a first answer should be.
pub const RESERVATION_SECONDS: u32 = 10;

/// A handle to a learned table.
pub struct Table {
    store: Box<dyn Store>,
    /// Life of an entry after its last use, in seconds.
    pub timeout: u32,
    reservations: Arc<[Mutex<()>; RESERVATION_LOCKS]>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("store", &self.store.kind()).field("timeout", &self.timeout).finish()
    }
}

impl Table {
    /// A table over `store`.
    pub fn new(store: Box<dyn Store>, timeout: u32) -> Self {
        Self { store, timeout, reservations: Arc::new([const { Mutex::new(()) }; RESERVATION_LOCKS]) }
    }

    /// Another handle to the same table.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn handle(&self) -> io::Result<Self> {
        Ok(Self {
            store: self.store.handle()?,
            timeout: self.timeout,
            reservations: Arc::clone(&self.reservations),
        })
    }

    /// The entry, live or not.
    pub fn get(&self, key: &Key) -> Option<Affinity> {
        self.store.get(key)
    }

    /// Writes the entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        self.store.put(key, entry)
    }

    /// Forgets the key.
    pub fn remove(&self, key: &Key) {
        self.store.remove(key);
    }

    /// Visits every entry.
    pub fn for_each(&self, mut visit: impl FnMut(Key, Affinity)) {
        self.store.for_each(&mut visit);
    }

    /// `kernel` or `memory`.
    pub fn kind(&self) -> &'static str {
        self.store.kind()
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
        let lock = &self.reservations[usize::from(key[15] ^ key[7]) % RESERVATION_LOCKS];
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        match self.get(key) {
            Some(winner) if Some(winner) != seen && winner.is_live(now) => Err(winner),
            _ => {
                // A table that refuses costs parallel first requests their common server, not their answer.
                let _ = self.put(key, server.tentative());
                Ok(())
            }
        }
    }

    /// Takes a reservation back: the request failed before any server answered.
    pub fn release(&self, key: &Key, reserved: Affinity) {
        if self.get(key) == Some(reserved.tentative()) {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v4_mapped_address_is_the_v4_address() {
        let v4: IpAddr = "10.0.0.1".parse().expect("address");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("address");
        assert_eq!(source_key(v4), source_key(mapped));
        assert_eq!(source_address(&source_key(v4)), v4);
    }

    #[test]
    fn the_second_reservation_of_a_key_loses_to_the_first() {
        let table = Table::new(Box::new(memory::Memory::new(16)), 60);
        let (key, now) = ([7; 16], 100);
        let first = Affinity::new(1, 1, now + RESERVATION_SECONDS);
        let second = Affinity::new(2, 1, now + RESERVATION_SECONDS);
        assert_eq!(table.reserve(&key, None, first, now), Ok(()));
        assert_eq!(table.reserve(&key, None, second, now), Err(first.tentative()));
        assert_eq!(
            table.reserve(&key, None, second, now + RESERVATION_SECONDS),
            Ok(()),
            "reservations expire"
        );
    }

    #[test]
    fn an_entry_that_was_seen_to_be_useless_may_be_replaced() {
        let table = Table::new(Box::new(memory::Memory::new(16)), 60);
        let dead = Affinity::new(9, 1, 1_000);
        table.put(&[7; 16], dead).expect("put");
        assert_eq!(table.reserve(&[7; 16], Some(dead), Affinity::new(1, 1, 110), 100), Ok(()));
    }

    #[test]
    fn releasing_takes_back_only_ones_own_reservation() {
        let table = Table::new(Box::new(memory::Memory::new(16)), 60);
        let mine = Affinity::new(1, 1, 110);
        table.reserve(&[7; 16], None, mine, 100).expect("free");
        table.put(&[7; 16], Affinity::new(2, 1, 500)).expect("put");
        table.release(&[7; 16], mine);
        assert_eq!(table.get(&[7; 16]).map(Affinity::server), Some(2));
    }
}
