//! A request's head, and what it asks for. Pure.

use std::net::IpAddr;

/// Longest head: scrapers send a few hundred bytes, browsers a few thousand.
pub(super) const LONGEST_HEAD: usize = 8 * 1024;

/// Most header lines.
const MOST_HEADERS: usize = 64;

/// What there is to ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Metrics,
    Health,
    Ready,
    Status,
    /// `/status`: for people.
    Overview,
    /// `/`: leads to it.
    Front,
    Explain,
}

/// A request that is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) page: Page,
    /// What stands behind the `?`, as it came.
    pub(super) query: String,
    /// HEAD: the answer has no body.
    pub(super) is_head: bool,
}

/// Why a request is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Malformed,
    /// The head is too long, or has too many lines.
    TooLarge,
    /// Not complete in time.
    TooSlow,
    /// `Host` is a name that is not ours.
    ForeignHost,
    Method,
    Unknown,
}

impl Refusal {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unknown => 404,
            Self::Method => 405,
            Self::TooSlow => 408,
            Self::ForeignHost => 421,
            Self::TooLarge => 431,
        }
    }

    /// For people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Malformed => "this is no well-formed request\n",
            Self::Unknown => {
                "there is nothing; ask for /status, /status.json, /metrics, /healthz or /readyz\n"
            }
            Self::Method => "only GET and HEAD are answered\n",
            Self::TooSlow => "the request has not come in time\n",
            Self::ForeignHost => {
                "this host is not called so; ask by an address, by localhost or by its own name\n"
            }
            Self::TooLarge => "the head of the request is too large\n",
        }
    }
}

/// The request at the front of `bytes`; `None`: its head is not complete. `own_name`: of this host.
pub(super) fn parse(bytes: &[u8], own_name: &str) -> Result<Option<Request>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if bytes.len() >= LONGEST_HEAD => return Err(Refusal::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::Malformed),
    }
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    match (hosts.next(), hosts.next(), request.version) {
        (Some(host), None, _) if is_ours(host.value, own_name) => {}
        (Some(_), None, _) => return Err(Refusal::ForeignHost),
        // What is as old as that is no browser.
        (None, _, Some(0)) => {}
        _ => return Err(Refusal::Malformed),
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal::Method),
    };
    let path = request.path.unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let page = match path {
        "/metrics" => Page::Metrics,
        "/healthz" => Page::Health,
        "/readyz" => Page::Ready,
        "/status.json" => Page::Status,
        "/status" => Page::Overview,
        "/" => Page::Front,
        "/explain.json" => Page::Explain,
        // A whole URL would name another host than `Host` does.
        path if !path.starts_with('/') => return Err(Refusal::Malformed),
        _ => return Err(Refusal::Unknown),
    };
    Ok(Some(Request { page, query: query.to_owned(), is_head }))
}

/// Whether nobody else can have a name that reads like `host`.
fn is_ours(host: &[u8], own_name: &str) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let host = host.trim_ascii();
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) && is_port(port);
        }
        None => match host.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    let is_named = |own: &str| !own.is_empty() && name.eq_ignore_ascii_case(own);
    let is_address = name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4());
    is_address || is_named("localhost") || is_named(own_name)
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(text: &str) -> Result<Option<Request>, Refusal> {
        parse(text.replace('|', "\r\n").as_bytes(), "lb1")
    }

    #[test]
    fn a_request_is_answered_refused_or_waited_for() {
        let asks = |page, query: &str, is_head| Ok(Some(Request { page, query: query.to_owned(), is_head }));
        let page = |page, is_head| asks(page, "", is_head);
        let table = [
            ("GET /metrics HTTP/1.1|Host: 127.0.0.1:9100||", page(Page::Metrics, false)),
            ("HEAD /healthz?x=y HTTP/1.1|Host: localhost||", asks(Page::Health, "x=y", true)),
            (
                "GET /explain.json?src=::1&path=/?b HTTP/1.1|Host: lb1||",
                asks(Page::Explain, "src=::1&path=/?b", false),
            ),
            ("GET / HTTP/1.1|Host: localhost||", page(Page::Front, false)),
            ("GET /status HTTP/1.1|Host: localhost||", page(Page::Overview, false)),
            ("GET /readyz HTTP/1.0||", page(Page::Ready, false)),
            ("GET /status.json HTTP/1.1|host: LB1:9100||", page(Page::Status, false)),
            ("GET /metrics HTTP/1.1|Host: [::1]:9100|", Ok(None)),
            ("GET /metrics HTTP/1.1||", Err(Refusal::Malformed)),
            ("GET /metrics HTTP/1.1|Host: a|Host: b||", Err(Refusal::Malformed)),
            ("GET http://localhost/metrics HTTP/1.1|Host: localhost||", Err(Refusal::Malformed)),
            ("GET /metrics HTTP/1.1|Host: evil.example||", Err(Refusal::ForeignHost)),
            ("GET /metrics HTTP/1.1|Host: lb1.evil.example||", Err(Refusal::ForeignHost)),
            ("POST /metrics HTTP/1.1|Host: localhost||", Err(Refusal::Method)),
            ("GET /status/ HTTP/1.1|Host: localhost||", Err(Refusal::Unknown)),
            ("GET /metricsx HTTP/1.1|Host: localhost||", Err(Refusal::Unknown)),
            ("nonsense||", Err(Refusal::Malformed)),
        ];
        for (text, expected) in table {
            assert_eq!(asked(text), expected, "{text}");
        }
        let many = "A: b|".repeat(MOST_HEADERS + 1);
        assert_eq!(asked(&format!("GET / HTTP/1.1|{many}|")), Err(Refusal::TooLarge));
        let long = "x".repeat(LONGEST_HEAD);
        assert_eq!(asked(&format!("GET /{long}")), Err(Refusal::TooLarge));
    }

    #[test]
    fn only_names_that_nobody_else_can_have_are_ours() {
        for host in ["10.0.0.1", "10.0.0.1:9100", "[::1]", "[2001:db8::1]:80", "localhost:1", "lb1", "LB1:"] {
            assert!(is_ours(host.as_bytes(), "lb1"), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "10.0.0.1.evil.example",
            "::1",
            "[::1",
            "[::1]x",
            "[10.0.0.1]",
            "lb1:x",
        ] {
            assert!(!is_ours(host.as_bytes(), "lb1"), "{host}");
        }
        assert!(!is_ours(b"", ""), "a host without a name");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = parse(&bytes, "lb1");
        }
    }
}
