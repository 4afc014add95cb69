//! Flows in the table: two entries each, one per direction, kept in step.

use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FROM_CLIENT, Flow, FlowKey};
use balancer_ebpf::counter::{Note, Outcome};
use balancer_ebpf::packet::Headers;
use balancer_ebpf::phase::{self, DEAD, ENDED, Side, flag};
use balancer_ebpf::state::{Said, State, UNANSWERED_NS};

use crate::atomic::{compare_exchange, fetch_or, read};
use crate::caps::Bound;
use crate::counters::count;
use crate::maps::FLOWS;
use crate::{caps, events, ingress, loads};

/// How often a step is tried that others come before. Each time one of them has succeeded, and a flow has few packets
/// under way that change it.
const STEP_ATTEMPTS: u32 = 4;
/// How often the copies of a state are written until they agree with it.
const COPY_ATTEMPTS: u32 = 3;

/// A flow that is alive, found by one of its directions.
#[derive(Clone, Copy)]
pub(crate) struct LiveFlow<'a> {
    /// The key of the packet's direction.
    pub(crate) key: &'a FlowKey,
    /// Its entry: valid for the length of this run, since entries are removed a second after their end at the
    /// earliest.
    pub(crate) entry: *mut Flow,
}

/// What the table has of `key`, alive or not.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<LiveFlow<'_>> {
    Some(LiveFlow { key, entry: FLOWS.get_ptr_mut(key)? })
}

/// The flow of `key`, if it is alive at `now`.
#[inline(always)]
pub(crate) fn find_live(key: &FlowKey, now: u64) -> Option<LiveFlow<'_>> {
    find(key).filter(|flow| is_live(flow, now))
}

#[inline(always)]
pub(crate) fn is_live(flow: &LiveFlow<'_>, now: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`.
    let own = unsafe { &*flow.entry };
    if own.side.phase == DEAD {
        return false;
    }
    if phase::is_live(own.side, own.last_seen, now) {
        return true;
    }
    // One direction may rest while the other talks: the flow is as young as the younger of the two.
    let Some(twin) = twin(flow) else { return false };
    // SAFETY: as above.
    let twin = unsafe { &*twin };
    phase::is_live(twin.side, twin.last_seen, now)
}

/// What becomes of a packet that is no SYN and whose flow is over. The stack answers it, unless it was sent to the client
/// itself.
#[inline(always)]
pub(crate) fn after_its_end(flow: &LiveFlow<'_>, now: u64) -> Outcome {
    // SAFETY: see `LiveFlow::entry`.
    let own = unsafe { &*flow.entry };
    if own.direction != FROM_CLIENT && own.becomes.destination == flow.key.destination {
        return Outcome::DropOver;
    }
    if own.side.marks & ENDED == 0 {
        return Outcome::NoFlow;
    }
    if caps::admit_one(Bound::Reset, now) { Outcome::Ended } else { Outcome::DropEnded }
}

/// Whether this SYN begins a new connection on the tuple of a flow that is over.
#[inline(always)]
pub(crate) fn is_replaced_by(ctx: &XdpContext, flow: &LiveFlow<'_>, now: u64) -> bool {
    let Some(headers) = Headers::of(ingress::frame(ctx)) else { return false };
    // SAFETY: see `LiveFlow::entry`; `of` has checked the TCP header.
    let (own, sequence) = unsafe { (&*flow.entry, (*headers.tcp).sequence) };
    if own.isn == sequence {
        return false;
    }
    // Of one that is one way, the only entry.
    let twin = if own.side.is_one_way() { Some(flow.entry) } else { twin(flow) };
    let Some(twin) = twin else { return false };
    // SAFETY: as above.
    let twin = unsafe { &*twin };
    phase::is_over(own.side, twin.side, now.saturating_sub(own.last_seen.max(twin.last_seen)))
}

/// Accounts for a packet and moves the flow along; true: the packet has ended it, and the caller is to tell.
#[inline(always)]
pub(crate) fn advance(ctx: &XdpContext, flow: &LiveFlow<'_>, flags: u8, from_client: bool, now: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`.
    let phase = unsafe { (*flow.entry).side.phase };
    if phase::is_routine(phase, flags) {
        // SAFETY: as above.
        unsafe { (*flow.entry).last_seen = now };
        return false;
    }
    let Some(twin) = twin(flow) else { return false };
    let own = flow.entry;
    let pair = if from_client {
        Pair { own, client: own, server: twin }
    } else {
        Pair { own, client: twin, server: own }
    };
    if flags & flag::SYN != 0 && !from_client {
        let Some(headers) = Headers::of(ingress::frame(ctx)) else { return false };
        // SAFETY: as above; `of` has checked the header.
        unsafe {
            let sequence = u32::from_be_bytes((*headers.tcp).sequence);
            (*pair.client).handshake_ack = sequence.wrapping_add(1).to_be_bytes();
        }
    }
    let mut has_ended = false;
    let mut attempt = 0;
    while attempt < STEP_ATTEMPTS {
        if let Some(ends) = step(ctx, &pair, now) {
            has_ended = ends;
            break;
        }
        attempt += 1;
    }
    // SAFETY: as above.
    unsafe {
        if phase::is_use((&raw const (*own).side.phase).read_volatile(), flags) {
            (*own).last_seen = now;
        }
    }
    has_ended
}

