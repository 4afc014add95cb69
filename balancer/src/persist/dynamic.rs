//! `dynamic-key=`: ids that are made of servers' addresses, so that many instances agree without being told.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh64::xxh64;

/// The id of the server at `address`: XXH64, seed 0, over the key, the raw address and the port as 32 bits, big-endian;
/// 16 hexadecimal digits. The same as HAProxy's `dynamic-cookie-key`.
pub fn id(key: &str, address: SocketAddr) -> String {
    let mut bytes = key.as_bytes().to_vec();
    match address.ip() {
        IpAddr::V4(v4) => bytes.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes.extend_from_slice(&v6.octets()),
    }
    bytes.extend_from_slice(&u32::from(address.port()).to_be_bytes());
    format!("{:016x}", xxh64(&bytes, 0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_those_of_haproxy() {
        // What HAProxy 2.6 shows for such servers with `dynamic-cookie-key K`.
        let table = [
            ("127.0.0.1:80", "62f15d6c4f710633"),
            ("10.1.2.3:65535", "08cb5c9914e7aa08"),
            ("[2001:db8::1]:8080", "6fea276361a1c9c8"),
        ];
        for (address, expected) in table {
            assert_eq!(super::id("K", address.parse().expect("address")), expected, "{address}");
        }
    }
}
