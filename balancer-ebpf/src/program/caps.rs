//! Bounds on what a flood can take. A SYN beyond one is the proxy's, which has SYN cookies; an ICMP error is dropped, and so
//! is what would be answered with a reset.

use aya_ebpf::bindings::BPF_ANY;
use balancer_ebpf::abi::{
    Address, FORWARD_DSR, HALF_OPEN_PER_SOURCE, ONE_WAY_PER_SOURCE, Rate, Service, Settings,
};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::window::{self, Window};

use crate::maps::{HALF_OPEN, HALF_OPEN_TOTALS, RATES, SETTINGS, SYN_RATES};

/// The slot of `HALF_OPEN_TOTALS` that counts for everyone.
const ALL_SERVICES: u32 = 0;

/// Counts the SYN; an error if this CPU has looked at enough of them in this second.
#[inline(always)]
pub(crate) fn admit_syn(settings: &Settings, now: u64) -> Result<(), Outcome> {
    let rate = SYN_RATES.get_ptr_mut(0).ok_or(Outcome::NotConfigured)?;
    if admit(rate, settings.syn_rate, now) { Ok(()) } else { Err(Outcome::SynRate) }
}

/// What is counted apart, so that a flood of one kind does not silence another.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Bound {
    /// ICMP errors of others.
    Relayed,
    /// Ours about packets that do not fit.
    TooBig,
    /// Ours about packets without hops left.
    TimeExceeded,
    /// Resets, the stack's and ours.
    Reset,
}

/// Counts one more; false if this CPU has had enough of its kind in this second.
#[inline(always)]
pub(crate) fn admit_one(bound: Bound, now: u64) -> bool {
    let (Some(rate), Some(settings)) = (RATES.get_ptr_mut(bound as u32), SETTINGS.get(0)) else {
        return false;
    };
    let most = if matches!(bound, Bound::Reset) { settings.reset_rate } else { settings.icmp_rate };
    admit(rate, most, now)
}

#[inline(always)]
fn admit(rate: *mut Rate, most: u32, now: u64) -> bool {
    // SAFETY: the element of this CPU, and nothing interrupts the program on it.
    let rate = unsafe { &mut *rate };
    let second = (now / 1_000_000_000) as u32;
    if rate.second != second {
        rate.second = second;
        rate.count = 0;
    }
    if rate.count >= most {
        return false;
    }
    rate.count += 1;
    true
}

/// Whether one more half-open flow is within bounds.
#[inline(always)]
pub(crate) fn check_half_open(
    settings: &Settings,
    service: &Service,
    slot: u32,
    source: &Address,
    now: u64,
) -> Result<(), Outcome> {
    let number = window::number(now);
    let most = if service.forward == FORWARD_DSR { ONE_WAY_PER_SOURCE } else { HALF_OPEN_PER_SOURCE };
    // SAFETY: counters; an element reused by the LRU for another source miscounts by one.
    if unsafe { HALF_OPEN.get(host_of(source)) }.is_some_and(|w| w.count(number) >= u64::from(most)) {
        return Err(Outcome::HalfOpenSource);
    }
    let full =
        |slot: u32, cap: u32| HALF_OPEN_TOTALS.get(slot).is_none_or(|w| w.count(number) >= u64::from(cap));
    if full(ALL_SERVICES, settings.half_open_cap) || full(slot, service.half_open_cap) {
        return Err(Outcome::HalfOpenTotal);
    }
    Ok(())
}

/// What counts as one source: an IPv6 host has all addresses of its /64 (RFC 7934).
#[inline(always)]
fn host_of(source: &Address) -> Address {
    source.masked(32, 64)
}

/// Counts a flow that was opened.
#[inline(always)]
pub(crate) fn opened(slot: u32, source: &Address, now: u64) {
    let source = host_of(source);
    let number = window::number(now);
    // SAFETY: as above.
    match HALF_OPEN.get_ptr_mut(source) {
        Some(window) => unsafe { (*window).add(number) },
        None => {
            // Two CPUs may both begin the count: one is lost.
            let _ = HALF_OPEN.insert(source, Window::started(number), u64::from(BPF_ANY));
        }
    }
    for slot in [ALL_SERVICES, slot] {
        if let Some(window) = HALF_OPEN_TOTALS.get_ptr_mut(slot) {
            // SAFETY: array elements stay where they are.
            unsafe { (*window).add(number) };
        }
    }
}

/// Takes a flow whose handshake is complete off the counts.
#[inline(always)]
pub(crate) fn handshake_done(slot: u16, source: &Address, created: u64) {
    let added = window::number(created);
    // SAFETY: as above.
    if let Some(window) = HALF_OPEN.get_ptr_mut(host_of(source)) {
        unsafe { (*window).remove(added) };
    }
    for slot in [ALL_SERVICES, u32::from(slot)] {
        if let Some(window) = HALF_OPEN_TOTALS.get_ptr_mut(slot) {
            // SAFETY: array elements stay where they are.
            unsafe { (*window).remove(added) };
        }
    }
}
