//! The life of a client connection. One request after the other goes through these steps:
//!
//! [`read_head`](Session::read_head) → [`reach`](Session::reach): choose a server (look up, decide, reserve), connect
//! or reuse → [`forward`](Session::forward): send the request, read the response head, learn →
//! [`relay`](Session::relay) the body → [`account`](Session::account): count, log.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::connection::{Connection, poll_write};
use super::failure::Failure;
use super::relay::{Relay, Stop};
use super::timers::{Deadline, Ticks};
use super::upstream::{self, InFlight};
use super::visit::Visit;
use super::worker::Shared;
use crate::access_log::{self, Record};
use crate::clock;
use crate::http::body::Framing;
use crate::http::fault::Fault;
use crate::http::fields::Slots;
use crate::http::response::{Connection as Announce, SetCookie};
use crate::http::scan::Scan;
use crate::http::{Version, request, response};
use crate::persist::learn::{self, Letters};

/// Pause before the same server is tried again: long enough for a restarting listener, too short to be noticed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Interim responses to one request; a server that sends more is broken, or wants us to be.
const INTERIM_LIMIT: u32 = 16;

/// How long and how many bytes are read from a client that was told to go, so that what it still sends does not make
/// the kernel reset the connection under the answer (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// How long a connection that was accepted while draining may take to send what it came for.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

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
    version: Version,
    keep_alive: bool,
    to_head: bool,
    idempotent: bool,
    /// The client has been given an interim response, so that a server has answered something.
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
    /// Only the end of the connection tells the client where it ends.
    ends_by_close: bool,
    issued: learn::SetCookie,
}

/// What has been read from a server.
enum Answer {
    Partial,
    Interim,
    Final(Outgoing),
}

/// A connection to a server, in use.
struct Upstream {
    connection: Connection,
    server: usize,
    reused: bool,
    _in_flight: InFlight,
}

/// How a request ended, for the counters and the log.
struct Outcome {
    status: Option<u16>,
    bytes: u64,
    failure: Option<Failure>,
    issued: Option<learn::SetCookie>,
}

/// A client connection.
struct Session {
    shared: Rc<Shared>,
    client: Connection,
    peer: SocketAddr,
    deadline: Deadline,
    /// Composed for the client besides responses: interim ones, and replies of our own.
    notice: Vec<u8>,
    /// Method and target of the request at hand, as the log shows them; empty without a log.
    line: Vec<u8>,
    started: Option<Instant>,
    is_fresh: bool,
    bytes_out: u64,
}

/// Serves a client until it or we have had enough.
pub(super) async fn serve(shared: Rc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let mut session = Session::new(shared, stream, peer);
    loop {
        match session.next_request().await {
            Next::Request => session.is_fresh = false,
            Next::Close => return,
            Next::Linger => return session.linger().await,
        }
    }
}

