//! Frames as the network card has them: what the XDP program makes of their headers.
#![allow(unsafe_code, reason = "the program reads packets by pointer")]

use std::net::{IpAddr, Ipv6Addr};

use balancer_ebpf::abi::{Address, Flow, FlowKey};
use balancer_ebpf::checksum;
use balancer_ebpf::packet::{Frame, Headers, Packet};

const ETHERNET: usize = 14;

/// A frame: nothing outside of it is read and reading changes nothing; what is taken for a packet is what another reader
/// sees in it, no more and no less; and a rewrite is undone by the one of the other direction.
pub fn frame(input: &[u8]) {
    // A copy of exactly this length, so that a tool that watches memory sees the first byte too many.
    let mut bytes = input.to_vec().into_boxed_slice();
    let range = bytes.as_mut_ptr_range();
    // SAFETY: the box outlives the frame and the headers in it, and nobody else touches it while they are used.
    let frame = unsafe { Frame::new(range.start as usize, range.end as usize) };
    // SAFETY: as above; a copy, for what has pointers to it may change at any time.
    let look = || unsafe { std::slice::from_raw_parts(range.start, input.len()) }.to_vec();
    let packet = Packet::parse(frame);
    let read = packet.as_ref().ok().map(|packet| Read::of(&packet.key, packet.hops, packet.flags));
    assert_eq!(read, plainly_read(input));
    if let Ok(packet) = packet
        && packet.oddity.is_none()
    {
        let headers = Headers::of(frame).expect("what was parsed has headers");
        let _ = headers.is_unfinished(&packet);
        assert_eq!(look(), input, "reading changes nothing");
        // What would have no hops left is not forwarded.
        if packet.hops > 2 {
            there_and_back(look, &headers, &packet.key);
        }
    }
}

/// To addresses and ports that the frame itself says, in the twelve bytes that nobody reads.
fn there_and_back(look: impl Fn() -> Vec<u8>, headers: &Headers, key: &FlowKey) {
    let before = look();
    let other = other_key(&before, key);
    headers.rewrite(&flow(key, &other));
    let sent = plainly_read(&look()).expect("still a packet");
    assert_eq!(sent, Read { hops: before[hops_at(key)] - 1, ..Read::of(&other, 0, sent.flags) });
    assert_eq!(errors(&look()), errors(&before), "checksums are as right as they were, or as wrong");
    headers.rewrite(&flow(&other, key));
    assert_eq!(errors(&look()), errors(&before), "and the same on the way back");
    let (mut changed, mut original) = (look(), before);
    for frame in [&mut changed, &mut original] {
        frame[hops_at(key)] = 0;
        let checksum = checksum_at(frame);
        frame[checksum..][..2].fill(0);
        if key.source.is_v4() {
            frame[ETHERNET + 10..][..2].fill(0);
        }
    }
    assert_eq!(changed, original, "nothing else has changed");
}

fn flow(from: &FlowKey, to: &FlowKey) -> Flow {
    let (ip_delta, tcp_delta) = checksum::deltas(from, to);
    Flow { becomes: *to, ip_delta, tcp_delta, ..Flow::default() }
}

fn other_key(frame: &[u8], key: &FlowKey) -> FlowKey {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = frame[..12].try_into().expect("two Ethernet addresses");
    let (source, destination) = if key.source.is_v4() {
        (Address::v4([a, b, c, d]), Address::v4([e, f, g, h]))
    } else {
        let address =
            |[a, b, c, d]: [u8; 4]| Address::v6([0x20, a, 0, 0, b, 0, 0, 0, 0, 0, 0, c, 0, 0, 0, d]);
        (address([a, b, c, d]), address([e, f, g, h]))
    };
    FlowKey { source, destination, source_port: [i, j], destination_port: [k, l] }
}

/// What a reader knows of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    hops: u8,
    flags: u8,
}

