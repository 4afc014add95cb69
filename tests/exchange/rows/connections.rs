//! What is for this hop only, and how long the hop lasts (RFC 9112 §9, RFC 9110 §7.6).

use crate::exchange::row::{OK, Row, get, passes, post, unchanged};

/// The default answer to a client that is told about its connection.
fn ok(connection: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: {connection}\r\n\r\nok")
}

pub fn rows() -> Vec<Row> {
    [lasting(), pipelined(), hop_by_hop(), waiting(), upgrades()].concat()
}

fn lasting() -> Vec<Row> {
    let old = |fields: &str| format!("GET / HTTP/1.0\r\nHost: a\r\n{fields}\r\n");
    vec![
        passes("close", get("Connection: close\r\n"), get("")).tells(ok("close")).closed(),
        passes("close in other letters", get("connection: CLOSE\r\n"), get("")).tells(ok("close")).closed(),
        passes("close in a list", get("Connection: x, close\r\n"), get("")).tells(ok("close")).closed(),
        passes("close in a second line", get("Connection: x\r\nConnection: close\r\n"), get(""))
            .tells(ok("close"))
            .closed(),
        passes("close and keep-alive", get("Connection: keep-alive, close\r\n"), get(""))
            .tells(ok("close"))
            .closed(),
        passes("keep-alive", get("Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"), get("")),
        passes("something that only contains close", get("Connection: closed\r\n"), get("")),
        passes("1.0", old(""), get("")).tells(ok("close")).closed(),
        passes("1.0 with keep-alive", old("Connection: Keep-Alive\r\n"), get("")).tells(ok("keep-alive")),
        passes("1.0 with both", old("Connection: keep-alive, close\r\n"), get(""))
            .tells(ok("close"))
            .closed(),
        passes("1.0 with keep-alive for a proxy", old("Proxy-Connection: keep-alive\r\n"), get(""))
            .tells(ok("close"))
            .closed(),
        unchanged("a client that ends its side is answered", get("")).half_closes().closed(),
        passes(
            "an upgrade that nobody takes",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
            get(""),
        ),
        passes("a server that wants to close", get(""), get(""))
            .server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            .server_closes(),
    ]
}

fn pipelined() -> Vec<Row> {
    let numbered = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = |n: u32| format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}");
    let answers =
        |rows: Row| (1..=3).fold(rows, |row, n| row.server(answer(n))).tells([1, 2, 3].map(answer).concat());
    vec![
        answers(unchanged("three requests at once", [1, 2, 3].map(numbered).concat())),
        answers(unchanged(
            "requests behind bodies",
            [
                post("Content-Length: 5\r\n", "hello"),
                post("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
                numbered(3),
            ]
            .concat(),
        )),
        answers(passes(
            "empty lines between requests",
            [numbered(1), "\r\n".into(), numbered(2), "\r\n\r\n".into(), numbered(3)].concat(),
            [1, 2, 3].map(numbered).concat(),
        )),
        passes("a request after close is not served", get("Connection: close\r\n") + &numbered(2), get(""))
            .tells(ok("close"))
            .closed()
            .at_once(),
    ]
}

fn hop_by_hop() -> Vec<Row> {
    vec![
        passes(
            "fields that connection names",
            get("Connection: X-A, x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n"),
            get("X-C: 3\r\n"),
        ),
        passes(
            "fields that a later connection names",
            get("X-A: 1\r\nConnection: y\r\nConnection: X-A\r\n"),
            get(""),
        ),
        passes(
            "fields that are for one hop anyway",
            get("TE: gzip\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\n"),
            get(""),
        ),
        passes("a host that connection names", get("Connection: Host\r\n"), get("")),
        passes(
            "a length that connection names",
            post("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"),
            post("Content-Length: 5\r\n", "hello"),
        ),
        passes(
            "a coding that connection names",
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        passes("a cookie that connection names", get("Connection: Cookie\r\nCookie: a=b\r\n"), get("")),
        passes(
            "an authorization that connection names",
            get("Connection: Authorization\r\nAuthorization: x\r\n"),
            get(""),
        ),
        passes("an empty connection", get("Connection:\r\n"), get("")),
        passes("a connection of commas", get("Connection: ,, ,\r\nX-A: 1\r\n"), get("X-A: 1\r\n")),
        passes(
            "a connection that names nothing that is there",
            get("Connection: X-A\r\nX-B: 1\r\n"),
            get("X-B: 1\r\n"),
        ),
        passes("a connection that names connection", get("Connection: Connection\r\n"), get("")),
    ]
}

fn waiting() -> Vec<Row> {
    let expecting = post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello");
    vec![
        unchanged("a client that would have waited", &expecting)
            .server(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}"))
            .tells(format!("HTTP/1.1 100 Continue\r\n\r\n{OK}")),
        unchanged("an expectation of another kind", get("Expect: miracles\r\n")),
    ]
}

/// Only a WebSocket is let through, and the server has to agree before anything else is.
fn upgrades() -> Vec<Row> {
    let wish =
        get("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
    let refusal = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
    let consent = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01hello";
    let without = |name, fields: &str, rest: &str| passes(name, get(&format!("{fields}X: y\r\n")), get(rest));
    vec![
        unchanged("a websocket", &wish).server(consent).server_closes().tells(consent).closed(),
        unchanged("a websocket that is refused", &wish).server(refusal).tells(refusal),
        unchanged("a request behind a websocket that is refused", wish.clone() + &get(""))
            .server(refusal)
            .tells(format!("{refusal}{OK}")),
        unchanged("a websocket that is answered otherwise", &wish),
        without("an upgrade that connection does not name", "Upgrade: websocket\r\n", "X: y\r\n"),
        without(
            "an upgrade to one of several",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
            "X: y\r\n",
        ),
        without("two upgrades", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", "X: y\r\n"),
        without("an upgrade to tls", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n", "X: y\r\n"),
        passes(
            "an upgrade with a body",
            post("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"),
            post("Content-Length: 5\r\n", "hello"),
        ),
        passes(
            "an upgrade in 1.0",
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            get(""),
        )
        .tells(ok("close"))
        .closed(),
    ]
}
