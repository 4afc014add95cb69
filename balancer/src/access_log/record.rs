//! What is known of a request when it is over.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::{json, text};
use crate::config::LogFormat;
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
    pub fn write(&self, format: LogFormat, line: &mut Vec<u8>) {
        match format {
            LogFormat::Text => text::write(self, line),
            LogFormat::Json => json::write(self, line),
        }
    }
}

/// Appends method and target so that nothing a client sends can end the line or look like another field. They are
/// written while the request is at hand; the rest of the line follows when its bytes are gone.
pub fn write_request(format: LogFormat, line: &mut Vec<u8>, method: &str, target: &str) {
    match format {
        LogFormat::Text => text::write_request(line, method, target),
        LogFormat::Json => json::write_request(line, method, target),
    }
}

/// Appends what stands for method and target when there was no well-formed request.
pub fn write_no_request(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::NO_REQUEST,
        LogFormat::Json => json::NO_REQUEST,
    });
}

/// Appends what stands for method and target of a connection that is not taken apart, in `--mode tcp`.
pub fn write_connection(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::CONNECTION,
        LogFormat::Json => json::CONNECTION,
    });
}

/// Appends what stands for method and target of a fast connection: nobody has seen its requests.
pub fn write_fast(format: LogFormat, line: &mut Vec<u8>) {
    line.extend_from_slice(match format {
        LogFormat::Text => text::FAST,
        LogFormat::Json => json::FAST,
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
    }
}
