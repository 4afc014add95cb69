//! Bytes both ways as they come, until both sides have ended: a WebSocket after the server's 101, or a connection with
//! `--mode tcp`.
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
    /// Its source has ended and its sink has been told, or one of them has failed.
    is_over: bool,
}

struct Tunnel {
    up: Way,
    down: Way,
    /// Who goes first takes what a task may do at a time, so they take turns.
    up_is_first: bool,
    /// A side takes nothing any more.
    failure: Option<Failure>,
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
        let mut bytes = 0;
        if failure.is_none() {
            (bytes, failure) = self.pass_bytes(&mut upstream).await;
        }
        let next = if failure.is_none() { Next::Linger } else { Next::Close };
        (next, Outcome { status: Some(status), bytes, failure, issued: Some(issued) })
    }

    /// Passes on what both sides send; how many bytes the client has got, and what went wrong.
    pub(super) async fn pass_bytes(&mut self, upstream: &mut Upstream) -> (u64, Option<Failure>) {
        let mut tunnel = Tunnel::new();
        self.deadline.arm(self.shared.patience().tunnel);
        let failure = poll_fn(|cx| self.poll_tunnel(cx, upstream, &mut tunnel)).await.err();
        let is_cut = match failure {
            Some(Failure::ServerCut | Failure::Killed) => true,
            // One of the two has not got all of what the other has sent: it must not take this for an orderly end.
            Some(Failure::TunnelSilent) => self.shared.timers.is_over() || !tunnel.is_quiet(),
            _ => false,
        };
        if is_cut {
            self.reset_on_close();
            let _ = upstream.connection.socket.reset_on_close();
        }
        (tunnel.down.relay.passed, failure)
    }

    fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Upstream,
        tunnel: &mut Tunnel,
    ) -> Poll<Result<(), Failure>> {
        let passed = (tunnel.up.relay.passed, tunnel.down.relay.passed);
        let outcome = tunnel.poll(cx, &mut self.client, &mut upstream.connection);
        let sent = tunnel.down.relay.passed - passed.1;
        self.shared.stats.moved_bytes(Some(upstream.place()), self.client.take_received(), sent);
        if outcome.is_ready() {
            return outcome;
        }
        if self.is_ended() {
            return Poll::Ready(Err(Failure::Killed));
        }
        if (tunnel.up.relay.passed, tunnel.down.relay.passed) != passed {
            self.deadline.arm(self.shared.patience().tunnel);
        }
        self.deadline.poll(cx).map(|()| Err(Failure::TunnelSilent))
    }
}

impl Tunnel {
    fn new() -> Self {
        Self { up: Way::new(), down: Way::new(), up_is_first: false, failure: None }
    }

    /// Nothing is under way.
    fn is_quiet(&self) -> bool {
        [&self.up, &self.down].into_iter().all(|way| way.is_over || way.relay.awaits_source())
    }

    /// Moves what can be moved; ready when both sides have ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Connection,
        server: &mut Connection,
    ) -> Poll<Result<(), Failure>> {
        self.up_is_first = !self.up_is_first;
        for is_up in [self.up_is_first, !self.up_is_first] {
            let (moved, back_is_over, from, to) = if is_up {
                let moved = self.up.poll(cx, client, server);
                (moved, self.down.is_over, Failure::ClientGone, Failure::ServerCut)
            } else {
                let moved = self.down.poll(cx, server, client);
                (moved, self.up.is_over, Failure::ServerCut, Failure::ClientGone)
            };
            match moved {
                Ok(()) => {}
                // What it has said before still goes the other way. One that has ended its side has merely closed.
                Err(Stop::Sink) if back_is_over => {}
                Err(Stop::Sink) => self.failure = Some(to),
                Err(Stop::Source | Stop::Malformed(_)) => return Poll::Ready(Err(from)),
            }
        }
        if !(self.up.is_over && self.down.is_over) {
            return Poll::Pending;
        }
        Poll::Ready(self.failure.map_or(Ok(()), Err))
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
            self.is_over = true;
            outcome?;
            sink.socket.shut_down().map_err(|_| Stop::Sink)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::proxy::connection::pair;

    #[tokio::test]
    async fn the_last_words_of_a_side_that_takes_nothing_any_more_arrive() {
        for is_over in [false, true] {
            let ((mut client, mut theirs), (mut server, mut last)) = (pair(), pair());
            theirs.write_all(b"more").expect("send");
            last.write_all(b"goodbye").expect("send");
            drop(last);
            server.socket.shut_down().expect("shutdown");
            // The first to move is the one that fails, or the one that ends.
            let mut tunnel = Tunnel { up_is_first: is_over, ..Tunnel::new() };
            let outcome = poll_fn(|cx| tunnel.poll(cx, &mut client, &mut server)).await;
            assert_eq!(outcome, if is_over { Ok(()) } else { Err(Failure::ServerCut) });
            drop(client);
            let mut heard = [0; 7];
            theirs.read_exact(&mut heard).expect("read");
            assert_eq!(&heard, b"goodbye");
        }
    }
}
