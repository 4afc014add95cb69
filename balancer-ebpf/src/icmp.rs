//! ICMP errors about packets of flows (RFC 792, RFC 1191, RFC 4443): those of others, rewritten so that the other side
//! knows what they are about, and our own.
//!
//! An error quotes the packet that it is about. On one side of us that packet had other addresses and ports than on the
//! other, so the quotation gets them as its sender had written them. Who sees the error checks the sequence number in it
//! (RFC 5927 §4.1); the flow table has none to compare with.
//!
//! The relayed error gets both addresses that the flow's own packets have on their way to the same end: it comes from
//! the address which that end talks to, whichever router sent it. That is what conntrack does with a connection whose
//! two addresses it translates. RFC 5508 (§4.2, REQ-4 and REQ-5) would keep a router's own address in one direction, which
//! a network that checks sources then drops, and which tells clients about the servers' network.
#![allow(
    unsafe_code,
    reason = "packet access is by pointer in BPF; every pointer is checked against the frame's end"
)]

use core::mem::offset_of;

use crate::abi::{Address, Flow, FlowKey};
use crate::checksum;
use crate::packet::{
    DONT_FRAGMENT, ETHERNET, Ethernet, FRAGMENT_OFFSET, FRAGMENTED, Frame, Headers, Ipv4, Ipv6,
    PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, Packet, TYPE_IPV6, Tcp, read_address, read_word,
    write_address, write_word,
};

/// IPv4 without options.
const PLAIN: u8 = 0x45;
/// The version in the first byte of IPv6.
const VERSION_6: u8 = 0x60;

/// The types of RFC 792 that are relayed. Source quench and redirect are nobody's business any more (RFC 6633), or never
/// were an end's beyond the first router.
mod v4 {
    pub(super) const UNREACHABLE: u8 = 3;
    pub(super) const TIME_EXCEEDED: u8 = 11;
    pub(super) const PARAMETER_PROBLEM: u8 = 12;
    /// A code of [`UNREACHABLE`].
    pub(super) const FRAGMENTATION_NEEDED: u8 = 4;
}

/// The types of RFC 4443 that are relayed: all errors that it defines.
mod v6 {
    pub(super) const UNREACHABLE: u8 = 1;
    pub(super) const TOO_BIG: u8 = 2;
    pub(super) const TIME_EXCEEDED: u8 = 3;
    pub(super) const PARAMETER_PROBLEM: u8 = 4;
}

/// The first words of every error.
#[repr(C)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    /// By type: the MTU, for one.
    rest: [u8; 4],
}

/// What an error has of a TCP header at least.
#[repr(C)]
#[derive(Clone, Copy)]
struct QuotedTcp {
    source: [u8; 2],
    destination: [u8; 2],
    sequence: [u8; 4],
}

#[repr(C)]
struct Error4 {
    ethernet: Ethernet,
    ip: Ipv4,
    icmp: Icmp,
    inner: Ipv4,
    tcp: QuotedTcp,
}

#[repr(C)]
struct Error6 {
    ethernet: Ethernet,
    ip: Ipv6,
    icmp: Icmp,
    inner: Ipv6,
    tcp: QuotedTcp,
}

/// What an ICMP error that quotes a TCP packet says. No pointers into it: see [`Packet`].
#[derive(Clone, Copy)]
pub struct Error {
    /// The key of the flow's direction that this error goes along with: against the packet that it is about.
    pub key: FlowKey,
    /// Bytes of IP.
    pub total_length: u16,
    /// Hops left.
    pub hops: u8,
    /// As [`Headers::class`](crate::packet::Headers::class).
    pub class: u32,
}

impl Error {
    /// Parses a frame that carries ICMP. Not if it is anything but an error about a TCP packet, whole and plain, or was sent
    /// to anybody but that packet's sender.
    #[inline(always)]
    pub fn parse(frame: Frame) -> Option<Self> {
        if is_v6(&frame)? { Self::parse_v6(frame) } else { Self::parse_v4(frame) }
    }

