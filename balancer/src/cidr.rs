//! Sets of addresses, as `--deny` and `--accept-proxy` take them: blocks in, one binary search per question.
//!
//! An IPv4 address is the same address in its IPv6 form (`::ffff:192.0.2.1`); no other IPv6 block contains one, so
//! `::/0` is all of IPv6 and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::live::Live;

/// `ADDR/PREFIX`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block that `text` names.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence; what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLES: &str = "write for example 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32";
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, p)| (address, Some(p)));
        let address: IpAddr =
            address.parse().map_err(|_| format!("is neither an address nor a block of them; {EXAMPLES}"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => width,
            Some(digits) => {
                digits.parse().ok().filter(|prefix| *prefix <= width && is_plain(digits)).ok_or_else(
                    || format!("has a prefix that is not a number from 0 to {width}; {EXAMPLES}"),
                )?
            }
        };
        let block = Self { address, prefix }.canonical();
        let first = block.first();
        if first != block.address {
            // A slip in either half would deny somebody else.
            return Err(format!(
                "has bits after its prefix; write {first}/{} for the block or {} for the address",
                block.prefix, block.address
            ));
        }
        Ok(block)
    }

    /// IPv4 in its IPv6 form as IPv4.
    fn canonical(self) -> Self {
        match (self.address.to_canonical(), self.prefix.checked_sub(96)) {
            (IpAddr::V4(v4), Some(prefix)) if self.address.is_ipv6() => Self { address: v4.into(), prefix },
            _ => self,
        }
    }

    fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & mask(self.prefix, 32) as u32).into(),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & mask(self.prefix, 128)).into()),
        }
    }
}

/// The leading `prefix` bits of a number of `width` bits.
fn mask(prefix: u8, width: u8) -> u128 {
    let host = u32::from(width - prefix);
    let all = u128::MAX >> (128 - u32::from(width));
    all & !u128::MAX.checked_shr(128 - host).unwrap_or(0)
}

/// Addresses between two, both included.
type Range<T> = (T, T);

/// Any number of blocks, as sorted ranges that neither overlap nor touch.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    v4: Vec<Range<u32>>,
    v6: Vec<Range<u128>>,
}

impl std::fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AddressSet({} + {} ranges)", self.v4.len(), self.v6.len())
    }
}

impl FromIterator<Cidr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Cidr>>(blocks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for Cidr { address, prefix } in blocks {
            match address {
                IpAddr::V4(first) => {
                    let first = first.to_bits();
                    v4.push((first, first | !(mask(prefix, 32) as u32)));
                }
                IpAddr::V6(first) => {
                    let first = first.to_bits();
                    v6.push((first, first | !mask(prefix, 128)));
                }
            }
        }
        Self { v4: merged(v4, |last| last.checked_add(1)), v6: merged(v6, |last| last.checked_add(1)) }
    }
}

fn merged<T: Copy + Ord>(mut ranges: Vec<Range<T>>, after: impl Fn(T) -> Option<T>) -> Vec<Range<T>> {
    ranges.sort_unstable();
    let mut merged: Vec<Range<T>> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            // Nothing comes after the last address of all.
            Some(before) if after(before.1).is_none_or(|next| first <= next) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged.shrink_to_fit();
    merged
}

/// A set that is replaced while it is in use.
pub type SharedSet = Live<AddressSet>;

impl SharedSet {
    /// Whether `address` is in it. For every client: what it costs without an entry is a look at two lengths.
    pub fn contains(&self, address: IpAddr) -> bool {
        let set = self.look();
        !set.is_empty() && set.contains(address)
    }
}

impl AddressSet {
    /// Nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => contains(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => contains(&self.v6, v6.to_bits()),
        }
    }

    /// The fewest blocks that make up its addresses: first address and prefix, sorted by family.
    pub fn blocks(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v4 = self.v4.iter().flat_map(|&(first, last)| blocks(first.into(), last.into(), 32));
        let v4 = v4.map(|(first, prefix)| (Ipv4Addr::from_bits(first as u32).into(), prefix));
        let v6 = self.v6.iter().flat_map(|&(first, last)| blocks(first, last, 128));
        v4.chain(v6.map(|(first, prefix)| (Ipv6Addr::from_bits(first).into(), prefix)))
    }
}

/// The fewest blocks between two addresses of so many bits.
fn blocks(first: u128, last: u128, width: u32) -> impl Iterator<Item = (u128, u8)> {
    let mut rest = Some(first);
    std::iter::from_fn(move || {
        let start = rest?;
        // As large as its alignment and what is left allow.
        let aligned = start.trailing_zeros().min(width);
        let fits = (last - start).checked_add(1).map_or(width, u128::ilog2);
        let bits = aligned.min(fits);
        let end = start | !u128::MAX.checked_shl(bits).unwrap_or(0);
        rest = if end == last { None } else { Some(end + 1) };
        Some((start, (width - bits) as u8))
    })
}

