//! The learned tables of a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::learned::{Table, probation_size};
use super::memory::Memory;
use super::{HashKey, Newcomers, Store};
use crate::persist::{List, Method, TableOptions};

/// Handles to all of them. A table belongs to a method of the list, and is called as in its flag.
#[derive(Debug, Default)]
pub struct Tables {
    /// By place in the list.
    list: Vec<Option<Named>>,
    key: HashKey,
    refused_keys: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Named {
    label: String,
    table: Table,
}

/// What a table's entries are kept in.
pub struct Stores {
    /// Those in use.
    pub main: Box<dyn Store>,
    /// Those on probation, where the method has that.
    pub probation: Option<Box<dyn Store>>,
    /// Made just now.
    pub is_new: bool,
    /// Entries that `main` can hold.
    pub size: u32,
}

impl Tables {
    /// The tables of `list`, whose ids are hashed with `key`. `open` is asked for the stores of each by its label; it says
    /// whether a probation is wanted.
    ///
    /// # Errors
    /// What `open` says.
    pub fn open<E>(
        list: &List,
        key: HashKey,
        mut open: impl FnMut(&str, &TableOptions, bool) -> Result<Stores, E>,
    ) -> Result<Self, E> {
        let mut tables = Self { list: Vec::new(), key, refused_keys: Arc::default() };
        for (place, label, options) in list.tables() {
            let method = &list.methods()[place];
            let Stores { main, probation, is_new, size } = open(&label, options, has_probation(method))?;
            let mut table = match method {
                Method::Source(source) => Table::of_sources(main, source),
                _ => Table::of_ids(main, probation, key, options),
            };
            tables.list.resize_with(place, || None);
            (table.is_new, table.size) = (is_new, size);
            tables.list.push(Some(Named { label, table }));
        }
        Ok(tables)
    }

    /// The tables of `list` in memory.
    pub fn in_memory(list: &List, key: HashKey) -> Self {
        let opened = Self::open(list, key, |_, options, has_probation| {
            let main =
                if options.nopurge { Memory::refusing(options.size) } else { Memory::new(options.size) };
            let probation = Box::new(Memory::new(probation_size(options.size))) as Box<dyn Store>;
            let probation = has_probation.then_some(probation);
            Ok::<_, std::convert::Infallible>(Stores {
                main: Box::new(main),
                probation,
                is_new: true,
                size: options.size,
            })
        });
        let Ok(tables) = opened;
        tables
    }

    /// The table of the method at that place of the list.
    pub fn get(&self, place: usize) -> Option<&Table> {
        Some(&self.list.get(place)?.as_ref()?.table)
    }

    /// The table of that name. Two names that differ in case only cannot be given.
    pub fn by_label(&self, label: &str) -> Option<&Table> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(label)).map(|(_, table)| table)
    }

    /// The table of `source`.
    pub fn source(&self) -> Option<&Table> {
        self.iter().map(|(_, table)| table).find(|table| table.is_of_sources())
    }

    /// In the order of the list, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.list.iter().flatten().map(|named| (named.label.as_str(), &named.table))
    }

    /// No method learns.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Where they are: `kernel` or `memory`; `None`: there is none.
    pub fn kind(&self) -> Option<&'static str> {
        self.iter().next().map(|(_, table)| table.kind())
    }

    /// What ids are hashed with.
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// New keys a minute that one source may bring to the smallest of them.
    pub fn most_newcomers(&self) -> u16 {
        let sizes = self.iter().filter(|(_, table)| !table.is_of_sources()).map(|(_, table)| table.size);
        Newcomers::limit_of(sizes.min().unwrap_or_default())
    }

    /// A new key was one too many for its source.
    pub fn count_refused_key(&self) {
        self.refused_keys.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were, through all handles.
    pub fn refused_keys(&self) -> u64 {
        self.refused_keys.load(Ordering::Relaxed)
    }

    /// Other handles to the same tables.
    #[must_use]
    pub fn handle(&self) -> Self {
        let handle = |named: &Named| Named { label: named.label.clone(), table: named.table.handle() };
        Self {
            list: self.list.iter().map(|named| named.as_ref().map(handle)).collect(),
            key: self.key,
            refused_keys: Arc::clone(&self.refused_keys),
        }
    }
}

/// A key of the method may be made up.
fn has_probation(method: &Method) -> bool {
    !matches!(method, Method::Source(_))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli;
    use crate::config::{Host, Plan};
    use crate::table::Found;

    /// The list of such flags.
    pub(crate) fn list(methods: &str) -> List {
        let line =
            format!("balancer run --listen 127.0.0.1:80 --server s1=10.0.0.1:80 --admin /x/y.sock {methods}");
        let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split_whitespace().map(Into::into)) else {
            panic!("{line}");
        };
        Plan::new(&run, settings, &Host::read()).expect("valid").config.persist
    }

    fn tables(methods: &str) -> Tables {
        Tables::in_memory(&list(methods), HashKey::from_bytes([1; 16]))
    }

    #[test]
    fn tables_are_found_by_place_and_by_name() {
        let tables = tables(
            "--persist session=JS,timeout=1h,size=8 --persist cookie=SRV --persist source,mask4=24 --persist header=X-User",
        );
        let names: Vec<_> = tables.iter().map(|(label, _)| label).collect();
        assert_eq!(names, ["session=JS", "source", "header=X-User"]);
        assert_eq!(
            (tables.get(0).map(|table| table.timeout), tables.get(0).map(|table| table.size)),
            (Some(3600), Some(8))
        );
        assert!(tables.get(1).is_none() && tables.get(3).is_some() && tables.get(4).is_none());
        assert!(tables.by_label("HEADER=x-user").is_some() && tables.by_label("cookie=SRV").is_none());
        let source = tables.source().expect("there");
        assert_eq!(
            source.source_key("10.1.2.3".parse().expect("address")),
            source.source_key("10.1.2.9".parse().expect("address"))
        );
        assert_eq!((tables.kind(), tables.is_empty()), (Some("memory"), false));
        assert!(self::tables("--persist cookie=SRV").is_empty());
    }

    #[test]
    fn handles_see_the_same_entries() {
        let tables = tables("--persist session=JS --persist source");
        let handle = tables.handle();
        let entry = balancer_ebpf::affinity::Affinity::learned(1, 9);
        tables.get(0).expect("there").learn(&[1; 16], entry, None).expect("learned");
        let found = handle.get(0).expect("there").find(&[1; 16]);
        assert_eq!(found, Some(Found { entry, probation: true }));
        assert_eq!(handle.key(), tables.key());
    }
}
