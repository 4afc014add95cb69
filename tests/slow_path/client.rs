//! A client that sends exactly the bytes it is given.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::{Message, PATIENCE, Reader};

pub struct Client(pub Reader);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self(Reader::new(TcpStream::connect_timeout(&address, PATIENCE).expect("connect")))
    }

    /// A client with an address of its own: all of 127/8 is local.
    pub fn connect_from(source: &str, address: SocketAddr) -> Self {
        Self::try_connect_from(source, address).expect("connect")
    }

    /// The same for one that may be reset as soon as it is there.
    pub fn try_connect_from(source: &str, address: SocketAddr) -> io::Result<Self> {
        let source = SocketAddr::new(source.parse::<IpAddr>().expect("address"), 0);
        let socket = Socket::new(Domain::for_address(source), Type::STREAM, None).expect("socket");
        socket.bind(&source.into()).expect("bind");
        socket.connect_timeout(&address.into(), PATIENCE)?;
        Ok(Self(Reader::new(socket.into())))
    }

    /// A slowloris: a byte every `pause`, until the other side has had enough; how many it took. What is answered can
    /// be read afterwards.
    pub fn drip(&mut self, bytes: &[u8], pause: Duration) -> usize {
        for (count, byte) in bytes.iter().enumerate() {
            let is_answered = poll_in(&self.0.stream, pause);
            if is_answered || self.0.stream.write_all(&[*byte]).is_err() {
                return count;
            }
        }
        bytes.len()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.stream.write_all(bytes.as_ref()).expect("send");
        self
    }

    /// Sends a GET and returns the answer.
    pub fn get(&mut self, target: &str) -> Message {
        self.get_with(target, "")
    }

    /// The same with header lines, each ended by CR LF.
    pub fn get_with(&mut self, target: &str, headers: &str) -> Message {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        self.response()
    }

    pub fn get_with_cookie(&mut self, cookie: &str) -> Message {
        self.get_with("/", &format!("Cookie: {cookie}\r\n"))
    }

    /// The next response.
    pub fn response(&mut self) -> Message {
        self.0.message(true).expect("read").expect("a response")
    }

    /// The next response, which answers HEAD.
    pub fn response_to_head(&mut self) -> Message {
        self.0.message(false).expect("read").expect("a response")
    }

    /// No byte more, and an orderly end.
    pub fn expect_end(&mut self) {
        let rest = self.0.rest().expect("an orderly end");
        assert!(rest.is_empty(), "after the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Everything until the end, be it a reset.
    pub fn rest_of_any_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = self.0.stream.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    }

    /// Everything until the end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.0.rest()
    }
}

/// Whether something can be read within `patience`.
fn poll_in(stream: &TcpStream, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).expect("a short time");
    poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], patience).expect("poll") > 0
}
