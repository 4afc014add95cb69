//! The line that programs read: one object, the same members in the same order in every line.
//!
//! ```text
//! {"time":"2026-11-22T10:11:12.345Z","client":"10.10.1.2","client_port":40000,"method":"GET","target":"/path",
//!  "status":200,"bytes":123,"duration_ms":1.234,"server":"s1","cookie":"NI","persist":"cookie:miss,balance>s1",
//!  "fault":null,"path":"slow","bytes_in":null}
//! ```
//!
//! What is absent is `null`: method and target of what was no request, the status when nobody was there to be told,
//! the letters without a cookie method. In `--mode tcp` the method is `TCP`. A fast connection has one line, with the path
//! `fast`, the method `XDP` and the bytes that came from the client. Lines are ASCII, so that no client can put a terminal's codes, or an order of
//! writing other than left to right, into the file; a string means what was sent, up to the length that is shown.

use std::fmt::{Display, Write as _};

use super::pieces::{Text, address, number, show};
use super::record::{CUT, Path, Record, SHOWN};
use super::time;
use crate::persist::issue::Letters;

/// What stands for the request when there was no well-formed one.
pub(super) const NO_REQUEST: &[u8] = br#""method":null,"target":null"#;

/// What stands for the request of a connection in `--mode tcp`.
pub(super) const CONNECTION: &[u8] = br#""method":"TCP","target":null"#;

/// What stands for the request of a fast connection.
pub(super) const FAST: &[u8] = br#""method":"XDP","target":null"#;

