//! From a request to the head of its response: a server is reached, asked and heard.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Incoming, Outgoing, Session, announce};
use crate::health;
use crate::http::Version;
use crate::http::body::Framing;
use crate::http::fault::Fault;
use crate::http::fields::Slots;
use crate::http::response::{self, Connection as Announce, SetCookie};
use crate::http::scan::Scan;
use crate::proxy::connection::Connection;
use crate::proxy::failure::Failure;
use crate::proxy::relay::{Relay, Stop};
use crate::proxy::timers::Ticks;
use crate::proxy::upstream::{Reuse, Upstream};

/// Pause before the same server is tried again: long enough for a restarting listener, too short to be noticed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Interim responses to one request; a server that sends more is broken, or wants us to be.
const INTERIM_LIMIT: u32 = 16;

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
        loop {
            let mut upstream = self.reach(incoming, reuse).await?;
            match self.forward(incoming, &mut upstream.connection).await {
                Ok(outgoing) => return Ok((upstream, outgoing)),
                // The server closed an idle connection while we took it for use (RFC 9112 §9.3.1).
                Err(Failure::ServerClosed) if upstream.is_reused && incoming.may_be_repeated() => {
                    incoming.upload.rewind();
                    reuse = Reuse::Never;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Chooses a server and connects to it or reuses a connection; the last retry goes to another server, unless it
    /// was this host that was short of something: no other server would be reached either, and the user would be
    /// moved off one that is well.
    async fn reach(&mut self, incoming: &mut Incoming, reuse: Reuse) -> Result<Upstream, Failure> {
        let shared = Rc::clone(&self.shared);
        let retry = &shared.service.config.retry;
        let mut retries = retry.retries;
        let mut has_made_room = false;
        loop {
            let server = incoming.visit.choose().ok_or(Failure::NoServer)?;
            let error = match Upstream::get(&shared, server, reuse).await {
                Ok(upstream) => return Ok(upstream),
                Err(error) => error,
            };
            let is_ours = health::is_ours(&error);
            if is_ours && !std::mem::replace(&mut has_made_room, true) {
                shared.make_room(server, &error);
                continue;
            }
            let failure = if is_ours { Failure::Shortage } else { Failure::Unreachable };
            retries = retries.checked_sub(1).ok_or(failure)?;
            shared.stats.retried();
            let is_lost = !shared.service.servers[server].state().keeps_users();
            if !is_ours && retry.redispatch && (retries == 0 || is_lost) {
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
                        self.deadline.arm(self.awaited(incoming).0);
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
        let (patience, failure) = self.awaited(incoming);
        if incoming.upload.passed != passed {
            self.deadline.arm(patience);
        }
        self.deadline.poll(cx).map(|()| Err(failure))
    }

    /// How long is waited for whoever has the next word, and what it is when nothing comes.
    fn awaited(&self, incoming: &Incoming) -> (Ticks, Failure) {
        if incoming.awaits_client() {
            (self.shared.patience.client, Failure::SlowBody)
        } else {
            (self.shared.patience.server, Failure::ServerSilent)
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
        let ours = config.persist.cookie().map(|cookie| &*cookie.name);
        let mut rewrite = response::Rewrite {
            connection: Announce::Implicit,
            without_cookie: ours,
            set_cookie: SetCookie::None,
            unchunked: false,
        };
        if response.is_interim() {
            incoming.interims += 1;
            incoming.awaits_continue &= response.status != 100;
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
        rewrite.unchunked = incoming.version == Version::Http10;
        let unchunked = rewrite.unchunked && response.framing == Framing::Chunked;
        let ends_by_close = response.framing == Framing::UntilClose || unchunked;
        let keep_alive =
            incoming.keep_alive && !ends_by_close && incoming.upload.is_whole() && !self.shared.is_draining();
        rewrite.connection = announce(keep_alive, incoming.version);
        let mut head = self.shared.buffers.scratch();
        response.write(&mut head, &rewrite);
        let head_length = head.len() as u64;
        let mut relay = Relay::new(head, response.framing, unchunked);
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
}