impl Session {
    fn new(shared: Rc<Shared>, stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            client: Connection::new(stream, &shared.buffers),
            peer,
            deadline: shared.timers.deadline(),
            notice: Vec::new(),
            line: Vec::new(),
            started: None,
            is_fresh: true,
            bytes_out: 0,
            shared,
        }
    }

    /// The data path.
    async fn next_request(&mut self) -> Next {
        let mut incoming = match self.read_head().await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Next::Close,
            Err(failure) => return self.refuse(failure).await,
        };
        let (next, outcome) = match self.exchange(&mut incoming).await {
            Ok((upstream, outgoing)) => self.relay(&mut incoming, upstream, outgoing).await,
            Err(failure) => self.reply(&incoming, failure).await,
        };
        self.account(&incoming, &outcome);
        self.shared.buffers.give_scratch(incoming.upload.into_scratch());
        next
    }

    /// Waits for a request and reads its head; `None`: the client has none, or we are closing.
    async fn read_head(&mut self) -> Result<Option<Incoming>, Failure> {
        if self.client.input.is_empty() && !self.wait_for_bytes().await {
            return Ok(None);
        }
        self.started = self.shared.log.is_some().then(Instant::now);
        self.shared.stats.requested();
        self.deadline.arm(self.shared.patience.request);
        let mut scan = Scan::default();
        loop {
            let is_due = scan.worth_parsing(self.client.input.filled()) || self.client.input.is_full();
            if is_due && let Some(incoming) = self.take_request().map_err(Failure::Refused)? {
                self.client.input.release();
                return Ok(Some(incoming));
            }
            poll_fn(|cx| match self.client.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
                Poll::Ready(Ok(0)) => Poll::Ready(Err(Failure::CutHead)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
                Poll::Pending => self.deadline.poll(cx).map(|()| Err(Failure::SlowHead)),
            })
            .await?;
        }
    }

    /// False: there will be no request.
    async fn wait_for_bytes(&mut self) -> bool {
        self.deadline.arm(self.shared.patience.keepalive);
        let mut has_grace = false;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.client.poll_fill(cx) {
                return Poll::Ready(matches!(outcome, Ok(1..)));
            }
            if self.shared.is_draining() {
                if !self.is_fresh {
                    return Poll::Ready(false);
                }
                if !std::mem::replace(&mut has_grace, true) {
                    self.deadline.arm(Ticks::from_duration(DRAIN_GRACE));
                }
            }
            self.deadline.poll(cx).map(|()| false)
        })
        .await
    }

    /// Parses the head at the front of the buffer, composes the one for the server, and takes along what has come of
    /// the body.
    fn take_request(&mut self) -> Result<Option<Incoming>, Fault> {
        let config = &self.shared.service.config;
        let bytes = self.client.input.filled();
        let mut slots = Slots::default();
        let Some(request) = request::parse(bytes, &mut slots, &config.limits)? else { return Ok(None) };
        if self.shared.log.is_some() {
            self.line.clear();
            access_log::write_request(&mut self.line, request.method, request.target);
        }
        let default_host = if request.needs_host() { self.local_address() } else { String::new() };
        let rewrite = request::Rewrite {
            without_cookie: config
                .persist
                .cookie()
                .filter(|cookie| cookie.indirect)
                .map(|cookie| &*cookie.name),
            default_host: &default_host,
        };
        let mut head = self.shared.buffers.scratch();
        request.write(&mut head, &rewrite);
        let mut upload = Relay::new(head, request.framing, false);
        let body = upload.take(&bytes[request.head_length..])?;
        let incoming = Incoming {
            upload,
            visit: Visit::new(&self.shared, &request, self.peer.ip()),
            version: request.version,
            keep_alive: request.keep_alive,
            to_head: request.is_head(),
            idempotent: request.is_idempotent(),
            interims: 0,
        };
        let used = request.head_length + body;
        self.client.input.consume(used);
        Ok(Some(incoming))
    }

    /// What a client that names no host has connected to.
    fn local_address(&self) -> String {
        self.client.stream.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
    }

    /// Gets a final response head from a server, again on a new connection where that is safe.
    async fn exchange(&mut self, incoming: &mut Incoming) -> Result<(Upstream, Outgoing), Failure> {
        let mut may_reuse = true;
        loop {
            let mut upstream = self.reach(incoming, may_reuse).await?;
            match self.forward(incoming, &mut upstream.connection).await {
                Ok(outgoing) => return Ok((upstream, outgoing)),
                // The server closed an idle connection while we took it for use (RFC 9112 §9.3.1).
                Err(Failure::ServerClosed) if upstream.reused && incoming.may_be_repeated() => {
                    incoming.upload.rewind();
                    may_reuse = false;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Chooses a server and connects to it or reuses a connection; the last retry goes to another server.
    async fn reach(&mut self, incoming: &mut Incoming, may_reuse: bool) -> Result<Upstream, Failure> {
        let shared = Rc::clone(&self.shared);
        let retry = &shared.service.config.retry;
        let mut retries = retry.retries;
        loop {
            let server = incoming.visit.choose().ok_or(Failure::NoServer)?;
            if let Some(upstream) = Upstream::get(&shared, server, incoming, may_reuse).await {
                return Ok(upstream);
            }
            retries = retries.checked_sub(1).ok_or(Failure::Unreachable)?;
            shared.stats.retried();
            let is_lost = !shared.service.servers[server].state().keeps_users();
            if retry.redispatch && (retries == 0 || is_lost) {
                shared.stats.redispatched();
                incoming.visit.refuse();
            } else {
                tokio::time::sleep(RETRY_PAUSE.min(shared.service.config.timeouts.connect)).await;
            }
        }
    }

    /// Sends the request, its body as it comes, and reads until the head of the final response.
    async fn forward(
        &mut self,
        incoming: &mut Incoming,
        server: &mut Connection,
    ) -> Result<Outgoing, Failure> {
        let mut scan = Scan::default();
        self.deadline.arm(self.shared.patience.server);
        loop {
            poll_fn(|cx| self.poll_answer(cx, incoming, server)).await?;
            while scan.worth_parsing(server.input.filled()) || server.input.is_full() {
                match self.take_response(incoming, server)? {
                    Answer::Partial => break,
                    Answer::Interim => {
                        self.send_notice().await?;
                        scan = Scan::default();
                    }
                    Answer::Final(outgoing) => return Ok(outgoing),
                }
            }
        }
    }

    /// Ready when more of an answer has come.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        server: &mut Connection,
    ) -> Poll<Result<(), Failure>> {
        let passed = incoming.upload.passed;
        self.poll_upload(cx, incoming, server)?;
        match server.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Ok(())),
            Poll::Ready(_) if server.input.is_empty() => return Poll::Ready(Err(Failure::ServerClosed)),
            Poll::Ready(_) => return Poll::Ready(Err(Failure::ServerCut)),
            Poll::Pending => {}
        }
        // The request is on its way: now there is time for the rest of the list.
        incoming.visit.hear_the_rest();
        let (patience, failure) = if incoming.upload.awaits_source() {
            (self.shared.patience.client, Failure::SlowBody)
        } else {
            (self.shared.patience.server, Failure::ServerSilent)
        };
        if incoming.upload.passed != passed {
            self.deadline.arm(patience);
        }
        self.deadline.poll(cx).map(|()| Err(failure))
    }

    /// Moves the request's body on as far as it goes.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        server: &mut Connection,
    ) -> Result<(), Failure> {
        if incoming.upload.is_over() {
            return Ok(());
        }
        match incoming.upload.poll(cx, &mut self.client, &mut server.stream) {
            Poll::Pending | Poll::Ready(Ok(())) => Ok(()),
            Poll::Ready(Err(Stop::Source)) => Err(Failure::ClientGone),
            Poll::Ready(Err(Stop::Malformed(fault))) => Err(Failure::Refused(fault)),
            // It may have answered before it stopped listening.
            Poll::Ready(Err(Stop::Sink)) => {
                incoming.upload.break_off();
                Ok(())
            }
        }
    }

    /// Parses the head at the front of the server's buffer. A final one is learned from, and the one for the client
    /// composed.
    fn take_response(&mut self, incoming: &mut Incoming, server: &mut Connection) -> Result<Answer, Failure> {
        let config = &self.shared.service.config;
        let bytes = server.input.filled();
        let mut slots = Slots::default();
        let parsed = response::parse(bytes, &mut slots, &config.limits, incoming.to_head);
        let Some(response) = parsed.map_err(Failure::ServerMalformed)? else { return Ok(Answer::Partial) };
        let ours = config.persist.cookie().map(|cookie| &*cookie.name);
        let mut rewrite = response::Rewrite {
            connection: Announce::Implicit,
            without_cookie: ours,
            set_cookie: SetCookie::None,
            unchunked: false,
        };
        if response.is_interim() {
            incoming.interims += 1;
            // Nobody has asked for an upgrade: the header that asks is taken out.
            if response.status == 101 || incoming.interims > INTERIM_LIMIT {
                return Err(Failure::ServerMalformed(Fault::Status));
            }
            if incoming.version == Version::Http11 {
                response.write(&mut self.notice, &rewrite);
            }
            let used = response.head_length;
            server.input.consume(used);
            return Ok(Answer::Interim);
        }
        let issued = incoming.visit.answered(ours.is_some_and(|name| response.sets_cookie(name)));
        rewrite.set_cookie = incoming.visit.set_cookie(&self.shared, issued);
        rewrite.unchunked = incoming.version == Version::Http10 && response.framing == Framing::Chunked;
        let ends_by_close = response.framing == Framing::UntilClose || rewrite.unchunked;
        let keep_alive =
            incoming.keep_alive && !ends_by_close && incoming.upload.is_whole() && !self.shared.is_draining();
        rewrite.connection = announce(keep_alive, incoming.version);
        let mut head = self.shared.buffers.scratch();
        response.write(&mut head, &rewrite);
        let head_length = head.len() as u64;
        let mut relay = Relay::new(head, response.framing, rewrite.unchunked);
        let body = relay.take(&bytes[response.head_length..]).map_err(Failure::ServerMalformed)?;
        let reusable = response.keep_alive && response.framing != Framing::UntilClose;
        let (status, used) = (response.status, response.head_length + body);
        server.input.consume(used);
        Ok(Answer::Final(Outgoing {
            relay,
            status,
            head_length,
            keep_alive,
            reusable,
            ends_by_close,
            issued,
        }))
    }

    /// Passes the response on, and the rest of the request, should there be any.
    async fn relay(
        &mut self,
        incoming: &mut Incoming,
        mut upstream: Upstream,
        mut outgoing: Outgoing,
    ) -> (Next, Outcome) {
        self.deadline.arm(self.shared.patience.client);
        let failure = if outgoing.relay.is_whole() && incoming.upload.is_complete() {
            // All there is has been read: the next request may have the server's connection already.
            upstream.put_back(&self.shared, outgoing.reusable);
            poll_fn(|cx| self.poll_flush(cx, &mut outgoing)).await.err()
        } else {
            let failure =
                poll_fn(|cx| self.poll_relay(cx, incoming, &mut upstream.connection, &mut outgoing))
                    .await
                    .err();
            if failure.is_none() && incoming.upload.is_complete() {
                upstream.put_back(&self.shared, outgoing.reusable);
            }
            failure
        };
        let bytes = outgoing.relay.passed.saturating_sub(outgoing.head_length);
        self.bytes_out += outgoing.relay.passed;
        self.shared.buffers.give_scratch(outgoing.relay.into_scratch());
        let next = match failure {
            Some(failure) => {
                if outgoing.ends_by_close && failure != Failure::ClientGone {
                    self.reset_on_close();
                }
                Next::Close
            }
            None if outgoing.keep_alive => Next::Request,
            // The client asked for the end, and nothing of it is left unread.
            None if !incoming.keep_alive && incoming.upload.is_complete() && self.client.input.is_empty() => {
                Next::Close
            }
            None => Next::Linger,
        };
        (next, Outcome { status: Some(outgoing.status), bytes, failure, issued: Some(outgoing.issued) })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, outgoing: &mut Outgoing) -> Poll<Result<(), Failure>> {
        let passed = outgoing.relay.passed;
        match outgoing.relay.poll_composed(cx, &mut self.client.stream) {
            Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(|_| Failure::ClientGone)),
            Poll::Pending if outgoing.relay.passed != passed => {
                self.deadline.arm(self.shared.patience.client)
            }
            Poll::Pending => {}
        }
        self.deadline.poll(cx).map(|()| Err(Failure::ClientGone))
    }

    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        server: &mut Connection,
        outgoing: &mut Outgoing,
    ) -> Poll<Result<(), Failure>> {
        let passed = outgoing.relay.passed + incoming.upload.passed;
        if self.poll_upload(cx, incoming, server).is_err() {
            // The answer is on its way; all that can be done about the request is to leave it unfinished.
            incoming.upload.break_off();
        }
        match outgoing.relay.poll(cx, server, &mut self.client.stream) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stop::Source)) => return Poll::Ready(Err(Failure::ServerCut)),
            Poll::Ready(Err(Stop::Sink)) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Err(Stop::Malformed(fault))) => {
                return Poll::Ready(Err(Failure::ServerMalformed(fault)));
            }
            Poll::Pending => {}
        }
        let (patience, failure) = if outgoing.relay.awaits_source() {
            (self.shared.patience.server, Failure::ServerSilent)
        } else {
            (self.shared.patience.client, Failure::ClientGone)
        };
        if outgoing.relay.passed + incoming.upload.passed != passed {
            self.deadline.arm(patience);
        }
        self.deadline.poll(cx).map(|()| Err(failure))
    }

    /// Answers a request that no server has answered.
    async fn reply(&mut self, incoming: &Incoming, failure: Failure) -> (Next, Outcome) {
        let mut outcome = Outcome { status: None, bytes: 0, failure: Some(failure), issued: None };
        let Some(reply) = failure.reply() else { return (Next::Close, outcome) };
        let keep_alive = incoming.keep_alive
            && !failure.ends_connection()
            && incoming.upload.is_whole()
            && !self.shared.is_draining();
        reply.write(&mut self.notice, announce(keep_alive, incoming.version), incoming.to_head);
        self.shared.stats.replied(reply.status);
        outcome.status = Some(reply.status);
        match self.send_notice().await {
            Ok(()) if keep_alive => (Next::Request, outcome),
            Ok(()) => (Next::Linger, outcome),
            Err(_) => (Next::Close, outcome),
        }
    }

    /// Answers what is not a request, and is done with the client.
    async fn refuse(&mut self, failure: Failure) -> Next {
        let reply = failure.reply();
        let mut next = Next::Close;
        if let Some(reply) = &reply {
            reply.write(&mut self.notice, Announce::Close, false);
            self.shared.stats.replied(reply.status);
            if self.send_notice().await.is_ok() {
                next = Next::Linger;
            }
        }
        let outcome = Outcome {
            status: reply.map(|reply| reply.status),
            bytes: 0,
            failure: Some(failure),
            issued: None,
        };
        self.line.clear();
        self.line.extend_from_slice(access_log::NO_REQUEST);
        self.count(&outcome);
        self.log::<&str>(&outcome, None, Letters::NO_COOKIE, None);
        next
    }

    /// Sends what was composed in [`Self::notice`].
    async fn send_notice(&mut self) -> Result<(), Failure> {
        self.deadline.arm(self.shared.patience.client);
        let mut sent = 0;
        let outcome = poll_fn(|cx| {
            while sent < self.notice.len() {
                let Poll::Ready(outcome) = poll_write(&mut self.client.stream, cx, &self.notice[sent..])
                else {
                    return self.deadline.poll(cx).map(|()| Err(Failure::ClientGone));
                };
                sent += outcome.map_err(|_| Failure::ClientGone)?;
            }
            Poll::Ready(Ok(()))
        })
        .await;
        self.bytes_out += sent as u64;
        // Seldom used, so not kept: an idle connection holds nothing.
        self.notice = Vec::new();
        outcome
    }

    /// Counts and logs.
    fn account(&mut self, incoming: &Incoming, outcome: &Outcome) {
        if let (Some(status), Some(_)) = (outcome.status, outcome.issued) {
            self.shared.stats.responded(status);
        }
        self.count(outcome);
        if self.shared.log.is_some() {
            let service = &self.shared.service;
            let server = incoming.visit.chosen();
            let trace = incoming.visit.trace().display(&service.config.persist, &service.servers, server);
            let letters = incoming.visit.letters(outcome.issued);
            self.log(outcome, server, letters, Some(trace));
        }
    }

    fn count(&mut self, outcome: &Outcome) {
        let is_cut = outcome.status.is_none() || (outcome.issued.is_some() && outcome.failure.is_some());
        if is_cut {
            self.shared.stats.aborted();
        }
        self.shared.stats.moved_bytes(self.client.take_received(), std::mem::take(&mut self.bytes_out));
    }

    fn log<T: std::fmt::Display>(
        &self,
        outcome: &Outcome,
        server: Option<usize>,
        letters: Letters,
        trace: Option<T>,
    ) {
        let Some(log) = &self.shared.log else { return };
        let record = Record {
            unix_millis: clock::unix_millis(),
            client: self.peer,
            request: &self.line,
            status: outcome.status,
            bytes: outcome.bytes,
            elapsed: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
            server: server.map(|server| &*self.shared.service.servers[server].name),
            letters,
            trace,
            fault: outcome.failure.map(Failure::as_str),
        };
        let mut line = self.shared.buffers.scratch();
        record.write(&mut line);
        log.send(&line);
        self.shared.buffers.give_scratch(line);
    }

    /// A response that broke off must not look like one that ended with the connection.
    fn reset_on_close(&self) {
        // On failure the client sees an ordinary end, which a length or the chunks still give away.
        let _ = socket2::SockRef::from(&self.client.stream).set_linger(Some(Duration::ZERO));
    }

    /// Ends our side, and reads on for a while so that the client can read its answer.
    async fn linger(&mut self) {
        self.deadline.arm(Ticks::from_duration(LINGER));
        if self.client.stream.shutdown().await.is_err() {
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
        self.shared.closed();
    }
}

