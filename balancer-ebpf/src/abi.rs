//! Keys and values of the maps: defined once, for both sides.
//!
//! Network fields are byte arrays in network order; there is no implicit padding; sizes are asserted below. The
//! version of all this is [`SCHEMA`], which is part of the path that maps are pinned under.

use crate::phase::Side;
#[cfg(doc)]
use crate::state::State;

/// Version of the map layouts. Maps of another schema are never reused.
pub const SCHEMA: u32 = 2;

/// Slots for services in one network namespace; slot 0 is nobody.
pub const MAX_SERVICES: u32 = 64;
/// Server ids in one network namespace; id 0 is nobody.
pub const MAX_SERVERS: u32 = 4096;
/// Addresses that services listen on.
pub const MAX_LISTENS: u32 = 1024;
/// Blocks of denied addresses, of all services. They take memory only as they are entered.
pub const MAX_DENIED: u32 = 1_000_000;
/// Interfaces with the program.
pub const MAX_INTERFACES: u32 = 64;
/// Sources whose half-open flows are counted; an LRU, so a flood from many sources forgets the oldest.
pub const MAX_HALF_OPEN_SOURCES: u32 = 16_384;
/// `--snat-ip` may be repeated this often.
pub const MAX_SNAT_IPS: usize = 8;
/// Default of `--flow-table`; the loader sets the real size. A flow has two entries.
pub const DEFAULT_FLOW_ENTRIES: u32 = 2 * 256 * 1024;
/// Template size of a service's `source` table; the kernel lets the real one differ.
pub const DEFAULT_SOURCE_ENTRIES: u32 = 100_000;

/// Half-open flows of one source beyond this go to the proxy, which has SYN cookies.
pub const HALF_OPEN_PER_SOURCE: u32 = 256;
/// How long a flow uses a route before it asks again: well below the shortest retransmission timeout of TCP (200 ms
/// on Linux), and long enough that a busy flow asks for one packet in a hundred.
pub const ROUTE_NS: u64 = 100_000_000;
/// How long a server whose SYN-ACK came with an unfinished checksum stays off the fast path.
pub const NOT_FAST_NS: u64 = 300 * 1_000_000_000;

/// Addresses and ports of a packet, or what they become.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
}

impl FlowKey {
    /// The same connection seen from the other end.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Packets of this entry come from the client.
pub const FROM_CLIENT: u8 = 0;
/// Packets of this entry come from the server.
pub const FROM_SERVER: u8 = 1;

/// One direction of a fast connection. The other direction's key is `becomes.reversed()`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// What addresses and ports become.
    pub becomes: FlowKey,
    /// Where in its life this direction is: a copy of what `state` says.
    pub side: Side,
    /// [`FROM_CLIENT`] or [`FROM_SERVER`].
    pub direction: u8,
    /// What the rewrite does to the IP checksum: see [`crate::checksum`].
    pub ip_delta: u16,
    /// What the rewrite does to the TCP checksum.
    pub tcp_delta: u16,
    /// The server's id.
    pub server: u16,
    /// The service's slot.
    pub service: u16,
    /// The interface that the client's SYN came in by.
    pub client_ifindex: u32,
    /// The way back when there is no neighbour entry: Ethernet destination, then source, as the SYN had them reversed.
    pub client_macs: [u8; 12],
    /// Initial sequence number of the client, network order.
    pub isn: [u8; 4],
    /// The interface towards the server when the flow was opened.
    pub server_ifindex: u32,
    /// The generation of the server's address.
    pub generation: u8,
    /// Zero.
    pub padding: u8,
    /// The largest packet that the route below takes.
    pub route_mtu: u16,
    /// In the client's direction: what the client has to acknowledge to complete the handshake, network order.
    pub handshake_ack: [u8; 4],
    /// Creation, nanoseconds of the coarse monotonic clock.
    pub created: u64,
    /// Last packet that counts as use, the same clock.
    pub last_seen: u64,
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes of IP in this direction.
    pub bytes: u64,
    /// Until when the route below is good, the same clock as `last_seen`.
    pub route_until: u64,
    /// The interface that this direction's packets leave by.
    pub route_ifindex: u32,
    /// Ethernet destination, then source.
    pub route_macs: [u8; 12],
    /// In the client's direction: the [`State`] of the flow. Changed by atomic instructions alone.
    pub state: u64,
}

