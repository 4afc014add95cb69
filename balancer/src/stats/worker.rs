//! What one worker counts: written by its thread alone, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use serde::Serialize;

use super::capture::{Captured, Side};
use super::counter::{Counter, counters};
use super::latency::{Latency, Times};
use super::roll::Roll;
use crate::persist::MAX_METHODS;
use crate::persist::trace::{Trace, Verdict};
use crate::visit::Recent;

counters! {
    /// Counters of the clients' side.
    FrontCounters,
    /// What the counters of the clients' side say, of one worker or of several.
    Front {
        /// Client connections accepted.
        connections,
        /// Those that have ended.
        closed,
        /// Connections of clients that `--deny` names, closed at once and not among the ones above.
        denied,
        /// Connections of `--accept-proxy` peers that did not start with a PROXY header.
        bad_proxy_headers,
        /// Requests of which the first byte has come, well-formed or not; with `--mode tcp` none.
        requests,
        /// Those that were no well-formed request, or never came to their end.
        invalid_requests,
        /// Well-formed requests and, with `--mode tcp`, connections: what a server is looked for.
        visits,
        /// Those that are over.
        visits_ended,
        /// The most of them at one time in one worker.
        visits_most,
        /// Final responses 100–199: WebSockets, which are counted when they end.
        responses_1xx,
        /// Final responses 200–299.
        responses_2xx,
        /// Final responses 300–399.
        responses_3xx,
        /// Final responses 400–499.
        responses_4xx,
        /// Final responses 500 and above.
        responses_5xx,
        /// Requests that nobody could be given an answer to.
        responses_none,
        /// Responses that the balancer made itself, which are among the ones above.
        errors,
        /// Requests that ended without a complete response: the client left, or the server broke off.
        aborted,
        /// Attempts after the first to connect to a server.
        retries,
        /// Requests moved to another server because theirs could not be reached.
        redispatches,
        /// Requests that had to wait for a server to have room, each time that they had to.
        queued,
        /// Those that need not wait any longer.
        dequeued,
        /// Those that have waited in vain.
        queue_timeouts,
        /// Connections made to servers.
        connects,
        /// Requests sent on a connection that was kept.
        reuses,
        /// Bytes read from clients.
        bytes_in,
        /// Bytes written to clients.
        bytes_out,
    }
}

counters! {
    /// Counters of one server, or of what no server was found for.
    BackCounters,
    /// What the counters of one server say, or of several.
    Back {
        /// Requests, or with `--mode tcp` connections, that it was asked; those that it was to be asked, had there been one.
        sessions,
        /// Those that `--balance` sent there, not a method of `--persist`.
        balanced,
        /// Its interim responses and 101.
        responses_1xx,
        /// Its responses 200–299.
        responses_2xx,
        /// Its responses 300–399.
        responses_3xx,
        /// Its responses 400–499.
        responses_4xx,
        /// Its responses 500 and above.
        responses_5xx,
        /// Requests that nobody could be given an answer to.
        responses_none,
        /// Connections made to it.
        connects,
        /// Requests sent on a connection that was kept.
        reuses,
        /// Requests that it could not be reached for.
        connect_failures,
        /// Requests that it did not answer, or with nonsense.
        response_failures,
        /// Attempts after the first to connect to it.
        retries,
        /// Requests that were moved away from it.
        redispatches,
        /// Requests whose client left before the end.
        client_aborts,
        /// Answers that it broke off.
        server_aborts,
        /// Bytes read from clients for it.
        bytes_in,
        /// Bytes written to clients from it.
        bytes_out,
        /// Idle connections to it now, kept for the next request.
        idle,
    }
}

macro_rules! classes_of_answers {
    ($($totals:ty)*) => {$(
        impl $totals {
            /// Answers by the class of their status, `none` for requests that ended without, as they are called wherever
            /// they are shown.
            pub fn by_class(&self) -> [(&'static str, u64); 6] {
                [
                    ("1xx", self.responses_1xx),
                    ("2xx", self.responses_2xx),
                    ("3xx", self.responses_3xx),
                    ("4xx", self.responses_4xx),
                    ("5xx", self.responses_5xx),
                    ("none", self.responses_none),
                ]
            }
        }
    )*};
}

classes_of_answers! { Front Back }

/// What a worker knows of one server.
#[derive(Debug, Default)]
pub struct BackStats {
    /// The counters.
    pub counters: BackCounters,
    /// Milliseconds from the start of the statistics to its last session, plus one; 0: there was none.
    last_session: Counter,
    queue: Latency,
    connect: Latency,
    response: Latency,
    total: Latency,
}

/// How long things took, all of it since start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latencies {
    /// The wait for a server to have room: of every request, most of which do not wait.
    pub queue: Times,
    /// From there to a connection, which may have been kept.
    pub connect: Times,
    /// From there to the head of the response.
    pub response: Times,
    /// From the first byte of the request to the last of the response.
    pub total: Times,
}

impl std::ops::Add for Latencies {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queue: self.queue + other.queue,
            connect: self.connect + other.connect,
            response: self.response + other.response,
            total: self.total + other.total,
        }
    }
}

