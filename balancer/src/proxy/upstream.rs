//! Connections to servers: kept after an answer, checked before they are used again, made when there is none.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::Connection;
use super::slot::Slot;
use super::socket::Socket;
use super::timers::{Ticks, Timers};
use super::worker::Shared;
use crate::server::{Server, Servers};
use crate::stats::Stats;

/// Idle connections kept per server and worker: as many as a worker has clients in a busy moment. More would only
/// hold the server's descriptors.
const IDLE_LIMIT: usize = 256;

/// Life of an idle connection. Servers close theirs after 5 s (Node, Apache) to 75 s (nginx); theirs are noticed.
const IDLE_LIFE: Duration = Duration::from_secs(30);

/// A connection that is not in use.
#[derive(Debug)]
struct Idle {
    socket: Socket,
    since: u64,
    /// Of its server, when it was made.
    endings: u32,
    /// The kernel is to be asked whether more has come, whatever the reactor has seen.
    is_suspect: bool,
}

/// A worker's idle connections, by server. The youngest is used first, so that a quiet hour lets the others go.
#[derive(Debug)]
pub(super) struct Pool {
    /// By the server's place; longer as servers are added.
    idle: RefCell<Vec<Vec<Idle>>>,
    life: Ticks,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self { idle: RefCell::default(), life: Ticks::from_duration(IDLE_LIFE) }
    }

    /// A connection to the server at `place` that was used before and seems to be good; since then the server's
    /// sessions must not have been ended.
    fn take(&self, place: usize, endings: u32, reuse: Reuse) -> Option<Socket> {
        let mut idle = self.idle.borrow_mut();
        let idle = idle.get_mut(place).filter(|_| reuse != Reuse::Never)?;
        while let Some(Idle { socket, is_suspect, endings: before, .. }) = idle.pop() {
            if before == endings && reuse.suits(&socket) && (!is_suspect || socket.is_quiet_now()) {
                return Some(socket);
            }
        }
        None
    }

    /// Keeps a connection on which everything has been said.
    fn give(&self, place: usize, idle: Idle) {
        let mut all = self.idle.borrow_mut();
        if all.len() <= place {
            all.resize_with(place + 1, Vec::new);
        }
        if all[place].len() < IDLE_LIMIT {
            all[place].push(idle);
        }
    }

    /// Closes them all.
    pub(super) fn clear(&self) {
        self.idle.borrow_mut().iter_mut().for_each(Vec::clear);
    }

    /// Closes what is too old, was closed by its server, or leads to one that is retired or whose sessions were ended.
    pub(super) fn sweep(&self, timers: &Timers, servers: &Servers, stats: &Stats) {
        for (place, idle) in self.idle.borrow_mut().iter_mut().enumerate() {
            if idle.is_empty() {
                stats.idle(place, 0);
                continue;
            }
            let (is_retired, endings) = (servers[place].is_retired(), servers[place].endings());
            idle.retain(|idle| {
                let is_wanted = !is_retired && idle.endings == endings;
                is_wanted && !timers.is_older(idle.since, self.life) && idle.socket.is_quiet()
            });
            stats.idle(place, idle.len());
        }
    }
}

/// Whether a connection that was used before will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reuse {
    /// One that looks good: should it fail, the request is sent again.
    Freely,
    /// One that the kernel, asked at this moment, calls good: the request cannot be sent again.
    Carefully,
    /// No: one has just failed.
    Never,
}

impl Reuse {
    fn suits(self, socket: &Socket) -> bool {
        match self {
            Self::Freely => socket.is_quiet(),
            Self::Carefully => socket.is_quiet() && socket.is_quiet_now(),
            Self::Never => false,
        }
    }
}

/// A connection that only one client may use, between two of its requests. It is closed with the client's.
#[derive(Debug)]
pub(super) struct Private {
    server: usize,
    socket: Socket,
    endings: u32,
    is_bound: bool,
}

