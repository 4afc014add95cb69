//! A socket and what has been read from it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{Buffer, Buffers};

/// One side of a session.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) input: Buffer,
    received: u64,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, buffers: &Rc<Buffers>) -> Self {
        Self { stream, input: Buffer::new(buffers), received: 0 }
    }

    /// Reads what there is, at least one byte; 0 is the end. Must not be called with a full buffer.
    ///
    /// Waits without holding storage. `poll_read`, unlike `try_read`, learns from a short read that the socket is
    /// empty, which saves the system call that would only say so.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.input.has_storage() {
            ready!(self.stream.poll_read_ready(cx))?;
        }
        let mut space = ReadBuf::new(self.input.spare());
        let Poll::Ready(outcome) = Pin::new(&mut self.stream).poll_read(cx, &mut space) else {
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
pub(super) fn poll_write(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(stream).poll_write(cx, bytes)) {
        Ok(0) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        outcome => Poll::Ready(outcome),
    }
}

/// Nothing has come in on an idle connection, neither an end nor bytes that nobody asked for. Costs no system call
/// as long as the reactor has seen nothing.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    if stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
        return true;
    }
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The same, asking the kernel: also sees what arrived since the reactor looked.
pub(super) fn is_quiet_now(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    matches!(SockRef::from(stream).peek(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
