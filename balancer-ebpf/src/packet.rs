//! From a frame to the headers of a TCP packet over IPv4 or IPv6, or the reason why it is not one; and their rewrite.
#![allow(
    unsafe_code,
    reason = "packet access is by pointer in BPF; every pointer is checked against the frame's end"
)]

use crate::abi::{Address, Flow, FlowKey};
use crate::checksum;
use crate::counter::Outcome;

pub(crate) const ETHERNET: usize = size_of::<Ethernet>();
const IPV4: usize = size_of::<Ipv4>();
const IPV6: usize = size_of::<Ipv6>();

const TYPE_IPV4: u16 = 0x0800;
pub(crate) const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_QINQ: u16 = 0x88a8;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;
/// More fragments, or an offset.
pub(crate) const FRAGMENTED: u16 = 0x3fff;
pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fff;
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

/// Extension headers of IPv6, as the registry of protocol numbers names them. Behind one of them is what nobody looks at
/// here.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    /// Receiver.
    pub destination: [u8; 6],
    /// Sender.
    pub source: [u8; 6],
    pub(crate) ether_type: [u8; 2],
}

/// IPv4 without options (RFC 791 §3.1).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    pub(crate) version_and_length: u8,
    /// DSCP and ECN.
    pub tos: u8,
    pub(crate) total_length: [u8; 2],
    pub(crate) identification: [u8; 2],
    pub(crate) fragment: [u8; 2],
    /// Hops left.
    pub ttl: u8,
    pub(crate) protocol: u8,
    /// Over the header.
    pub checksum: [u8; 2],
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

/// IPv6 without extension headers (RFC 8200 §3).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub(crate) version_class_and_label: [u8; 4],
    pub(crate) payload_length: [u8; 2],
    pub(crate) next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
}

/// TCP without options (RFC 9293 §3.1).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    /// Sender's port.
    pub source: [u8; 2],
    /// Receiver's port.
    pub destination: [u8; 2],
    /// Sequence number of the first byte.
    pub sequence: [u8; 4],
    /// Next sequence number expected from the other end.
    pub acknowledgment: [u8; 4],
    pub(crate) data_offset: u8,
    /// FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    pub flags: u8,
    pub(crate) window: [u8; 2],
    /// Over pseudo-header, header and data.
    pub checksum: [u8; 2],
    pub(crate) urgent: [u8; 2],
}

/// A frame in memory: nothing outside `start..end` is ever touched.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame between two addresses.
    ///
    /// # Safety
    /// `start..end` is readable and writable, and stays so for as long as the frame and its headers are used.
    #[inline(always)]
    pub const unsafe fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The Ethernet header.
    #[inline(always)]
    pub fn ethernet(&self) -> Option<*mut Ethernet> {
        self.at(0)
    }

    /// The header at `offset`, if all of it lies in the frame. `T` is one of the byte-aligned headers above.
    #[inline(always)]
    pub(crate) fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        Some((self.start + offset) as *mut T)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Its length, to be calculated with: the compiler may neither rearrange nor narrow a subtraction that the verifier only
    /// takes as it stands.
    #[inline(always)]
    pub fn length(&self) -> usize {
        #[cfg(target_arch = "bpf")]
        {
            let mut length = self.end as u64;
            // SAFETY: one instruction between registers.
            unsafe {
                core::arch::asm!(
                    "{length} -= {start}",
                    length = inout(reg) length,
                    start = in(reg) self.start as u64,
                    options(pure, nomem, nostack),
                );
            }
            length as usize
        }
        #[cfg(not(target_arch = "bpf"))]
        self.len()
    }
}

/// An IP header, by its version.
#[derive(Clone, Copy)]
pub enum Ip {
    /// IPv4.
    V4(*mut Ipv4),
    /// IPv6.
    V6(*mut Ipv6),
}

/// Bytes of the most TCP options.
const MAX_OPTION_BYTES: usize = 40;

/// TCP options (RFC 9293 §3.1).
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOTHING: u8 = 1;
    pub(super) const MSS: u8 = 2;
}

/// Words of the longest TCP header.
const MAX_TCP_WORDS: usize = 30;

/// Why a TCP packet can only be looked up in the flow table, and not be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// The IPv4 header carries options.
    Options,
    /// The first fragment of several.
    FirstFragment,
}

