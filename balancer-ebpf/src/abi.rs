//! Keys and values of the maps: defined once, for both sides.
//!
//! Network fields are byte arrays in network order, and an [`Address`] is words of such bytes; there is no implicit
//! padding; sizes are asserted below. The version of all this is [`SCHEMA`], which is part of the path that maps are
//! pinned under.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::phase::Side;
#[cfg(doc)]
use crate::state::State;

/// Version of the map layouts. Maps of another schema are never reused.
pub const SCHEMA: u32 = 3;

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
/// Kinds of what is counted by the second: ICMP errors of others; ours about size; ours about hops; resets.
pub const BOUNDS: u32 = 4;
/// Template size of a service's `source` table; the kernel lets the real one differ.
pub const DEFAULT_SOURCE_ENTRIES: u32 = 100_000;

/// Half-open flows of one source beyond this go to the proxy, which has SYN cookies.
pub const HALF_OPEN_PER_SOURCE: u32 = 256;
/// The same with [`FORWARD_DSR`], where all new flows count, for nothing that a client says proves its address there. A flow
/// has one entry there and not two, and is over in a quarter of the time.
pub const ONE_WAY_PER_SOURCE: u32 = 2048;
/// How long a flow uses a route before it asks again: well below the shortest retransmission timeout of TCP (200 ms
/// on Linux), and long enough that a busy flow asks for one packet in a hundred.
pub const ROUTE_NS: u64 = 100_000_000;
/// How long a server whose SYN-ACK came with an unfinished checksum stays off the fast path.
pub const NOT_FAST_NS: u64 = 300 * 1_000_000_000;

/// An address in its IPv6 form (RFC 4291 §2.5.5.2 for IPv4), so that one set of maps and one way through the program
/// serve both families. The bytes are those of the network; words are copied and compared faster than bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Address(pub [u32; 4]);

/// The third word of an IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address {
    /// No address.
    pub const NONE: Self = Self([0; 4]);

    /// An IPv4 address.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::of_word(u32::from_ne_bytes(octets))
    }

    /// An IPv4 address that was read as one word.
    #[inline(always)]
    pub const fn of_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An IPv6 address. One of IPv4 in its IPv6 form is that IPv4 address.
    pub const fn v6(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// Its bytes.
    pub const fn octets(&self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// An IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// An IPv6 address that means something on one link only (RFC 4291 §2.5.6).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        u32::from_be(self.0[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// No address.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// The block that the address is in: so many of its leading bits count, by its family.
    #[inline(always)]
    pub const fn masked(&self, mask4: u8, mask6: u8) -> Self {
        let bits = if self.is_v4() { 96 + mask4 as u32 } else { mask6 as u32 };
        let [a, b, c, d] = self.0;
        Self([a & ones(bits), b & ones_from(bits, 32), c & ones_from(bits, 64), d & ones_from(bits, 96)])
    }

    /// Becomes another one. Word by word: the compiler makes a call of an assignment of this size, which copies bytes.
    #[inline(always)]
    pub const fn set(&mut self, other: &Self) {
        other.write_to(&mut self.0);
    }

    /// Writes its words.
    #[inline(always)]
    pub const fn write_to(&self, words: &mut [u32; 4]) {
        words[0] = self.0[0];
        words[1] = self.0[1];
        words[2] = self.0[2];
        words[3] = self.0[3];
    }

    /// As everybody else knows it.
    pub fn ip(&self) -> IpAddr {
        Ipv6Addr::from(self.octets()).to_canonical()
    }
}

/// The mask of a word of which so many bits count.
#[inline(always)]
const fn ones(bits: u32) -> u32 {
    match bits {
        0 => 0,
        32.. => u32::MAX,
        _ => (u32::MAX << (32 - bits)).to_be(),
    }
}

#[inline(always)]
const fn ones_from(bits: u32, first: u32) -> u32 {
    ones(bits.saturating_sub(first))
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        Self::v6(ip.octets())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

/// Addresses and ports of a packet, or what they become.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
}

impl FlowKey {
    /// Becomes another one; see [`Address::set`].
    #[inline(always)]
    pub const fn set(&mut self, other: &Self) {
        self.source.set(&other.source);
        self.destination.set(&other.destination);
        self.source_port = other.source_port;
        self.destination_port = other.destination_port;
    }

    /// Becomes what another one is when it is seen from the other end.
    #[inline(always)]
    pub const fn set_reversed(&mut self, other: &Self) {
        self.source.set(&other.destination);
        self.destination.set(&other.source);
        self.source_port = other.destination_port;
        self.destination_port = other.source_port;
    }

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

/// One direction of a fast connection. The other direction's key is `becomes.reversed()`, but of one that is
/// [`ONE_WAY`](crate::phase::ONE_WAY), which has no other direction here.
///
/// What every packet needs comes first: it lies in as few cache lines as it can.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// What addresses and ports become. Of one that is [`ONE_WAY`](crate::phase::ONE_WAY): whom its packets are given to,
    /// as they are.
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
    /// The largest packet that the route below takes.
    pub route_mtu: u16,
    /// Last packet that counts as use, nanoseconds of the coarse monotonic clock.
    pub last_seen: u64,
    /// Packets in this direction.
    pub packets: u64,
    /// Bytes of TCP's payload in this direction.
    pub bytes: u64,
    /// Until when the route below is good, the same clock as `last_seen`.
    pub route_until: u64,
    /// The interface that this direction's packets leave by.
    pub route_ifindex: u32,
    /// Ethernet destination, then source.
    pub route_macs: [u8; 12],
    /// In the client's direction: the [`State`] of the flow. Changed by atomic instructions alone.
    pub state: u64,
    /// Creation, the same clock as `last_seen`.
    pub created: u64,
    /// The interface that the client's SYN came in by.
    pub client_ifindex: u32,
    /// The way back when there is no neighbour entry: Ethernet destination, then source, as the SYN had them reversed.
    pub client_macs: [u8; 12],
    /// Initial sequence number of the client, network order.
    pub isn: [u8; 4],
    /// In the client's direction: what the client has to acknowledge to complete the handshake, network order.
    pub handshake_ack: [u8; 4],
    /// The interface towards the server when the flow was opened.
    pub server_ifindex: u32,
    /// The service's slot.
    pub service: u16,
    /// The generation of the server's address.
    pub generation: u8,
    /// Not 0: the route leads through a router.
    pub detour: u8,
    /// What of `packets` and `bytes` was told with an end after which the flow has gone on.
    pub told: Traffic,
}

/// Packets, and the bytes of TCP's payload in them as they went by: what was repeated counts again.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes that they carried.
    pub bytes: u64,
}

