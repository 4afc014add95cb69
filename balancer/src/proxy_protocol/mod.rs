//! The PROXY protocol: who a connection is for, said by the proxy in front of us, or by us to a server, before the
//! first byte of the connection itself. Bytes in, decisions out.
//!
//! | module | what it does |
//! |---|---|
//! | [`v1`] | one line of text |
//! | [`v2`] | binary, with extensions that are checked and skipped |
//!
//! The specification is HAProxy's `proxy-protocol.txt`. Whoever may send such a header decides who the client is, so
//! the caller asks for one only from peers that are trusted (`--accept-proxy`), and there nothing else is taken: a
//! receiver that guesses whether there is a header can be told who its clients are by anybody (§2, §4).

mod v1;
mod v2;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes that a header can have; more is refused. The addresses of a Unix socket take 216, and a client certificate
/// in an extension, which is the largest thing that anybody sends, 2 to 3 k.
pub const LIMIT: usize = 4096;

/// The form in which a header is sent. Both are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// The two ends of the connection that the sender of a header has accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

/// What a header says: `None` when the connection is the sender's own (a health check), or when it cannot tell.
pub type Header = Option<Addresses>;

/// Why a connection cannot be let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Fault {
    /// It starts with something else.
    Absent,
    /// A line of text that says something else, or an address or port that is not one.
    Syntax,
    /// Longer than a header can be.
    TooLong,
    /// Binary, and neither version 2 nor a command of it, nor a family or transport that there is.
    Unknown,
    /// Binary, and its addresses or extensions do not fit into its length.
    Length,
    /// Its checksum is wrong.
    Checksum,
}

impl Fault {
    /// In words, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "no PROXY header",
            Self::Syntax => "malformed PROXY header",
            Self::TooLong => "PROXY header too long",
            Self::Unknown => "PROXY header of an unknown kind",
            Self::Length => "PROXY header with a wrong length",
            Self::Checksum => "PROXY header with a wrong checksum",
        }
    }
}

/// Reads the header that `bytes` start with, and how long it is; `None`: there is more to come.
///
/// # Errors
/// Why there is none. Once there is an answer, more bytes do not change it.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    match bytes.first() {
        None => Ok(None),
        Some(first) if *first == v2::SIGNATURE[0] => v2::parse(bytes),
        Some(_) => v1::parse(bytes),
    }
}

/// Appends a header.
pub fn write(out: &mut Vec<u8>, version: Version, header: Header) {
    match version {
        Version::V1 => v1::write(out, header),
        Version::V2 => v2::write(out, header),
    }
}

/// `bytes` are, as far as they go, `expected`.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    let common = bytes.len().min(expected.len());
    bytes[..common] == expected[..common]
}

/// One family for both ends, as both versions want it: IPv4, or IPv6 with IPv4 in its IPv6 form.
fn aligned(addresses: Addresses) -> (IpAddr, IpAddr) {
    match (addresses.source.ip().to_canonical(), addresses.destination.ip().to_canonical()) {
        (source @ IpAddr::V4(_), destination @ IpAddr::V4(_)) => (source, destination),
        (source, destination) => (v6(source).into(), v6(destination).into()),
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(bits.into()));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(bits.into()));
        (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    fn version() -> impl Strategy<Value = Version> {
        prop_oneof![Just(Version::V1), Just(Version::V2)]
    }

    /// The first answer when the bytes come one by one.
    fn piecemeal(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
        let outcomes = (0..=bytes.len()).map(|length| parse(&bytes[..length]));
        outcomes.into_iter().find(|outcome| *outcome != Ok(None)).unwrap_or(Ok(None))
    }

    #[test]
    fn a_request_is_no_header() {
        for text in ["GET / HTTP/1.1\r\n\r\n", "PROXX", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0", "\r\nGET"] {
            assert_eq!(parse(text.as_bytes()), Err(Fault::Absent), "{text:?}");
        }
        assert_eq!(parse(b""), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(source in address(), destination in address(), version in version(), known: bool) {
            let header = known.then_some(Addresses { source, destination });
            let mut bytes = Vec::new();
            write(&mut bytes, version, header);
            let length = bytes.len();
            bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
            prop_assert_eq!(parse(&bytes), Ok(Some((header, length))));
        }

        #[test]
        fn how_it_is_cut_makes_no_difference(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in 0..6) {
            let start: &[u8] = match seed {
                0 => b"PROXY TCP4 192.0.2.1 ",
                1 => b"PROXY UNKNOWN",
                2 => b"PROXY ",
                3 => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00",
                4 => b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x14aaaabbbbccdd",
                _ => b"",
            };
            let bytes = [start, &bytes].concat();
            prop_assert_eq!(piecemeal(&bytes), parse(&bytes));
        }

        #[test]
        fn a_changed_byte_is_read_alike_however_it_is_cut(
            source in address(), destination in address(), version in version(), at: usize, byte: u8
        ) {
            let mut bytes = Vec::new();
            write(&mut bytes, version, Some(Addresses { source, destination }));
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.extend_from_slice(b"\r\nGET / HTTP/1.1\r\n");
            prop_assert_eq!(piecemeal(&bytes), parse(&bytes));
        }
    }
}
