//! Frames as the network card has them: what the XDP program makes of their headers.
#![allow(unsafe_code, reason = "the program reads packets by pointer")]

use balancer_ebpf::packet::{Frame, Packet};

/// Addresses, ports and TCP flags.
type Read = (Vec<u8>, Vec<u8>, u16, u16, u8);

/// A frame: nothing outside of it is read and nothing in it is changed; and what is taken for a packet is what another
/// reader sees in it, no more and no less.
pub fn frame(input: &[u8]) {
    // A copy of exactly this length, so that a tool that watches memory sees the first byte too many.
    let mut bytes = input.to_vec().into_boxed_slice();
    let range = bytes.as_mut_ptr_range();
    // SAFETY: the box outlives the frame and the headers in it, and nobody else touches it meanwhile.
    let frame = unsafe { Frame::new(range.start as usize, range.end as usize) };
    let read = Packet::parse(frame).ok().map(|packet| {
        let key = packet.key();
        if packet.oddity.is_none() {
            let _ = packet.is_unfinished(&key);
        }
        let port = u16::from_be_bytes;
        let (source, destination) = (key.source.to_vec(), key.destination.to_vec());
        (source, destination, port(key.source_port), port(key.destination_port), packet.flags())
    });
    assert_eq!(&*bytes, input, "reading changes nothing");
    assert_eq!(read, plainly_read(input));
}

/// The headers of TCP over IPv4, as the RFCs lay them out.
fn plainly_read(frame: &[u8]) -> Option<Read> {
    let packet = frame.get(14..)?;
    if frame[12..14] != [0x08, 0x00] {
        return None;
    }
    let word = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (version, header) = (packet.first()? >> 4, usize::from(packet.first()? & 15) * 4);
    let (total, fragment) = (usize::from(word(packet, 2)?), word(packet, 6)?);
    // What follows the first fragment has no ports. And the ports of a first one are enough to find its flow, as are
    // those behind options: whether the rest of TCP's header is in such a packet, nobody needs to know.
    let is_odd = header > 20 || fragment & 0x3fff != 0;
    if version != 4 || header < 20 || total < header || fragment & 0x1fff != 0 {
        return None;
    }
    let (whole, tcp) = (packet.get(..total)?, packet.get(header..header + 20)?);
    let offset = usize::from(tcp[12] >> 4) * 4;
    if packet[9] != 6 || offset < 20 || !is_odd && header + offset > whole.len() {
        return None;
    }
    let ports = (word(tcp, 0)?, word(tcp, 2)?);
    Some((packet[12..16].to_vec(), packet[16..20].to_vec(), ports.0, ports.1, tcp[13]))
}