impl Traffic {
    /// What has come since.
    #[inline(always)]
    pub const fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl Flow {
    /// What this direction has carried, less what was told already.
    #[inline(always)]
    pub const fn untold(&self) -> Traffic {
        Traffic { packets: self.packets, bytes: self.bytes }.since(self.told)
    }
}

/// Bytes of a service's ring of events: the ends of nine thousand connections, a third of a second of a very busy
/// service. A power of two, and a multiple of every page's size.
pub const EVENT_RING_BYTES: u32 = 1 << 20;
/// Ends a second, CPU and service that are told through the ring; the collector tells the others.
pub const ENDS_A_SECOND: u32 = 50_000;
/// Missing neighbours a second, CPU and service that are told: one is enough to look for it.
pub const MISSING_A_SECOND: u32 = 1;

/// [`Event::what`]: a flow has ended.
pub const EVENT_END: u32 = 1;
/// [`Event::what`]: the neighbour towards a server is not resolved; only the server counts.
pub const EVENT_NO_NEIGHBOUR: u32 = 2;

/// What user space is told through the ring of the service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// [`EVENT_END`] or [`EVENT_NO_NEIGHBOUR`].
    pub what: u32,
    /// The server's id.
    pub server: u16,
    /// The service's slot.
    pub service: u16,
    /// The flow's key in the client's direction.
    pub client: FlowKey,
    /// Zero.
    pub padding: u32,
    /// The flow's [`State`], which says why it has ended.
    pub state: u64,
    /// When it began, the clock of flows.
    pub created: u64,
    /// When it ended, the same clock.
    pub ended: u64,
    /// What came from the client.
    pub from_client: Traffic,
    /// What went to the client.
    pub to_client: Traffic,
}

/// Events of the current second on this CPU, of one service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventRate {
    /// The second, of the coarse monotonic clock.
    pub second: u32,
    /// Ends so far.
    pub ends: u32,
    /// Missing neighbours so far.
    pub missing: u32,
    /// Zero.
    pub padding: u32,
}

/// An address that a service listens on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ListenKey {
    /// The address.
    pub address: Address,
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

/// Addresses and ports of both ends change: servers see an address and a port of ours.
pub const FORWARD_NAT: u8 = 0;
/// Servers see the client, and route their answers back through this host.
pub const FORWARD_GATEWAY: u8 = 1;