fn contains<T: Copy + Ord>(ranges: &[Range<T>], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).is_some_and(|at| address <= ranges[at].1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(blocks: &[&str]) -> AddressSet {
        blocks.iter().map(|block| Cidr::parse(block).expect(block)).collect()
    }

    fn has(set: &AddressSet, address: &str) -> bool {
        set.contains(address.parse().expect(address))
    }

    #[test]
    fn what_is_not_a_block_is_told() {
        let table = [
            ("", "neither an address nor a block"),
            ("example.org", "neither an address nor a block"),
            ("10.0.0.1:80", "neither an address nor a block"),
            ("010.0.0.1", "neither an address nor a block"),
            ("10.0.0.0/33", "a number from 0 to 32"),
            ("10.0.0.0/", "a number from 0 to 32"),
            ("10.0.0.0/+8", "a number from 0 to 32"),
            ("::/129", "a number from 0 to 128"),
            ("10.0.0.1/8", "write 10.0.0.0/8 for the block or 10.0.0.1 for the address"),
            ("2001:db8::1/32", "write 2001:db8::/32 for the block"),
        ];
        for (text, expected) in table {
            let found = Cidr::parse(text).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn both_families_are_kept_apart() {
        let all_v6 = set(&["::/0"]);
        assert!(has(&all_v6, "2001:db8::1") && !has(&all_v6, "10.0.0.1") && !has(&all_v6, "::ffff:10.0.0.1"));
        let all_v4 = set(&["0.0.0.0/0"]);
        assert!(has(&all_v4, "10.0.0.1") && has(&all_v4, "::ffff:10.0.0.1") && !has(&all_v4, "::1"));
        assert_eq!(set(&["::ffff:10.0.0.0/104"]), set(&["10.0.0.0/8"]));
    }

    #[test]
    fn neighbours_become_one_range_and_the_fewest_blocks() {
        let halves = set(&["10.0.0.128/25", "10.0.0.0/25", "10.0.0.7", "10.0.1.0"]);
        assert_eq!(halves.v4.len(), 1);
        let table = [
            ("10.0.0.128/25 10.0.0.0/25 10.0.0.7 10.0.1.0", "10.0.0.0/24 10.0.1.0/32"),
            ("0.0.0.0/1 128.0.0.0/1", "0.0.0.0/0"),
            ("255.255.255.255", "255.255.255.255/32"),
            ("2001:db8::/33 10.0.0.0/8 2001:db8:8000::/33", "10.0.0.0/8 2001:db8::/32"),
            ("::/1 8000::/1", "::/0"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
            ("", ""),
        ];
        for (given, expected) in table {
            let given: Vec<_> = given.split_whitespace().collect();
            let blocks: Vec<_> =
                set(&given).blocks().map(|(first, prefix)| format!("{first}/{prefix}")).collect();
            assert_eq!(blocks.join(" "), expected, "{given:?}");
        }
        assert!(set(&[]).is_empty());
    }

    fn block() -> impl Strategy<Value = (u32, u8)> {
        // Few bits differ, so that blocks overlap and touch.
        (0_u32..64, 24_u8..=32).prop_map(|(low, prefix)| {
            let address = 0x0a00_00c0 | low;
            (address & mask(prefix, 32) as u32, prefix)
        })
    }

    proptest! {
        #[test]
        fn says_the_same_as_asking_every_block(blocks in proptest::collection::vec(block(), 0..12), low in 0_u32..512) {
            let address = 0x0a00_0000 + low;
            let naive = |list: &[(u32, u8)]| {
                list.iter().any(|(first, prefix)| address & mask(*prefix, 32) as u32 == *first)
            };
            let cidrs = blocks.iter().map(|&(first, prefix)| Cidr { address: Ipv4Addr::from_bits(first).into(), prefix });
            let set: AddressSet = cidrs.collect();
            prop_assert_eq!(set.contains(Ipv4Addr::from_bits(address).into()), naive(&blocks));
            let again: AddressSet = set.blocks().map(|(address, prefix)| Cidr { address, prefix }).collect();
            prop_assert_eq!(again, set);
        }

        #[test]
        fn ipv6_says_the_same_too(blocks in proptest::collection::vec((any::<u128>(), 0_u8..=128), 0..8), address: u128, pick: usize) {
            let blocks: Vec<_> = blocks.into_iter()
                .map(|(first, prefix)| (first & mask(prefix, 128), prefix))
                .filter(|(first, _)| std::net::Ipv6Addr::from_bits(*first).to_ipv4_mapped().is_none())
                .collect();
            let set: AddressSet = blocks.iter().map(|&(first, prefix)| Cidr { address: IpAddr::V6(first.into()), prefix }).collect();
            let again: AddressSet = set.blocks().map(|(address, prefix)| Cidr { address, prefix }).collect();
            prop_assert_eq!(&again, &set);
            let edge = blocks.get(pick % blocks.len().max(1)).map_or(address, |(first, prefix)| first | !mask(*prefix, 128));
            for address in [address, edge, edge.wrapping_add(1)] {
                let ip = IpAddr::V6(address.into());
                if ip.to_canonical().is_ipv6() {
                    let naive = blocks.iter().any(|(first, prefix)| address & mask(*prefix, 128) == *first);
                    prop_assert_eq!(set.contains(ip), naive);
                }
            }
        }
    }
}