/// Whether a packet of a flow changes nothing, or what the other direction knows as well. Others of a flow that is one way are
/// for [`crate::direct`].
#[inline(always)]
pub(crate) fn is_for_both(flow: &LiveFlow<'_>, flags: u8) -> bool {
    // SAFETY: see `LiveFlow::entry`.
    let side = unsafe { (*flow.entry).side };
    !side.is_one_way() || flags & flag::SYN != 0 || phase::is_routine(side.phase, flags)
}

/// The same as [`advance`] for a flow that is one way.
#[inline(always)]
pub(crate) fn advance_one_way(flow: &LiveFlow<'_>, flags: u8, now: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`; all who change this word do so by atomic instructions.
    let (word, server) = unsafe { (&raw mut (*flow.entry).state, (*flow.entry).server) };
    let mut attempt = 0;
    while attempt < STEP_ATTEMPTS {
        // SAFETY: as above.
        let before = State(unsafe { read(word) });
        if before.is_dead() {
            return false;
        }
        let after = before.after_one_way(flags);
        // SAFETY: as above.
        if unsafe { compare_exchange(word, before.0, after.0) } == before.0 {
            loads::changed(server, before, after);
            copy_state_one_way(flow);
            // SAFETY: as above.
            unsafe { (*flow.entry).last_seen = now };
            return !before.is_told() && after.is_told();
        }
        attempt += 1;
    }
    false
}

#[inline(always)]
fn copy_state_one_way(flow: &LiveFlow<'_>) {
    // SAFETY: see `LiveFlow::entry`.
    let entry = unsafe { &mut *flow.entry };
    let mut attempt = 0;
    while attempt < COPY_ATTEMPTS {
        // SAFETY: as in `copy_state`.
        let side = State(unsafe { fetch_or(&raw mut entry.state, 0) }).client();
        if attempt > 0 && entry.side == side {
            return;
        }
        write_changes(&mut entry.side, side);
        attempt += 1;
    }
}

/// Tells the end of a flow, which is marked as told already.
#[inline(always)]
pub(crate) fn tell_end(flow: &LiveFlow<'_>, now: u64) {
    tell(flow, twin(flow), now);
}

#[inline(always)]
fn tell(flow: &LiveFlow<'_>, twin: Option<*mut Flow>, now: u64) {
    let twin = twin.unwrap_or(core::ptr::null_mut());
    // SAFETY: see `LiveFlow::entry`.
    unsafe {
        if (*flow.entry).direction == FROM_CLIENT {
            events::tell_end(flow.key, flow.entry, twin, now);
        } else if !twin.is_null() {
            events::tell_end(flow.key, twin, flow.entry, now);
        }
    }
}

/// Both directions of a flow.
struct Pair {
    /// That of the packet.
    own: *mut Flow,
    client: *mut Flow,
    server: *mut Flow,
}

/// Moves a flow's state by a packet; who succeeds accounts for it. `None`: another packet has moved it meanwhile. True:
/// that has ended the flow. What was killed stays dead.
#[inline(always)]
fn step(ctx: &XdpContext, pair: &Pair, now: u64) -> Option<bool> {
    // SAFETY: see `LiveFlow::entry`; all who change this word do so by atomic instructions.
    let word = unsafe { &raw mut (*pair.client).state };
    // SAFETY: as above.
    let before = State(unsafe { read(word) });
    if before.is_dead() {
        return Some(false);
    }
    let Some(headers) = Headers::of(ingress::frame(ctx)) else { return Some(false) };
    let (after, completed) = before.after(said(pair, &headers, now));
    // SAFETY: as above.
    if unsafe { compare_exchange(word, before.0, after.0) } != before.0 {
        return None;
    }
    // SAFETY: as above.
    let (client, server) = unsafe { (&mut *pair.client, &mut *pair.server) };
    if completed {
        (client.last_seen, server.last_seen) = (now, now);
        // The server's direction leads to the client.
        caps::handshake_done(client.service, &server.becomes.destination, client.created);
    }
    loads::changed(client.server, before, after);
    copy_state(client, server);
    Some(!before.is_told() && after.is_told())
}

/// What the packet says. Read from memory each time it is needed: the verifier follows every combination of facts that are
/// kept, through all attempts.
#[inline(always)]
fn said(pair: &Pair, headers: &Headers, now: u64) -> Said {
    // SAFETY: see `LiveFlow::entry`; `of` has checked the header.
    unsafe {
        let (client, server) = (&*pair.client, &*pair.server);
        let flags = (&raw const (*headers.tcp).flags).read_volatile();
        let acknowledged = u32::from_be_bytes((*headers.tcp).acknowledgment);
        Said {
            from_client: (&raw const (*pair.own).direction).read_volatile() == FROM_CLIENT,
            flags,
            proves_address: acknowledged == u32::from_be_bytes(client.handshake_ack),
            answers_syn: flags & flag::ACK != 0
                && acknowledged == u32::from_be_bytes(client.isn).wrapping_add(1),
            is_late: server.packets == 0 && now.saturating_sub(server.created) >= UNANSWERED_NS,
        }
    }
}

