//! The thread that saves the state: a million entries take a second, which the control thread does not have.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::file;
use super::format::{Entry, Header, Writer};
use crate::clock;
use crate::log::{self, reason};
use crate::service::Shared;
use crate::table::learned::TableWalk;
use crate::table::{Table, Tables};

/// Between two savings: what a power cut costs at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// After a thousand entries or so, while nobody waits: others want to use the core, and the maps.
const PAUSE: Duration = Duration::from_millis(1);

/// What the operator wants, as lines of the file.
pub type Intent = Box<dyn Fn() -> Vec<String> + Send>;

/// The thread. Dropped without having been told anything, it ends without saving.
#[derive(Debug)]
pub struct Keeper {
    finish: mpsc::Sender<()>,
    is_abandoned: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
}

impl Keeper {
    /// Saves every minute from now on.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub fn start(path: PathBuf, service: Shared, tables: Tables, intent: Intent) -> io::Result<Self> {
        let (finish, told) = mpsc::channel();
        let (done, ended) = oneshot::channel();
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let saver = Saver { path, service, tables, intent, is_abandoned: Arc::clone(&is_abandoned) };
        let run = move || {
            saver.run(&told);
            // Nobody may be waiting.
            let _ = done.send(());
        };
        thread::Builder::new().name("state-file".into()).spawn(run)?;
        Ok(Self { finish, is_abandoned, ended })
    }

    /// Saves for the last time.
    pub async fn finish(self) {
        let _ = self.finish.send(());
        let _ = self.ended.await;
    }

    /// The file is a successor's from now on.
    pub fn abandon(self) {
        self.is_abandoned.store(true, Ordering::Release);
    }
}

struct Saver {
    path: PathBuf,
    service: Shared,
    tables: Tables,
    intent: Intent,
    is_abandoned: Arc<AtomicBool>,
}

impl Saver {
    fn run(&self, told: &mpsc::Receiver<()>) {
        loop {
            let (is_last, pause) = match told.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Timeout) => (false, PAUSE),
                Ok(()) => (true, Duration::ZERO),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let saved = save(&self.path, &self.service, &self.tables, (self.intent)(), pause, || {
                !self.is_abandoned.load(Ordering::Acquire)
            });
            if let Err(error) = saved {
                log::warn(format_args!(
                    "state file {} cannot be saved: {}; what was saved before stays, and it is tried again \
                     every minute",
                    self.path.display(),
                    reason(&error)
                ));
            }
            if is_last {
                return;
            }
        }
    }
}

/// Saves once. `is_wanted` is asked before the file of before is replaced.
///
/// # Errors
/// What the disk says; the file of before is as it was.
pub fn save(
    path: &Path,
    service: &Shared,
    tables: &Tables,
    intent: Vec<String>,
    pause: Duration,
    is_wanted: impl FnOnce() -> bool,
) -> io::Result<()> {
    let mut servers = Vec::new();
    let mut places = vec![None; usize::from(u16::MAX) + 1];
    for server in service.servers.iter() {
        places[usize::from(server.identity.id)] = u16::try_from(servers.len()).ok();
        servers.push(server.name.clone());
    }
    let (saved, key) = (clock::unix_millis() / 1000, tables.key());
    let header = Header { service: service.config.name.clone(), saved, key, intent, servers };
    let write = |out: &mut io::BufWriter<std::fs::File>| {
        let mut writer = Writer::begin(out, &header)?;
        for (label, table) in tables.iter() {
            writer.table(label)?;
            write_table(&mut writer, table, &places, pause)?;
        }
        writer.finish().map(drop)
    };
    file::replace(path, write, is_wanted)
}

fn write_table(
    writer: &mut Writer<impl Write>,
    table: &Table,
    places: &[Option<u16>],
    pause: Duration,
) -> io::Result<()> {
    let now = clock::boot_seconds();
    let is_of_sources = table.is_of_sources();
    let mut walk = TableWalk::default();
    loop {
        let mut outcome = Ok(());
        let is_end = table.walk(&mut walk, &mut |key, found| {
            let entry = found.entry;
            // A server that is not there any more is nobody's.
            let server = places[usize::from(entry.server())];
            let (Some(server), true, Ok(())) =
                (server, entry.is_live(now) && !entry.is_tentative(), &outcome)
            else {
                return;
            };
            let left =
                entry.instead_of().filter(|_| !is_of_sources).and_then(|left| places[usize::from(left)]);
            let is_marked =
                is_of_sources && entry.is_ambiguous() && !entry.ambiguity_aged_out(now, table.timeout);
            outcome = writer.entry(&Entry {
                key,
                server,
                life: entry.expiry().saturating_sub(now),
                probation: found.probation,
                ambiguous: is_marked,
                left,
            });
        });
        outcome?;
        if is_end {
            return Ok(());
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}
