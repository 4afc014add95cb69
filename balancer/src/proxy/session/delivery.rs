//! From the head of a response to its last byte.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::{Incoming, Next, Outcome, Outgoing, Session};
use crate::proxy::connection::Connection;
use crate::proxy::failure::Failure;
use crate::proxy::relay::Stop;
use crate::proxy::upstream::Upstream;

impl Session {
    /// Passes the response on, and the rest of the request, should there be any.
    pub(super) async fn relay(
        &mut self,
        incoming: &mut Incoming,
        mut upstream: Upstream,
        mut outgoing: Outgoing,
    ) -> (Next, Outcome) {
        let failure = if outgoing.relay.is_whole() && incoming.upload.is_complete() {
            // All there is has been read: the next request may have the server's connection already.
            upstream.put_back(&self.shared, outgoing.reusable, &mut self.private);
            if !outgoing.keep_alive && self.is_parted_with(incoming) {
                self.client.socket.will_end();
            }
            self.flush(&mut outgoing).await.err()
        } else {
            self.wait_for(incoming, self.shared.patience().client);
            let failure =
                poll_fn(|cx| self.poll_relay(cx, incoming, &mut upstream.connection, &mut outgoing))
                    .await
                    .err();
            if failure.is_none() && is_still_heard(incoming, &outgoing) {
                self.finish_upload(incoming, &mut upstream.connection, outgoing.keep_alive).await;
            }
            if failure.is_none() && incoming.upload.is_complete() {
                upstream.put_back(&self.shared, outgoing.reusable, &mut self.private);
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
            None if self.is_parted_with(incoming) => Next::Close,
            None => Next::Linger,
        };
        (next, Outcome { status: Some(outgoing.status), bytes, failure, issued: Some(outgoing.issued) })
    }

    /// The client asked for the end, and nothing of it is left unread.
    fn is_parted_with(&self, incoming: &Incoming) -> bool {
        !incoming.keep_alive && incoming.upload.is_complete() && self.client.input.is_empty()
    }

    /// Sends what is composed of a response.
    pub(super) async fn flush(&mut self, outgoing: &mut Outgoing) -> Result<(), Failure> {
        self.deadline.arm(self.shared.patience().client);
        poll_fn(|cx| self.poll_flush(cx, outgoing)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, outgoing: &mut Outgoing) -> Poll<Result<(), Failure>> {
        let passed = outgoing.relay.passed;
        match outgoing.relay.poll_composed(cx, &mut self.client.socket) {
            Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(|_| Failure::ClientGone)),
            Poll::Pending if outgoing.relay.passed != passed => {
                self.deadline.arm(self.shared.patience().client);
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
        match outgoing.relay.poll(cx, server, &mut self.client.socket) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stop::Source)) => return Poll::Ready(Err(Failure::ServerCut)),
            Poll::Ready(Err(Stop::Sink)) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Err(Stop::Malformed(fault))) => {
                return Poll::Ready(Err(Failure::ServerMalformed(fault)));
            }
            Poll::Pending => {}
        }
        let awaited = if outgoing.relay.awaits_source() {
            (self.shared.patience().server, Failure::ServerSilent)
        } else {
            (self.shared.patience().client, Failure::ClientGone)
        };
        if outgoing.relay.passed + incoming.upload.passed != passed {
            self.wait_for(incoming, awaited.0);
        }
        self.poll_patience(cx, incoming, awaited).map(Err)
    }

    /// The answer is complete, the request is not yet. Whatever becomes of its rest, the client has been answered, and is
    /// shown that this was all.
    async fn finish_upload(&mut self, incoming: &mut Incoming, server: &mut Connection, keep_alive: bool) {
        if !keep_alive && self.client.socket.shut_down().is_err() {
            return incoming.upload.break_off();
        }
        self.wait_for(incoming, self.awaited(incoming).0);
        poll_fn(|cx| {
            let passed = incoming.upload.passed;
            if self.poll_upload(cx, incoming, server).is_err() || incoming.upload.is_over() {
                return Poll::Ready(());
            }
            let awaited = self.awaited(incoming);
            if incoming.upload.passed != passed {
                self.wait_for(incoming, awaited.0);
            }
            self.poll_patience(cx, incoming, awaited).map(|_| ())
        })
        .await;
    }

    /// A response that broke off must not look like one that ended with the connection.
    pub(super) fn reset_on_close(&self) {
        // On failure the client sees an ordinary end, which a length or the chunks still give away.
        let _ = self.client.socket.reset_on_close();
    }
}

/// The server has answered without waiting for the end of the request, and goes on reading it: it has not said that it
/// closes the connection. A client that waits to be told to go on has not been.
fn is_still_heard(incoming: &Incoming, outgoing: &Outgoing) -> bool {
    let is_held_back = incoming.awaits_continue && !incoming.upload.has_continued();
    outgoing.reusable && !is_held_back && !incoming.upload.is_over()
}
