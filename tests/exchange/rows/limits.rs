//! What is too much, and what takes too long.

use crate::exchange::row::{Row, chunked, get, refused, unchanged};

/// `--max-head`, `--max-headers` and the longest target, as they are by default.
const HEAD: usize = 16 * 1024;
const FIELDS: usize = 100;
const TARGET: usize = 8 * 1024;

pub fn rows() -> Vec<Row> {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    let fields = |count: usize| get(&"X: y\r\n".repeat(count - 1));
    let head = |length: usize| {
        let rest = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "y".repeat(length - rest)))
    };
    let large = |name, client: String| refused(name, client, 431, "head too large");
    vec![
        unchanged("the longest target", target(TARGET)),
        refused("a target that is too long", target(TARGET + 1), 414, "request target too long"),
        refused(
            "a request line without end",
            format!("GET /{}", "x".repeat(TARGET)),
            414,
            "request target too long",
        ),
        unchanged("the largest head", head(HEAD)),
        large("a head that is too large", head(HEAD + 1)),
        large("a head without end", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(2 * HEAD))),
        large(
            "a head of many lines without end",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "y".repeat(3000)).repeat(6)),
        ),
        large("a large cookie", get(&format!("Cookie: a={}\r\n", "y".repeat(HEAD)))),
        unchanged("the most fields", fields(FIELDS)),
        refused("too many fields", fields(FIELDS + 1), 431, "too many headers"),
        refused(
            "too many extensions",
            chunked(&format!("5;{}", "a".repeat(HEAD))),
            400,
            "too many bytes around chunks",
        )
        .may_begin(),
        refused(
            "too many trailers",
            chunked(&format!("0\r\n{}", "A: b\r\n".repeat(HEAD / 4 + 1))),
            400,
            "too many bytes around chunks",
        )
        .may_begin(),
        refused("a head that does not come", "GET / HT", 408, "the request head took too long").at_once(),
        refused(
            "a field that does not come",
            "GET / HTTP/1.1\r\nHost: a\r\nX: ",
            408,
            "the request head took too long",
        )
        .at_once(),
    ]
}
