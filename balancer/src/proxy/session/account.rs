//! What is kept of a request when it is over: counts, and a line in the log.

use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::{Incoming, Outcome, Phase, Session};
use crate::access_log::{self, Load, Path, Record, Times};
use crate::clock;
use crate::config::LogFormat;
use crate::http::fault::Fault;
use crate::persist::issue::Letters;
use crate::proxy::connection::Connection;
use crate::proxy::descriptors;
use crate::proxy::failure::Failure;
use crate::stats::capture::{self, Captured, Side};
use crate::visit::{Decided, Visit};

impl Session {
    /// Counts and logs a request.
    pub(super) fn account(&mut self, incoming: &Incoming, outcome: &Outcome) {
        let sent = self.count(Some((&incoming.visit, &incoming.clock)), outcome);
        self.observe_answer(&incoming.visit, outcome);
        self.log_visit(&incoming.visit, &incoming.clock, outcome, sent);
    }

    /// Counts and logs a connection whose bytes nobody has read.
    pub(super) fn account_connection(&mut self, visit: &Visit, clock: &Clock, outcome: &Outcome) {
        if outcome.failure.is_some() {
            self.shared.stats.aborted();
        }
        self.count_visit(visit, clock, outcome);
        if let Some(log) = &self.shared.log {
            self.line.clear();
            access_log::write_connection(log.layout.format, &mut self.line);
        }
        self.log_visit(visit, clock, outcome, outcome.bytes);
    }

    fn log_visit(&self, visit: &Visit, clock: &Clock, outcome: &Outcome, sent: u64) {
        let (service, server) = (&self.shared.service, visit.chosen());
        let letters = visit.letters(outcome.issued);
        self.shared.stats.recent.note(Decided {
            unix_millis: clock::unix_millis(),
            client: self.peer.ip(),
            trace: *visit.trace(),
            server,
            letters,
            status: outcome.status,
        });
        if self.shared.log.is_some() {
            let trace = visit.trace().display(&service.config.persist, &service.servers, server);
            self.log(outcome, Some(clock), sent, server, letters, Some(trace));
        }
    }

    /// Counts and logs what was not a request.
    pub(super) fn account_refusal(&mut self, outcome: &Outcome) {
        let sent = self.count(None, outcome);
        if let Some(log) = &self.shared.log {
            self.line.clear();
            access_log::write_no_request(log.layout.format, &mut self.line);
        }
        self.log::<&str>(outcome, None, sent, None, Letters::NO_COOKIE, None);
    }

    /// `visit`: with what was a request. Returns how many bytes the client was sent.
    fn count(&mut self, visit: Option<(&Visit, &Clock)>, outcome: &Outcome) -> u64 {
        // Those of a tunnel are counted as they pass.
        let tunnelled = if outcome.status == Some(101) { outcome.bytes } else { 0 };
        let sent = self.bytes_out + tunnelled;
        let stats = &self.shared.stats;
        let is_ours = outcome.issued.is_none();
        if is_ours && outcome.status.is_some() {
            stats.replied();
        }
        stats.responded(outcome.status);
        if outcome.status.is_none() || (outcome.failure.is_some() && !is_ours) {
            stats.aborted();
        }
        if let Some((visit, clock)) = visit {
            if matches!(outcome.failure, Some(Failure::Refused(_))) {
                stats.not_understood();
            }
            // A reply of ours is nobody's.
            let back = stats.of(visit.chosen().filter(|_| !is_ours));
            back.responded(outcome.status);
            self.count_visit(visit, clock, outcome);
        } else {
            stats.not_understood();
            stats.moved_bytes_in_front(self.client.take_received(), std::mem::take(&mut self.bytes_out));
        }
        sent
    }

