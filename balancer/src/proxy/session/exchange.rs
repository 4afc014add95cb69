//! From a request to the head of its response: a server is reached, asked and heard.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::admission::Admission;
use super::clock::Clock;
use super::{Incoming, Outgoing, Session, announce};
use crate::health;
use crate::http::Version;
use crate::http::body::Framing;
use crate::http::fault::Fault;
use crate::http::fields::Slots;
use crate::http::response::{self, Connection as Announce, Response, Rewrite};
use crate::http::scan::Scan;
use crate::persist::issue::SetCookie;
use crate::proxy::connection::Connection;
use crate::proxy::failure::Failure;
use crate::proxy::relay::{Relay, Stop};
use crate::proxy::slot::Slot;
use crate::proxy::timers::Ticks;
use crate::proxy::upstream::{Reuse, Upstream};
use crate::visit::Visit;

/// Interim responses to one request; a server that sends more is broken, or wants us to be.
const INTERIM_LIMIT: u32 = 100;

/// What has been read from a server.
enum Answer {
    Partial,
    Interim,
    Final(Outgoing),
}

impl Session {
    /// Gets a final response head from a server, again on a new connection where that is safe.
    pub(super) async fn exchange(
        &mut self,
        incoming: &mut Incoming,
    ) -> Result<(Upstream, Outgoing), Failure> {
        let mut reuse = incoming.reuse();
        let (mut slot, mut has_moved) = (None, false);
        loop {
            let mut upstream =
                self.reach(&mut incoming.visit, &mut incoming.clock, reuse, slot.take()).await?;
            let failure = match self.forward(incoming, &mut upstream.connection).await {
                Ok(outgoing) => {
                    upstream.is_suspect = outgoing.has_no_body;
                    upstream.is_bound |= incoming.binds_connection || outgoing.binds_connection;
                    return Ok((upstream, outgoing));
                }
                Err(failure) => failure,
            };
            let is_cut_short = matches!(failure, Failure::ServerClosed | Failure::Killed);
            if !is_cut_short || !incoming.may_be_repeated() {
                return Err(failure);
            }
            let server = upstream.place();
            if upstream.is_reused && self.shared.service.servers[server].state().keeps_users() {
                // It has closed an idle connection while we took it for use (RFC 9112 §9.3.1).
                slot = Some(upstream.into_slot());
            } else {
                drop(upstream);
                let may_move = self.shared.service.config.retry.redispatch;
                // A request that makes servers die must not kill them all.
                let is_first = !std::mem::replace(&mut has_moved, true);
                if !(may_move && is_first && self.is_lost(server).await) {
                    return Err(failure);
                }
                self.shared.stats.redispatched(Some(server));
                incoming.visit.refuse();
            }
            incoming.upload.rewind();
            reuse = Reuse::Never;
        }
    }

    /// The server cannot be used any more. One that is there, and has closed a new connection without a word, has said
    /// that it does not want the request.
    async fn is_lost(&self, server: usize) -> bool {
        let service = &self.shared.service;
        if !service.servers[server].state().keeps_users() {
            return true;
        }
        let attempt = TcpStream::connect(service.servers[server].address);
        let attempt = timeout(self.shared.patience().connect, attempt).await;
        match attempt.unwrap_or_else(|late| Err(late.into())) {
            Err(error) if !health::is_ours(&error) => {
                self.observe_no_connection(server, &error);
                true
            }
            _ => false,
        }
    }

