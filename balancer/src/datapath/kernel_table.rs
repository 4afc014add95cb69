//! A learned table in a pinned map: a restart, an upgrade or a crash of the process forgets nothing.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use aya::maps::{MapData, MapInfo, MapType};
use aya_obj::generated::bpf_map_type::{self, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH};
use balancer_ebpf::affinity::Affinity;

use super::syscall::{BatchWalk, lookup, remove, update};
use crate::clock;
use crate::table::{Key, Store, Walk};

/// Entries read at a time when the table is walked over.
const BATCH: usize = 1024;

/// What a table is to be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Entries that it can hold.
    pub size: u32,
    /// When it is full: true, about the least recently written one goes; false, the new one is refused.
    pub evicts: bool,
}

impl Shape {
    fn of(info: &MapInfo) -> anyhow::Result<Self> {
        let kind = info.map_type()?;
        let is_ours = matches!(kind, MapType::Hash | MapType::LruHash)
            && info.key_size() as usize == size_of::<Key>()
            && info.value_size() as usize == size_of::<u64>();
        ensure!(is_ours, "it is not a learned table");
        Ok(Self { size: info.max_entries(), evicts: kind == MapType::LruHash })
    }

    fn kind(self) -> bpf_map_type {
        if self.evicts { BPF_MAP_TYPE_LRU_HASH } else { BPF_MAP_TYPE_HASH }
    }
}

/// A handle to the map. All handles of the process share a descriptor.
#[derive(Clone, Debug)]
pub struct KernelTable {
    map: Arc<OwnedFd>,
}

impl KernelTable {
    /// The table pinned at `path`; made if it is not there, which is said, and copied into a new one if it has another
    /// shape.
    ///
    /// # Errors
    /// What the kernel refuses; the message names the map.
    pub fn open(path: &Path, shape: Shape) -> anyhow::Result<(Self, bool)> {
        if !path.exists() {
            let map = create(shape)?;
            map.pin(path).with_context(|| format!("cannot pin {}", path.display()))?;
            return Ok((Self::of(&map)?, true));
        }
        let (old, info) = pinned(path)?;
        let has = Shape::of(&info).with_context(|| format!("cannot use {}", path.display()))?;
        if has == shape && info.map_flags() == 0 {
            return Ok((old, false));
        }
        let new = create(shape)?;
        let copy = Self::of(&new)?;
        old.copy_to(&copy, shape);
        let fresh = beside(path);
        let _ = fs::remove_file(&fresh);
        new.pin(&fresh).with_context(|| format!("cannot pin {}", fresh.display()))?;
        fs::rename(&fresh, path).with_context(|| format!("cannot replace {}", path.display()))?;
        Ok((copy, false))
    }

    /// The table pinned at `path`, whatever its shape.
    ///
    /// # Errors
    /// What the kernel refuses, or a map of another kind.
    pub fn open_as_it_is(path: &Path) -> anyhow::Result<(Self, Shape)> {
        let (table, info) = pinned(path)?;
        let shape = Shape::of(&info).with_context(|| format!("cannot use {}", path.display()))?;
        Ok((table, shape))
    }

    /// A table that goes away with its last handle: for tests of the program.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn unpinned(shape: Shape) -> anyhow::Result<Self> {
        Self::of(&create(shape)?)
    }

    fn of(map: &MapData) -> anyhow::Result<Self> {
        Ok(Self { map: Arc::new(map.fd().as_fd().try_clone_to_owned()?) })
    }

    /// A descriptor of the map, to put into the array of all services' tables.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn map_data(&self) -> anyhow::Result<MapData> {
        Ok(MapData::from_fd(self.map.try_clone()?)?)
    }

    /// Visits every entry.
    pub fn for_each(&self, mut visit: impl FnMut(Key, Affinity)) {
        let mut walk = Walk::default();
        while !self.walk(&mut walk, &mut visit) {}
    }

    /// Live entries only, with what is left of their lives; of too many those that were used last.
    fn copy_to(&self, new: &Self, shape: Shape) {
        let now = clock::boot_seconds();
        let mut entries = Vec::new();
        self.for_each(|key, entry| {
            if entry.is_live(now) {
                entries.push((key, entry));
            }
        });
        entries.sort_unstable_by_key(|(_, entry)| entry.expiry());
        let surplus = entries.len().saturating_sub(shape.size as usize);
        for (key, entry) in &entries[surplus..] {
            // There is room, up to what the kernel's way of counting costs.
            let _ = new.put(key, *entry);
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl Store for KernelTable {
    fn get(&self, key: &Key) -> Option<Affinity> {
        lookup(self.fd(), key).ok().map(Affinity)
    }

    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()> {
        update(self.fd(), key, &entry.0)
    }

    fn remove(&self, key: &Key) {
        let _ = remove(self.fd(), key);
    }

    fn walk(&self, walk: &mut Walk, visit: &mut dyn FnMut(Key, Affinity)) -> bool {
        let mut batch = BatchWalk::resume(walk.place, BATCH);
        // A walk that the kernel breaks off begins again the next time.
        let Ok((entries, is_end)) = batch.next::<Key, u64>(self.fd()) else {
            walk.place = None;
            return true;
        };
        walk.place = batch.place();
        entries.into_iter().for_each(|(key, entry)| visit(key, Affinity(entry)));
        is_end
    }

    fn clear(&self) {
        let mut walk = BatchWalk::new(BATCH);
        while matches!(walk.take::<Key, u64>(self.fd()), Ok((_, false))) {}
    }

    fn handle(&self) -> Box<dyn Store> {
        Box::new(self.clone())
    }

    fn kind(&self) -> &'static str {
        "kernel"
    }
}

/// bpffs takes no dots.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from("~new~");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn pinned(path: &Path) -> anyhow::Result<(KernelTable, MapInfo)> {
    let map = MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok((KernelTable::of(&map)?, map.info()?))
}

/// All memory is taken at once, so that writing an entry cannot fail for want of it, nor wait for it.
fn create(shape: Shape) -> anyhow::Result<MapData> {
    let (key, value) = (size_of::<Key>() as u32, size_of::<u64>() as u32);
    let map = aya_obj::Map::new_from_params(shape.kind() as u32, key, value, shape.size, 0);
    MapData::create(map, "balancer_learned", None).context("cannot create a learned table")
}