impl Private {
    /// Where it leads, if the client would lose something elsewhere.
    pub(super) fn home(&self) -> Option<usize> {
        self.is_bound.then_some(self.server)
    }
}

/// A connection to a server, in use.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) connection: Connection,
    pub(super) is_reused: bool,
    /// The server may have taken its client for somebody by what was said on it (NTLM, Negotiate): nobody else gets it,
    /// and the client should.
    pub(super) is_bound: bool,
    /// What the server has answered has no body, which not every server knows: what it sends for one would be taken for
    /// the next answer.
    pub(super) is_suspect: bool,
    /// The server was told who its client is (`--send-proxy`): nobody else gets it.
    is_greeted: bool,
    slot: Slot,
    /// Of its server, when this began.
    endings: u32,
}

impl Upstream {
    /// A connection to the server of `slot`: the client's own, a kept one, or a new one. With a `greeting`, which says
    /// who the client is, it is the client's own from then on.
    pub(super) async fn get(
        shared: &Rc<Shared>,
        slot: Slot,
        reuse: Reuse,
        private: &mut Option<Private>,
        greeting: &[u8],
    ) -> io::Result<Self> {
        let server = &shared.service.servers[slot.place];
        let endings = server.endings();
        let own = private.take_if(|private| private.server == slot.place);
        let own = own.filter(|own| own.endings == endings && reuse.suits(&own.socket));
        let is_bound = own.as_ref().is_some_and(|own| own.is_bound);
        // With greetings there is nothing in the pool: no connection is of use to a second client.
        let kept = own.map(|own| own.socket).or_else(|| shared.pool.take(slot.place, endings, reuse));
        let is_reused = kept.is_some();
        let socket = if let Some(socket) = kept {
            shared.stats.reused(slot.place);
            socket
        } else {
            let limit = shared.patience().connect;
            let socket = timeout(limit, connect(server, greeting)).await??;
            shared.stats.connected(slot.place);
            socket
        };
        slot.begin();
        Ok(Self {
            connection: Connection::new(socket, &shared.buffers),
            is_reused,
            is_bound,
            is_suspect: false,
            is_greeted: !greeting.is_empty(),
            slot,
            endings,
        })
    }

    /// Where it leads.
    pub(super) fn place(&self) -> usize {
        self.slot.place
    }

    /// The request goes to the same server on another connection.
    pub(super) fn into_slot(self) -> Slot {
        self.slot
    }

    /// What its session is recognised by, should its server's be ended.
    pub(super) fn lease(&self) -> Lease {
        Lease { place: self.slot.place, endings: self.endings }
    }

    /// Everything has been said. Keeps the connection for another request, unless the server wants to close it or
    /// has sent bytes that nobody asked for. The client's own goes to `private`.
    pub(super) fn put_back(self, shared: &Shared, reusable: bool, private: &mut Option<Private>) {
        let Self { slot, endings, is_bound, is_suspect, is_greeted, .. } = self;
        let server = slot.place;
        let socket = self.connection.socket;
        match reusable && self.connection.input.is_empty() {
            true if is_bound || is_greeted => *private = Some(Private { server, socket, endings, is_bound }),
            true => {
                shared.pool.give(server, Idle { socket, since: shared.timers.now(), endings, is_suspect });
            }
            false => {}
        }
    }
}

/// A session of a server's, as long as the server's sessions are not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    place: usize,
    endings: u32,
}

impl Lease {
    pub(super) fn is_over(self, servers: &Servers) -> bool {
        servers[self.place].endings() != self.endings
    }
}

/// `greeting` comes before the first request.
async fn connect(server: &Server, greeting: &[u8]) -> io::Result<Socket> {
    let mut stream = TcpStream::connect(server.address).await?;
    // A request is written at once; waiting for more of it would only delay its tail.
    stream.set_nodelay(true)?;
    if !greeting.is_empty() {
        stream.write_all(greeting).await?;
    }
    Ok(stream.into())
}
