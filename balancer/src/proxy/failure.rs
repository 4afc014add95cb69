//! How a request can fail, whose fault that is, and what the client is told.

use super::session::Phase;
use crate::http::fault::Fault;
use crate::http::reply::Reply;
use crate::proxy_protocol;

/// Why a request has no complete response from a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// The client's message is malformed, its head or its body.
    Refused(Fault),
    /// A peer that has to say who its client is did not, or nonsense.
    Unidentified(proxy_protocol::Fault),
    /// The client did not finish its head in `--timeout-request`.
    SlowHead,
    /// The client ended its side in the middle of a head.
    CutHead,
    /// The client was silent in the middle of its body for `--timeout-client`.
    SlowBody,
    /// The client is gone, or takes nothing: nobody is there to be told.
    ClientGone,
    /// Nobody may be given the request.
    NoServer,
    /// As many wait for the server as may (`maxqueue=`), and no other will do.
    QueueFull,
    /// No server had room within `--timeout-queue`.
    QueueTimeout,
    /// The server that the client is bound to is down, and it stays bound (`--on-down fail`).
    ServerDown,
    /// No connection to the chosen server, after all retries.
    Unreachable,
    /// No connection to the chosen server, since this host is short of what it takes.
    Shortage,
    /// The server was silent for `--timeout-server`.
    ServerSilent,
    /// The server closed before it answered anything.
    ServerClosed,
    /// The server closed in the middle of its answer.
    ServerCut,
    /// The operator, or a health check, has ended what the server was doing.
    Killed,
    /// The server's message is malformed.
    ServerMalformed(Fault),
    /// Neither side of a tunnel has said anything for `--timeout-tunnel`.
    TunnelSilent,
}

impl Failure {
    /// The answer, if there is somebody to give it to.
    pub(super) fn reply(self) -> Option<Reply> {
        let (status, text) = match self {
            Self::Refused(fault) => (fault.status(), fault.as_str()),
            Self::SlowHead => (408, "the request head took too long"),
            Self::CutHead => (400, "the request head is incomplete"),
            Self::SlowBody => (408, "the request body took too long"),
            Self::Unidentified(_) | Self::TunnelSilent | Self::ClientGone => return None,
            Self::NoServer => (503, "no server is available"),
            Self::QueueFull => (503, "too many requests wait for the server"),
            Self::QueueTimeout => (503, "no server had room in time"),
            Self::ServerDown => (503, "the server of this session is down"),
            Self::Unreachable => (503, "the server cannot be reached"),
            Self::Shortage => (503, "the balancer is short of resources"),
            Self::ServerSilent => (504, "the server did not answer in time"),
            Self::ServerClosed | Self::ServerCut => (502, "the server closed the connection"),
            Self::Killed => (502, "the connection to the server was ended"),
            Self::ServerMalformed(_) => (502, "the server's answer is malformed"),
        };
        Some(Reply { status, text })
    }

    /// The client's side of the connection is in no state for another request.
    pub(super) fn ends_connection(self) -> bool {
        matches!(self, Self::Refused(_) | Self::SlowHead | Self::CutHead | Self::SlowBody | Self::ClientGone)
    }

    /// The server was asked and has not done its part.
    pub(super) fn is_the_servers(self) -> bool {
        matches!(
            self,
            Self::ServerSilent
                | Self::ServerClosed
                | Self::ServerCut
                | Self::Killed
                | Self::ServerMalformed(_)
        )
    }

    /// It did not come to a connection with a server.
    pub(super) fn is_before_the_server(self) -> bool {
        matches!(
            self,
            Self::NoServer
                | Self::QueueFull
                | Self::QueueTimeout
                | Self::ServerDown
                | Self::Unreachable
                | Self::Shortage
        )
    }

    /// In HAProxy's letters: whose doing it was, and where the request was then.
    pub(super) fn ending(self, phase: Phase) -> [u8; 2] {
        let cause = match self {
            Self::NoServer | Self::ServerDown => return *b"SC",
            Self::QueueFull => return *b"SQ",
            Self::QueueTimeout => return *b"sQ",
            Self::Unreachable => return *b"SC",
            Self::Shortage => return *b"RC",
            // A head can be complete and wrong.
            Self::Refused(_) | Self::Unidentified(_) if phase == Phase::Head => return *b"PR",
            Self::Refused(_) | Self::Unidentified(_) | Self::ServerMalformed(_) => b'P',
            Self::SlowHead | Self::SlowBody | Self::TunnelSilent => b'c',
            Self::CutHead | Self::ClientGone => b'C',
            Self::ServerSilent => b's',
            Self::ServerClosed | Self::ServerCut => b'S',
            Self::Killed => b'K',
        };
        [cause, phase.letter()]
    }

    /// One word for the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Refused(_) => "bad-request",
            Self::Unidentified(_) => "bad-proxy-header",
            Self::SlowHead => "slow-head",
            Self::CutHead => "cut-head",
            Self::SlowBody => "slow-body",
            Self::ClientGone => "client-gone",
            Self::NoServer => "no-server",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::ServerDown => "server-down",
            Self::Unreachable => "unreachable",
            Self::Shortage => "shortage",
            Self::ServerSilent => "server-silent",
            Self::ServerClosed => "server-closed",
            Self::ServerCut => "server-cut",
            Self::Killed => "killed",
            Self::ServerMalformed(_) => "bad-response",
            Self::TunnelSilent => "tunnel-silent",
        }
    }
}
