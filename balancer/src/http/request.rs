//! The head of a request: what it says, and the head that is sent to a server in its place.

use httparse::Header;

use super::Version;
use super::body::Framing;
use super::fault::Fault;
use super::fields::{self, Name, Slots, Survey, Upgrade};
use super::forwarded::Hop;
use super::reply;
use crate::config::Limits;
use crate::persist::cookie::{self, Change};
use crate::persist::named;
use crate::server::Servers;

/// Bytes of a request target; what browsers and servers agree on as the longest sensible one.
pub const TARGET_LIMIT: usize = 8 * 1024;

/// Bytes of a method. The longest that is registered has 17 (`UPDATEREDIRECTREF`).
const METHOD_LIMIT: usize = 64;

/// A checked request head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct Request<'b, 'h> {
    /// The method, case as sent: methods compare exactly.
    pub method: &'b str,
    /// The target as sent, for the log.
    pub target: &'b str,
    /// The client's version.
    pub version: Version,
    /// Bytes of the head, the empty line included.
    pub head_length: usize,
    /// How its body ends.
    pub framing: Framing,
    /// The client wants to send another request on this connection.
    pub keep_alive: bool,
    /// It came through another proxy: `Via`, `Forwarded` or `X-Forwarded-For`.
    pub proxied: bool,
    /// Should there be an error to tell it of, its `Accept` wants that as JSON.
    pub prefers_json: bool,
    /// It may hold its body back until it is told to go on: `Expect: 100-continue`, which 1.0 does not have.
    pub awaits_continue: bool,
    /// It asks to become a WebSocket, in the one form that is passed on: GET, HTTP/1.1, no body, no other protocol.
    pub websocket: bool,
    /// Its credentials, NTLM or Negotiate, are for the connection that it is sent on.
    pub binds_connection: bool,
    form: Form<'b>,
    has_host: bool,
    survey: Survey,
    headers: &'h [Header<'b>],
}

/// What changes on the way to the server.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// The cookie that the server does not see, or not as it is.
    pub cookie: Option<CookieEdit<'a>>,
    /// The Host for a client that sent none, which only HTTP/1.0 may.
    pub default_host: &'a str,
    /// Who the client is, for the server to know.
    pub forwarded: Option<Hop>,
}

/// What becomes of the persistence cookie on the way to the server.
#[derive(Clone, Copy, Debug)]
pub struct CookieEdit<'a> {
    /// The cookie's name.
    pub name: &'a str,
    /// Who may be named in front of the application's value, and is taken off; `None`: the cookie goes as a whole.
    pub unprefixed: Option<&'a Servers>,
}

impl CookieEdit<'_> {
    /// Writes a Cookie header's value without what the server is not to see; false if nothing is left of it.
    fn write(&self, header: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(servers) = self.unprefixed else { return cookie::write_without(header, self.name, out) };
        cookie::write_changed(header, self.name, out, |_, raw| {
            // Quotes that stand around it all are the application's, as without us.
            let value = raw.strip_prefix(b"\"").unwrap_or(raw);
            match named::split_prefix(value, servers) {
                Some((_, rest)) if value.len() < raw.len() => Change::Quoted(rest),
                Some((_, rest)) => Change::Value(rest),
                None => Change::Keep,
            }
        })
    }
}

/// The forms of a target (RFC 9112 §3.2) that are not CONNECT's.
#[derive(Clone, Copy, Debug)]
enum Form<'b> {
    Origin,
    Asterisk,
    /// `http://authority/path`: the authority replaces whatever Host says.
    Absolute {
        authority: &'b str,
        path: &'b str,
    },
}

