//! How the end of a request's body is found: Content-Length and Transfer-Encoding (RFC 9112 §6). Where two programs
//! find different ends, the second request is the attacker's.

use crate::exchange::row::{Row, get, passes, post, refused, unchanged};

const LENGTH: &str = "malformed Content-Length";
const CODING: &str = "bad Transfer-Encoding";
const BOTH: &str = "Content-Length with Transfer-Encoding";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn length(name: &'static str, value: &str) -> Row {
    refused(name, post(&format!("Content-Length:{value}\r\n"), "hello"), 400, LENGTH)
}

fn coding(name: &'static str, value: &str) -> Row {
    refused(name, post(&format!("Transfer-Encoding:{value}\r\n"), "0\r\n\r\n"), 400, CODING)
}

pub fn rows() -> Vec<Row> {
    [lengths(), codings(), both()].concat()
}

fn lengths() -> Vec<Row> {
    vec![
        unchanged("a body with a length", post("Content-Length: 5\r\n", "hello")),
        unchanged("a length of zero", post("Content-Length: 0\r\n", "")),
        unchanged("no length is no body", post("", "")),
        unchanged("a get with a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
        unchanged(
            "a body that looks like a request",
            post(&format!("Content-Length: {}\r\n", SMUGGLED.len()), SMUGGLED),
        ),
        passes(
            "zeros before a length",
            post("Content-Length: 005\r\n", "hello"),
            post("Content-Length: 5\r\n", "hello"),
        ),
        passes(
            "space around a length",
            post("Content-Length: \t5 \r\n", "hello"),
            post("Content-Length: 5\r\n", "hello"),
        ),
        length("no digits", ""),
        length("a positive length", " +5"),
        length("a negative length", " -5"),
        length("a length of minus zero", " -0"),
        length("a hexadecimal length", " 0x5"),
        length("a length in letters", " five"),
        length("a fraction", " 5.0"),
        length("an exponent", " 1e1"),
        length("a list of equal lengths", " 5, 5"),
        length("a list of unequal lengths", " 5, 6"),
        length("a list with a comma at its end", " 5,"),
        length("a list with a comma at its start", " ,5"),
        length("a space within a length", " 5 5"),
        length("a quoted length", " \"5\""),
        length("a length beyond 63 bits", " 9223372036854775808"),
        length("a length beyond 64 bits", " 18446744073709551616"),
        length("a length of 5 modulo 64 bits", " 18446744073709551621"),
        length("digits of another script", " \u{665}"),
        length("a length with an underscore", " 1_0"),
        length("a semicolon behind a length", " 5;"),
        refused(
            "two equal lengths",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            400,
            LENGTH,
        ),
        refused(
            "two unequal lengths",
            post("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"),
            400,
            LENGTH,
        ),
        refused(
            "two lengths in other letters",
            post("Content-Length: 0\r\ncONTENT-lENGTH: 5\r\n", "hello"),
            400,
            LENGTH,
        ),
        refused(
            "a malformed length after a good one",
            post("Content-Length: 5\r\nContent-Length: +5\r\n", "hello"),
            400,
            LENGTH,
        ),
        refused("a malformed length in a get", get("Content-Length: x\r\n"), 400, LENGTH),
        unchanged("a name that is not quite a length", get("Content_Length: 5\r\n")),
    ]
}

fn codings() -> Vec<Row> {
    let forwarded = post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n");
    vec![
        unchanged("a chunked body", &forwarded),
        passes(
            "a coding in other letters",
            post("tRANSFER-eNCODING:cHUNKED\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            &forwarded,
        ),
        passes(
            "space around a coding",
            post("Transfer-Encoding: \t chunked \r\n", "5\r\nhello\r\n0\r\n\r\n"),
            &forwarded,
        ),
        unchanged(
            "a chunked get",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        coding("no coding", ""),
        coding("identity", " identity"),
        coding("a prefix of chunked", " chunke"),
        coding("a coding that ends in chunked", " xchunked"),
        coding("a coding that starts with chunked", " chunkedx"),
        coding("chunked and then identity", " chunked, identity"),
        coding("chunked and then gzip", " chunked, gzip"),
        coding("chunked twice", " chunked, chunked"),
        coding("a comma after chunked", " chunked,"),
        coding("a semicolon after chunked", " chunked;"),
        coding("a parameter of chunked", " chunked;q=1"),
        coding("chunked in quotes", " \"chunked\""),
        coding("chunked in single quotes", " 'chunked'"),
        coding("chunked after a space of another kind", " \u{a0}chunked"),
        coding("chunked before bytes beyond ascii", " chunked\u{ff}"),
        coding("a dotless i nowhere", " chun\u{212a}ed"),
        coding("chunked with a tab in it", " chun\tked"),
        coding("a colon before chunked", " : chunked"),
        refused(
            "chunked and a vertical tab",
            post("Transfer-Encoding: chunked\x0b\r\n", "0\r\n\r\n"),
            400,
            "malformed head",
        ),
        refused(
            "chunked and a nul",
            post("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n"),
            400,
            "malformed head",
        ),
        refused(
            "chunked in two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            CODING,
        ),
        refused(
            "chunked and identity in two lines",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            400,
            CODING,
        ),
        refused(
            "identity and chunked in two lines",
            post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            CODING,
        ),
        refused(
            "gzip and then chunked",
            post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
            501,
            "transfer coding not implemented",
        ),
        refused(
            "chunked in 1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            CODING,
        ),
        passes(
            "a coding that only the sender accepts",
            get("TE: trailers, chunked\r\n"),
            get("TE: trailers\r\nConnection: TE\r\n"),
        ),
        unchanged("a name that is not quite a coding", get("Transfer_Encoding: chunked\r\n")),
        unchanged("another name that is not quite a coding", get("X-Transfer-Encoding: chunked\r\n")),
    ]
}

fn both() -> Vec<Row> {
    let refuse = |name, fields: &str, body: &str| refused(name, post(fields, body), 400, BOTH);
    vec![
        refuse(
            "a length and then a coding",
            "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\nX",
        ),
        refuse(
            "a coding and then a length",
            "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
            "5c\r\nGPOST / HTTP/1.1\r\n",
        ),
        refuse(
            "a length of zero and a coding",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        refused(
            "a length and a coding that is none",
            post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"),
            400,
            CODING,
        ),
        refused(
            "a length and an empty coding",
            post("Content-Length: 5\r\nTransfer-Encoding:\r\n", "hello"),
            400,
            CODING,
        ),
        refused(
            "a length and a coding that connection names",
            post(
                "Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
            400,
            BOTH,
        ),
        refused(
            "a length and a folded coding",
            post("Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
            400,
            "malformed head",
        ),
        refused(
            "a coding hidden behind a carriage return",
            post("Content-Length: 5\r\nX: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            "malformed head",
        ),
        refused(
            "a coding hidden behind a line feed",
            post("Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            "line end is not CR LF",
        ),
    ]
}