/// What a TCP packet says of itself.
///
/// No pointers into it, on purpose: the verifier would follow each of the two families on a way of its own through all of
/// the program. Who needs the headers finds them again, as [`Headers`].
#[derive(Clone, Copy)]
pub struct Packet {
    /// Addresses and ports.
    pub key: FlowKey,
    /// Bytes of IP.
    pub total_length: u16,
    /// Bytes of TCP's payload, if nothing is odd.
    pub payload: u16,
    /// Hops left.
    pub hops: u8,
    /// TCP flags.
    pub flags: u8,
    /// Not to be forwarded, for this reason.
    pub oddity: Option<Oddity>,
}

impl Packet {
    /// Parses the frame.
    ///
    /// # Errors
    /// The outcome to count: the packet is not for us.
    #[inline(always)]
    pub fn parse(frame: Frame) -> Result<Self, Outcome> {
        let ethernet = frame.at::<Ethernet>(0).ok_or(Outcome::ShortFrame)?;
        // SAFETY: `at` has checked that the header lies in the frame. The same holds for those below.
        match u16::from_be_bytes(unsafe { (*ethernet).ether_type }) {
            TYPE_IPV4 => Self::parse_v4(frame),
            TYPE_IPV6 => Self::parse_v6(frame),
            TYPE_VLAN | TYPE_QINQ => Err(Outcome::Vlan),
            _ => Err(Outcome::NotIp),
        }
    }

    #[inline(always)]
    fn parse_v4(frame: Frame) -> Result<Self, Outcome> {
        let ip = frame.at::<Ipv4>(ETHERNET).ok_or(Outcome::Truncated)?;
        // SAFETY: as above.
        let header = unsafe { *ip };
        let ip_length = usize::from(header.version_and_length & 0x0f) * 4;
        if header.version_and_length >> 4 != 4 || ip_length < IPV4 {
            return Err(Outcome::Malformed);
        }
        let total_length = u16::from_be_bytes(header.total_length);
        if ETHERNET + usize::from(total_length) > frame.len() || usize::from(total_length) < ip_length {
            return Err(Outcome::Truncated);
        }
        match header.protocol {
            PROTOCOL_TCP => {}
            PROTOCOL_ICMP => return Err(Outcome::Icmp),
            _ => return Err(Outcome::NotTcp),
        }
        let fragment = u16::from_be_bytes(header.fragment);
        if fragment & FRAGMENT_OFFSET != 0 {
            return Err(Outcome::Fragment);
        }
        // Two branches, so that the common one has constant offsets for the verifier.
        let (tcp, oddity) = if ip_length == IPV4 {
            let first = (fragment & FRAGMENTED != 0).then_some(Oddity::FirstFragment);
            (frame.at::<Tcp>(ETHERNET + IPV4), first)
        } else {
            (frame.at::<Tcp>(ETHERNET + ip_length), Some(Oddity::Options))
        };
        let tcp = tcp.ok_or(Outcome::Truncated)?;
        let payload = check_tcp(tcp, ip_length, total_length, oddity)?;
        // SAFETY: as above.
        let addresses = unsafe {
            let source = Address::of_word(read_word(&raw const (*ip).source, 0));
            (source, Address::of_word(read_word(&raw const (*ip).destination, 0)))
        };
        Ok(Self { payload, ..Self::of(addresses, tcp, total_length, header.ttl, oddity) })
    }

    #[inline(always)]
    fn parse_v6(frame: Frame) -> Result<Self, Outcome> {
        let ip = frame.at::<Ipv6>(ETHERNET).ok_or(Outcome::Truncated)?;
        // SAFETY: as above.
        let header = unsafe { &*ip };
        if header.version_class_and_label[0] >> 4 != 6 {
            return Err(Outcome::Malformed);
        }
        let total_length = IPV6 + usize::from(u16::from_be_bytes(header.payload_length));
        if ETHERNET + total_length > frame.len() || total_length > usize::from(u16::MAX) {
            return Err(Outcome::Truncated);
        }
        match header.next_header {
            PROTOCOL_TCP => {}
            PROTOCOL_ICMPV6 => return Err(Outcome::Icmp),
            extension::FRAGMENT => return Err(Outcome::Fragment),
            extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::AUTHENTICATION
            | extension::DESTINATION
            | extension::MOBILITY
            | extension::HIP
            | extension::SHIM6 => return Err(Outcome::Ipv6Extension),
            _ => return Err(Outcome::NotTcp),
        }
        let tcp = frame.at::<Tcp>(ETHERNET + IPV6).ok_or(Outcome::Truncated)?;
        let total_length = total_length as u16;
        let payload = check_tcp(tcp, IPV6, total_length, None)?;
        // SAFETY: as above.
        let (source, destination) =
            unsafe { (read_address(&raw const (*ip).source), read_address(&raw const (*ip).destination)) };
        // From here on they would be taken for IPv4.
        if source.is_v4() || destination.is_v4() {
            return Err(Outcome::MappedAddress);
        }
        Ok(Self { payload, ..Self::of((source, destination), tcp, total_length, header.hop_limit, None) })
    }

