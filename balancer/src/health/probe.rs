//! One check of one server: a connection, with `--send-proxy` a PROXY header on it, and with `http=` a request.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Limits, Probe};
use crate::http::fields::Slots;
use crate::http::response;
use crate::log;
use crate::proxy_protocol::{self, Addresses, Version};
use crate::server::Checked;

/// What a check has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    Well,
    /// Serves, and asks to be given nobody new.
    Draining,
    /// What is wrong.
    Ill(String),
    /// The check itself could not be made: this host is short of something. Says nothing about the server.
    NotChecked(String),
}

/// What a check has found, and how HAProxy would put it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Look {
    pub(super) finding: Finding,
    pub(super) checked: Checked,
}

/// Checks the server at `address`, for at most `limit`. A server that is told of clients by a PROXY header wants one here
/// as well: it takes nothing without.
pub(super) async fn check(
    address: SocketAddr,
    probe: &Probe,
    header: Option<Version>,
    limit: Duration,
) -> Look {
    let (started, has_connected) = (Instant::now(), Cell::new(false));
    let looked = timeout(limit, connect_and_ask(address, probe, header, &has_connected)).await;
    let (finding, word, code) = looked.unwrap_or_else(|_| {
        let word = if has_connected.get() { "L7TOUT" } else { "L4TOUT" };
        (Finding::Ill(format!("no answer within {limit:?}")), word, None)
    });
    let said = match &finding {
        Finding::Ill(why) | Finding::NotChecked(why) => why.clone(),
        Finding::Well | Finding::Draining => String::new(),
    };
    Look { finding, checked: Checked { word, code, duration: started.elapsed(), said } }
}

async fn connect_and_ask(
    address: SocketAddr,
    probe: &Probe,
    header: Option<Version>,
    has_connected: &Cell<bool>,
) -> (Finding, &'static str, Option<u16>) {
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) if is_ours(&error) => return (Finding::NotChecked(log::reason(&error)), "L4CON", None),
        Err(error) => return (Finding::Ill(log::reason(&error)), "L4CON", None),
    };
    has_connected.set(true);
    // A reset instead of a farewell: otherwise every check leaves a TIME_WAIT behind.
    let _ = stream.set_zero_linger();
    if let Err(error) = introduce(&mut stream, header).await {
        return (Finding::Ill(format!("PROXY header: {}", log::reason(&error))), "L4CON", None);
    }
    let Probe::Http { path, host, expect, drain_on } = probe else { return (Finding::Well, "L4OK", None) };
    let host = host.clone().unwrap_or_else(|| address.to_string());
    match status(&mut stream, path, &host).await {
        Ok(status) if expect.contains(status) => (Finding::Well, "L7OK", Some(status)),
        Ok(status) if *drain_on == Some(status) => (Finding::Draining, "L7OKC", Some(status)),
        Ok(status) => (Finding::Ill(format!("GET {path} is answered with {status}")), "L7STS", Some(status)),
        Err(why) => (Finding::Ill(format!("GET {path}: {why}")), "L7RSP", None),
    }
}

/// The connection is for nobody: version 2 says just that (LOCAL), and version 1 has its own two ends, since not every
/// server takes `UNKNOWN`.
async fn introduce(stream: &mut TcpStream, header: Option<Version>) -> io::Result<()> {
    let Some(version) = header else { return Ok(()) };
    let own = match version {
        Version::V1 => Some(Addresses { source: stream.local_addr()?, destination: stream.peer_addr()? }),
        Version::V2 => None,
    };
    let mut bytes = Vec::new();
    proxy_protocol::write(&mut bytes, version, own);
    stream.write_all(&bytes).await
}

/// Asks, and reads until the status is known.
async fn status(stream: &mut TcpStream, path: &str, host: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: balancer-check\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| log::reason(&error))?;
    let limits = Limits::default();
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await.map_err(|error| log::reason(&error))? == 0 {
            return Err("the connection ends before the answer".into());
        }
        loop {
            let mut slots = Slots::default();
            let parsed = response::parse(&answer, &mut slots, &limits, false);
            match parsed.map_err(|fault| format!("the answer is malformed: {fault}"))? {
                Some(response) if response.is_interim() => {
                    let length = response.head_length;
                    answer.drain(..length);
                }
                Some(response) => return Ok(response.status),
                None => break,
            }
        }
    }
}

