//! One request and its answer, without sockets.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

const LARGEST_ANSWER: usize = 64 << 20;
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What matters of a request's head.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) cookie: &'a str,
    pub(super) length: usize,
    pub(super) chunked: bool,
    pub(super) close: bool,
}

impl<'a> Head<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut head = Head {
            method: words.next().unwrap_or_default(),
            path: words.next().unwrap_or("/"),
            ..Head::default()
        };
        head.close = words.next() == Some("HTTP/1.0");
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("cookie") {
                head.cookie = value;
            } else if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
        head
    }

    /// True when reading the request and answering it takes no longer than it takes to copy a few bytes.
    pub(super) fn is_short(&self) -> bool {
        let long = ["/slow", "/bytes/", "/chunked/"].iter().any(|path| self.path.starts_with(path));
        self.length == 0 && !self.chunked && (!long || self.path == "/bytes/13")
    }
}

/// The whole answer, so that it goes out in one write.
pub(super) fn answer(head: &Head<'_>, name: &str, peer: SocketAddr, received: usize) -> Vec<u8> {
    let (path, query) = head.path.split_once('?').unwrap_or((head.path, ""));
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok());
    let mut more = String::new();
    let mut status = 200;
    if let Some(delay) = (path == "/slow").then(|| query.strip_prefix("ms=")).flatten() {
        thread::sleep(Duration::from_millis(delay.parse().unwrap_or(0)).min(LONGEST_DELAY));
    } else if path == "/set-cookie" {
        more = format!("Set-Cookie: {query}; Path=/\r\n");
    } else if let Some(wanted) = number("/status/").filter(|wanted| (200..600).contains(wanted)) {
        status = wanted;
    }
    let chunked = number("/chunked/");
    let mut body = if let Some(length) = number("/bytes/").or(chunked) {
        vec![b'x'; length.min(LARGEST_ANSWER)]
    } else {
        let received =
            if head.length > 0 || head.chunked { format!(" received={received}") } else { String::new() };
        format!("server={name} peer={peer} cookie={}{received}\n", head.cookie).into_bytes()
    };
    if chunked.is_some() {
        more += "Transfer-Encoding: chunked\r\n";
        body = in_chunks(&body);
    } else {
        let _ = write!(more, "Content-Length: {}\r\n", body.len());
    }
    let connection = if head.close { "Connection: close\r\n" } else { "" };
    let mut bytes =
        format!("HTTP/1.1 {status} Lab\r\nX-Server: {name}\r\n{more}{connection}\r\n").into_bytes();
    if head.method != "HEAD" {
        bytes.append(&mut body);
    }
    bytes
}

fn in_chunks(body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(body.len() + 64);
    for piece in body.chunks(4096) {
        framed.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        framed.extend_from_slice(piece);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_answer_says_who_asked() {
        let head = Head::parse("GET / HTTP/1.1\r\nHost: x\r\nCookie: SRV=s1\r\n\r\n");
        let text = String::from_utf8(answer(&head, "s1", ([10, 20, 1, 1], 40_000).into(), 0)).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 Lab\r\nX-Server: s1\r\nContent-Length: 45\r\n\r\n"), "{text}");
        assert!(text.ends_with("server=s1 peer=10.20.1.1:40000 cookie=SRV=s1\n"), "{text}");
    }

    #[test]
    fn old_clients_and_those_who_ask_for_it_are_closed() {
        assert!(Head::parse("GET / HTTP/1.0\r\n\r\n").close);
        assert!(Head::parse("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").close);
        assert!(!Head::parse("GET / HTTP/1.1\r\n\r\n").close);
    }
}
