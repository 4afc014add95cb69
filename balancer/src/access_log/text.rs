//! The line that people read.
//!
//! ```text
//! 2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI persist=cookie:miss,balance>s1
//! ```
//!
//! Time, client, method, target, status, bytes of the body, duration, server, the two letters of persistence, its
//! trace, and `fault=…` when the request did not end well.
//!
//! A fast connection has one line, whatever it has carried, with the bytes that came from the client as `in=…`:
//!
//! ```text
//! 2026-11-22T10:11:12.345Z 10.10.1.2:40000 XDP - - 123456 81.0ms s1 -- persist=source>s1 in=412
//! ```

use std::fmt::{Display, Write as _};

use super::pieces::{Text, address, number, show};
use super::record::{CUT, Path, Record, SHOWN};
use super::time;

/// What stands for the request when there was no well-formed one. No target starts like this.
pub(super) const NO_REQUEST: &[u8] = b"- <bad-request>";

/// What stands for the request of a connection in `--mode tcp`.
pub(super) const CONNECTION: &[u8] = b"TCP -";

/// What stands for the request of a fast connection.
pub(super) const FAST: &[u8] = b"XDP -";

/// Appends the line.
pub(super) fn write<T: Display>(record: &Record<'_, T>, line: &mut Vec<u8>) {
    time::write(line, record.unix_millis);
    line.push(b' ');
    write_client(line, record);
    line.push(b' ');
    line.extend_from_slice(record.request);
    line.push(b' ');
    match record.status {
        Some(status) => number(line, status),
        None => line.push(b'-'),
    }
    line.push(b' ');
    number(line, record.bytes);
    line.push(b' ');
    let micros = record.elapsed.as_micros() as u64;
    number(line, micros / 1000);
    line.push(b'.');
    number(line, micros % 1000 / 100);
    line.extend_from_slice(b"ms ");
    line.extend_from_slice(record.server.unwrap_or("-").as_bytes());
    line.extend_from_slice(&[b' ', record.letters.request as u8, record.letters.response as u8]);
    line.extend_from_slice(b" persist=");
    match &record.trace {
        Some(trace) => show(line, trace),
        None => line.push(b'-'),
    }
    if let Path::Fast { bytes_in } = record.path {
        line.extend_from_slice(b" in=");
        number(line, bytes_in);
    }
    if let Some(fault) = record.fault {
        line.extend_from_slice(b" fault=");
        line.extend_from_slice(fault.as_bytes());
    }
    line.push(b'\n');
}

fn write_client<T>(line: &mut Vec<u8>, record: &Record<'_, T>) {
    // Brackets keep the port apart from the last group of an address with colons.
    let brackets = record.client.ip().to_canonical().is_ipv6();
    if brackets {
        line.push(b'[');
    }
    address(line, record.client);
    line.extend_from_slice(if brackets { b"]:" } else { b":" });
    number(line, record.client.port());
}

/// Appends method and target.
pub(super) fn write_request(line: &mut Vec<u8>, method: &str, target: &str) {
    escape(line, method.as_bytes());
    line.push(b' ');
    escape(line, target.as_bytes());
}

/// Keeps what is visible ASCII; the rest, and the backslash that would make the escapes ambiguous, becomes `\x5c`.
fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    // Without a way out in the middle the compiler looks at many bytes at a time.
    if text.len() <= SHOWN && text.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
        return line.extend_from_slice(text);
    }
    let start = line.len();
    for &byte in text {
        if line.len() - start >= SHOWN {
            return line.extend_from_slice(CUT);
        }
        if is_plain(byte) {
            line.push(byte);
        } else {
            let _ = write!(Text(line), "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::example;
    use super::*;
    use crate::persist::issue::Letters;

    fn line<T: Display>(record: &Record<'_, T>) -> String {
        let mut line = Vec::new();
        write(record, &mut line);
        String::from_utf8(line).expect("text")
    }

    #[test]
    fn a_line_has_its_fields_in_order() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/path");
        assert_eq!(
            line(&example(&request)),
            "2026-11-22T10:11:12.345Z 10.10.1.2:40000 GET /path 200 123 1.2ms s1 NI \
             persist=cookie:miss,balance>s1\n"
        );
    }

    #[test]
    fn what_is_not_there_is_a_dash() {
        let mut record = example(NO_REQUEST);
        (record.client, record.server) = ("[2001:db8::1]:7".parse().expect("address"), None);
        (record.status, record.bytes, record.trace) = (None, 0, None);
        (record.letters, record.fault) = (Letters::NO_COOKIE, Some("bad-request"));
        assert_eq!(
            line(&record),
            "2026-11-22T10:11:12.345Z [2001:db8::1]:7 - <bad-request> - 0 1.2ms - -- persist=- fault=bad-request\n"
        );
    }

    #[test]
    fn nothing_in_a_target_can_forge_a_line_or_a_field() {
        let mut request = Vec::new();
        write_request(&mut request, "GET", "/a b\n2026 \u{1b}[31m\\é\x7f");
        assert_eq!(request, br"GET /a\x20b\x0a2026\x20\x1b[31m\x5c\xc3\xa9\x7f");
        let mut long = Vec::new();
        write_request(&mut long, "GET", &"x".repeat(100_000));
        assert_eq!(long.len(), "GET ".len() + SHOWN + CUT.len());
    }

    #[test]
    fn a_fast_connection_has_bytes_both_ways() {
        let mut record = example(FAST);
        (record.status, record.letters, record.trace) = (None, Letters::NO_COOKIE, Some("source>s1"));
        (record.path, record.fault) = (Path::Fast { bytes_in: 412 }, Some("reset-by-client"));
        assert_eq!(
            line(&record),
            "2026-11-22T10:11:12.345Z 10.10.1.2:40000 XDP - - 123 1.2ms s1 -- persist=source>s1 in=412 \
             fault=reset-by-client\n"
        );
    }

    proptest! {
        #[test]
        fn a_line_has_as_many_words_whatever_is_asked_for(method in any::<String>(), target in any::<String>()) {
            prop_assume!(!method.is_empty() && !target.is_empty());
            let mut request = Vec::new();
            write_request(&mut request, &method, &target);
            let line = line(&example(&request));
            prop_assert_eq!(line.split_ascii_whitespace().count(), 10);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        }
    }
}
