//! Answers of a server that are not as they should be: 502, and nothing of them is relayed.

use crate::exchange::row::{OK, Row, bad_gateway, get, reply, unchanged};

fn with(name: &'static str, fields: &str, body: &str) -> Row {
    bad_gateway(name, format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"))
}

pub fn rows() -> Vec<Row> {
    [status_lines(), fields(), lengths(), chunks(), series()].concat()
}

fn cut(name: &'static str, answer: &str) -> Row {
    unchanged(name, get("")).server(answer).server_closes().tells(reply(
        502,
        "the server closed the connection",
        false,
    ))
}

fn status_lines() -> Vec<Row> {
    let rest = "Content-Length: 2\r\n\r\nok";
    let line = |name, line: &str| bad_gateway(name, format!("{line}\r\n{rest}"));
    vec![
        cut("nothing", ""),
        cut("half a head", "HTTP/1.1 200 OK\r\nContent-Le"),
        bad_gateway("a greeting of another protocol", "SSH-2.0-OpenSSH_9.2\r\n"),
        bad_gateway("http 0.9", "hello"),
        bad_gateway("an empty line before the answer", format!("\r\n{OK}")),
        line("http 2.0", "HTTP/2.0 200 OK"),
        line("http 1.2", "HTTP/1.2 200 OK"),
        line("http in lower case", "http/1.1 200 OK"),
        line("a status of two digits", "HTTP/1.1 20 OK"),
        line("a status of four digits", "HTTP/1.1 2000 OK"),
        line("a status below 100", "HTTP/1.1 099 OK"),
        line("a negative status", "HTTP/1.1 -20 OK"),
        line("a status in letters", "HTTP/1.1 2xx OK"),
        line("no status", "HTTP/1.1  OK"),
        line("two spaces before the status", "HTTP/1.1  200 OK"),
        line("a control in the reason", "HTTP/1.1 200 O\x01K"),
        line("a nul in the reason", "HTTP/1.1 200 O\0K"),
        line("a carriage return in the reason", "HTTP/1.1 200 O\rK"),
    ]
}

fn fields() -> Vec<Row> {
    let field = |name, field: &str| with(name, &format!("{field}\r\nContent-Length: 2\r\n"), "ok");
    vec![
        bad_gateway("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        bad_gateway("a bare line feed after the status line", "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok"),
        field("a bare line feed after a field", "X: a\nY: b"),
        field("a carriage return in a value", "X: a\rSet-Cookie: b=c"),
        field("a space before the colon", "X : y"),
        field("a folded value", "X: y\r\n z"),
        field("a space before a field", " X: y"),
        field("an empty name", ": y"),
        field("a line without a colon", "X"),
        field("a nul in a value", "X: a\0b"),
        field("a control in a value", "X: a\x01b"),
        field("a name beyond ascii", "\u{fc}: y"),
        with("too many fields", &"X: y\r\n".repeat(101), ""),
        with("a head that is too large", &format!("X: {}\r\n", "y".repeat(16 * 1024)), ""),
        bad_gateway(
            "a head without end",
            format!(
                "HTTP/1.1 200 OK\r\n{}",
                "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(300)
            ),
        ),
    ]
}

fn lengths() -> Vec<Row> {
    let length = |name, value: &str| with(name, &format!("Content-Length: {value}\r\n"), "ok");
    let coding =
        |name, value: &str| with(name, &format!("Transfer-Encoding: {value}\r\n"), "2\r\nok\r\n0\r\n\r\n");
    vec![
        length("no digits", ""),
        length("a positive length", "+2"),
        length("a negative length", "-2"),
        length("a hexadecimal length", "0x2"),
        length("a list of equal lengths", "2, 2"),
        length("a length beyond 64 bits", "18446744073709551618"),
        with("two equal lengths", "Content-Length: 2\r\nContent-Length: 2\r\n", "ok"),
        with("two unequal lengths", "Content-Length: 2\r\nContent-Length: 3\r\n", "ok"),
        with(
            "a length and a coding",
            "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
            "2\r\nok\r\n0\r\n\r\n",
        ),
        with(
            "a coding and a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
            "2\r\nok\r\n0\r\n\r\n",
        ),
        coding("identity", "identity"),
        coding("gzip and chunked", "gzip, chunked"),
        coding("chunked and identity", "chunked, identity"),
        coding("a coding that ends in chunked", "xchunked"),
        with(
            "chunked in two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "2\r\nok\r\n0\r\n\r\n",
        ),
        bad_gateway(
            "chunked in 1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
    ]
}

fn chunks() -> Vec<Row> {
    let chunks = |name, body: &str| with(name, "Transfer-Encoding: chunked\r\n", body);
    vec![
        chunks("a chunk without a size", "\r\nok\r\n0\r\n\r\n"),
        chunks("a chunk with a positive size", "+2\r\nok\r\n0\r\n\r\n"),
        chunks("a chunk with 0x", "0x2\r\nok\r\n0\r\n\r\n"),
        chunks("a size beyond 64 bits", "10000000000000002\r\nok\r\n0\r\n\r\n"),
        chunks("a chunk with bare line feeds", "2\nok\n0\n\n"),
        chunks("a chunk that is longer than its size", "1\r\nok\r\n0\r\n\r\n"),
        chunks("a trailer without a colon", "0\r\nX\r\n\r\n"),
        chunks("a trailer with a bare line feed", "0\r\nX: y\nZ: z\r\n\r\n"),
    ]
}

fn series() -> Vec<Row> {
    let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
    vec![
        bad_gateway(
            "101 that nobody has asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        bad_gateway(
            "a malformed answer after an interim one",
            format!("{hints}HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
        )
        .tells(format!("{hints}{}", reply(502, "the server's answer is malformed", false))),
        bad_gateway("interim answers without end", hints.repeat(120))
            .tells(hints.repeat(100) + &reply(502, "the server's answer is malformed", false)),
    ]
}
