//! How an address is reached: the route, and the neighbour at its first step.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Attributes, attribute, integer, network};

const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const NDA_DST: u16 = 1;
/// Bytes of a `struct rtmsg`.
const RTMSG: usize = 12;
/// Bytes of a `struct ndmsg`.
const NDMSG: usize = 12;

/// A way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The interface that packets leave by.
    pub interface: u32,
    /// Who takes them there; `None`: whoever they are for.
    pub gateway: Option<IpAddr>,
    /// The address is one of this host.
    pub is_local: bool,
}

/// The way that the kernel would choose to `address`; `None`: there is none.
///
/// # Errors
/// When the kernel does not answer.
pub fn to(address: IpAddr) -> io::Result<Option<Route>> {
    let address = address.to_canonical();
    let mut head = [0; RTMSG];
    (head[0], head[1]) = (family(address), if address.is_ipv4() { 32 } else { 128 });
    let asked = Attributes::default().with(RTA_DST, &octets(address));
    let answer = network(RTM_GETROUTE, &head, &asked, RTMSG);
    let (head, attributes) = match answer {
        Ok(answer) => answer,
        // What a route of that kind, or none at all, is reported as.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let kind = head[7];
    if !matches!(kind, libc::RTN_UNICAST | libc::RTN_LOCAL) {
        return Ok(None);
    }
    let via = attribute(&attributes, RTA_VIA).and_then(|via| via.get(2..));
    let gateway = attribute(&attributes, RTA_GATEWAY).or(via).and_then(read_address);
    let interface = attribute(&attributes, RTA_OIF).and_then(integer);
    Ok(interface.map(|interface| Route { interface, gateway, is_local: kind == libc::RTN_LOCAL }))
}

/// What the kernel knows of a neighbour, in the words of `ip neigh`; `None`: nothing.
///
/// # Errors
/// When the kernel does not answer.
pub fn neighbour(interface: u32, address: IpAddr) -> io::Result<Option<&'static str>> {
    let address = address.to_canonical();
    let mut head = [0; NDMSG];
    head[0] = family(address);
    head[4..8].copy_from_slice(&interface.to_ne_bytes());
    let asked = Attributes::default().with(NDA_DST, &octets(address));
    match network(RTM_GETNEIGH, &head, &asked, NDMSG) {
        Ok((head, _)) => Ok(Some(state(u16::from_ne_bytes([head[8], head[9]])))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn state(bits: u16) -> &'static str {
    match bits {
        libc::NUD_INCOMPLETE => "INCOMPLETE",
        libc::NUD_REACHABLE => "REACHABLE",
        libc::NUD_STALE => "STALE",
        libc::NUD_DELAY => "DELAY",
        libc::NUD_PROBE => "PROBE",
        libc::NUD_FAILED => "FAILED",
        libc::NUD_NOARP => "NOARP",
        libc::NUD_PERMANENT => "PERMANENT",
        _ => "NONE",
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn read_address(octets: &[u8]) -> Option<IpAddr> {
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
    fn the_way_to_oneself_is_local() {
        let route = to(Ipv4Addr::LOCALHOST.into()).expect("the kernel answers");
        assert!(route.is_some_and(|route| route.is_local && route.gateway.is_none()), "{route:?}");
    }
}
