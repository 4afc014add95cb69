//! An interface as the kernel describes it.

use std::io;

use super::{Attributes, attribute, integer, network, text};

const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_TARGET_NETNSID: u16 = 46;
/// The largest MTU for native XDP that a driver takes whose packets have to be in one piece (veth on 4 KiB pages; most
/// network cards are close to it).
pub const NATIVE_MTU_LIMIT: u32 = 3506;
/// Bytes of a `struct ifinfomsg`.
const IFINFO: usize = 16;

/// What is asked of an interface here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Its name now.
    pub name: String,
    /// Its number in its namespace.
    pub index: u32,
    /// Somebody has switched it on.
    pub is_up: bool,
    /// And something is at the other end.
    pub has_carrier: bool,
    /// It is the loopback.
    pub is_loopback: bool,
    /// Its MTU.
    pub mtu: u32,
    /// `veth`, `vlan`, `bridge`…; nothing for hardware.
    pub kind: Option<String>,
    /// The other end of a veth pair, or the device that a VLAN is on: its number where it lives.
    pub other: Option<u32>,
    /// The namespace where that one lives, by this one's number for it; `None`: in this one.
    pub other_namespace: Option<u32>,
    /// The program on it.
    pub xdp: Option<Xdp>,
}

/// A program on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xdp {
    /// `native`, `generic`, `offloaded`, or `several`.
    pub mode: &'static str,
    /// The program's number.
    pub program: Option<u32>,
}

impl Link {
    /// It is one end of a veth pair.
    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }
}

/// The interface with that number in this namespace.
///
/// # Errors
/// There is none.
pub fn by_index(index: u32) -> io::Result<Link> {
    ask(index, &Attributes::default())
}

/// The interface with that number in another namespace, which is given by this one's number for it.
///
/// # Errors
/// There is none, or nobody may look there.
pub fn in_namespace(namespace: u32, index: u32) -> io::Result<Link> {
    ask(index, &Attributes::default().with(IFLA_TARGET_NETNSID, &namespace.to_ne_bytes()))
}

/// The interface of that name in this namespace.
///
/// # Errors
/// There is none.
pub fn by_name(name: &str) -> io::Result<Link> {
    by_index(nix::net::if_::if_nametoindex(name)?)
}

/// Every interface of this namespace.
///
/// # Errors
/// When the kernel lists none.
pub fn all() -> io::Result<Vec<Link>> {
    let names = nix::net::if_::if_nameindex()?;
    Ok(names.to_slice().iter().filter_map(|entry| by_index(entry.index()).ok()).collect())
}

fn ask(index: u32, attributes: &Attributes) -> io::Result<Link> {
    let mut head = [0; IFINFO];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    let (head, attributes) = network(RTM_GETLINK, &head, attributes, IFINFO)?;
    Ok(read(&head, &attributes))
}

fn read(head: &[u8], attributes: &[u8]) -> Link {
    let number = |kind| attribute(attributes, kind).and_then(integer);
    let flags = head.get(8..).and_then(integer).unwrap_or_default().cast_signed();
    let xdp = attribute(attributes, IFLA_XDP);
    let mode = match xdp.and_then(|xdp| attribute(xdp, IFLA_XDP_ATTACHED)).and_then(<[u8]>::first) {
        Some(1) => Some("native"),
        Some(2) => Some("generic"),
        Some(3) => Some("offloaded"),
        Some(4) => Some("several"),
        _ => None,
    };
    let kind = attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    Link {
        name: attribute(attributes, IFLA_IFNAME).map(text).unwrap_or_default(),
        index: head.get(4..).and_then(integer).unwrap_or_default(),
        is_up: flags & libc::IFF_UP != 0,
        has_carrier: flags & libc::IFF_RUNNING != 0,
        is_loopback: flags & libc::IFF_LOOPBACK != 0,
        mtu: number(IFLA_MTU).unwrap_or_default(),
        kind: kind.map(text),
        other: number(IFLA_LINK),
        other_namespace: number(IFLA_LINK_NETNSID),
        xdp: mode.map(|mode| Xdp {
            mode,
            program: xdp.and_then(|xdp| attribute(xdp, IFLA_XDP_PROG_ID)).and_then(integer),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_known_for_what_it_is() {
        let loopback = by_name("lo").expect("every namespace has one");
        assert!(loopback.is_loopback && loopback.name == "lo" && loopback.mtu > 0, "{loopback:?}");
        assert!(all().expect("a list").contains(&loopback));
    }
}
