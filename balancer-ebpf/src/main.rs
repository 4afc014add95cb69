//! The XDP program: a thin shell that counts each outcome and tells the kernel its verdict.
//!
//! | module | what it does |
//! |---|---|
//! | [`ingress`] | the life of a packet: flow → forward, SYN → open, else pass |
//! | [`open`] | whether a SYN may be fast, and the flow it opens |
//! | [`forward`] | rewrite and send |
//! | [`icmp`] | errors about packets of flows |
//! | [`direct`] | flows whose servers answer directly |
//! | [`reset`] | ending a server's end of a flow that is over |
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
#[path = "program/direct.rs"]
mod direct;
#[path = "program/events.rs"]
mod events;
#[path = "program/flows.rs"]
mod flows;
#[path = "program/forward.rs"]
mod forward;
#[path = "program/icmp.rs"]
mod icmp;
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
#[path = "program/reset.rs"]
mod reset;
#[path = "program/tend.rs"]
mod tend;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::counter::{Outcome, Verdict};

/// The slot that packets count for which belong to no service.
const NOBODY: u32 = 0;

/// Several programs in one, of which each has a stack of its own: what is rare takes nothing from the others, and the verifier
/// looks at it once.
#[xdp]
#[inline(always)]
pub(crate) fn balancer(ctx: XdpContext) -> u32 {
    let mut action = forward_or_pass(ctx.ctx);
    if action == DIRECT {
        action = go_on(ctx.ctx);
    }
    match action {
        RELAY => relay(ctx.ctx),
        ANSWER_SIZE => answer(ctx.ctx, false),
        ANSWER_HOPS => answer(ctx.ctx, true),
        REFUSE => refuse(ctx.ctx),
        action => action,
    }
}

/// No actions of the kernel's.
const RELAY: u32 = 0x100;
const ANSWER_SIZE: u32 = 0x101;
const ANSWER_HOPS: u32 = 0x102;
const REFUSE: u32 = 0x103;
const DIRECT: u32 = 0x104;

#[inline(never)]
fn forward_or_pass(ctx: *mut xdp_md) -> u32 {
    let mut slot = NOBODY;
    match ingress::handle(&XdpContext::new(ctx), &mut slot) {
        Outcome::DropGone => DIRECT,
        outcome => rest(slot, outcome),
    }
}

#[inline(never)]
fn go_on(ctx: *mut xdp_md) -> u32 {
    let mut slot = NOBODY;
    let outcome = direct::go_on(&XdpContext::new(ctx), &mut slot);
    rest(slot, outcome)
}

/// What is left to do.
#[inline(always)]
fn rest(slot: u32, outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Icmp => RELAY,
        Outcome::DropMtu => ANSWER_SIZE,
        Outcome::DropTtl => ANSWER_HOPS,
        Outcome::DropOver => REFUSE,
        outcome => finish(slot, outcome),
    }
}

#[inline(never)]
fn relay(ctx: *mut xdp_md) -> u32 {
    let mut slot = NOBODY;
    let outcome = icmp::relay(&XdpContext::new(ctx), &mut slot);
    finish(slot, outcome)
}

#[inline(never)]
fn answer(ctx: *mut xdp_md, for_its_hops: bool) -> u32 {
    let mut slot = NOBODY;
    let refused = if for_its_hops { Outcome::DropTtl } else { Outcome::DropMtu };
    let outcome = icmp::answer(&XdpContext::new(ctx), refused, &mut slot);
    finish(slot, outcome)
}

#[inline(never)]
fn refuse(ctx: *mut xdp_md) -> u32 {
    let mut slot = NOBODY;
    let outcome = reset::refuse(&XdpContext::new(ctx), &mut slot);
    finish(slot, outcome)
}

#[inline(always)]
fn finish(slot: u32, outcome: Outcome) -> u32 {
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
