//! A server is chosen and has room for the request, at once or after a wait.
//!
//! A request that is stuck to a server waits for it; one that `maxqueue=` keeps out is moved, which is one of the few
//! reasons to move a user. A request that any server may have waits for whichever is free first. The wait counts against
//! `--timeout-queue` and no other time-out, and ends when the client does.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Session;
use super::clock::Clock;
use crate::persist::decide::Hold;
use crate::proxy::failure::Failure;
use crate::proxy::slot::{Slot, Waiting};
use crate::server::{State, Ticket, Wish};
use crate::visit::{Choice, Visit};

/// How often a server that is waited for is looked at.
const COMEBACK: Duration = Duration::from_millis(50);

/// What a request has gone through before it was served. It comes again after every attempt that has failed.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Where it stands among those who wait, once it has had to.
    ticket: Option<Ticket>,
    /// It waits, and its time runs.
    is_waiting: bool,
    /// Choosing has taken time.
    has_waited: bool,
    /// It was moved because of `maxqueue=`.
    was_moved: bool,
    /// Where it stood among those who wait for its server, and for any.
    waited_behind: (u32, u32),
}

impl Session {
    /// Chooses a server and takes one of its slots.
    pub(super) async fn admit(
        &mut self,
        visit: &mut Visit,
        clock: &mut Clock,
        admission: &mut Admission,
    ) -> Result<Slot, Failure> {
        let outcome = self.choose_and_take(visit, admission).await;
        clock.delays.waited_behind = admission.waited_behind;
        clock.delays.was_moved |= admission.was_moved;
        if outcome.is_ok() {
            clock.admitted(std::mem::take(&mut admission.has_waited));
        }
        if std::mem::take(&mut admission.is_waiting) {
            self.shared.stats.dequeued(matches!(outcome, Err(Failure::QueueTimeout)));
        }
        outcome
    }

    async fn choose_and_take(
        &mut self,
        visit: &mut Visit,
        admission: &mut Admission,
    ) -> Result<Slot, Failure> {
        loop {
            let wish = match visit.choose() {
                Choice::Bound(server) => match Slot::take(&self.shared.service, server) {
                    Some(slot) => return Ok(slot),
                    None => Wish::Server(server),
                },
                Choice::Free(server) => {
                    if let Some(slot) = Slot::take(&self.shared.service, server) {
                        return Ok(slot);
                    }
                    // Somebody was faster.
                    visit.reconsider();
                    continue;
                }
                Choice::Any => Wish::Any(visit.refused()),
                Choice::Hold(Hold::Fail) => return Err(Failure::ServerDown),
                Choice::Hold(Hold::Wait(server, limit)) => {
                    admission.has_waited = true;
                    self.wait_for_comeback(server, limit).await?;
                    visit.has_waited();
                    continue;
                }
                Choice::Nobody if admission.was_moved => return Err(Failure::QueueFull),
                Choice::Nobody => return Err(Failure::NoServer),
            };
            // In a place of its own, which a request that does not wait has no use for.
            if let Some(slot) = Box::pin(self.queue(visit, wish, admission)).await? {
                return Ok(slot);
            }
        }
    }

    /// Until the server may be given its users again, or `limit` has passed, or the client has left (`--on-down wait`).
    async fn wait_for_comeback(&mut self, server: usize, limit: Duration) -> Result<(), Failure> {
        let (end, mut has_ended) = (Instant::now() + limit, false);
        while self.shared.service.servers[server].state() == State::Down
            && Instant::now() < end
            && !self.shared.timers.is_over()
        {
            let mut pause = pin!(sleep(COMEBACK.min(limit)));
            poll_fn(|cx| {
                if self.is_gone(cx, &mut has_ended) {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                pause.as_mut().poll(cx).map(Ok)
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until there is a slot. `None`: where the request goes is to be chosen anew.
    async fn queue(
        &mut self,
        visit: &mut Visit,
        wish: Wish,
        admission: &mut Admission,
    ) -> Result<Option<Slot>, Failure> {
        let Ok(waiting) = Waiting::join(&self.shared.service, &mut admission.ticket, wish) else {
            if !self.shared.service.config.retry.redispatch || !visit.was_decided() {
                return Err(Failure::QueueFull);
            }
            self.shared.stats.redispatched(visit.chosen());
            admission.was_moved = true;
            visit.refuse();
            return Ok(None);
        };
        if !std::mem::replace(&mut admission.is_waiting, true) {
            admission.has_waited = true;
            admission.waited_behind = self.shared.service.servers.position(wish);
            self.shared.stats.queued();
            self.deadline.arm(self.shared.patience().queue);
        }
        let Some(slot) = self.wait_in_line(waiting).await? else {
            visit.reconsider();
            return Ok(None);
        };
        let is_ours = matches!(wish, Wish::Server(_)) || visit.settle(slot.place);
        Ok(is_ours.then_some(slot))
    }

    /// Until it is this client's turn, or it leaves, or its time is up.
    async fn wait_in_line(&mut self, mut waiting: Waiting) -> Result<Option<Slot>, Failure> {
        let mut has_ended = false;
        poll_fn(|cx| {
            if self.shared.timers.is_over() {
                // Those who are served are cut off as well, which is nobody's turn.
                return Poll::Ready(Err(Failure::QueueTimeout));
            }
            if let Poll::Ready(turn) = waiting.poll(cx) {
                return Poll::Ready(Ok(turn));
            }
            if self.is_gone(cx, &mut has_ended) {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            self.deadline.poll(cx).map(|()| Err(Failure::QueueTimeout))
        })
        .await
    }
}