impl BackStats {
    /// A final response of it went out, or none could be given.
    pub fn responded(&self, status: Option<u16>) {
        let counters = &self.counters;
        match status {
            None => &counters.responses_none,
            Some(..200) => &counters.responses_1xx,
            Some(200..300) => &counters.responses_2xx,
            Some(300..400) => &counters.responses_3xx,
            Some(400..500) => &counters.responses_4xx,
            Some(500..) => &counters.responses_5xx,
        }
        .add(1);
    }

    /// How long a request took, as far as it came.
    pub fn took(&self, elapsed: &Elapsed) {
        let Elapsed { queue, connect, response, total } = *elapsed;
        for (latency, time) in [
            (&self.queue, queue),
            (&self.connect, connect),
            (&self.response, response),
            (&self.total, Some(total)),
        ] {
            if let Some(time) = time {
                latency.note(time);
            }
        }
    }

    /// What [`Self::took`] was told.
    pub fn latencies(&self) -> Latencies {
        Latencies {
            queue: self.queue.read(),
            connect: self.connect.read(),
            response: self.response.read(),
            total: self.total.read(),
        }
    }

    pub(super) fn forget_longest(&self) {
        [&self.queue, &self.connect, &self.response, &self.total]
            .into_iter()
            .for_each(Latency::forget_longest);
    }
}

/// How long the parts of a request took; `None`: it did not come to that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed {
    /// The wait for a server to have room.
    pub queue: Option<Duration>,
    /// From there to a connection.
    pub connect: Option<Duration>,
    /// From there to the head of the response.
    pub response: Option<Duration>,
    /// All of it.
    pub total: Duration,
}

/// What came of the methods of `--persist`: for each, in their order, how often it came to each [`Verdict`].
pub type Verdicts = [[u64; Verdict::ALL.len()]; MAX_METHODS];

/// The statistics of one worker, its last decisions, and the last message that was not understood.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    beats: AtomicU64,
    front: CachePadded<FrontCounters>,
    /// By the server's place; longer as servers are added, each as large as it is when it has its first request.
    back: boxcar::Vec<OnceLock<Box<BackStats>>>,
    /// What no server was found for.
    nobody: BackStats,
    verdicts: [[Counter; Verdict::ALL.len()]; MAX_METHODS],
    captured: [Mutex<Option<Captured>>; 2],
    /// Who is connected.
    pub roll: Roll,
    /// The last decisions.
    pub recent: Recent,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            beats: AtomicU64::new(0),
            front: CachePadded::default(),
            back: boxcar::Vec::new(),
            nobody: BackStats::default(),
            verdicts: Default::default(),
            captured: Default::default(),
            roll: Roll::default(),
            recent: Recent::default(),
        }
    }
}

/// For the worker's thread.
impl Stats {
    /// The worker shows that it comes round to everything.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Of the server at `place`, or of those that none was found for. To be called by the worker alone.
    pub fn of(&self, place: Option<usize>) -> &BackStats {
        let Some(place) = place else { return &self.nobody };
        while self.back.count() <= place {
            self.back.push(OnceLock::new());
        }
        self.back[place].get_or_init(Box::default)
    }

    pub(crate) fn accepted(&self) {
        self.front.connections.add(1);
    }

    pub(crate) fn closed(&self) {
        self.front.closed.add(1);
    }

    pub(crate) fn denied(&self) {
        self.front.denied.add(1);
    }

    pub(crate) fn misidentified(&self) {
        self.front.bad_proxy_headers.add(1);
    }

    pub(crate) fn requested(&self) {
        self.front.requests.add(1);
    }

    /// It was no request, or none that could be understood to its end.
    pub(crate) fn not_understood(&self) {
        self.front.invalid_requests.add(1);
    }

    /// A server is looked for.
    pub(crate) fn visit_begins(&self) {
        let front = &self.front;
        front.visits.add(1);
        front.visits_most.raise(front.visits.get() - front.visits_ended.get());
    }

    /// It is over.
    pub(crate) fn visit_ends(&self) {
        self.front.visits_ended.add(1);
    }

    /// The server at `place` is asked.
    pub(crate) fn session_begins(&self, place: usize, now: Instant, is_balanced: bool) {
        let back = self.of(Some(place));
        back.counters.sessions.add(1);
        back.counters.balanced.add(u64::from(is_balanced));
        back.last_session.set(now.saturating_duration_since(self.started).as_millis() as u64 + 1);
    }

    /// A final response went out, or was to; `None`: there was nobody to give it to.
    pub(crate) fn responded(&self, status: Option<u16>) {
        let front = &self.front;
        match status {
            None => &front.responses_none,
            Some(..200) => &front.responses_1xx,
            Some(200..300) => &front.responses_2xx,
            Some(300..400) => &front.responses_3xx,
            Some(400..500) => &front.responses_4xx,
            Some(500..) => &front.responses_5xx,
        }
        .add(1);
    }

    /// The response was made here.
    pub(crate) fn replied(&self) {
        self.front.errors.add(1);
    }

    pub(crate) fn aborted(&self) {
        self.front.aborted.add(1);
    }

