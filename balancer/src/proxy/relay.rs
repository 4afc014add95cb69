//! One message on its way from one socket to another: what was composed for it, then its body as it comes.

use std::io;
use std::task::{Context, Poll, ready};

use super::connection::{Connection, poll_write};
use super::socket::Socket;
use crate::http::body::{Body, Framing};
use crate::http::fault::Fault;

/// Bytes of a request's body that are kept so that it can be sent a second time; up to one buffer more where only its
/// chunks tell how large it is.
const KEPT: usize = 64 * 1024;

/// Why a relay cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The side that sends ended too early, or failed.
    Source,
    /// The side that receives failed.
    Sink,
    /// The body violates its coding.
    Malformed(Fault),
}

/// A message under way. Never holds more than its head and one buffer of the source, and of a request that may be
/// repeated some of its body: what the sink does not take, the source is not asked for.
#[derive(Debug)]
pub(super) struct Relay {
    /// The head, and as much of the body as came with it, so that both go out in one write.
    composed: Vec<u8>,
    sent: usize,
    /// While less than this is composed, what follows of the body is kept behind it.
    keep_until: usize,
    /// The source has been heard after what came with the head.
    was_continued: bool,
    /// Bytes of the source's buffer that are checked and belong to the message.
    pending: usize,
    body: Body,
    /// The sink does not know chunks: the content is passed on without its coding.
    unchunked: bool,
    /// Bytes given to the sink.
    pub(super) passed: u64,
    /// The sink failed; nothing more is sent, though its answer may still be read.
    broken: bool,
}

impl Relay {
    /// A message whose head is `composed`.
    pub(super) fn new(composed: Vec<u8>, framing: Framing) -> Self {
        Self {
            composed,
            sent: 0,
            keep_until: 0,
            was_continued: false,
            pending: 0,
            body: Body::new(framing),
            unchunked: false,
            passed: 0,
            broken: false,
        }
    }

    /// Takes the chunked coding off, if `unchunked`.
    pub(super) fn unchunked(self, unchunked: bool) -> Self {
        Self { unchunked, ..self }
    }

    /// Keeps the body for a second time, if `kept` and as long as it is not too large for that.
    pub(super) fn kept(self, kept: bool) -> Self {
        let fits = match self.body {
            Body::Length(length) => length <= KEPT as u64,
            Body::Chunked(_) => true,
            Body::UntilClose => false,
        };
        Self { keep_until: if kept && fits { self.composed.len() + KEPT } else { 0 }, ..self }
    }

    /// Takes what has come of the body along with the head; returns how many bytes of `input` that are.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let composed = &mut self.composed;
        if self.unchunked {
            return self.body.accept_content(input, |data| composed.extend_from_slice(data));
        }
        let used = self.body.accept(input)?;
        composed.extend_from_slice(&input[..used]);
        Ok(used)
    }

    /// The whole message is here, and what the source has sent beyond it is the next one: nothing of it has to be
    /// read from the source, and nothing of it stands in the source's buffer.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_done() && self.pending == 0
    }

    /// The whole message has been given to the sink.
    pub(super) fn is_complete(&self) -> bool {
        self.is_whole() && self.sent == self.composed.len() && !self.broken
    }

    /// All that was read of it is still here: it can be sent from the start.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.was_continued || self.keep_until > 0
    }

    /// Nothing is left to do, though the message may not be complete.
    pub(super) fn is_over(&self) -> bool {
        self.broken || self.is_complete()
    }

    /// Nothing has been given to the sink.
    pub(super) fn is_untouched(&self) -> bool {
        self.passed == 0
    }

    /// The source has been heard after what was composed.
    pub(super) fn has_continued(&self) -> bool {
        self.was_continued
    }

    /// It is the source that is waited for, not the sink.
    pub(super) fn awaits_source(&self) -> bool {
        !self.is_over() && self.pending == 0 && self.sent == self.composed.len()
    }

    /// Gives up sending.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    /// Starts again from the head, towards another sink; only for a message that [can be](Self::is_repeatable).
    pub(super) fn rewind(&mut self) {
        (self.sent, self.passed, self.broken) = (0, 0, false);
    }

    /// Hands the composed bytes back for the next message.
    pub(super) fn into_scratch(self) -> Vec<u8> {
        self.composed
    }

    /// Moves what can be moved; ready when the message is complete.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Connection,
        sink: &mut Socket,
    ) -> Poll<Result<(), Stop>> {
        loop {
            if self.sent < self.composed.len() {
                ready!(self.poll_composed(cx, sink))?;
            } else if self.pending > 0 {
                let count = ready!(self.poll_send(cx, sink, Some(source)))?;
                source.input.consume(count);
                self.pending -= count;
            } else if self.body.is_done() {
                return Poll::Ready(Ok(()));
            } else {
                if source.input.is_empty() {
                    let outcome = ready!(source.poll_fill_with(cx, self.body.announced()));
                    if !self.continues(&outcome)? {
                        continue;
                    }
                }
                self.check(source).map_err(Stop::Malformed)?;
            }
        }
    }

    /// Sends what is composed, which is all of a message that is whole.
    pub(super) fn poll_composed(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Socket,
    ) -> Poll<Result<(), Stop>> {
        while self.sent < self.composed.len() {
            self.sent += ready!(self.poll_send(cx, sink, None))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Socket,
        source: Option<&Connection>,
    ) -> Poll<Result<usize, Stop>> {
        let bytes = match source {
            Some(source) => &source.input.filled()[..self.pending],
            None => &self.composed[self.sent..],
        };
        let count = ready!(poll_write(sink, cx, bytes)).map_err(|_| Stop::Sink)?;
        self.passed += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Whether the source has sent more.
    fn continues(&mut self, outcome: &io::Result<usize>) -> Result<bool, Stop> {
        match outcome {
            Ok(1..) => Ok(true),
            // The end of the connection is the end of the message only where nothing else could be.
            Ok(0) if matches!(self.body, Body::UntilClose) => {
                self.body = Body::new(Framing::None);
                Ok(false)
            }
            Ok(0) | Err(_) => Err(Stop::Source),
        }
    }

    fn check(&mut self, source: &mut Connection) -> Result<(), Fault> {
        self.was_continued = true;
        let input = source.input.filled();
        if self.composed.len() < self.keep_until {
            let used = self.take(input)?;
            source.input.consume(used);
            return Ok(());
        }
        if self.unchunked {
            self.composed.clear();
            self.sent = 0;
            let used = self.take(input)?;
            source.input.consume(used);
        } else {
            if std::mem::take(&mut self.keep_until) > 0 {
                // Too large to be kept, and sent.
                (self.composed, self.sent) = (Vec::new(), 0);
            }
            self.pending = self.body.accept(input)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use super::*;
    use crate::proxy::connection::pair;

    #[tokio::test]
    async fn bytes_that_the_sink_did_not_take_are_not_taken_for_the_next_message() {
        let ((mut source, mut sender), (mut sink, _receiver)) = (pair(), pair());
        sink.socket.shut_down().expect("shutdown");
        sender.write_all(b"hello").expect("send");
        let mut relay = Relay::new(Vec::new(), Framing::Length(5));
        let outcome = poll_fn(|cx| relay.poll(cx, &mut source, &mut sink.socket)).await;
        assert!(matches!(outcome, Err(Stop::Sink)), "{outcome:?}");
        relay.break_off();
        assert_eq!(source.input.filled(), b"hello");
        assert!(!relay.is_whole(), "what follows is not the next message");
    }
}
