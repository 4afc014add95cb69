//! The learned tables of a service, in its folder of pins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData};
use xxhash_rust::xxh64::xxh64;

use super::kernel_table::{KernelTable, Shape};
use super::pins::Rollback;
use crate::persist::{List, TableOptions};
use crate::table::learned::probation_size;
use crate::table::set::Stores;
use crate::table::{HashKey, Tables};

/// The pin of the key that ids are hashed with.
pub(super) const HASH_KEY: &str = "hash_key";

/// What the name of a table that is not complete yet begins with.
const FILLING: &str = "~filling~";

/// What the name of a store of keys on probation ends in.
const PROBATION: &str = "~probation";

/// A name that is longer, or has other characters than these, is hashed; bpffs takes no dots, and 255 characters.
const LONGEST_NAME: usize = 32;

/// The first words of the names of tables.
const KINDS: [&str; 4] = ["source", "session", "header", "query"];

/// The tables as they were opened.
pub(super) struct Opened {
    pub(super) tables: Tables,
    /// The table of sources, if it is of the kind that the program reads.
    pub(super) source: Option<KernelTable>,
    /// New ones, which have their names once they are complete.
    pub(super) fresh: Fresh,
    pub(super) notes: Vec<String>,
}

/// Tables that are being filled. Should the process end meanwhile, the next one does not take what is there for all there
/// was: where pins are now, and where they belong.
#[derive(Debug, Default)]
pub(super) struct Fresh(Vec<(PathBuf, PathBuf)>);

impl Fresh {
    /// They are complete.
    pub(super) fn keep(&mut self) -> anyhow::Result<()> {
        for (now, then) in self.0.drain(..) {
            fs::rename(&now, &then).with_context(|| format!("cannot put {} in place", then.display()))?;
        }
        Ok(())
    }
}

/// Opens the tables of `list`, those that are pinned in `folder` and new ones.
pub(super) struct Opening<'a> {
    pub(super) folder: &'a Path,
    /// Another process goes on writing to what is pinned.
    pub(super) has_predecessor: bool,
    /// What ids are to be hashed with, unless there are hashes already.
    pub(super) key: Option<HashKey>,
    pub(super) rollback: &'a mut Rollback,
    /// Empty.
    pub(super) fresh: Fresh,
}

impl Opening<'_> {
    pub(super) fn open(mut self, list: &List) -> anyhow::Result<Opened> {
        let key = self.hash_key()?;
        let (mut source, mut notes) = (None, Vec::new());
        let tables = Tables::open(list, key, |label, options, has_probation| {
            let file = file_name(label);
            let shape = Shape { size: options.size, evicts: !options.nopurge };
            let (main, is_new, has) = self.table(&file, shape)?;
            if has != shape {
                notes.push(note(label, options, has));
            }
            if label == KINDS[0] && has.evicts {
                source = Some(main.clone());
            }
            let probation = if has_probation {
                let shape = Shape { size: probation_size(options.size), evicts: true };
                Some(Box::new(self.table(&(file + PROBATION), shape)?.0) as Box<_>)
            } else {
                None
            };
            Ok::<_, anyhow::Error>(Stores { main: Box::new(main), probation, is_new, size: has.size })
        })?;
        if let Some(table) = tables.source().filter(|table| !table.is_new && !self.has_predecessor) {
            let folded = table.fold_addresses();
            if folded > 0 {
                notes.push(format!(
                    "table source: {folded} entries were made ones of larger blocks, as the flags say now"
                ));
            }
        }
        Ok(Opened { tables, source, fresh: self.fresh, notes })
    }

    /// The table, whether it is new, and its shape.
    fn table(&mut self, file: &str, shape: Shape) -> anyhow::Result<(KernelTable, bool, Shape)> {
        let path = self.folder.join(file);
        if self.has_predecessor && path.exists() {
            // It would not hear of a copy.
            let (table, has) = KernelTable::open_as_it_is(&path)?;
            return Ok((table, false, has));
        }
        self.rollback.note(path.clone());
        if path.exists() {
            let (table, _) = KernelTable::open(&path, shape)?;
            return Ok((table, false, shape));
        }
        let filling = self.folder.join(format!("{FILLING}{file}"));
        let _ = fs::remove_file(&filling);
        self.rollback.note(filling.clone());
        let (table, _) = KernelTable::open(&filling, shape)?;
        self.fresh.0.push((filling, path));
        Ok((table, true, shape))
    }

    /// What ids are hashed with: pinned beside the tables, as either is nothing without the other.
    fn hash_key(&mut self) -> anyhow::Result<HashKey> {
        let path = self.folder.join(HASH_KEY);
        if !path.exists() {
            let key = match self.key {
                Some(key) => key,
                None => HashKey::random().context("the host gives no random bytes")?,
            };
            let mut map: Array<MapData, [u8; 16]> =
                Array::create(1, 0).context("cannot create the map of the hash key")?;
            map.set(0, key.bytes(), 0)?;
            // Pinned when it is complete.
            self.rollback.note(path.clone());
            map.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
            return Ok(key);
        }
        let map = MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut map: Array<MapData, [u8; 16]> = Array::try_from(Map::Array(map))
            .with_context(|| format!("{} is of another layout", path.display()))?;
        let known = HashKey::from_bytes(map.get(&0, 0)?);
        let has_hashes = pinned(self.folder).iter().any(|(name, _)| !name.starts_with(KINDS[0]));
        match self.key {
            Some(key) if !has_hashes && !self.has_predecessor => {
                map.set(0, key.bytes(), 0)?;
                Ok(key)
            }
            _ => Ok(known),
        }
    }
}

