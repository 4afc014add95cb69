//! From a frame to the headers of a TCP packet over IPv4, or the reason why it is not one.
#![allow(
    unsafe_code,
    reason = "packet access is by pointer in BPF; every pointer is checked against the frame's end"
)]

use crate::abi::FlowKey;
use crate::checksum;
use crate::counter::Outcome;

const ETHERNET: usize = size_of::<Ethernet>();
const IPV4: usize = size_of::<Ipv4>();

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_QINQ: u16 = 0x88a8;
const PROTOCOL_TCP: u8 = 6;
/// More fragments, or an offset.
const FRAGMENTED: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Ethernet II.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ethernet {
    /// Receiver.
    pub destination: [u8; 6],
    /// Sender.
    pub source: [u8; 6],
    ether_type: [u8; 2],
}

/// IPv4 without options (RFC 791 §3.1).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    version_and_length: u8,
    /// DSCP and ECN.
    pub tos: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    fragment: [u8; 2],
    /// Hops left.
    pub ttl: u8,
    protocol: u8,
    /// Over the header.
    pub checksum: [u8; 2],
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
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
    data_offset: u8,
    /// FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    pub flags: u8,
    window: [u8; 2],
    /// Over pseudo-header, header and data.
    pub checksum: [u8; 2],
    urgent: [u8; 2],
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

    /// The header at `offset`, if all of it lies in the frame. `T` is one of the byte-aligned headers above.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        Some((self.start + offset) as *mut T)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Words of the longest TCP header.
const MAX_TCP_WORDS: usize = 30;

/// Why a TCP packet can only be looked up in the flow table, and not be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oddity {
    /// The header carries options.
    Options,
    /// The first fragment of several.
    FirstFragment,
}

/// The headers of a TCP packet.
#[derive(Clone, Copy)]
pub struct Packet {
    frame: Frame,
    /// Where the Ethernet header is.
    pub ethernet: *mut Ethernet,
    /// Where the IP header is.
    pub ip: *mut Ipv4,
    /// Where the TCP header is.
    pub tcp: *mut Tcp,
    /// Bytes of IP.
    pub total_length: u16,
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
        // SAFETY: `at` has checked that the header lies in the frame. The same holds for the two below.
        match u16::from_be_bytes(unsafe { (*ethernet).ether_type }) {
            TYPE_IPV4 => {}
            TYPE_IPV6 => return Err(Outcome::Ipv6),
            TYPE_VLAN | TYPE_QINQ => return Err(Outcome::Vlan),
            _ => return Err(Outcome::NotIp),
        }
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
        if header.protocol != PROTOCOL_TCP {
            return Err(Outcome::NotTcp);
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
        // SAFETY: as above.
        let tcp_length = usize::from(unsafe { (*tcp).data_offset } >> 4) * 4;
        if tcp_length < size_of::<Tcp>() {
            return Err(Outcome::Malformed);
        }
        if oddity.is_none() && ip_length + tcp_length > usize::from(total_length) {
            return Err(Outcome::Truncated);
        }
        Ok(Self { frame, ethernet, ip, tcp, total_length, oddity })
    }

    /// Addresses and ports.
    #[inline(always)]
    pub fn key(&self) -> FlowKey {
        // SAFETY: `parse` has checked both headers.
        unsafe {
            FlowKey {
                source: (*self.ip).source,
                destination: (*self.ip).destination,
                source_port: (*self.tcp).source,
                destination_port: (*self.tcp).destination,
            }
        }
    }

    /// TCP flags.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        // SAFETY: `parse` has checked the header.
        unsafe { (*self.tcp).flags }
    }

    /// Whether the TCP checksum of a SYN or SYN-ACK was left for a network card to finish. For packets without IP
    /// options. One that carries data is not summed: it counts as unfinished if it looks so.
    #[inline(always)]
    pub fn is_unfinished(&self, key: &FlowKey) -> bool {
        let length = self.total_length.wrapping_sub(IPV4 as u16);
        let pseudo_header = checksum::pseudo_header(key, length);
        // SAFETY: `parse` has checked the header.
        if unsafe { (*self.tcp).checksum } != pseudo_header.to_be_bytes() {
            return false;
        }
        let mut sum = u32::from(pseudo_header);
        let mut word = 0;
        while word < MAX_TCP_WORDS && word * 2 < usize::from(length) {
            let Some(bytes) = self.frame.at::<[u8; 2]>(ETHERNET + IPV4 + word * 2) else { return true };
            // SAFETY: `at` has checked that the word lies in the frame.
            sum += u32::from(u16::from_be_bytes(unsafe { *bytes }));
            word += 1;
        }
        checksum::fold(sum) != 0xffff
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

    fn parse(frame: &mut [u8]) -> Result<(FlowKey, u8, Option<Oddity>), Outcome> {
        let range = frame.as_mut_ptr_range();
        // SAFETY: the slice outlives the use of the headers, which ends with this function.
        let frame = unsafe { Frame::new(range.start as usize, range.end as usize) };
        Packet::parse(frame).map(|packet| (packet.key(), packet.flags(), packet.oddity))
    }

    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(FlowKey, u8, Option<Oddity>), Outcome> {
        let mut frame = syn();
        change(&mut frame);
        parse(&mut frame)
    }

    #[test]
    fn reads_a_syn() {
        let (key, flags, oddity) = parse(&mut syn()).expect("a SYN");
        assert_eq!((key.source, key.destination), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!((key.source_port, key.destination_port), ([0x9c, 0x40], [0, 80]));
        assert_eq!((flags, oddity), (2, None));
    }

    #[test]
    fn passes_what_is_not_tcp_over_ipv4() {
        for (ether_type, outcome) in [
            ([0x08, 0x06], Outcome::NotIp),
            ([0x88, 0xcc], Outcome::NotIp),
            ([0x86, 0xdd], Outcome::Ipv6),
            ([0x81, 0x00], Outcome::Vlan),
            ([0x88, 0xa8], Outcome::Vlan),
        ] {
            assert_eq!(changed(|f| f[12..14].copy_from_slice(&ether_type)), Err(outcome));
        }
        for protocol in [1, 17, 132] {
            assert_eq!(changed(|f| f[23] = protocol), Err(Outcome::NotTcp));
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
        let range = frame.as_mut_ptr_range();
        // SAFETY: as in `parse`.
        let packet = Packet::parse(unsafe { Frame::new(range.start as usize, range.end as usize) });
        packet.is_ok_and(|packet| packet.is_unfinished(&packet.key()))
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

    proptest! {
        #[test]
        fn never_reads_outside_the_frame(mut frame in proptest::collection::vec(any::<u8>(), 0..80), ip in any::<bool>()) {
            if ip && frame.len() > 24 {
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[23] = 6;
            }
            let _ = parse(&mut frame);
        }
    }
}
