//! What each server carries, kept so exactly that it can be a limit.

use balancer_ebpf::abi::{FROM_CLIENT, Flow, Load};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::state::State;

use crate::atomic::{fetch_add, read};
use crate::maps::LOADS;

/// Counts a flow that is about to be opened, if its server may have one more; [`close`] takes it back.
#[inline(always)]
pub(crate) fn admit(server: u16) -> Result<(), Outcome> {
    let Some(load) = of(server) else { return Err(Outcome::UnknownServer) };
    // SAFETY: array elements stay where they are.
    unsafe {
        // Counted first and looked at then: of two that come at once only one can be below. And whoever writes a new
        // limit and reads the count after that has counted all that were admitted under the old one.
        let others = fetch_add(&raw mut (*load).connections, 1);
        if !Load::admits(others, read(&raw const (*load).below)) {
            fetch_add(&raw mut (*load).connections, u64::MAX);
            return Err(Outcome::ServerFull);
        }
        fetch_add(&raw mut (*load).opened, 1);
    }
    Ok(())
}

/// A flow that was counted is over.
#[inline(always)]
pub(crate) fn close(server: u16) {
    if let Some(load) = of(server) {
        // SAFETY: as above.
        unsafe { fetch_add(&raw mut (*load).connections, u64::MAX) };
    }
}

/// A flow's state has changed, by us.
#[inline(always)]
pub(crate) fn changed(server: u16, before: State, after: State) {
    let revived = !before.is_open() && after.is_open();
    let closed = before.is_open() && !after.is_open();
    let refused = !before.is_refused() && after.is_refused();
    let unanswered = !before.is_noted_unanswered() && after.is_noted_unanswered();
    if !(revived || closed || refused || unanswered) {
        return;
    }
    let Some(load) = of(server) else { return };
    // SAFETY: as above.
    unsafe {
        if revived {
            fetch_add(&raw mut (*load).connections, 1);
            fetch_add(&raw mut (*load).opened, 1);
        }
        if closed {
            fetch_add(&raw mut (*load).connections, u64::MAX);
        }
        if refused {
            fetch_add(&raw mut (*load).refused, 1);
        }
        if unanswered {
            fetch_add(&raw mut (*load).unanswered, 1);
        }
    }
}

/// An entry is over: what it has carried is added up.
#[inline(always)]
pub(crate) fn carried(flow: &Flow) {
    let Some(load) = of(flow.server) else { return };
    // SAFETY: as above.
    unsafe {
        let traffic = if flow.direction == FROM_CLIENT {
            &raw mut (*load).from_clients
        } else {
            &raw mut (*load).to_clients
        };
        fetch_add(&raw mut (*traffic).packets, flow.packets);
        fetch_add(&raw mut (*traffic).bytes, flow.bytes);
    }
}

/// A flow has not been answered for 3 s.
#[inline(always)]
pub(crate) fn unanswered(server: u16) {
    if let Some(load) = of(server) {
        // SAFETY: as above.
        unsafe { fetch_add(&raw mut (*load).unanswered, 1) };
    }
}

#[inline(always)]
fn of(server: u16) -> Option<*mut Load> {
    LOADS.get_ptr_mut(u32::from(server))
}
