//! A TCP socket that the reactor hears of only when it has to be waited for.
//!
//! A client that opens a connection for one request has mostly sent it by the time it is accepted, and takes its answer
//! at once. Such a connection is read, written and closed without ever being registered, which saves two system calls
//! of its six and a turn of the event loop.

use std::io::{self, Read, Write};
use std::mem::{self, MaybeUninit};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection, not blocking.
#[derive(Debug)]
pub(super) struct Socket(State);

#[derive(Debug)]
enum State {
    /// Nobody has had to wait for it yet.
    Loose(std::net::TcpStream),
    Registered(TcpStream),
    /// The reactor would not have it.
    Lost,
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(State::Registered(stream))
    }
}

impl Socket {
    /// A socket that was just accepted; it must not block.
    pub(super) fn accepted(stream: std::net::TcpStream) -> Self {
        Self(State::Loose(stream))
    }

    /// Reads what there is; nothing is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::Loose(stream) = &mut self.0 {
            match stream.read(space.initialize_unfilled()) {
                Ok(count) => {
                    space.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if !must_wait(&error) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
        // Unlike `try_read`, this learns from a short read that the socket is empty, which saves the system call that
        // would only say so.
        Pin::new(self.registered()?).poll_read(cx, space)
    }

    /// Writes some of `bytes`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let State::Loose(stream) = &mut self.0 {
            match stream.write(bytes) {
                Err(error) if must_wait(&error) => {}
                outcome => return Poll::Ready(outcome),
            }
        }
        Pin::new(self.registered()?).poll_write(cx, bytes)
    }

    /// There is something to read, or an end, or an error.
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_read_ready(cx)
    }

    /// Has never been waited for, so trying is cheaper than asking.
    pub(super) fn is_loose(&self) -> bool {
        matches!(self.0, State::Loose(_))
    }

    /// Ends our side; what is on its way still arrives.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        self.raw()?.shutdown(Shutdown::Write)
    }

    /// Closing it will look like a failure to the peer, not like an end.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        self.raw()?.set_linger(Some(Duration::ZERO))
    }

    /// Our address.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.raw()?.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Nothing has come in on an idle connection, neither an end nor bytes that nobody asked for. Costs no system call
    /// as long as the reactor has seen nothing.
    pub(super) fn is_quiet(&self) -> bool {
        let State::Registered(stream) = &self.0 else { return false };
        if stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return true;
        }
        matches!(stream.try_read(&mut [0]), Err(error) if must_wait(&error))
    }

    /// The same, asking the kernel: also sees what arrived since the reactor looked.
    pub(super) fn is_quiet_now(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        matches!(self.raw().and_then(|socket| socket.peek(&mut byte)), Err(error) if must_wait(&error))
    }

    #[cfg(test)]
    pub(super) fn sends_at_once(&self) -> io::Result<bool> {
        self.raw()?.tcp_nodelay()
    }

    fn raw(&self) -> io::Result<SockRef<'_>> {
        match &self.0 {
            State::Loose(stream) => Ok(SockRef::from(stream)),
            State::Registered(stream) => Ok(SockRef::from(stream)),
            State::Lost => Err(lost()),
        }
    }

    fn registered(&mut self) -> io::Result<&mut TcpStream> {
        if self.is_loose()
            && let State::Loose(stream) = mem::replace(&mut self.0, State::Lost)
        {
            self.0 = State::Registered(TcpStream::from_std(stream)?);
        }
        match &mut self.0 {
            State::Registered(stream) => Ok(stream),
            State::Loose(_) | State::Lost => Err(lost()),
        }
    }
}

fn lost() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

fn must_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
