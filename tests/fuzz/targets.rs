//! What holds for every input, however hostile. Each function is a fuzz target, run by `cargo xtask fuzz`; the ordinary
//! tests run them on the corpus and on what is near it.
//!
//! | target | its input |
//! |---|---|
//! | [`request_head`] | what a client sends |
//! | [`response_head`] | what a server sends |
//! | [`chunked`] | a chunked body |
//! | [`cookie`] | a Cookie or Set-Cookie header |
//! | [`proxy_header`] | what a trusted peer sends first |
//! | [`frame`] | what a network card receives |
//! | [`flow`] | the packets of one fast connection, in any order |

mod frames;
mod story;

pub use frames::frame;
pub use story::flow;

use balancer::config::Limits;
use balancer::http::body::{Body, Framing};
use balancer::http::fault::Fault;
use balancer::http::fields::Slots;
use balancer::http::response::Connection;
use balancer::http::scan::Scan;
use balancer::http::{request, response};
use balancer::persist::issue::{Issue, SetCookie};
use balancer::persist::{CookieMethod, cookie as crumbs};
use balancer::proxy_protocol::{self, Version};

/// The cookie that is the balancer's.
const OURS: &str = "SRV";

/// What an accepted head comes down to: its length, how its body ends, and what is sent on in its place.
type Accepted = (usize, Framing, Vec<u8>);

/// A request head: the same in any pieces, and what is sent on is a head that means the same.
pub fn request_head(input: &[u8]) {
    let whole = read_request(input);
    same_in_pieces(input, &whole, read_request);
    if let Ok(Some((length, framing, sent))) = whole {
        assert!(length <= input.len());
        sound(&sent);
        let again = read_request_within(&sent, &beyond());
        assert_eq!(
            again,
            Ok(Some((sent.len(), framing, sent.clone()))),
            "what is sent on is accepted as it is"
        );
        let text = String::from_utf8_lossy(&sent);
        let hosts = text.lines().filter(|line| line.to_ascii_lowercase().starts_with("host:")).count();
        assert_eq!(hosts, 1, "one Host");
        framed_once(&text, framing);
    }
}

/// A response head, to HEAD if the first byte is odd: the same in any pieces, and what is sent on means the same.
pub fn response_head(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else { return };
    let to_head = choice % 2 == 1;
    let read = |bytes: &[u8]| read_response(bytes, to_head);
    let whole = read(input);
    same_in_pieces(input, &whole, read);
    if let Ok(Some((length, framing, sent))) = whole {
        assert!(length <= input.len());
        sound(&sent);
        assert_eq!(
            read_response_within(&sent, to_head, &beyond()),
            Ok(Some((sent.len(), framing, sent.clone()))),
            "what is sent on is accepted as it is"
        );
        if !to_head {
            framed_once(&String::from_utf8_lossy(&sent), framing);
        }
    }
}

/// A chunked body, cut as its first byte says: the same content and the same end, which another decoder finds too.
pub fn chunked(input: &[u8]) {
    let Some((step, input)) = input.split_first() else { return };
    let whole = decode(input, input.len().max(1));
    for step in [1, usize::from(*step).max(1)] {
        assert_eq!(decode(input, step), whole, "in pieces of {step}");
    }
    let Ok((used, content, is_done)) = whole else { return };
    assert!(used <= input.len() && content.len() <= used);
    if is_done {
        assert_eq!(plainly_decoded(&input[..used]), Some(content.clone()), "another decoder");
        let mut again = format!("{:x}\r\n", content.len()).into_bytes();
        again.extend_from_slice(&content);
        again.extend_from_slice(if content.is_empty() { b"\r\n" } else { b"\r\n0\r\n\r\n" });
        assert_eq!(decode(&again, 7), Ok((again.len(), content, true)), "coded again");
    } else {
        assert_eq!(used, input.len(), "a body that goes on takes everything");
    }
}

/// A Cookie header: ours is found or taken out, nothing else is touched.
pub fn cookie(input: &[u8]) {
    let _ = crumbs::set_cookie_name(input);
    let before: Vec<_> = crumbs::values(input, OURS).collect();
    let mut without = Vec::new();
    let is_left = crumbs::write_without(input, OURS, &mut without);
    assert_eq!(crumbs::values(&without, OURS).count(), 0, "all of ours are gone");
    if before.is_empty() {
        assert!(is_left && without == input, "a header without ours is left as it is");
    }
    for other in ["a", "srv", "SRVX", "XSRV", "b"] {
        let (was, is): (Vec<_>, Vec<_>) =
            (crumbs::values(input, other).collect(), crumbs::values(&without, other).collect());
        assert_eq!(was, is, "cookie {other}");
    }
    let mut twice = Vec::new();
    crumbs::write_without(&without, OURS, &mut twice);
    assert_eq!(twice, without, "taken out once and for all");
}

/// A PROXY header: more bytes never change an answer, and what it says can be said again in either version.
pub fn proxy_header(input: &[u8]) {
    let whole = proxy_protocol::parse(input);
    let in_pieces = (0..=input.len()).map(|end| proxy_protocol::parse(&input[..end]));
    let in_pieces = in_pieces.into_iter().find(|outcome| !matches!(outcome, Ok(None))).unwrap_or(Ok(None));
    assert_eq!(in_pieces, whole, "in pieces");
    let Ok(Some((header, length))) = whole else { return };
    assert!(length <= input.len() && length <= proxy_protocol::LIMIT);
    for version in [Version::V1, Version::V2] {
        let mut sent = Vec::new();
        proxy_protocol::write(&mut sent, version, header);
        assert_eq!(proxy_protocol::parse(&sent), Ok(Some((header, sent.len()))), "sent on as {version:?}");
    }
}