    /// The server at `place` is tried once more, or in its stead another.
    pub(crate) fn retried(&self, place: usize) {
        self.front.retries.add(1);
        self.of(Some(place)).counters.retries.add(1);
    }

    /// Moved away from the server at `place`.
    pub(crate) fn redispatched(&self, place: Option<usize>) {
        self.front.redispatches.add(1);
        self.of(place).counters.redispatches.add(1);
    }

    pub(crate) fn queued(&self) {
        self.front.queued.add(1);
    }

    pub(crate) fn dequeued(&self, in_vain: bool) {
        self.front.dequeued.add(1);
        self.front.queue_timeouts.add(u64::from(in_vain));
    }

    pub(crate) fn connected(&self, place: usize) {
        self.front.connects.add(1);
        self.of(Some(place)).counters.connects.add(1);
    }

    pub(crate) fn reused(&self, place: usize) {
        self.front.reuses.add(1);
        self.of(Some(place)).counters.reuses.add(1);
    }

    /// So many connections to the server at `place` are kept for the next request.
    pub(crate) fn idle(&self, place: usize, count: usize) {
        // Nothing is made for a server that has none.
        if count > 0 || self.back(Some(place)).is_some() {
            self.of(Some(place)).counters.idle.set(count as u64);
        }
    }

    /// Between a client and the server at `place`.
    pub(crate) fn moved_bytes(&self, place: Option<usize>, received: u64, sent: u64) {
        let back = &self.of(place).counters;
        back.bytes_in.add(received);
        back.bytes_out.add(sent);
        self.moved_bytes_in_front(received, sent);
    }

    /// Of what was no request.
    pub(crate) fn moved_bytes_in_front(&self, received: u64, sent: u64) {
        self.front.bytes_in.add(received);
        self.front.bytes_out.add(sent);
    }

    /// What the methods have said.
    pub(crate) fn decided(&self, trace: &Trace) {
        for (step, counters) in trace.steps().iter().zip(&self.verdicts) {
            counters[step.verdict as usize].add(1);
        }
    }

    /// Keeps a message that was not understood in the place of the one before.
    pub(crate) fn capture(&self, captured: Captured) {
        let place = &self.captured[captured.side as usize];
        // Nobody holds it for longer than a copy takes.
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(captured);
    }
}

/// For whoever asks.
impl Stats {
    /// Client connections open now: what a drain waits for.
    pub fn active(&self) -> u64 {
        let closed = self.front.closed.get();
        self.front.connections.get().saturating_sub(closed)
    }

    /// The counters of the clients' side.
    pub fn front(&self) -> Front {
        self.front.read()
    }

    /// What is known of the server at `place`, or of what no server was found for.
    pub fn back(&self, place: Option<usize>) -> Option<&BackStats> {
        match place {
            None => Some(&self.nobody),
            Some(place) => self.back.get(place).and_then(OnceLock::get).map(|back| &**back),
        }
    }

    /// All of them.
    pub fn backs(&self) -> impl Iterator<Item = &BackStats> {
        let servers = self.back.iter().filter_map(|(_, back)| back.get()).map(|back| &**back);
        std::iter::once(&self.nobody).chain(servers)
    }

    /// When `back`, which is one of its own, has had its last session.
    pub fn last_session(&self, back: &BackStats) -> Option<Instant> {
        let millis = back.last_session.get().checked_sub(1)?;
        Some(self.started + Duration::from_millis(millis))
    }

    /// What came of the methods.
    pub fn verdicts(&self) -> Verdicts {
        self.verdicts.each_ref().map(|counters| counters.each_ref().map(Counter::get))
    }

    /// The last message of that side that was not understood.
    pub fn captured(&self, side: Side) -> Option<Captured> {
        self.captured[side as usize].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to look for the largest values anew.
    pub(super) fn forget_largest(&self) {
        // Should the worker write at this moment, its value stays: it is not much older.
        self.front.visits_most.set(self.front.visits.get().saturating_sub(self.front.visits_ended.get()));
        self.backs().for_each(BackStats::forget_longest);
    }
}

/// The part of [`Front`] that `show info` has had from the start, by these names.
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
    /// Those that were not well-formed.
    pub invalid_requests: u64,
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

impl From<Front> for Snapshot {
    fn from(front: Front) -> Self {
        Self {
            connections: front.connections,
            connections_active: front.connections.saturating_sub(front.closed),
            denied: front.denied,
            bad_proxy_headers: front.bad_proxy_headers,
            requests: front.requests,
            invalid_requests: front.invalid_requests,
            responses_2xx: front.responses_1xx + front.responses_2xx,
            responses_3xx: front.responses_3xx,
            responses_4xx: front.responses_4xx,
            responses_5xx: front.responses_5xx,
            errors: front.errors,
            aborted: front.aborted,
            retries: front.retries,
            redispatches: front.redispatches,
            queued: front.queued,
            queued_active: front.queued.saturating_sub(front.dequeued),
            queue_timeouts: front.queue_timeouts,
            upstream_connects: front.connects,
            upstream_reuses: front.reuses,
            bytes_in: front.bytes_in,
            bytes_out: front.bytes_out,
        }
    }
}