/// Appends the line.
pub(super) fn write<T: Display>(record: &Record<'_, T>, line: &mut Vec<u8>) {
    line.extend_from_slice(br#"{"time":""#);
    time::write(line, record.unix_millis);
    line.extend_from_slice(br#"","client":""#);
    address(line, record.client);
    line.extend_from_slice(br#"","client_port":"#);
    number(line, record.client.port());
    line.push(b',');
    line.extend_from_slice(record.request);
    line.extend_from_slice(br#","status":"#);
    match record.status {
        Some(status) => number(line, status),
        None => line.extend_from_slice(b"null"),
    }
    line.extend_from_slice(br#","bytes":"#);
    number(line, record.bytes);
    line.extend_from_slice(br#","duration_ms":"#);
    write_millis(line, record.elapsed.as_micros() as u64);
    line.extend_from_slice(br#","server":"#);
    string_or_null(line, record.server);
    line.extend_from_slice(br#","cookie":"#);
    write_letters(line, record.letters);
    line.extend_from_slice(br#","persist":"#);
    match &record.trace {
        Some(trace) => {
            line.push(b'"');
            write_shown(line, trace);
            line.push(b'"');
        }
        None => line.extend_from_slice(b"null"),
    }
    line.extend_from_slice(br#","fault":"#);
    string_or_null(line, record.fault);
    match record.path {
        Path::Slow => line.extend_from_slice(br#","path":"slow","bytes_in":null"#),
        Path::Fast { bytes_in } => {
            line.extend_from_slice(br#","path":"fast","bytes_in":"#);
            number(line, bytes_in);
        }
    }
    line.extend_from_slice(b"}\n");
}

/// Appends method and target as two members.
pub(super) fn write_request(line: &mut Vec<u8>, method: &str, target: &str) {
    line.extend_from_slice(br#""method":""#);
    escape(line, method, SHOWN);
    line.extend_from_slice(br#"","target":""#);
    escape(line, target, SHOWN);
    line.push(b'"');
}

/// Three places behind the point: what a clock tells of a request that a local server answers.
fn write_millis(line: &mut Vec<u8>, micros: u64) {
    number(line, micros / 1000);
    let rest = micros % 1000;
    let digit = |value: u64| b'0' + (value % 10) as u8;
    line.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

fn write_letters(line: &mut Vec<u8>, letters: Letters) {
    if letters == Letters::NO_COOKIE {
        line.extend_from_slice(b"null");
    } else {
        line.extend_from_slice(&[b'"', letters.request as u8, letters.response as u8, b'"']);
    }
}

fn string_or_null(line: &mut Vec<u8>, text: Option<&str>) {
    let Some(text) = text else { return line.extend_from_slice(b"null") };
    line.push(b'"');
    escape(line, text, usize::MAX);
    line.push(b'"');
}

/// The inside of a string (RFC 8259 §7), in ASCII; cut once it has come to `limit` bytes, never within an escape.
fn escape(line: &mut Vec<u8>, text: &str, limit: usize) {
    if text.len() <= limit && is_all_plain(text.as_bytes()) {
        return line.extend_from_slice(text.as_bytes());
    }
    let start = line.len();
    for character in text.chars() {
        if line.len() - start >= limit {
            return line.extend_from_slice(CUT);
        }
        match character {
            '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
            ' '..='~' => line.push(character as u8),
            // Beyond 16 bits it takes two.
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(Text(line), "\\u{unit:04x}");
                }
            }
        }
    }
}

/// Nothing has to be escaped. Without a way out in the middle the compiler looks at many bytes at a time.
fn is_all_plain(text: &[u8]) -> bool {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    text.iter().fold(true, |plain, &byte| plain & is_plain(byte))
}

/// The inside of a string, for what is shown in pieces: looked at as a whole, and written anew should it need escapes.
fn write_shown(line: &mut Vec<u8>, what: impl Display) {
    let start = line.len();
    show(line, what);
    if !is_all_plain(&line[start..]) {
        let shown = line.split_off(start);
        escape(line, &String::from_utf8_lossy(&shown), usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::record::example;
    use super::*;

    fn line<T: Display>(record: &Record<'_, T>) -> String {
        let mut line = Vec::new();
        write(record, &mut line);
        String::from_utf8(line).expect("text")
    }

    fn asked(method: &str, target: &str) -> String {
        let mut request = Vec::new();
        write_request(&mut request, method, target);
        line(&example(&request))
    }

    fn parsed(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_line_has_its_members_in_order() {
        assert_eq!(
            asked("GET", "/path"),
            concat!(
                r#"{"time":"2026-11-22T10:11:12.345Z","client":"10.10.1.2","client_port":40000,"#,
                r#""method":"GET","target":"/path","status":200,"bytes":123,"duration_ms":1.234,"#,
                r#""server":"s1","cookie":"NI","persist":"cookie:miss,balance>s1","fault":null,"#,
                r#""path":"slow","bytes_in":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_not_there_is_null() {
        let mut record = example(NO_REQUEST);
        (record.client, record.server) = ("[2001:db8::1]:7".parse().expect("address"), None);
        (record.status, record.bytes, record.trace) = (None, 0, None);
        (record.letters, record.fault) = (Letters::NO_COOKIE, Some("bad-request"));
        let expected = json!({
            "time": "2026-11-22T10:11:12.345Z", "client": "2001:db8::1", "client_port": 7, "method": null,
            "target": null, "status": null, "bytes": 0, "duration_ms": 1.234, "server": null, "cookie": null,
            "persist": null, "fault": "bad-request", "path": "slow", "bytes_in": null,
        });
        assert_eq!(parsed(&line(&record)), expected);
    }

    #[test]
    fn a_connection_has_a_method_of_its_own() {
        let line = parsed(&line(&example(CONNECTION)));
        assert_eq!((&line["method"], &line["target"]), (&json!("TCP"), &Value::Null));
    }

    #[test]
    fn a_fast_connection_says_so() {
        let mut record = example(FAST);
        record.path = Path::Fast { bytes_in: 412 };
        let line = parsed(&line(&record));
        assert_eq!((&line["method"], &line["target"]), (&json!("XDP"), &Value::Null));
        assert_eq!((&line["path"], &line["bytes_in"]), (&json!("fast"), &json!(412)));
    }

    #[test]
    fn nothing_in_a_target_can_forge_a_line_or_a_member() {
        let target = "/\",\"status\":500,\"x\":\"\\\r\n\0\u{1b}[31m\u{7f}é\u{202e}𝄞";
        let line = asked("GET", target);
        assert!(
            line.contains(r#""target":"/\",\"status\":500,\"x\":\"\\\u000d\u000a\u0000\u001b[31m\u007f\u00e9\u202e\ud834\udd1e","#),
            "{line}"
        );
        assert_eq!((&parsed(&line)["target"], &parsed(&line)["status"]), (&json!(target), &json!(200)));
    }

    #[test]
    fn one_byte_that_needs_an_escape_is_enough() {
        for target in ["/\"", "/\\", "/\n", "/\u{7f}", "/é", "/0123456789abcdef0123456789abcdef0123456789\""]
        {
            assert_eq!(parsed(&asked("GET", target))["target"], target);
        }
    }

    #[test]
    fn a_long_target_is_cut_between_two_characters() {
        let told = |target: &str| parsed(&asked("GET", target))["target"].as_str().map(str::len);
        assert_eq!(told(&"x".repeat(SHOWN)), Some(SHOWN));
        assert_eq!(told(&"x".repeat(100_000)), Some(SHOWN + CUT.len()));
        assert_eq!(told(&format!("x{}", "\"".repeat(100_000))), Some(1 + SHOWN / 2 + CUT.len()));
    }

    #[test]
    fn a_trace_cannot_end_its_string() {
        let mut record = example(NO_REQUEST);
        record.trace = Some("a\"}\n{\\");
        assert_eq!(parsed(&line(&record))["persist"], "a\"}\n{\\");
    }

    proptest! {
        #[test]
        fn every_line_is_one_object_that_says_what_was_sent(
            method in any::<String>(), target in any::<String>(), micros in any::<u32>(),
        ) {
            let mut request = Vec::new();
            write_request(&mut request, &method, &target);
            let mut record = example(&request);
            record.elapsed = std::time::Duration::from_micros(micros.into());
            let line = line(&record);
            prop_assert!(line.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let mut expected = parsed(&asked("", ""));
            expected["duration_ms"] = json!(f64::from(micros) / 1000.0);
            (expected["method"], expected["target"]) = (json!(method), json!(target));
            prop_assert_eq!(parsed(&line), expected);
        }
    }
}
