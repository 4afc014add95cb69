//! A reset in answer to a packet (RFC 9293 §3.10.7.1), from whom it was sent to.
#![allow(
    unsafe_code,
    reason = "packet access is by pointer in BPF; every pointer is checked against the frame's end"
)]

use crate::checksum;
use crate::icmp::{finished, sum};
use crate::packet::{
    DONT_FRAGMENT, ETHERNET, Frame, Headers, Ip, Ipv4, Ipv6, Packet, Tcp, read_address, read_word,
    write_address, write_word,
};
use crate::phase::flag;

const HOPS: u8 = 64;
const WORD: usize = 4;
const TCP: usize = size_of::<Tcp>();
const OFFSET: u8 = ((TCP / WORD) << 4) as u8;

/// Whether a packet is answered: a reset is not, nor what cannot be understood whole.
#[inline(always)]
pub const fn is_due(packet: &Packet) -> bool {
    packet.flags & flag::RST == 0 && packet.oddity.is_none()
}

/// Bytes of the frame that answers the packet: the headers, without options.
#[inline(always)]
pub const fn length(packet: &Packet) -> usize {
    ETHERNET + TCP + if packet.key.source.is_v4() { size_of::<Ipv4>() } else { size_of::<Ipv6>() }
}

/// Turns the packet, cut to [`length`], into its answer. False, and nothing written, if the frame is not as long as that.
#[inline(always)]
pub fn write(frame: Frame, packet: &Packet) -> bool {
    let Some(headers) = Headers::of(frame) else { return false };
    // SAFETY: `of` has checked the headers.
    unsafe {
        let ethernet = &mut *headers.ethernet;
        (ethernet.destination, ethernet.source) = (ethernet.source, ethernet.destination);
        answer_tcp(&mut *headers.tcp, packet.payload);
        let tcp_at = match headers.ip {
            Ip::V4(ip) => {
                answer_v4(ip);
                (*ip).checksum = finished(sum(&frame, ETHERNET, size_of::<Ipv4>() / WORD));
                ETHERNET + size_of::<Ipv4>()
            }
            Ip::V6(ip) => {
                answer_v6(ip);
                ETHERNET + size_of::<Ipv6>()
            }
        };
        // Over the same addresses, in whatever order.
        let covered =
            u32::from(checksum::pseudo_header(&packet.key, TCP as u16)) + sum(&frame, tcp_at, TCP / WORD);
        (*headers.tcp).checksum = finished(covered);
    }
    true
}

/// # Safety
/// The header may be read and written. The same holds for the one below.
#[inline(always)]
unsafe fn answer_v4(ip: *mut Ipv4) {
    // SAFETY: the caller's promise.
    unsafe {
        let source = read_word(&raw const (*ip).source, 0);
        write_word(&raw mut (*ip).source, 0, read_word(&raw const (*ip).destination, 0));
        write_word(&raw mut (*ip).destination, 0, source);
        (*ip).tos = 0;
        (*ip).total_length = ((size_of::<Ipv4>() + TCP) as u16).to_be_bytes();
        (*ip).identification = [0; 2];
        (*ip).fragment = DONT_FRAGMENT.to_be_bytes();
        (*ip).ttl = HOPS;
        (*ip).checksum = [0; 2];
    }
}

#[inline(always)]
unsafe fn answer_v6(ip: *mut Ipv6) {
    // SAFETY: as above.
    unsafe {
        let source = read_address(&raw const (*ip).source);
        write_address(&raw mut (*ip).source, &read_address(&raw const (*ip).destination));
        write_address(&raw mut (*ip).destination, &source);
        (*ip).version_class_and_label = [0x60, 0, 0, 0];
        (*ip).payload_length = (TCP as u16).to_be_bytes();
        (*ip).hop_limit = HOPS;
    }
}

