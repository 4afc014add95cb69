//! The last messages that were not understood, for `show errors`: as much of them as it takes to see what is wrong, and
//! nothing that is secret.

use std::net::SocketAddr;

/// Bytes of a message that are kept.
const KEPT: usize = 1024;

/// What stands in the place of what is secret.
const MASK: u8 = b'*';

/// Header fields whose values say how a message is to be read and open no doors. A session may be in any other.
const HARMLESS: &[&[u8]] = &[
    b"accept",
    b"accept-encoding",
    b"allow",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-type",
    b"date",
    b"expect",
    b"host",
    b"keep-alive",
    b"server",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"user-agent",
    b"via",
];

/// Who has sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// A client: a request.
    Request = 0,
    /// A server: a response.
    Response = 1,
}

/// A message that was not understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// Whose it is.
    pub side: Side,
    /// When, milliseconds since 1970.
    pub unix_millis: u64,
    /// The client.
    pub client: SocketAddr,
    /// The server's place; `None`: it did not come to one.
    pub server: Option<usize>,
    /// What is wrong with it.
    pub fault: &'static str,
    /// The first bytes of it, values that are secret as asterisks.
    pub bytes: Vec<u8>,
    /// How many bytes of it there were.
    pub length: usize,
}

/// The first bytes of a head: its first line without what follows the path, names of fields, and the values of those
/// that are harmless. Everything else, and what comes after the head, is asterisks.
pub fn masked(message: &[u8]) -> Vec<u8> {
    let mut kept = message[..message.len().min(KEPT)].to_vec();
    let mut rest = &mut kept[..];
    let (mut part, mut was_shown) = (Part::FirstLine, true);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        let (line, after) = std::mem::take(&mut rest).split_at_mut(end);
        rest = after;
        let shown =
            match part {
                Part::FirstLine => first_line(line),
                Part::Fields if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) => {
                    if was_shown { line.len() } else { 0 }
                }
                Part::Fields => field(line),
                Part::Body => 0,
            };
        was_shown = shown == line.len();
        line[shown..].iter_mut().filter(|byte| !byte.is_ascii_whitespace()).for_each(|byte| *byte = MASK);
        part = match part {
            Part::Fields if line.trim_ascii().is_empty() => Part::Body,
            Part::FirstLine => Part::Fields,
            same => same,
        };
    }
    kept
}

#[derive(Clone, Copy)]
enum Part {
    FirstLine,
    Fields,
    Body,
}

/// How much of a first line may be shown: sessions travel in targets, too, behind `?` and `;`.
fn first_line(line: &[u8]) -> usize {
    let word = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    if line[..word].contains(&b':') {
        return field(line);
    }
    line.iter().position(|byte| matches!(byte, b'?' | b';')).map_or(line.len(), |at| at + 1)
}

/// How much of a field may be shown. Spaces before the colon are what may be wrong with it.
fn field(line: &[u8]) -> usize {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return 0 };
    let name = line[..colon].trim_ascii();
    let is_harmless = HARMLESS.iter().any(|harmless| name.eq_ignore_ascii_case(harmless));
    if is_harmless { line.len() } else { colon + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_secret_is_kept() {
        let table: [(&str, &str); 8] = [
            ("GET /a?id=7 HTTP/1.1\r\nHost: x\r\n", "GET /a?**** ********\r\nHost: x\r\n"),
            ("GET /a;JSESSIONID=7", "GET /a;************"),
            (
                "GET / HTTP/1.1\r\nCOOKIE : a=b; c\r\nHost : y",
                "GET / HTTP/1.1\r\nCOOKIE : **** *\r\nHost : y",
            ),
            (
                "A\nX-Session: abc\n folded\n\tmore\nHost: c\n d",
                "A\nX-Session: ***\n ******\n\t****\nHost: c\n d",
            ),
            ("A\nno colon\n\npassword=1\nHost: x", "A\n** *****\n\n**********\n***** *"),
            ("Authorization: Basic abc", "Authorization: ***** ***"),
            ("HTTP/1.1 2000 OK\nSet-Cookie:b", "HTTP/1.1 2000 OK\nSet-Cookie:*"),
            ("\0\u{1}", "\0\u{1}"),
        ];
        for (message, expected) in table {
            assert_eq!(String::from_utf8_lossy(&masked(message.as_bytes())), expected, "{message:?}");
        }
        assert_eq!(masked(&[b'x'; 5000]).len(), KEPT);
    }
}
