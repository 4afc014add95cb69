//! Looking after flows, in bounded steps, so that neither packets nor the service notice: those that are over are removed
//! and, if nobody has told their end, told; those without an answer are counted, and the counts of open ones are checked.

use std::os::fd::AsFd;

use aya::Ebpf;
use balancer_ebpf::abi::{FROM_CLIENT, Flow, FlowKey, Service};
use balancer_ebpf::phase;
use balancer_ebpf::state::State;
use nix::time::{ClockId, clock_gettime};

use super::census::{Census, Reading};
use super::ended::Ended;
use super::loads::Loads;
use super::maps::Maps;
use super::syscall::BatchWalk;
use super::tend;
use crate::clock;

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
    /// Connections of the own service whose end nobody has told.
    pub ended: Vec<Ended>,
}

impl Collector {
    /// Looks at the next entries. `own`: the servers whose counts are ours to check, for the length of a walk. `slot`: that
    /// of the service whose ends are ours to tell; the untold ones of others are left to those who may yet tell them.
    pub fn step(
        &mut self,
        maps: &mut Maps,
        ebpf: &mut Ebpf,
        own: impl Iterator<Item = u16>,
        slot: Option<u32>,
    ) -> Step {
        if std::mem::take(&mut self.at_start) {
            self.census.begin(own.map(|id| (id, reading(&maps.loads, id))));
        }
        let Ok((entries, at_end)) = self.walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) else {
            self.census.give_up();
            self.at_start = true;
            return Step { at_end: true, ..Step::default() };
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
        let mut ended = Vec::new();
        for (key, flow) in &entries {
            ended.extend(remove(maps, key, flow, now, slot));
        }
        self.at_start = at_end;
        Step { at_end, corrected: if at_end { self.correct(&maps.loads) } else { Vec::new() }, ended }
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

/// Removes a flow that is over for so long that no packet is using it: the program neither revives nor replaces such an
/// entry. Both directions go together, by the client's: so what they have carried is told together.
fn remove(maps: &mut Maps, key: &FlowKey, flow: &Flow, now: u64, slot: Option<u32>) -> Option<Ended> {
    let then = now.saturating_sub(phase::REMOVAL_NS);
    if !phase::is_over_and_rested(flow.side, flow.last_seen, then) {
        return None;
    }
    // The other direction is asked last: a call for every entry of a full table would be a tenth of a core.
    let twin = twin(maps, key, flow);
    if let Some(twin) = &twin {
        let last_seen = twin.last_seen.max(flow.last_seen);
        let is_over = |side| phase::is_over_and_rested(side, last_seen, then);
        if flow.direction != FROM_CLIENT || !is_over(flow.side) || !is_over(twin.side) {
            return None;
        }
    }
    let is_ours = slot == Some(u32::from(flow.service));
    if flow.direction == FROM_CLIENT && !State(flow.state).is_told() && !is_ours && is_awaited(maps, flow) {
        return None;
    }
    let removed = maps.remove_flow(key)?;
    let server = twin.and_then(|_| maps.remove_flow(&flow.becomes.reversed()));
    let is_news = removed.direction == FROM_CLIENT && !State(removed.state).is_told();
    (is_news && is_ours).then(|| Ended::found(key, &removed, server.as_ref()))
}

/// Whether the service's process is there to tell the flow's end, or may come back in time.
fn is_awaited(maps: &Maps, flow: &Flow) -> bool {
    maps.services.get(&u32::from(flow.service), 0).is_ok_and(|service| {
        service.name != Service::FREE.name
            && clock::boot_ns().saturating_sub(service.heartbeat) <= service.hold
    })
}