    #[inline(always)]
    fn of(
        (source, destination): (Address, Address),
        tcp: *mut Tcp,
        total_length: u16,
        hops: u8,
        oddity: Option<Oddity>,
    ) -> Self {
        // SAFETY: `at` has checked that the header lies in the frame.
        let (source_port, destination_port, flags) =
            unsafe { ((*tcp).source, (*tcp).destination, (*tcp).flags) };
        let key = FlowKey { source, destination, source_port, destination_port };
        Self { key, total_length, payload: 0, hops, flags, oddity }
    }
}

/// Bytes of payload.
#[inline(always)]
fn check_tcp(
    tcp: *mut Tcp,
    ip_length: usize,
    total_length: u16,
    oddity: Option<Oddity>,
) -> Result<u16, Outcome> {
    // SAFETY: as above.
    let tcp_length = usize::from(unsafe { (*tcp).data_offset } >> 4) * 4;
    if tcp_length < size_of::<Tcp>() {
        return Err(Outcome::Malformed);
    }
    if oddity.is_none() && ip_length + tcp_length > usize::from(total_length) {
        return Err(Outcome::Truncated);
    }
    Ok(total_length.wrapping_sub((ip_length + tcp_length) as u16))
}

/// The headers of a TCP packet. Not to be kept: see [`Packet`].
#[derive(Clone, Copy)]
pub struct Headers {
    frame: Frame,
    /// Where the Ethernet header is.
    pub ethernet: *mut Ethernet,
    /// Where the IP header is.
    pub ip: Ip,
    /// Where the TCP header is.
    pub tcp: *mut Tcp,
}

impl Headers {
    /// Those of a frame that [`Packet::parse`] has understood, and found nothing odd about.
    #[inline(always)]
    pub fn of(frame: Frame) -> Option<Self> {
        // The shorter of both.
        let start = frame.at::<[u8; ETHERNET + IPV4 + size_of::<Tcp>()]>(0)? as usize;
        let ethernet = start as *mut Ethernet;
        // SAFETY: just checked.
        let is_v4 = unsafe { (*ethernet).ether_type } == TYPE_IPV4.to_be_bytes();
        let (ip, tcp) = if is_v4 {
            (Ip::V4((start + ETHERNET) as *mut Ipv4), (start + ETHERNET + IPV4) as *mut Tcp)
        } else {
            (Ip::V6((start + ETHERNET) as *mut Ipv6), frame.at::<Tcp>(ETHERNET + IPV6)?)
        };
        Some(Self { frame, ethernet, ip, tcp })
    }

    /// What the choice of a route may go by: IPv4's type of service, or traffic class and flow label of IPv6 as they stand
    /// in the packet.
    #[inline(always)]
    pub fn class(&self) -> u32 {
        // SAFETY: `of` has checked the header.
        unsafe {
            match self.ip {
                Ip::V4(ip) => u32::from((*ip).tos),
                Ip::V6(ip) => {
                    read_word(&raw const (*ip).version_class_and_label, 0) & u32::to_be(0x0fff_ffff)
                }
            }
        }
    }

    /// Makes addresses, ports and checksums those of the flow, and takes a hop off. Packet and flow are of one family. A
    /// packet of a flow that is one way stays as it is otherwise.
    #[inline(always)]
    pub fn rewrite(&self, flow: &Flow) {
        if flow.side.is_one_way() {
            return self.take_hop();
        }
        let becomes = &flow.becomes;
        // SAFETY: `of` has checked both headers.
        unsafe {
            match self.ip {
                Ip::V4(ip) => {
                    (*ip).checksum = checksum::apply_with_ttl((*ip).checksum, flow.ip_delta);
                    (*ip).ttl = (*ip).ttl.wrapping_sub(1);
                    write_word(&raw mut (*ip).source, 0, becomes.source.0[3]);
                    write_word(&raw mut (*ip).destination, 0, becomes.destination.0[3]);
                }
                Ip::V6(ip) => {
                    (*ip).hop_limit = (*ip).hop_limit.wrapping_sub(1);
                    write_address(&raw mut (*ip).source, &becomes.source);
                    write_address(&raw mut (*ip).destination, &becomes.destination);
                }
            }
            let tcp = &mut *self.tcp;
            tcp.checksum = checksum::apply(tcp.checksum, flow.tcp_delta);
            tcp.source = becomes.source_port;
            tcp.destination = becomes.destination_port;
        }
    }