/// An address that a service listens on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ListenKey {
    /// The address.
    pub address: [u8; 4],
    /// The port.
    pub port: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
}

/// New connections are not fast.
pub const FAST_PATH_OFF: u32 = 0;
/// Fast for known, unambiguous sources that pass the sampling.
pub const FAST_PATH_EXCLUSIVE: u32 = 1;
/// Fast for known sources.
pub const FAST_PATH_ALWAYS: u32 = 2;

/// A service: one running `balancer`, or one that has stopped and may come back.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// `--name`, padded with zeros; all zeros: the slot is free.
    pub name: [u8; 32],
    /// When the process last said that it is alive, nanoseconds of `CLOCK_BOOTTIME`.
    pub heartbeat: u64,
    /// For how long after that its known clients are still served, nanoseconds.
    pub hold: u64,
    /// [`FAST_PATH_OFF`], [`FAST_PATH_EXCLUSIVE`] or [`FAST_PATH_ALWAYS`].
    pub fast_path: u32,
    /// In `exclusive`: one in this many new connections goes through the proxy.
    pub verify_share: u32,
    /// Most half-open flows of this service.
    pub half_open_cap: u32,
    /// First port for SNAT.
    pub first_port: u16,
    /// Last port for SNAT.
    pub last_port: u16,
    /// How many of `snat_ips` are set; 0: each server's own.
    pub snat_count: u32,
    /// `--snat-ip`.
    pub snat_ips: [[u8; 4]; MAX_SNAT_IPS],
    /// Not 0: some sources are denied, and the table of those is asked about every SYN.
    pub denies: u32,
}

impl Service {
    /// A free slot.
    pub const FREE: Self = Self {
        name: [0; 32],
        heartbeat: 0,
        hold: 0,
        fast_path: FAST_PATH_OFF,
        verify_share: 0,
        half_open_cap: 0,
        first_port: 0,
        last_port: 0,
        snat_count: 0,
        snat_ips: [[0; 4]; MAX_SNAT_IPS],
        denies: 0,
    };
}

/// The data of a key in the table of denied sources, which is matched from its first bit: the service's slot, then the
/// address.
pub type DeniedKey = [u8; 8];

/// The bits of a [`DeniedKey`] before the address.
pub const DENIED_SLOT_BITS: u32 = 32;

/// See [`DeniedKey`].
#[inline(always)]
pub const fn denied_key(slot: u32, address: [u8; 4]) -> DeniedKey {
    let [a, b, c, d] = slot.to_be_bytes();
    let [e, f, g, h] = address;
    [a, b, c, d, e, f, g, h]
}

/// The id is not in use, or its address is being changed.
pub const SERVER_ABSENT: u8 = 0;
/// Takes everyone.
pub const SERVER_UP: u8 = 1;
/// Keeps its users; which of them, the proxy decides.
pub const SERVER_DRAIN: u8 = 2;
/// Fails its health checks.
pub const SERVER_DOWN: u8 = 3;
/// Taken out by the operator.
pub const SERVER_MAINT: u8 = 4;

/// A server, written in place by user space.
///
/// `meta` is one word, so a change of state is seen whole. A change of address writes `meta` as
/// [`SERVER_ABSENT`] first; XDP reads `meta` before and after the rest and passes unless both are equal.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// See [`ServerMeta`].
    pub meta: u64,
    /// IPv4, or all zeros for a server that only the proxy can reach.
    pub address: [u8; 4],
    /// The address of ours that the kernel uses towards this server.
    pub snat: [u8; 4],
}

