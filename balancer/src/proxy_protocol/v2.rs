//! Version 2: a signature that no other protocol starts with, four bytes, addresses, extensions.

use std::net::{IpAddr, SocketAddr};

use super::{Addresses, Fault, Header, LIMIT, aligned, begins};

pub(super) const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const FIXED: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The extension that holds a CRC-32C of the whole header.
const CHECKSUM: u8 = 0x03;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    if !begins(bytes, SIGNATURE) {
        return Err(Fault::Absent);
    }
    // Judged byte by byte, so that waiting never changes the answer.
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    if !matches!(command, LOCAL | PROXY) {
        return Err(Fault::Unknown);
    }
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    if family >> 4 > 3 || family & 0xf > 2 {
        return Err(Fault::Unknown);
    }
    let Some(&[high, low]) = bytes.get(14..FIXED) else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LIMIT {
        return Err(Fault::TooLong);
    }
    let addresses = address_length(family);
    // What is local has no addresses worth reading, whatever its family says (§2.2).
    if command == PROXY && length < FIXED + addresses {
        return Err(Fault::Length);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    if command == LOCAL {
        return Ok(Some((None, length)));
    }
    check_extensions(header, FIXED + addresses)?;
    Ok(Some((read_addresses(family, &header[FIXED..]), length)))
}

fn address_length(family: u8) -> usize {
    match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    }
}

/// `None` for what is not TCP over IP: the specification lets a receiver fall back to the connection's own addresses.
fn read_addresses(family: u8, bytes: &[u8]) -> Header {
    let port = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (source, destination, ports) = match family {
        TCP_OVER_IPV4 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
            (address(0)?, address(4)?, 8)
        }
        TCP_OVER_IPV6 => {
            let address = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
            (address(0)?, address(16)?, 32)
        }
        _ => return None,
    };
    Some(Addresses {
        source: SocketAddr::new(source.to_canonical(), port(ports)?),
        destination: SocketAddr::new(destination.to_canonical(), port(ports + 2)?),
    })
}

/// Type, length, value, one after the other to the end. A checksum is checked; the others say nothing that is used.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Fault> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(Fault::Length) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(bytes) = header.get(value.clone()) else { return Err(Fault::Length) };
        if kind == CHECKSUM {
            let said: [u8; 4] = bytes.try_into().map_err(|_| Fault::Length)?;
            // Summed with zeros in its own place (§2.2.4).
            let sum = crc32c(!0, &header[..value.start]);
            let sum = crc32c(crc32c(sum, &[0; 4]), &header[value.end..]);
            if u32::from_be_bytes(said) != !sum {
                return Err(Fault::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// RFC 4960 appendix B, a bit at a time: few headers have one, and none is long.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(start, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

pub(super) fn write(out: &mut Vec<u8>, header: Header) {
    out.extend_from_slice(SIGNATURE);
    let Some(addresses) = header else {
        return out.extend_from_slice(&[LOCAL, 0, 0, 0]);
    };
    match aligned(addresses) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV4, 0, 12]);
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV6, 0, 36]);
            out.extend_from_slice(&super::v6(source).octets());
            out.extend_from_slice(&super::v6(destination).octets());
        }
    }
    out.extend_from_slice(&addresses.source.port().to_be_bytes());
    out.extend_from_slice(&addresses.destination.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    fn outcome(command: u8, family: u8, rest: &[u8]) -> Result<Header, Fault> {
        let bytes = header(command, family, rest);
        let parsed = parse(&[&bytes[..], b"rest"].concat())?;
        let (header, length) = parsed.expect("whole");
        assert_eq!(length, bytes.len());
        Ok(header)
    }

    #[test]
    fn only_tcp_over_ip_names_a_client() {
        let known = Some(Addresses {
            source: "192.0.2.1:56324".parse().expect("address"),
            destination: "198.51.100.1:443".parse().expect("address"),
        });
        assert_eq!(outcome(PROXY, TCP_OVER_IPV4, V4), Ok(known));
        assert_eq!(outcome(PROXY, 0x12, V4), Ok(None), "UDP");
        assert_eq!(outcome(PROXY, 0x00, b""), Ok(None), "unspecified");
        assert_eq!(outcome(PROXY, 0x31, &[0; 216]), Ok(None), "a Unix socket");
        assert_eq!(outcome(LOCAL, TCP_OVER_IPV4, V4), Ok(None));
        assert_eq!(outcome(LOCAL, 0, b"anything at all"), Ok(None));
    }

    #[test]
    fn what_there_is_not_and_what_does_not_fit_is_refused() {
        for (command, family) in
            [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x21, 0x41), (0x21, 0x13), (0x21, 0xff)]
        {
            assert_eq!(outcome(command, family, V4), Err(Fault::Unknown), "{command:x} {family:x}");
        }
        assert_eq!(outcome(PROXY, TCP_OVER_IPV4, &V4[1..]), Err(Fault::Length));
        assert_eq!(outcome(PROXY, TCP_OVER_IPV6, V4), Err(Fault::Length));
        assert_eq!(outcome(PROXY, TCP_OVER_IPV4, &vec![0; LIMIT]), Err(Fault::TooLong));
        for extension in [&[4_u8][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 4], &[CHECKSUM, 0, 2, 1, 1]] {
            let rest = [V4, extension].concat();
            assert_eq!(outcome(PROXY, TCP_OVER_IPV4, &rest), Err(Fault::Length), "{extension:?}");
        }
        let rest = [V4, &[4, 0, 2, 1, 1, 0xe0, 0, 0]].concat();
        assert!(outcome(PROXY, TCP_OVER_IPV4, &rest).is_ok_and(|header| header.is_some()));
    }

    #[test]
    fn a_checksum_is_checked_where_there_is_one() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283, "the check value of CRC-32C");
        let mut bytes =
            header(PROXY, TCP_OVER_IPV4, &[V4, &[CHECKSUM, 0, 4, 0, 0, 0, 0, 4, 0, 1, 9]].concat());
        let sum = !crc32c(!0, &bytes);
        let at = FIXED + 12 + 3;
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        assert!(parse(&bytes).is_ok_and(|parsed| parsed.is_some()));
        bytes[FIXED] ^= 1;
        assert_eq!(parse(&bytes), Err(Fault::Checksum));
    }
}