/// Whether a connection failed on this side: this host is short of something, or forbids it. Says nothing about the
/// server.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EPERM
                | Errno::EACCES
        )
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Statuses;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn what_this_host_lacks_is_not_the_servers_fault() {
        use Errno::{EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
        let is_ours = |errno: Errno| is_ours(&io::Error::from_raw_os_error(errno as i32));
        assert!([EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM].into_iter().all(is_ours));
        assert!(![Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ETIMEDOUT].into_iter().any(is_ours));
    }

    #[tokio::test]
    async fn a_listener_is_well_and_a_closed_port_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let look = check(address, &Probe::Tcp, None, LIMIT).await;
        assert_eq!((look.finding, look.checked.word), (Finding::Well, "L4OK"));
        drop(listener);
        let look = check(address, &Probe::Tcp, None, LIMIT).await;
        assert_eq!((look.finding, look.checked.word), (Finding::Ill("connection refused".into()), "L4CON"));
    }

    /// A server that sends `answer` in these pieces to whoever asks, and what it was asked.
    async fn asked(answer: &'static [&'static str], limit: Duration) -> (Look, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = vec![0; 1024];
            let count = stream.read(&mut request).await.expect("read");
            for piece in answer {
                stream.write_all(piece.as_bytes()).await.expect("sent");
                tokio::task::yield_now().await;
            }
            if answer.is_empty() {
                // Until the check gives up.
                let _ = stream.read(&mut [0]).await;
            }
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let probe = Probe::Http {
            path: "/health?deep=1".into(),
            host: Some("app.example".into()),
            expect: Statuses::default(),
            drain_on: Some(404),
        };
        (check(address, &probe, None, limit).await, server.await.expect("server"))
    }

    #[tokio::test]
    async fn the_status_decides() {
        let table: [(&[&str], Finding, &str); 8] = [
            (&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], Finding::Well, "L7OK"),
            (&["HTTP/1.0 302 Found\r\n", "\r\n"], Finding::Well, "L7OK"),
            (&["HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200", " OK\r\n\r\n"], Finding::Well, "L7OK"),
            (&["HTTP/1.1 404 Not Found\r\n\r\n"], Finding::Draining, "L7OKC"),
            (
                &["HTTP/1.1 503 Service Unavailable\r\n\r\n"],
                Finding::Ill("GET /health?deep=1 is answered with 503".into()),
                "L7STS",
            ),
            (
                &["SSH-2.0\r\n"],
                Finding::Ill("GET /health?deep=1: the answer is malformed: malformed head".into()),
                "L7RSP",
            ),
            (
                &["HTTP/1.1 200 OK\r\n"],
                Finding::Ill("GET /health?deep=1: the connection ends before the answer".into()),
                "L7RSP",
            ),
            (
                &["HTTP/1.1 500 No\r\n\r\n"],
                Finding::Ill("GET /health?deep=1 is answered with 500".into()),
                "L7STS",
            ),
        ];
        for (answer, expected, word) in table {
            let (found, request) = asked(answer, LIMIT).await;
            assert_eq!((found.finding, found.checked.word), (expected, word), "{answer:?}");
            assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: app.example\r\n"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_the_request_and_says_nothing_is_ill() {
        let (found, _) = asked(&[], Duration::from_millis(50)).await;
        assert_eq!(found.finding, Finding::Ill("no answer within 50ms".into()));
        assert_eq!(found.checked.word, "L7TOUT");
    }

    #[tokio::test]
    async fn a_server_that_is_told_of_clients_is_told_of_checks() {
        for (version, expected) in [(Version::V1, true), (Version::V2, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("address");
            let server = tokio::spawn(async move {
                let (mut stream, peer) = listener.accept().await.expect("accepted");
                let mut bytes = Vec::new();
                let (header, length) = loop {
                    stream.read_buf(&mut bytes).await.expect("read");
                    if let Some(found) = proxy_protocol::parse(&bytes).expect("a header") {
                        break found;
                    }
                };
                while !bytes.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut bytes).await.expect("read");
                }
                assert!(bytes[length..].starts_with(b"GET /ready "), "the request follows");
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.expect("sent");
                assert_eq!(header.is_some(), expected, "{version:?}: {header:?}");
                assert!(header.is_none_or(|ends| (ends.source, ends.destination) == (peer, address)));
            });
            let probe = Probe::Http {
                path: "/ready".into(),
                host: None,
                expect: Statuses::default(),
                drain_on: None,
            };
            let look = check(address, &probe, Some(version), LIMIT).await;
            assert_eq!(look.finding, Finding::Well);
            server.await.expect("server");
        }
    }
}
