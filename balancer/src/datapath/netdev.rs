//! Two questions about an interface, asked over netlink: can it transmit XDP frames, and how is a program attached.
//!
//! The first is of the `netdev` family (Documentation/netlink/specs/netdev.yaml), which no well-kept library speaks; for
//! two numbers a library for the second alone would be more to read than this.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_NDO_XMIT`
const TRANSMITS: u64 = 1 << 2;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_GETLINK: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of a `struct genlmsghdr`.
const GENERIC: usize = 4;
/// Bytes of a `struct ifinfomsg`.
const IFINFO: usize = 16;

/// Whether the driver takes XDP frames for this interface now; `None`: this kernel (before 6.3) does not say.
///
/// For veth the answer is "no" until the peer has GRO on, or a program: frames would vanish without a trace.
pub fn transmits(ifindex: u32) -> Option<bool> {
    let family = ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, b"netdev\0").ok()?;
    let family = attribute(&family, CTRL_ATTR_FAMILY_ID)?;
    let family = u16::from_ne_bytes(family.get(..2)?.try_into().ok()?);
    let answer = ask(family, NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes()).ok()?;
    let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES)?;
    Some(u64::from_ne_bytes(features.get(..8)?.try_into().ok()?) & TRANSMITS != 0)
}

/// The mode that a program is attached in, `native` or `generic`; `None`: there is none.
pub fn attached_mode(ifindex: u32) -> Option<&'static str> {
    let mut request = [0; IFINFO];
    request[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let answer = exchange(SockProtocol::NetlinkRoute, RTM_GETLINK, &request).ok()?;
    let xdp = attribute(answer.get(IFINFO..)?, IFLA_XDP)?;
    match attribute(xdp, IFLA_XDP_ATTACHED)?.first()? {
        1 | 3 => Some("native"),
        2 => Some("generic"),
        _ => None,
    }
}

/// One generic request with one attribute; the answer's attributes.
fn ask(family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let attribute_length = 4 + value.len();
    let mut request = vec![command, 1, 0, 0];
    request.extend((attribute_length as u16).to_ne_bytes());
    request.extend(attribute.to_ne_bytes());
    request.extend(value);
    request.resize(GENERIC + attribute_length.next_multiple_of(4), 0);
    let mut answer = exchange(SockProtocol::NetlinkGeneric, family, &request)?;
    if answer.len() < GENERIC {
        return Err(io::Error::other("a short answer"));
    }
    Ok(answer.split_off(GENERIC))
}

/// One message out, one back, both without the netlink header.
fn exchange(protocol: SockProtocol, kind: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    if length < HEADER || u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR {
        return Err(io::Error::other("the kernel does not know this request"));
    }
    Ok(answer.split_off(HEADER))
}

/// The value of the first attribute of that kind.
fn attribute(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let found = u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_attributes_and_survives_nonsense() {
        let attributes = [5, 0, 1, 0, 9, 0, 0, 0, 6, 0, 2, 0, 7, 8, 0, 0];
        assert_eq!(attribute(&attributes, 2), Some(&[7, 8][..]));
        assert_eq!(attribute(&attributes, 3), None);
        assert_eq!(attribute(&[0, 0, 1, 0, 0], 1), None);
        assert_eq!(attribute(&[255, 255, 1, 0], 1), None);
    }
}
