//! Tables and entries as the admin socket shows them.

use std::fmt::Write;

use balancer_ebpf::affinity::Affinity;
use serde::Serialize;

use crate::admin::text::Columns;
use crate::clock;
use crate::server::Servers;
use crate::table::hash::{hex, push_hex};
use crate::table::{Found, Key, Table, Tables, source_address};

/// A row of `show table`.
#[derive(Clone, Debug, Serialize)]
pub struct TableSummary {
    /// Called as in its flag.
    pub name: String,
    /// `kernel` or `memory`.
    pub kind: &'static str,
    /// Live entries.
    pub entries: usize,
    /// How many of them were used once so far and are on probation.
    pub probation: usize,
    /// Most entries it holds, without those on probation.
    pub size: u32,
    /// Life of an entry after its last use, in seconds.
    pub timeout: u32,
}

impl TableSummary {
    pub(super) fn all(tables: &Tables) -> Vec<Self> {
        tables.iter().map(|(name, table)| Self::of(name, table)).collect()
    }

    pub(super) fn of(name: &str, table: &Table) -> Self {
        Self::counted(name, table, |_| {})
    }

    /// Shows `see` each of the live entries.
    pub(super) fn counted(name: &str, table: &Table, mut see: impl FnMut(Affinity)) -> Self {
        let (now, mut entries, mut probation) = (clock::boot_seconds(), 0, 0);
        table.for_each(|_, found| {
            if found.entry.is_live(now) {
                entries += 1;
                probation += usize::from(found.probation);
                see(found.entry);
            }
        });
        let Table { size, timeout, .. } = *table;
        Self { name: name.to_owned(), kind: table.kind(), entries, probation, size, timeout }
    }

    /// As HAProxy writes it.
    pub(super) fn line(&self, table: &Table) -> String {
        let kind = if table.is_of_sources() { "ip" } else { "string" };
        format!("# table: {}, type: {kind}, size:{}, used:{}\n", self.name, self.size, self.entries)
    }
}

impl Columns for TableSummary {
    const NAMES: &'static [&'static str] = &["name", "kind", "entries", "probation", "size", "timeout"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.kind.into(),
            self.entries.to_string(),
            self.probation.to_string(),
            self.size.to_string(),
            self.timeout.to_string(),
        ]
    }
}

/// A row of `show table NAME`: a live entry.
#[derive(Debug, Serialize)]
pub struct TableRow {
    /// The client's address, or the hash of an id: ids themselves are not kept.
    pub key: String,
    /// The server's name, or `#` and its id when it is no longer configured.
    pub server: String,
    /// Seconds left unless it is used again.
    pub expires_in: u32,
    /// Several users were seen behind this key.
    pub ambiguous: bool,
    /// Reserved by a request that no server has answered yet.
    pub tentative: bool,
    /// Used once so far.
    pub probation: bool,
}

impl TableRow {
    pub(super) fn of(table: &Table, servers: &Servers, (key, found): &(Key, Found), now: u32) -> Self {
        let entry = found.entry;
        let is_marked = table.is_of_sources() && entry.is_ambiguous();
        Self {
            key: shown(table, key),
            server: match servers.by_id(entry.server()) {
                Some(index) => servers[index].name.clone(),
                None => format!("#{}", entry.server()),
            },
            expires_in: entry.expiry().saturating_sub(now),
            ambiguous: is_marked && !entry.ambiguity_aged_out(now, table.timeout),
            tentative: entry.is_tentative(),
            probation: found.probation,
        }
    }
}

impl Columns for TableRow {
    const NAMES: &'static [&'static str] =
        &["key", "server", "expires_in", "ambiguous", "tentative", "probation"];

    fn cells(&self) -> Vec<String> {
        let yes_no = |is: bool| if is { "yes" } else { "no" }.to_owned();
        vec![
            self.key.clone(),
            self.server.clone(),
            self.expires_in.to_string(),
            yes_no(self.ambiguous),
            yes_no(self.tentative),
            yes_no(self.probation),
        ]
    }
}

/// An entry as HAProxy writes it, at the end of `text`. What stands for its pointer is the key in the table.
pub(super) fn push_line(text: &mut String, table: &Table, servers: &Servers, (key, found): &(Key, Found)) {
    let entry = found.entry;
    let left = (u64::from(entry.expiry()) * 1000).saturating_sub(clock::boot_ns() / 1_000_000);
    text.push_str("0x");
    push_hex(text, key);
    let name = servers.by_id(entry.server()).map_or("-", |index| &servers[index].name);
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        ": key={} use=0 exp={left} shard=0 server_id={} server_key={name}",
        shown(table, key),
        entry.server()
    );
}

fn shown(table: &Table, key: &Key) -> String {
    if table.is_of_sources() { source_address(key).to_string() } else { hex(key) }
}
