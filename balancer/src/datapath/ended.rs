//! The ends of fast connections, and their lines in the access log.

use std::net::SocketAddr;
use std::time::Duration;

use balancer_ebpf::abi::{Event, Flow, FlowKey, Traffic};
use balancer_ebpf::state::{End, State};

use super::flows::address;
use crate::access_log::{self, Load, Path, Record, Sender, Times};
use crate::clock;
use crate::persist::issue::Letters;

/// A fast connection that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The client.
    pub client: SocketAddr,
    /// The server's id.
    pub server: u16,
    /// Why.
    pub end: End,
    /// From its SYN to its end; for one that fell silent, to its last packet.
    pub elapsed: Duration,
    /// How long ago it was known to be over.
    pub ago: Duration,
    /// What came from the client.
    pub from_client: Traffic,
    /// What went to the client.
    pub to_client: Traffic,
}

impl Ended {
    /// As the program has told it; `now` is the clock of flows.
    pub fn told(event: &Event, now: u64) -> Self {
        Self {
            client: address(event.client.source, event.client.source_port),
            server: event.server,
            end: State(event.state).end(),
            elapsed: Duration::from_nanos(event.ended.saturating_sub(event.created)),
            ago: Duration::from_nanos(now.saturating_sub(event.ended)),
            from_client: event.from_client,
            to_client: event.to_client,
        }
    }

    /// As it was found when its entries were removed.
    pub fn found(key: &FlowKey, client: &Flow, server: Option<&Flow>) -> Self {
        let last_seen = server.map_or(client.last_seen, |server| server.last_seen.max(client.last_seen));
        Self {
            client: address(key.source, key.source_port),
            server: client.server,
            end: State(client.state).end(),
            elapsed: Duration::from_nanos(last_seen.saturating_sub(client.created)),
            ago: Duration::ZERO,
            from_client: client.untold(),
            to_client: server.map_or(Traffic::default(), Flow::untold),
        }
    }

    /// Appends its line.
    fn write(&self, log: &Sender, name: &str, line: &mut Vec<u8>) {
        let mut request = Vec::new();
        access_log::write_fast(log.layout.format, &mut request);
        let record = Record {
            unix_millis: clock::unix_millis().saturating_sub(self.ago.as_millis() as u64),
            client: self.client,
            request: &request,
            status: None,
            bytes: self.to_client.bytes,
            elapsed: self.elapsed,
            server: Some(name),
            letters: Letters::NO_COOKIE,
            trace: Some(format_args!("source>{name}")),
            fault: fault(self.end),
            path: Path::Fast { bytes_in: self.from_client.bytes },
            sent: self.to_client.bytes,
            times: Times { queue: Some(Duration::ZERO), connect: Some(Duration::ZERO), ..Times::default() },
            ending: ending(self.end),
            load: Load::default(),
        };
        record.write(&log.layout, line);
    }
}

/// Hands the lines of those that have ended to the log's writer. `name`: a server's name by its id.
pub(super) fn log(ended: &[Ended], log: &Sender, name: impl Fn(u16) -> String) {
    let mut lines = Vec::new();
    ended.iter().for_each(|ended| ended.write(log, &name(ended.server), &mut lines));
    if !lines.is_empty() {
        log.send(&lines);
    }
}

/// The same in HAProxy's letters.
const fn ending(end: End) -> [u8; 2] {
    *match end {
        End::Closed => b"--",
        End::ResetByClient => b"CD",
        End::ResetByServer => b"SD",
        End::Refused => b"SC",
        End::NoAnswer => b"sC",
        End::NoHandshake => b"cC",
        End::TimedOut => b"cD",
        End::Killed => b"KD",
        End::Unfinished => b"PD",
    }
}

/// What went wrong, in one word; the slow path has the same words for the same things.
const fn fault(end: End) -> Option<&'static str> {
    Some(match end {
        End::Closed => return None,
        End::ResetByClient => "reset-by-client",
        End::ResetByServer => "reset-by-server",
        End::Refused => "refused",
        End::NoAnswer => "no-answer",
        End::NoHandshake => "no-handshake",
        End::TimedOut => "timed-out",
        End::Killed => "killed",
        End::Unfinished => "unfinished-checksum",
    })
}
