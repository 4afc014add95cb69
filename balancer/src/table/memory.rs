//! A learned table in the process's memory, for hosts without BPF.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balancer_ebpf::affinity::Affinity;

use super::{Key, Store, Walk};

/// Entries to a shard: few enough to look through all of them when one has to go, and that a walk holds nobody up.
const SHARD: usize = 512;
const MOST_SHARDS: usize = 1 << 15;

/// The table; a clone is a handle to the same entries.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shards: Box<[Mutex<Shard>]>,
    /// Which shard a key is in: nobody can fill one of them.
    hasher: RandomState,
    /// Of all shards.
    count: AtomicUsize,
    capacity: usize,
    evicts: bool,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Written>,
    writes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    entry: Affinity,
    /// The shard's count of writes at that time: expiries are seconds, in which thousands are written.
    at: u64,
}

impl Memory {
    /// A table of at most `capacity` entries. Full, it forgets about the least recently written one for a new one.
    pub fn new(capacity: u32) -> Self {
        Self::with(capacity, true)
    }

    /// A table that refuses new entries when it is full.
    pub fn refusing(capacity: u32) -> Self {
        Self::with(capacity, false)
    }

    fn with(capacity: u32, evicts: bool) -> Self {
        let capacity = capacity as usize;
        let shards = (capacity / SHARD).next_power_of_two().min(MOST_SHARDS);
        let shards = (0..shards).map(|_| Mutex::default()).collect();
        let (hasher, count) = (RandomState::new(), AtomicUsize::new(0));
        Self { inner: Arc::new(Inner { shards, hasher, count, capacity, evicts }) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let hash = self.inner.hasher.hash_one(key) as usize;
        self.nth(hash % self.inner.shards.len())
    }

    fn nth(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.inner.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn evict(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, written)| written.at).map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

impl Store for Memory {
    fn get(&self, key: &Key) -> Option<Affinity> {
        self.shard(key).entries.get(key).map(|written| written.entry)
    }

    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        let Inner { count, capacity, evicts, .. } = &*self.inner;
        let mut shard = self.shard(key);
        shard.writes += 1;
        let written = Written { entry, at: shard.writes };
        if let Some(known) = shard.entries.get_mut(key) {
            *known = written;
            return Ok(());
        }
        if count.fetch_add(1, Ordering::Relaxed) >= *capacity {
            if !evicts {
                count.fetch_sub(1, Ordering::Relaxed);
                return Err(io::ErrorKind::StorageFull.into());
            }
            // A full table has some in every shard, or next to: it may grow by a few entries before that is so.
            if !shard.entries.is_empty() {
                shard.evict();
                count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        shard.entries.insert(*key, written);
        Ok(())
    }

    fn remove(&self, key: &Key) {
        if self.shard(key).entries.remove(key).is_some() {
            self.inner.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn walk(&self, walk: &mut Walk, visit: &mut dyn FnMut(Key, Affinity)) -> bool {
        let index = walk.place.unwrap_or_default() as usize;
        if index >= self.inner.shards.len() {
            walk.place = None;
            return true;
        }
        // Copied: who visits may want to write.
        let entries: Vec<_> =
            self.nth(index).entries.iter().map(|(key, written)| (*key, written.entry)).collect();
        entries.into_iter().for_each(|(key, entry)| visit(key, entry));
        let is_end = index + 1 == self.inner.shards.len();
        walk.place = (!is_end).then_some(index as u32 + 1);
        is_end
    }

    fn clear(&self) {
        for index in 0..self.inner.shards.len() {
            let entries = std::mem::take(&mut self.nth(index).entries);
            self.inner.count.fetch_sub(entries.len(), Ordering::Relaxed);
        }
    }

    fn handle(&self) -> Box<dyn Store> {
        Box::new(self.clone())
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u32) -> Key {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_be_bytes());
        key
    }

    fn all(table: &Memory) -> Vec<u32> {
        let (mut walk, mut found) = (Walk::default(), Vec::new());
        while !table
            .walk(&mut walk, &mut |key, _| found.push(u32::from_be_bytes([key[0], key[1], key[2], key[3]])))
        {
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn a_large_table_stays_within_its_size_and_keeps_the_late_ones() {
        let table = Memory::new(5000);
        (0..20_000).for_each(|n| table.put(&key(n), Affinity::new(1, 1, n)).expect("it never refuses"));
        let kept = all(&table);
        assert!((4990..=5010).contains(&kept.len()), "{}", kept.len());
        // Each shard forgets its own oldest.
        assert!(kept.iter().filter(|n| **n >= 13_000).count() > 4900);
    }

    #[test]
    fn a_table_that_refuses_is_filled_to_the_last_place() {
        let table = Memory::refusing(2000);
        let refused = (0..5000).filter(|n| table.put(&key(*n), Affinity::new(1, 1, 9)).is_err()).count();
        assert_eq!((refused, all(&table)), (3000, (0..2000).collect()));
        table.put(&key(7), Affinity::new(2, 1, 9)).expect("a known key is no new entry");
        table.remove(&key(8));
        table.put(&key(4000), Affinity::new(2, 1, 9)).expect("there is a place again");
        table.clear();
        assert!(all(&table).is_empty());
        table.put(&key(1), Affinity::new(2, 1, 9)).expect("empty");
    }

    proptest! {
        /// A small table is exactly the last written keys.
        #[test]
        fn the_least_recently_written_goes_first(writes in prop::collection::vec(0_u32..12, 0..200)) {
            let (table, mut model) = (Memory::new(5), Vec::new());
            for n in writes {
                table.put(&key(n), Affinity::new(1, 1, 1)).expect("it never refuses");
                model.retain(|known| *known != n);
                model.push(n);
                if model.len() > 5 {
                    model.remove(0);
                }
            }
            model.sort_unstable();
            prop_assert_eq!(all(&table), model);
        }
    }
}
