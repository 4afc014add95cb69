//! The head of a response: what it says, and the head that is sent to the client in its place.

use httparse::Header;

use super::Version;
use super::body::Framing;
use super::fault::Fault;
use super::fields::{self, Name, Slots, Survey, Upgrade};
use crate::config::Limits;
use crate::persist::issue::Issue;

/// A checked response head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct Response<'b, 'h> {
    /// 100–999.
    pub status: u16,
    /// Bytes of the head, the empty line included.
    pub head_length: usize,
    /// How its body ends.
    pub framing: Framing,
    /// The server will take another request on this connection, provided that the framing shows where this one ends.
    pub keep_alive: bool,
    reason: &'b str,
    survey: Survey,
    headers: &'h [Header<'b>],
}

/// What the client is told about its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connection {
    /// It stays open, which is what HTTP/1.1 takes for granted.
    Implicit,
    /// It stays open, and an HTTP/1.0 client has to be told.
    KeepAlive,
    /// It ends with this response.
    Close,
    /// It is a WebSocket from here on.
    Upgrade,
}

impl Connection {
    /// The header lines that say so.
    pub fn lines(self) -> &'static [u8] {
        match self {
            Self::Implicit => b"",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
            Self::Upgrade => fields::UPGRADE,
        }
    }
}

/// What changes on the way to the client.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// What is said about the connection.
    pub connection: Connection,
    /// What is done about the persistence cookie.
    pub cookie: Option<Issue<'a>>,
    /// The client does not know chunks: the coding is taken off.
    pub unchunked: bool,
    /// Whole lines for a client that wants to know more (`--debug-from`).
    pub debug: &'a [u8],
}

/// Reads the head that `bytes` start with; `None`: there is more to come. `to_head`: it answers a HEAD request.
///
/// # Errors
/// The fault, which is the server's.
pub fn parse<'b, 'h>(
    bytes: &'b [u8],
    slots: &'h mut Slots<'b>,
    limits: &Limits,
    to_head: bool,
) -> Result<Option<Response<'b, 'h>>, Fault> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let slots = slots.limited(limits.headers);
    let head_length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.head => return Err(Fault::HeadTooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooManyHeaders),
        Err(_) => return Err(Fault::Syntax),
    };
    if head_length > limits.head {
        return Err(Fault::HeadTooLarge);
    }
    fields::check_line_ends(&bytes[..head_length])?;
    // An empty line before a response is the rest of another one, not politeness.
    if bytes.first() != Some(&b'H') {
        return Err(Fault::Syntax);
    }
    let status = parsed.code.filter(|&code| code >= 100).ok_or(Fault::Status)?;
    let version = Version::from_minor(parsed.version);
    let headers: &'h [Header<'b>] = parsed.headers;

    let mut survey = Survey::default();
    for header in headers {
        survey.note(Name::of(header.name), header.value)?;
    }
    survey.check()?;
    if version == Version::Http10 && survey.chunked {
        return Err(Fault::TransferEncoding);
    }
    let keep_alive = !survey.close && (version == Version::Http11 || survey.keep_alive);
    let framing = framing(status, to_head, &survey);
    Ok(Some(Response {
        status,
        head_length,
        framing,
        keep_alive,
        reason: parsed.reason.unwrap_or(""),
        survey,
        headers,
    }))
}

/// RFC 9112 §6.3, in its order.
fn framing(status: u16, to_head: bool, survey: &Survey) -> Framing {
    match survey.content_length {
        _ if to_head || has_no_body(status) => Framing::None,
        _ if survey.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    }
}

fn has_no_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

impl Response<'_, '_> {
    /// More responses to the same request follow (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// The server agrees to speak WebSocket, and nothing else, after this 101.
    pub fn is_websocket(&self) -> bool {
        self.status == 101 && self.survey.upgrade == Upgrade::WebSocket && self.survey.wants_upgrade
    }

    /// The server wants NTLM or Negotiate: whoever answers authenticates the connection (RFC 4559 §6).
    pub fn binds_connection(&self) -> bool {
        matches!(self.status, 401 | 407) && self.survey.binds_connection
    }

    /// The values of its Set-Cookie headers.
    pub fn set_cookies(&self) -> impl Iterator<Item = &[u8]> {
        let is_set_cookie = |header: &&Header<'_>| Name::of(header.name) == Name::SetCookie;
        self.headers.iter().filter(is_set_cookie).map(|header| header.value)
    }

