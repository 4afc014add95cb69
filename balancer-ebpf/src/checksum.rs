//! Internet checksums (RFC 1071): updating them for a rewrite (RFC 1624), and telling one that was never finished.

use crate::abi::{Address, FlowKey};

/// What a change of the TTL by minus one adds, in one's complement: `!0x0100`.
const TTL_DELTA: u32 = 0xfeff;

/// What replacing `old` by `new` adds to a checksum's complement: RFC 1624 equation 3, `~m + m'`.
#[inline(always)]
pub(crate) const fn change(old: [u8; 2], new: [u8; 2]) -> u32 {
    (!u16::from_be_bytes(old)) as u32 + u16::from_be_bytes(new) as u32
}

#[inline(always)]
const fn change_address(old: &Address, new: &Address) -> u32 {
    change_word(old.0[0], new.0[0])
        + change_word(old.0[1], new.0[1])
        + change_word(old.0[2], new.0[2])
        + change_word(old.0[3], new.0[3])
}

#[inline(always)]
pub(crate) const fn change_word(old: u32, new: u32) -> u32 {
    sum_of_word(!old) + sum_of_word(new)
}

/// Both halves of a word in network order.
#[inline(always)]
pub(crate) const fn sum_of_word(word: u32) -> u32 {
    let word = u32::from_be(word);
    (word >> 16) + (word & 0xffff)
}

/// Folds carries until sixteen bits are left.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The deltas of the IP and the TCP checksum for a rewrite of `from` into `to`: constant for a flow's direction. What the
/// IPv6 forms of IPv4 addresses have in common adds nothing; IPv6 has no checksum of its own.
#[inline(always)]
pub const fn deltas(from: &FlowKey, to: &FlowKey) -> (u16, u16) {
    let addresses =
        change_address(&from.source, &to.source) + change_address(&from.destination, &to.destination);
    let ports = change(from.source_port, to.source_port) + change(from.destination_port, to.destination_port);
    (fold(addresses), fold(addresses + ports))
}

/// The delta of a rewrite of one word.
#[inline(always)]
pub const fn delta_of_word(old: [u8; 2], new: [u8; 2]) -> u16 {
    fold(change(old, new))
}

/// The checksum after a rewrite with this delta.
#[inline(always)]
pub const fn apply(checksum: [u8; 2], delta: u16) -> [u8; 2] {
    (!fold((!u16::from_be_bytes(checksum)) as u32 + delta as u32)).to_be_bytes()
}

/// The IP checksum after a rewrite with this delta and a TTL less one.
#[inline(always)]
pub const fn apply_with_ttl(checksum: [u8; 2], delta: u16) -> [u8; 2] {
    (!fold((!u16::from_be_bytes(checksum)) as u32 + delta as u32 + TTL_DELTA)).to_be_bytes()
}

/// The sum over the pseudo-header, not complemented: what a local sender leaves in the checksum field for its network
/// card to finish. After a redirect nobody finishes it.
///
/// One finished checksum in 65536 looks the same, which a busy service sees every few seconds: so the packet has to be
/// summed before anything is concluded, see [`crate::packet::Packet::is_unfinished`].
#[inline(always)]
pub const fn pseudo_header(key: &FlowKey, tcp_length: u16) -> u16 {
    const TCP: u32 = 6;
    // IPv4 addresses in their IPv6 form: what they have in front adds nothing, but carries around. The length and the
    // protocol have more bytes for IPv6 (RFC 8200 §8.1), which are zero.
    fold(sum_of_address(&key.source) + sum_of_address(&key.destination) + TCP + tcp_length as u32)
}

