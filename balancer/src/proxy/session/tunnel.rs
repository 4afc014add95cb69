//! A WebSocket: after the server's 101 bytes go both ways as they come, until both sides have ended.
//!
//! Neither side is read faster than the other takes it. An end of one side is passed on and the other may go on; a
//! failure of one ends both. Nothing but what is under way is held, so a quiet tunnel costs two sockets.

use std::future::poll_fn;
use std::mem;
use std::task::{Context, Poll};

use super::{Incoming, Next, Outcome, Outgoing, Session};
use crate::http::body::Framing;
use crate::proxy::connection::Connection;
use crate::proxy::failure::Failure;
use crate::proxy::relay::{Relay, Stop};
use crate::proxy::upstream::Upstream;

/// One direction.
struct Way {
    relay: Relay,
    /// Its source has ended and its sink has been told.
    is_over: bool,
}

struct Tunnel {
    up: Way,
    down: Way,
    /// Who goes first takes what a task may do at a time, so they take turns.
    up_is_first: bool,
}

impl Session {
    /// Passes the 101 on, then whatever follows.
    pub(super) async fn tunnel(
        &mut self,
        incoming: &mut Incoming,
        mut upstream: Upstream,
        mut outgoing: Outgoing,
    ) -> (Next, Outcome) {
        let mut failure = self.flush(&mut outgoing).await.err();
        self.bytes_out += outgoing.relay.passed;
        let Outgoing { relay, status, issued, .. } = outgoing;
        let upload = mem::replace(&mut incoming.upload, Relay::new(Vec::new(), Framing::None));
        for said in [relay, upload] {
            self.shared.buffers.give_scratch(said.into_scratch());
        }
        let mut tunnel = Tunnel { up: Way::new(), down: Way::new(), up_is_first: false };
        if failure.is_none() {
            self.deadline.arm(self.shared.patience.tunnel);
            let server = &mut upstream.connection;
            failure = poll_fn(|cx| self.poll_tunnel(cx, server, &mut tunnel)).await.err();
        }
        let next = match failure {
            None => Next::Linger,
            Some(failure) => {
                if failure == Failure::ServerCut {
                    self.reset_on_close();
                }
                Next::Close
            }
        };
        (
            next,
            Outcome { status: Some(status), bytes: tunnel.down.relay.passed, failure, issued: Some(issued) },
        )
    }

    fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Connection,
        tunnel: &mut Tunnel,
    ) -> Poll<Result<(), Failure>> {
        let passed = (tunnel.up.relay.passed, tunnel.down.relay.passed);
        let outcome = tunnel.poll(cx, &mut self.client, server);
        let sent = tunnel.down.relay.passed - passed.1;
        self.shared.stats.moved_bytes(self.client.take_received(), sent);
        if outcome.is_ready() {
            return outcome;
        }
        if (tunnel.up.relay.passed, tunnel.down.relay.passed) != passed {
            self.deadline.arm(self.shared.patience.tunnel);
        }
        self.deadline.poll(cx).map(|()| Err(Failure::TunnelSilent))
    }
}

impl Tunnel {
    /// Moves what can be moved; ready when both sides have ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Connection,
        server: &mut Connection,
    ) -> Poll<Result<(), Failure>> {
        self.up_is_first = !self.up_is_first;
        for is_up in [self.up_is_first, !self.up_is_first] {
            let moved = match is_up {
                true => self.up.poll(cx, client, server),
                false => self.down.poll(cx, server, client),
            };
            if let Err(stop) = moved {
                return Poll::Ready(self.stopped(is_up, &stop));
            }
        }
        if self.up.is_over && self.down.is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// What it means that a way cannot go on. A side that has ended and then takes nothing has merely closed.
    fn stopped(&self, is_up: bool, stop: &Stop) -> Result<(), Failure> {
        let is_source = !matches!(stop, Stop::Sink);
        match is_up == is_source {
            true if is_source || !self.up.is_over => Err(Failure::ClientGone),
            false if is_source || !self.down.is_over => Err(Failure::ServerCut),
            _ => Ok(()),
        }
    }
}

impl Way {
    fn new() -> Self {
        Self { relay: Relay::new(Vec::new(), Framing::UntilClose), is_over: false }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Connection,
        sink: &mut Connection,
    ) -> Result<(), Stop> {
        if self.is_over {
            return Ok(());
        }
        if let Poll::Ready(outcome) = self.relay.poll(cx, source, &mut sink.socket) {
            outcome?;
            self.is_over = true;
            sink.socket.shut_down().map_err(|_| Stop::Sink)?;
        }
        Ok(())
    }
}