    /// What a request or a connection says about its server.
    fn count_visit(&mut self, visit: &Visit, clock: &Clock, outcome: &Outcome) {
        let (stats, server) = (&self.shared.stats, visit.chosen());
        let back = stats.of(server);
        let was_answered = outcome.issued.is_some();
        let counters = &back.counters;
        let count = match outcome.failure {
            Some(Failure::ClientGone | Failure::SlowBody) => Some(&counters.client_aborts),
            Some(failure) if failure.is_the_servers() && was_answered => Some(&counters.server_aborts),
            Some(failure) if failure.is_the_servers() => Some(&counters.response_failures),
            Some(failure) if failure.is_before_the_server() => Some(&counters.connect_failures),
            _ => None,
        };
        if let Some(count) = count {
            count.add(1);
        }
        back.took(&clock.elapsed(Instant::now()));
        stats.decided(visit.trace());
        stats.visit_ends();
        stats.roll.is_served(self.present, None);
        stats.moved_bytes(server, self.client.take_received(), std::mem::take(&mut self.bytes_out));
    }

    /// Keeps a request that was not understood, for the operator to look at.
    pub(super) fn capture_request(&self, failure: Failure) {
        if let Failure::Refused(fault) = failure {
            self.capture(Side::Request, None, fault, self.client.input.filled());
        }
    }

    /// The same for a response.
    pub(super) fn capture_response(&self, visit: &Visit, server: &Connection, failure: Failure) {
        if let Failure::ServerMalformed(fault) = failure {
            self.capture(Side::Response, visit.chosen(), fault, server.input.filled());
        }
    }

    fn capture(&self, side: Side, server: Option<usize>, fault: Fault, message: &[u8]) {
        self.shared.stats.capture(Captured {
            side,
            unix_millis: clock::unix_millis(),
            client: self.peer,
            server,
            fault: fault.as_str(),
            bytes: capture::masked(message),
            length: message.len(),
        });
    }

    /// `clock`: of what was a request.
    fn log<T: Display>(
        &self,
        outcome: &Outcome,
        clock: Option<&Clock>,
        sent: u64,
        server: Option<usize>,
        letters: Letters,
        trace: Option<T>,
    ) {
        let Some(log) = &self.shared.log else { return };
        let is_haproxys = log.layout.format == LogFormat::Haproxy;
        // HAProxy names a server that has failed, even if nobody took its place.
        let server = match clock {
            Some(clock) if is_haproxys => server.or(clock.delays.first_server),
            _ => server,
        };
        let record = Record {
            unix_millis: clock::unix_millis(),
            client: self.peer,
            request: &self.line,
            status: outcome.status,
            bytes: outcome.bytes,
            elapsed: self.started.map_or(Duration::ZERO, |started| started.elapsed()),
            server: server.map(|server| &*self.shared.service.servers[server].name),
            letters,
            trace,
            fault: outcome.failure.map(|failure| self.fault(failure)),
            path: Path::Slow,
            sent,
            times: clock.map_or_else(Times::default, Clock::times),
            ending: self.ending(outcome.failure, clock),
            load: if is_haproxys { self.load(server, clock) } else { Load::default() },
        };
        let mut line = self.shared.buffers.scratch();
        record.write(&log.layout, &mut line);
        log.send(&line);
        self.shared.buffers.give_scratch(line);
    }

    fn ending(&self, failure: Option<Failure>, clock: Option<&Clock>) -> [u8; 2] {
        let phase = clock.map_or(Phase::Head, Clock::phase);
        match failure {
            None => *b"--",
            Some(_) if self.shared.timers.is_over() => [b'K', phase.letter()],
            Some(Failure::Unreachable) if clock.is_some_and(|clock| clock.delays.has_timed_out) => *b"sC",
            Some(failure) => failure.ending(phase),
        }
    }

    fn load(&self, server: Option<usize>, clock: Option<&Clock>) -> Load {
        let servers = &self.shared.service.servers;
        let in_flight = |place: usize| servers[place].in_flight.load(Ordering::Relaxed);
        let delays = clock.map(|clock| clock.delays).unwrap_or_default();
        Load {
            clients: descriptors::clients().0,
            requests: servers.places().into_iter().map(|place| u64::from(in_flight(place))).sum(),
            of_server: server.map_or(0, in_flight),
            retries: delays.retries,
            was_moved: delays.was_moved,
            waited_behind: delays.waited_behind,
        }
    }

    /// At the end of a drain it is us who have no time left, whoever was waited for.
    fn fault(&self, failure: Failure) -> &'static str {
        if self.shared.timers.is_over() { "cut-off" } else { failure.as_str() }
    }
}