/// What is sent on may be a little larger than what was accepted: a space after a colon, a Host that 1.0 left out.
fn beyond() -> Limits {
    let Limits { head, headers } = Limits::default();
    Limits { head: 2 * head, headers: headers + 1 }
}

fn read_request(bytes: &[u8]) -> Result<Option<Accepted>, Fault> {
    read_request_within(bytes, &Limits::default())
}

fn read_request_within(bytes: &[u8], limits: &Limits) -> Result<Option<Accepted>, Fault> {
    let mut slots = Slots::default();
    let Some(request) = request::parse(bytes, &mut slots, limits)? else { return Ok(None) };
    let mut sent = Vec::new();
    let cookie = Some(request::CookieEdit { name: OURS, unprefixed: None });
    let rewrite = request::Rewrite { cookie, default_host: "192.0.2.1:80", forwarded: None };
    request.write(&mut sent, &rewrite);
    Ok(Some((request.head_length, request.framing, sent)))
}

fn read_response(bytes: &[u8], to_head: bool) -> Result<Option<Accepted>, Fault> {
    read_response_within(bytes, to_head, &Limits::default())
}

fn read_response_within(bytes: &[u8], to_head: bool, limits: &Limits) -> Result<Option<Accepted>, Fault> {
    let mut slots = Slots::default();
    let Some(response) = response::parse(bytes, &mut slots, limits, to_head)? else { return Ok(None) };
    let mut sent = Vec::new();
    let method = CookieMethod { name: OURS.into(), ..CookieMethod::default() };
    let cookie = Issue { method: &method, action: SetCookie::Nothing, id: None, first_seen: None, now: 0 };
    let rewrite = response::Rewrite {
        connection: Connection::Implicit,
        cookie: Some(cookie),
        unchunked: false,
        debug: b"",
    };
    response.write(&mut sent, &rewrite);
    Ok(Some((response.head_length, response.framing, sent)))
}

/// As a session reads: a byte at a time, a look whenever it is worth one, and a last look at the end.
fn same_in_pieces(
    input: &[u8],
    whole: &Result<Option<Accepted>, Fault>,
    read: impl Fn(&[u8]) -> Result<Option<Accepted>, Fault>,
) {
    let mut scan = Scan::default();
    let looks = (1..=input.len()).filter(|&end| scan.worth_parsing(&input[..end])).chain([input.len()]);
    let in_pieces = looks.map(|end| read(&input[..end])).find(|outcome| !matches!(outcome, Ok(None)));
    match (whole, in_pieces.unwrap_or(Ok(None))) {
        // A limit may be exceeded before the fault behind it is seen.
        (Err(one), Err(other)) if is_limit(*one) || is_limit(other) => {}
        (whole, in_pieces) => assert_eq!(&in_pieces, whole, "in pieces"),
    }
}

fn is_limit(fault: Fault) -> bool {
    matches!(fault.status(), 414 | 431)
}

/// A head and nothing else: lines end in CR LF, the empty one is the last, and there are no other controls.
fn sound(head: &[u8]) {
    let empty = head.windows(4).position(|window| window == b"\r\n\r\n");
    assert_eq!(empty, Some(head.len() - 4), "one empty line, at the end");
    let body = String::from_utf8_lossy(head).replace("\r\n", "");
    assert!(!body.contains(|byte: char| byte.is_ascii_control() && byte != '\t'), "a control in {body:?}");
}

/// At most one of the two lengths stands in the head, and it says what the framing says.
fn framed_once(head: &str, framing: Framing) {
    let count = |name: &str| head.lines().filter(|line| line.to_ascii_lowercase().starts_with(name)).count();
    let (lengths, codings) = (count("content-length:"), count("transfer-encoding:"));
    match framing {
        Framing::Length(_) => assert_eq!((lengths, codings), (1, 0)),
        Framing::Chunked => assert_eq!((lengths, codings), (0, 1)),
        // A 304 tells the length of what it leaves out.
        Framing::None | Framing::UntilClose => assert!(lengths + codings <= 1),
    }
}

/// (bytes of the message, content, complete), or the fault, when it comes in pieces of `step` bytes.
fn decode(input: &[u8], step: usize) -> Result<(usize, Vec<u8>, bool), Fault> {
    let (mut body, mut content, mut used) = (Body::new(Framing::Chunked), Vec::new(), 0);
    for piece in input.chunks(step) {
        used += body.accept_content(piece, |data| content.extend_from_slice(data))?;
        if body.is_done() {
            break;
        }
    }
    Ok((used, content, body.is_done()))
}

/// Decodes a whole body line by line, as the grammar reads.
fn plainly_decoded(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = input.windows(2).position(|window| window == b"\r\n")?;
        let digits = input[..end].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&input[..digits]).ok()?, 16).ok()?;
        input = &input[end + 2..];
        if size == 0 {
            return input.ends_with(b"\r\n").then_some(content);
        }
        content.extend_from_slice(input.get(..size)?);
        input = input.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