#[inline(always)]
const fn sum_of_address(address: &Address) -> u32 {
    let [a, b, c, d] = address.0;
    sum_of_word(a) + sum_of_word(b) + sum_of_word(c) + sum_of_word(d)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn full(bytes: &[u8]) -> u16 {
        let sum: u64 = bytes
            .chunks(2)
            .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
            .sum();
        let mut sum = sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// The bytes that a TCP checksum covers (RFC 9293 §3.1), the checksum field as given.
    fn covered(key: &FlowKey, checksum: u16, payload: &[u8]) -> Vec<u8> {
        let length = (20 + payload.len()) as u16;
        let mut bytes = pseudo(key, length);
        bytes.extend([key.source_port, key.destination_port].concat());
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xff, 0xff]);
        bytes.extend(checksum.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    /// RFC 9293 §3.1, RFC 8200 §8.1.
    fn pseudo(key: &FlowKey, length: u16) -> Vec<u8> {
        let mut bytes = on_the_wire(key);
        if key.source.is_v4() {
            bytes.extend([0, 6]);
            bytes.extend(length.to_be_bytes());
        } else {
            bytes.extend(u32::from(length).to_be_bytes());
            bytes.extend([0, 0, 0, 6]);
        }
        bytes
    }

    /// Both addresses.
    fn on_the_wire(key: &FlowKey) -> Vec<u8> {
        let octets = |address: Address| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        [octets(key.source), octets(key.destination)].concat()
    }

    fn any_key_of(is_v4: bool) -> impl Strategy<Value = FlowKey> {
        let address = move |octets: [u8; 16]| {
            let [.., a, b, c, d] = octets;
            // Never one in its IPv6 form by chance.
            if is_v4 {
                Address::v4([a, b, c, d])
            } else {
                Address::v6([&[0x20], &octets[1..]].concat().try_into().expect("16"))
            }
        };
        any::<([u8; 16], [u8; 16], [u8; 2], [u8; 2])>().prop_map(move |(source, destination, sp, dp)| {
            FlowKey {
                source: address(source),
                destination: address(destination),
                source_port: sp,
                destination_port: dp,
            }
        })
    }

    /// Of one family.
    fn any_key() -> impl Strategy<Value = FlowKey> {
        any::<bool>().prop_flat_map(any_key_of)
    }

    /// Two of one family.
    fn any_keys() -> impl Strategy<Value = (FlowKey, FlowKey)> {
        any::<bool>().prop_flat_map(|is_v4| (any_key_of(is_v4), any_key_of(is_v4)))
    }

    proptest! {
        #[test]
        fn an_update_equals_a_full_recomputation(
            (from, to) in any_keys(), payload in proptest::collection::vec(any::<u8>(), 0..1460),
        ) {
            let before = full(&covered(&from, 0, &payload));
            let (_, delta) = deltas(&from, &to);
            let after = u16::from_be_bytes(apply(before.to_be_bytes(), delta));
            // Valid means: the sum over everything, checksum included, folds to zero.
            prop_assert_eq!(full(&covered(&to, after, &payload)), 0);
        }

        #[test]
        fn rewrite_and_reverse_is_the_identity((from, to) in any_keys(), checksum in 1_u16..0xffff) {
            let (_, there) = deltas(&from, &to);
            let (_, back) = deltas(&to, &from);
            let through = apply(apply(checksum.to_be_bytes(), there), back);
            prop_assert_eq!(u16::from_be_bytes(through), checksum);
        }

        #[test]
        fn the_ip_header_stays_valid_with_its_ttl_reduced(
            from in any_key_of(true), to in any_key_of(true), ttl in 2_u8..,
        ) {
            let header = |key: &FlowKey, ttl: u8, checksum: u16| {
                let mut bytes = vec![0x45, 0, 0, 40, 1, 2, 0x40, 0, ttl, 6];
                bytes.extend(checksum.to_be_bytes());
                bytes.extend(on_the_wire(key));
                bytes
            };
            let before = full(&header(&from, ttl, 0));
            let (delta, _) = deltas(&from, &to);
            let after = u16::from_be_bytes(apply_with_ttl(before.to_be_bytes(), delta));
            prop_assert_eq!(full(&header(&to, ttl - 1, after)), 0);
        }

        #[test]
        fn a_pseudo_header_sums_to_what_the_stack_leaves(key in any_key()) {
            prop_assert_eq!(pseudo_header(&key, 40), !full(&pseudo(&key, 40)));
        }
    }
}
