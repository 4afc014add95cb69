//! The XDP program: a thin shell that counts each outcome and tells the kernel its verdict.
//!
//! | module | what it does |
//! |---|---|
//! | [`ingress`] | the life of a packet: flow → forward, SYN → open, else pass |
//! | [`open`] | whether a SYN may be fast, and the flow it opens |
//! | [`forward`] | rewrite and send |
//! | [`flows`] | finding, killing, advancing flows |
//! | [`loads`] | what each server carries, and its limit |
//! | [`tend`] | what user space has done to flows: ending them, looking at those without an answer |
//! | [`caps`] | bounds on SYNs and half-open flows |
//! | [`kernel`] | the helpers: routes, sockets, clocks |
//! | [`events`] | what user space is told |
//! | [`counters`] | outcomes of packets, by service |
//! | [`atomic`] | words that several CPUs change |
//! | [`maps`] | the maps |
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    unsafe_code,
    missing_docs,
    reason = "BPF helpers and maps; the logic worth reading is in the library"
)]

#[path = "program/atomic.rs"]
mod atomic;
#[path = "program/caps.rs"]
mod caps;
#[path = "program/counters.rs"]
mod counters;
#[path = "program/events.rs"]
mod events;
#[path = "program/flows.rs"]
mod flows;
#[path = "program/forward.rs"]
mod forward;
#[path = "program/ingress.rs"]
mod ingress;
#[path = "program/kernel.rs"]
mod kernel;
#[path = "program/loads.rs"]
mod loads;
#[path = "program/maps.rs"]
mod maps;
#[path = "program/open.rs"]
mod open;
#[path = "program/tend.rs"]
mod tend;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::counter::Verdict;

/// The slot that packets count for which belong to no service.
const NOBODY: u32 = 0;

#[xdp]
pub(crate) fn balancer(ctx: XdpContext) -> u32 {
    let mut slot = NOBODY;
    let outcome = ingress::handle(&ctx, &mut slot);
    counters::count(slot, outcome as u32);
    match outcome.verdict() {
        Verdict::Pass => XDP_PASS,
        Verdict::Drop => XDP_DROP,
        Verdict::Redirect => XDP_REDIRECT,
    }
}

/// Never attached: user space runs it.
#[xdp]
pub(crate) fn tend(ctx: XdpContext) -> u32 {
    tend::tend(&ctx)
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
