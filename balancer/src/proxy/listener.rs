//! A listening socket whose connections are accepted without being registered with the reactor ([`Socket`]).

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::Socket;

/// A listening socket. `mio`'s own accepts in one system call what then does not block and is not inherited.
#[derive(Debug)]
pub(super) struct Listener(AsyncFd<mio::net::TcpListener>);

impl Listener {
    /// Takes a bound and listening socket for use in this runtime.
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // Linux hands this down to accepted connections, which saves a system call for each.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let listener = mio::net::TcpListener::from_std(listener);
        #[allow(unsafe_code, reason = "the reactor is told a descriptor, not who owns it")]
        // SAFETY: the descriptor belongs to `listener`, which is neither replaced nor closed while the `AsyncFd` owns it.
        let registered = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Waits for a connection. Nothing is lost if this is given up.
    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        self.0.async_io(Interest::READABLE, accept).await
    }

    /// A connection that is in the queue now; [`io::ErrorKind::WouldBlock`] if there is none.
    pub(super) fn accept_now(&self) -> io::Result<(Socket, SocketAddr)> {
        accept(self.0.get_ref())
    }
}

fn accept(listener: &mio::net::TcpListener) -> io::Result<(Socket, SocketAddr)> {
    let (stream, peer) = listener.accept()?;
    Ok((Socket::accepted(stream.into()), peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn accepted_connections_send_without_delay_and_do_not_block() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let listener = Listener::new(listener).expect("listener");
        let _client = std::net::TcpStream::connect(address).expect("connect");
        let (accepted, _) = listener.accept().await.expect("accepted");
        assert!(accepted.sends_at_once().expect("option"));
        assert_eq!(
            listener.accept_now().map(|_| ()).map_err(|error| error.kind()),
            Err(io::ErrorKind::WouldBlock)
        );
    }
}