    /// Takes a hop off.
    #[inline(always)]
    pub(crate) fn take_hop(&self) {
        // SAFETY: `of` has checked the header.
        unsafe {
            match self.ip {
                Ip::V4(ip) => {
                    (*ip).checksum = checksum::apply_with_ttl((*ip).checksum, 0);
                    (*ip).ttl = (*ip).ttl.wrapping_sub(1);
                }
                Ip::V6(ip) => (*ip).hop_limit = (*ip).hop_limit.wrapping_sub(1),
            }
        }
    }

    /// Lets the option that says how large segments may be (RFC 9293 §3.7.1) say no more than `limit`: the first one, if
    /// what comes before it is as it should be.
    ///
    /// Byte by byte, so that the verifier knows every place. What it knows about where the next option begins, on the other
    /// hand, would only be another way through all the rest for each combination of options: so what that is made of is
    /// read once more, by which it becomes any number.
    #[inline(always)]
    pub fn clamp_mss(&self, limit: u16) {
        let options = match self.ip {
            Ip::V4(_) => ETHERNET + IPV4 + size_of::<Tcp>(),
            Ip::V6(_) => ETHERNET + IPV6 + size_of::<Tcp>(),
        };
        // SAFETY: `of` has checked the header.
        let offset = || unsafe { (&raw const (*self.tcp).data_offset).read_volatile() };
        let length = usize::from(offset() >> 4) * 4;
        // Or else the compiler would leave out the bound that the verifier needs.
        let length = opaque(length.saturating_sub(size_of::<Tcp>()));
        // The first begins at zero.
        let mut next = usize::from(offset() ^ offset());
        let mut at = 0;
        while at + 1 < MAX_OPTION_BYTES && at + 1 < length {
            // Asked for also where it is not read: what is known of the frame is the same in all cases.
            let Some(pair) = self.frame.at::<[u8; 2]>(options + at) else { return };
            if at >= next {
                // SAFETY: `at` has checked that they lie in the frame; the same below.
                let [kind, size] = unsafe { *pair };
                if kind == option::END {
                    return;
                }
                let length_at = if kind == option::NOTHING { 0 } else { 1 };
                if kind == option::MSS && size == 4 && length - at >= 4 {
                    self.clamp_word(options + at + 2, at % 2 != 0, limit);
                }
                if kind == option::MSS || kind != option::NOTHING && size < 2 {
                    return;
                }
                // One, where it is the kind of an option without a length.
                next = at + usize::from(unsafe { pair.cast::<u8>().add(length_at).read_volatile() });
            }
            at += 1;
        }
    }

    /// `is_odd`: its bytes lie in two words of the sum.
    #[inline(always)]
    fn clamp_word(&self, offset: usize, is_odd: bool, limit: u16) {
        let Some(word) = self.frame.at::<[u8; 2]>(offset) else { return };
        // SAFETY: `at` has checked that it lies in the frame, and `of` the header.
        unsafe {
            let (old, new) = (*word, limit.to_be_bytes());
            if u16::from_be_bytes(old) <= limit {
                return;
            }
            let delta = checksum::delta_of_word(old, new);
            *word = new;
            let delta = if is_odd { delta.swap_bytes() } else { delta };
            (*self.tcp).checksum = checksum::apply((*self.tcp).checksum, delta);
        }
    }

    /// Whether a router that cannot send it on whole has to say so: for IPv4, if the sender wants it so.
    #[inline(always)]
    pub fn is_never_cut(&self) -> bool {
        match self.ip {
            // SAFETY: `of` has checked the header.
            Ip::V4(ip) => u16::from_be_bytes(unsafe { (*ip).fragment }) & DONT_FRAGMENT != 0,
            Ip::V6(_) => true,
        }
    }

    /// Whether the TCP checksum of a SYN or SYN-ACK was left for a network card to finish. For packets without IP
    /// options. One that carries data is not summed: it counts as unfinished if it looks so.
    #[inline(always)]
    pub fn is_unfinished(&self, packet: &Packet) -> bool {
        let ip_length = match self.ip {
            Ip::V4(_) => IPV4,
            Ip::V6(_) => IPV6,
        };
        let length = packet.total_length.wrapping_sub(ip_length as u16);
        let pseudo_header = checksum::pseudo_header(&packet.key, length);
        // SAFETY: `of` has checked the header.
        if unsafe { (*self.tcp).checksum } != pseudo_header.to_be_bytes() {
            return false;
        }
        let mut sum = u32::from(pseudo_header);
        let mut word = 0;
        while word < MAX_TCP_WORDS && word * 2 < usize::from(length) {
            let Some(bytes) = self.frame.at::<[u8; 2]>(ETHERNET + ip_length + word * 2) else { return true };
            // SAFETY: `at` has checked that the word lies in the frame.
            sum += u32::from(u16::from_be_bytes(unsafe { *bytes }));
            word += 1;
        }
        checksum::fold(sum) != 0xffff
    }
}