/// Servers have the service's address, see the client, and answer it directly: packets are not changed but for the MACs.
pub const FORWARD_DSR: u8 = 2;

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
    /// How many of `snat_ips`, the first ones, are IPv4; 0: each server's own.
    pub snat_v4: u16,
    /// How many of those after them are IPv6; 0: each server's own.
    pub snat_v6: u16,
    /// `--snat-ip`.
    pub snat_ips: [Address; MAX_SNAT_IPS],
    /// Not 0: some sources are denied or excluded, and the table of those is asked about every SYN.
    pub denies: u16,
    /// Leading bits of an IPv4 address that count in the table of sources.
    pub mask4: u8,
    /// The same of an IPv6 address.
    pub mask6: u8,
    /// `--mss`: what SYNs and SYN-ACKs say at most; 0: what they like.
    pub mss: u16,
    /// [`FORWARD_NAT`], [`FORWARD_GATEWAY`] or [`FORWARD_DSR`].
    pub forward: u8,
    /// Zero.
    pub padding: [u8; 5],
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
        snat_v4: 0,
        snat_v6: 0,
        snat_ips: [Address::NONE; MAX_SNAT_IPS],
        denies: 0,
        mask4: 32,
        mask6: 64,
        mss: 0,
        forward: FORWARD_NAT,
        padding: [0; 5],
    };
}

/// What stands in the table of denied sources: the service does not serve them.
pub const DENIED: u8 = 1;
/// The same table: they are the proxy's (`--fast-path-exclude`).
pub const EXCLUDED: u8 = 2;

/// The data of a key in the table of denied sources, which is matched from its first bit: the family and the service's
/// slot, then the address. The family, for a block of IPv6 that holds the IPv6 form of all IPv4 addresses means none of
/// those.
pub type DeniedKey = [u8; 20];

/// The bits of a [`DeniedKey`] before those of the address: `first` is a block's first address.
#[inline(always)]
pub const fn denied_bits(first: &Address) -> u32 {
    if first.is_v4() { 32 + 96 } else { 32 }
}

/// See [`DeniedKey`].
#[inline(always)]
pub const fn denied_key(slot: u32, address: &Address) -> DeniedKey {
    let family = if address.is_v4() { 4 } else { 6 };
    let [_, a, b, c] = slot.to_be_bytes();
    let [d, e, f, g] = address.0[0].to_ne_bytes();
    let [h, i, j, k] = address.0[1].to_ne_bytes();
    let [l, m, n, o] = address.0[2].to_ne_bytes();
    let [p, q, r, s] = address.0[3].to_ne_bytes();
    [family, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s]
}

/// The slot that a [`DeniedKey`] is of.
pub const fn denied_slot(key: &DeniedKey) -> u32 {
    u32::from_be_bytes([0, key[1], key[2], key[3]])
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
    /// [`Address::NONE`] for a server that only the proxy can reach.
    pub address: Address,
    /// The address of ours that the kernel uses towards this server; [`Address::NONE`] without a route.
    pub snat: Address,
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
    /// What came from clients in entries of flows that are removed.
    pub from_clients: Traffic,
    /// What went to clients, likewise.
    pub to_clients: Traffic,
    /// Zero. Servers do not share a cache line.
    pub padding: [u64; 7],
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
pub const CHORE_KEYS: usize = 4;

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
    /// How many flows were changed: 0 to begin with.
    pub done: u32,
    /// The client's directions of the flows.
    pub keys: [FlowKey; CHORE_KEYS],
}

/// Where the program puts a connection together, one per CPU: too much for its stack.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Draft {
    /// One direction, then the other.
    pub flow: Flow,
    /// The server that it is to go to.
    pub server: Server,
    /// Who opens it.
    pub client: Address,
    /// What the packets of the client become.
    pub becomes: FlowKey,
    /// What those of an earlier connection of the same tuple became.
    pub old: FlowKey,
    /// What the packets of the server come with.
    pub answers: FlowKey,
    /// How packets travel: as [`Service::forward`].
    pub forward: u8,
    /// Not 0: the way that was asked for last leads through a router.
    pub detour: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// Words of the map of ports: a bit for each destination that a fast packet may have. What goes elsewhere has nothing to do
/// with us, and should not pay for it. A bit that is set stays: there may be flows.
pub const PORT_WORDS: u32 = 65_536 / u64::BITS;

/// The word and the bit of a port.
#[inline(always)]
pub const fn port_bit(port: u16) -> (u32, u64) {
    (port as u32 / u64::BITS, 1 << (port as u32 % u64::BITS))
}

