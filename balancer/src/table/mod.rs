//! Learned tables: which server a key belongs to, kept outside the request path's memory where the kernel allows.
//!
//! A [`Table`] is a handle: each worker has its own, all of them see the same entries. The entries live in pinned kernel
//! maps when there are such, and outlive the process; otherwise in [`memory`].
//!
//! | module | what it does |
//! |---|---|
//! | [`set`] | the tables of a service |
//! | [`learned`] | one of them: main store and probation, reservations |
//! | [`store`] | what both kinds of stores can do |
//! | [`memory`] | entries in the process; those in the kernel are [`crate::datapath`]'s |
//! | `moves` | reservations of keys that have an entry |
//! | [`hash`] | ids → keys |
//! | [`newcomers`] | how many new keys a client may bring (pure) |
//! | [`collector`] | takes out what has expired, a little at a time |

pub mod collector;
pub mod hash;
pub mod learned;
pub mod memory;
mod moves;
pub mod newcomers;
pub mod set;
pub mod store;

use std::net::IpAddr;

use balancer_ebpf::abi::Address;

pub use hash::HashKey;
pub use learned::{Found, RESERVATION_SECONDS, Table};
pub use newcomers::Newcomers;
pub use set::Tables;
pub use store::{Store, Walk};

/// A table's key: an address in its IPv6 form (RFC 4291 §2.5.5.2 for IPv4), or the hash of an id.
pub type Key = [u8; 16];

/// The key of a client's address.
pub fn source_key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address of a key, as an operator writes it.
pub fn source_address(key: &Key) -> IpAddr {
    IpAddr::from(*key).to_canonical()
}

/// The key of the block that the address of `key` is in: so many leading bits count.
pub fn mask(key: Key, mask4: u8, mask6: u8) -> Key {
    // As XDP does it.
    Address::v6(key).masked(mask4, mask6).octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> Key {
        source_key(address.parse().expect("address"))
    }

    #[test]
    fn a_v4_mapped_address_is_the_v4_address() {
        assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
        assert_eq!(source_address(&key("10.0.0.1")).to_string(), "10.0.0.1");
    }

    #[test]
    fn a_block_has_one_key() {
        let table = [
            ("10.1.2.3", 32, 64, "10.1.2.3"),
            ("10.1.2.3", 24, 64, "10.1.2.0"),
            ("::ffff:10.1.2.3", 8, 64, "10.0.0.0"),
            ("2001:db8:1:2:3:4:5:6", 32, 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 32, 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 32, 1, "::"),
            ("2001:db8::1", 32, 48, "2001:db8::"),
        ];
        for (address, mask4, mask6, block) in table {
            assert_eq!(mask(key(address), mask4, mask6), key(block), "{address}/{mask4}/{mask6}");
        }
    }
}
