//! What user space has done to flows: see [`Chore`].

use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{CHORE_END, CHORE_KEYS, CHORE_NOTE_UNANSWERED, Chore, FROM_CLIENT, FlowKey};
use balancer_ebpf::phase::FIN_SENT;
use balancer_ebpf::state::{State, UNANSWERED_NS};

use crate::atomic::{compare_exchange, read};
use crate::flows::{self, LiveFlow};
use crate::maps::FLOWS;
use crate::{kernel, loads};

/// Does the chore that stands where a packet would be; returns how many flows it has changed.
#[inline(always)]
pub(crate) fn tend(ctx: &XdpContext) -> u32 {
    let chore = ctx.data() as *mut Chore;
    if ctx.data() + size_of::<Chore>() > ctx.data_end() {
        return 0;
    }
    // SAFETY: it is as long as that; the alignment of a packet's data is the kernel's.
    let (what, server, count) = unsafe {
        (
            (&raw const (*chore).what).read(),
            (&raw const (*chore).server).read(),
            (&raw const (*chore).count).read(),
        )
    };
    let now = kernel::coarse_ns();
    // Not in a variable: older verifiers would follow each number that it can have through the rest of the loop.
    // SAFETY: as above.
    let done = unsafe { &raw mut (*chore).done };
    let mut index = 0;
    while index < CHORE_KEYS {
        if index as u32 >= count {
            break;
        }
        // SAFETY: as above.
        let key = unsafe { (&raw const (*chore).keys[index]).read_unaligned() };
        if tend_to(what, server, &key, now) {
            // SAFETY: as above.
            unsafe { done.write_volatile(done.read_volatile() + 1) };
        }
        index += 1;
    }
    // SAFETY: as above.
    unsafe { done.read_volatile() }
}

#[inline(always)]
fn tend_to(what: u32, server: u32, key: &FlowKey, now: u64) -> bool {
    let Some(entry) = FLOWS.get_ptr_mut(key) else { return false };
    let flow = LiveFlow { key, entry };
    // SAFETY: see `LiveFlow::entry`.
    let (direction, of) = unsafe { ((*entry).direction, (*entry).server) };
    if direction != FROM_CLIENT || server != 0 && server != u32::from(of) {
        return false;
    }
    match what {
        CHORE_END => end(&flow, now),
        CHORE_NOTE_UNANSWERED => note_unanswered(&flow, now),
        _ => false,
    }
}

/// Ends a flow that is open, or that may yet be revived; true if it was open.
#[inline(always)]
fn end(flow: &LiveFlow<'_>, now: u64) -> bool {
    // SAFETY: see `LiveFlow::entry`.
    let state = State(unsafe { read(&raw const (*flow.entry).state) });
    let both_fins = state.client().marks & state.server().marks & FIN_SENT != 0;
    // What has closed in order is left to its last packets and to its rest. That the server has as well is not known where
    // only the client is heard.
    if state.is_dead() || !state.is_open() && both_fins && !state.client().is_one_way() {
        return false;
    }
    flows::kill(flow, State::ON_ORDER, now);
    state.is_open()
}

#[inline(always)]
fn note_unanswered(flow: &LiveFlow<'_>, now: u64) -> bool {
    let Some(twin) = flows::twin(flow) else { return false };
    // SAFETY: see `LiveFlow::entry`.
    unsafe {
        let state = State(read(&raw const (*flow.entry).state));
        let is_late = (*twin).packets == 0 && now.saturating_sub((*twin).created) >= UNANSWERED_NS;
        if !is_late || !state.awaits_answer() {
            return false;
        }
        let noted = State(state.0 | State::NOTE_UNANSWERED);
        // An answer that comes at this very moment wins.
        if state == noted || compare_exchange(&raw mut (*flow.entry).state, state.0, noted.0) != state.0 {
            return false;
        }
        loads::unanswered((*flow.entry).server);
        true
    }
}
