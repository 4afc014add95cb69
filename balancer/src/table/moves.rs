//! Clients that are just being moved: reservations of keys whose entry names a server that cannot serve now.
//!
//! Such an entry is not overwritten before a server has answered, as it is true again when its server is back; so the
//! reservation is kept here, beside the table, for the length of a request. A key that nobody knows has its reservation
//! in the table itself, where other processes see it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use balancer_ebpf::affinity::Affinity;

use super::Key;

/// The reservations of one table.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// So that nobody takes the lock when nobody is being moved.
    count: AtomicUsize,
    reserved: Mutex<HashMap<Key, Affinity>>,
}

impl Moves {
    /// The reservation of the key, if there is one that is live at `now`.
    pub(super) fn get(&self, key: &Key, now: u32) -> Option<Affinity> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lock().get(key).copied().filter(|entry| entry.is_live(now))
    }

    pub(super) fn put(&self, key: &Key, reservation: Affinity) {
        let mut reserved = self.lock();
        reserved.insert(*key, reservation);
        self.count.store(reserved.len(), Ordering::Release);
    }

    /// Takes the key's reservation away; with `only` just that one. Whether it was there.
    pub(super) fn remove(&self, key: &Key, only: Option<Affinity>) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut reserved = self.lock();
        let is_meant = reserved.get(key).is_some_and(|entry| only.is_none_or(|only| only == *entry));
        if is_meant {
            reserved.remove(key);
            self.count.store(reserved.len(), Ordering::Release);
        }
        is_meant
    }

    pub(super) fn clear(&self) {
        let mut reserved = self.lock();
        reserved.clear();
        self.count.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Affinity>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