    #[inline(always)]
    fn parse_v4(frame: Frame) -> Option<Self> {
        let error = frame.at::<Error4>(0)?;
        // SAFETY: `at` has checked that all of it lies in the frame.
        let Error4 { ip, icmp, inner, tcp, .. } = unsafe { &*error };
        let is_whole = u16::from_be_bytes(ip.fragment) & FRAGMENTED == 0;
        if ip.version_and_length != PLAIN || ip.protocol != PROTOCOL_ICMP || !is_whole {
            return None;
        }
        let is_error = matches!(icmp.kind, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM);
        let has_ports = u16::from_be_bytes(inner.fragment) & FRAGMENT_OFFSET == 0;
        if !is_error || inner.version_and_length != PLAIN || inner.protocol != PROTOCOL_TCP || !has_ports {
            return None;
        }
        let total_length = usize::from(u16::from_be_bytes(ip.total_length));
        if !holds::<Error4>(&frame, total_length) {
            return None;
        }
        // SAFETY: as above.
        let (sender, source, destination) = unsafe {
            (
                read_word(&raw const ip.destination, 0),
                read_word(&raw const inner.source, 0),
                read_word(&raw const inner.destination, 0),
            )
        };
        (sender == source).then_some(Self {
            key: tcp.answered(Address::of_word(destination), Address::of_word(source)),
            total_length: total_length as u16,
            hops: ip.ttl,
            class: u32::from(ip.tos),
        })
    }

    #[inline(always)]
    fn parse_v6(frame: Frame) -> Option<Self> {
        let error = frame.at::<Error6>(0)?;
        // SAFETY: as above.
        let Error6 { ip, icmp, inner, tcp, .. } = unsafe { &*error };
        let is_version_6 = |ip: &Ipv6| ip.version_class_and_label[0] & 0xf0 == VERSION_6;
        if !is_version_6(ip) || ip.next_header != PROTOCOL_ICMPV6 {
            return None;
        }
        let is_error =
            matches!(icmp.kind, v6::UNREACHABLE | v6::TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM);
        if !is_error || !is_version_6(inner) || inner.next_header != PROTOCOL_TCP {
            return None;
        }
        let total_length = size_of::<Ipv6>() + usize::from(u16::from_be_bytes(ip.payload_length));
        if !holds::<Error6>(&frame, total_length) {
            return None;
        }
        // SAFETY: as above.
        let (sender, source, destination, class) = unsafe {
            (
                read_address(&raw const ip.destination),
                read_address(&raw const inner.source),
                read_address(&raw const inner.destination),
                read_word(&raw const ip.version_class_and_label, 0) & u32::to_be(0x0fff_ffff),
            )
        };
        // An IPv4 address in its IPv6 form would be taken for that IPv4 address.
        if sender != source || source.is_v4() || destination.is_v4() {
            return None;
        }
        let key = tcp.answered(destination, source);
        Some(Self { key, total_length: total_length as u16, hops: ip.hop_limit, class })
    }

    /// Makes it an error for the other end of the flow, whose direction has the key of this error, and takes a hop off. With
    /// a flow that is one way it is one for that end as it is.
    /// The frame is the one that was parsed; `None` if it is not.
    ///
    /// Checksums are updated, not computed: one that was wrong stays so.
    #[inline(always)]
    pub fn rewrite(&self, frame: Frame, flow: &Flow) -> Option<()> {
        if flow.side.is_one_way() {
            // As long as an error is, it holds these.
            Headers::of(frame)?.take_hop();
            return Some(());
        }
        if is_v6(&frame)? { self.rewrite_v6(frame, flow) } else { self.rewrite_v4(frame, flow) }
    }

    #[inline(always)]
    fn rewrite_v4(&self, frame: Frame, flow: &Flow) -> Option<()> {
        let error = frame.at::<Error4>(0)?;
        let (source, destination) = (flow.becomes.source.0[3], flow.becomes.destination.0[3]);
        // SAFETY: `at` has checked that all of it lies in the frame.
        unsafe {
            let ip = &raw mut (*error).ip;
            let outer = put_word(&raw mut (*ip).source, 0, source)
                + put_word(&raw mut (*ip).destination, 0, destination);
            (*ip).checksum = checksum::apply_with_ttl((*ip).checksum, checksum::fold(outer));
            (*ip).ttl = (*ip).ttl.wrapping_sub(1);
            let inner = &raw mut (*error).inner;
            write_word(&raw mut (*inner).source, 0, destination);
            write_word(&raw mut (*inner).destination, 0, source);
            let inner_checksum = checksum::apply((*inner).checksum, flow.ip_delta);
            let change = put(&raw mut (*inner).checksum, inner_checksum)
                + self.rewrite_tcp(frame, offset_of!(Error4, tcp), flow);
            (*error).icmp.checksum = checksum::apply((*error).icmp.checksum, checksum::fold(change));
        }
        Some(())
    }