impl Read {
    fn of(key: &FlowKey, hops: u8, flags: u8) -> Self {
        let ports = (u16::from_be_bytes(key.source_port), u16::from_be_bytes(key.destination_port));
        Self { source: key.source.ip(), destination: key.destination.ip(), ports, hops, flags }
    }
}

/// The headers of TCP over IP, as the RFCs lay them out.
fn plainly_read(frame: &[u8]) -> Option<Read> {
    let packet = frame.get(ETHERNET..)?;
    match frame[12..14] {
        [0x08, 0x00] => plainly_read_v4(packet),
        [0x86, 0xdd] => plainly_read_v6(packet),
        _ => None,
    }
}

fn plainly_read_v4(packet: &[u8]) -> Option<Read> {
    let (version, header) = (packet.first()? >> 4, usize::from(packet.first()? & 15) * 4);
    let (total, fragment) = (usize::from(word(packet, 2)?), word(packet, 6)?);
    // What follows the first fragment has no ports. And the ports of a first one are enough to find its flow, as are
    // those behind options: whether the rest of TCP's header is in such a packet, nobody needs to know.
    let is_odd = header > 20 || fragment & 0x3fff != 0;
    if version != 4 || header < 20 || total < header || fragment & 0x1fff != 0 {
        return None;
    }
    packet.get(..total)?;
    let (ports, flags) = plainly_read_tcp(packet, *packet.get(9)?, header, (!is_odd).then_some(total))?;
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("four"));
    Some(Read { source: address(12), destination: address(16), ports, hops: packet[8], flags })
}

fn plainly_read_v6(packet: &[u8]) -> Option<Read> {
    let total = 40 + usize::from(word(packet, 4)?);
    if packet.first()? >> 4 != 6 || total > usize::from(u16::MAX) || packet.len() < total {
        return None;
    }
    let (ports, flags) = plainly_read_tcp(packet, packet[6], 40, Some(total))?;
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen"));
    // Not for the wire (RFC 4291 §2.5.5.2).
    let is_mapped = [8, 24].into_iter().any(|at| address(at).to_ipv4_mapped().is_some());
    (!is_mapped).then(|| Read {
        source: address(8).into(),
        destination: address(24).into(),
        ports,
        hops: packet[7],
        flags,
    })
}

/// Ports and flags, if it is TCP and all of its header lies within `end`.
fn plainly_read_tcp(
    packet: &[u8],
    protocol: u8,
    header: usize,
    end: Option<usize>,
) -> Option<((u16, u16), u8)> {
    let tcp = packet.get(header..header + 20)?;
    let length = usize::from(tcp[12] >> 4) * 4;
    let fits = end.is_none_or(|end| header + length <= end);
    (protocol == 6 && length >= 20 && fits).then_some(((word(tcp, 0)?, word(tcp, 2)?), tcp[13]))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn hops_at(key: &FlowKey) -> usize {
    ETHERNET + if key.source.is_v4() { 8 } else { 7 }
}

/// Where TCP's checksum is, in a packet without options of IP.
fn checksum_at(frame: &[u8]) -> usize {
    ETHERNET + if frame[12] == 0x08 { 20 } else { 40 } + 16
}

/// By how much both checksums are wrong, computed over all that they cover: of IPv4's header, and of TCP.
fn errors(frame: &[u8]) -> (u32, u32) {
    let packet = &frame[ETHERNET..];
    let total = |at: usize| usize::from(word(packet, at).expect("a length"));
    let (addresses, tcp) = match frame[12] {
        0x08 => (&packet[12..20], &packet[20..total(2)]),
        _ => (&packet[8..40], &packet[40..40 + total(4)]),
    };
    let pseudo = sum(addresses) + 6 + tcp.len() as u32;
    let ip = if frame[12] == 0x08 { sum(&packet[..20]) } else { 0 };
    (ip % 0xffff, (pseudo + sum(tcp)) % 0xffff)
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}
