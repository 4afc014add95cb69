//! Who the client is, in headers: what `--forwarded` adds for the server.
//!
//! The last element of `X-Forwarded-For` and of `Forwarded` is ours, so it can be trusted; elements before it are what
//! the client sent, and are kept for servers that know which proxies are in front of us. Everything is written as
//! *one* field line, since a server that looks only at the first of several would believe the client. What describes
//! the client's connection to us and has no order (`X-Forwarded-Proto`, `-Host`, `-Port`) is ours alone.

use std::io::Write;
use std::net::IpAddr;

use httparse::Header;

use super::fields::is_tchar;

/// Which headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
}

/// The client's connection to us.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// How it is told.
    pub style: Style,
    /// The client.
    pub client: IpAddr,
    /// The port that it has connected to.
    pub port: u16,
}

const FOR: &str = "X-Forwarded-For";
const PROTO: &str = "X-Forwarded-Proto";
const HOST: &str = "X-Forwarded-Host";
const PORT: &str = "X-Forwarded-Port";
const FORWARDED: &str = "Forwarded";

impl Hop {
    /// A field with this name is not passed on as it is: [`Self::write`] says what becomes of it. That of the other style
    /// goes, too: a server that prefers it would believe the client.
    pub(super) fn takes_over(&self, name: &str) -> bool {
        match name.len() {
            9 => is(name, FORWARDED),
            15 => is(name, FOR),
            16 => is(name, HOST) || is(name, PORT),
            17 => is(name, PROTO),
            _ => false,
        }
    }

    /// Appends the fields. `host` is the one that the request is for.
    pub(super) fn write(&self, out: &mut Vec<u8>, headers: &[Header<'_>], host: &[u8]) {
        match self.style {
            Style::XForwarded => self.write_x(out, headers, host),
            Style::Rfc7239 => self.write_standard(out, headers, host),
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_x(&self, out: &mut Vec<u8>, headers: &[Header<'_>], host: &[u8]) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        for value in values(headers, FOR) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        // Writing to memory does not fail.
        let _ = write!(out, "{}\r\nX-Forwarded-Proto: http\r\n", self.client.to_canonical());
        if !host.is_empty() {
            out.extend_from_slice(b"X-Forwarded-Host: ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
        let _ = write!(out, "X-Forwarded-Port: {}", self.port);
    }

    fn write_standard(&self, out: &mut Vec<u8>, headers: &[Header<'_>], host: &[u8]) {
        out.extend_from_slice(b"Forwarded: ");
        // A quote that the client leaves open would swallow our element.
        if values(headers, FORWARDED).all(is_balanced) {
            for value in values(headers, FORWARDED) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        }
        let _ = match self.client.to_canonical() {
            IpAddr::V4(v4) => write!(out, "for={v4}"),
            // A colon is no character of a token (RFC 7239 §6).
            IpAddr::V6(v6) => write!(out, "for=\"[{v6}]\""),
        };
        if !host.is_empty() {
            // What a Host can hold needs no escapes inside quotes.
            let quote: &[u8] = if host.iter().all(|&byte| is_tchar(byte)) { b"" } else { b"\"" };
            for part in [b";host=", quote, host, quote] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b";proto=http");
    }
}

/// The values of the client's own fields, the misspelt ones left out.
fn values<'a>(headers: &'a [Header<'a>], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| without_empty_end(header.value)).filter(|value| !value.is_empty())
}

/// An empty element at the end would become one in the middle.
fn without_empty_end(value: &[u8]) -> &[u8] {
    let is_filler = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
    let end = value.iter().rposition(|byte| !is_filler(byte)).map_or(0, |last| last + 1);
    value[..end].trim_ascii()
}

/// The same name, also where an underscore stands for a dash: gateways of the CGI kind cannot tell them apart.
fn is(name: &str, known: &str) -> bool {
    let same = |(a, b): (u8, u8)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-');
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(same)
}

/// Every quoted string ends.
fn is_balanced(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: Style, client: &str, host: &str, fields: &[(&str, &str)]) -> String {
        let headers: Vec<_> =
            fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let hop = Hop { style, client: client.parse().expect("address"), port: 8080 };
        let mut out = Vec::new();
        hop.write(&mut out, &headers, host.as_bytes());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn our_element_is_the_last_of_one_line() {
        let x = |fields| written(Style::XForwarded, "192.0.2.7", "a.example:81", fields);
        let rest = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example:81\r\nX-Forwarded-Port: 8080\r\n";
        assert_eq!(x(&[]), format!("X-Forwarded-For: 192.0.2.7\r\n{rest}"));
        let sent =
            [("x-forwarded-for", "10.0.0.1, 10.0.0.2"), ("X-Forwarded-For", " "), ("X-FORWARDED-FOR", "z")];
        assert_eq!(x(&sent), format!("X-Forwarded-For: 10.0.0.1, 10.0.0.2, z, 192.0.2.7\r\n{rest}"));
        let forged = [("X-Forwarded-Proto", "https"), ("X_Forwarded_For", "1.1.1.1")];
        assert_eq!(x(&forged), format!("X-Forwarded-For: 192.0.2.7\r\n{rest}"));
    }

    #[test]
    fn the_standard_one_quotes_what_is_no_token() {
        let of = |client, host, fields: &[(&str, &str)]| written(Style::Rfc7239, client, host, fields);
        assert_eq!(of("192.0.2.7", "a.b", &[]), "Forwarded: for=192.0.2.7;host=a.b;proto=http\r\n");
        assert_eq!(
            of("2001:db8::7", "a:81", &[]),
            "Forwarded: for=\"[2001:db8::7]\";host=\"a:81\";proto=http\r\n"
        );
        assert_eq!(of("::ffff:192.0.2.7", "", &[]), "Forwarded: for=192.0.2.7;proto=http\r\n");
        let sent = [("forwarded", r#"for="_a\"b""#), ("Forwarded", "for=_c")];
        assert_eq!(
            of("192.0.2.7", "", &sent),
            "Forwarded: for=\"_a\\\"b\", for=_c, for=192.0.2.7;proto=http\r\n"
        );
    }

    #[test]
    fn a_quote_left_open_cannot_swallow_our_element() {
        for open in ["for=\"", "for=\"x\\\"", "for=a, for=\"b"] {
            let line =
                written(Style::Rfc7239, "192.0.2.7", "", &[("Forwarded", open), ("Forwarded", "for=\"")]);
            assert_eq!(line, "Forwarded: for=192.0.2.7;proto=http\r\n", "{open}");
        }
    }

    #[test]
    fn names_are_taken_over_however_they_are_spelt() {
        let hop = |style| Hop { style, client: IpAddr::from([192, 0, 2, 7]), port: 80 };
        let (x, standard) = (hop(Style::XForwarded), hop(Style::Rfc7239));
        for name in [FOR, PROTO, HOST, PORT, "x-forwarded-host", "X_Forwarded_Proto", "x_forwarded-for"] {
            assert!(x.takes_over(name) && standard.takes_over(name), "{name}");
        }
        assert!(
            standard.takes_over("FORWARDED") && x.takes_over("Forwarded"),
            "a server may prefer the other style"
        );
        assert!(!x.takes_over("X-Forwarded-Server") && !x.takes_over("Via"));
    }
}
