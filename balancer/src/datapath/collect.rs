//! Removing flows that are over, in bounded steps, so that neither packets nor the service notice.

use std::os::fd::AsFd;

use balancer_ebpf::abi::{Flow, FlowKey};
use balancer_ebpf::phase;
use nix::time::{ClockId, clock_gettime};

use super::maps::Maps;
use super::syscall::BatchWalk;

/// Entries looked at in one step: well under a millisecond.
const STEP: usize = 2048;

/// A walk over the flow table that never ends.
#[derive(Debug)]
pub struct Collector {
    walk: BatchWalk,
}

impl Default for Collector {
    fn default() -> Self {
        Self { walk: BatchWalk::new(STEP) }
    }
}

impl Collector {
    /// Looks at the next entries and removes what is over; true when the end of the table was reached.
    pub fn step(&mut self, maps: &mut Maps) -> bool {
        let Ok((entries, at_end)) = self.walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) else {
            return true;
        };
        let now = flow_clock();
        let over: Vec<_> = entries.iter().filter(|(key, flow)| is_removable(maps, key, flow, now)).collect();
        for (key, _) in &over {
            let _ = maps.flows.remove(key);
        }
        at_end
    }
}

/// The other direction, if it is still this flow's.
pub(super) fn twin(maps: &Maps, key: &FlowKey, flow: &Flow) -> Option<Flow> {
    let twin = maps.flows.get(&flow.becomes.reversed(), 0).ok()?;
    (twin.becomes == key.reversed()).then_some(twin)
}

/// The clock of flows: what the program reads as its coarse monotonic clock. Nanoseconds.
pub fn flow_clock() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Over for so long that no packet is using it: the program neither revives nor replaces such an entry.
fn is_removable(maps: &Maps, key: &FlowKey, flow: &Flow, now: u64) -> bool {
    let then = now.saturating_sub(phase::REMOVAL_NS);
    // The other direction is asked last: a call for every entry of a full table would be a tenth of a core.
    phase::is_over_and_rested(flow.side, flow.last_seen, then)
        && twin(maps, key, flow).is_none_or(|twin| {
            let last_seen = twin.last_seen.max(flow.last_seen);
            phase::is_over_and_rested(flow.side, last_seen, then)
                && phase::is_over_and_rested(twin.side, last_seen, then)
        })
}