/// The sequence number that its receiver expects, if it says which; else what shows that its packet is meant.
#[inline(always)]
fn answer_tcp(tcp: &mut Tcp, payload: u16) {
    (tcp.source, tcp.destination) = (tcp.destination, tcp.source);
    if tcp.flags & flag::ACK != 0 {
        tcp.sequence = tcp.acknowledgment;
        tcp.acknowledgment = [0; 4];
        tcp.flags = flag::RST;
    } else {
        let ends = u32::from(tcp.flags & flag::SYN != 0) + u32::from(tcp.flags & flag::FIN != 0);
        let next = u32::from_be_bytes(tcp.sequence).wrapping_add(u32::from(payload)).wrapping_add(ends);
        tcp.sequence = [0; 4];
        tcp.acknowledgment = next.to_be_bytes();
        tcp.flags = flag::RST | flag::ACK;
    }
    tcp.data_offset = OFFSET;
    tcp.window = [0; 2];
    tcp.urgent = [0; 2];
    tcp.checksum = [0; 2];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::fold;

    /// From 10.0.0.2:8080 to 10.0.0.1:40000, or the same in IPv6, with options and three bytes.
    fn packet(is_v4: bool, flags: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if is_v4 {
            frame.extend([8, 0, 0x45, 9, 0, 47, 0, 1, 0, 0, 3, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
        } else {
            frame.extend([0x86, 0xdd, 0x61, 2, 3, 4, 0, 27, 6, 3]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        }
        frame.extend([0x1f, 0x90, 0x9c, 0x40, 0, 0, 0, 7, 0, 0, 1, 0, 0x60, flags, 1, 2, 3, 4, 5, 6]);
        frame.extend([1, 1, 1, 1, b'a', b'b', b'c']);
        frame
    }

    fn answered(is_v4: bool, flags: u8) -> Vec<u8> {
        let mut bytes = packet(is_v4, flags);
        let whole = |bytes: &mut Vec<u8>| {
            let range = bytes.as_mut_ptr_range();
            // SAFETY: the frame is used before the bytes are.
            unsafe { Frame::new(range.start as usize, range.end as usize) }
        };
        let packet = Packet::parse(whole(&mut bytes)).expect("TCP");
        assert!(is_due(&packet));
        // What the helper of the kernel does.
        bytes.truncate(length(&packet));
        assert!(write(whole(&mut bytes), &packet));
        let answer = Packet::parse(whole(&mut bytes)).expect("TCP");
        assert_eq!((answer.key, answer.payload, answer.hops), (packet.key.reversed(), 0, HOPS));
        let tcp = bytes.len() - TCP;
        assert_eq!(
            fold(words(&bytes[tcp..]) + u32::from(checksum::pseudo_header(&answer.key, TCP as u16))),
            0xffff
        );
        assert!(!is_v4 || fold(words(&bytes[14..tcp])) == 0xffff);
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], "back to where it came from");
        bytes[tcp + 4..tcp + 14].to_vec()
    }

    fn words(bytes: &[u8]) -> u32 {
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    }

    #[test]
    fn an_answer_has_the_number_that_is_expected() {
        for is_v4 in [true, false] {
            assert_eq!(answered(is_v4, flag::ACK), [0, 0, 1, 0, 0, 0, 0, 0, OFFSET, flag::RST]);
            assert_eq!(answered(is_v4, flag::ACK | flag::FIN), [0, 0, 1, 0, 0, 0, 0, 0, OFFSET, flag::RST]);
            for (flags, next) in [(0, 10), (flag::SYN, 11), (flag::SYN | flag::FIN, 12)] {
                assert_eq!(
                    answered(is_v4, flags),
                    [0, 0, 0, 0, 0, 0, 0, next, OFFSET, flag::RST | flag::ACK]
                );
            }
        }
    }

    #[test]
    fn a_reset_is_not_answered() {
        let mut bytes = packet(true, flag::RST | flag::ACK);
        let range = bytes.as_mut_ptr_range();
        // SAFETY: as above.
        let frame = unsafe { Frame::new(range.start as usize, range.end as usize) };
        assert!(!is_due(&Packet::parse(frame).expect("TCP")));
    }
}
