//! Numbers, addresses and words as all formats write them. Every request pays for its line, so what is the same in
//! all lines does not go through `std::fmt`.

use std::fmt::{Display, Write as _};
use std::net::{IpAddr, SocketAddr};

/// Lets `std::fmt` append to a line. Writing to memory does not fail.
pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Appends whatever can be shown.
pub(super) fn show(line: &mut Vec<u8>, what: impl Display) {
    let _ = write!(Text(line), "{what}");
}

/// Appends a number.
pub(super) fn number(line: &mut Vec<u8>, number: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the address; an IPv4 client of a socket for both families is an IPv4 client.
pub(super) fn address(line: &mut Vec<u8>, client: SocketAddr) {
    match client.ip().to_canonical() {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            number(line, first);
            for octet in rest {
                line.push(b'.');
                number(line, octet);
            }
        }
        IpAddr::V6(v6) => show(line, v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0", "10.10.1.2", "255.255.255.255", "::1", "2001:db8::ff"] {
            let mut line = Vec::new();
            let ip: IpAddr = text.parse().expect("address");
            address(&mut line, SocketAddr::new(ip, 1));
            assert_eq!(String::from_utf8(line).expect("ASCII"), ip.to_string());
        }
    }
}
