//! `--observe`: what real traffic says about servers. The counting is [`Servers::mark`]'s, the verdict health's.
//!
//! [`Servers::mark`]: crate::server::Servers::mark

use std::io;

use super::{Outcome, Session};
use crate::config::ObserveConfig;
use crate::proxy::failure::Failure;
use crate::server::Mark;
use crate::visit::Visit;

impl Session {
    /// A connection to `server` was made. Where answers are observed they say more: a server that accepts and then fails
    /// is not well.
    pub(super) fn observe_connection(&self, server: usize) {
        if let Some(ObserveConfig { answers: false, .. }) = self.observed() {
            self.shared.service.servers[server].marks.succeeded();
        }
    }

    /// None could be made, and that is not this host's fault.
    pub(super) fn observe_no_connection(&self, server: usize, error: &io::Error) {
        if let Some(ObserveConfig { connect: true, limit, .. }) = self.observed() {
            let errno = error.raw_os_error().and_then(|code| u16::try_from(code).ok());
            self.shared.service.servers.mark(server, Mark::NotConnected(errno.unwrap_or(0)), limit);
        }
    }

    /// A request is over.
    pub(super) fn observe_answer(&self, visit: &Visit, outcome: &Outcome) {
        if let Some(ObserveConfig { answers: true, limit, .. }) = self.observed()
            && let Some(server) = visit.chosen()
        {
            let servers = &self.shared.service.servers;
            match said(outcome) {
                Said::Well => servers[server].marks.succeeded(),
                Said::Ill(mark) => servers.mark(server, mark, limit),
                Said::Nothing => {}
            }
        }
    }

    fn observed(&self) -> Option<ObserveConfig> {
        self.shared.observed()
    }
}

/// What a request's end says about its server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Well,
    Ill(Mark),
    /// It was not heard, or it was somebody else's fault.
    Nothing,
}

fn said(outcome: &Outcome) -> Said {
    match (outcome.failure, outcome.status) {
        // Both have agreed on a tunnel; how that ends is theirs to know.
        (_, Some(101)) => Said::Well,
        (Some(Failure::ServerSilent), _) => Said::Ill(Mark::Silent),
        (Some(Failure::ServerClosed), _) => Said::Ill(Mark::NoAnswer),
        (Some(Failure::ServerCut), _) => Said::Ill(Mark::CutAnswer),
        (Some(Failure::ServerMalformed(_)), _) => Said::Ill(Mark::Malformed),
        // The status is our own.
        _ if outcome.issued.is_none() => Said::Nothing,
        // What a client can provoke says nothing about the server's health: HAProxy has these two exceptions, too.
        (_, Some(status @ 500..)) if !matches!(status, 501 | 505) => Said::Ill(Mark::Status(status)),
        (_, Some(_)) => Said::Well,
        (_, None) => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fault::Fault;
    use crate::persist::issue::SetCookie;

    #[test]
    fn only_what_a_server_does_counts() {
        let answered = Some(SetCookie::Nothing);
        let table = [
            (Some(200), None, answered, Said::Well),
            (Some(404), None, answered, Said::Well),
            (Some(500), None, answered, Said::Ill(Mark::Status(500))),
            (Some(503), None, answered, Said::Ill(Mark::Status(503))),
            (Some(501), None, answered, Said::Well),
            (Some(505), None, answered, Said::Well),
            (Some(200), Some(Failure::ClientGone), answered, Said::Well),
            (Some(200), Some(Failure::ServerCut), answered, Said::Ill(Mark::CutAnswer)),
            (Some(200), Some(Failure::ServerSilent), answered, Said::Ill(Mark::Silent)),
            (Some(101), Some(Failure::ServerCut), answered, Said::Well),
            (Some(502), Some(Failure::ServerClosed), None, Said::Ill(Mark::NoAnswer)),
            (Some(504), Some(Failure::ServerSilent), None, Said::Ill(Mark::Silent)),
            (Some(502), Some(Failure::ServerMalformed(Fault::Status)), None, Said::Ill(Mark::Malformed)),
            (Some(503), Some(Failure::Unreachable), None, Said::Nothing),
            (Some(503), Some(Failure::Shortage), None, Said::Nothing),
            (Some(408), Some(Failure::SlowBody), None, Said::Nothing),
            (None, Some(Failure::ClientGone), None, Said::Nothing),
        ];
        for (status, failure, issued, expected) in table {
            let outcome = Outcome { status, bytes: 0, failure, issued };
            assert_eq!(said(&outcome), expected, "{status:?} {failure:?}");
        }
    }
}
