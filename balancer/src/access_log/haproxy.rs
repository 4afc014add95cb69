//! The line that HAProxy would write with `option httplog`, as syslog would put it into a file: what people have to read
//! such lines, `halog` among it, reads these.
//!
//! ```text
//! Nov 22 10:11:12 lb1 balancer[815]: 10.10.1.2:40000 [22/Nov/2026:10:11:12.344] web web/s1 0/0/1/0/1 200 161 - - --NI 1/1/0/0/0 0/0 "GET /path HTTP/1.1"
//! ```
//!
//! Who writes it; client; when the request began, in UTC; the service twice, as frontend and as backend, and the server;
//! milliseconds for the head, in queues, for the connection, for the head of the answer, and in all, -1 where it did not
//! come to that; status; bytes to the client with heads; two cookies that nobody captures; how it ended, in two letters,
//! and the two of persistence; connections of clients twice, requests at the service and at the server, retries, with a +
//! if it was moved; its place in the queue of the server and of the service; the request.
//!
//! A connection, in `--mode tcp` or on the fast path, has the line of `option tcplog`: queue, connection and all; bytes;
//! two letters; and no request. The decision and the word for what went wrong have no place in this layout: the other
//! two formats tell them.

use super::pieces::{address, number};
use super::record::{Load, Record, SHOWN};
use super::time;
use crate::http::Version;

/// What stands for the request when there was no well-formed one, as in HAProxy.
pub(super) const NO_REQUEST: &[u8] = b"\"<BADREQ>\"";

/// What stands for the request of a connection: nothing.
pub(super) const CONNECTION: &[u8] = b"";

/// What stands for the request of a fast connection: nothing, too.
pub(super) const FAST: &[u8] = b"";

/// Appends the line. `sender`: the host, and what of the process syslog names.
pub(super) fn write<T>(record: &Record<'_, T>, service: &str, sender: &str, line: &mut Vec<u8>) {
    time::write_syslog(line, record.unix_millis);
    line.push(b' ');
    line.extend_from_slice(sender.as_bytes());
    line.extend_from_slice(b": ");
    address(line, record.client);
    line.push(b':');
    number(line, record.client.port());
    line.extend_from_slice(b" [");
    time::write_clf(line, record.unix_millis.saturating_sub(record.elapsed.as_millis() as u64));
    line.extend_from_slice(b"] ");
    line.extend_from_slice(service.as_bytes());
    line.push(b' ');
    line.extend_from_slice(service.as_bytes());
    line.push(b'/');
    line.extend_from_slice(record.server.unwrap_or("<NOSRV>").as_bytes());
    line.push(b' ');
    let is_request = !record.request.is_empty();
    write_times(line, record, is_request);
    if is_request {
        line.push(b' ');
        match record.status {
            Some(status) => number(line, status),
            None => line.extend_from_slice(b"-1"),
        }
    }
    line.push(b' ');
    number(line, record.sent);
    line.extend_from_slice(if is_request { b" - - " } else { b" " });
    line.extend_from_slice(&record.ending);
    if is_request {
        line.extend_from_slice(&[record.letters.request as u8, record.letters.response as u8]);
    }
    line.push(b' ');
    write_load(line, &record.load);
    if is_request {
        line.push(b' ');
        line.extend_from_slice(record.request);
    }
    line.push(b'\n');
}

fn write_times<T>(line: &mut Vec<u8>, record: &Record<'_, T>, is_request: bool) {
    let times = &record.times;
    let stations = [times.head, times.queue, times.connect, times.response];
    for time in if is_request { &stations[..] } else { &stations[1..3] } {
        match time {
            Some(time) => number(line, time.as_millis() as u64),
            None => line.extend_from_slice(b"-1"),
        }
        line.push(b'/');
    }
    number(line, record.elapsed.as_millis() as u64);
}

fn write_load(line: &mut Vec<u8>, load: &Load) {
    for count in [load.clients, load.clients, load.requests, load.of_server.into()] {
        number(line, count);
        line.push(b'/');
    }
    if load.was_moved {
        line.push(b'+');
    }
    number(line, load.retries);
    line.push(b' ');
    number(line, load.waited_behind.0);
    line.push(b'/');
    number(line, load.waited_behind.1);
}

