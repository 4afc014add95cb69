//! The short answers that the balancer makes itself, as text or, for those who prefer it, as JSON. No cookie is ever
//! issued on them: no server has answered.

use super::response::Connection;

/// In what form it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// `{"status":503,"error":"…"}`.
    Json,
}

/// Whether an `Accept` asks for JSON before it allows HTML or anything at all: by the order of its types, as programs
/// and browsers write them, whatever weights they give.
pub fn prefers_json(accept: &[u8]) -> bool {
    let types = accept
        .split(|&byte| byte == b',')
        .map(|range| range.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii());
    let is_json = |range: &[u8]| range.eq_ignore_ascii_case(b"application/json");
    let is_other = |range: &[u8]| range == b"*/*" || range.eq_ignore_ascii_case(b"text/html");
    types.into_iter().find(|range| is_json(range) || is_other(range)).is_some_and(is_json)
}

/// What a client that comes in vain is told to wait. Long enough for a server to be found well again (two checks, 2 s
/// apart), and not so long that a person would go elsewhere.
const RETRY_AFTER: &str = "5";

/// A reply: its status and one line for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// What went wrong, without a trailing full stop or line end.
    pub text: &'static str,
}

impl Reply {
    /// Writes the whole response; without its body for a HEAD request.
    pub fn write(&self, out: &mut Vec<u8>, format: Format, connection: Connection, to_head: bool) {
        let mut number = itoa::Buffer::new();
        let status = number.format(self.status);
        // No text has a character that JSON would escape.
        let (kind, body) = match format {
            Format::Text => ("text/plain", [status, " ", self.text, "\n", ""]),
            Format::Json => {
                ("application/json", ["{\"status\":", status, ",\"error\":\"", self.text, "\"}\n"])
            }
        };
        let length: usize = body.iter().map(|part| part.len()).sum();
        for part in [
            "HTTP/1.1 ",
            status,
            " ",
            reason(self.status),
            "\r\nContent-Type: ",
            kind,
            "\r\nContent-Length: ",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\nCache-Control: no-store\r\n");
        if self.status == 405 {
            // CONNECT is the one method that is refused, so every other would be right (RFC 9110 §15.5.6).
            out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        if self.status == 503 {
            // Whatever it is that is missing, it is not missing for ever (RFC 9110 §15.6.4).
            for part in ["Retry-After: ", RETRY_AFTER, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(connection.lines());
        out.extend_from_slice(b"\r\n");
        if !to_head {
            for part in body {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::body::Framing;
    use crate::http::fields::Slots;
    use crate::http::response::parse;

    #[test]
    fn json_is_for_those_who_name_it_first() {
        for accept in
            ["application/json", "Application/JSON;q=0.9, */*", "text/plain , application/json, text/html"]
        {
            assert!(prefers_json(accept.as_bytes()), "{accept}");
        }
        for accept in
            ["", "*/*", "text/html, application/json", "*/*;q=0.1,application/json", "application/json5", ","]
        {
            assert!(!prefers_json(accept.as_bytes()), "{accept}");
        }
    }

    #[test]
    fn is_a_response_that_we_would_accept_ourselves() {
        for status in [400, 405, 408, 414, 431, 501, 502, 503, 504, 505] {
            let mut out = Vec::new();
            for format in [Format::Text, Format::Json] {
                out.clear();
                let reply = Reply { status, text: "no server is available" };
                reply.write(&mut out, format, Connection::Close, false);
                let mut slots = Slots::default();
                let response =
                    parse(&out, &mut slots, &Limits::default(), false).expect("accepted").expect("whole");
                assert_eq!(response.framing, Framing::Length((out.len() - response.head_length) as u64));
                assert!(!response.keep_alive);
                assert_ne!(reason(status), "");
                let head = String::from_utf8_lossy(&out[..response.head_length]);
                assert_eq!(head.contains("\r\nRetry-After: 5\r\n"), status == 503);
                if format == Format::Json {
                    let body: serde_json::Value =
                        serde_json::from_slice(&out[response.head_length..]).expect("JSON");
                    assert_eq!(
                        body,
                        serde_json::json!({"status": status, "error": "no server is available"})
                    );
                }
            }
        }
    }
}
