//! A client that sends exactly the bytes it is given.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

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

    /// Everything until the end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.0.rest()
    }
}