/// The same number, about which the compiler knows nothing.
#[inline(always)]
fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut number = number;
        // SAFETY: it changes nothing. Without any instruction the loader would find a line of source without code.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
        number
    }
    #[cfg(not(target_arch = "bpf"))]
    number
}

/// Word `N` of what is at `at`. Nothing in a frame is aligned, and for this target the compiler reads what is not byte by
/// byte; but the instruction reads whole words wherever the kernel knows that the machine does.
///
/// # Safety
/// `at` is readable.
#[inline(always)]
pub(crate) unsafe fn read_word<const BYTES: usize>(at: *const [u8; BYTES], word: usize) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        let at = at.cast::<u8>().add(word * 4);
        #[cfg(target_arch = "bpf")]
        {
            let value: u64;
            core::arch::asm!(
                "{value} = *(u32 *)({at} + 0)",
                value = out(reg) value,
                at = in(reg) at,
                options(pure, readonly, nostack),
            );
            value as u32
        }
        #[cfg(not(target_arch = "bpf"))]
        at.cast::<u32>().read_unaligned()
    }
}

/// The same the other way.
///
/// # Safety
/// `at` is writable.
#[inline(always)]
pub(crate) unsafe fn write_word<const BYTES: usize>(at: *mut [u8; BYTES], word: usize, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let at = at.cast::<u8>().add(word * 4);
        #[cfg(target_arch = "bpf")]
        core::arch::asm!(
            "*(u32 *)({at} + 0) = {value}",
            value = in(reg) u64::from(value),
            at = in(reg) at,
            options(nostack),
        );
        #[cfg(not(target_arch = "bpf"))]
        at.cast::<u32>().write_unaligned(value);
    }
}

/// # Safety
/// As for [`read_word`].
#[inline(always)]
pub(crate) unsafe fn read_address(at: *const [u8; 16]) -> Address {
    // SAFETY: the caller's promise.
    unsafe { Address([read_word(at, 0), read_word(at, 1), read_word(at, 2), read_word(at, 3)]) }
}

