//! What every connection takes from this host, descriptors above all: how many clients may hold one, so that there is
//! one left for the server of each, and what is done when they run out all the same.
//!
//! The limit is the process's, so the count is too: an atomic that a connection touches at its start and at its end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit};

use crate::config::Config;

/// Descriptors of a worker besides its listeners and connections: its runtime's and its table's.
const PER_WORKER: u64 = 4;

/// Descriptors of the process that are nobody's in particular: logs, the admin socket and its clients, maps.
const OTHERS: u64 = 64;

/// Of this many descriptors half are kept for connections to servers, of those beyond it a quarter.
const BUSY: u64 = 8192;

/// Client connections of this process.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// The most of them at one time.
static MOST_CLIENTS: AtomicU64 = AtomicU64::new(0);

/// How often a connection to a server has failed for want of a descriptor.
static SHORTAGES: AtomicU64 = AtomicU64::new(0);

/// The places for clients.
#[derive(Clone, Copy, Debug)]
pub struct Seats {
    /// How many there are.
    pub limit: u64,
    /// As many as `--max-connections` asks for.
    is_as_wished: bool,
    /// The limit of open files.
    files: u64,
}

impl Seats {
    /// By `--max-connections` and the limit of open files that is in force now.
    pub fn new(config: &Config) -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        // A listener has a second descriptor, to be passed to a successor.
        let per_worker = PER_WORKER + 2 * config.listen.len() as u64;
        // A check is a connection, too.
        let reserve = config.workers as u64 * per_worker + config.servers.len() as u64 + OTHERS;
        let possible = most_clients(files, reserve);
        let wish = config.max_connections.map(u64::from);
        let limit = wish.map_or(possible, |wish| wish.min(possible));
        Self { limit, is_as_wished: wish == Some(limit), files }
    }

    /// What is to be said when `--max-connections` asks for more than can be had.
    pub fn shortfall(self, config: &Config) -> Option<String> {
        let wish = config.max_connections.filter(|_| !self.is_as_wished)?;
        Some(format!(
            "--max-connections {wish}: the descriptor limit of {} allows {}, which is what counts; raise it (ulimit -n)",
            self.files, self.limit
        ))
    }

    /// What lets more clients in.
    pub(super) fn remedy(self) -> &'static str {
        if self.is_as_wished { "raise --max-connections" } else { "raise the descriptor limit (ulimit -n)" }
    }

    /// Several workers may find the same place at the same time, so there can be one client more for each of them; the
    /// reserve has room for that.
    pub(super) fn is_full(self) -> bool {
        CLIENTS.load(Ordering::Relaxed) >= self.limit
    }
}

/// A client that is served takes two descriptors, an idle one takes one. Up to [`BUSY`] every client is taken to be
/// served; where there are many, most of them are idle. Whatever the reserve, a small limit is not all reserve.
fn most_clients(files: u64, reserve: u64) -> u64 {
    let files = files.saturating_sub(reserve).max(files / 2);
    let (busy, idle) = (files.min(BUSY), files.saturating_sub(BUSY));
    (busy / 2 + idle / 4 * 3).max(1)
}

pub(super) fn client_came() {
    let now = CLIENTS.fetch_add(1, Ordering::Relaxed) + 1;
    if now > MOST_CLIENTS.load(Ordering::Relaxed) {
        MOST_CLIENTS.fetch_max(now, Ordering::Relaxed);
    }
}

/// Client connections now, and the most at one time.
pub fn clients() -> (u64, u64) {
    (CLIENTS.load(Ordering::Relaxed), MOST_CLIENTS.load(Ordering::Relaxed))
}

/// Begins anew to look for the most.
pub fn forget_most_clients() {
    MOST_CLIENTS.store(CLIENTS.load(Ordering::Relaxed), Ordering::Relaxed);
}

pub(super) fn client_left() {
    CLIENTS.fetch_sub(1, Ordering::Relaxed);
}

/// Lets the other workers know: each looks at [`shortages`] once in a while and gives up what it does not use.
pub(super) fn note_shortage() {
    SHORTAGES.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn shortages() -> u64 {
    SHORTAGES.load(Ordering::Relaxed)
}

/// The process or the system has run out of something that a closed connection gives back. A port is not such a thing:
/// it stays taken for a minute, so kept connections are what saves ports.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// It is the process's own limit: what another worker gives back can be used by this one, not by another process.
pub(super) fn is_own_limit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_leaves_a_descriptor_for_its_server() {
        assert_eq!(most_clients(1024, 124), 450);
        assert_eq!(most_clients(8192 + 124, 124), 4096);
        assert_eq!(most_clients(100, 124), 25);
        assert_eq!(most_clients(1, 124), 1);
    }

    #[test]
    fn many_clients_are_mostly_idle() {
        assert_eq!(most_clients(20_000, 124), 4096 + 8763);
        assert!(most_clients(u64::MAX, 124) < u64::MAX);
    }
}
