//! What is kept of a request when it is over: counts, and a line in the log.

use std::fmt::Display;
use std::time::Duration;

use super::{Incoming, Outcome, Session};
use crate::access_log::{self, Path, Record};
use crate::clock;
use crate::persist::issue::Letters;
use crate::proxy::failure::Failure;
use crate::visit::{Decided, Visit};

impl Session {
    /// Counts and logs a request.
    pub(super) fn account(&mut self, incoming: &Incoming, outcome: &Outcome) {
        self.count(outcome);
        self.observe_answer(&incoming.visit, outcome);
        self.log_visit(&incoming.visit, outcome);
    }

    /// Counts and logs a connection whose bytes nobody has read.
    pub(super) fn account_connection(&mut self, visit: &Visit, outcome: &Outcome) {
        let stats = &self.shared.stats;
        if outcome.failure.is_some() {
            stats.aborted();
        }
        stats.moved_bytes(self.client.take_received(), std::mem::take(&mut self.bytes_out));
        if let Some(log) = &self.shared.log {
            self.line.clear();
            access_log::write_connection(log.format, &mut self.line);
        }
        self.log_visit(visit, outcome);
    }

    fn log_visit(&self, visit: &Visit, outcome: &Outcome) {
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
            self.log(outcome, server, letters, Some(trace));
        }
    }

    /// Counts and logs what was not a request.
    pub(super) fn account_refusal(&mut self, outcome: &Outcome) {
        self.count(outcome);
        if let Some(log) = &self.shared.log {
            self.line.clear();
            access_log::write_no_request(log.format, &mut self.line);
        }
        self.log::<&str>(outcome, None, Letters::NO_COOKIE, None);
    }

    fn count(&mut self, outcome: &Outcome) {
        let stats = &self.shared.stats;
        let is_ours = outcome.issued.is_none();
        match outcome.status {
            Some(status) if is_ours => stats.replied(status),
            Some(status) => stats.responded(status),
            None => {}
        }
        if outcome.status.is_none() || (outcome.failure.is_some() && !is_ours) {
            stats.aborted();
        }
        stats.moved_bytes(self.client.take_received(), std::mem::take(&mut self.bytes_out));
    }

    fn log<T: Display>(&self, outcome: &Outcome, server: Option<usize>, letters: Letters, trace: Option<T>) {
        let Some(log) = &self.shared.log else { return };
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
        };
        let mut line = self.shared.buffers.scratch();
        record.write(log.format, &mut line);
        log.send(&line);
        self.shared.buffers.give_scratch(line);
    }

    /// At the end of a drain it is us who have no time left, whoever was waited for.
    fn fault(&self, failure: Failure) -> &'static str {
        if self.shared.timers.is_over() { "cut-off" } else { failure.as_str() }
    }
}
