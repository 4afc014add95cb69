//! Host and the forms of a target (RFC 9112 §3.2).

use crate::exchange::row::{LISTEN, Row, get, passes, refused, unchanged};

const HOST: &str = "missing, repeated or malformed Host";

fn with(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn bad(name: &'static str, host: &str) -> Row {
    refused(name, with(host), 400, HOST)
}

fn bad_target(name: &'static str, target: &str) -> Row {
    refused(name, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "bad request target")
}

pub fn rows() -> Vec<Row> {
    [hosts(), absolute()].concat()
}

fn hosts() -> Vec<Row> {
    vec![
        unchanged("a host with a port", with("a.example:8080")),
        unchanged("an address", with("192.0.2.1:80")),
        unchanged("an address of version 6", with("[2001:db8::1]:80")),
        unchanged("a host of odd characters", with("a_b~c!d")),
        unchanged("an empty port", with("a:")),
        unchanged("an empty host", with("")),
        refused("no host", "GET / HTTP/1.1\r\n\r\n", 400, HOST),
        refused("no host but an absolute target", "GET http://a/ HTTP/1.1\r\n\r\n", 400, HOST),
        refused("two hosts", get("Host: b\r\n"), 400, HOST),
        refused("two equal hosts", get("Host: a\r\n"), 400, HOST),
        refused("a second host in other letters", get("hOST: b\r\n"), 400, HOST),
        bad("a space in a host", "a b"),
        bad("a tab in a host", "a\tb"),
        bad("two hosts in one line", "a, b"),
        bad("two hosts and no space", "a,b"),
        bad("a port and no host", ":80"),
        bad("a path in a host", "a/b"),
        bad("a query in a host", "a?b"),
        bad("a fragment in a host", "a#b"),
        bad("a user in a host", "u@a"),
        bad("a user and a password in a host", "u:p@a"),
        bad("a port that is no number", "a:80x"),
        bad("two ports", "a:80:80"),
        bad("a signed port", "a:-1"),
        bad("an open bracket", "[::1"),
        bad("nothing in brackets", "[]"),
        bad("something behind brackets", "[::1]a"),
        bad("a bare address of version 6", "::1"),
        bad("a quote in a host", "a\"b"),
        bad("a backslash in a host", "a\\b"),
        bad("a host beyond ascii", "\u{fc}"),
        passes(
            "no host in 1.0",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            format!("GET / HTTP/1.1\r\nHost: {LISTEN}\r\n\r\n"),
        )
        .tells("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"),
        refused("two hosts in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, HOST),
    ]
}

fn absolute() -> Vec<Row> {
    let absolute =
        |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n");
    let origin = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX: y\r\n\r\n");
    vec![
        passes("an absolute target", absolute("http://a/b?c", "a"), origin("/b?c", "a")),
        passes("an absolute target and another host", absolute("http://b:8080/", "a"), origin("/", "b:8080")),
        passes("an absolute target without a path", absolute("http://b", "b"), origin("/", "b")),
        passes("an absolute target with a query only", absolute("http://b?q", "b"), origin("/?q", "b")),
        passes("a scheme in other letters", absolute("HTTP://b/", "b"), origin("/", "b")),
        passes("a secure scheme", absolute("https://b/", "b"), origin("/", "b")),
        passes(
            "options of a whole host",
            "OPTIONS http://b HTTP/1.1\r\nHost: b\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
        ),
        passes(
            "an absolute target in 1.0",
            "GET http://b/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        )
        .tells("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"),
        bad_target("a user in an authority", "http://u@b/"),
        bad_target("a user and a password in an authority", "http://u:p@b/"),
        bad_target("an empty authority", "http:///a"),
        bad_target("a port without a host", "http://:80/"),
        bad_target("a scheme without slashes", "http:b"),
        bad_target("another scheme", "ftp://b/"),
        bad_target("a scheme of a proxy trick", "view-source://b/"),
        bad_target("an authority of two hosts", "http://b,c/"),
        bad_target("a backslash in an authority", "http://b\\c/"),
        bad_target("a fragment in an absolute target", "http://b/#c"),
        refused(
            "an absolute target and two hosts",
            "GET http://b/ HTTP/1.1\r\nHost: b\r\nHost: b\r\n\r\n",
            400,
            HOST,
        ),
    ]
}