/// Where the program puts what it asks the kernel about a route, one per CPU: as long as `struct bpf_fib_lookup`.
pub type Question = [u32; QUESTION_WORDS];

/// Of a [`Question`].
pub const QUESTION_WORDS: usize = 16;

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
    /// Most ICMP errors a second and CPU, of each kind that is counted: see [`BOUNDS`].
    pub icmp_rate: u32,
    /// Most packets a second and CPU, of flows that user space has ended, that are answered with a reset.
    pub reset_rate: u32,
}

/// What is bounded by the second: that of the current one on this CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// The second, of the coarse monotonic clock.
    pub second: u32,
    /// How many so far.
    pub count: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 36);
const _: () =
    assert!(size_of::<Flow>() == 160 && align_of::<Flow>() == 8 && core::mem::offset_of!(Flow, state) == 96);
const _: () = assert!(size_of::<ListenKey>() == 20);
const _: () = assert!(size_of::<Service>() == 208);
const _: () = assert!(size_of::<Server>() == 40);
const _: () = assert!(size_of::<Load>() == 128);
const _: () = assert!(size_of::<Event>() == 68 + size_of::<FlowKey>() && align_of::<Event>() == 8);
const _: () = assert!(size_of::<EventRate>() == 16);
const _: () = assert!(size_of::<Chore>() == 16 + size_of::<FlowKey>() * CHORE_KEYS);
const _: () = assert!(size_of::<Draft>() == 160 + 40 + 16 + 3 * 36 + 4);
const _: () = assert!(size_of::<Settings>() == 32);
const _: () = assert!(size_of::<Rate>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_serves_both_families() {
        for text in ["10.1.2.3", "0.0.0.0", "2001:db8::7", "::1", "fe80::1"] {
            let ip: IpAddr = text.parse().expect("address");
            let address = Address::from(ip);
            assert_eq!((address.ip(), address.is_v4()), (ip, ip.is_ipv4()));
            assert_eq!(Address::v6(address.octets()), address);
            assert_eq!(address.is_link_local(), text.starts_with("fe80"));
            assert!(!address.is_none());
        }
        assert!(Address::NONE.is_none() && !Address::NONE.is_v4());
        let mapped: Ipv6Addr = "::ffff:10.1.2.3".parse().expect("address");
        assert_eq!(Address::from(mapped), Address::v4([10, 1, 2, 3]));
    }

    #[test]
    fn so_many_leading_bits_count() {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("address"));
        for (text, mask4, mask6, block) in [
            ("10.1.2.3", 32, 64, "10.1.2.3"),
            ("10.1.2.3", 20, 64, "10.1.0.0"),
            ("10.1.2.3", 0, 64, "0.0.0.0"),
            ("2001:db8:1:2:3:4:5:6", 32, 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 32, 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 32, 41, "2001:db8::"),
            ("2001:db8:1:2:3:4:5:6", 32, 0, "::"),
        ] {
            assert_eq!(address(text).masked(mask4, mask6), address(block), "{text}/{mask4}/{mask6}");
        }
    }

    #[test]
    fn a_block_of_one_family_holds_none_of_the_other() {
        let matches = |block: Address, prefix: u32, address: Address| {
            let bits = (denied_bits(&block) + prefix) as usize;
            let bit = |key: DeniedKey, at: usize| key[at / 8] >> (7 - at % 8) & 1;
            (0..bits).all(|at| bit(denied_key(5, &block), at) == bit(denied_key(5, &address), at))
        };
        let (v4, v6) = (Address::v4([10, 1, 2, 3]), Address::from(Ipv6Addr::LOCALHOST));
        assert!(matches(Address::v4([0; 4]), 0, v4) && !matches(Address::v4([0; 4]), 0, v6));
        assert!(matches(Address::NONE, 0, v6) && !matches(Address::NONE, 0, v4));
        assert!(matches(Address::v4([10, 0, 0, 0]), 8, v4) && !matches(Address::v4([10, 0, 0, 0]), 16, v4));
        assert_eq!(denied_slot(&denied_key(63, &v4)), 63);
    }

    #[test]
    fn a_server_takes_as_many_as_its_limit_says_and_all_if_it_has_none() {
        assert!(Load::admits(u64::from(u32::MAX), 0));
        assert!(!Load::admits(0, 1), "a limit of none");
        assert!(Load::admits(1, 3) && !Load::admits(2, 3), "a limit of two");
        assert!(Load::admits(0_u64.wrapping_sub(5), 2), "below zero");
    }
}
