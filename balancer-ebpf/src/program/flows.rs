//! Flows in the table: two entries each, one per direction, kept in step.

use balancer_ebpf::abi::{Flow, FlowKey};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::Packet;
use balancer_ebpf::phase::{self, DEAD, Side, flag};

use crate::caps;
use crate::maps::FLOWS;

/// A flow that is alive, found by one of its directions.
#[derive(Clone, Copy)]
pub(crate) struct LiveFlow {
    /// The key of the packet's direction.
    pub(crate) key: FlowKey,
    /// Its entry: valid for the length of this run, since entries are removed a second after their end at the
    /// earliest.
    pub(crate) entry: *mut Flow,
}

/// The flow of `key`, if it is alive at `now`.
#[inline(always)]
pub(crate) fn find_live(key: &FlowKey, now: u64) -> Option<LiveFlow> {
    let flow = LiveFlow { key: *key, entry: FLOWS.get_ptr_mut(key)? };
    // SAFETY: see `LiveFlow::entry`.
    let own = unsafe { &*flow.entry };
    if own.side.phase == DEAD {
        return None;
    }
    if phase::is_live(own.side.phase, own.last_seen, now) {
        return Some(flow);
    }
    // One direction may rest while the other talks: the flow is as young as the younger of the two.
    // SAFETY: as above.
    let twin = unsafe { &*twin(&flow)? };
    phase::is_live(twin.side.phase, twin.last_seen, now).then_some(flow)
}

/// Whether this SYN begins a new connection on the tuple of a flow that is over.
#[inline(always)]
pub(crate) fn is_replaced_by(flow: &LiveFlow, packet: &Packet, now: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`; `parse` has checked the TCP header.
    let (own, sequence) = unsafe { (&*flow.entry, (*packet.tcp).sequence) };
    if own.isn == sequence {
        return false;
    }
    let Some(twin) = twin(flow) else { return false };
    // SAFETY: as above.
    let twin = unsafe { &*twin };
    phase::is_over(own.side, twin.side, now.saturating_sub(own.last_seen.max(twin.last_seen)))
}

/// Accounts for a packet and moves the flow along.
#[inline(always)]
pub(crate) fn advance(flow: &LiveFlow, packet: &Packet, from_client: bool, now: u64) {
    let flags = packet.flags();
    // SAFETY: see `LiveFlow::entry`. Both directions may write at once on two CPUs: a byte is never torn, only what
    // changes is written, and the life cycle tolerates the loss of a write.
    let own = unsafe { &mut *flow.entry };
    if phase::is_routine(own.side.phase, flags) {
        own.last_seen = now;
        return;
    }
    let Some(twin) = twin(flow) else { return };
    // SAFETY: as above.
    let twin = unsafe { &mut *twin };
    let (mut own_side, mut twin_side) = (own.side, twin.side);
    // SAFETY: `parse` has checked the header.
    let tcp = unsafe { &*packet.tcp };
    let proves_address = tcp.acknowledgment == own.handshake_ack;
    if flags & flag::SYN != 0 && !from_client {
        twin.handshake_ack = u32::from_be_bytes(tcp.sequence).wrapping_add(1).to_be_bytes();
    }
    let completed = phase::advance(&mut own_side, &mut twin_side, from_client, flags, proves_address);
    write_changes(&mut own.side, own_side);
    write_changes(&mut twin.side, twin_side);
    if phase::is_use(own_side.phase, flags) {
        own.last_seen = now;
    }
    if completed {
        twin.last_seen = now;
        caps::handshake_done(own.service, flow.key.source, own.created);
    }
}

/// What was killed meanwhile stays dead.
#[inline(always)]
fn write_changes(side: &mut Side, new: Side) {
    if side.phase != new.phase && side.phase != DEAD {
        side.phase = new.phase;
    }
    if side.marks != new.marks {
        side.marks = new.marks;
    }
    side.talk = new.talk;
}

/// Ends what the table has of a SYN's tuple, and says what its packets became: that port is its client's own to use
/// again.
///
/// # Errors
/// The entry is about to be removed and must not be touched: the SYN is the stack's.
#[inline(always)]
pub(crate) fn leave_to_the_stack(key: &FlowKey, now: u64) -> Result<Option<FlowKey>, Outcome> {
    let Some(entry) = FLOWS.get_ptr_mut(key) else { return Ok(None) };
    let flow = LiveFlow { key: *key, entry };
    // SAFETY: see `LiveFlow::entry`.
    let own = unsafe { &*entry };
    let mut last_seen = own.last_seen;
    let twin = twin(&flow);
    if let Some(twin) = twin {
        // SAFETY: as above.
        last_seen = last_seen.max(unsafe { (*twin).last_seen });
    }
    if phase::is_over_and_rested(own.side, last_seen, now) {
        return Err(Outcome::FlowEnding);
    }
    if let Some(twin) = twin {
        end(twin, now);
    }
    end(entry, now);
    Ok(Some(own.becomes))
}

/// Ends a flow in both directions: from now on its tuple is the stack's. User space removes the entries.
#[inline(always)]
pub(crate) fn kill(flow: &LiveFlow, now: u64) {
    if let Some(twin) = twin(flow) {
        end(twin, now);
    }
    end(flow.entry, now);
}

#[inline(always)]
fn end(entry: *mut Flow, now: u64) {
    // SAFETY: see `LiveFlow::entry`.
    let entry = unsafe { &mut *entry };
    if entry.side.phase != DEAD {
        entry.side.phase = DEAD;
        entry.last_seen = now;
    }
}

/// The other direction's entry, if it is still this flow's.
#[inline(always)]
fn twin(flow: &LiveFlow) -> Option<*mut Flow> {
    // SAFETY: see `LiveFlow::entry`.
    let entry = FLOWS.get_ptr_mut(unsafe { (*flow.entry).becomes.reversed() })?;
    // SAFETY: as above.
    let ours = unsafe { (*entry).becomes } == flow.key.reversed();
    ours.then_some(entry)
}