/// Reads the head that `bytes` start with; `None`: there is more to come.
///
/// # Errors
/// The fault that the request is to be refused with.
pub fn parse<'b, 'h>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    limits: &Limits,
) -> Result<Option<Request<'b, 'h>>, Fault> {
    let mut parsed = httparse::Request::new(&mut []);
    let head_length = match parsed.parse_with_uninit_headers(bytes, slots.limited(limits.headers)) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return partial(bytes, limits).map(|()| None),
        // Which of two faults it is must not depend on where the bytes were cut.
        Err(httparse::Error::Version) if is_within_version(bytes) => {
            return partial(bytes, limits).map(|()| None);
        }
        Err(error) => return Err(check_words(bytes).err().unwrap_or_else(|| fault_of(error, bytes))),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(Fault::Syntax) };
    check_lengths(method.len(), target.len())?;
    if head_length > limits.head {
        return Err(Fault::HeadTooLarge);
    }
    fields::check_line_ends(&bytes[..head_length])?;
    let form = form(method, target)?;
    let version = Version::from_minor(parsed.version);
    let headers: &'h [Header<'b>] = parsed.headers;

    let mut survey = Survey::default();
    let (mut has_host, mut proxied, mut expects, mut prefers_json) = (false, false, false, false);
    for header in headers {
        match Name::of(header.name) {
            Name::Host if has_host || !is_authority(header.value) => return Err(Fault::Host),
            Name::Host => has_host = true,
            Name::Proxied => proxied = true,
            Name::Accept => prefers_json |= reply::prefers_json(header.value),
            Name::Expect => expects |= header.value.eq_ignore_ascii_case(b"100-continue"),
            name => survey.note(name, header.value)?,
        }
    }
    survey.check()?;
    if version == Version::Http11 && !has_host {
        return Err(Fault::Host);
    }
    if version == Version::Http10 && survey.chunked {
        return Err(Fault::TransferEncoding);
    }
    let keep_alive = !survey.close && (version == Version::Http11 || survey.keep_alive);
    let framing = match survey.content_length {
        _ if survey.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::None,
    };
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    let websocket = survey.wants_upgrade
        && survey.upgrade == Upgrade::WebSocket
        && version == Version::Http11
        && method == "GET"
        && !has_body;
    Ok(Some(Request {
        method,
        target,
        version,
        head_length,
        framing,
        keep_alive,
        proxied,
        prefers_json,
        awaits_continue: expects && version == Version::Http11,
        websocket,
        binds_connection: survey.binds_connection,
        form,
        has_host,
        survey,
        headers,
    }))
}

