//! What the kernel knows of addresses, asked over netlink: whether one is ours, and which neighbour the way to another
//! one leads to. And the one thing that is done to neighbours: they are used, so that the kernel keeps them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::SockProtocol;

use crate::netlink::{NLMSG_ERROR, attribute, talk};

const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
/// Bytes of a `struct rtmsg`.
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const NDA_DST: u16 = 1;
/// As if a packet were sent there: what is old is asked again, what is unknown is asked for (linux/neighbour.h).
const NTF_USE: u8 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;

/// A neighbour: the router on the way to an address, or who has the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// The interface that it is behind.
    pub ifindex: u32,
}

/// Those of `listen` that this host has, and those that it does not have. A wildcard is nobody's address. Where the
/// kernel cannot be asked, an address counts as ours.
pub fn sorted(listen: &[SocketAddr]) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    listen.iter().partition(|address| {
        let ip = address.ip().to_canonical();
        ip.is_unspecified() || is_local(ip).unwrap_or(true)
    })
}

/// Whether packets for that address are for this host, on whatever interface it is, `lo` included.
///
/// # Errors
/// The kernel cannot be asked.
pub fn is_local(address: IpAddr) -> io::Result<bool> {
    Ok(route(address)?.is_some_and(|route| route[7] == RTN_LOCAL))
}

/// The neighbour on the way to an address; `None`: there is no route, or it does not leave this host.
pub fn neighbour_towards(address: IpAddr) -> Option<Neighbour> {
    let route = route(address.to_canonical()).ok()??;
    if route[7] != RTN_UNICAST {
        return None;
    }
    let attributes = route.get(RTMSG..)?;
    let ifindex = u32::from_ne_bytes(attribute(attributes, RTA_OIF)?.get(..4)?.try_into().ok()?);
    let gateway = match (attribute(attributes, RTA_GATEWAY), attribute(attributes, RTA_VIA)) {
        (Some(gateway), _) => ip(gateway),
        // The family first: it may be another one than that of the route.
        (None, Some(via)) => ip(via.get(2..)?),
        (None, None) => Some(address.to_canonical()),
    };
    Some(Neighbour { address: gateway?, ifindex })
}

/// Has the kernel make sure of a neighbour. One that is known well costs no packet.
///
/// # Errors
/// `PermissionDenied` without `CAP_NET_ADMIN`; what the kernel refuses.
pub fn use_neighbour(neighbour: Neighbour) -> io::Result<()> {
    let mut request = vec![family(neighbour.address), 0, 0, 0];
    request.extend(neighbour.ifindex.to_ne_bytes());
    request.extend([0, 0, NTF_USE, 0]);
    push_address(&mut request, NDA_DST, neighbour.address);
    let flags = NLM_F_ACK | NLM_F_CREATE;
    let (_, answer) = talk(SockProtocol::NetlinkRoute, RTM_NEWNEIGH, flags, &request)?;
    match answer.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("a short answer")),
    }
}

/// The kernel's answer about an address; `None`: no route.
fn route(address: IpAddr) -> io::Result<Option<Vec<u8>>> {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let mut request = vec![family(address), bits];
    request.resize(RTMSG, 0);
    push_address(&mut request, RTA_DST, address);
    let (kind, answer) = talk(SockProtocol::NetlinkRoute, RTM_GETROUTE, 0, &request)?;
    Ok((kind != NLMSG_ERROR && answer.len() >= RTMSG).then_some(answer))
}

fn push_address(request: &mut Vec<u8>, kind: u16, address: IpAddr) {
    let octets = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    request.extend((4 + octets.len() as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(octets);
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_knows_its_own_addresses() {
        let local = |text: &str| is_local(text.parse().expect("address")).expect("netlink");
        assert!(local("127.0.0.1") && local("127.9.9.9"));
        assert!(!local("198.51.100.1") && !local("2001:db8::1"));
        assert_eq!(neighbour_towards(Ipv4Addr::LOCALHOST.into()), None);
        let listen = ["0.0.0.0:80", "[::]:80", "127.0.0.1:80", "198.51.100.1:80"];
        let (ours, not_ours) = sorted(&listen.map(|text| text.parse().expect("address")));
        assert_eq!((ours.len(), not_ours), (3, vec!["198.51.100.1:80".parse().expect("address")]));
    }
}