/// Appends the request line.
pub(super) fn write_request(line: &mut Vec<u8>, method: &str, target: &str, version: Version) {
    line.push(b'"');
    escape(line, method.as_bytes());
    line.push(b' ');
    escape(line, target.as_bytes());
    line.extend_from_slice(match version {
        Version::Http10 => b" HTTP/1.0\"",
        Version::Http11 => b" HTTP/1.1\"",
    });
}

/// As HAProxy does: what is not visible ASCII, and what would end the field or look like an escape, becomes `#22`. What
/// is longer than is shown is cut off without a sign.
fn escape(line: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'#');
    // Without a way out in the middle the compiler looks at many bytes at a time.
    if text.len() <= SHOWN && text.iter().fold(true, |plain, &byte| plain & is_plain(byte)) {
        return line.extend_from_slice(text);
    }
    let start = line.len();
    for &byte in text {
        if line.len() - start >= SHOWN {
            return;
        }
        if is_plain(byte) {
            line.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            line.extend_from_slice(&[b'#', DIGITS[high], DIGITS[low]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::record::{Times, example};
    use super::*;
    use crate::persist::issue::Letters;

    fn line<T>(record: &Record<'_, T>) -> String {
        let mut line = Vec::new();
        write(record, "web", "lb1 balancer[815]", &mut line);
        String::from_utf8(line).expect("text")
    }

    fn asked(method: &str, target: &str) -> Vec<u8> {
        let mut request = Vec::new();
        write_request(&mut request, method, target, Version::Http11);
        request
    }

    #[test]
    fn a_line_is_haproxys() {
        let request = asked("GET", "/path");
        let mut record = example(&request);
        record.load = Load {
            clients: 5,
            requests: 4,
            of_server: 3,
            retries: 2,
            was_moved: true,
            waited_behind: (1, 0),
        };
        assert_eq!(
            line(&record),
            "Nov 22 10:11:12 lb1 balancer[815]: 10.10.1.2:40000 [22/Nov/2026:10:11:12.344] web web/s1 0/2/3/4/1 200 \
             161 - - --NI 5/5/4/3/+2 1/0 \"GET /path HTTP/1.1\"\n"
        );
    }

    #[test]
    fn what_was_no_request_has_haproxys_words() {
        let mut record = example(NO_REQUEST);
        (record.client, record.server) = ("[2001:db8::1]:7".parse().expect("address"), None);
        (record.status, record.sent, record.times) = (None, 0, Times::default());
        (record.letters, record.ending) = (Letters::NO_COOKIE, *b"PR");
        assert_eq!(
            line(&record),
            "Nov 22 10:11:12 lb1 balancer[815]: 2001:db8::1:7 [22/Nov/2026:10:11:12.344] web web/<NOSRV> \
             -1/-1/-1/-1/1 -1 0 - - PR-- 0/0/0/0/0 0/0 \"<BADREQ>\"\n"
        );
    }

    #[test]
    fn a_connection_has_the_line_of_tcplog() {
        let mut record = example(CONNECTION);
        (record.elapsed, record.ending) = (Duration::from_secs(2), *b"CD");
        assert_eq!(
            line(&record),
            "Nov 22 10:11:12 lb1 balancer[815]: 10.10.1.2:40000 [22/Nov/2026:10:11:10.345] web web/s1 2/3/2000 161 CD \
             0/0/0/0/0 0/0\n"
        );
    }

    #[test]
    fn nothing_in_a_target_can_forge_a_line_or_a_field() {
        assert_eq!(
            String::from_utf8_lossy(&asked("GET", "/a\" 200 \n#\u{1b}é{|}%20")),
            "\"GET /a#22 200 #0A#23#1B#C3#A9{|}%20 HTTP/1.1\""
        );
        let long = asked("GET", &"x".repeat(100_000));
        assert_eq!(long.len(), "\"GET  HTTP/1.1\"".len() + SHOWN);
        assert!(long.ends_with(b"x HTTP/1.1\""));
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_with_two_quotes(method in any::<String>(), target in any::<String>()) {
            let line = line(&example(&asked(&method, &target)));
            prop_assert_eq!(line.bytes().filter(|byte| *byte == b'"').count(), 2);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            prop_assert!(line.is_ascii());
        }
    }
}
