//! Asking a link who has an address of IPv4 (RFC 826): one question, and the first answer that is not ours.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Hosts on a link answer within a few milliseconds.
const PATIENCE: Duration = Duration::from_millis(300);
const ETHERNET: usize = 14;
const ARP: [u8; 2] = [0x08, 0x06];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const LENGTH: usize = ETHERNET + 28;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Who answers for `wanted` on that interface, asked by `own`, its address there.
///
/// # Errors
/// Without `CAP_NET_RAW`, or where there is no Ethernet.
pub(super) fn who_has(interface: &str, own: Ipv4Addr, wanted: Ipv4Addr) -> io::Result<Option<Mac>> {
    let link = link_address(interface).ok_or_else(|| io::Error::other("it has no Ethernet address"))?;
    let mac = link.addr().map(Mac).ok_or_else(|| io::Error::other("it has no Ethernet address"))?;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(socket.as_raw_fd(), &link)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
    send(socket.as_raw_fd(), &request(mac, own, wanted), MsgFlags::empty())?;
    let begun = Instant::now();
    let mut frame = [0; 2048];
    while begun.elapsed() < PATIENCE {
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(other) = answer(&frame[..length], wanted).filter(|other| *other != mac) {
                    return Ok(Some(other));
                }
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

fn link_address(interface: &str) -> Option<LinkAddr> {
    getifaddrs()
        .ok()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address.as_ref()?.as_link_addr().copied())
}

/// To everybody: who has it?
fn request(mac: Mac, own: Ipv4Addr, wanted: Ipv4Addr) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ARP);
    // Ethernet, IPv4, their lengths.
    frame[14..21].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0]);
    frame[21] = REQUEST;
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&own.octets());
    frame[38..42].copy_from_slice(&wanted.octets());
    frame
}

/// Who says that the address is theirs.
fn answer(frame: &[u8], wanted: Ipv4Addr) -> Option<Mac> {
    let is_reply = frame.get(12..14)? == ARP && frame.get(20..22)? == [0, REPLY];
    let is_about = frame.get(28..32)? == wanted.octets();
    (is_reply && is_about).then_some(Mac(frame.get(22..28)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_a_question_and_from_other_answers() {
        let (mac, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let (own, wanted) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(answer(&request(mac, own, wanted), wanted), None);
        let mut reply = request(other, wanted, own);
        reply[21] = REPLY;
        assert_eq!(answer(&reply, wanted), Some(other));
        assert_eq!(answer(&reply, own), None, "about somebody else");
        assert_eq!(answer(&reply[..30], wanted), None, "half of one");
    }
}
