//! What the tests of the slow path stand on: a worker in a thread, origins that behave or misbehave, and a client that
//! sends raw bytes. Everything on loopback and on ports the kernel chooses; every wait is bounded.

pub mod balancer;
mod balancing;
mod capacity;
mod cases;
pub mod client;
mod descriptors;
mod explain;
mod failures;
mod haproxy;
mod health;
mod hostile;
mod httplog;
mod identity;
mod messages;
pub mod origin;
mod parallel;
mod persistence;
mod private;
mod queueing_compared;
mod sessions;
mod tcp;
mod tunnel;
mod waiting;

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for anything in these tests.
/// As long as nobody waits for it where all is well: for what has to happen on a host that others keep busy, too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A message as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Header lines in order, as sent.
    pub headers: Vec<(String, String)>,
    /// The body, chunks included as they came.
    pub body: Vec<u8>,
}

impl Message {
    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v).collect()
    }

    /// The value of a header that stands there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands there {} times", all.len());
        all.first().copied()
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads messages off a socket, keeping what follows for the next call.
pub struct Reader {
    pub stream: TcpStream,
    held: Vec<u8>,
}

impl Reader {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, held: Vec::new() }
    }

    /// One more read; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.held.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.held.drain(..count).collect()
    }

    /// The next head; `None`: the peer has nothing more to say.
    pub fn head(&mut self) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(at) = find(&self.held, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more()? {
                let rest = String::from_utf8_lossy(&self.held);
                assert!(rest.is_empty(), "the connection ends in the middle of a head: {rest:?}");
                return Ok(None);
            }
        };
        let text = String::from_utf8(self.take(end)).expect("heads are text here");
        let mut lines = text.trim_end().split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header line");
                (name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned())
            })
            .collect();
        Ok(Some(Message { start, headers, body: Vec::new() }))
    }

    /// The next message with its body, framed by its own head; `has_body`: false after HEAD.
    pub fn message(&mut self, has_body: bool) -> io::Result<Option<Message>> {
        let Some(mut message) = self.head()? else { return Ok(None) };
        if message.header("transfer-encoding").is_some() && has_body {
            message.body = self.chunks()?;
        } else if let Some(length) = message.header("content-length").filter(|_| has_body) {
            let length = length.parse().expect("a number");
            while self.held.len() < length {
                assert!(self.more()?, "the body is cut after {} bytes", self.held.len());
            }
            message.body = self.take(length);
        }
        Ok(Some(message))
    }

    /// The next `count` bytes, whatever they are.
    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < count {
            assert!(self.more()?, "the bytes are cut after {}", self.held.len());
        }
        Ok(self.take(count))
    }

    /// There is something to read, or an end.
    pub fn has_more(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("option");
        let is_there = !self.held.is_empty() || self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).expect("option");
        is_there
    }

    /// Closing it will be a failure for the peer, not an end.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("option");
    }

    /// The next bytes, so many of them.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < count {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(count))
    }

    /// Everything until the peer ends its side; an error if it resets the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.held))
    }

    /// The raw chunked body. The tests send no trailers except where they look at them themselves.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.held, b"0\r\n\r\n") {
                return Ok(self.take(at + 5));
            }
            assert!(self.more()?, "the chunks are cut");
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}
