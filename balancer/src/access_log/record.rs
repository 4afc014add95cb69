//! What is known of a request when it is over.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::text;
use crate::persist::learn::Letters;

/// What stands for the request line when there was no well-formed one. No target starts like this.
pub const NO_REQUEST: &[u8] = b"- <bad-request>";

/// A request and what became of it.
pub struct Record<'a, T> {
    /// When it ended, milliseconds since 1970.
    pub unix_millis: u64,
    /// The peer of the connection.
    pub client: SocketAddr,
    /// From [`write_request`], or [`NO_REQUEST`].
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
}

impl<T: Display> Record<'_, T> {
    /// Appends the line.
    pub fn write(&self, line: &mut Vec<u8>) {
        text::write(self, line);
    }
}

/// Appends method and target so that nothing a client sends can end the line or look like another field.
pub fn write_request(line: &mut Vec<u8>, method: &str, target: &str) {
    text::write_request(line, method, target);
}
