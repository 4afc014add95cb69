//! A learned table in the process's memory, for hosts without BPF. A restart forgets it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use balancer_ebpf::affinity::Affinity;

use super::{Key, Store};

const SHARDS: usize = 16;

/// How many entries are looked at to find one to evict: "about" the least recently written (as Redis does it).
const EVICTION_SAMPLE: usize = 8;

/// The table; a clone is a handle to the same entries.
#[derive(Clone)]
pub struct Memory {
    shards: Arc<[Mutex<HashMap<Key, Affinity>>; SHARDS]>,
    shard_capacity: usize,
}

impl Memory {
    /// A table of at most about `capacity` entries.
    pub fn new(capacity: u32) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        Self { shards: Arc::new(shards), shard_capacity: (capacity as usize).div_ceil(SHARDS) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Affinity>> {
        let index = key.iter().fold(0_u8, |sum, byte| sum.rotate_left(3) ^ byte);
        self.shards[usize::from(index) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn get(&self, key: &Key) -> Option<Affinity> {
        self.shard(key).get(key).copied()
    }

    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        let mut shard = self.shard(key);
        if shard.len() >= self.shard_capacity && !shard.contains_key(key) {
            // A refresh moves the expiry, so the earliest expiry is the least recently written.
            let oldest =
                shard.iter().take(EVICTION_SAMPLE).min_by_key(|(_, e)| e.expiry()).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                shard.remove(&oldest);
            }
        }
        shard.insert(*key, entry);
        Ok(())
    }

    fn remove(&self, key: &Key) {
        self.shard(key).remove(key);
    }

    fn for_each(&self, visit: &mut dyn FnMut(Key, Affinity)) {
        for shard in self.shards.iter() {
            let entries: Vec<_> =
                shard.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(k, e)| (*k, *e)).collect();
            for (key, entry) in entries {
                visit(key, entry);
            }
        }
    }

    fn handle(&self) -> io::Result<Box<dyn Store>> {
        Ok(Box::new(self.clone()))
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_something_and_stays_within_its_size() {
        let table = Memory::new(160);
        for n in 0..10_000_u32 {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&n.to_be_bytes());
            table.put(&key, Affinity::new(1, 1, n)).expect("memory never refuses");
        }
        let mut count = 0;
        table.for_each(&mut |_, _| count += 1);
        assert!(count <= 160, "{count}");
    }
}