    #[inline(always)]
    fn rewrite_v6(&self, frame: Frame, flow: &Flow) -> Option<()> {
        let error = frame.at::<Error6>(0)?;
        let (source, destination) = (&flow.becomes.source, &flow.becomes.destination);
        // SAFETY: as above.
        unsafe {
            let (ip, inner) = (&raw mut (*error).ip, &raw mut (*error).inner);
            (*ip).hop_limit = (*ip).hop_limit.wrapping_sub(1);
            // The pseudo-header counts as well (RFC 4443 §2.3).
            let outer = put_address(&raw mut (*ip).source, source)
                + put_address(&raw mut (*ip).destination, destination);
            write_address(&raw mut (*inner).source, destination);
            write_address(&raw mut (*inner).destination, source);
            let change = outer + self.rewrite_tcp(frame, offset_of!(Error6, tcp), flow);
            (*error).icmp.checksum = checksum::apply((*error).icmp.checksum, checksum::fold(change));
        }
        Some(())
    }

    /// The quoted ports, and the quoted checksum if the quotation goes that far: what lies beyond the packet's end is the
    /// padding of its frame. Returns what that, and the rewrite of the quoted addresses, does to a checksum over them.
    ///
    /// The quoted packet went against the flow's direction, where the same addresses and ports change, each into the same.
    /// So the sum of these changes is the direction's own.
    #[inline(always)]
    fn rewrite_tcp(&self, frame: Frame, at: usize, flow: &Flow) -> u32 {
        let Some(tcp) = frame.at::<QuotedTcp>(at) else { return 0 };
        // SAFETY: `at` has checked that it lies in the frame.
        unsafe {
            (*tcp).source = flow.becomes.destination_port;
            (*tcp).destination = flow.becomes.source_port;
        }
        let change = u32::from(flow.tcp_delta);
        let at = at + offset_of!(Tcp, checksum);
        if ETHERNET + usize::from(self.total_length) < at + 2 {
            return change;
        }
        let Some(field) = frame.at::<[u8; 2]>(at) else { return change };
        // SAFETY: as above.
        change + unsafe { put(field, checksum::apply(*field, flow.tcp_delta)) }
    }
}

#[inline(always)]
fn is_v6(frame: &Frame) -> Option<bool> {
    let ethernet = frame.at::<Ethernet>(0)?;
    // SAFETY: `at` has checked that it lies in the frame.
    Some(unsafe { (*ethernet).ether_type } == TYPE_IPV6.to_be_bytes())
}

/// Whether a packet of that length lies in the frame, and all of `H` in the packet.
#[inline(always)]
fn holds<H>(frame: &Frame, total_length: usize) -> bool {
    let end = ETHERNET + total_length;
    end <= frame.len() && end >= size_of::<H>() && total_length <= usize::from(u16::MAX)
}

impl QuotedTcp {
    /// The tuple of what answers it, from the one who was sent it.
    #[inline(always)]
    const fn answered(&self, by: Address, to: Address) -> FlowKey {
        FlowKey { source: by, destination: to, source_port: self.destination, destination_port: self.source }
    }
}

/// Writes a field, and returns what that does to a checksum over it.
///
/// # Safety
/// `field` may be written. The same holds for the two below.
#[inline(always)]
unsafe fn put(field: *mut [u8; 2], new: [u8; 2]) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let change = checksum::change(*field, new);
        *field = new;
        change
    }
}

#[inline(always)]
unsafe fn put_address(field: *mut [u8; 16], new: &Address) -> u32 {
    // SAFETY: as above.
    unsafe {
        put_word(field, 0, new.0[0])
            + put_word(field, 1, new.0[1])
            + put_word(field, 2, new.0[2])
            + put_word(field, 3, new.0[3])
    }
}

#[inline(always)]
unsafe fn put_word<const N: usize>(field: *mut [u8; N], word: usize, new: u32) -> u32 {
    // SAFETY: as above.
    unsafe {
        let change = checksum::change_word(read_word(field, word), new);
        write_word(field, word, new);
        change
    }
}

/// What we report ourselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// The packet does not fit: the MTU of the way on.
    TooBig(u16),
    /// It had no hops left.
    TimeExceeded,
}

/// A report of ours, at the start of a frame.
#[repr(C)]
struct Report4 {
    ethernet: Ethernet,
    ip: Ipv4,
    icmp: Icmp,
}

#[repr(C)]
struct Report6 {
    ethernet: Ethernet,
    ip: Ipv6,
    icmp: Icmp,
}

