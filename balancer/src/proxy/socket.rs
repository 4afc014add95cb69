//! A TCP socket that the reactor hears of only when it has to be waited for.
//!
//! A client that opens a connection for one request has mostly sent it by the time it is accepted, and takes its answer
//! at once. Such a connection is read, written and closed without ever being registered, which saves two system calls
//! of its six and a turn of the event loop.

use std::io::{self, Read, Write};
use std::mem::{self, MaybeUninit};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// More is to come, though it is only the end: the kernel waits for it with the bytes that do not fill a packet.
const LAST: i32 = libc::MSG_MORE | libc::MSG_NOSIGNAL;

/// A connection, not blocking.
#[derive(Debug)]
pub(super) struct Socket {
    state: State,
    /// What is written from now on is the last, and it is closed behind it.
    is_ending: bool,
}

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
        Self { state: State::Registered(stream), is_ending: false }
    }
}

impl Socket {
    /// A socket that was just accepted; it must not block.
    pub(super) fn accepted(stream: std::net::TcpStream) -> Self {
        Self { state: State::Loose(stream), is_ending: false }
    }

    /// Reads what there is; nothing is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let State::Loose(stream) = &mut self.state {
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

    /// Everything that is left to be written is here, and the socket is dropped as soon as it has been: the end goes out
    /// with the last bytes instead of in a packet of its own.
    pub(super) fn will_end(&mut self) {
        self.is_ending = true;
    }

    /// Writes some of `bytes`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_ending {
            return self.poll_write_last(cx, bytes);
        }
        if let State::Loose(stream) = &mut self.state {
            match stream.write(bytes) {
                Err(error) if must_wait(&error) => {}
                outcome => return Poll::Ready(outcome),
            }
        }
        Pin::new(self.registered()?).poll_write(cx, bytes)
    }

    fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let State::Loose(stream) = &self.state {
            match SockRef::from(stream).send_with_flags(bytes, LAST) {
                Err(error) if must_wait(&error) => {}
                outcome => return Poll::Ready(outcome),
            }
        }
        let stream = self.registered()?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let send = || SockRef::from(&*stream).send_with_flags(bytes, LAST);
            match stream.try_io(Interest::WRITABLE, send) {
                Err(error) if must_wait(&error) => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// There is something to read, or an end, or an error.
    pub(super) fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.registered()?.poll_read_ready(cx)
    }

    /// Has never been waited for, so trying is cheaper than asking.
    pub(super) fn is_loose(&self) -> bool {
        matches!(self.state, State::Loose(_))
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
        let State::Registered(stream) = &self.state else { return false };
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
        match &self.state {
            State::Loose(stream) => Ok(SockRef::from(stream)),
            State::Registered(stream) => Ok(SockRef::from(stream)),
            State::Lost => Err(lost()),
        }
    }

    fn registered(&mut self) -> io::Result<&mut TcpStream> {
        if self.is_loose()
            && let State::Loose(stream) = mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Registered(TcpStream::from_std(stream)?);
        }
        match &mut self.state {
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn the_end_goes_out_with_the_last_bytes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client =
            std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (accepted, _) = listener.accept().expect("accepted");
        accepted.set_nonblocking(true).expect("set");
        let mut socket = Socket::accepted(accepted);
        socket.will_end();
        // More than the kernel holds, so that it has to be waited for.
        let bytes = vec![b'x'; 64 * 1024 * 1024];
        let mut sent = 0;
        while let Poll::Ready(count) =
            socket.poll_write(&mut Context::from_waker(Waker::noop()), &bytes[sent..])
        {
            sent += count.expect("written");
        }
        assert!(!socket.is_loose() && sent < bytes.len());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).map(|_| all.len())
        });
        while sent < bytes.len() {
            sent += poll_fn(|cx| socket.poll_write(cx, &bytes[sent..])).await.expect("written");
        }
        drop(socket);
        assert_eq!(reader.join().expect("no panic").expect("an orderly end"), bytes.len());
    }
}
