//! The chunked coding (RFC 9112 §7.1), towards the server.

use crate::exchange::row::{Row, chunked, refused, unchanged};

fn bad(name: &'static str, body: &str) -> Row {
    refused(name, chunked(body), 400, "malformed chunk").may_begin()
}

pub fn rows() -> Vec<Row> {
    [good(), sizes(), line_ends(), extensions_and_trailers()].concat()
}

fn good() -> Vec<Row> {
    vec![
        unchanged("no content", chunked("0\r\n\r\n")),
        unchanged("two chunks", chunked("4\r\nWiki\r\nC\r\npedia in ch.\r\n0\r\n\r\n")),
        unchanged("digits of both cases", chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n")),
        unchanged("zeros before a size", chunked("0005\r\nhello\r\n000\r\n\r\n")),
        unchanged("content that looks like the end", chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n")),
        unchanged("an extension", chunked("5;a=b;c=\"d;e\"\r\nhello\r\n0;f\r\n\r\n")),
        unchanged("a space before an extension", chunked("5 ;a\r\nhello\r\n0\r\n\r\n")),
        unchanged("trailers", chunked("5\r\nhello\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n")),
    ]
}

fn sizes() -> Vec<Row> {
    vec![
        bad("no size", "\r\nhello\r\n0\r\n\r\n"),
        bad("a positive size", "+5\r\nhello\r\n0\r\n\r\n"),
        bad("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        bad("a size of minus zero", "-0\r\n\r\n"),
        bad("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad("a size with h", "5h\r\nhello\r\n0\r\n\r\n"),
        bad("a space before a size", " 5\r\nhello\r\n0\r\n\r\n"),
        bad("a tab before a size", "\t5\r\nhello\r\n0\r\n\r\n"),
        bad("a space after a size", "5 \r\nhello\r\n0\r\n\r\n"),
        bad("a space within a size", "1 0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        bad("an underscore in a size", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        bad("a comma after a size", "5,\r\nhello\r\n0\r\n\r\n"),
        bad("a nul after a size", "5\0\r\nhello\r\n0\r\n\r\n"),
        bad("a size beyond 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("a size of 16 f and more", "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        bad("a size with too many zeros", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad("digits of another script", "\u{665}\r\nhello\r\n0\r\n\r\n"),
        bad("a chunk that is longer than its size", "4\r\nhello\r\n0\r\n\r\n"),
        bad("a chunk that is shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
        bad("a second chunk without its size", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ]
}

fn line_ends() -> Vec<Row> {
    vec![
        bad("a bare line feed after a size", "5\nhello\r\n0\r\n\r\n"),
        bad("a bare carriage return after a size", "5\rhello\r\n0\r\n\r\n"),
        bad("two carriage returns after a size", "5\r\r\nhello\r\n0\r\n\r\n"),
        bad("a bare line feed after content", "5\r\nhello\n0\r\n\r\n"),
        bad("a bare carriage return after content", "5\r\nhello\r0\r\n\r\n"),
        bad("nothing after content", "5\r\nhello0\r\n\r\n"),
        bad("a bare line feed after the last size", "0\n\r\n"),
        bad("a bare line feed at the end", "0\r\n\n"),
        bad("a bare carriage return at the end", "0\r\n\rX"),
        bad("bare line feeds everywhere", "5\nhello\n0\n\n"),
    ]
}

fn extensions_and_trailers() -> Vec<Row> {
    vec![
        bad("a bare line feed in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        bad("a bare carriage return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad("a nul in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        bad("a control in an extension", "5;a\x01\r\nhello\r\n0\r\n\r\n"),
        bad("a request in an extension", "0;a\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a trailer without a colon", "0\r\nX\r\n\r\n"),
        bad("a trailer without a name", "0\r\n: y\r\n\r\n"),
        bad("a trailer with a space before its colon", "0\r\nX : y\r\n\r\n"),
        bad("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        bad("a trailer that starts with a space", "0\r\n X: y\r\n\r\n"),
        bad("a bare line feed after a trailer", "0\r\nX: y\n\r\n"),
        bad("a bare carriage return in a trailer", "0\r\nX: y\rz\r\n\r\n"),
        bad("a nul in a trailer", "0\r\nX: \0\r\n\r\n"),
        bad("a request in place of a trailer", "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
}