/// A report is no longer than that: RFC 1812 §4.3.2.3, RFC 4443 §2.4 (c).
const MOST4: usize = 576;
const MOST6: usize = 1280;
/// Routers write reports in this class (RFC 1812 §4.3.2.5).
const NETWORK_CONTROL: u8 = 0xc0;
const HOPS: u8 = 64;
const WORD: usize = 4;

/// How a report is put together around a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bytes to be put between the Ethernet header and the quoted packet.
    pub head: usize,
    /// Bytes of the packet that are quoted: whole words, so that nothing odd is left to the checksum.
    pub quoted: usize,
}

impl Layout {
    /// As much of the packet as a report may quote.
    #[inline(always)]
    pub fn around(packet: &Packet) -> Self {
        let (head, most) = if packet.key.source.is_v4() {
            (size_of::<Report4>() - ETHERNET, MOST4)
        } else {
            (size_of::<Report6>() - ETHERNET, MOST6)
        };
        let length = usize::from(packet.total_length);
        let most = most - head;
        Self { head, quoted: if length > most { most } else { length / WORD * WORD } }
    }
}

/// Writes a report around the packet that it quotes, for its sender. The frame ends with the quotation, and has been given
/// [`Layout::head`] bytes in front of its Ethernet header. False, and nothing written, if it is not long enough for that.
#[inline(always)]
pub fn report(frame: Frame, report: Report, layout: Layout) -> bool {
    if layout.head == size_of::<Report6>() - ETHERNET {
        report6(frame, report)
    } else {
        report4(frame, report)
    }
}

#[inline(always)]
fn report4(frame: Frame, report: Report) -> bool {
    const QUOTE: usize = size_of::<Report4>();
    const SUMMED: usize = (MOST4 - size_of::<Ipv4>()) / WORD;
    let (Some(to), Some(about), Some(quoted)) =
        (frame.at::<Report4>(0), frame.at::<Ethernet>(QUOTE - ETHERNET), frame.at::<Ipv4>(QUOTE))
    else {
        return false;
    };
    let length = (frame.length() - ETHERNET) as u16;
    // SAFETY: `at` has checked that all three lie in the frame. The old Ethernet header, which the report is written over,
    // is read first.
    unsafe {
        turn(to.cast(), about);
        let ip = &raw mut (*to).ip;
        (*ip).version_and_length = PLAIN;
        (*ip).tos = NETWORK_CONTROL;
        (*ip).total_length = length.to_be_bytes();
        (*ip).identification = [0; 2];
        (*ip).fragment = DONT_FRAGMENT.to_be_bytes();
        (*ip).ttl = HOPS;
        (*ip).protocol = PROTOCOL_ICMP;
        (*ip).checksum = [0; 2];
        write_word(&raw mut (*ip).source, 0, read_word(&raw const (*quoted).destination, 0));
        write_word(&raw mut (*ip).destination, 0, read_word(&raw const (*quoted).source, 0));
        (*ip).checksum = finished(sum(&frame, ETHERNET, size_of::<Ipv4>() / WORD));
        let (kind, code, mtu) = match report {
            Report::TooBig(mtu) => (v4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, mtu),
            Report::TimeExceeded => (v4::TIME_EXCEEDED, 0, 0),
        };
        (*to).icmp = Icmp::with_mtu(kind, code, mtu);
        (*to).icmp.checksum = finished(sum(&frame, offset_of!(Report4, icmp), SUMMED));
    }
    true
}

#[inline(always)]
fn report6(frame: Frame, report: Report) -> bool {
    const QUOTE: usize = size_of::<Report6>();
    const ADDRESSES: usize = ETHERNET + offset_of!(Ipv6, source);
    const SUMMED: usize = (MOST6 - offset_of!(Ipv6, source)) / WORD;
    let (Some(to), Some(about), Some(quoted)) =
        (frame.at::<Report6>(0), frame.at::<Ethernet>(QUOTE - ETHERNET), frame.at::<Ipv6>(QUOTE))
    else {
        return false;
    };
    let length = (frame.length() - offset_of!(Report6, icmp)) as u16;
    // SAFETY: as above.
    unsafe {
        turn(to.cast(), about);
        let ip = &raw mut (*to).ip;
        (*ip).version_class_and_label = [VERSION_6 | NETWORK_CONTROL >> 4, NETWORK_CONTROL << 4, 0, 0];
        (*ip).payload_length = length.to_be_bytes();
        (*ip).next_header = PROTOCOL_ICMPV6;
        (*ip).hop_limit = HOPS;
        write_address(&raw mut (*ip).source, &read_address(&raw const (*quoted).destination));
        write_address(&raw mut (*ip).destination, &read_address(&raw const (*quoted).source));
        let (kind, mtu) = match report {
            Report::TooBig(mtu) => (v6::TOO_BIG, mtu),
            Report::TimeExceeded => (v6::TIME_EXCEEDED, 0),
        };
        (*to).icmp = Icmp::with_mtu(kind, 0, mtu);
        // The pseudo-header (RFC 8200 §8.1) has the addresses, which stand before the rest, the length and the protocol.
        let covered = sum(&frame, ADDRESSES, SUMMED) + u32::from(length) + u32::from(PROTOCOL_ICMPV6);
        (*to).icmp.checksum = finished(covered);
    }
    true
}

