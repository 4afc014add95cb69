//! One row of the table: what a client sends, what its server answers, and what must arrive on either side.

use super::wire::{self, AnswerTo, Message};

/// What the server answers when the row does not say.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sent after a row whose connection stays open: both sides must still agree on where a message begins.
pub const PROBE: &str = "GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n";

/// Stands for the address that the client has connected to.
pub const LISTEN: &str = "{listen}";

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It takes another request.
    Open,
    /// It ends in order.
    Closed,
    /// It is reset, so that nobody takes its end for the end of the message.
    Reset,
}

/// An exchange.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub client: Vec<u8>,
    /// The client ends its side after its bytes.
    pub half_closes: bool,
    /// It is refused for its body, of which a beginning passes when it does not come all at once.
    pub may_begin: bool,
    /// It is played in one piece only.
    pub at_once: bool,
    /// The server's answers, in the order of the requests; [`OK`] when there are no more.
    pub server: Vec<Vec<u8>>,
    /// The server closes the connection after each of them.
    pub server_closes: bool,
    pub at_server: Vec<u8>,
    pub at_client: Vec<u8>,
    pub end: End,
}

/// A request that passes in the form of `at_server` and is answered with [`OK`].
pub fn passes(name: &'static str, client: impl AsRef<[u8]>, at_server: impl AsRef<[u8]>) -> Row {
    Row {
        name,
        client: client.as_ref().to_vec(),
        half_closes: false,
        may_begin: false,
        at_once: false,
        server: Vec::new(),
        server_closes: false,
        at_server: at_server.as_ref().to_vec(),
        at_client: OK.into(),
        end: End::Open,
    }
}

/// A request that passes as it is.
pub fn unchanged(name: &'static str, client: impl AsRef<[u8]>) -> Row {
    passes(name, client.as_ref(), client.as_ref())
}

/// A request of which nothing passes; the client is told and the connection ended.
pub fn refused(name: &'static str, client: impl AsRef<[u8]>, status: u16, text: &str) -> Row {
    passes(name, client, "").tells(reply(status, text, true)).closed()
}

/// A plain GET, answered by the server with `server`, of which `at_client` arrives.
pub fn answered(name: &'static str, server: impl AsRef<[u8]>, at_client: impl AsRef<[u8]>) -> Row {
    unchanged(name, get("")).server(server).tells(at_client)
}

/// A plain GET whose answer is malformed: nothing of it arrives.
pub fn bad_gateway(name: &'static str, server: impl AsRef<[u8]>) -> Row {
    answered(name, server, reply(502, "the server's answer is malformed", false)).server_closes()
}

impl Row {
    /// One more answer of the server.
    pub fn server(mut self, answer: impl AsRef<[u8]>) -> Self {
        self.server.push(answer.as_ref().to_vec());
        self
    }

    /// More of what the client sends, of which nothing reaches the server.
    pub fn then_client(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.client.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn server_closes(self) -> Self {
        Self { server_closes: true, ..self }
    }

    pub fn half_closes(self) -> Self {
        Self { half_closes: true, ..self }
    }

    pub fn may_begin(self) -> Self {
        Self { may_begin: true, ..self }
    }

    /// It is not played in pieces: it waits for a time-out, or the client does what it has said it would not.
    pub fn at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    /// What arrives at the client.
    pub fn tells(self, at_client: impl AsRef<[u8]>) -> Self {
        Self { at_client: at_client.as_ref().to_vec(), ..self }
    }

    pub fn closed(self) -> Self {
        Self { end: End::Closed, ..self }
    }

    pub fn reset(self) -> Self {
        Self { end: End::Reset, ..self }
    }

    /// What the first response answers.
    pub fn answer_to(&self) -> AnswerTo {
        if self.client.starts_with(b"HEAD ") { AnswerTo::Head } else { AnswerTo::Other }
    }

    /// Final responses that must arrive.
    pub fn finals(&self) -> usize {
        let ended = self.end != End::Open;
        wire::responses(&self.at_client, self.answer_to(), ended).iter().filter(|m| m.status() >= 200).count()
    }

    /// What the expected bytes mean, to be compared with what another proxy makes of the row.
    pub fn meaning(&self) -> Meaning {
        Meaning::of(&self.at_server, &self.at_client, self.answer_to())
    }
}

/// What matters of an exchange, whoever was in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Of each request that reached the server: method, target, host, content.
    requests: Vec<(String, String, String, String)>,
    /// Of each response that reached the client: status, and the content where it is the server's.
    responses: Vec<(u16, String)>,
}

impl Meaning {
    pub fn of(mut at_server: &[u8], at_client: &[u8], answer_to: AnswerTo) -> Self {
        let mut requests = Vec::new();
        while let Some(request) = wire::request(at_server) {
            at_server = &at_server[request.length..];
            let host = request.header("host").filter(|host| !is_ours(host)).unwrap_or("").to_owned();
            let [method, target] = [0, 1].map(|index| request.word(index).to_owned());
            requests.push((method, target, host, text(&request)));
        }
        if !at_server.is_empty() {
            let part = format!("{} bytes of a message that is not whole", at_server.len());
            requests.push((part, String::new(), String::new(), String::new()));
        }
        let responses = wire::responses(at_client, answer_to, true).into_iter().map(|response| {
            let status = response.status();
            (status, if status < 400 { text(&response) } else { String::new() })
        });
        Self { requests, responses: responses.collect() }
    }
}

/// The host that a proxy makes up for a client without one, which every proxy makes up differently.
fn is_ours(host: &str) -> bool {
    host == LISTEN || host.starts_with("127.0.0.1") || host == "origin"
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

/// A GET with these fields, each ended by CR LF.
pub fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// A POST with these fields, each ended by CR LF, and these bytes behind the head.
pub fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

/// A POST with a chunked body.
pub fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// What the balancer says itself.
pub fn reply(status: u16, text: &str, closes: bool) -> String {
    let reason = match status {
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        505 => "HTTP Version Not Supported",
        _ => "?",
    };
    let body = format!("{status} {text}\n");
    let allow = if status == 405 { "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" } else { "" };
    let connection = if closes { "Connection: close\r\n" } else { "" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\n{allow}{connection}\r\n{body}"
    )
}
