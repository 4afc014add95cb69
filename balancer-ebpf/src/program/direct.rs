//! Packets that change a flow whose server answers directly: few, as nearly all change nothing. The flow is looked up once
//! more for them, so that what is seldom does not multiply the ways that the verifier follows.

use aya_ebpf::programs::XdpContext;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::Packet;

use crate::ingress::frame;
use crate::{flows, forward, kernel};

/// Moves the flow along and sends the packet on.
#[inline(always)]
pub(crate) fn go_on(ctx: &XdpContext, slot: &mut u32) -> Outcome {
    let (Ok(outcome) | Err(outcome)) = try_to_go_on(ctx, slot);
    outcome
}

#[inline(always)]
fn try_to_go_on(ctx: &XdpContext, slot: &mut u32) -> Result<Outcome, Outcome> {
    let packet = Packet::parse(frame(ctx))?;
    let now = kernel::coarse_ns();
    let flow = flows::find_live(&packet.key, now).ok_or(Outcome::DropGone)?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    *slot = unsafe { u32::from((*flow.entry).service) };
    let has_ended = flows::advance_one_way(&flow, packet.flags, now);
    let outcome = forward::forward(ctx, &packet, flow.entry, now);
    if has_ended {
        // Only now, so that this packet is counted.
        flows::tell_end(&flow, now);
    }
    outcome
}
