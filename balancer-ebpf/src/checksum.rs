//! Internet checksums (RFC 1071): updating them for a rewrite (RFC 1624), and telling one that was never finished.

use crate::abi::FlowKey;

/// What a change of the TTL by minus one adds, in one's complement: `!0x0100`.
const TTL_DELTA: u32 = 0xfeff;

/// What replacing `old` by `new` adds to a checksum's complement: RFC 1624 equation 3, `~m + m'`.
#[inline(always)]
const fn change(old: [u8; 2], new: [u8; 2]) -> u32 {
    (!u16::from_be_bytes(old)) as u32 + u16::from_be_bytes(new) as u32
}

#[inline(always)]
const fn change_address(old: [u8; 4], new: [u8; 4]) -> u32 {
    change([old[0], old[1]], [new[0], new[1]]) + change([old[2], old[3]], [new[2], new[3]])
}

/// Folds carries until sixteen bits are left.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The deltas of the IP and the TCP checksum for a rewrite of `from` into `to`: constant for a flow's direction.
#[inline(always)]
pub const fn deltas(from: &FlowKey, to: &FlowKey) -> (u16, u16) {
    let addresses = change_address(from.source, to.source) + change_address(from.destination, to.destination);
    let ports = change(from.source_port, to.source_port) + change(from.destination_port, to.destination_port);
    (fold(addresses), fold(addresses + ports))
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
    let sum = word(key.source, 0)
        + word(key.source, 2)
        + word(key.destination, 0)
        + word(key.destination, 2)
        + TCP
        + tcp_length as u32;
    fold(sum)
}

#[inline(always)]
const fn word(address: [u8; 4], at: usize) -> u32 {
    u16::from_be_bytes([address[at], address[at + 1]]) as u32
}

#[cfg(test)]
mod tests {
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
        let mut bytes = [key.source, key.destination].concat();
        bytes.extend([0, 6]);
        bytes.extend(length.to_be_bytes());
        bytes.extend([key.source_port, key.destination_port].concat());
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xff, 0xff]);
        bytes.extend(checksum.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes
    }

    fn any_key() -> impl Strategy<Value = FlowKey> {
        any::<([u8; 4], [u8; 4], [u8; 2], [u8; 2])>().prop_map(|(source, destination, sp, dp)| FlowKey {
            source,
            destination,
            source_port: sp,
            destination_port: dp,
        })
    }

    proptest! {
        #[test]
        fn an_update_equals_a_full_recomputation(
            from in any_key(), to in any_key(), payload in proptest::collection::vec(any::<u8>(), 0..1460),
        ) {
            let before = full(&covered(&from, 0, &payload));
            let (_, delta) = deltas(&from, &to);
            let after = u16::from_be_bytes(apply(before.to_be_bytes(), delta));
            // Valid means: the sum over everything, checksum included, folds to zero.
            prop_assert_eq!(full(&covered(&to, after, &payload)), 0);
        }

        #[test]
        fn rewrite_and_reverse_is_the_identity(from in any_key(), to in any_key(), checksum in 1_u16..0xffff) {
            let (_, there) = deltas(&from, &to);
            let (_, back) = deltas(&to, &from);
            let through = apply(apply(checksum.to_be_bytes(), there), back);
            prop_assert_eq!(u16::from_be_bytes(through), checksum);
        }

        #[test]
        fn the_ip_header_stays_valid_with_its_ttl_reduced(from in any_key(), to in any_key(), ttl in 2_u8..) {
            let header = |key: &FlowKey, ttl: u8, checksum: u16| {
                let mut bytes = vec![0x45, 0, 0, 40, 1, 2, 0x40, 0, ttl, 6];
                bytes.extend(checksum.to_be_bytes());
                bytes.extend([key.source, key.destination].concat());
                bytes
            };
            let before = full(&header(&from, ttl, 0));
            let (delta, _) = deltas(&from, &to);
            let after = u16::from_be_bytes(apply_with_ttl(before.to_be_bytes(), delta));
            prop_assert_eq!(full(&header(&to, ttl - 1, after)), 0);
        }

        #[test]
        fn a_pseudo_header_sums_to_what_the_stack_leaves(key in any_key()) {
            let mut pseudo = [key.source, key.destination].concat();
            pseudo.extend([0, 6, 0, 40]);
            prop_assert_eq!(pseudo_header(&key, 40), !full(&pseudo));
        }
    }
}
