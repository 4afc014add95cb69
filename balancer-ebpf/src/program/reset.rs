//! What is answered with a reset of ours: packets of servers that see their clients, once the flow is over. Routed on, they
//! would reach the client from an address that it has never talked to; dropped, the server would repeat them for minutes.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_REDIRECT};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::Packet;
use balancer_ebpf::reset;

use crate::caps::{self, Bound};
use crate::ingress::frame;
use crate::kernel;
use crate::maps::{FLOWS, INTERFACES};

/// Answers the packet as the client would; what is not answered is dropped.
#[inline(always)]
pub(crate) fn refuse(ctx: &XdpContext, slot: &mut u32) -> Outcome {
    try_refuse(ctx, slot).unwrap_or(Outcome::DropOver)
}

#[inline(always)]
fn try_refuse(ctx: &XdpContext, slot: &mut u32) -> Option<Outcome> {
    let packet = Packet::parse(frame(ctx)).ok()?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    *slot = unsafe { u32::from((*FLOWS.get_ptr_mut(packet.key)?).service) };
    // Back the way it came: whoever has sent us the frame knows the way to the server.
    if !reset::is_due(&packet)
        || !caps::admit_one(Bound::Reset, kernel::coarse_ns())
        || INTERFACES.redirect(ctx.ingress_ifindex() as u32, u64::from(XDP_DROP)) != Ok(XDP_REDIRECT)
    {
        return None;
    }
    let kept = reset::length(&packet) as i32;
    let length = frame(ctx).length() as i32;
    // SAFETY: what pointed into the packet is not used after this.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, kept - length) } != 0 {
        return None;
    }
    reset::write(frame(ctx), &packet).then_some(Outcome::ResetServer)
}
