//! The life of a client connection. One request after the other goes through these steps:
//!
//! | step | what it does |
//! |---|---|
//! | `identify` | learns from a PROXY header who the client is, where there has to be one; once |
//! | `read_head` | waits for a request, checks it, composes what the server will get |
//! | `exchange` | chooses a server (look up, decide, reserve), connects or reuses, forwards, reads the response head, learns |
//! | `admit` | in it, waits for a server that has no room |
//! | `relay` | passes the body on |
//! | `tunnel` | or bytes both ways, once both sides have agreed on a WebSocket |
//! | `reply` | or answers itself, when no server did |
//! | `account` | counts, logs |
//!
//! With `--mode tcp` a connection is not taken apart: it is identified, a server is chosen and reached, and a `tunnel`
//! passes the bytes on.

mod account;
mod admission;
mod clock;
mod delivery;
mod exchange;
mod identity;
mod intake;
mod observe;
mod reply;
mod tcp;
mod tunnel;
mod watch;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::failure::Failure;
use super::relay::Relay;
use super::socket::Socket;
use super::timers::{Deadline, Ticks};
use super::upstream::{Lease, Private, Reuse};
use super::worker::Shared;
use crate::config::Mode;
use crate::http::Version;
use crate::http::response::Connection as Announce;
use crate::persist::issue::SetCookie;
use crate::stats::roll::Present;
use crate::visit::Visit;
use clock::Clock;
pub(super) use clock::Phase;

/// How long and how many bytes are read from a client that was told to go, so that what it still sends does not make
/// the kernel reset the connection under the answer (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// What comes after a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Another one.
    Request,
    /// Nothing: the client is gone, or knows that it is the end.
    Close,
    /// Nothing, but the client may be sending still.
    Linger,
}

/// A request on its way.
struct Incoming {
    upload: Relay,
    visit: Visit,
    clock: Clock,
    version: Version,
    keep_alive: bool,
    to_head: bool,
    /// An error is told in JSON.
    prefers_json: bool,
    idempotent: bool,
    /// The client may hold its body back until it hears a 100.
    awaits_continue: bool,
    /// It asks for a WebSocket.
    websocket: bool,
    /// Its credentials are for the connection that it is sent on.
    binds_connection: bool,
    /// The client is looked at while its server takes its time.
    is_watched: bool,
    /// The client has ended its side. It may be gone, or be waiting for its answer.
    has_ended: bool,
    /// Interim responses so far.
    interims: u32,
}

/// A response on its way.
struct Outgoing {
    relay: Relay,
    status: u16,
    head_length: u64,
    /// The client may send another request after it.
    keep_alive: bool,
    /// The server will take another request after it.
    reusable: bool,
    has_no_body: bool,
    /// The server's connection is the client's own from here on.
    binds_connection: bool,
    /// Only the end of the connection tells the client where it ends.
    ends_by_close: bool,
    issued: SetCookie,
}

/// How a request ended, for the counters and the log.
struct Outcome {
    status: Option<u16>,
    bytes: u64,
    failure: Option<Failure>,
    issued: Option<SetCookie>,
}

/// A client connection.
struct Session {
    shared: Rc<Shared>,
    client: Connection,
    /// The client: the other end of the connection, or who a PROXY header says it is.
    peer: SocketAddr,
    /// What the client has connected to, once that is asked, or when a PROXY header says so.
    front: Option<SocketAddr>,
    deadline: Deadline,
    /// Where it is among those who are connected.
    present: Present,
    /// Its own connection to a server, should it have one.
    private: Option<Private>,
    /// Of the session with the server that is, or was, the last to be asked.
    lease: Option<Lease>,
    /// Composed for the client besides responses: interim ones, and replies of our own.
    notice: Vec<u8>,
    /// Method and target of the request at hand, as the log shows them; empty without a log.
    line: Vec<u8>,
    started: Option<Instant>,
    is_fresh: bool,
    /// The other end of the connection is told why it was sent where it was (`--debug-from`).
    is_told_why: bool,
    bytes_out: u64,
}

/// Serves a client until it or we have had enough.
pub(super) async fn serve(shared: Rc<Shared>, socket: Socket, peer: SocketAddr) {
    let mut session = Session::new(shared, socket, peer);
    if !session.identify().await {
        return;
    }
    if session.shared.service.config.mode == Mode::Tcp {
        return session.serve_connection().await;
    }
    loop {
        match session.next_request().await {
            Next::Request => session.is_fresh = false,
            Next::Close => return,
            Next::Linger => return session.linger().await,
        }
    }
}

impl Session {
    fn new(shared: Rc<Shared>, socket: Socket, peer: SocketAddr) -> Self {
        Self {
            client: Connection::new(socket, &shared.buffers),
            peer,
            front: None,
            deadline: shared.timers.deadline(),
            present: shared.stats.roll.enter(SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            private: None,
            lease: None,
            notice: Vec::new(),
            line: Vec::new(),
            started: None,
            is_fresh: true,
            is_told_why: shared.tells_why(peer.ip()),
            bytes_out: 0,
            shared,
        }
    }

    /// The data path.
    async fn next_request(&mut self) -> Next {
        match self.read_head().await {
            // In a place of its own, which a client that is idle does not have: that halves what it costs.
            Ok(Some(incoming)) => Box::pin(self.answer(incoming)).await,
            Ok(None) => Next::Close,
            Err(failure) => self.refuse(failure).await,
        }
    }

    async fn answer(&mut self, mut incoming: Incoming) -> Next {
        let (next, outcome) = match self.exchange(&mut incoming).await {
            // Only one that was asked for comes as far as this.
            Ok((upstream, outgoing)) if outgoing.status == 101 => {
                self.tunnel(&mut incoming, upstream, outgoing).await
            }
            Ok((upstream, outgoing)) => self.relay(&mut incoming, upstream, outgoing).await,
            Err(failure) => self.reply(&incoming, failure).await,
        };
        self.account(&incoming, &outcome);
        self.shared.buffers.give_scratch(incoming.upload.into_scratch());
        next
    }

    /// Ends our side, and reads on for a while so that the client can read its answer.
    async fn linger(&mut self) {
        self.deadline.arm(Ticks::from_duration(LINGER));
        if self.client.socket.shut_down().is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            loop {
                let unread = self.client.input.filled().len();
                self.client.input.consume(unread);
                if self.deadline.poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                match ready!(self.client.poll_fill(cx)) {
                    Ok(count @ 1..) if count <= left => left -= count,
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.stats.roll.leave(self.present);
        self.shared.closed();
    }
}

impl Incoming {
    /// What may be done with connections that were used before.
    fn reuse(&self) -> Reuse {
        if self.idempotent && self.upload.is_whole() { Reuse::Freely } else { Reuse::Carefully }
    }

    /// It is the client's turn to send the rest of it.
    fn awaits_client(&self) -> bool {
        self.upload.awaits_source() && (!self.awaits_continue || self.upload.has_continued())
    }

    /// Sending it a second time can do no harm: nothing was answered, all that came of it is still here, and either
    /// nothing was sent or its method allows it (RFC 9110 §9.2.2).
    fn may_be_repeated(&self) -> bool {
        self.interims == 0 && self.upload.is_repeatable() && (self.idempotent || self.upload.is_untouched())
    }
}

fn announce(keep_alive: bool, version: Version) -> Announce {
    match (keep_alive, version) {
        (false, _) => Announce::Close,
        (true, Version::Http11) => Announce::Implicit,
        (true, Version::Http10) => Announce::KeepAlive,
    }
}