impl<'b> Request<'b, '_> {
    /// The answer to HEAD has no body, whatever its head says.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// May be sent a second time when nobody knows what became of the first (RFC 9110 §9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }

    /// [`Rewrite::default_host`] will be used.
    pub fn needs_host(&self) -> bool {
        !self.has_host && !matches!(self.form, Form::Absolute { .. })
    }

    /// The Cookie headers, which count as one list.
    pub fn cookie_headers(&self) -> impl Iterator<Item = &'b [u8]> {
        self.headers.iter().filter(|header| Name::of(header.name) == Name::Cookie).map(|header| header.value)
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The path, without scheme, authority and query; `*` of `OPTIONS *`.
    pub fn path(&self) -> &'b str {
        self.path_and_query().split_once('?').map_or(self.path_and_query(), |(path, _)| path)
    }

    /// The value of the first parameter of that name in the query, as sent.
    pub fn parameter(&self, name: &str) -> Option<&'b str> {
        self.parameters().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Names and values of the parameters in the query, as sent.
    pub fn parameters(&self) -> impl Iterator<Item = (&'b str, &'b str)> {
        let query = self.path_and_query().split_once('?').map_or("", |(_, query)| query);
        query.split('&').filter_map(|parameter| parameter.split_once('='))
    }

    /// Names and values of the parameters in the path, `;NAME=VALUE`, as sent.
    pub fn path_parameters(&self) -> impl Iterator<Item = (&'b str, &'b str)> {
        let parameters = self.path().split(';').skip(1);
        parameters.filter_map(|text| text.split('/').next().unwrap_or_default().split_once('='))
    }

    fn path_and_query(&self) -> &'b str {
        match self.form {
            Form::Origin | Form::Asterisk => self.target,
            Form::Absolute { path, .. } => path,
        }
    }

    /// Writes the head for the server: HTTP/1.1, the connection kept.
    pub fn write(&self, out: &mut Vec<u8>, rewrite: &Rewrite<'_>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        self.write_target(out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        match self.form {
            Form::Absolute { authority, .. } => fields::write_field(out, "Host", authority.as_bytes()),
            _ if !self.has_host => fields::write_field(out, "Host", rewrite.default_host.as_bytes()),
            _ => {}
        }
        for header in self.headers {
            self.write_header(out, header, rewrite);
        }
        if let Some(hop) = rewrite.forwarded {
            hop.write(out, self.headers, self.host(rewrite));
        }
        fields::write_framing(out, self.survey.content_length, self.survey.chunked);
        out.extend_from_slice(self.hop());
        out.extend_from_slice(b"\r\n");
    }

    /// What is said to the server about this hop: ours to say, whatever the client wrote (RFC 9110 §7.6.1).
    fn hop(&self) -> &'static [u8] {
        if self.websocket {
            fields::UPGRADE
        } else if self.survey.takes_trailers && self.version == Version::Http11 {
            // Trailers reach a 1.1 client, and some servers send none unless asked.
            b"TE: trailers\r\nConnection: TE\r\n"
        } else {
            b""
        }
    }

    /// The Host that the server gets.
    fn host<'a>(&'a self, rewrite: &Rewrite<'a>) -> &'a [u8] {
        let sent = || self.headers.iter().find(|header| Name::of(header.name) == Name::Host);
        match self.form {
            Form::Absolute { authority, .. } => authority.as_bytes(),
            _ => sent().map_or(rewrite.default_host.as_bytes(), |header| header.value),
        }
    }

    fn write_target(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Absolute { path: "", .. } if self.method == "OPTIONS" => out.push(b'*'),
            Form::Absolute { path, .. } => {
                if !path.starts_with('/') {
                    out.push(b'/');
                }
                out.extend_from_slice(path.as_bytes());
            }
            Form::Origin | Form::Asterisk => out.extend_from_slice(self.target.as_bytes()),
        }
    }

    fn write_header(&self, out: &mut Vec<u8>, header: &Header<'_>, rewrite: &Rewrite<'_>) {
        let name = Name::of(header.name);
        match name {
            _ if name.is_rewritten() => return,
            Name::Host if matches!(self.form, Form::Absolute { .. }) => return,
            // A client cannot have Host taken away on the way.
            Name::Host => {}
            _ if rewrite.forwarded.is_some_and(|hop| hop.takes_over(header.name)) => return,
            _ if self.survey.names_fields && fields::is_named_by_connection(header.name, self.headers) => {
                return;
            }
            _ => {}
        }
        match rewrite.cookie {
            Some(edit) if name == Name::Cookie => {
                let start = out.len();
                out.extend_from_slice(header.name.as_bytes());
                out.extend_from_slice(b": ");
                if edit.write(header.value, out) {
                    out.extend_from_slice(b"\r\n");
                } else {
                    out.truncate(start);
                }
            }
            _ => fields::write_field(out, header.name, header.value),
        }
    }
}

/// What an unfinished head says already.
fn partial(bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
    check_words(bytes)?;
    if bytes.len() >= limits.head { Err(Fault::HeadTooLarge) } else { Ok(()) }
}

/// The lengths of what there is of method and target.
fn check_words(bytes: &[u8]) -> Result<(), Fault> {
    let line = bytes.trim_ascii_start();
    let end = |text: &[u8]| text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let method = end(line);
    let target = line.get(method + 1..).map_or(0, end);
    check_lengths(method, target)
}

fn check_lengths(method: usize, target: usize) -> Result<(), Fault> {
    match () {
        () if method > METHOD_LIMIT => Err(Fault::Syntax),
        () if target > TARGET_LIMIT => Err(Fault::TargetTooLong),
        () => Ok(()),
    }
}

