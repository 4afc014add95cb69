//! Socket activation (sd_listen_fds(3)): sockets at which the service manager listens for us, before we run and while we do
//! not.
#![allow(unsafe_code, reason = "descriptors are passed as numbers")]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context as _, bail};
use socket2::{Socket, Type};

use crate::listen::Passed;

/// The sockets that were passed. Each must be at one of these addresses.
///
/// # Errors
/// One is at another address, or nobody could connect to it.
pub(super) fn sockets(wanted: &[SocketAddr]) -> anyhow::Result<Vec<Passed>> {
    let descriptors = sd_notify::listen_fds().context("socket activation: LISTEN_FDS cannot be used")?;
    // SAFETY: whoever has started us says that these are ours, and this is asked once.
    let owned: Vec<_> = descriptors.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }).collect();
    owned.into_iter().map(|descriptor| judge(descriptor.into(), wanted)).collect()
}

fn judge(socket: Socket, wanted: &[SocketAddr]) -> anyhow::Result<Passed> {
    let at = socket.local_addr().ok().and_then(|address| address.as_socket());
    let is_listening =
        socket.r#type().is_ok_and(|kind| kind == Type::STREAM) && socket.is_listener().unwrap_or(false);
    let Some(at) = at.filter(|_| is_listening) else {
        bail!(
            "socket activation: the service manager has passed something that is not a listening TCP socket; write \
             ListenStream=ADDR:PORT, with the address of a --listen, into the .socket unit, and no Accept=yes"
        );
    };
    if !wanted.contains(&at) {
        let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        bail!(
            "socket activation: the service manager has passed a socket at {at}, which no --listen names: there is \
             {}; make ListenStream= of the .socket unit and --listen the same",
            wanted.join(" ")
        );
    }
    if at.is_ipv6() && at.ip().is_unspecified() && !socket.only_v6().unwrap_or(true) {
        bail!(
            "socket activation: the service manager's socket at {at} takes IPv4 as well, which --listen {at} does not mean; \
             write BindIPv6Only=ipv6-only into the .socket unit, and ListenStream=0.0.0.0:{} for IPv4",
            at.port()
        );
    }
    socket.set_nonblocking(true).context("socket activation")?;
    Ok(Passed { asked: at, listener: TcpListener::from(socket) })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_is_passed_must_be_what_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let at = listener.local_addr().expect("an address");
        let other = SocketAddr::from(([127, 0, 0, 2], 80));
        let copy = || Socket::from(listener.try_clone().expect("a descriptor"));
        assert_eq!(judge(copy(), &[other, at]).expect("asked for").asked, at);
        let refused = judge(copy(), &[other]).expect_err("not asked for").to_string();
        assert!(refused.contains(&at.to_string()) && refused.contains("127.0.0.2:80"), "{refused}");
    }

    #[test]
    fn a_socket_of_both_families_is_not_what_was_asked_for() {
        let socket = |only_v6| {
            let socket = Socket::new(socket2::Domain::IPV6, Type::STREAM, None).expect("a socket");
            socket.set_only_v6(only_v6).expect("set");
            socket.bind(&SocketAddr::from(([0_u16; 8], 0)).into()).expect("bound");
            socket.listen(1).expect("listening");
            let at = socket.local_addr().ok().and_then(|at| at.as_socket()).expect("an address");
            judge(socket, &[at])
        };
        assert!(socket(true).is_ok());
        assert!(socket(false).expect_err("both").to_string().contains("BindIPv6Only=ipv6-only"));
    }

    #[test]
    fn what_nobody_can_connect_to_is_refused() {
        let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let silent = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).expect("a socket");
        for socket in [Socket::from(datagrams), silent] {
            let refused = judge(socket, &[]).expect_err("of no use").to_string();
            assert!(refused.contains("not a listening TCP socket"), "{refused}");
        }
    }
}
