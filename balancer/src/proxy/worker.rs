//! A worker: one thread, one runtime, its own listeners, buffers and connections to servers.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::buffer::Buffers;
use super::descriptors::{self, Seats};
use super::listener::Listener;
use super::session;
use super::socket::Socket;
use super::timers::{TICK, Ticks, Timers};
use super::upstream::Pool;
use crate::access_log;
use crate::config::{ObserveConfig, Timeouts};
use crate::listen;
use crate::log::{self, Complaint};
use crate::service::Service;
use crate::stats::Stats;
use crate::table::Tables;
use crate::visit::Books;

/// Size of a connection's buffer: a page of most sites in one read, and 64 of them in a worker's second-level cache.
/// Never less than `--max-head`.
const BUFFER: usize = 16 * 1024;

/// Pause of a listener when the process or the system has run out of something that a connection needs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a worker is given. It runs in the thread that calls [`Worker::run`].
#[derive(Debug)]
pub struct Worker {
    /// What all workers serve.
    pub service: Arc<Service>,
    /// Handles of its own to the learned tables.
    pub tables: Tables,
    /// Bound and listening; one per listen address, shared with other workers by SO_REUSEPORT.
    pub listeners: Vec<std::net::TcpListener>,
    /// Where requests are recorded.
    pub log: Option<access_log::Sender>,
    /// Its counters, for others to read.
    pub stats: Arc<Stats>,
    /// What it is to do. The end of the sender means to drain.
    pub order: watch::Receiver<Order>,
}

/// What a worker is to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// Not before a predecessor has let go: until then this start may fail, and no client is to notice.
    Wait,
    /// Accept and serve.
    #[default]
    Serve,
    /// Take who has connected, end idle connections, and finish what is being served.
    Drain,
    /// A successor accepts at these addresses, so nobody is turned away and idle connections are left open until their
    /// next answer: their clients may be about to send a request. At other addresses as [`Self::Drain`].
    HandOver(Arc<[SocketAddr]>),
    /// After one of the two before: there is no time left for what is still being served.
    CutOff,
}

impl Order {
    fn is_to_begin(&self) -> bool {
        *self != Self::Wait
    }

    fn is_to_end(&self) -> bool {
        matches!(self, Self::Drain | Self::HandOver(_) | Self::CutOff)
    }

    /// Whether others will accept who has connected to `listener`.
    fn leaves(&self, listener: &Listener) -> bool {
        match self {
            Self::HandOver(taken) => listener.address().is_ok_and(|address| taken.contains(&address)),
            Self::Wait | Self::Serve | Self::Drain | Self::CutOff => false,
        }
    }
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
        let Self { service, tables, listeners, log, stats, mut order } = self;
        let shared = Rc::new(Shared::new(service, tables, log, stats));
        if order.wait_for(Order::is_to_begin).await.is_err() {
            return Ok(());
        }
        let mut accepting = Vec::new();
        for listener in listeners {
            listen::start(&listener)?;
            let listener = Listener::new(listener)?;
            accepting.push(spawn_local(accept(Rc::clone(&shared), listener, order.clone())));
        }
        spawn_local(tick(Rc::clone(&shared)));
        spawn_local(hear_of_endings(Rc::clone(&shared)));
        // An error means that nobody is left to tell us to stop.
        let _ = order.wait_for(Order::is_to_end).await;
        // Before the queues are empty: in a shortage they wait for those who leave now.
        shared.start_to_drain(!matches!(*order.borrow(), Order::HandOver(_)));
        let mut finished = pin!(async {
            for listener in accepting {
                // A panic in one listener's task must not keep the others from draining.
                let _ = listener.await;
            }
            shared.until_empty().await;
        });
        tokio::select! {
            () = &mut finished => return Ok(()),
            _ = order.wait_for(|order| *order == Order::CutOff) => {}
        }
        // Whoever is served finds that its time has passed, tells its client as far as that can be told, and leaves a
        // line in the log.
        shared.timers.expire_all();
        finished.await;
        Ok(())
    }
}

