//! Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 40000 80`, CR LF.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Addresses, Fault, Header, aligned, begins};

const START: &[u8] = b"PROXY ";

/// The longest line there is, CR LF included (§2.1).
const LONGEST: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    if !begins(bytes, START) {
        return Err(Fault::Absent);
    }
    let window = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < LONGEST { Ok(None) } else { Err(Fault::TooLong) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Fault::Syntax)?;
    let line = std::str::from_utf8(line).map_err(|_| Fault::Syntax)?;
    let header = fields(line).ok_or(Fault::Syntax)?;
    Ok(Some((header, end + 1)))
}

/// Exactly one space between two fields; `None`: malformed.
fn fields(line: &str) -> Option<Header> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    // Whatever follows is to be ignored (§2.1).
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (read::<Ipv4Addr>(source)?.into(), read::<Ipv4Addr>(destination)?.into()),
        "TCP6" => (read::<Ipv6Addr>(source)?.into(), read::<Ipv6Addr>(destination)?.into()),
        _ => return None,
    };
    Some(Some(Addresses {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
    }))
}

fn read<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Decimal, without a sign and without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

pub(super) fn write(out: &mut Vec<u8>, header: Header) {
    let Some(addresses) = header else {
        return out.extend_from_slice(b"PROXY UNKNOWN\r\n");
    };
    let (source, destination) = aligned(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (addresses.source.port(), addresses.destination.port());
    out.extend_from_slice(format!("PROXY {family} {source} {destination} {from} {to}\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Header {
        Some(Addresses {
            source: source.parse().expect(source),
            destination: destination.parse().expect(destination),
        })
    }

    #[test]
    fn lines_of_the_specification() {
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                       65535 65535\r\n";
        assert_eq!(longest.len(), LONGEST);
        let table = [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
                addresses("192.0.2.1:56324", "198.51.100.1:443"),
            ),
            ("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", addresses("[2001:db8::1]:1", "[::1]:0")),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", addresses("192.0.2.1:1", "192.0.2.2:2")),
            ("PROXY UNKNOWN\r\n", None),
            (longest, None),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))), "{line}");
            assert_eq!(parse(&line.as_bytes()[..line.len() - 1]), Ok(None), "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let table = [
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP6 fe80::1%1 ::1 1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY \r\n",
            "PROXY TCP4\t192.0.2.1 198.51.100.1 1 443\r\n",
            "PROXY TCP4 192.0.2.1\0 198.51.100.1 1 443\r\n",
        ];
        for line in table {
            assert_eq!(parse(line.as_bytes()), Err(Fault::Syntax), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LONGEST));
        assert_eq!(parse(long.as_bytes()), Err(Fault::TooLong));
        assert_eq!(parse(&long.as_bytes()[..LONGEST]), Err(Fault::TooLong));
        assert_eq!(parse(&long.as_bytes()[..LONGEST - 1]), Ok(None));
    }
}
