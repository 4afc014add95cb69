//! A learned table in a pinned LRU map: a restart, an upgrade or a crash of the process forgets nothing.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError, MapInfo, MapType};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_LRU_HASH;
use balancer_ebpf::affinity::Affinity;

use super::syscall::BatchWalk;
use crate::table::{Key, Store};

/// Entries read at a time when the table is listed.
const BATCH: usize = 1024;

/// A handle to the map. Each worker has its own, since updating needs exclusive access to a handle.
#[derive(Debug)]
pub struct KernelTable {
    map: RefCell<HashMap<MapData, Key, u64>>,
    descriptor: OwnedFd,
}

impl KernelTable {
    /// The table pinned at `path`; made if it is not there, and copied into a new one if it has another size.
    ///
    /// # Errors
    /// What the kernel refuses; the message names the map.
    pub fn open(path: &Path, size: u32) -> anyhow::Result<Self> {
        if !path.exists() {
            let map = create(size)?;
            map.pin(path).with_context(|| format!("cannot pin {}", path.display()))?;
            return Self::from_map(map);
        }
        let old = MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
        if has_shape(&old.info()?, size)? {
            return Self::from_map(old);
        }
        let old =
            Self::from_map(old).with_context(|| format!("{} is not a learned table", path.display()))?;
        let new = create(size)?;
        let copy = Self::from_map(MapData::from_fd(new.fd().as_fd().try_clone_to_owned()?)?)?;
        old.for_each(&mut |key, entry| {
            // A smaller table keeps what fits.
            let _ = copy.put(&key, entry);
        });
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        new.pin(&fresh).with_context(|| format!("cannot pin {}", fresh.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))?;
        Ok(copy)
    }

    /// The table pinned at `path`, whatever its size.
    ///
    /// # Errors
    /// What the kernel refuses, or a map of another kind.
    pub fn open_as_it_is(path: &Path) -> anyhow::Result<Self> {
        Self::from_map(MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?)
    }

    /// A table that goes away with its last handle: for tests of the program.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn unpinned(size: u32) -> anyhow::Result<Self> {
        Self::from_map(create(size)?)
    }

    fn from_map(map: MapData) -> anyhow::Result<Self> {
        let descriptor = map.fd().as_fd().try_clone_to_owned()?;
        let map = if map.info()?.map_type()? == MapType::LruHash {
            aya::maps::Map::LruHashMap(map)
        } else {
            aya::maps::Map::HashMap(map)
        };
        Ok(Self { map: RefCell::new(HashMap::try_from(map)?), descriptor })
    }

    /// Entries that it can hold.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn size(&self) -> anyhow::Result<u32> {
        Ok(self.map_data()?.info()?.max_entries())
    }

    /// A second descriptor of the map, to put into the array of all services' tables.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn map_data(&self) -> anyhow::Result<MapData> {
        Ok(MapData::from_fd(self.descriptor.try_clone()?)?)
    }
}

impl Store for KernelTable {
    fn get(&self, key: &Key) -> Option<Affinity> {
        self.map.borrow().get(key, 0).ok().map(Affinity)
    }

    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        self.map.borrow_mut().insert(key, entry.0, 0).map_err(io_error)
    }

    fn remove(&self, key: &Key) {
        let _ = self.map.borrow_mut().remove(key);
    }

    fn for_each(&self, visit: &mut dyn FnMut(Key, Affinity)) {
        let mut walk = BatchWalk::new(BATCH);
        while let Ok((entries, at_end)) = walk.next::<Key, u64>(self.descriptor.as_fd()) {
            entries.into_iter().for_each(|(key, entry)| visit(key, Affinity(entry)));
            if at_end {
                break;
            }
        }
    }

    fn handle(&self) -> io::Result<Box<dyn Store>> {
        let map = MapData::from_fd(self.descriptor.try_clone()?).map_err(io_error)?;
        Ok(Box::new(Self::from_map(map).map_err(io::Error::other)?))
    }

    fn kind(&self) -> &'static str {
        "kernel"
    }
}

fn create(size: u32) -> anyhow::Result<MapData> {
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_LRU_HASH as u32,
        size_of::<Key>() as u32,
        size_of::<u64>() as u32,
        size,
        0,
    );
    MapData::create(shape, "balancer_learned", None).context("cannot create a learned table")
}

fn has_shape(info: &MapInfo, size: u32) -> anyhow::Result<bool> {
    Ok(info.map_type()? == MapType::LruHash
        && info.key_size() as usize == size_of::<Key>()
        && info.value_size() as usize == size_of::<u64>()
        && info.max_entries() == size
        && info.map_flags() == 0)
}

fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        other => io::Error::other(other),
    }
}
