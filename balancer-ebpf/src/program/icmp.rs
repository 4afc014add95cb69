//! ICMP errors about packets of flows: relayed to the other side, and our own in answer to packets that cannot be sent on.
//!
//! None of them counts as use of a flow, or ends one: anybody can write them. An error about anything else is the stack's,
//! which has the proxy's connections; it answers none, so passing one does no harm.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_REDIRECT};
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FROM_CLIENT, Flow};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::icmp::{self, Error, Layout, Report};
use balancer_ebpf::packet::{Ethernet, Headers, Packet};

use crate::caps::{self, Bound};
use crate::ingress::frame;
use crate::kernel::{self, NoRoute};
use crate::maps::{FLOWS, INTERFACES};
use crate::{flows, forward};

/// Sends an error on, to the end of the flow that has sent the packet which it is about.
#[inline(always)]
pub(crate) fn relay(ctx: &XdpContext, slot: &mut u32) -> Outcome {
    match try_relay(ctx, slot) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

#[inline(always)]
fn try_relay(ctx: &XdpContext, slot: &mut u32) -> Result<Outcome, Outcome> {
    let error = Error::parse(frame(ctx)).ok_or(Outcome::Icmp)?;
    let now = kernel::coarse_ns();
    let live = flows::find_live(&error.key, now).ok_or(Outcome::Icmp)?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    let flow = unsafe { &mut *live.entry };
    *slot = u32::from(flow.service);
    if error.hops <= 1 || !caps::admit_one(Bound::Relayed, now) {
        return Err(Outcome::DropIcmp);
    }
    let route =
        forward::way(ctx, flow, error.class, error.total_length, now).map_err(|_| Outcome::DropIcmp)?;
    if INTERFACES.redirect(route.ifindex, u64::from(XDP_DROP)) != Ok(XDP_REDIRECT) {
        return Err(Outcome::DropIcmp);
    }
    let ethernet = frame(ctx).ethernet().ok_or(Outcome::DropIcmp)?;
    // SAFETY: just found.
    forward::address(unsafe { &mut *ethernet }, &route);
    error.rewrite(frame(ctx), flow).ok_or(Outcome::DropIcmp)?;
    Ok(if flow.direction == FROM_CLIENT { Outcome::IcmpToServer } else { Outcome::IcmpToClient })
}

/// Answers a packet of a flow that was `refused` for its size or its hops, where that is allowed; if not, it stays dropped.
#[inline(always)]
pub(crate) fn answer(ctx: &XdpContext, refused: Outcome, slot: &mut u32) -> Outcome {
    try_answer(ctx, refused, slot).unwrap_or(refused)
}

/// The packet is parsed, and the route asked for, once more: that keeps what is rare out of everybody else's way.
#[inline(always)]
fn try_answer(ctx: &XdpContext, refused: Outcome, slot: &mut u32) -> Option<Outcome> {
    let packet = Packet::parse(frame(ctx)).ok()?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    let flow = unsafe { &*FLOWS.get_ptr_mut(packet.key)? };
    *slot = u32::from(flow.service);
    let (report, outcome, bound) = if refused == Outcome::DropTtl {
        (Report::TimeExceeded, Outcome::IcmpTimeExceeded, Bound::TimeExceeded)
    } else {
        (Report::TooBig(mtu(ctx, &packet, flow)?), Outcome::IcmpTooBig, Bound::TooBig)
    };
    // Back the way it came: whoever has sent us the frame knows the way to the packet's sender.
    if !caps::admit_one(bound, kernel::coarse_ns())
        || INTERFACES.redirect(ctx.ingress_ifindex() as u32, u64::from(XDP_DROP)) != Ok(XDP_REDIRECT)
    {
        return None;
    }
    let layout = Layout::around(&packet);
    make_room(ctx, layout)?;
    icmp::report(frame(ctx), report, layout).then_some(outcome)
}

/// The MTU that a packet exceeds, if routers may not cut it up.
#[inline(always)]
fn mtu(ctx: &XdpContext, packet: &Packet, flow: &Flow) -> Option<u16> {
    let headers = Headers::of(frame(ctx))?;
    if !headers.is_never_cut() {
        return None;
    }
    let (ifindex, class) = (ctx.ingress_ifindex() as u32, headers.class());
    match kernel::route(ctx, ifindex, &flow.becomes, class, packet.total_length, &mut 0) {
        Err(NoRoute::TooBig(mtu)) => Some(mtu),
        _ => None,
    }
}

/// Cuts the frame to its Ethernet header and so much of the packet, and makes room for a report in front.
#[inline(always)]
fn make_room(ctx: &XdpContext, layout: Layout) -> Option<()> {
    let length = frame(ctx).length();
    let kept = (size_of::<Ethernet>() + layout.quoted) as i32;
    // SAFETY: what pointed into the packet is not used after this.
    let done = unsafe {
        bpf_xdp_adjust_tail(ctx.ctx, kept - length as i32) == 0
            && bpf_xdp_adjust_head(ctx.ctx, -(layout.head as i32)) == 0
    };
    done.then_some(())
}
