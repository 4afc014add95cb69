//! What is known of a request when it is over.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::{haproxy, json, text};
use crate::config::LogFormat;
use crate::http::Version;
use crate::persist::issue::Letters;

/// Bytes of a method or a target that are shown, escapes included: enough to recognise a request by.
pub(super) const SHOWN: usize = 1024;

/// What follows what was cut.
pub(super) const CUT: &[u8] = b"...";

/// A request and what became of it.
pub struct Record<'a, T> {
    /// When it ended, milliseconds since 1970.
    pub unix_millis: u64,
    /// The client.
    pub client: SocketAddr,
    /// From [`write_request`], [`write_no_request`], [`write_connection`] or [`write_fast`], in the format that the line is written in.
    pub request: &'a [u8],
    /// Of the response; `None`: there was nobody to send one to.
    pub status: Option<u16>,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// From the first byte of the request to the last of the response.
    pub elapsed: Duration,
    /// Who answered, or was to.
    pub server: Option<&'a str>,
    /// Of persistence.
    pub letters: Letters,
    /// Of the decision; `None`: it did not come to one.
    pub trace: Option<T>,
    /// What went wrong.
    pub fault: Option<&'static str>,
    /// Which path it took.
    pub path: Path,
    /// Bytes that the client was sent, heads included.
    pub sent: u64,
    /// When it came to its stations.
    pub times: Times,
    /// How it ended, in HAProxy's two letters: who ended it, and where it was then.
    pub ending: [u8; 2],
    /// How busy everything was; nothing where the format does not show it.
    pub load: Load,
}

/// How long a request took from each of its stations to the next; `None`: it has not come to that one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// For the rest of its head, after its first byte.
    pub head: Option<Duration>,
    /// Until a server had room.
    pub queue: Option<Duration>,
    /// Until there was a connection to a server, with all attempts.
    pub connect: Option<Duration>,
    /// Until the head of the answer was complete.
    pub response: Option<Duration>,
}

/// How busy everything was when a request was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Connections of clients, its own among them.
    pub clients: u64,
    /// Other requests that were being served.
    pub requests: u64,
    /// Of these by its server.
    pub of_server: u32,
    /// Attempts to connect for it, after the first.
    pub retries: u32,
    /// It was sent to another server than was chosen first.
    pub was_moved: bool,
    /// Where it stood among those who waited for its server, and for any; 0: it did not wait.
    pub waited_behind: (u32, u32),
}

/// What is the same in all lines of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// What a line looks like.
    pub format: LogFormat,
    /// The service.
    service: String,
    /// Host and process, as syslog names them.
    sender: String,
}

impl Layout {
    /// For the log of that service, written by this process.
    pub fn new(format: LogFormat, service: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.split_whitespace().next().unwrap_or("localhost");
        let sender = format!("{host} balancer[{}]", std::process::id());
        Self { format, service: service.to_owned(), sender }
    }
}

/// The two paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// Through the proxy.
    Slow,
    /// A connection that XDP has carried.
    Fast {
        /// Bytes that came from the client.
        bytes_in: u64,
    },
}

impl<T: Display> Record<'_, T> {
    /// Appends the line.
    pub fn write(&self, layout: &Layout, line: &mut Vec<u8>) {
        match layout.format {
            LogFormat::Text => text::write(self, line),
            LogFormat::Json => json::write(self, line),
            LogFormat::Haproxy => haproxy::write(self, &layout.service, &layout.sender, line),
        }
    }
}

/// Appends method, target and version so that nothing a client sends can end the line or look like another field. They are
/// written while the request is at hand; the rest of the line follows when its bytes are gone.
pub fn write_request(format: LogFormat, line: &mut Vec<u8>, method: &str, target: &str, version: Version) {
    match format {
        LogFormat::Text => text::write_request(line, method, target),
        LogFormat::Json => json::write_request(line, method, target),
        LogFormat::Haproxy => haproxy::write_request(line, method, target, version),
    }
}

/// Appends what stands for method and target when there was no well-formed request.
pub fn write_no_request(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::NO_REQUEST,
        LogFormat::Json => json::NO_REQUEST,
        LogFormat::Haproxy => haproxy::NO_REQUEST,
    });
}

/// Appends what stands for method and target of a connection that is not taken apart, in `--mode tcp`.
pub fn write_connection(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::CONNECTION,
        LogFormat::Json => json::CONNECTION,
        LogFormat::Haproxy => haproxy::CONNECTION,
    });
}

/// Appends what stands for method and target of a fast connection: nobody has seen its requests.
pub fn write_fast(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::FAST,
        LogFormat::Json => json::FAST,
        LogFormat::Haproxy => haproxy::FAST,
    });
}

/// For the tests of the formats.
#[cfg(test)]
pub(super) fn example(request: &[u8]) -> Record<'_, &'static str> {
    Record {
        unix_millis: 1_795_342_272_345,
        client: "[::ffff:10.10.1.2]:40000".parse().expect("address"),
        request,
        status: Some(200),
        bytes: 123,
        elapsed: Duration::from_micros(1_234),
        server: Some("s1"),
        letters: Letters { request: 'N', response: 'I' },
        trace: Some("cookie:miss,balance>s1"),
        fault: None,
        path: Path::Slow,
        sent: 161,
        times: Times {
            head: Some(Duration::ZERO),
            queue: Some(Duration::from_millis(2)),
            connect: Some(Duration::from_micros(3_999)),
            response: Some(Duration::from_millis(4)),
        },
        ending: *b"--",
        load: Load::default(),
    }
}