    /// Writes the head for the client.
    pub fn write(&self, out: &mut Vec<u8>, rewrite: &Rewrite<'_>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        for header in self.headers {
            self.write_header(out, header, rewrite);
        }
        self.write_framing(out, rewrite.unchunked);
        if let Some(issue) = &rewrite.cookie {
            issue.write_ours(out);
            if issue.is_private() && !self.is_kept_from_caches() {
                out.extend_from_slice(b"Cache-Control: private\r\n");
            }
        }
        out.extend_from_slice(rewrite.debug);
        out.extend_from_slice(rewrite.connection.lines());
        out.extend_from_slice(b"\r\n");
    }

    fn write_header(&self, out: &mut Vec<u8>, header: &Header<'_>, rewrite: &Rewrite<'_>) {
        let name = Name::of(header.name);
        if name.is_rewritten()
            || self.survey.names_fields && fields::is_named_by_connection(header.name, self.headers)
        {
            return;
        }
        let is_written = match &rewrite.cookie {
            Some(issue) if name == Name::SetCookie => issue.write_theirs(header.name, header.value, out),
            _ => false,
        };
        if !is_written {
            fields::write_field(out, header.name, header.value);
        }
    }

    /// It says itself that no shared cache may keep it.
    fn is_kept_from_caches(&self) -> bool {
        let controls = self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("cache-control"));
        // One that Connection names ends here.
        let controls = controls.filter(|header| {
            !(self.survey.names_fields && fields::is_named_by_connection(header.name, self.headers))
        });
        controls.flat_map(|header| header.value.split(|byte| *byte == b',')).any(|directive| {
            let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            // `private="field"` keeps only that field from caches.
            name.eq_ignore_ascii_case(b"no-store") || directive.trim_ascii().eq_ignore_ascii_case(b"private")
        })
    }

    /// 1xx and 204 have no length at all; the answer to HEAD and 304 tell that of the body they leave out.
    fn write_framing(&self, out: &mut Vec<u8>, unchunked: bool) {
        if !matches!(self.status, 100..=199 | 204) {
            fields::write_framing(out, self.survey.content_length, self.survey.chunked && !unchunked);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::persist::CookieMethod;
    use crate::persist::issue::SetCookie;
    use crate::persist::tests::cookie_method;

    const PLAIN: Rewrite<'_> =
        Rewrite { connection: Connection::Implicit, cookie: None, unchunked: false, debug: b"" };

    /// As `PLAIN`, with this done about the cookie.
    fn with_cookie(method: &CookieMethod, action: SetCookie) -> Rewrite<'_> {
        let issue = Issue { method, action, id: Some("s1"), first_seen: None, now: 1_700_000_000 };
        Rewrite { cookie: Some(issue), ..PLAIN }
    }

    fn with<T>(head: &str, to_head: bool, look: impl FnOnce(&Response<'_, '_>) -> T) -> Result<T, Fault> {
        let mut slots = Slots::default();
        let response = parse(head.as_bytes(), &mut slots, &Limits::default(), to_head)?;
        Ok(look(&response.expect("whole")))
    }

    fn sent_on(head: &str, rewrite: &Rewrite<'_>) -> String {
        let mut out = Vec::new();
        with(head, false, |response| response.write(&mut out, rewrite)).expect("well-formed");
        String::from_utf8(out).expect("ASCII in, ASCII out")
    }

    #[test]
    fn framing_follows_the_request_the_status_and_the_fields() {
        let framing = |head, to_head| with(head, to_head, |response| response.framing).expect("well-formed");
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false), Framing::Length(5));
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Framing::None);
        assert_eq!(framing("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false), Framing::None);
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n", false), Framing::None);
        assert_eq!(framing("HTTP/1.1 100 Continue\r\n\r\n", false), Framing::None);
        assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false), Framing::Chunked);
        assert_eq!(framing("HTTP/1.0 200 OK\r\n\r\n", false), Framing::UntilClose);
    }

    #[test]
    fn a_head_answer_keeps_its_length_and_204_has_none() {
        let head = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n";
        assert_eq!(
            sent_on(head, &PLAIN),
            "HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(sent_on("HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n", &PLAIN), "HTTP/1.1 204 \r\n\r\n");
    }

    #[test]
    fn an_answer_with_a_new_cookie_is_made_private_unless_it_is() {
        let method = cookie_method("cookie=SRV,nocache");
        let table = [
            ("ETag: x\r\n", true),
            ("", true),
            ("Cache-Control: public, max-age=60\r\n", true),
            ("Cache-Control: private=\"Set-Cookie\"\r\n", true),
            ("Cache-Control: max-age=60, Private\r\n", false),
            ("cache-control: no-store\r\n", false),
        ];
        for (line, is_added) in table {
            let head = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 0\r\n\r\n");
            let sent = |action| sent_on(&head, &with_cookie(&method, action));
            let ours = "Cache-Control: private\r\n";
            assert_eq!(sent(SetCookie::Insert).contains(ours), is_added, "{line}");
            assert!(!sent(SetCookie::Nothing).contains(ours), "{line}");
        }
    }

    #[test]
    fn the_servers_cookie_of_our_name_goes_and_ours_comes() {
        let head =
            "HTTP/1.1 200 OK\r\nSet-Cookie: SRV=x; Path=/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n";
        let set =
            with(head, false, |response| response.set_cookies().map(<[u8]>::to_vec).collect::<Vec<_>>());
        assert_eq!(set.expect("well-formed"), [&b"SRV=x; Path=/"[..], b"a=b"]);
        let method = cookie_method("cookie=SRV");
        let ours = with_cookie(&method, SetCookie::Insert);
        assert_eq!(
            sent_on(head, &ours),
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\nSet-Cookie: SRV=s1; path=/\r\n\r\n"
        );
        let gone = with_cookie(&method, SetCookie::Delete);
        assert!(
            sent_on(head, &gone)
                .contains("Set-Cookie: SRV=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/\r\n")
        );
    }

    #[test]
    fn the_connection_is_ours_to_speak_of() {
        let head = "HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n";
        let close = Rewrite { connection: Connection::Close, ..PLAIN };
        assert_eq!(
            sent_on(head, &close),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_websocket_is_granted_in_our_words_and_nothing_else_is() {
        let granted = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n\
                       Sec-WebSocket-Accept: b\r\nContent-Length: 0\r\n\r\n";
        with(granted, false, |response| assert!(response.is_websocket())).expect("well-formed");
        assert_eq!(
            sent_on(granted, &Rewrite { connection: Connection::Upgrade, ..PLAIN }),
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: b\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\n"
        );
        for other in [
            "101 S\r\nUpgrade: h2c\r\nConnection: upgrade",
            "101 S\r\nUpgrade: websocket\r\nUpgrade: h2c",
            "101 S\r\nConnection: upgrade",
            "101 S\r\nUpgrade: websocket",
            "426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade",
        ] {
            let head = format!("HTTP/1.1 {other}\r\n\r\n");
            with(&head, false, |response| assert!(!response.is_websocket(), "{other}")).expect("well-formed");
            assert!(!sent_on(&head, &PLAIN).contains("pgrade:"), "{other}");
        }
    }

    #[test]
    fn only_a_challenge_binds_a_connection() {
        for (head, binds) in [
            ("401 U\r\nWWW-Authenticate: Basic realm=\"a\", NTLM", true),
            ("401 U\r\nWWW-Authenticate: Basic\r\nWWW-Authenticate: Negotiate", true),
            ("407 P\r\nProxy-Authenticate: NTLM", true),
            ("401 U\r\nWWW-Authenticate: Basic", false),
            ("200 O\r\nWWW-Authenticate: NTLM", false),
        ] {
            let head = format!("HTTP/1.1 {head}\r\n\r\n");
            with(&head, false, |response| assert_eq!(response.binds_connection(), binds, "{head}"))
                .expect("well-formed");
        }
    }

    #[test]
    fn chunks_are_not_announced_to_a_client_that_does_not_know_them() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let unchunked = Rewrite { unchunked: true, connection: Connection::Close, ..PLAIN };
        assert_eq!(sent_on(head, &unchunked), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn servers_are_held_to_the_same_rules() {
        let table = [
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Fault::LineEnd),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", Fault::Syntax),
            ("HTTP/2.0 200 OK\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 20 OK\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 099 OK\r\n\r\n", Fault::Status),
            ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n", Fault::Syntax),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Fault::ContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TwoLengths),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
            ("SSH-2.0-OpenSSH_9.2\r\n", Fault::Syntax),
        ];
        for (head, expected) in table {
            assert_eq!(with(head, false, |_| ()), Err(expected), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_what_it_sends_on_it_would_accept(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut seeded = b"HTTP/1.1 200 OK\r\n".to_vec();
            seeded.extend(&bytes);
            seeded.extend(b"\r\n\r\n");
            for input in [&bytes, &seeded] {
                let mut slots = Slots::default();
                if let Ok(Some(response)) = parse(input, &mut slots, &Limits::default(), false) {
                    let mut once = Vec::new();
                    response.write(&mut once, &PLAIN);
                    let mut slots = Slots::default();
                    let again = parse(&once, &mut slots, &Limits::default(), false).expect("accepted").expect("whole");
                    prop_assert_eq!((again.status, again.framing), (response.status, response.framing));
                }
            }
        }
    }
}
