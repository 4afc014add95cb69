//! Rewriting a packet of a flow and sending it on.
//!
//! Always by redirect, also out of the interface it came in by: `XDP_TX` is silently lost on veth unless the peer has
//! a program of its own.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_REDIRECT};
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FROM_CLIENT, Flow, ROUTE_NS};
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::{Ethernet, Headers, Packet};
use balancer_ebpf::phase::ONE_WAY;

use crate::events;
use crate::ingress;
use crate::kernel::{self, NoRoute, Route};
use crate::maps::INTERFACES;

/// Sends a packet on with its flow's rewrite. What cannot be sent now is dropped: TCP repeats it. What cannot be sent at
/// all for its size or its hops is answered, see [`crate::icmp`].
#[inline(always)]
pub(crate) fn forward(
    ctx: &XdpContext,
    packet: &Packet,
    flow: *mut Flow,
    now: u64,
) -> Result<Outcome, Outcome> {
    // SAFETY: an entry of the flow map, valid for the length of this run.
    let flow = unsafe { &mut *flow };
    if packet.hops <= 1 {
        return Err(Outcome::DropTtl);
    }
    if now < flow.route_until && packet.total_length <= flow.route_mtu {
        let route = Route { ifindex: flow.route_ifindex, macs: flow.route_macs, mtu: flow.route_mtu };
        send(ctx, packet, flow, &route)?;
        return Ok(sent(flow));
    }
    let headers = Headers::of(ingress::frame(ctx)).ok_or(Outcome::DropNoRoute)?;
    let route = way(ctx, flow, headers.class(), packet.total_length, now)?;
    send(ctx, packet, flow, &route)?;
    Ok(sent(flow))
}

/// The way of a flow's direction for a packet of that class and length, which is the flow's for a while.
#[inline(always)]
pub(crate) fn way(
    ctx: &XdpContext,
    flow: &mut Flow,
    class: u32,
    length: u16,
    now: u64,
) -> Result<Route, Outcome> {
    let ingress = ctx.ingress_ifindex() as u32;
    match kernel::route(ctx, ingress, &flow.becomes, class, length, &mut flow.detour) {
        // A router would send it back here, as the address is ours.
        Ok(_) if is_lost(flow) => Err(Outcome::DropNoRoute),
        Ok(route) => {
            flow.route_ifindex = route.ifindex;
            flow.route_macs = route.macs;
            flow.route_mtu = route.mtu;
            flow.route_until = now + ROUTE_NS;
            Ok(route)
        }
        Err(NoRoute::NoNeighbour) if flow.direction != FROM_CLIENT => Ok(way_back(flow)),
        Err(NoRoute::NoNeighbour) => {
            events::tell_no_neighbour(u32::from(flow.service), flow.server, now);
            Err(Outcome::DropNoNeighbour)
        }
        Err(NoRoute::TooBig(_)) => Err(Outcome::DropMtu),
        Err(NoRoute::ForwardingOff | NoRoute::Unreachable) => Err(Outcome::DropNoRoute),
    }
}

/// Whether the way of a flow that is one way is by a router. One question, and not two, of which each would be two ways for
/// the verifier.
#[inline(always)]
fn is_lost(flow: &Flow) -> bool {
    // SAFETY: a byte of a map's value.
    let detour = unsafe { (&raw const flow.detour).read_volatile() };
    u64::from(flow.side.marks & ONE_WAY) * u64::from(detour) != 0
}

#[inline(always)]
fn sent(flow: &Flow) -> Outcome {
    if flow.direction == FROM_CLIENT { Outcome::ToServer } else { Outcome::ToClient }
}

/// Rewrites the packet and redirects it; counts it in its flow.
#[inline(always)]
pub(crate) fn send(ctx: &XdpContext, packet: &Packet, flow: &mut Flow, route: &Route) -> Result<(), Outcome> {
    if INTERFACES.redirect(route.ifindex, u64::from(XDP_DROP)) != Ok(XDP_REDIRECT) {
        return Err(Outcome::DropEgress);
    }
    flow.packets += 1;
    flow.bytes += u64::from(packet.payload);
    let headers = Headers::of(ingress::frame(ctx)).ok_or(Outcome::DropNoRoute)?;
    // SAFETY: `of` has checked the header.
    address(unsafe { &mut *headers.ethernet }, route);
    headers.rewrite(flow);
    Ok(())
}

/// To the neighbour, from our interface.
#[inline(always)]
pub(crate) fn address(ethernet: &mut Ethernet, route: &Route) {
    ethernet.destination.copy_from_slice(&route.macs[..6]);
    ethernet.source.copy_from_slice(&route.macs[6..]);
}

/// The way the client's SYN came.
#[inline(always)]
fn way_back(flow: &Flow) -> Route {
    Route { ifindex: flow.client_ifindex, macs: flow.client_macs, mtu: 0 }
}