/// The fields of [`Server::meta`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerMeta {
    /// One of the `SERVER_` constants.
    pub state: u8,
    /// Counts the addresses that this id has had.
    pub generation: u8,
    /// The port, network order.
    pub port: [u8; 2],
}

impl ServerMeta {
    /// As stored.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        self.state as u64
            | (self.generation as u64) << 8
            | (self.port[0] as u64) << 16
            | (self.port[1] as u64) << 24
    }

    /// As read.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self {
            state: word as u8,
            generation: (word >> 8) as u8,
            port: [(word >> 16) as u8, (word >> 24) as u8],
        }
    }
}

/// What the fast path carries for a server, by its id. Mapped into the memory of user space; both sides touch it by
/// atomic instructions alone. All zeros is a server without connections and without a limit.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Flows that are neither closing nor over.
    pub connections: u64,
    /// A new flow must leave `connections` below this; 0: no limit.
    pub below: u64,
    /// How often `connections` has been counted up.
    pub opened: u64,
    /// Flows that the server has refused: a RST answered the SYN.
    pub refused: u64,
    /// Flows that the server has not answered for 3 s.
    pub unanswered: u64,
    /// Zero. Servers do not share a cache line.
    pub padding: [u64; 3],
}

impl Load {
    /// Whether a flow may be added to `connections` others. A count below zero, which only an accident leaves, is none.
    #[inline(always)]
    pub const fn admits(connections: u64, below: u64) -> bool {
        below == 0 || (connections as i64).saturating_add(1) < below as i64
    }
}

/// [`Chore::what`]: ends flows of a server, as if XDP had found that their tuples are the stack's.
pub const CHORE_END: u32 = 1;
/// [`Chore::what`]: counts flows that their server has not answered for 3 s.
pub const CHORE_NOTE_UNANSWERED: u32 = 2;
/// Keys in one [`Chore`]: few, for the verifier follows each of them.
pub const CHORE_KEYS: usize = 16;

/// What user space asks the program `tend` to do with flows, which is given it in place of a packet: entries of the flow
/// table can only be changed in place by a program, and those that packets may be using must not be replaced.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chore {
    /// [`CHORE_END`] or [`CHORE_NOTE_UNANSWERED`].
    pub what: u32,
    /// The server's id; flows of others are let alone. 0: any.
    pub server: u32,
    /// How many of the keys count.
    pub count: u32,
    /// Zero.
    pub padding: u32,
    /// The client's directions of the flows.
    pub keys: [FlowKey; CHORE_KEYS],
}

/// What concerns all services.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Secret of the sampling and of the port choice, random per set of maps.
    pub hash_key: [u64; 2],
    /// Most half-open flows of all services: a quarter of the flow table.
    pub half_open_cap: u32,
    /// Most SYNs a second and CPU that are looked at for the fast path.
    pub syn_rate: u32,
}

/// SYNs of the current second on this CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynRate {
    /// The second, of the coarse monotonic clock.
    pub second: u32,
    /// How many so far.
    pub count: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 12);
const _: () =
    assert!(size_of::<Flow>() == 120 && align_of::<Flow>() == 8 && core::mem::offset_of!(Flow, state) == 112);
const _: () = assert!(size_of::<ListenKey>() == 8);
const _: () = assert!(size_of::<Service>() == 104);
const _: () = assert!(size_of::<Server>() == 16);
const _: () = assert!(size_of::<Load>() == 64);
const _: () = assert!(size_of::<Chore>() == 16 + 12 * CHORE_KEYS);
const _: () = assert!(size_of::<Settings>() == 24);
const _: () = assert!(size_of::<SynRate>() == 8);

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn a_server_takes_as_many_as_its_limit_says_and_all_if_it_has_none() {
        assert!(Load::admits(u64::from(u32::MAX), 0));
        assert!(!Load::admits(0, 1), "a limit of none");
        assert!(Load::admits(1, 3) && !Load::admits(2, 3), "a limit of two");
        assert!(Load::admits(0_u64.wrapping_sub(5), 2), "below zero");
    }
}
