//! Answers of a server that are as they should be.

use crate::exchange::row::{OK, Row, answered, get, passes, unchanged};

pub fn rows() -> Vec<Row> {
    [lengths(), without_body(), interim(), fields(), to_1_0()].concat()
}

/// As it came, and to the byte.
fn relayed(name: &'static str, answer: &str) -> Row {
    answered(name, answer, answer)
}

fn lengths() -> Vec<Row> {
    vec![
        relayed("a length", "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"),
        relayed("a length of zero", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        relayed("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n"),
        relayed(
            "chunks with trailers",
            "HTTP/1.1 200 OK\r\nTrailer: Digest\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nDigest: x\r\n\r\n",
        ),
        answered(
            "until the end",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        )
        .server_closes()
        .closed(),
        answered(
            "until the end in 1.0",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        )
        .server_closes()
        .closed(),
        answered(
            "a length in 1.0",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        )
        .server_closes(),
        answered(
            "zeros before a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ),
        answered(
            "bytes behind an answer",
            format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
            OK,
        ),
        answered("nonsense behind an answer", format!("{OK}nonsense"), OK),
        answered(
            "a body that is cut",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        )
        .server_closes()
        .closed(),
        answered(
            "chunks that are cut",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        )
        .server_closes()
        .closed(),
    ]
}

fn without_body() -> Vec<Row> {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let to_head = |name, answer: &str, at_client: &str| unchanged(name, head).server(answer).tells(at_client);
    let plain = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let in_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        to_head("head with a length", plain, plain),
        to_head("head with chunks", in_chunks, in_chunks),
        to_head("head without a length", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"),
        to_head(
            "head with a body all the same",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        relayed("204", "HTTP/1.1 204 No Content\r\n\r\n"),
        answered(
            "204 with a length",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        answered(
            "204 with a body all the same",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        answered(
            "204 with chunks all the same",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        relayed("304", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        relayed(
            "304 with the length of what it leaves out",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        answered(
            "304 with a body all the same",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
        relayed("205 with a length", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    ]
}

fn interim() -> Vec<Row> {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    vec![
        relayed("early hints", &format!("{hints}{OK}")),
        relayed(
            "a series of interim answers",
            &format!("HTTP/1.1 100 Continue\r\n\r\n{hints}HTTP/1.1 102 Processing\r\n\r\n{hints}{OK}"),
        ),
        answered(
            "an interim answer with a length",
            format!("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n{OK}"),
            format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}"),
        ),
        answered(
            "an interim answer that speaks of the connection",
            format!("HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n{OK}"),
            format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}"),
        ),
        relayed("an interim answer nobody knows", &format!("HTTP/1.1 199 Wait\r\n\r\n{OK}")),
    ]
}

fn fields() -> Vec<Row> {
    vec![
        answered(
            "fields for this hop",
            "HTTP/1.1 200 OK\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nX-B: 2\r\nContent-Length: 2\r\n\r\nok",
        ),
        answered(
            "an upgrade on offer",
            "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        answered(
            "a length that connection names",
            "HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok",
            OK,
        ),
        relayed(
            "several cookies",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nok",
        ),
        relayed("no reason", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok"),
        answered(
            "no space for a reason",
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
        ),
        relayed("a reason of several words", "HTTP/1.1 200 All is well!\r\nContent-Length: 2\r\n\r\nok"),
        relayed("a status nobody knows", "HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok"),
        answered(
            "space around values",
            "HTTP/1.1 200 OK\r\nX:\t y \r\nContent-Length:2 \r\n\r\nok",
            "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\nok",
        ),
    ]
}

fn to_1_0() -> Vec<Row> {
    let old = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let row =
        |name, answer: &str, at_client: &str| passes(name, old, get("")).server(answer).tells(at_client);
    let in_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        row(
            "1.0 knows no chunks",
            &format!("{in_chunks}5\r\nhello\r\n0\r\nDigest: x\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        )
        .closed(),
        row(
            "1.0 and chunks that are cut",
            &format!("{in_chunks}5\r\nhello\r\n"),
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        )
        .server_closes()
        .reset(),
        row(
            "1.0 hears no interim answers",
            &format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK}"),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        ),
    ]
}
