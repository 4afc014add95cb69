//! The life of a packet.

use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FROM_CLIENT, port_bit};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::{Frame, Headers, Oddity, Packet};
use balancer_ebpf::phase::flag;
use balancer_ebpf::state::State;

use crate::flows::{self, LiveFlow};
use crate::maps::{PORTS, SERVICES};
use crate::{forward, kernel, open};

const HANDSHAKE_FLAGS: u8 = flag::SYN | flag::ACK | flag::FIN | flag::RST;

/// What becomes of the packet, and the slot of the service that it concerns, as soon as that is known. A packet is
/// forwarded only with its own flow; only a SYN can open one.
#[inline(always)]
pub(crate) fn handle(ctx: &XdpContext, slot: &mut u32) -> Outcome {
    let mut has_syn = false;
    let (Ok(outcome) | Err(outcome)) = decide(ctx, slot, &mut has_syn);
    // Here, where all ways meet: the walk over options is long for the verifier. What else is redirected are answers of
    // our own.
    if has_syn && matches!(outcome, Outcome::SynForwarded | Outcome::ToServer | Outcome::ToClient) {
        clamp_mss(ctx, *slot);
    }
    outcome
}

/// Lets a SYN or SYN-ACK that is forwarded say no larger segments than its service wants.
#[inline(always)]
fn clamp_mss(ctx: &XdpContext, slot: u32) {
    if let Some(service) = SERVICES.get(slot)
        && service.mss != 0
        && let Some(headers) = Headers::of(frame(ctx))
    {
        headers.clamp_mss(service.mss);
    }
}

#[inline(always)]
fn decide(ctx: &XdpContext, slot: &mut u32, has_syn: &mut bool) -> Result<Outcome, Outcome> {
    let packet = Packet::parse(frame(ctx))?;
    *has_syn = packet.flags & flag::SYN != 0;
    let is_known_port = is_known(packet.key.destination_port);
    let now = if is_known_port { kernel::coarse_ns() } else { 0 };
    let found = if is_known_port { flows::find(&packet.key) } else { None };
    let live = found.filter(|flow| flows::is_live(flow, now));
    if let Some(flow) = &found {
        // SAFETY: a pointer into the flow map, valid for the length of this run.
        *slot = unsafe { u32::from((*flow.entry).service) };
    }
    if let Some(oddity) = packet.oddity {
        return Err(odd(oddity, live.is_some()));
    }
    let is_syn = packet.flags & HANDSHAKE_FLAGS == flag::SYN;
    if let Some(flow) = live {
        if !is_syn || !flows::is_replaced_by(ctx, &flow, now) {
            if !flows::is_for_both(&flow, packet.flags) {
                return Err(Outcome::DropGone);
            }
            return continue_flow(ctx, &packet, flow, now);
        }
    }
    if !is_syn {
        return Err(found.map_or(Outcome::NoFlow, |flow| flows::after_its_end(&flow, now)));
    }
    if !is_known_port {
        return Err(Outcome::NotService);
    }
    open::open(ctx, &packet, slot, now)
}

/// Whether fast packets may go to this port at all: much cheaper to find out than whether this one is one.
#[inline(always)]
fn is_known(port: [u8; 2]) -> bool {
    let (word, bit) = port_bit(u16::from_be_bytes(port));
    PORTS.get(word).is_none_or(|word| word & bit != 0)
}

/// A packet of a live flow: forwarded, or dropped; never passed, for the stack would answer with a reset.
#[inline(always)]
pub(crate) fn continue_flow(
    ctx: &XdpContext,
    packet: &Packet,
    flow: LiveFlow<'_>,
    now: u64,
) -> Result<Outcome, Outcome> {
    // SAFETY: a pointer into the flow map, valid for the length of this run.
    let (direction, server) = unsafe { ((*flow.entry).direction, (*flow.entry).server) };
    let is_syn_ack = packet.flags & (flag::SYN | flag::ACK) == flag::SYN | flag::ACK;
    if direction != FROM_CLIENT && is_syn_ack && is_unfinished(ctx, packet) {
        kernel::mark_not_fast(server);
        flows::kill(&flow, State::UNFINISHED, now);
        return Err(Outcome::UnfinishedSynAck);
    }
    let has_ended = flows::advance(ctx, &flow, packet.flags, direction == FROM_CLIENT, now);
    let outcome = forward::forward(ctx, packet, flow.entry, now);
    if has_ended {
        // Only now, so that this packet is counted.
        flows::tell_end(&flow, now);
    }
    outcome
}

/// Whether a SYN or SYN-ACK carries a checksum that was left for a network card to finish.
#[inline(always)]
pub(crate) fn is_unfinished(ctx: &XdpContext, packet: &Packet) -> bool {
    Headers::of(frame(ctx)).is_none_or(|headers| headers.is_unfinished(packet))
}

/// The packet's memory, asked for anew: a pointer that was checked before would be another one to the verifier than one
/// that was not, and what follows would be two ways for it.
#[inline(always)]
pub(crate) fn frame(ctx: &XdpContext) -> Frame {
    // SAFETY: the context is there for as long as the program runs, and the kernel gives the program exactly this range.
    unsafe {
        let data = (&raw const (*ctx.ctx).data).read_volatile();
        let end = (&raw const (*ctx.ctx).data_end).read_volatile();
        Frame::new(data as usize, end as usize)
    }
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
