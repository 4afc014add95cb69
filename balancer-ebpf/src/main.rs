//! The XDP program: a thin shell that counts each outcome and tells the kernel its verdict.
//!
//! | module | what it does |
//! |---|---|
//! | [`ingress`] | the life of a packet: flow → forward, SYN → open, else pass |
//! | [`open`] | whether a SYN may be fast, and the flow it opens |
//! | [`forward`] | rewrite and send |
//! | [`flows`] | finding, killing, advancing flows |
//! | [`caps`] | bounds on SYNs and half-open flows |
//! | [`kernel`] | the helpers: routes, sockets, clocks |
//! | [`maps`] | the maps |
#![no_std]
#![no_main]
#![allow(
    unsafe_code,
    missing_docs,
    reason = "BPF helpers and maps; the logic worth reading is in the library"
)]

#[path = "program/caps.rs"]
mod caps;
#[path = "program/flows.rs"]
mod flows;
#[path = "program/forward.rs"]
mod forward;
#[path = "program/ingress.rs"]
mod ingress;
#[path = "program/kernel.rs"]
mod kernel;
#[path = "program/maps.rs"]
mod maps;
#[path = "program/open.rs"]
mod open;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::counter::{Outcome, Verdict};

#[xdp]
pub(crate) fn balancer(ctx: XdpContext) -> u32 {
    let outcome = ingress::handle(&ctx);
    count(outcome);
    match outcome.verdict() {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
        Verdict::Redirect => XDP_REDIRECT,
    }
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element of this CPU, and nothing interrupts the program on it.
        unsafe { *counter += 1 };
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the verifier would refuse a program in which this loop can be reached.
    loop {}
}

// The helpers we use are open to programs under a GPL-compatible licence only; this one is dual.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
