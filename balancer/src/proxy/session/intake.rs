//! From a quiet connection to a request that is ready to be sent.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::{Incoming, Session};
use crate::access_log;
use crate::http::fault::Fault;
use crate::http::fields::Slots;
use crate::http::request;
use crate::http::scan::Scan;
use crate::persist::{CookieMethod, CookieMode};
use crate::proxy::failure::Failure;
use crate::proxy::relay::Relay;
use crate::proxy::timers::Ticks;
use crate::proxy::upstream::Private;
use crate::visit::Visit;

/// How long a connection that was accepted while draining may take to send what it came for.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

impl Session {
    /// Waits for a request and reads its head; `None`: the client has none, or we are closing.
    pub(super) async fn read_head(&mut self) -> Result<Option<Incoming>, Failure> {
        if self.client.input.is_empty() && !self.wait_for_bytes(self.shared.patience().keepalive).await {
            return Ok(None);
        }
        let started = Instant::now();
        self.started = Some(started);
        self.shared.stats.requested();
        self.deadline.arm(self.shared.patience().request);
        let mut scan = Scan::default();
        let mut clock = Clock::new(started, false);
        loop {
            let is_due = scan.worth_parsing(self.client.input.filled()) || self.client.input.is_full();
            if is_due && let Some(incoming) = self.take_request(clock).map_err(Failure::Refused)? {
                self.client.input.release();
                self.shared.stats.visit_begins();
                self.shared.stats.roll.asks(self.present);
                return Ok(Some(incoming));
            }
            if let Err(failure) = self.more_of_the_head().await {
                // What came since the last look may be wrong in itself: the answer must not depend on the pieces.
                self.take_request(clock).map_err(Failure::Refused)?;
                return Err(failure);
            }
            clock = Clock::new(started, true);
        }
    }

    /// Waits for more of a head, or of what comes before the first.
    pub(super) async fn more_of_the_head(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| match self.client.poll_fill(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Failure::CutHead)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
            Poll::Pending => self.deadline.poll(cx).map(|()| Err(Failure::SlowHead)),
        })
        .await
    }

    /// False: there will be no request.
    pub(super) async fn wait_for_bytes(&mut self, patience: Ticks) -> bool {
        self.deadline.arm(patience);
        let mut has_grace = false;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = self.client.poll_fill(cx) {
                return Poll::Ready(matches!(outcome, Ok(1..)));
            }
            if self.private.is_some() && self.is_ended() {
                self.private = None;
            }
            if self.shared.ends_idle() {
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
    fn take_request(&mut self, clock: Clock) -> Result<Option<Incoming>, Fault> {
        let config = &self.shared.service.config;
        let bytes = self.client.input.filled();
        let mut slots = Slots::default();
        let Some(request) = request::parse(bytes, &mut slots, &config.limits)? else { return Ok(None) };
        if let Some(log) = &self.shared.log {
            self.line.clear();
            let line = &mut self.line;
            access_log::write_request(
                log.layout.format,
                line,
                request.method,
                request.target,
                request.version,
            );
        }
        let default_host = if request.needs_host() { self.local_address() } else { String::new() };
        let rewrite = request::Rewrite {
            cookie: config.persist.cookie().and_then(|method| self.cookie_edit(method)),
            default_host: &default_host,
            forwarded: config.identity.forwarded.map(|style| self.hop(style)),
        };
        let mut head = self.shared.buffers.scratch();
        request.write(&mut head, &rewrite);
        let idempotent = request.is_idempotent();
        let mut upload = Relay::new(head, request.framing).kept(idempotent);
        let body = upload.take(&bytes[request.head_length..])?;
        let incoming = Incoming {
            upload,
            visit: Visit::new(&self.shared.books, &request, self.peer.ip())
                .at_home(self.private.as_ref().and_then(Private::home)),
            clock,
            version: request.version,
            keep_alive: request.keep_alive,
            to_head: request.is_head(),
            prefers_json: request.prefers_json,
            idempotent,
            awaits_continue: request.awaits_continue && body == 0,
            websocket: request.websocket,
            binds_connection: request.binds_connection,
            is_watched: false,
            has_ended: false,
            interims: 0,
        };
        let used = request.head_length + body;
        self.client.input.consume(used);
        Ok(Some(incoming))
    }

    /// What the server is not to see of the persistence cookie.
    fn cookie_edit<'a>(&'a self, method: &'a CookieMethod) -> Option<request::CookieEdit<'a>> {
        let unprefixed = (method.mode == CookieMode::Prefix).then_some(&self.shared.service.servers);
        (method.indirect || unprefixed.is_some())
            .then_some(request::CookieEdit { name: &method.name, unprefixed })
    }

    /// What a client that names no host has connected to.
    fn local_address(&self) -> String {
        self.destination().map_or_else(String::new, |address| address.to_string())
    }
}
