//! A socket and what has been read from it.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::buffer::{Buffer, Buffers};
use super::socket::Socket;

/// One side of a session.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) input: Buffer,
    received: u64,
}

impl Connection {
    pub(super) fn new(socket: Socket, buffers: &Rc<Buffers>) -> Self {
        Self { socket, input: Buffer::new(buffers), received: 0 }
    }

    /// Reads what there is, at least one byte; 0 is the end. Must not be called with a full buffer.
    ///
    /// Waits without holding storage.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_with(cx, 0)
    }

    /// The same, when `expected` bytes are to come.
    pub(super) fn poll_fill_with(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        if !self.input.has_storage() && !self.socket.is_loose() {
            ready!(self.socket.poll_read_ready(cx))?;
        }
        self.input.expect(expected);
        let mut space = ReadBuf::new(self.input.spare());
        let Poll::Ready(outcome) = self.socket.poll_read(cx, &mut space) else {
            self.input.release();
            return Poll::Pending;
        };
        outcome?;
        let count = space.filled().len();
        self.input.added(count);
        self.received += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Bytes read since this was asked last.
    pub(super) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }
}

/// Writes some of `bytes`.
pub(super) fn poll_write(socket: &mut Socket, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(socket.poll_write(cx, bytes)) {
        Ok(0) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        outcome => Poll::Ready(outcome),
    }
}

/// A connection, and its other end.
#[cfg(test)]
pub(super) fn pair() -> (Connection, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let peer = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (stream, _) = listener.accept().expect("loopback connections are in the queue at once");
    stream.set_nonblocking(true).expect("option");
    (Connection::new(Socket::accepted(stream), &Buffers::new(1024)), peer)
}
