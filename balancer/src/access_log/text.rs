//! The line that people read.
//!
//! ```text
//! 2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI persist=cookie:miss,balance>s1
//! ```
//!
//! Time, client, method, target, status, bytes of the body, duration, server, the two letters of persistence, its
//! trace, and `fault=…` when the request did not end well.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;

use super::record::Record;
use super::time;

/// Bytes of a target that are shown, escapes included: enough to recognise a request by.
const TARGET_LIMIT: usize = 1024;

/// Appends the line.
pub(super) fn write<T: Display>(record: &Record<'_, T>, line: &mut Vec<u8>) {
    time::write(line, record.unix_millis);
    let client = SocketAddr::new(record.client.ip().to_canonical(), record.client.port());
    let micros = record.elapsed.as_micros();
    let mut text = Text(line);
    // Writing to memory does not fail.
    let _ = write!(text, " {client} ");
    text.0.extend_from_slice(record.request);
    let _ = match record.status {
        Some(status) => write!(text, " {status}"),
        None => write!(text, " -"),
    };
    let _ = write!(text, " {} {}.{}ms", record.bytes, micros / 1000, micros % 1000 / 100);
    let _ = write!(
        text,
        " {} {}{} persist=",
        record.server.unwrap_or("-"),
        record.letters.request,
        record.letters.response
    );
    let _ = match &record.trace {
        Some(trace) => write!(text, "{trace}"),
        None => write!(text, "-"),
    };
    if let Some(fault) = record.fault {
        let _ = write!(text, " fault={fault}");
    }
    line.push(b'\n');
}

/// Appends method and target so that nothing a client sends can end the line or look like another field.
pub(super) fn write_request(line: &mut Vec<u8>, method: &str, target: &str) {
    escape(line, method.as_bytes());
    line.push(b' ');
    escape(line, target.as_bytes());
}

fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let start = line.len();
    for &byte in text {
        if line.len() - start >= TARGET_LIMIT {
            line.extend_from_slice(b"...");
            return;
        }
        if byte.is_ascii_graphic() && byte != b'\\' {
            line.push(byte);
        } else {
            let _ = write!(Text(line), "\\x{byte:02x}");
        }
    }
}

pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::persist::learn::Letters;

    fn line(request: &[u8]) -> String {
        let mut line = Vec::new();
        let record = Record {
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
        };
        record.write(&mut line);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_line_has_its_fields_in_order() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/path");
        assert_eq!(
            line(&request),
            "2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI \
             persist=cookie:miss,balance>s1\n"
        );
    }

    #[test]
    fn nothing_in_a_target_can_forge_a_line_or_a_field() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/a b\n2026 \u{1b}[31m\\é\x7f");
        assert_eq!(request, br"GET /a\x20b\x0a2026\x20\x1b[31m\x5c\xc3\xa9\x7f");
        let mut long = Vec::new();
        write_request(&mut long, "GET", &"x".repeat(100_000));
        assert_eq!(long.len(), "GET ".len() + TARGET_LIMIT + "...".len());
    }
}
