//! Counters of a worker: written by its thread alone, summed when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::Serialize;

use crate::visit::Recent;

/// A counter with one writing thread, so that counting needs no locked instruction.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: Counter,
    closed: Counter,
    denied: Counter,
    bad_proxy_headers: Counter,
    requests: Counter,
    responses: [Counter; 4],
    errors: Counter,
    aborted: Counter,
    retries: Counter,
    redispatches: Counter,
    queued: Counter,
    dequeued: Counter,
    queue_timeouts: Counter,
    connects: Counter,
    reuses: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
}

/// The counters of one worker, and its last decisions.
#[derive(Debug, Default)]
pub struct Stats {
    counters: CachePadded<Counters>,
    /// The last decisions.
    pub recent: Recent,
}

/// What the counters said at one moment, of one worker or of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Snapshot {
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections open now.
    pub connections_active: u64,
    /// Connections of clients that `--deny` names, closed at once and not among the ones above.
    pub denied: u64,
    /// Connections of `--accept-proxy` peers that did not start with a PROXY header.
    pub bad_proxy_headers: u64,
    /// Requests whose head was read, well-formed or not.
    pub requests: u64,
    /// Final responses 200–299, and WebSockets, which are counted when they end.
    pub responses_2xx: u64,
    /// Final responses 300–399.
    pub responses_3xx: u64,
    /// Final responses 400–499.
    pub responses_4xx: u64,
    /// Final responses 500 and above.
    pub responses_5xx: u64,
    /// Responses that the balancer made itself, which are among the ones above.
    pub errors: u64,
    /// Requests that ended without a complete response: the client left, or the server broke off.
    pub aborted: u64,
    /// Attempts after the first to connect to a server.
    pub retries: u64,
    /// Requests moved to another server because theirs could not be reached.
    pub redispatches: u64,
    /// Requests that had to wait for a server to have room, each time that they had to.
    pub queued: u64,
    /// Those that wait now.
    pub queued_active: u64,
    /// Those that have waited in vain.
    pub queue_timeouts: u64,
    /// Connections made to servers.
    pub upstream_connects: u64,
    /// Requests sent on a connection that was kept.
    pub upstream_reuses: u64,
    /// Bytes read from clients.
    pub bytes_in: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
}

impl Stats {
    /// The counters now. They are read one after the other, so sums can be off by what happens meanwhile.
    pub fn snapshot(&self) -> Snapshot {
        let counters = &*self.counters;
        let class = |index: usize| counters.responses[index].get();
        Snapshot {
            connections: counters.connections.get(),
            connections_active: self.active(),
            denied: counters.denied.get(),
            bad_proxy_headers: counters.bad_proxy_headers.get(),
            requests: counters.requests.get(),
            responses_2xx: class(0),
            responses_3xx: class(1),
            responses_4xx: class(2),
            responses_5xx: class(3),
            errors: counters.errors.get(),
            aborted: counters.aborted.get(),
            retries: counters.retries.get(),
            redispatches: counters.redispatches.get(),
            queued: counters.queued.get(),
            queued_active: counters.queued.get().saturating_sub(counters.dequeued.get()),
            queue_timeouts: counters.queue_timeouts.get(),
            upstream_connects: counters.connects.get(),
            upstream_reuses: counters.reuses.get(),
            bytes_in: counters.bytes_in.get(),
            bytes_out: counters.bytes_out.get(),
        }
    }

    /// Client connections open now: what a drain waits for.
    pub fn active(&self) -> u64 {
        let closed = self.counters.closed.get();
        self.counters.connections.get().saturating_sub(closed)
    }

    pub(super) fn accepted(&self) {
        self.counters.connections.add(1);
    }

    pub(super) fn closed(&self) {
        self.counters.closed.add(1);
    }

    pub(super) fn denied(&self) {
        self.counters.denied.add(1);
    }

    pub(super) fn misidentified(&self) {
        self.counters.bad_proxy_headers.add(1);
    }

    pub(super) fn requested(&self) {
        self.counters.requests.add(1);
    }

    pub(super) fn responded(&self, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.counters.responses[class].add(1);
    }

    pub(super) fn replied(&self, status: u16) {
        self.counters.errors.add(1);
        self.responded(status);
    }

    pub(super) fn aborted(&self) {
        self.counters.aborted.add(1);
    }

    pub(super) fn retried(&self) {
        self.counters.retries.add(1);
    }

    pub(super) fn redispatched(&self) {
        self.counters.redispatches.add(1);
    }

    pub(super) fn queued(&self) {
        self.counters.queued.add(1);
    }

    pub(super) fn dequeued(&self, in_vain: bool) {
        self.counters.dequeued.add(1);
        self.counters.queue_timeouts.add(u64::from(in_vain));
    }

    pub(super) fn connected(&self) {
        self.counters.connects.add(1);
    }

    pub(super) fn reused(&self) {
        self.counters.reuses.add(1);
    }

    pub(super) fn moved_bytes(&self, received: u64, sent: u64) {
        self.counters.bytes_in.add(received);
        self.counters.bytes_out.add(sent);
    }
}

impl std::iter::Sum for Snapshot {
    fn sum<I: Iterator<Item = Self>>(snapshots: I) -> Self {
        snapshots.fold(Self::default(), |a, b| Self {
            connections: a.connections + b.connections,
            connections_active: a.connections_active + b.connections_active,
            denied: a.denied + b.denied,
            bad_proxy_headers: a.bad_proxy_headers + b.bad_proxy_headers,
            requests: a.requests + b.requests,
            responses_2xx: a.responses_2xx + b.responses_2xx,
            responses_3xx: a.responses_3xx + b.responses_3xx,
            responses_4xx: a.responses_4xx + b.responses_4xx,
            responses_5xx: a.responses_5xx + b.responses_5xx,
            errors: a.errors + b.errors,
            aborted: a.aborted + b.aborted,
            retries: a.retries + b.retries,
            redispatches: a.redispatches + b.redispatches,
            queued: a.queued + b.queued,
            queued_active: a.queued_active + b.queued_active,
            queue_timeouts: a.queue_timeouts + b.queue_timeouts,
            upstream_connects: a.upstream_connects + b.upstream_connects,
            upstream_reuses: a.upstream_reuses + b.upstream_reuses,
            bytes_in: a.bytes_in + b.bytes_in,
            bytes_out: a.bytes_out + b.bytes_out,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let (one, two) = (Stats::default(), Stats::default());
        one.accepted();
        one.replied(503);
        two.accepted();
        two.closed();
        two.responded(204);
        let sum: Snapshot = [&one, &two].into_iter().map(Stats::snapshot).sum();
        assert_eq!((sum.connections, sum.connections_active), (2, 1));
        assert_eq!((sum.responses_2xx, sum.responses_5xx, sum.errors), (1, 1, 1));
    }
}