/// # Safety
/// As for [`write_word`].
#[inline(always)]
pub(crate) unsafe fn write_address(at: *mut [u8; 16], address: &Address) {
    // SAFETY: the caller's promise.
    unsafe {
        write_word(at, 0, address.0[0]);
        write_word(at, 1, address.0[1]);
        write_word(at, 2, address.0[2]);
        write_word(at, 3, address.0[3]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A SYN of 10.0.0.1:40000 to 10.0.0.2:80.
    fn syn() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 255, 255, 0, 0, 0, 0]);
        frame
    }

    fn whole(frame: &mut [u8]) -> Frame {
        let range = frame.as_mut_ptr_range();
        // SAFETY: every test lets go of the headers before the frame.
        unsafe { Frame::new(range.start as usize, range.end as usize) }
    }

    fn parse(frame: &mut [u8]) -> Result<(FlowKey, u8, Option<Oddity>), Outcome> {
        let packet = Packet::parse(whole(frame))?;
        Ok((packet.key, packet.flags, packet.oddity))
    }

    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(FlowKey, u8, Option<Oddity>), Outcome> {
        let mut frame = syn();
        change(&mut frame);
        parse(&mut frame)
    }

    #[test]
    fn reads_a_syn() {
        let (key, flags, oddity) = parse(&mut syn()).expect("a SYN");
        assert_eq!((key.source, key.destination), (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2])));
        assert_eq!((key.source_port, key.destination_port), ([0x9c, 0x40], [0, 80]));
        assert_eq!((flags, oddity), (2, None));
    }

    #[test]
    fn passes_what_is_not_tcp_over_ip() {
        for (ether_type, outcome) in [
            ([0x08, 0x06], Outcome::NotIp),
            ([0x88, 0xcc], Outcome::NotIp),
            ([0x86, 0xdd], Outcome::Malformed),
            ([0x81, 0x00], Outcome::Vlan),
            ([0x88, 0xa8], Outcome::Vlan),
        ] {
            assert_eq!(changed(|f| f[12..14].copy_from_slice(&ether_type)), Err(outcome));
        }
        for (protocol, outcome) in [(1, Outcome::Icmp), (17, Outcome::NotTcp), (132, Outcome::NotTcp)] {
            assert_eq!(changed(|f| f[23] = protocol), Err(outcome));
        }
    }

    #[test]
    fn passes_headers_that_lie() {
        assert_eq!(changed(|f| f.truncate(13)), Err(Outcome::ShortFrame));
        assert_eq!(changed(|f| f.truncate(20)), Err(Outcome::Truncated));
        assert_eq!(changed(|f| f[14] = 0x44), Err(Outcome::Malformed), "ihl 4");
        assert_eq!(changed(|f| f[14] = 0x65), Err(Outcome::Malformed), "version 6");
        assert_eq!(changed(|f| f[14] = 0x4f), Err(Outcome::Truncated), "ihl 15 in a short packet");
        assert_eq!(changed(|f| f[17] = 41), Err(Outcome::Truncated), "total length beyond the frame");
        assert_eq!(changed(|f| f[17] = 19), Err(Outcome::Truncated), "total length below the header's");
        assert_eq!(changed(|f| f[46] = 0x40), Err(Outcome::Malformed), "data offset 4");
        assert_eq!(changed(|f| f[46] = 0x60), Err(Outcome::Truncated), "data offset beyond the packet");
        assert_eq!(changed(|f| f.truncate(50)), Err(Outcome::Truncated));
    }

    fn is_unfinished(frame: &mut [u8]) -> bool {
        let packet = Packet::parse(whole(frame)).unwrap_or_else(|outcome| panic!("{outcome:?}"));
        Headers::of(whole(frame)).expect("headers").is_unfinished(&packet)
    }

    #[test]
    fn a_checksum_left_to_the_card_is_told_from_a_finished_one_that_looks_the_same() {
        let mut frame = syn();
        let (key, ..) = parse(&mut frame).expect("a SYN");
        let looks = checksum::pseudo_header(&key, 20);
        frame[50..52].copy_from_slice(&looks.to_be_bytes());
        assert!(is_unfinished(&mut frame));
        // One of all windows makes that very checksum the right one.
        let fits = |frame: &mut Vec<u8>, window: u16| {
            frame[48..50].copy_from_slice(&window.to_be_bytes());
            let words = frame[34..54].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
            checksum::fold(words.sum::<u32>() + u32::from(looks)) == 0xffff
        };
        assert!((0..=u16::MAX).any(|window| fits(&mut frame, window)));
        assert!(!is_unfinished(&mut frame));
    }

    #[test]
    fn padding_behind_the_packet_is_fine() {
        assert!(changed(|f| f.extend([0; 6])).is_ok());
    }

    #[test]
    fn fragments_and_options_are_told_apart() {
        assert_eq!(changed(|f| f[20] = 0x20).map(|p| p.2), Ok(Some(Oddity::FirstFragment)));
        assert_eq!(changed(|f| f[21] = 1), Err(Outcome::Fragment));
        let with_options = changed(|f| {
            f[14] = 0x46;
            f[17] = 44;
            f.splice(34..34, [1, 1, 1, 0]);
        });
        let (key, _, oddity) = with_options.expect("still TCP");
        assert_eq!((key.destination_port, oddity), ([0, 80], Some(Oddity::Options)));
    }

    /// The same SYN between 2001:db8::1 and 2001:db8::2.
    fn syn6() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
        frame.extend([0x6b, 0x81, 2, 3, 0, 20, 6, 64]);
        for last in [1, 2] {
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        frame.extend_from_slice(&syn()[34..]);
        frame
    }

    fn changed6(change: impl FnOnce(&mut Vec<u8>)) -> Result<(FlowKey, u8, Option<Oddity>), Outcome> {
        let mut frame = syn6();
        change(&mut frame);
        parse(&mut frame)
    }

    #[test]
    fn reads_a_syn_of_ipv6() {
        let (key, flags, oddity) = parse(&mut syn6()).expect("a SYN");
        let address = |text: &str| Address::from(text.parse::<std::net::Ipv6Addr>().expect("address"));
        assert_eq!((key.source, key.destination), (address("2001:db8::1"), address("2001:db8::2")));
        assert_eq!((key.source_port, key.destination_port), ([0x9c, 0x40], [0, 80]));
        assert_eq!((flags, oddity), (2, None));
        let mut frame = syn6();
        let packet = Packet::parse(whole(&mut frame)).unwrap_or_else(|outcome| panic!("{outcome:?}"));
        assert_eq!((packet.hops, packet.total_length), (64, 60));
        let headers = Headers::of(whole(&mut frame)).expect("headers");
        assert_eq!(headers.class(), u32::from_ne_bytes([0x0b, 0x81, 2, 3]));
    }

    #[test]
    fn passes_what_stands_between_ipv6_and_tcp() {
        for (header, outcome) in [
            (0, Outcome::Ipv6Extension),
            (43, Outcome::Ipv6Extension),
            (60, Outcome::Ipv6Extension),
            (44, Outcome::Fragment),
            (17, Outcome::NotTcp),
            (58, Outcome::Icmp),
        ] {
            assert_eq!(changed6(|f| f[20] = header), Err(outcome), "{header}");
        }
    }

    #[test]
    fn passes_ipv6_that_lies() {
        assert_eq!(changed6(|f| f[14] = 0x4b), Err(Outcome::Malformed), "version 4");
        assert_eq!(changed6(|f| f.truncate(53)), Err(Outcome::Truncated));
        assert_eq!(changed6(|f| f.truncate(70)), Err(Outcome::Truncated));
        assert_eq!(changed6(|f| f[19] = 21), Err(Outcome::Truncated), "a length beyond the frame");
        assert_eq!(changed6(|f| f[19] = 19), Err(Outcome::Truncated), "a length below the header's");
        assert_eq!(changed6(|f| f[18..20].fill(0)), Err(Outcome::Truncated), "a jumbogram, or nothing");
        assert_eq!(changed6(|f| f[66] = 0x40), Err(Outcome::Malformed), "data offset 4");
        assert_eq!(changed6(|f| f[66] = 0x60), Err(Outcome::Truncated), "data offset beyond the packet");
        for at in [22, 38] {
            let mapped = |f: &mut Vec<u8>| {
                f[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            };
            assert_eq!(changed6(mapped), Err(Outcome::MappedAddress));
        }
        assert!(changed6(|f| f.extend([0; 6])).is_ok(), "padding");
    }

    /// The SYN with these options, two bytes of data and a right checksum.
    fn with_options(is_v4: bool, options: &[u8]) -> Vec<u8> {
        let mut frame = if is_v4 { syn() } else { syn6() };
        let tcp = if is_v4 { 34 } else { 54 };
        frame[tcp + 12] = ((20 + options.len()) as u8 / 4) << 4;
        frame.extend(options);
        frame.extend([0xff; 2]);
        let (length, at) = if is_v4 { (42, 17) } else { (22, 19) };
        frame[at] = length + options.len() as u8;
        let checksum = !sum_of_tcp(&mut frame);
        frame[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// Over pseudo-header and all of TCP.
    fn sum_of_tcp(frame: &mut [u8]) -> u16 {
        let key = parse(frame).expect("a SYN").0;
        let tcp = &frame[if key.source.is_v4() { 34 } else { 54 }..];
        let words = tcp.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        checksum::fold(words.sum::<u32>() + u32::from(checksum::pseudo_header(&key, tcp.len() as u16)))
    }

    fn clamped(is_v4: bool, options: &[u8], limit: u16) -> Vec<u8> {
        let mut frame = with_options(is_v4, options);
        let before = frame.clone();
        Headers::of(whole(&mut frame)).expect("headers").clamp_mss(limit);
        assert_eq!(sum_of_tcp(&mut frame), 0xffff, "{options:?}");
        assert_eq!(frame.split_off(frame.len() - 2), [0xff; 2], "{options:?}");
        let at = frame.len() - options.len();
        let mut rest = frame[..at].to_vec();
        rest[at - 4..at - 2].copy_from_slice(&before[at - 4..at - 2]);
        assert_eq!(rest, before[..at], "only options and the checksum change");
        frame.split_off(at)
    }

    #[test]
    fn the_segment_size_goes_down_and_the_other_options_stay() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (&[2, 4, 0x05, 0xb4, 1, 3, 3, 7], Some(&[2, 4, 0x04, 0xb0, 1, 3, 3, 7])),
            (&[1, 2, 4, 0x05, 0xb4, 3, 3, 7], Some(&[1, 2, 4, 0x04, 0xb0, 3, 3, 7])),
            (&[4, 2, 2, 4, 0xff, 0xff, 0, 9], Some(&[4, 2, 2, 4, 0x04, 0xb0, 0, 9])),
            (&[2, 4, 0x04, 0xb0], None),
            (&[2, 4, 0x02, 0x18], None),
            (&[3, 3, 7, 0, 2, 4, 0x05, 0xb4], None),
            (&[2, 3, 0x05, 0], None),
            // A stack reads up to what it does not understand.
            (&[2, 4, 0x05, 0xb4, 8, 0, 1, 1], Some(&[2, 4, 0x04, 0xb0, 8, 0, 1, 1])),
            (&[8, 0, 2, 4, 0x05, 0xb4, 1, 1], None),
            (&[8, 1, 2, 4, 0x05, 0xb4, 1, 1], None),
            (&[8, 7, 2, 4, 0x05, 0xb4, 1, 1], None),
            (&[1, 2, 4, 0x05], None),
            (&[1, 1, 1, 2], None),
            (&[], None),
        ];
        for (options, expected) in table {
            for is_v4 in [true, false] {
                assert_eq!(clamped(is_v4, options, 1200), expected.unwrap_or(options), "{options:?}");
            }
        }
        let behind_all = [&[1; 36][..], &[2, 4, 0x05, 0xb4]].concat();
        assert_eq!(clamped(true, &behind_all, 1200)[36..], [2, 4, 0x04, 0xb0]);
    }

    /// What the stack would read.
    fn told(options: &[u8]) -> Option<u16> {
        match options {
            [] | [0, ..] => None,
            [1, rest @ ..] => told(rest),
            [2, 4, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            [_, size, ..] => told(options.get(usize::from(*size).max(2)..)?),
            [_] => None,
        }
    }

    proptest! {
        #[test]
        fn any_options_keep_the_checksum_right_and_are_told_no_more(
            is_v4 in any::<bool>(), limit in 88_u16..1500, words in 0_usize..=10, bytes in any::<[[u8; 4]; 10]>(),
            small in any::<bool>(),
        ) {
            let options: Vec<u8> = bytes[..words].concat().iter().map(|byte| if small { byte % 6 } else { *byte }).collect();
            let after = clamped(is_v4, &options, limit);
            let changes = options.iter().zip(&after).filter(|(old, new)| old != new).count();
            prop_assert!(changes <= 2);
            if after != options {
                prop_assert_eq!(told(&after), Some(limit));
                prop_assert!(told(&options) > Some(limit));
            }
        }

        #[test]
        fn rewrite_and_reverse_is_the_identity(is_v4 in any::<bool>(), octets in any::<[[u8; 15]; 2]>(), ports in any::<[[u8; 2]; 2]>()) {
            let mut frame = if is_v4 { syn() } else { syn6() };
            // Any checksums but those whose zero has two forms.
            let tcp = if is_v4 { 34 } else { 54 };
            if is_v4 {
                frame[24..26].copy_from_slice(&[0x12, 0x34]);
            }
            frame[tcp + 16..tcp + 18].copy_from_slice(&[0x56, 0x78]);
            let before = frame.clone();
            let address = |octets: [u8; 15]| if is_v4 {
                Address::v4([10, octets[0], octets[1], octets[2]])
            } else {
                Address::v6([&[0x20], &octets[..]].concat().try_into().expect("16"))
            };
            let key = parse(&mut frame).expect("a SYN").0;
            let becomes = FlowKey {
                source: address(octets[0]), destination: address(octets[1]), source_port: ports[0], destination_port: ports[1],
            };
            for (from, to) in [(&key, &becomes), (&becomes, &key)] {
                let (ip_delta, tcp_delta) = checksum::deltas(from, to);
                let headers = Headers::of(whole(&mut frame)).expect("headers");
                headers.rewrite(&Flow { becomes: *to, ip_delta, tcp_delta, ..Flow::default() });
                prop_assert_eq!(parse(&mut frame).map(|packet| packet.0), Ok(*to));
            }
            // Two hops less.
            let (hops, sum) = (if is_v4 { 22 } else { 21 }, if is_v4 { 24..26 } else { 0..0 });
            let mut expected = before;
            expected[hops] -= 2;
            let word = |at: std::ops::Range<usize>, bytes: &[u8]| bytes[at].iter().fold(0_u16, |sum, byte| sum << 8 | u16::from(*byte));
            prop_assert_eq!(word(sum.clone(), &frame), word(sum.clone(), &expected) + if is_v4 { 0x0200 } else { 0 });
            frame[sum.clone()].fill(0);
            expected[sum].fill(0);
            prop_assert_eq!(frame, expected);
        }

        #[test]
        fn never_reads_outside_the_frame(mut frame in proptest::collection::vec(any::<u8>(), 0..100), ip in any::<bool>(), v6 in any::<bool>()) {
            if ip && frame.len() > 24 {
                frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                frame[if v6 { 20 } else { 23 }] = 6;
            }
            let _ = parse(&mut frame);
        }
    }
}