    /// Chooses a server and connects to it or reuses a connection; the last retry goes to another server, and so does
    /// every one of a request that nothing binds, unless it was this host that was short of something: no other server
    /// would be reached either, and the user would be moved off one that is well.
    ///
    /// With the `slot` that the request has already it goes to the same server again.
    pub(super) async fn reach(
        &mut self,
        visit: &mut Visit,
        clock: &mut Clock,
        reuse: Reuse,
        mut slot: Option<Slot>,
    ) -> Result<Upstream, Failure> {
        let shared = Rc::clone(&self.shared);
        let greeting = self.greeting();
        let retry = &shared.service.config.retry;
        let mut retries = retry.retries;
        let mut has_made_room = false;
        let mut admission = Admission::default();
        loop {
            let slot = match slot.take() {
                Some(slot) => slot,
                None => self.admit(visit, clock, &mut admission).await?,
            };
            let server = slot.place;
            clock.goes_to(server);
            // The slot is given back with an attempt that fails: others need not wait for a pause.
            let error = match Upstream::get(&shared, slot, reuse, &mut self.private, &greeting).await {
                Ok(upstream) => {
                    self.lease = Some(upstream.lease());
                    let now = clock.reached(upstream.is_reused);
                    shared.stats.session_begins(server, now, visit.trace().balanced);
                    shared.stats.roll.is_served(self.present, Some(server));
                    if !upstream.is_reused {
                        self.observe_connection(server);
                    }
                    return Ok(upstream);
                }
                Err(error) => error,
            };
            let is_ours = health::is_ours(&error);
            clock.delays.has_timed_out = error.kind() == ErrorKind::TimedOut;
            if !is_ours {
                self.observe_no_connection(server, &error);
            }
            if is_ours && !std::mem::replace(&mut has_made_room, true) {
                shared.make_room(server, &error);
                continue;
            }
            let failure = if is_ours { Failure::Shortage } else { Failure::Unreachable };
            retries = retries.checked_sub(1).ok_or(failure)?;
            shared.stats.retried(server);
            clock.delays.retries += 1;
            let is_lost = !shared.service.servers[server].state().keeps_users();
            // Nothing keeps a request at a server that was its turn only.
            let may_leave = retries == 0 || is_lost || visit.could_go_elsewhere();
            if !is_ours && retry.redispatch && may_leave {
                shared.stats.redispatched(Some(server));
                visit.refuse();
            } else {
                tokio::time::sleep(retry.pause.min(shared.patience().connect)).await;
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
        self.wait_for(incoming, self.shared.patience().server);
        loop {
            poll_fn(|cx| self.poll_answer(cx, incoming, server)).await?;
            while scan.worth_parsing(server.input.filled()) || server.input.is_full() {
                match self
                    .take_response(incoming, server)
                    .inspect_err(|failure| self.capture_response(&incoming.visit, server, *failure))?
                {
                    Answer::Partial => break,
                    Answer::Interim => {
                        self.send_notice().await?;
                        self.wait_for(incoming, self.awaited(incoming).0);
                        scan = Scan::default();
                    }
                    Answer::Final(outgoing) => {
                        incoming.clock.answered();
                        return Ok(outgoing);
                    }
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
        let awaited = self.awaited(incoming);
        if incoming.upload.passed != passed {
            self.wait_for(incoming, awaited.0);
        }
        self.poll_patience(cx, incoming, awaited).map(Err)
    }

    /// How long is waited for whoever has the next word, and what it is when nothing comes.
    pub(super) fn awaited(&self, incoming: &Incoming) -> (Ticks, Failure) {
        if incoming.awaits_client() {
            (self.shared.patience().client, Failure::SlowBody)
        } else {
            (self.shared.patience().server, Failure::ServerSilent)
        }
    }

    /// Moves the request's body on as far as it goes.
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        server: &mut Connection,
    ) -> Result<(), Failure> {
        if incoming.upload.is_over() {
            return Ok(());
        }
        match incoming.upload.poll(cx, &mut self.client, &mut server.socket) {
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
        let (used, answer) = if response.status == 101 {
            // Whoever asks for another protocol than WebSocket is not heard by the server.
            let is_asked = incoming.websocket && incoming.upload.is_complete() && response.is_websocket();
            if !is_asked {
                return Err(Failure::ServerMalformed(Fault::Status));
            }
            self.compose(incoming, &response, &[])?
        } else if response.is_interim() {
            self.compose_interim(incoming, &response)?
        } else {
            self.compose(incoming, &response, &bytes[response.head_length..])?
        };
        server.input.consume(used);
        Ok(answer)
    }

    /// An interim response, for a client that knows such.
    fn compose_interim(
        &mut self,
        incoming: &mut Incoming,
        response: &Response<'_, '_>,
    ) -> Result<(usize, Answer), Failure> {
        incoming.interims += 1;
        incoming.awaits_continue &= response.status != 100;
        if incoming.interims > INTERIM_LIMIT {
            return Err(Failure::ServerMalformed(Fault::Status));
        }
        if incoming.version == Version::Http11 {
            let cookie = incoming.visit.issue(&self.shared.books, SetCookie::Nothing);
            let rewrite = Rewrite { connection: Announce::Implicit, cookie, unchunked: false, debug: b"" };
            response.write(&mut self.notice, &rewrite);
        }
        Ok((response.head_length, Answer::Interim))
    }

    /// For who may know: which server has answered, and why it. Nothing that is secret is in a trace.
    fn reasons(&self, visit: &Visit, issued: SetCookie) -> Vec<u8> {
        if !self.is_told_why {
            return Vec::new();
        }
        let service = &self.shared.service;
        let server = visit.chosen();
        let letters = visit.letters(Some(issued));
        format!(
            "X-Balancer: server={}; persist={}; letters={}{}; path=slow\r\nCache-Control: no-store\r\n",
            server.map_or("-", |place| service.servers[place].name.as_str()),
            visit.trace().display(&service.config.persist, &service.servers, server),
            letters.request,
            letters.response
        )
        .into_bytes()
    }

    /// A final response, or the 101 that makes a tunnel, and what has come of its body in `rest`.
    fn compose(
        &self,
        incoming: &mut Incoming,
        response: &Response<'_, '_>,
        rest: &[u8],
    ) -> Result<(usize, Answer), Failure> {
        let issued = incoming.visit.answered(Some(response));
        let unchunked = incoming.version == Version::Http10;
        let ends_by_close =
            response.framing == Framing::UntilClose || unchunked && response.framing == Framing::Chunked;
        let keep_alive =
            incoming.keep_alive && !ends_by_close && incoming.upload.is_whole() && !self.shared.is_draining();
        let rewrite = Rewrite {
            connection: match response.status {
                101 => Announce::Upgrade,
                _ => announce(keep_alive, incoming.version),
            },
            cookie: incoming.visit.issue(&self.shared.books, issued),
            unchunked,
            debug: &self.reasons(&incoming.visit, issued),
        };
        let mut head = self.shared.buffers.scratch();
        response.write(&mut head, &rewrite);
        let head_length = head.len() as u64;
        let mut relay = Relay::new(head, response.framing).unchunked(unchunked);
        let used = response.head_length + relay.take(rest).map_err(Failure::ServerMalformed)?;
        let outgoing = Outgoing {
            relay,
            status: response.status,
            head_length,
            keep_alive,
            reusable: response.keep_alive && response.framing != Framing::UntilClose,
            has_no_body: response.framing == Framing::None,
            binds_connection: response.binds_connection(),
            ends_by_close,
            issued,
        };
        Ok((used, Answer::Final(outgoing)))
    }
}