impl Incoming {
    /// Sending it a second time can do no harm: nothing was answered, all of it is still here, and either nothing
    /// was sent or its method allows it (RFC 9110 §9.2.2).
    fn may_be_repeated(&self) -> bool {
        self.interims == 0 && self.upload.is_whole() && (self.idempotent || self.upload.is_untouched())
    }
}

impl Upstream {
    async fn get(shared: &Rc<Shared>, server: usize, incoming: &Incoming, may_reuse: bool) -> Option<Self> {
        // A request that cannot be sent twice is worth a system call to avoid that.
        let careful = !(incoming.idempotent && incoming.upload.is_whole());
        let kept = if may_reuse { shared.pool.take(server, careful) } else { None };
        let reused = kept.is_some();
        let stream = match kept {
            Some(stream) => {
                shared.stats.reused();
                stream
            }
            None => {
                let patience = shared.service.config.timeouts.connect;
                let stream = upstream::connect(&shared.service.servers[server], patience).await.ok()?;
                shared.stats.connected();
                stream
            }
        };
        let connection = Connection::new(stream, &shared.buffers);
        Some(Self { connection, server, reused, _in_flight: InFlight::new(&shared.service, server) })
    }

    /// Everything has been said. Keeps the connection for another request, unless the server wants to close it or
    /// has sent bytes that nobody asked for.
    fn put_back(self, shared: &Shared, reusable: bool) {
        if reusable && self.connection.input.is_empty() {
            shared.pool.give(self.server, self.connection.stream, &shared.timers);
        }
    }
}

fn announce(keep_alive: bool, version: Version) -> Announce {
    match (keep_alive, version) {
        (false, _) => Announce::Close,
        (true, Version::Http11) => Announce::Implicit,
        (true, Version::Http10) => Announce::KeepAlive,
    }
}
