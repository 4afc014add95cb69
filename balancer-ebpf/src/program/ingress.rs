//! The life of a packet.

use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FROM_CLIENT, FlowKey};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::{Frame, Oddity, Packet};
use balancer_ebpf::phase::flag;

use crate::flows::{self, LiveFlow};
use crate::{forward, kernel, open};

const HANDSHAKE_FLAGS: u8 = flag::SYN | flag::ACK | flag::FIN | flag::RST;

/// What becomes of the packet. A packet is forwarded only with its own flow; only a SYN can open one.
#[inline(always)]
pub(crate) fn handle(ctx: &XdpContext) -> Outcome {
    match decide(ctx) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

#[inline(always)]
fn decide(ctx: &XdpContext) -> Result<Outcome, Outcome> {
    // SAFETY: the kernel gives the program exactly this range.
    let packet = Packet::parse(unsafe { Frame::new(ctx.data(), ctx.data_end()) })?;
    let key = packet.key();
    let now = kernel::coarse_ns();
    let live = flows::find_live(&key, now);
    if let Some(oddity) = packet.oddity {
        return Err(odd(oddity, live.is_some()));
    }
    let flags = packet.flags();
    let is_syn = flags & HANDSHAKE_FLAGS == flag::SYN;
    if let Some(flow) = live {
        if !is_syn || !flows::is_replaced_by(&flow, &packet, now) {
            return continue_flow(ctx, &packet, &key, flow, now);
        }
    }
    if !is_syn {
        return Err(Outcome::NoFlow);
    }
    open::open(ctx, &packet, &key, now)
}

/// A packet of a live flow: forwarded, or dropped; never passed, for the stack would answer with a reset.
#[inline(always)]
pub(crate) fn continue_flow(
    ctx: &XdpContext,
    packet: &Packet,
    key: &FlowKey,
    flow: LiveFlow,
    now: u64,
) -> Result<Outcome, Outcome> {
    let flags = packet.flags();
    // SAFETY: a pointer into the flow map, valid for the length of this run.
    let (direction, server) = unsafe { ((*flow.entry).direction, (*flow.entry).server) };
    let is_syn_ack = flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
    if direction != FROM_CLIENT && is_syn_ack && packet.is_unfinished(key) {
        kernel::mark_not_fast(server);
        flows::kill(&flow, now);
        return Err(Outcome::UnfinishedSynAck);
    }
    flows::advance(&flow, packet, direction == FROM_CLIENT, now);
    forward::forward(ctx, packet, flow.entry, now)
}

#[inline(always)]
fn odd(oddity: Oddity, of_a_flow: bool) -> Outcome {
    match (oddity, of_a_flow) {
        (Oddity::Options, true) => Outcome::DropOptions,
        (Oddity::Options, false) => Outcome::IpOptions,
        (Oddity::FirstFragment, true) => Outcome::DropFragment,
        (Oddity::FirstFragment, false) => Outcome::Fragment,
    }
}
