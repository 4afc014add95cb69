//! Looking after flows, in bounded steps, so that neither packets nor the service notice: those that are over are removed,
//! those without an answer are counted, and the counts of open ones are checked.

use std::os::fd::AsFd;

use aya::Ebpf;
use balancer_ebpf::abi::{FROM_CLIENT, Flow, FlowKey};
use balancer_ebpf::phase;
use balancer_ebpf::state::State;
use nix::time::{ClockId, clock_gettime};

use super::census::{Census, Reading};
use super::loads::Loads;
use super::maps::Maps;
use super::syscall::BatchWalk;
use super::tend;

/// Entries looked at in one step: well under a millisecond.
const STEP: usize = 2048;

/// A walk over the flow table that never ends.
#[derive(Debug)]
pub struct Collector {
    walk: BatchWalk,
    census: Census,
    at_start: bool,
}

impl Default for Collector {
    fn default() -> Self {
        Self { walk: BatchWalk::new(STEP), census: Census::default(), at_start: true }
    }
}

/// What a step has come to.
#[derive(Debug, Default)]
pub struct Step {
    /// The end of the table was reached.
    pub at_end: bool,
    /// Servers whose counts were wrong and have been set right, and by how much they were too high.
    pub corrected: Vec<(u16, i64)>,
}

impl Collector {
    /// Looks at the next entries. `own`: the servers whose counts are ours to check, for the length of a walk.
    pub fn step(&mut self, maps: &mut Maps, ebpf: &mut Ebpf, own: impl Iterator<Item = u16>) -> Step {
        if std::mem::take(&mut self.at_start) {
            self.census.begin(own.map(|id| (id, reading(&maps.loads, id))));
        }
        let Ok((entries, at_end)) = self.walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) else {
            self.census.give_up();
            self.at_start = true;
            return Step { at_end: true, corrected: Vec::new() };
        };
        let now = flow_clock();
        let mut unanswered = Vec::new();
        for (key, flow) in &entries {
            if flow.direction == FROM_CLIENT && State(flow.state).is_open() {
                self.census.see(flow.server);
            }
            if tend::is_unanswered(flow, now) {
                unanswered.push(*key);
            }
        }
        // What cannot be counted now is counted in the next round, or by the client's repeated SYN.
        let _ = tend::note_unanswered(ebpf, &unanswered);
        let over: Vec<_> = entries.iter().filter(|(key, flow)| is_removable(maps, key, flow, now)).collect();
        for (key, _) in &over {
            maps.remove_flow(key);
        }
        self.at_start = at_end;
        Step { at_end, corrected: if at_end { self.correct(&maps.loads) } else { Vec::new() } }
    }

    fn correct(&mut self, loads: &Loads) -> Vec<(u16, i64)> {
        let corrected = self.census.end(|id| reading(loads, id));
        for (id, excess) in &corrected {
            loads.subtract(*id, *excess);
        }
        corrected
    }
}

fn reading(loads: &Loads, id: u16) -> Reading {
    Reading { connections: loads.connections(id), opened: loads.opened(id) }
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