/// What the tasks of a worker share.
pub(super) struct Shared {
    pub(super) service: Arc<Service>,
    pub(super) books: Rc<Books>,
    pub(super) log: Option<access_log::Sender>,
    pub(super) stats: Arc<Stats>,
    pub(super) pool: Pool,
    pub(super) buffers: Rc<Buffers>,
    pub(super) timers: Rc<Timers>,
    /// As they are now; see [`tick`].
    patience: Cell<Patience>,
    observed: Cell<Option<ObserveConfig>>,
    /// The sessions of some server were ended at some time.
    pub(super) has_endings: Cell<bool>,
    seats: Seats,
    draining: Cell<bool>,
    /// Draining, and connections without a request are to end.
    ends_idle: Cell<bool>,
    /// Told when a connection ends while draining.
    ended: Notify,
    /// A listener waits for a client to leave.
    is_crowded: Cell<bool>,
    /// Told when one has.
    left: Notify,
    /// About connections to servers.
    complaint: RefCell<Complaint>,
    /// About proxies that do not say who their client is.
    distrust: RefCell<Complaint>,
}

/// The time-outs in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) client: Ticks,
    pub(super) server: Ticks,
    pub(super) request: Ticks,
    pub(super) keepalive: Ticks,
    pub(super) tunnel: Ticks,
    pub(super) queue: Ticks,
    pub(super) connect: Duration,
}

impl Patience {
    fn new(timeouts: &Timeouts) -> Self {
        Self {
            client: Ticks::from_duration(timeouts.client),
            server: Ticks::from_duration(timeouts.server),
            request: Ticks::from_duration(timeouts.request),
            keepalive: Ticks::from_duration(timeouts.keepalive),
            tunnel: Ticks::from_duration(timeouts.tunnel),
            queue: Ticks::from_duration(timeouts.queue),
            connect: timeouts.connect,
        }
    }
}

impl Shared {
    fn new(
        service: Arc<Service>,
        tables: Tables,
        log: Option<access_log::Sender>,
        stats: Arc<Stats>,
    ) -> Self {
        let patience = Patience::new(&service.config.timeouts.look());
        let observed = service.config.health.look().observe;
        Self {
            books: Rc::new(Books::new(Arc::clone(&service), tables)),
            log,
            stats,
            pool: Pool::new(),
            buffers: Buffers::new(BUFFER.max(service.config.limits.head)),
            timers: Timers::new(),
            patience: Cell::new(patience),
            observed: Cell::new(observed),
            has_endings: Cell::new(false),
            seats: Seats::new(&service.config),
            draining: Cell::new(false),
            ends_idle: Cell::new(false),
            ended: Notify::new(),
            is_crowded: Cell::new(false),
            left: Notify::new(),
            complaint: RefCell::default(),
            distrust: RefCell::default(),
            service,
        }
    }

    /// Connections are to end after the request at hand.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Connections that wait for a request are to end.
    pub(super) fn ends_idle(&self) -> bool {
        self.ends_idle.get()
    }

    /// A client's connection has ended.
    pub(super) fn closed(&self) {
        self.stats.closed();
        descriptors::client_left();
        if self.is_crowded.take() {
            self.left.notify_waiters();
        }
        if self.is_draining() {
            self.ended.notify_one();
        }
    }

    /// The time-outs.
    pub(super) fn patience(&self) -> Patience {
        self.patience.get()
    }

    /// `--observe`.
    pub(super) fn observed(&self) -> Option<ObserveConfig> {
        self.observed.get()
    }

    /// Takes over what flags say that were read again. What is being waited for goes by what they said before.
    fn reread(&self) {
        let config = &self.service.config;
        self.patience.set(Patience::new(&config.timeouts.look()));
        self.observed.set(config.health.look().observe);
    }

    /// `--deny` names it.
    pub(super) fn denies(&self, client: IpAddr) -> bool {
        self.service.config.identity.deny.contains(client)
    }

    /// `--debug-from` names it.
    pub(super) fn tells_why(&self, peer: IpAddr) -> bool {
        let told = &self.service.config.identity.debug_from;
        !told.is_empty() && told.contains(peer)
    }

    /// A peer that has to start with a PROXY header has not.
    pub(super) fn distrust(&self, peer: SocketAddr, why: impl Display) {
        self.stats.misidentified();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.distrust.borrow_mut().make(format_args!(
            "a connection of {peer} is closed: {why}, which --accept-proxy asks of that address; let the \
             proxy there send one, or leave the address out"
        ));
    }

    /// A connection to `server` has failed because of `error`, which is this host's: gives up what nobody uses.
    pub(super) fn make_room(&self, server: usize, error: &io::Error) {
        if descriptors::is_shortage(error) {
            self.pool.clear();
        }
        if descriptors::is_own_limit(error) {
            descriptors::note_shortage();
        }
        let (name, reason) = (&self.service.servers[server].name, log::reason(error));
        let is_limit = descriptors::is_own_limit(error);
        let remedy = if is_limit { "; raise the descriptor limit (ulimit -n)" } else { "" };
        self.complaint.borrow_mut().make(format_args!(
            "no connection to server {name}: {reason}, which is this host's doing; requests end in 503 \
             until there is room{remedy}"
        ));
    }

