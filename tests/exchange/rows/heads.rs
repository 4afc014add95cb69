//! Request lines and header lines: what is a head at all.

use crate::exchange::row::{OK, Row, get, passes, refused, reply, unchanged};

const SYNTAX: &str = "malformed head";
const LINE_END: &str = "line end is not CR LF";
const TARGET: &str = "bad request target";
const VERSION: &str = "HTTP version not supported";

fn malformed(name: &'static str, client: impl AsRef<[u8]>) -> Row {
    refused(name, client, 400, SYNTAX)
}

pub fn rows() -> Vec<Row> {
    [methods_and_targets(), versions(), line_ends(), fields()].concat()
}

fn methods_and_targets() -> Vec<Row> {
    vec![
        unchanged("a plain request", get("")),
        unchanged("a method nobody knows", "BREW /pot?milk=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
        unchanged("a method of every character", "!#$%&'*+-.^_`|~aZ9 / HTTP/1.1\r\nHost: a\r\n\r\n"),
        unchanged("a method in lower case is another method", "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        unchanged("trace is a method like any other", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "CONNECT is not available"),
        refused(
            "connect to a path",
            "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
            405,
            "CONNECT is not available",
        ),
        unchanged("options of everything", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("a star is for options", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, TARGET),
        unchanged(
            "a target of odd characters",
            "GET /a;b=c,d/../%2e%2E/%00/\"<>\\^`{|}?q?x=[] HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        unchanged("two slashes are a path", "GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400, TARGET),
        refused("a target beyond ascii", "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n", 400, TARGET),
        malformed("a target that is not utf-8", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a delete in the target", "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a control in the target", "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a nul in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("a target without a slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400, TARGET),
        malformed("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("two spaces after the method", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a tab after the method", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a vertical tab after the method", "GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a space before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a space after the version", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        malformed("a bracket in the method", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a nul in the method", "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a colon in the method", "Host: / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a greeting of tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ]
}

fn versions() -> Vec<Row> {
    vec![
        malformed("http 0.9", "GET /\r\n\r\n"),
        refused("http 0.9 by number", "GET / HTTP/0.9\r\n\r\n", 505, VERSION),
        refused("http 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, VERSION),
        refused("http 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, VERSION),
        refused("the preface of http 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, VERSION),
        malformed("http in lower case", "GET / http/1.1\r\nHost: a\r\n\r\n"),
        malformed("http 1.01", "GET / HTTP/1.01\r\nHost: a\r\n\r\n"),
        malformed("http 01.1", "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
        malformed("http 1", "GET / HTTP/1\r\nHost: a\r\n\r\n"),
        malformed("a comma in the version", "GET / HTTP/1,1\r\nHost: a\r\n\r\n"),
        malformed("a space in the version", "GET / HTTP/ 1.1\r\nHost: a\r\n\r\n"),
        malformed("another protocol", "GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
    ]
}

fn line_ends() -> Vec<Row> {
    let cut = |name, client: &str| refused(name, client, 400, "the request head is incomplete").half_closes();
    vec![
        passes("empty lines before a request", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", get("")),
        refused("bare line feeds", "GET / HTTP/1.1\nHost: a\n\n", 400, LINE_END),
        refused("a bare line feed after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, LINE_END),
        refused("a bare line feed after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, LINE_END),
        refused("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, LINE_END),
        refused("a bare line feed before a request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, LINE_END),
        malformed("a carriage return before a request", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("a carriage return after the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        malformed("a carriage return in a value", get("X: a\rb\r\n")),
        malformed("a carriage return and a line in a value", get("X: a\rContent-Length: 5\r\n")),
        malformed("two carriage returns", get("X: a\r\r\n")),
        malformed("a carriage return at the end", "GET / HTTP/1.1\r\nHost: a\r\n\rX"),
        malformed("a carriage return in a name", get("X\rY: a\r\n")),
        cut("half a head and the end", "GET / HTTP/1.1\r\nHo"),
        cut("a head without its empty line and the end", "GET / HTTP/1.1\r\nHost: a\r\n"),
    ]
}

fn fields() -> Vec<Row> {
    vec![
        passes("space around a value", get("X: \t y \t\r\n"), get("X: y\r\n")),
        passes("no space before a value", get("X:y\r\n"), get("X: y\r\n")),
        passes("no value", get("X:\r\n"), get("X: \r\n")),
        unchanged("a tab in a value", get("X: a\tb\r\n")),
        unchanged(
            "bytes beyond ascii in a value",
            [b"GET / HTTP/1.1\r\nHost: a\r\nX: \xfc\xff\r\n\r\n".as_slice()].concat(),
        ),
        unchanged("a name of every character", get("!#$%&'*+-.^_`|~aZ9: y\r\n")),
        unchanged("the same name twice", get("X: 1\r\nX: 2\r\n")),
        malformed("a space before the colon", get("X : y\r\n")),
        malformed("a tab before the colon", get("X\t: y\r\n")),
        malformed("a space before the colon of a length", get("Content-Length : 5\r\n")),
        malformed("a space before the colon of a coding", get("Transfer-Encoding : chunked\r\n")),
        malformed("a vertical tab before the colon of a coding", get("Transfer-Encoding\x0b: chunked\r\n")),
        malformed("a space in a name", get("Content Length: 5\r\n")),
        malformed("a folded value", get("X: y\r\n z\r\n")),
        malformed("a value folded by a tab", get("X: y\r\n\tz\r\n")),
        malformed("a folded coding", get("Transfer-Encoding:\r\n chunked\r\n")),
        malformed("a space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        malformed("a space before a field", get(" X: y\r\n")),
        malformed("an empty name", get(": y\r\n")),
        malformed("a line without a colon", get("X\r\n")),
        malformed("a quote in a name", get("\"X\": y\r\n")),
        malformed("a name beyond ascii", get("\u{fc}: y\r\n")),
        malformed("a nul in a name", get("X\0: y\r\n")),
        malformed("a nul in a value", get("X: a\0b\r\n")),
        malformed("a nul at the end of a value", get("X: a\0\r\n")),
        malformed("a control in a value", get("X: a\x01b\r\n")),
        malformed("a vertical tab in a value", get("X: a\x0bb\r\n")),
        malformed("a form feed in a value", get("X: a\x0cb\r\n")),
        malformed("a delete in a value", get("X: a\x7fb\r\n")),
        refused(
            "a pipelined request after an error is not served",
            format!("{}{}", get("X : y\r\n"), get("")),
            400,
            SYNTAX,
        ),
        unchanged("an error after a good request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .then_client("GET /2\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
            .tells(format!("{OK}{}", reply(400, SYNTAX, true)))
            .closed(),
    ]
}