/// A start was broken off in this folder before it had read all that was kept.
pub(super) fn was_broken_off(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(FILLING))
}

/// All tables in the folder of a service, whether this run uses them or not, and those that are being made.
pub(super) fn all(folder: &Path, fresh: &Fresh) -> Vec<Pinned> {
    let open = |(name, path): (String, PathBuf)| Pinned {
        is_of_sources: name.starts_with(KINDS[0]),
        table: KernelTable::open_as_it_is(&path).map(|(table, _)| table),
    };
    let fresh = fresh.0.iter().filter_map(|(now, then)| Some((then.file_name()?, now)));
    let fresh = fresh.map(|(name, path)| (name.to_string_lossy().into_owned(), path.clone()));
    pinned(folder).into_iter().chain(fresh).map(open).collect()
}

/// A table that is pinned.
pub(super) struct Pinned {
    is_of_sources: bool,
    /// `Err`: nobody can tell what is in it.
    table: anyhow::Result<KernelTable>,
}

/// The ids of servers that entries of the tables name. `None`: nobody knows.
pub(super) fn named(tables: &[Pinned]) -> Option<Vec<bool>> {
    let mut ids = vec![false; usize::from(u16::MAX) + 1];
    for Pinned { is_of_sources, table } in tables {
        table.as_ref().ok()?.for_each(|_, entry| {
            ids[usize::from(entry.server())] = true;
            if let (false, Some(left)) = (*is_of_sources, entry.instead_of()) {
                ids[usize::from(left)] = true;
            }
        });
    }
    Some(ids)
}

/// Names and paths of the tables that are pinned in `folder`.
pub(super) fn pinned(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    names.filter(|(name, _)| KINDS.iter().any(|kind| is_of_kind(name, kind))).collect()
}

fn is_of_kind(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '~']))
}

/// The name of a table's pin: its label with `-` for `=`, or a hash where the name cannot be one of a file. What begins
/// with `~` is never a name.
fn file_name(label: &str) -> String {
    let Some((kind, name)) = label.split_once('=') else { return label.to_owned() };
    // Compared without case wherever they are looked for.
    let name = if matches!(kind, "header" | "query") { name.to_ascii_lowercase() } else { name.to_owned() };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.len() <= LONGEST_NAME && name.chars().all(fits) {
        format!("{kind}-{name}")
    } else {
        format!("{kind}~{:016x}", xxh64(name.as_bytes(), 0))
    }
}

fn note(label: &str, options: &TableOptions, has: Shape) -> String {
    let Shape { size, evicts } = has;
    if evicts == options.nopurge {
        let refuses = if evicts { "forgets old entries" } else { "refuses new entries" };
        return format!("table {label}, full, {refuses}, as it was made; nopurge counts after the next stop");
    }
    format!(
        "table {label} holds {size} entries, as it was made; size={} counts after the next stop",
        options.size
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_recognised_and_never_clash() {
        let table = [
            ("source", "source"),
            ("session=JSESSIONID", "session-JSESSIONID"),
            ("session=jsessionid", "session-jsessionid"),
            ("header=X-User", "header-x-user"),
            ("session=~x", "session~"),
            ("session=a.b", "session~"),
            (&format!("query={}", "x".repeat(300)), "query~"),
        ];
        for (label, expected) in table {
            let name = file_name(label);
            assert!(name.starts_with(expected) && name.len() <= 64 && !name.contains('.'), "{label}: {name}");
            assert!(KINDS.iter().any(|kind| is_of_kind(&name, kind)), "{name}");
        }
        assert_ne!(file_name("session=a.b"), file_name("session=a,b"));
        for foreign in ["hash_key", "intents", "sources", "sessions-x"] {
            assert!(!KINDS.iter().any(|kind| is_of_kind(foreign, kind)), "{foreign}");
        }
    }
}