fn fault_of(error: httparse::Error, bytes: &[u8]) -> Fault {
    match error {
        httparse::Error::TooManyHeaders => Fault::TooManyHeaders,
        httparse::Error::Version if names_a_version(bytes) => Fault::Version,
        _ => Fault::Syntax,
    }
}

/// Whether the request line is three words, the last of them a version, though not one of ours.
fn names_a_version(bytes: &[u8]) -> bool {
    third_word(bytes).is_some_and(|(word, is_whole)| is_whole && word.len() == 8 && starts_version(word))
}

/// Whether the bytes end within what may become such a line.
fn is_within_version(bytes: &[u8]) -> bool {
    third_word(bytes).is_some_and(|(word, is_whole)| !is_whole && starts_version(word))
}

/// The last of the three words that a request line has, and whether the line ends behind it.
fn third_word(bytes: &[u8]) -> Option<(&[u8], bool)> {
    let text = bytes.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b'\r' || byte == b'\n');
    let mut words = text[..end.unwrap_or(text.len())].split(|&byte| byte == b' ');
    let (Some([_, ..]), Some([_, ..]), Some(word), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    Some((word, end.is_some()))
}

/// Of `HTTP/d.d`, as much as there is.
fn starts_version(word: &[u8]) -> bool {
    let is_in_place = |(byte, pattern): (&u8, &u8)| match pattern {
        b'0' => byte.is_ascii_digit(),
        _ => byte == pattern,
    };
    word.len() <= 8 && word.iter().zip(b"HTTP/0.0").all(is_in_place)
}

