//! Passing descriptors to another process: `SCM_RIGHTS`, which the standard library does not offer.
#![allow(unsafe_code, reason = "nix hands received descriptors out as numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Descriptors in one message; the kernel takes 253 (`SCM_MAX_FD`).
pub const MOST: usize = 200;

/// Sends `bytes`, few enough to go as one, and at most [`MOST`] descriptors beside them; or nothing.
///
/// # Errors
/// `WouldBlock` for a socket that does not block, and what the kernel refuses.
pub fn send(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let sent =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives bytes, at most as many as `piece` has room for, and the descriptors that come with them. 0 is the end.
///
/// # Errors
/// When the socket fails, or this process cannot take the descriptors for want of its own.
pub fn receive(socket: &impl AsRawFd, piece: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = cmsg_space!([RawFd; MOST]);
    let mut slices = [IoSliceMut::new(piece)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs().map_err(|_| Errno::EMFILE)? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_received_is_the_same_open_file() {
        let (mut ours, theirs) = UnixStream::pair().expect("pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        ours.write_all(b"before").expect("sent");
        send(&ours, b"+", &[listener.as_raw_fd(); 3]).expect("sent");
        let (mut bytes, mut received) = (0, Vec::new());
        while bytes < 7 {
            bytes += receive(&theirs, &mut [0; 64], &mut received).expect("received");
        }
        assert_eq!(received.len(), 3);
        let address = listener.local_addr().expect("address");
        drop(listener);
        for descriptor in received {
            assert_eq!(TcpListener::from(descriptor).local_addr().expect("listening"), address);
        }
        drop(theirs);
        assert_eq!(ours.read(&mut [0]).expect("the end"), 0);
    }
}
