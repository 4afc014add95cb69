//! Offloads and channels of an interface (Documentation/netlink/specs/ethtool.yaml).

use std::collections::BTreeSet;
use std::io;

use super::{Attributes, attribute, generic, integer, text, walk};

const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
/// Of every message.
const HEADER: u16 = 1;
const HEADER_DEV_INDEX: u16 = 1;
const FEATURES_ACTIVE: u16 = 4;
const BITSET_BITS: u16 = 3;
const BITS_BIT: u16 = 1;
const BIT_NAME: u16 = 2;
const CHANNELS_RX_MAX: u16 = 2;
const CHANNELS_RX_COUNT: u16 = 6;
const CHANNELS_TX_COUNT: u16 = 7;

/// The offloads that are on, as `ethtool -k` and `-K` call them.
///
/// # Errors
/// No such interface.
pub fn features(index: u32) -> io::Result<BTreeSet<String>> {
    let answer = ask(ETHTOOL_MSG_FEATURES_GET, index)?;
    let bits = attribute(&answer, FEATURES_ACTIVE).and_then(|set| attribute(set, BITSET_BITS));
    let bits = walk(bits.unwrap_or_default()).filter(|(kind, _)| *kind == BITS_BIT);
    Ok(bits.filter_map(|(_, bit)| attribute(bit, BIT_NAME)).map(text).collect())
}

/// Queues of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Channels {
    /// Queues that receive.
    pub receive: u32,
    /// How many there could be.
    pub receive_most: u32,
    /// Queues that transmit.
    pub transmit: u32,
}

/// The queues that the interface has now, for drivers that count the two directions apart.
///
/// # Errors
/// No such interface, or its driver does not say.
pub fn channels(index: u32) -> io::Result<Channels> {
    let answer = ask(ETHTOOL_MSG_CHANNELS_GET, index)?;
    let number = |kind| attribute(&answer, kind).and_then(integer).unwrap_or_default();
    Ok(Channels {
        receive: number(CHANNELS_RX_COUNT),
        receive_most: number(CHANNELS_RX_MAX),
        transmit: number(CHANNELS_TX_COUNT),
    })
}

fn ask(command: u8, index: u32) -> io::Result<Vec<u8>> {
    let header = Attributes::default().with(HEADER_DEV_INDEX, &index.to_ne_bytes());
    generic("ethtool", command, &Attributes::default().nest(HEADER, &header))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_features_that_ethtool_knows_by_these_names() {
        let loopback = super::super::link::by_name("lo").expect("every namespace has one");
        let features = features(loopback.index).expect("the kernel answers");
        assert!(features.contains("loopback"), "{features:?}");
        assert!(self::features(0x7fff_fff0).is_err());
    }
}
