//! The flows of a version with another schema, as far as has to be known: whether any of them is still in use.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{MapData, MapInfo};
use balancer_ebpf::abi::{Flow, FlowKey};
use balancer_ebpf::phase::{self, CLOSING, RESET_SILENCE_NS, Side};

use super::syscall::BatchWalk;

/// More than one bucket holds.
const BATCH: usize = 2048;

/// The flow table of another version.
#[derive(Debug)]
pub(super) struct OldFlows {
    map: MapData,
    layout: Layout,
}

/// Which bytes of an entry say how far it is in its life, and when it was used last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// Of schema 2: keys of 12 bytes, entries of 120.
    Second,
    /// Of a version that has changed other maps than this one.
    Ours,
}

const KEY_2: usize = 12;
const FLOW_2: usize = 120;
const OUR_KEY: usize = size_of::<FlowKey>();
const OUR_FLOW: usize = size_of::<Flow>();

impl Layout {
    fn of(info: &MapInfo) -> Option<Self> {
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if sizes == (OUR_KEY, OUR_FLOW) {
            return Some(Self::Ours);
        }
        (sizes == (KEY_2, FLOW_2)).then_some(Self::Second)
    }

    fn is_in_use(self, entry: &[u8], now: u64) -> bool {
        let (phase, last_seen) = match self {
            Self::Ours => (offset_of!(Flow, side) + offset_of!(Side, phase), offset_of!(Flow, last_seen)),
            Self::Second => (12, 64),
        };
        let word = entry.get(last_seen..last_seen + 8).and_then(|word| word.try_into().ok());
        let last_seen = word.map_or(0, u64::from_ne_bytes);
        match entry.get(phase) {
            // Nothing comes any more after a second of silence but what the stack's reset answers as well.
            Some(&CLOSING) => now.saturating_sub(last_seen) < RESET_SILENCE_NS,
            Some(phase) => phase::is_live(Side { phase: *phase, ..Side::NEW }, last_seen, now),
            None => false,
        }
    }
}

impl OldFlows {
    /// The table pinned at `path`; `None`: its entries are of a kind that is not known here.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let map = MapData::from_pin(path).ok()?;
        let layout = Layout::of(&map.info().ok()?)?;
        Some(Self { map, layout })
    }

    /// Whether any of the flows is in use. Ends at the first that is.
    pub(super) fn are_in_use(&self, now: u64) -> bool {
        match self.layout {
            Layout::Ours => self.any::<OUR_KEY, OUR_FLOW>(now),
            Layout::Second => self.any::<KEY_2, FLOW_2>(now),
        }
    }

    fn any<const KEY: usize, const FLOW: usize>(&self, now: u64) -> bool {
        let mut walk = BatchWalk::new(BATCH);
        while let Ok((entries, at_end)) = walk.next::<[u8; KEY], [u8; FLOW]>(self.map.fd().as_fd()) {
            if entries.iter().any(|(_, entry)| self.layout.is_in_use(entry, now)) {
                return true;
            }
            if at_end {
                return false;
            }
        }
        // Nobody knows: the time limit decides.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balancer_ebpf::phase::{ESTABLISHED, ESTABLISHED_NS};

    #[test]
    fn a_flow_of_the_second_schema_is_understood() {
        let mut entry = [0xff; FLOW_2];
        entry[12] = ESTABLISHED;
        entry[64..72].copy_from_slice(&1000_u64.to_ne_bytes());
        assert!(Layout::Second.is_in_use(&entry, 1000 + ESTABLISHED_NS - 1));
        assert!(!Layout::Second.is_in_use(&entry, 1000 + ESTABLISHED_NS));
        entry[12] = CLOSING;
        assert!(Layout::Second.is_in_use(&entry, 1000));
        assert!(!Layout::Second.is_in_use(&entry, 1000 + RESET_SILENCE_NS));
        entry[12] = phase::DEAD;
        assert!(!Layout::Second.is_in_use(&entry, 1000));
    }
}
