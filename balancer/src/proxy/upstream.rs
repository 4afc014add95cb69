//! Connections to servers: kept after an answer, checked before they are used again, made when there is none.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;

use super::connection::{is_quiet, is_quiet_now};
use super::timers::{Ticks, Timers};
use crate::server::Server;
use crate::service::Shared;

/// Idle connections kept per server and worker: as many as a worker has clients in a busy moment. More would only
/// hold the server's descriptors.
const IDLE_LIMIT: usize = 256;

/// Life of an idle connection. Servers close theirs after 5 s (Node, Apache) to 75 s (nginx); theirs are noticed.
const IDLE_LIFE: Duration = Duration::from_secs(30);

/// A connection that is not in use.
#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: u64,
}

/// A worker's idle connections, by server. The youngest is used first, so that a quiet hour lets the others go.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Vec<RefCell<Vec<Idle>>>,
    life: Ticks,
}

impl Pool {
    pub(super) fn new(servers: usize) -> Self {
        let idle = (0..servers).map(|_| RefCell::default()).collect();
        Self { idle, life: Ticks::from_duration(IDLE_LIFE) }
    }

    /// A connection to `server` that was used before and seems to be good. `careful`: the request cannot be repeated,
    /// so the kernel is asked as well.
    pub(super) fn take(&self, server: usize, careful: bool) -> Option<TcpStream> {
        let mut idle = self.idle[server].borrow_mut();
        while let Some(Idle { stream, .. }) = idle.pop() {
            if is_quiet(&stream) && (!careful || is_quiet_now(&stream)) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection on which everything has been said.
    pub(super) fn give(&self, server: usize, stream: TcpStream, timers: &Timers) {
        let mut idle = self.idle[server].borrow_mut();
        if idle.len() < IDLE_LIMIT {
            idle.push(Idle { stream, since: timers.now() });
        }
    }

    /// Closes what is too old or was closed by its server.
    pub(super) fn sweep(&self, timers: &Timers) {
        for idle in &self.idle {
            idle.borrow_mut()
                .retain(|idle| !timers.is_older(idle.since, self.life) && is_quiet(&idle.stream));
        }
    }
}

/// A new connection.
pub(super) async fn connect(server: &Server, patience: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(patience, TcpStream::connect(server.address)).await??;
    // A request is written at once; waiting for more of it would only delay its tail.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Counts a request as being served by its server, until dropped.
#[derive(Debug)]
pub(super) struct InFlight {
    service: Shared,
    server: usize,
}

impl InFlight {
    pub(super) fn new(service: &Shared, server: usize) -> Self {
        service.servers[server].in_flight.fetch_add(1, Ordering::Relaxed);
        service.servers[server].requests.fetch_add(1, Ordering::Relaxed);
        Self { service: Shared::clone(service), server }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.service.servers[self.server].in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