fn form<'b>(method: &str, target: &'b str) -> Result<Form<'b>, Fault> {
    if method == "CONNECT" {
        return Err(Fault::Connect);
    }
    // `httparse` has excluded controls and spaces. A fragment never leaves a client, and bytes beyond ASCII must be
    // escaped: servers differ in what they make of both.
    if !target.is_ascii() || target.contains('#') {
        return Err(Fault::Target);
    }
    if target.starts_with('/') {
        return Ok(Form::Origin);
    }
    if target == "*" && method == "OPTIONS" {
        return Ok(Form::Asterisk);
    }
    let (scheme, rest) = target.split_once("://").ok_or(Fault::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Fault::Target);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // An http URI without a host is invalid (RFC 9110 §4.2.1).
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Fault::Target);
    }
    Ok(Form::Absolute { authority, path })
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2); the empty host is what a client without one must send, though never with a
/// port. The grammar has a comma in a name; it would make one Host of two that somebody has merged.
fn is_authority(value: &[u8]) -> bool {
    let (host_is_valid, port) = if let Some(literal) = value.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', literal) else { return false };
        let valid = literal[..end].iter().all(|&byte| byte.is_ascii_alphanumeric() || b":.".contains(&byte));
        (valid && end > 0, &literal[end + 1..])
    } else {
        let (host, port) = value.split_at(memchr::memchr(b':', value).unwrap_or(value.len()));
        let valid =
            host.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte));
        (valid && (!host.is_empty() || port.is_empty()), port)
    };
    host_is_valid && matches!(port, [] | [b':', ..]) && port.iter().skip(1).all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::http::forwarded::Style;

    const REWRITE: Rewrite<'_> = Rewrite {
        cookie: Some(CookieEdit { name: "SRV", unprefixed: None }),
        default_host: "10.0.0.1:80",
        forwarded: None,
    };

    fn fault(head: &str) -> Option<Fault> {
        parse(head.as_bytes(), &mut Slots::default(), &Limits::default()).err()
    }

    fn sent_on(head: &str) -> String {
        sent_on_with(head, &REWRITE)
    }

    fn sent_on_with(head: &str, rewrite: &Rewrite<'_>) -> String {
        let mut slots = Slots::default();
        let request =
            parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed").expect("whole");
        let mut out = Vec::new();
        request.write(&mut out, rewrite);
        String::from_utf8(out).expect("ASCII in, ASCII out")
    }

    #[test]
    fn is_written_from_its_parts_without_our_cookie() {
        assert_eq!(
            sent_on("GET /a?b HTTP/1.1\r\nHost:  x \r\nCookie: a=1; SRV=s2; b=2\r\nAccept: */*\r\n\r\n"),
            "GET /a?b HTTP/1.1\r\nHost: x\r\nCookie: a=1; b=2\r\nAccept: */*\r\n\r\n"
        );
        assert_eq!(
            sent_on("GET / HTTP/1.1\r\nHost: x\r\nCookie: SRV=s2\r\n\r\n"),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        );
    }

    #[test]
    fn cookies_without_ours_pass_byte_for_byte() {
        for cookies in ["a=1;b=2;;c=3;", "", ";", "SRV", "$SRV=s2;a", "srv=s2 ;  b"] {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\ncookie: {cookies}\r\nA: b\r\n\r\n");
            assert_eq!(sent_on(&head), head);
        }
    }

    #[test]
    fn only_a_1_1_client_may_wait_before_its_body() {
        for (fields, expected) in [
            ("HTTP/1.1\r\nHost: x\r\nexpect: 100-Continue", true),
            ("HTTP/1.1\r\nHost: x\r\nExpect: something", false),
            ("HTTP/1.0\r\nHost: x\r\nExpect: 100-continue", false),
        ] {
            let head = format!("POST / {fields}\r\nContent-Length: 1\r\n\r\n");
            let mut slots = Slots::default();
            let request =
                parse(head.as_bytes(), &mut slots, &Limits::default()).expect("good").expect("whole");
            assert_eq!(request.awaits_continue, expected, "{fields}");
        }
    }

    #[test]
    fn several_cookie_headers_each_lose_ours() {
        assert_eq!(
            sent_on("GET / HTTP/1.1\r\nHost: x\r\nCookie: SRV=s1\r\nCookie: b=2; SRV=s2\r\n\r\n"),
            "GET / HTTP/1.1\r\nHost: x\r\nCookie: b=2\r\n\r\n"
        );
    }

    #[test]
    fn fields_for_this_hop_stay_here_and_host_cannot_be_named_away() {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop, Host, Upgrade\r\nX-Hop: 1\r\nX-End: 2\r\n\
                    Upgrade: h2c\r\nTE: gzip\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\n\r\n";
        assert_eq!(sent_on(head), "GET / HTTP/1.1\r\nHost: x\r\nX-End: 2\r\n\r\n");
    }

    #[test]
    fn a_client_that_takes_trailers_may_be_sent_some() {
        assert_eq!(
            sent_on(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: te\r\nTE: deflate, Trailers\r\nTrailer: A\r\n\r\n"
            ),
            "GET / HTTP/1.1\r\nHost: x\r\nTrailer: A\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
        );
        let old = "GET / HTTP/1.0\r\nHost: x\r\nTE: trailers\r\n\r\n";
        assert_eq!(sent_on(old), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }

    #[test]
    fn only_a_plain_request_for_a_websocket_asks_the_server_for_one() {
        let fields = "Sec-WebSocket-Key: a\r\nSec-WebSocket-Version: 13\r\n";
        let asked = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        for (good, length) in [
            ("Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n", ""),
            ("Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n", "Content-Length: 0\r\n"),
        ] {
            let head = format!("GET /chat HTTP/1.1\r\nHost: x\r\n{good}{fields}\r\n");
            let expected = format!("GET /chat HTTP/1.1\r\nHost: x\r\n{fields}{length}{asked}\r\n");
            assert_eq!(sent_on(&head), expected);
        }
        for (line, fields) in [
            ("GET / HTTP/1.1", "Upgrade: websocket\r\n"),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\n"),
            (
                "GET / HTTP/1.1",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            ),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n"),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
            ("GET / HTTP/1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            ("HEAD / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
            ("POST / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ] {
            let method = line.split(' ').next().expect("a method");
            let sent = sent_on(&format!("{line}\r\nHost: x\r\n{fields}\r\n"));
            assert_eq!(sent, format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"), "{fields}");
        }
        let with_body = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(sent_on(with_body), "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n");
    }

    #[test]
    fn who_the_client_is_cannot_be_said_by_the_client() {
        let hop = Hop { style: Style::XForwarded, client: IpAddr::from([192, 0, 2, 7]), port: 80 };
        let rewrite = Rewrite { forwarded: Some(hop), ..REWRITE };
        let ours = |chain: &str, host: &str| {
            format!(
                "X-Forwarded-For: {chain}192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: {host}\r\n\
                 X-Forwarded-Port: 80\r\n\r\n"
            )
        };
        let table = [
            (
                "GET / HTTP/1.1\r\nX-Forwarded-For: 1.1.1.1, ,\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\
                 Forwarded: for=1.1.1.1\r\nx_forwarded_host: b\r\nX-Forwarded-Port: 1\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: a\r\n{}", ours("1.1.1.1, ", "a")),
            ),
            (
                "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Forwarded-Proto\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: b\r\n{}", ours("", "b")),
            ),
            (
                "GET / HTTP/1.0\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n{}", ours("", "10.0.0.1:80")),
            ),
        ];
        for (head, expected) in table {
            assert_eq!(sent_on_with(head, &rewrite), expected, "{head:?}");
        }
        let untouched =
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n\r\n";
        assert_eq!(sent_on(untouched), untouched);
    }

    #[test]
    fn the_longest_target_is_taken_and_the_next_refused_wherever_they_are_cut() {
        let outcome = |bytes: &[u8]| {
            let mut slots = Slots::default();
            parse(bytes, &mut slots, &Limits::default()).map(|request| request.is_some())
        };
        for (method, path, expected) in [
            (3, TARGET_LIMIT, Ok(true)),
            (METHOD_LIMIT, 1, Ok(true)),
            (3, TARGET_LIMIT + 1, Err(Fault::TargetTooLong)),
            (METHOD_LIMIT + 1, 1, Err(Fault::Syntax)),
        ] {
            let (method, path) = ("M".repeat(method), "a".repeat(path - 1));
            let head = format!("\r\n{method} /{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
            assert_eq!(outcome(&head), expected);
            let first =
                (0..head.len()).map(|cut| outcome(&head[..cut])).find(|outcome| *outcome != Ok(false));
            assert_eq!(first.unwrap_or(Ok(true)), expected);
        }
    }

    #[test]
    fn the_length_is_written_anew() {
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 007\r\n\r\n";
        assert_eq!(sent_on(head), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n");
        let head = "POST / HTTP/1.1\r\ntransfer-encoding: CHUNKED\r\nHost: x\r\n\r\n";
        assert_eq!(sent_on(head), "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    #[test]
    fn an_absolute_target_becomes_path_and_host() {
        let head = "GET HTTP://b.example:81?q HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(sent_on(head), "GET /?q HTTP/1.1\r\nHost: b.example:81\r\n\r\n");
        let head = "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(sent_on(head), "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n");
    }

    #[test]
    fn a_1_0_client_may_omit_host_and_asks_for_keep_alive() {
        assert_eq!(sent_on("GET / HTTP/1.0\r\n\r\n"), "GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n");
        let mut slots = Slots::default();
        let head = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
        assert!(parse(head, &mut slots, &Limits::default()).is_ok_and(|r| r.is_some_and(|r| r.keep_alive)));
    }

    #[test]
    fn refuses_with_the_fault_that_names_the_status() {
        let table: [(&str, Fault); 37] = [
            ("GET / HTTP/1.1\n\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::LineEnd),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Fault::Syntax),
            ("GE\tT / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET / \r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET /\r\n\r\n", Fault::Syntax),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET /a b HTTP/2.0\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET /ü HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Target),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Connect),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Fault::Version),
            ("GET / HTCPCP/1.0\r\nHost: a\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Fault::Host),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
        ];
        for (head, expected) in table {
            assert_eq!(fault(head), Some(expected), "{head:?}");
        }
    }

    #[test]
    fn a_version_that_is_cut_is_no_fault_before_its_end() {
        for part in ["GET / HTTP/", "GET / HTTP/2", "GET / HTTP/0.", "PRI * HTTP/2.0"] {
            assert_eq!(fault(part), None, "{part}");
            assert_eq!(fault(&format!("{part}x\r\n")), Some(Fault::Syntax), "{part}x");
        }
        assert_eq!(fault("GET / HTTP/2.0\r\n"), Some(Fault::Version));
        assert_eq!(fault("GET / HTCPCP"), Some(Fault::Syntax));
    }

    #[test]
    fn limits_have_statuses_of_their_own() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert_eq!(fault(&head(&"X: y\r\n".repeat(99))), None);
        assert_eq!(fault(&head(&"X: y\r\n".repeat(100))).map(Fault::status), Some(431));
        let long = "x".repeat(16 * 1024);
        assert_eq!(fault(&head(&format!("X: {long}\r\n"))).map(Fault::status), Some(431));
        assert_eq!(fault(&format!("GET / HTTP/1.1\r\nX: {long}")).map(Fault::status), Some(431));
        assert_eq!(fault(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).map(Fault::status), Some(414));
        assert_eq!(fault(&format!("GET /{}", &long[..9000])).map(Fault::status), Some(414));
        assert_eq!(
            fault(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..9000])).map(Fault::status),
            Some(414)
        );
    }

    #[test]
    fn hosts_of_every_kind() {
        for host in ["a", "a:80", "[::1]", "[::1]:80", "10.0.0.1", "", "a_b.example"] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in ["a:b", "a:80:80", "[::1", "[]", "[::1]x", "a@b", "a\tb", "a?b", "::1", ":80", "a,b"] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn what_a_request_can_be_balanced_by() {
        let look = |head: &str, look: &dyn Fn(&Request<'_, '_>) -> Option<String>| {
            let mut slots = Slots::default();
            let request =
                parse(head.as_bytes(), &mut slots, &Limits::default()).expect("good").expect("whole");
            look(&request)
        };
        let path = |request: &Request<'_, '_>| Some(request.path().to_owned());
        let user = |request: &Request<'_, '_>| request.parameter("user").map(str::to_owned);
        let header = |request: &Request<'_, '_>| {
            request.header("x-user").map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let origin =
            "GET /a/b?x=1&user=me&user=you HTTP/1.1\r\nHost: h\r\nX-User: one\r\nx-user: two\r\n\r\n";
        assert_eq!(look(origin, &path).as_deref(), Some("/a/b"));
        assert_eq!(look(origin, &user).as_deref(), Some("me"));
        assert_eq!(look(origin, &header).as_deref(), Some("one"));
        let absolute = "GET http://h/a?users=1 HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(look(absolute, &path).as_deref(), Some("/a"));
        assert_eq!((look(absolute, &user), look(absolute, &header)), (None, None));
    }

    proptest! {
        #[test]
        fn never_panics_and_what_it_sends_on_it_would_accept(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut seeded = b"POST /x HTTP/1.1\r\nHost: a\r\n".to_vec();
            seeded.extend(&bytes);
            seeded.extend(b"\r\n\r\n");
            for input in [&bytes, &seeded] {
                let mut slots = Slots::default();
                if let Ok(Some(request)) = parse(input, &mut slots, &Limits::default()) {
                    let mut once = Vec::new();
                    request.write(&mut once, &REWRITE);
                    let mut slots = Slots::default();
                    let again = parse(&once, &mut slots, &Limits::default()).expect("accepted").expect("whole");
                    prop_assert_eq!(again.framing, request.framing);
                    let mut twice = Vec::new();
                    again.write(&mut twice, &REWRITE);
                    prop_assert_eq!(once, twice);
                }
            }
        }

        #[test]
        fn a_part_of_a_good_head_is_never_an_error(cut in 0_usize..60) {
            let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nA: b\r\n\r\n";
            prop_assert_eq!(fault(&head[..cut.min(head.len())]), None);
        }
    }
}
