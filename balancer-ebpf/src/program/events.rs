//! What user space is told: each service through a ring of its own.
//!
//! Who ends a flow has marked it as told, by the very instruction that has ended it; so an end is told once. If the ring
//! does not take it, the mark is taken back, and the collector tells the end when it removes the flow.

use balancer_ebpf::abi::{
    ENDS_A_SECOND, EVENT_END, EVENT_NO_NEIGHBOUR, EventRate, Flow, FlowKey, MISSING_A_SECOND, Traffic,
};
use balancer_ebpf::counter::Note;
use balancer_ebpf::state::State;

use crate::atomic::{fetch_and, read};
use crate::counters::count;
use crate::kernel::clear;
use crate::maps::{EVENT_RATES, EVENTS};

/// Tells the end of a flow that is marked as told. `server` is null if the other direction's entry is gone; `key` is that of
/// the client's direction then. A function of
/// its own: it is called from several places, and seldom.
#[inline(never)]
pub(crate) fn tell_end(key: &FlowKey, client: *mut Flow, server: *mut Flow, now: u64) {
    // SAFETY: entries of the flow map, valid for the length of this run.
    let slot = unsafe { u32::from((*client).service) };
    let Err(note) = try_to_tell(slot, key, client, server, now) else { return };
    // SAFETY: as above.
    unsafe { fetch_and(&raw mut (*client).state, !State::TOLD) };
    count(slot, note as u32);
}

#[inline(always)]
fn try_to_tell(slot: u32, key: &FlowKey, client: *mut Flow, server: *mut Flow, now: u64) -> Result<(), Note> {
    let Some(rate) = rate(slot, now) else { return Err(Note::EventsLimited) };
    if rate.ends >= ENDS_A_SECOND {
        return Err(Note::EventsLimited);
    }
    rate.ends += 1;
    let Some(mut record) = EVENTS.get(slot).and_then(|ring| ring.reserve(0)) else {
        return Err(Note::EventsFull);
    };
    let event = record.as_mut_ptr();
    // SAFETY: as above; the record is ours until it is submitted, and every field is written.
    unsafe {
        let client = &mut *client;
        (&raw mut (*event).what).write(EVENT_END);
        (&raw mut (*event).server).write(client.server);
        (&raw mut (*event).service).write(client.service);
        let told = &mut (*event).client;
        if server.is_null() {
            told.set(key)
        } else {
            told.set_reversed(&(*server).becomes)
        }
        (&raw mut (*event).padding).write(0);
        (&raw mut (*event).state).write(read(&raw const client.state));
        (&raw mut (*event).created).write(client.created);
        (&raw mut (*event).ended).write(now);
        (&raw mut (*event).from_client).write(client.untold());
        client.told = Traffic { packets: client.packets, bytes: client.bytes };
        let mut to_client = Traffic { packets: 0, bytes: 0 };
        if !server.is_null() {
            let server = &mut *server;
            to_client = server.untold();
            server.told = Traffic { packets: server.packets, bytes: server.bytes };
        }
        (&raw mut (*event).to_client).write(to_client);
    }
    record.submit(0);
    Ok(())
}

/// Tells that the neighbour towards a server is missing. It is no loss when this is not told: there is a next packet.
#[inline(never)]
pub(crate) fn tell_no_neighbour(slot: u32, server: u16, now: u64) {
    let Some(rate) = rate(slot, now) else { return };
    if rate.missing >= MISSING_A_SECOND {
        return;
    }
    rate.missing += 1;
    let Some(mut record) = EVENTS.get(slot).and_then(|ring| ring.reserve(0)) else { return };
    let event = record.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, and zeros are a value of every field.
    unsafe {
        clear(event);
        (&raw mut (*event).what).write(EVENT_NO_NEIGHBOUR);
        (&raw mut (*event).server).write(server);
        (&raw mut (*event).service).write(slot as u16);
    }
    record.submit(0);
}

/// What this CPU has told in this second.
#[inline(always)]
fn rate(slot: u32, now: u64) -> Option<&'static mut EventRate> {
    let rate = EVENT_RATES.get_ptr_mut(slot)?;
    // SAFETY: the element of this CPU, and nothing interrupts the program on it.
    let rate = unsafe { &mut *rate };
    let second = (now / 1_000_000_000) as u32;
    if rate.second != second {
        *rate = EventRate { second, ends: 0, missing: 0, padding: 0 };
    }
    Some(rate)
}
