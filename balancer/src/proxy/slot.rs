//! A request's right to be served by a server, and the wait for it. Neither is lost, however a session ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::server::{QueueFull, Ticket, Turn, Wish};
use crate::service::Service;

/// One of a server's slots; of one without `maxconn=`, nothing but its place.
#[derive(Debug)]
pub(super) struct Slot {
    service: Arc<Service>,
    pub(super) place: usize,
}

impl Slot {
    /// `None`: there is none, or somebody waits for it.
    pub(super) fn take(service: &Arc<Service>, place: usize) -> Option<Self> {
        service.servers.take(place).then(|| Self::of(service, place))
    }

    /// Somebody has handed it over. The server has a request more from here on, also while it is being connected to:
    /// whoever looks for the least busy one must not run to a host that does not answer.
    fn of(service: &Arc<Service>, place: usize) -> Self {
        service.servers[place].one_more_in_flight();
        Self { service: Arc::clone(service), place }
    }

    /// A connection is there: the server is asked.
    pub(super) fn begin(&self) {
        self.service.servers[self.place].requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.service.servers[self.place].in_flight.fetch_sub(1, Ordering::Relaxed);
        self.service.servers.release(self.place);
    }
}

/// Stands in line until it is called.
#[derive(Debug)]
pub(super) struct Waiting {
    service: Arc<Service>,
    ticket: Ticket,
    wish: Wish,
    call: oneshot::Receiver<Turn>,
}

impl Waiting {
    /// Without a `ticket` as the last one, with it where it stood before.
    pub(super) fn join(
        service: &Arc<Service>,
        ticket: &mut Option<Ticket>,
        wish: Wish,
    ) -> Result<Self, QueueFull> {
        let call = service.servers.join(ticket, wish)?;
        // Whoever has joined has one.
        let ticket = ticket.ok_or(QueueFull)?;
        Ok(Self { service: Arc::clone(service), ticket, wish, call })
    }

    /// Ready when it is its turn, with a slot; or with nothing, when servers have changed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        Pin::new(&mut self.call).poll(cx).map(|turn| match turn {
            Ok(Turn::Slot(place)) => Some(Slot::of(&self.service, place)),
            Ok(Turn::Again) | Err(_) => None,
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let servers = &self.service.servers;
        servers.leave(self.ticket, self.wish);
        // From here on whoever calls hears that nobody is there; who has called before is heard now.
        self.call.close();
        if let Ok(Turn::Slot(place)) = self.call.try_recv() {
            servers.release(place);
        }
    }
}
