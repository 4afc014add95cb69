//! `--state-file`: what a reboot would take away. Learned tables, the key of their hashes, and what the operator wants.
//!
//! | module | what it does |
//! |---|---|
//! | [`format`] | the file as lines (pure) |
//! | [`file`] | the file as something that others may have laid there, or may be reading |
//! | [`keeper`] | the thread that saves |
//!
//! Here is the reading, at start. Only tables that were made just now are filled: what is in the kernel, or comes from a
//! predecessor, is newer. A file that cannot be used is reported and set aside, and the service starts.

pub mod file;
pub mod format;
pub mod keeper;

use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::Path;

use anyhow::bail;
use balancer_ebpf::affinity::Affinity;
use nix::unistd::geteuid;

use crate::clock;
use crate::config::Config;
use crate::intent::{Intents, record};
use crate::log::{self, reason};
use crate::server::Servers;
use crate::table::{Found, HashKey, Table, Tables, source_address};
use file::Unusable;
use format::{Broken, Entry, Header};
pub use keeper::Keeper;

/// A state file that is whole.
#[derive(Debug)]
pub struct Kept {
    file: File,
    header: Header,
}

impl Kept {
    /// The file that `--state-file` names, read from end to end once; `None`: there is none, or none that can be used.
    ///
    /// # Errors
    /// Something else than a file is there.
    pub fn find(config: &Config) -> anyhow::Result<Option<Self>> {
        let Some(path) = &config.state_file else { return Ok(None) };
        file::sweep(path);
        // Root's is as good as ours; and the user's that we are going to be.
        let owners = [Some(0), Some(geteuid().as_raw()), config.owner.as_ref().map(|owner| owner.uid)];
        let trouble = match file::open(path, &owners) {
            Ok(None) => return Ok(None),
            Ok(Some(file)) => match Self::read(file, &config.name) {
                Ok(kept) => return Ok(Some(kept)),
                Err(broken) => broken.to_string(),
            },
            Err(Unusable::Refused(why)) => why,
            Err(Unusable::NotAFile) => {
                bail!(
                    "--state-file {}: something that is not a file is there; choose another path",
                    path.display()
                )
            }
        };
        log::warn(format_args!("state file {}: {trouble}; {}", path.display(), set_aside(path)));
        Ok(None)
    }

    fn read(mut file: File, service: &str) -> Result<Self, Broken> {
        let header = format::read(BufReader::new(&file), &mut |_, _| {})?;
        if header.service != service {
            return Err(Broken::Foreign(header.service));
        }
        file.rewind().map_err(Broken::Unreadable)?;
        Ok(Self { file, header })
    }

    /// What its ids are hashed with.
    pub fn key(&self) -> HashKey {
        self.header.key
    }

    /// What the operator wanted. Lines that are not understood are told of, and left out.
    pub fn intents(&self) -> Intents {
        let read = |line: &String| match record::from_line(line) {
            Ok(intent) => Some(intent),
            Err(broken) => {
                let server = line.split(' ').next().unwrap_or_default();
                log::warn(format_args!(
                    "state file: what the operator wanted of server {server:?} is not restored: {broken}; \
                     set server {server} says it anew"
                ));
                None
            }
        };
        self.header.intent.iter().filter_map(read).collect()
    }

    /// Fills the tables that are new and that `is_known` does not say a predecessor has. Returns what the log should say.
    pub fn restore(self, tables: &Tables, servers: &Servers, is_known: impl Fn(&str) -> bool) -> String {
        let age = (clock::unix_millis() / 1000).saturating_sub(self.header.saved);
        let restorer = Restorer {
            servers: self.header.servers.iter().map(|name| servers.by_name(name)).collect(),
            set: servers,
            age: u32::try_from(age).unwrap_or(u32::MAX),
            now: clock::boot_seconds(),
        };
        let (mut count, mut label, mut table) = (Count::default(), String::new(), None);
        let outcome = format::read(BufReader::new(self.file), &mut |name, entry| {
            if label != name {
                name.clone_into(&mut label);
                let is_ours = |table: &&Table| {
                    table.is_new
                        && !is_known(&label)
                        && (table.is_of_sources() || self.header.key == tables.key())
                };
                table = tables.by_label(&label).filter(is_ours);
            }
            match table {
                Some(table) => restorer.put(table, &entry, &mut count),
                None => count.of_other_tables += 1,
            }
        });
        let end = outcome.err().map_or(String::new(), |broken| format!("; then {broken}"));
        format!("state file: {count}, saved {age} s ago{end}")
    }
}

/// What became of the entries.
#[derive(Debug, Default)]
struct Count {
    restored: u64,
    expired: u64,
    of_strangers: u64,
    of_other_tables: u64,
    refused: u64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} restored", self.restored, if self.restored == 1 { "entry" } else { "entries" })?;
        let others = [
            (self.expired, "have expired"),
            (self.of_strangers, "name servers that are not there"),
            (self.of_other_tables, "are of tables that need none, or are not there"),
            (self.refused, "found the table full"),
        ];
        others
            .iter()
            .filter(|(count, _)| *count > 0)
            .try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}

struct Restorer<'a> {
    /// Places of the servers that the file names.
    servers: Vec<Option<usize>>,
    set: &'a Servers,
    /// Of the file: all that time nobody has used an entry.
    age: u32,
    now: u32,
}

impl Restorer<'_> {
    fn put(&self, table: &Table, entry: &Entry, count: &mut Count) {
        let place = |server: u16| self.servers.get(usize::from(server)).copied().flatten();
        let Some(server) = place(entry.server) else {
            count.of_strangers += 1;
            return;
        };
        let life = entry.life.min(table.timeout).saturating_sub(self.age);
        if life == 0 {
            count.expired += 1;
            return;
        }
        let (identity, expiry) = (self.set[server].identity, self.now.saturating_add(life));
        let (key, restored) = if table.is_of_sources() {
            let restored = Affinity::new(identity.id, identity.generation, expiry);
            let marked =
                if entry.ambiguous { restored.with_ambiguity(self.now, table.timeout) } else { restored };
            // Another number of bits may count than did then.
            (table.source_key(source_address(&entry.key)), marked)
        } else {
            let left = entry.left.and_then(place).map(|left| self.set[left].identity.id);
            (entry.key, Affinity::learned(identity.id, expiry).with_instead_of(left))
        };
        match table.restore(&key, Found { entry: restored, probation: entry.probation }) {
            Ok(()) => count.restored += 1,
            Err(_) => count.refused += 1,
        }
    }
}

fn set_aside(path: &Path) -> String {
    match file::set_aside(path) {
        Ok(aside) => format!("it is now {}, and nothing is restored", aside.display()),
        Err(error) => format!("nothing is restored, and it cannot be set aside: {}", reason(&error)),
    }
}

/// Whether the file can be written where it is to be, by whom the process will be then.
///
/// # Errors
/// It cannot; says what to do.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let Some(path) = &config.state_file else { return Ok(()) };
    file::try_folder(path, config.owner.as_ref()).map_err(|error: io::Error| {
        let whose = config.owner.as_ref().map_or(String::new(), |owner| format!(" as {}", owner.name));
        let folder = path.parent().unwrap_or(path).display();
        anyhow::anyhow!(
            "--state-file {}: cannot write to {folder}{whose}: {}; give a folder that the process can write to",
            path.display(),
            reason(&error)
        )
    })
}

#[cfg(test)]
mod tests;
