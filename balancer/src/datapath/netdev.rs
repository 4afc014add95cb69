//! What is asked of an interface's driver: can it run programs, and can it transmit XDP frames.
//!
//! The `netdev` family of netlink (Documentation/netlink/specs/netdev.yaml).

use crate::netlink::{Attributes, attribute, generic, link};

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`
const RUNS: u64 = 1;
/// `NETDEV_XDP_ACT_NDO_XMIT`
const TRANSMITS: u64 = 1 << 2;

/// Whether the driver takes XDP frames for this interface now; `None`: this kernel (before 6.3) does not say.
///
/// For veth the answer is "no" until the peer has GRO on, or a program: frames would vanish without a trace.
pub fn transmits(ifindex: u32) -> Option<bool> {
    Some(features(ifindex)? & TRANSMITS != 0)
}

/// Whether the driver runs programs itself, which is native XDP; `None`: this kernel (before 6.3) does not say.
pub fn runs(ifindex: u32) -> Option<bool> {
    Some(features(ifindex)? & RUNS != 0)
}

/// The mode that a program is attached in, `native` or `generic`; `None`: there is none.
pub fn attached_mode(ifindex: u32) -> Option<&'static str> {
    match link::by_index(ifindex).ok()?.xdp?.mode {
        "offloaded" => Some("native"),
        "several" => None,
        mode => Some(mode),
    }
}

fn features(ifindex: u32) -> Option<u64> {
    let asked = Attributes::default().with(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = generic("netdev", NETDEV_CMD_DEV_GET, &asked).ok()?;
    let features = attribute(&answer, NETDEV_A_DEV_XDP_FEATURES)?;
    Some(u64::from_ne_bytes(features.get(..8)?.try_into().ok()?))
}