/// Copies a state into both entries. Whoever writes the copies looks at the state afterwards, so that the last one to
/// write them leaves what is true.
#[inline(always)]
fn copy_state(client: &mut Flow, server: &mut Flow) {
    let mut attempt = 0;
    while attempt < COPY_ATTEMPTS {
        // SAFETY: a word of a map's value. Setting nothing is reading, with a barrier before and after.
        let state = State(unsafe { fetch_or(&raw mut client.state, 0) });
        if attempt > 0 && client.side == state.client() && server.side == state.server() {
            return;
        }
        write_changes(&mut client.side, state.client());
        write_changes(&mut server.side, state.server());
        attempt += 1;
    }
}

/// A byte is never torn, and only what changes is written.
#[inline(always)]
fn write_changes(side: &mut Side, new: Side) {
    if side.phase != new.phase {
        side.phase = new.phase;
    }
    if side.marks != new.marks {
        side.marks = new.marks;
    }
    if side.talk != new.talk {
        side.talk = new.talk;
    }
}

/// Ends what the table has of a SYN's tuple; returns that entry, for what its packets became is the client's own to use
/// again.
///
/// # Errors
/// The entry is about to be removed and must not be touched: the SYN is the stack's.
#[inline(always)]
pub(crate) fn leave_to_the_stack(key: &FlowKey, now: u64) -> Result<Option<*mut Flow>, Outcome> {
    let Some(entry) = FLOWS.get_ptr_mut(key) else { return Ok(None) };
    let flow = LiveFlow { key, entry };
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
    end(&flow, twin, 0, now);
    // What follows is not the ended flow's any more.
    write_mark(entry, 0);
    Ok(Some(entry))
}

/// Ends a flow in both directions: from now on its tuple is the stack's. User space removes the entries. `why`: a note
/// of the state.
#[inline(always)]
pub(crate) fn kill(flow: &LiveFlow<'_>, why: u64, now: u64) {
    end(flow, twin(flow), why, now);
}

/// The state first, for it is what everybody goes by who writes the copies; then these.
#[inline(always)]
fn end(flow: &LiveFlow<'_>, twin: Option<*mut Flow>, why: u64, now: u64) {
    let mut is_untold = end_state(flow.entry, why);
    if let Some(twin) = twin {
        is_untold |= end_state(twin, why);
        end_copy(twin, why, now);
    }
    end_copy(flow.entry, why, now);
    if is_untold {
        tell(flow, twin, now);
    }
}

/// True: nobody has told this end yet, and the caller is to.
#[inline(always)]
fn end_state(entry: *mut Flow, why: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`.
    unsafe {
        if (*entry).direction != FROM_CLIENT {
            return false;
        }
        let mut bits = State::KILL | State::TOLD;
        if State(read(&raw const (*entry).state)).is_open() {
            bits |= why;
        }
        let before = State(fetch_or(&raw mut (*entry).state, bits));
        if before.is_open() {
            loads::close((*entry).server);
        }
        !before.is_told()
    }
}

/// An entry that is about to be overwritten: what it has carried is its server's, and if its end could not be told,
/// nobody will.
#[inline(always)]
pub(crate) fn settle(entry: *mut Flow) {
    // SAFETY: see `LiveFlow::entry`.
    unsafe {
        let flow = &*entry;
        loads::carried(flow);
        if flow.direction == FROM_CLIENT && !State(read(&raw const flow.state)).is_told() {
            count(u32::from(flow.service), Note::EndsLost as u32);
        }
    }
}

#[inline(always)]
fn end_copy(entry: *mut Flow, why: u64, now: u64) {
    // SAFETY: see `LiveFlow::entry`.
    let flow = unsafe { &mut *entry };
    if flow.side.phase != DEAD {
        flow.side.phase = DEAD;
        flow.last_seen = now;
        if why == State::ON_ORDER {
            write_mark(entry, ENDED);
        }
    }
}

/// Whether user space has ended the flow, as a packet finds it.
#[inline(always)]
fn write_mark(entry: *mut Flow, mark: u8) {
    // SAFETY: see `LiveFlow::entry`.
    let side = unsafe { &mut (*entry).side };
    side.marks = side.marks & !ENDED | mark;
}

/// The other direction's entry, if it is still this flow's.
#[inline(always)]
pub(crate) fn twin(flow: &LiveFlow<'_>) -> Option<*mut Flow> {
    // SAFETY: see `LiveFlow::entry`.
    let entry = FLOWS.get_ptr_mut(unsafe { (*flow.entry).becomes.reversed() })?;
    // SAFETY: as above.
    let ours = unsafe { (*entry).becomes } == flow.key.reversed();
    ours.then_some(entry)
}