    /// Until a client may be accepted.
    async fn free_seat(&self, complaint: &mut Complaint) {
        while self.seats.is_full() {
            complaint.make(format_args!(
                "connections wait in the queue: there are {} clients; {}",
                self.seats.limit,
                self.seats.remedy()
            ));
            self.is_crowded.set(true);
            // A client of another worker tells nobody here.
            let _ = timeout(ACCEPT_PAUSE, self.left.notified()).await;
        }
    }

    fn start_to_drain(&self, ends_idle: bool) {
        self.draining.set(true);
        self.ends_idle.set(ends_idle);
        self.timers.wake_all();
    }

    async fn until_empty(&self) {
        while self.stats.active() > 0 {
            self.ended.notified().await;
        }
    }
}

async fn tick(shared: Rc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut shortages = descriptors::shortages();
    loop {
        interval.tick().await;
        shared.stats.beat();
        shared.reread();
        shared.timers.sweep();
        shared.pool.sweep(&shared.timers, &shared.service.servers, &shared.stats);
        shared.service.servers.settle_with_fast_path();
        // What one worker is short of, another may hold for nothing.
        let now = descriptors::shortages();
        if std::mem::replace(&mut shortages, now) != now {
            shared.pool.clear();
        }
    }
}

/// Wakes everybody when the sessions of a server are ended: whose they are is seen by those who serve them.
async fn hear_of_endings(shared: Rc<Shared>) {
    let mut endings = shared.service.servers.endings();
    while endings.changed().await.is_ok() {
        shared.has_endings.set(true);
        shared.timers.wake_all();
    }
}

/// Accepts until told to drain; then takes what is still in the queue, since its clients believe to be connected, unless
/// a successor will.
async fn accept(shared: Rc<Shared>, listener: Listener, mut order: watch::Receiver<Order>) {
    let mut complaint = Complaint::default();
    // An error means that nobody is left to tell us to stop.
    let mut told =
        pin!(async { order.wait_for(Order::is_to_end).await.map_or(Order::Drain, |order| order.clone()) });
    let last_order = loop {
        let (socket, peer) = tokio::select! {
            // In this order: in a shortage or a flood the queue always has something to say.
            biased;
            order = &mut told => break order,
            accepted = next_client(&shared, &listener, &mut complaint) => accepted,
        };
        serve(&shared, socket, peer);
    };
    if !last_order.leaves(&listener) {
        empty_queue(&shared, &listener, &mut complaint).await;
    }
}

/// Waits for a client, and before that for what it takes to have one more.
async fn next_client(
    shared: &Shared,
    listener: &Listener,
    complaint: &mut Complaint,
) -> (Socket, SocketAddr) {
    loop {
        shared.free_seat(complaint).await;
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if descriptors::is_shortage(&error) => {
                complain(complaint, &error);
                sleep(ACCEPT_PAUSE).await;
            }
            // The client has given up in the queue; the next one has not.
            Err(_) => {}
        }
    }
}

/// Takes the clients that came before the drain. In a shortage they wait for others to leave, which a drain makes them
/// do.
async fn empty_queue(shared: &Rc<Shared>, listener: &Listener, complaint: &mut Complaint) {
    loop {
        shared.free_seat(complaint).await;
        match listener.accept_now() {
            Ok((socket, peer)) => serve(shared, socket, peer),
            Err(error) if descriptors::is_shortage(&error) && shared.stats.active() > 0 => {
                complain(complaint, &error);
                shared.pool.clear();
                sleep(ACCEPT_PAUSE).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

fn complain(complaint: &mut Complaint, error: &io::Error) {
    let reason = log::reason(error);
    complaint.make(format_args!(
        "connections wait in the queue: {reason}; raise the descriptor limit (ulimit -n)"
    ));
}

fn serve(shared: &Rc<Shared>, socket: Socket, peer: SocketAddr) {
    if shared.denies(peer.ip()) {
        shared.stats.denied();
        // A reset, so that nothing of it stays here. Should that fail it is an ordinary end.
        let _ = socket.reset_on_close();
        return;
    }
    shared.stats.accepted();
    descriptors::client_came();
    spawn_local(session::serve(Rc::clone(shared), socket, peer));
}