/// Back to where the other header came from.
///
/// # Safety
/// Both are in a frame, and do not overlap.
#[inline(always)]
unsafe fn turn(to: *mut Ethernet, about: *const Ethernet) {
    // SAFETY: the caller's promise.
    unsafe {
        (*to).destination = (*about).source;
        (*to).source = (*about).destination;
        (*to).ether_type = (*about).ether_type;
    }
}

impl Icmp {
    #[inline(always)]
    const fn with_mtu(kind: u8, code: u8, mtu: u16) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self { kind, code, checksum: [0; 2], rest: [0, 0, high, low] }
    }
}

#[inline(always)]
pub(crate) const fn finished(sum: u32) -> [u8; 2] {
    (!checksum::fold(sum)).to_be_bytes()
}

/// The sum over at most so many words of four bytes, as far as the frame goes.
#[inline(always)]
pub(crate) fn sum(frame: &Frame, from: usize, most: usize) -> u32 {
    let mut sum = 0;
    let mut word = 0;
    while word < most {
        let Some(bytes) = frame.at::<[u8; WORD]>(from + word * WORD) else { break };
        // SAFETY: `at` has checked that the word lies in the frame.
        sum += checksum::sum_of_word(unsafe { read_word(bytes, 0) });
        word += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn tuple(source: IpAddr, source_port: u16, destination: IpAddr, port: u16) -> FlowKey {
        FlowKey {
            source: source.into(),
            destination: destination.into(),
            source_port: source_port.to_be_bytes(),
            destination_port: port.to_be_bytes(),
        }
    }

    /// What a client sends, and what becomes of it; the address of somebody else.
    #[derive(Clone, Copy, Debug)]
    struct Site {
        before: FlowKey,
        after: FlowKey,
        router: Address,
    }

    fn sites() -> [Site; 2] {
        let site = |client, vip, snat, server, router| Site {
            before: tuple(address(client), 20_000, address(vip), 80),
            after: tuple(address(snat), 12_345, address(server), 8080),
            router: address(router).into(),
        };
        [
            site("10.10.1.2", "10.10.1.1", "10.20.1.1", "10.20.1.2", "192.0.2.1"),
            site("2001:db8:10::2", "2001:db8:10::1", "2001:db8:20::1", "2001:db8:20::2", "2001:db8::7"),
        ]
    }

    fn ones_sum(bytes: &[u8]) -> u16 {
        let words =
            bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
        let mut sum: u64 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn finish(bytes: &mut [u8], at: usize, pseudo: &[u8]) {
        bytes[at..at + 2].fill(0);
        let checksum = !ones_sum(&[pseudo, bytes].concat());
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn wire(address: &Address) -> Vec<u8> {
        match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    fn pseudo_header(from: &Address, to: &Address, protocol: u8, length: usize) -> Vec<u8> {
        let lengths = [(length as u32).to_be_bytes(), [0, 0, 0, protocol]].concat();
        [wire(from), wire(to), lengths].concat()
    }

    fn ip(from: &Address, to: &Address, protocol: u8, ttl: u8, content: &[u8]) -> Vec<u8> {
        let mut header;
        if from.is_v4() {
            header = vec![0x45, 0];
            header.extend(((20 + content.len()) as u16).to_be_bytes());
            header.extend([0, 7, 0x40, 0, ttl, protocol, 0, 0]);
            header.extend([wire(from), wire(to)].concat());
            finish(&mut header, 10, &[]);
        } else {
            header = vec![0x60, 0, 0, 0];
            header.extend((content.len() as u16).to_be_bytes());
            header.extend([protocol, ttl]);
            header.extend([wire(from), wire(to)].concat());
        }
        [&header, content].concat()
    }

    fn header(from: &Address) -> usize {
        if from.is_v4() { 20 } else { 40 }
    }

    /// A TCP packet of that tuple, all checksums right.
    fn tcp(key: &FlowKey, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = [key.source_port, key.destination_port].concat();
        tcp.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 255, 255, 0, 0, 0, 0]);
        tcp.extend(payload);
        let pseudo = pseudo_header(&key.source, &key.destination, 6, tcp.len());
        finish(&mut tcp, 16, &pseudo);
        ip(&key.source, &key.destination, 6, ttl, &tcp)
    }

    fn frame(packet: &[u8]) -> Vec<u8> {
        let ether_type = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &ether_type[..], packet].concat()
    }

    /// An error about the first bytes of a packet.
    fn error(from: &Address, to: &Address, kind: [u8; 2], rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
        let mut icmp = [&kind[..], &[0, 0], &rest, quoted].concat();
        let (protocol, pseudo) =
            if from.is_v4() { (1, Vec::new()) } else { (58, pseudo_header(from, to, 58, icmp.len())) };
        finish(&mut icmp, 2, &pseudo);
        frame(&ip(from, to, protocol, 64, &icmp))
    }

    /// Of the router, that the packet does not fit.
    fn too_big(site: &Site, quoted: &[u8]) -> Vec<u8> {
        let kind = if site.router.is_v4() { [3, 4] } else { [2, 0] };
        error(&site.router, &site.after.source, kind, [0, 0, 5, 120], quoted)
    }

    fn whole(bytes: &mut [u8]) -> Frame {
        let range = bytes.as_mut_ptr_range();
        // SAFETY: all tests keep the bytes for as long as they use the frame.
        unsafe { Frame::new(range.start as usize, range.end as usize) }
    }

    fn parse(frame: &mut [u8]) -> Option<Error> {
        Error::parse(whole(frame))
    }

    fn rewrite(frame: &mut [u8], flow: &Flow) {
        let error = parse(frame).expect("an error");
        error.rewrite(whole(frame), flow).expect("the same frame");
    }

    fn key(mut frame: Vec<u8>) -> Option<FlowKey> {
        parse(&mut frame).map(|error| error.key)
    }

    /// The direction that answers `from`.
    fn flow(from: &FlowKey, to: &FlowKey) -> Flow {
        let (key, becomes) = (from.reversed(), to.reversed());
        let (ip_delta, tcp_delta) = checksum::deltas(&key, &becomes);
        Flow { becomes, ip_delta, tcp_delta, ..Flow::default() }
    }

    #[test]
    fn an_error_belongs_to_the_flow_that_it_quotes() {
        let kinds: [&[[u8; 2]]; 2] = [
            &[[3, 0], [3, 1], [3, 3], [3, 4], [3, 13], [11, 0], [12, 0]],
            &[[1, 0], [1, 4], [2, 0], [3, 0], [4, 1]],
        ];
        for (site, kinds) in sites().iter().zip(kinds) {
            let quoted = tcp(&site.after, 60, &[]);
            let least = header(&site.router) + 8;
            assert_eq!(key(too_big(site, &quoted[..least])), Some(site.after.reversed()));
            for kind in kinds {
                let error = error(&site.after.destination, &site.after.source, *kind, [0; 4], &quoted);
                assert_eq!(key(error), Some(site.after.reversed()), "{kind:?}");
            }
        }
    }

    #[test]
    fn what_is_no_error_about_tcp_belongs_to_nobody() {
        let kinds: [&[[u8; 2]]; 2] =
            [&[[0, 0], [8, 0], [4, 0], [5, 1], [13, 0]], &[[128, 0], [129, 0], [135, 0], [137, 0], [5, 0]]];
        for (site, kinds) in sites().iter().zip(kinds) {
            let quoted = tcp(&site.after, 60, &[]);
            for kind in kinds {
                let error = error(&site.router, &site.after.source, *kind, [0; 4], &quoted);
                assert_eq!(key(error), None, "{kind:?}");
            }
            let elsewhere = Site { after: site.before, ..*site };
            assert_eq!(key(too_big(&elsewhere, &quoted)), None, "not to the packet's sender");
            let least = header(&site.router) + 8;
            assert_eq!(key(too_big(site, &quoted[..least - 1])), None, "half a sequence number");
        }
    }

    #[test]
    fn what_is_odd_belongs_to_nobody() {
        let [v4, v6] = sites();
        let changed = |site: &Site, at: usize, value: u8| {
            let mut frame = too_big(site, &tcp(&site.after, 60, &[]));
            frame[at] = value;
            key(frame)
        };
        for (at, value, what) in [
            (14, 0x46, "options"),
            (20, 0x20, "a fragment"),
            (21, 1, "a fragment"),
            (23, 58, "the other family's protocol"),
            (42, 0x46, "options of the quoted packet"),
            (42, 0x60, "another family's"),
            (49, 1, "a later fragment has no ports"),
            (51, 17, "UDP"),
            (16, 1, "beyond the frame"),
            (17, 55, "the packet ends before its ports do"),
        ] {
            assert_eq!(changed(&v4, at, value), None, "{what}");
        }
        for (at, value, what) in [
            (14, 0x40, "version 4"),
            (18, 1, "beyond the frame"),
            (19, 55, "the packet ends before its ports do"),
            (20, 1, "the other family's protocol"),
            (62, 0x45, "another family's"),
            (68, 44, "a fragment"),
            (68, 17, "UDP"),
        ] {
            assert_eq!(changed(&v6, at, value), None, "{what}");
        }
        let mut mapped = too_big(&v6, &tcp(&v6.after, 60, &[]));
        for at in [38, 70] {
            mapped[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        }
        assert_eq!(key(mapped), None, "an IPv4 address in its IPv6 form");
    }

    #[test]
    fn padding_of_the_frame_is_no_part_of_the_quotation() {
        let [site, _] = sites();
        let quoted = tcp(&site.after, 60, &[]);
        let mut bytes = too_big(&site, &quoted[..28]);
        bytes.extend([0xaa; 24]);
        rewrite(&mut bytes, &flow(&site.after, &site.before));
        assert!(bytes[70..].iter().all(|byte| *byte == 0xaa));
        assert_eq!(ones_sum(&bytes[34..70]), 0xffff);
    }

    fn any_address(is_v4: bool) -> impl Strategy<Value = Address> {
        any::<[u8; 16]>().prop_map(move |octets| {
            let [.., a, b, c, d] = octets;
            // Never one in its IPv6 form by chance.
            let v6 = || Address::v6([&[0x20], &octets[1..]].concat().try_into().expect("16"));
            if is_v4 { Address::v4([a, b, c, d]) } else { v6() }
        })
    }

    fn any_key(is_v4: bool) -> impl Strategy<Value = FlowKey> {
        (any_address(is_v4), any_address(is_v4), any::<[[u8; 2]; 2]>()).prop_map(
            |(source, destination, [source_port, destination_port])| FlowKey {
                source,
                destination,
                source_port,
                destination_port,
            },
        )
    }

    fn any_site() -> impl Strategy<Value = Site> {
        any::<bool>()
            .prop_flat_map(|is_v4| (any_key(is_v4), any_key(is_v4), any_address(is_v4)))
            .prop_map(|(before, after, router)| Site { before, after, router })
    }

    /// One's complement has two zeros, and an update may end with the other one than a computation.
    fn with_one_zero(mut frame: Vec<u8>, is_v4: bool) -> Vec<u8> {
        let checksums: &[usize] = if is_v4 { &[24, 36, 52, 78] } else { &[56, 118] };
        for at in checksums {
            if frame.get(*at..at + 2) == Some(&[0xff, 0xff]) {
                frame[*at..at + 2].fill(0);
            }
        }
        frame
    }

    proptest! {
        /// What is relayed is what a router would have sent about the packet that the other side has sent: byte by byte, but
        /// for the hops.
        #[test]
        fn a_rewrite_is_the_same_error_about_the_senders_packet(
            site in any_site(), payload in proptest::collection::vec(any::<u8>(), 0..600), quoted in 8_usize..700,
            kind in 0..4_usize, code in any::<u8>(), rest in any::<[u8; 4]>(), ttl in 1_u8..,
        ) {
            // Half a checksum stays as it was.
            prop_assume!(quoted != 17);
            let Site { before, after, router } = site;
            let is_v4 = router.is_v4();
            let quoted = header(&router) + quoted;
            let quote = |key: &FlowKey| {
                let packet = tcp(key, ttl, &payload);
                packet[..quoted.min(packet.len())].to_vec()
            };
            let kind = [if is_v4 { [3, 3, 11, 12][kind] } else { [1, 2, 3, 4][kind] }, code];
            let mut relayed = error(&router, &after.source, kind, rest, &quote(&after));
            rewrite(&mut relayed, &flow(&after, &before));
            let mut expected = error(&before.destination, &before.source, kind, rest, &quote(&before));
            if is_v4 {
                expected[22] = 63;
                finish(&mut expected[14..34], 10, &[]);
            } else {
                expected[21] = 63;
            }
            prop_assert_eq!(with_one_zero(relayed, is_v4), with_one_zero(expected, is_v4));
        }

        #[test]
        fn the_quoted_tuple_is_the_clients_afterwards(site in any_site(), quoted in 8_usize..40) {
            let Site { before, after, router } = site;
            let packet = tcp(&after, 60, &[1; 20]);
            let mut relayed = too_big(&Site { before, after, router }, &packet[..header(&router) + quoted]);
            rewrite(&mut relayed, &flow(&after, &before));
            prop_assert_eq!(key(relayed), Some(before.reversed()));
        }

        #[test]
        fn never_reads_outside_the_frame(
            mut frame in proptest::collection::vec(any::<u8>(), 0..140), plain in any::<bool>(), is_v4 in any::<bool>(),
        ) {
            if plain && frame.len() > 70 {
                let fixed: &[(usize, u8)] = if is_v4 {
                    &[(12, 8), (13, 0), (14, 0x45), (16, 0), (20, 0), (21, 0), (23, 1), (34, 3), (42, 0x45), (51, 6)]
                } else {
                    &[(12, 0x86), (13, 0xdd), (14, 0x60), (18, 0), (20, 58), (54, 2), (62, 0x60), (68, 6)]
                };
                for (at, value) in fixed {
                    frame[*at] = *value;
                }
            }
            let [v4, v6] = sites();
            if let Some(error) = parse(&mut frame) {
                let site = if error.key.source.is_v4() { v4 } else { v6 };
                let _ = error.rewrite(whole(&mut frame), &flow(&site.after, &site.before));
            }
        }

        #[test]
        fn a_report_quotes_the_packet_to_its_sender(
            site in any_site(), payload in proptest::collection::vec(any::<u8>(), 0..1480), mtu in any::<u16>(),
            is_too_big in any::<bool>(),
        ) {
            let key = site.before;
            let is_v4 = key.source.is_v4();
            let packet = tcp(&key, 1, &payload);
            let mut bytes = frame(&packet);
            let ether_type = bytes[12..14].to_vec();
            let layout = Layout::around(&Packet::parse(whole(&mut bytes)).map_err(|o| TestCaseError::fail(o.name()))?);
            let (head, most) = if is_v4 { (28, 548) } else { (48, 1232) };
            prop_assert_eq!(layout.head, head);
            prop_assert!(most.min(packet.len()) - layout.quoted < 4, "{:?} of {}", layout, packet.len());
            // What the helpers of the kernel do.
            bytes.truncate(ETHERNET + layout.quoted);
            let mut bytes = [&vec![0xaa; head], &bytes[..]].concat();
            let kind = if is_too_big { Report::TooBig(mtu) } else { Report::TimeExceeded };
            let done = report(whole(&mut bytes), kind, layout);
            prop_assert!(done);
            prop_assert_eq!(&bytes[..12], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], "back to where it came from");
            prop_assert_eq!(&bytes[12..14], &ether_type);
            let expected = match (is_v4, is_too_big) {
                (true, true) => [3, 4],
                (true, false) => [11, 0],
                (false, true) => [2, 0],
                (false, false) => [3, 0],
            };
            let rest = if is_too_big { u32::from(mtu).to_be_bytes() } else { [0; 4] };
            // As anybody else would write it, but for the class and the hops.
            let mut expected = error(&key.destination, &key.source, expected, rest, &packet[..layout.quoted]);
            if is_v4 {
                (expected[15], expected[18], expected[19]) = (0xc0, 0, 0);
                finish(&mut expected[14..34], 10, &[]);
            } else {
                expected[14..16].copy_from_slice(&[0x6c, 0]);
            }
            expected[..12].copy_from_slice(&bytes[..12]);
            prop_assert_eq!(with_one_zero(bytes.clone(), is_v4), with_one_zero(expected, is_v4));
            // It is one that others relay.
            prop_assert_eq!(parse(&mut bytes).map(|error| error.key), Some(key.reversed()));
        }
    }
}
