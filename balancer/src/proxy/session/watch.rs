//! Whether anybody still waits for an answer that takes its time.
//!
//! Most answers come at once, so nothing is done about their clients. After [`GLANCE`] the client's socket is read: what
//! has come is kept for the next request as far as it fits, and a reset frees the server from work that nobody wants.
//! An end alone says nothing: a client may end its side and wait for its answer (RFC 9112 §9.6).

use std::task::{Context, Poll};

use super::{Incoming, Session};
use crate::proxy::failure::Failure;
use crate::proxy::timers::Ticks;

/// How long nothing happens before the client is looked at.
const GLANCE: Ticks = Ticks::ONE;

impl Session {
    /// Starts to wait for whoever has the next word: `patience` from now.
    pub(super) fn wait_for(&self, incoming: &Incoming, patience: Ticks) {
        self.deadline.arm(if incoming.is_watched { patience } else { patience.min(GLANCE) });
    }

    /// Ready when the waiting is over, and why: the other side's `patience` has run out, the client is gone, or the
    /// server's sessions are ended.
    pub(super) fn poll_patience(
        &mut self,
        cx: &mut Context<'_>,
        incoming: &mut Incoming,
        (patience, failure): (Ticks, Failure),
    ) -> Poll<Failure> {
        if self.is_ended() {
            return Poll::Ready(Failure::Killed);
        }
        if !incoming.is_watched {
            if self.deadline.poll(cx).is_pending() {
                return Poll::Pending;
            }
            incoming.is_watched = true;
            self.deadline.arm(patience.after(GLANCE));
        }
        if self.is_reset(cx, incoming) {
            return Poll::Ready(Failure::ClientGone);
        }
        self.deadline.poll(cx).map(|()| failure)
    }

    /// Reads what the client sends meanwhile; nothing while its request is on its way, which reads for itself.
    fn is_reset(&mut self, cx: &mut Context<'_>, incoming: &mut Incoming) -> bool {
        incoming.upload.is_over() && self.is_gone(cx, &mut incoming.has_ended)
    }

    /// Reads what the client sends, as far as it fits. An end of its side is noted in `has_ended`; true: a reset.
    pub(super) fn is_gone(&mut self, cx: &mut Context<'_>, has_ended: &mut bool) -> bool {
        while !*has_ended && !self.client.input.is_full() {
            match self.client.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => *has_ended = true,
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => break,
            }
        }
        false
    }

    /// The server's sessions were ended, and this is one of them.
    pub(super) fn is_ended(&self) -> bool {
        let servers = &self.shared.service.servers;
        // Almost never has there been such a thing, and then nothing has to be looked up.
        self.shared.has_endings.get() && self.lease.is_some_and(|lease| lease.is_over(servers))
    }
}
