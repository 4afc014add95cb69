//! A worker: one thread, one runtime, its own listeners, buffers and connections to servers.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};

use super::buffer::Buffers;
use super::session;
use super::stats::Stats;
use super::timers::{TICK, Ticks, Timers};
use super::upstream::Pool;
use crate::access_log;
use crate::config::Config;
use crate::log;
use crate::service::Service;
use crate::table::Table;

/// Size of a connection's buffer: a page of most sites in one read, and 64 of them in a worker's second-level cache.
/// Never less than `--max-head`.
const BUFFER: usize = 16 * 1024;

/// Pause of a listener when the process or the system has run out of something that a connection needs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines about that.
const ACCEPT_COMPLAINT: Duration = Duration::from_secs(10);

/// What a worker is given. It runs in the thread that calls [`Worker::run`].
#[derive(Debug)]
pub struct Worker {
    /// What all workers serve.
    pub service: Arc<Service>,
    /// A handle of its own to the source table; `None` without a `source` method.
    pub table: Option<Table>,
    /// Bound and listening; one per listen address, shared with other workers by SO_REUSEPORT.
    pub listeners: Vec<std::net::TcpListener>,
    /// Where requests are recorded.
    pub log: Option<access_log::Sender>,
    /// Its counters, for others to read.
    pub stats: Arc<Stats>,
    /// True: drain. So does the end of the sender.
    pub shutdown: watch::Receiver<bool>,
}

impl Worker {
    /// Serves until told to drain, then until the last connection has ended, which its callers bound.
    ///
    /// # Errors
    /// When the runtime cannot be made or a listener cannot be used.
    pub fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(self) -> io::Result<()> {
        let Self { service, table, listeners, log, stats, mut shutdown } = self;
        let shared = Rc::new(Shared::new(service, table, log, stats));
        let mut accepting = Vec::new();
        for listener in listeners {
            let listener = prepare(&listener).and_then(|()| TcpListener::from_std(listener))?;
            accepting.push(spawn_local(accept(Rc::clone(&shared), listener, shutdown.clone())));
        }
        spawn_local(tick(Rc::clone(&shared)));
        // An error means that nobody is left to tell us to stop.
        let _ = shutdown.wait_for(|drain| *drain).await;
        for listener in accepting {
            // A panic in one listener's task must not keep the others from draining.
            let _ = listener.await;
        }
        shared.drain().await;
        Ok(())
    }
}

/// What the tasks of a worker share.
pub(super) struct Shared {
    pub(super) service: Arc<Service>,
    pub(super) table: Option<Table>,
    pub(super) log: Option<access_log::Sender>,
    pub(super) stats: Arc<Stats>,
    pub(super) pool: Pool,
    pub(super) buffers: Rc<Buffers>,
    pub(super) timers: Rc<Timers>,
    pub(super) patience: Patience,
    draining: Cell<bool>,
    /// Told when a connection ends while draining.
    ended: Notify,
}

/// The time-outs in ticks.
#[derive(Debug)]
pub(super) struct Patience {
    pub(super) client: Ticks,
    pub(super) server: Ticks,
    pub(super) request: Ticks,
    pub(super) keepalive: Ticks,
}

impl Patience {
    fn new(config: &Config) -> Self {
        let timeouts = &config.timeouts;
        Self {
            client: Ticks::from_duration(timeouts.client),
            server: Ticks::from_duration(timeouts.server),
            request: Ticks::from_duration(timeouts.request),
            keepalive: Ticks::from_duration(timeouts.keepalive),
        }
    }
}

impl Shared {
    fn new(
        service: Arc<Service>,
        table: Option<Table>,
        log: Option<access_log::Sender>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            table,
            log,
            stats,
            pool: Pool::new(service.servers.len()),
            buffers: Buffers::new(BUFFER.max(service.config.limits.head)),
            timers: Timers::new(),
            patience: Patience::new(&service.config),
            draining: Cell::new(false),
            ended: Notify::new(),
            service,
        }
    }

    /// Connections are to end after the request at hand.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A client's connection has ended.
    pub(super) fn closed(&self) {
        self.stats.closed();
        if self.is_draining() {
            self.ended.notify_one();
        }
    }

    async fn drain(&self) {
        self.draining.set(true);
        self.timers.wake_all();
        while self.stats.active() > 0 {
            self.ended.notified().await;
        }
    }
}

fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // Linux hands this down to accepted connections, which saves a system call for each.
    SockRef::from(listener).set_tcp_nodelay(true)
}

async fn tick(shared: Rc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        shared.timers.sweep();
        shared.pool.sweep(&shared.timers);
    }
}

/// Accepts until told to drain; then takes what is still in the queue, since its clients believe to be connected.
async fn accept(shared: Rc<Shared>, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|drain| *drain) => break,
        };
        match accepted {
            Ok((stream, peer)) => serve(&shared, stream, peer),
            Err(error) if is_shortage(&error) => {
                complaint.make(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            // The client has given up in the queue; the next one has not.
            Err(_) => {}
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let registered = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = registered {
            serve(&shared, stream, peer);
        }
    }
}

fn serve(shared: &Rc<Shared>, stream: TcpStream, peer: SocketAddr) {
    shared.stats.accepted();
    spawn_local(session::serve(Rc::clone(shared), stream, peer));
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Says once in a while that connections cannot be accepted.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, error: &io::Error) {
        if self.last.is_none_or(|last| last.elapsed() >= ACCEPT_COMPLAINT) {
            self.last = Some(Instant::now());
            let reason = log::reason(error);
            log::warn(format_args!(
                "connections wait in the queue: {reason}; raise the descriptor limit (ulimit -n)"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_connections_send_without_delay() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        prepare(&listener).expect("prepare");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (accepted, _) = listener.accept().expect("loopback connections are in the queue at once");
        assert!(accepted.nodelay().expect("option"));
        drop(client);
    }
}
