//! The short answers that the balancer makes itself. No cookie is ever issued on them: no server has answered.

use super::response::Connection;

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
    pub fn write(&self, out: &mut Vec<u8>, connection: Connection, to_head: bool) {
        let mut number = itoa::Buffer::new();
        let status = number.format(self.status);
        // The body: status, space, text, line feed.
        let length = status.len() + 1 + self.text.len() + 1;
        for part in [
            "HTTP/1.1 ",
            status,
            " ",
            reason(self.status),
            "\r\nContent-Type: text/plain\r\nContent-Length: ",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\nCache-Control: no-store\r\n");
        if self.status == 405 {
            // CONNECT is the one method that is refused, so every other would be right (RFC 9110 §15.5.6).
            out.extend_from_slice(b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        out.extend_from_slice(connection.lines());
        out.extend_from_slice(b"\r\n");
        if !to_head {
            for part in [status, " ", self.text, "\n"] {
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
    fn is_a_response_that_we_would_accept_ourselves() {
        for status in [400, 405, 408, 414, 431, 501, 502, 503, 504, 505] {
            let mut out = Vec::new();
            Reply { status, text: "no server is available" }.write(&mut out, Connection::Close, false);
            let mut slots = Slots::default();
            let response =
                parse(&out, &mut slots, &Limits::default(), false).expect("accepted").expect("whole");
            assert_eq!(response.framing, Framing::Length((out.len() - response.head_length) as u64));
            assert!(!response.keep_alive);
            assert_ne!(reason(status), "");
        }
    }
}
