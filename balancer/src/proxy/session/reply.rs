//! What the balancer says itself.

use std::future::poll_fn;
use std::task::Poll;

use super::{Incoming, Next, Outcome, Session, announce};
use crate::http::reply::Format;
use crate::http::response::Connection as Announce;
use crate::proxy::connection::poll_write;
use crate::proxy::failure::Failure;

impl Session {
    /// Answers a request that no server has answered.
    pub(super) async fn reply(&mut self, incoming: &Incoming, failure: Failure) -> (Next, Outcome) {
        let keep_alive = incoming.keep_alive
            && !failure.ends_connection()
            && incoming.upload.is_whole()
            && !self.shared.is_draining();
        let announced = announce(keep_alive, incoming.version);
        let format = if incoming.prefers_json { Format::Json } else { Format::Text };
        let (was_sent, outcome) = self.send_reply(failure, format, announced, incoming.to_head).await;
        let next = match was_sent {
            true if keep_alive => Next::Request,
            true => Next::Linger,
            false => Next::Close,
        };
        (next, outcome)
    }

    /// Answers what is not a request, and is done with the client.
    pub(super) async fn refuse(&mut self, failure: Failure) -> Next {
        self.capture_request(failure);
        let (was_sent, outcome) = self.send_reply(failure, Format::Text, Announce::Close, false).await;
        self.account_refusal(&outcome);
        if was_sent { Next::Linger } else { Next::Close }
    }

    async fn send_reply(
        &mut self,
        failure: Failure,
        format: Format,
        announced: Announce,
        to_head: bool,
    ) -> (bool, Outcome) {
        let reply = failure.reply();
        let status = reply.map(|reply| reply.status);
        let outcome = Outcome { status, bytes: 0, failure: Some(failure), issued: None };
        let Some(reply) = reply else { return (false, outcome) };
        reply.write(&mut self.notice, format, announced, to_head);
        (self.send_notice().await.is_ok(), outcome)
    }

    /// Sends what was composed in [`Self::notice`].
    pub(super) async fn send_notice(&mut self) -> Result<(), Failure> {
        self.deadline.arm(self.shared.patience().client);
        let mut sent = 0;
        let outcome = poll_fn(|cx| {
            while sent < self.notice.len() {
                let Poll::Ready(outcome) = poll_write(&mut self.client.socket, cx, &self.notice[sent..])
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
}
