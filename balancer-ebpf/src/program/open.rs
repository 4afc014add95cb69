//! Whether a SYN may be fast, and the flow it opens.
//!
//! The proxy is always right, so every doubt about a SYN is a pass. Nothing is rewritten, and nothing is written to
//! the flow table, before everything needed to carry the whole connection is known.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{
    DENIED_SLOT_BITS, FAST_PATH_EXCLUSIVE, FAST_PATH_OFF, FROM_CLIENT, FROM_SERVER, Flow, FlowKey, ListenKey,
    SERVER_DOWN, SERVER_DRAIN, SERVER_MAINT, SERVER_UP, Server, ServerMeta, Service, Settings, denied_key,
};
use balancer_ebpf::affinity::Affinity;
use balancer_ebpf::checksum;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::Packet;
use balancer_ebpf::phase::Side;
use balancer_ebpf::siphash::siphash13;
use balancer_ebpf::state::State;

use crate::kernel::{self, NoRoute, Route};
use crate::maps::{
    DENIED, FLOWS, INTERFACES, LISTENS, NEW_FLOW, NOT_FAST, SERVERS, SERVICES, SETTINGS, SOURCES,
};
use crate::{caps, flows, forward, loads};

/// Ports that are tried for one SYN before it goes to the proxy.
const PORT_ATTEMPTS: u32 = 16;
const EEXIST: i32 = -17;

/// What is known about a SYN before a flow is made of it.
struct Plan {
    slot: u32,
    affinity: Affinity,
    server: Server,
    /// Keyed hash of tuple and sequence number: the same for a repeated SYN.
    hash: u64,
    to_server: Route,
}

/// A SYN without a live flow: fast, or the stack's. In either case what the table had of its tuple is over.
#[inline(always)]
pub(crate) fn open(ctx: &XdpContext, packet: &Packet, key: &FlowKey, now: u64) -> Result<Outcome, Outcome> {
    let old = flows::leave_to_the_stack(key, now)?;
    let slot = service_of(key)?;
    let settings = SETTINGS.get(0).ok_or(Outcome::NotConfigured)?;
    let service = SERVICES.get(slot).ok_or(Outcome::NotConfigured)?;
    let plan = consider(ctx, packet, key, settings, service, slot, now)?;
    establish(ctx, packet, key, service, &plan, old, now)
}

/// The slot of the service that listens where the packet goes.
#[inline(always)]
fn service_of(key: &FlowKey) -> Result<u32, Outcome> {
    let listen = ListenKey { address: key.destination, port: key.destination_port, padding: [0; 2] };
    // SAFETY: copied at once, and read twice, for an element may be reused for another key meanwhile.
    let (first, second) = unsafe { (LISTENS.get(listen).copied(), LISTENS.get(listen).copied()) };
    match first {
        Some(slot) if second == first => Ok(slot),
        _ => Err(Outcome::NotService),
    }
}

#[inline(always)]
fn consider(
    ctx: &XdpContext,
    packet: &Packet,
    key: &FlowKey,
    settings: &Settings,
    service: &Service,
    slot: u32,
    now: u64,
) -> Result<Plan, Outcome> {
    if service.fast_path == FAST_PATH_OFF {
        return Err(Outcome::FastPathOff);
    }
    let boot = kernel::boot_ns();
    if boot.saturating_sub(service.heartbeat) > service.hold {
        return Err(Outcome::HeartbeatStale);
    }
    caps::admit_syn(settings, now)?;
    if service.denies != 0 && is_denied(slot, key.source) {
        return Err(Outcome::Denied);
    }
    let affinity = affinity_of(slot, key.source, (boot / 1_000_000_000) as u32)?;
    let server = usable_server(affinity, boot)?;
    let hash = hash(settings, key, packet);
    if service.fast_path == FAST_PATH_EXCLUSIVE && hash % u64::from(service.verify_share.max(1)) == 0 {
        return Err(Outcome::Sampled);
    }
    // SAFETY: `parse` has checked the header.
    let ip = unsafe { &*packet.ip };
    if ip.ttl <= 1 {
        return Err(Outcome::TtlExpired);
    }
    if packet.is_unfinished(key) {
        return Err(Outcome::UnfinishedSyn);
    }
    caps::check_half_open(settings, service, slot, key.source, now)?;
    if kernel::socket_exists(ctx, key) {
        return Err(Outcome::SocketExists);
    }
    let to_server = both_ways(ctx, key, &server, ip.tos)?;
    Ok(Plan { slot, affinity, server, hash, to_server })
}

#[inline(always)]
fn is_denied(slot: u32, source: [u8; 4]) -> bool {
    DENIED.get(&Key::new(DENIED_SLOT_BITS + 32, denied_key(slot, source))).is_some()
}

/// The source's entry, if it counts here.
#[inline(always)]
fn affinity_of(slot: u32, source: [u8; 4], now: u32) -> Result<Affinity, Outcome> {
    let [a, b, c, d] = source;
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    let first = read_source(slot, &mapped).ok_or(Outcome::NoAffinity)?;
    if read_source(slot, &mapped) != Some(first) {
        return Err(Outcome::AffinityChanged);
    }
    let affinity = Affinity(first);
    if !affinity.is_live(now) {
        return Err(Outcome::AffinityExpired);
    }
    if affinity.is_tentative() {
        return Err(Outcome::AffinityTentative);
    }
    if affinity.is_ambiguous() {
        return Err(Outcome::Ambiguous);
    }
    Ok(affinity)
}

#[inline(always)]
fn read_source(slot: u32, key: &[u8; 16]) -> Option<u64> {
    // SAFETY: one aligned word, copied at once; the caller reads twice.
    SOURCES.get_value_ptr_mut(slot, key).map(|entry| unsafe { entry.read_volatile() })
}

/// The server that the entry names, if new connections may go there.
#[inline(always)]
fn usable_server(affinity: Affinity, boot: u64) -> Result<Server, Outcome> {
    let id = u32::from(affinity.server());
    let entry = SERVERS.get_ptr_mut(id).ok_or(Outcome::UnknownServer)?;
    // SAFETY: array elements stay where they are. User space writes them word by word, `meta` first and last.
    let server = unsafe { entry.read_volatile() };
    let meta = ServerMeta::unpack(server.meta);
    match meta.state {
        SERVER_UP => {}
        SERVER_DRAIN => return Err(Outcome::ServerDrain),
        SERVER_DOWN => return Err(Outcome::ServerDown),
        SERVER_MAINT => return Err(Outcome::ServerMaint),
        _ => return Err(Outcome::UnknownServer),
    }
    if meta.generation != affinity.generation() || server.address == [0; 4] {
        return Err(Outcome::Generation);
    }
    // No route when it was last looked at: no source address is known that the server could answer to.
    if server.snat == [0; 4] {
        return Err(Outcome::NoRoute);
    }
    // SAFETY: as above.
    if unsafe { (&raw const (*entry).meta).read_volatile() } != server.meta {
        return Err(Outcome::Generation);
    }
    if NOT_FAST.get(id).is_none_or(|until| *until > boot) {
        return Err(Outcome::ServerNotFast);
    }
    Ok(server)
}

#[inline(always)]
fn hash(settings: &Settings, key: &FlowKey, packet: &Packet) -> u64 {
    // SAFETY: `parse` has checked the header.
    let sequence = unsafe { (*packet.tcp).sequence };
    let pair = |high: [u8; 4], low: [u8; 4]| {
        u64::from(u32::from_ne_bytes(high)) << 32 | u64::from(u32::from_ne_bytes(low))
    };
    let [a, b] = key.source_port;
    let [c, d] = key.destination_port;
    siphash13(settings.hash_key, [pair(key.source, key.destination), pair([a, b, c, d], sequence), 0])
}

/// The route to the server, once it is sure that there is one back as well.
#[inline(always)]
fn both_ways(ctx: &XdpContext, key: &FlowKey, server: &Server, tos: u8) -> Result<Route, Outcome> {
    let ingress = ctx.ingress_ifindex() as u32;
    let there = FlowKey {
        source: server.snat,
        destination: server.address,
        source_port: key.source_port,
        destination_port: ServerMeta::unpack(server.meta).port,
    };
    let to_server = match kernel::route(ctx, ingress, &there, tos, 0) {
        Ok(route) => route,
        Err(NoRoute::NoNeighbour) => return Err(Outcome::NoNeighbour),
        Err(NoRoute::ForwardingOff) => return Err(Outcome::ForwardingOff),
        Err(NoRoute::TooBig | NoRoute::Unreachable) => return Err(Outcome::NoRoute),
    };
    if INTERFACES.get_ifindex(to_server.ifindex).is_none() {
        return Err(Outcome::EgressForeign);
    }
    let egress_back = match kernel::route(ctx, to_server.ifindex, &key.reversed(), tos, 0) {
        Ok(back) if back.mtu != to_server.mtu => return Err(Outcome::MtuDiffers),
        Ok(back) => back.ifindex,
        // The flow remembers the way that the SYN came.
        Err(NoRoute::NoNeighbour) => ingress,
        Err(_) => return Err(Outcome::NoWayBack),
    };
    if INTERFACES.get_ifindex(egress_back).is_none() {
        return Err(Outcome::NoWayBack);
    }
    Ok(to_server)
}

/// Opens the flow and sends the SYN on.
#[inline(always)]
fn establish(
    ctx: &XdpContext,
    packet: &Packet,
    key: &FlowKey,
    service: &Service,
    plan: &Plan,
    old: Option<FlowKey>,
    now: u64,
) -> Result<Outcome, Outcome> {
    loads::admit(plan.affinity.server())?;
    if let Err(refusal) = enter(ctx, packet, key, service, plan, old, now) {
        loads::close(plan.affinity.server());
        // The same SYN on another CPU was quicker: there is a flow now, and this packet belongs to it.
        let Some(winner) = flows::find_live(key, now) else { return Err(refusal) };
        return forward::forward(ctx, packet, winner.entry, now);
    }
    caps::opened(plan.slot, key.source, now);
    let entry = FLOWS.get_ptr_mut(key).ok_or(Outcome::FlowTableFull)?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    forward::send(packet, unsafe { &mut *entry }, &plan.to_server)?;
    Ok(Outcome::SynForwarded)
}

/// Writes both entries, the server's direction first: its key must be unique, the client's is.
#[inline(always)]
fn enter(
    ctx: &XdpContext,
    packet: &Packet,
    key: &FlowKey,
    service: &Service,
    plan: &Plan,
    old: Option<FlowKey>,
    now: u64,
) -> Result<(), Outcome> {
    let scratch = NEW_FLOW.get_ptr_mut(0).ok_or(Outcome::NotConfigured)?;
    // SAFETY: the element of this CPU, and nothing interrupts the program on it.
    let flow = unsafe { &mut *scratch };
    begin_flow(ctx, packet, key, plan, now, flow);
    let becomes = claim_port(key, service, plan, old, flow)?;
    (flow.ip_delta, flow.tcp_delta) = checksum::deltas(key, &becomes);
    flow.becomes = becomes;
    flow.direction = FROM_CLIENT;
    flow.state = State::NEW.0;
    let only_if_new = if old.is_some() { BPF_ANY } else { BPF_NOEXIST };
    FLOWS.insert(key, &*flow, u64::from(only_if_new)).map_err(|_| {
        let _ = FLOWS.remove(becomes.reversed());
        Outcome::FlowTableFull
    })
}

/// Fills in the server's direction. In place: a flow is a quarter of what the stack of a program holds.
#[inline(always)]
fn begin_flow(ctx: &XdpContext, packet: &Packet, key: &FlowKey, plan: &Plan, now: u64, flow: &mut Flow) {
    // SAFETY: `parse` has checked both headers.
    unsafe {
        flow.client_macs[..6].copy_from_slice(&(*packet.ethernet).source);
        flow.client_macs[6..].copy_from_slice(&(*packet.ethernet).destination);
        flow.isn = (*packet.tcp).sequence;
    }
    flow.becomes = key.reversed();
    flow.side = Side::NEW;
    flow.direction = FROM_SERVER;
    flow.server = plan.affinity.server();
    flow.generation = plan.affinity.generation();
    flow.service = plan.slot as u16;
    flow.client_ifindex = ctx.ingress_ifindex() as u32;
    flow.server_ifindex = plan.to_server.ifindex;
    flow.handshake_ack = [0; 4];
    flow.created = now;
    flow.last_seen = now;
    flow.packets = 0;
    flow.bytes = 0;
    // That of the flow is in the other entry.
    flow.state = 0;
    // No route yet: the first packet of each direction asks.
    flow.route_until = 0;
}

/// Finds a free source address and port towards the server and writes the entry of the server's direction there.
/// The client's own port comes first, so that most servers' logs show it.
#[inline(always)]
fn claim_port(
    key: &FlowKey,
    service: &Service,
    plan: &Plan,
    old: Option<FlowKey>,
    flow: &mut Flow,
) -> Result<FlowKey, Outcome> {
    let port = ServerMeta::unpack(plan.server.meta).port;
    let mut becomes = FlowKey {
        source: plan.server.snat,
        destination: plan.server.address,
        source_port: key.source_port,
        destination_port: port,
    };
    let (first, last) = (u32::from(service.first_port), u32::from(service.last_port));
    if let Some(old) = old {
        let same_server = old.destination == becomes.destination && old.destination_port == port;
        let old_port = u32::from(u16::from_be_bytes(old.source_port));
        let still_ours = old_port >= first && old_port <= last && is_snat_address(old.source, service, plan);
        if same_server && still_ours && reuse(key, &old, flow) {
            return Ok(old);
        }
    }
    let size = last.wrapping_sub(first).wrapping_add(1);
    if size == 0 || size > 65_535 {
        return Err(Outcome::NotConfigured);
    }
    let wanted = u32::from(u16::from_be_bytes(key.source_port));
    let keep = wanted >= first && wanted <= last;
    let start = plan.hash as u32;
    let mut attempt = 0;
    while attempt < PORT_ATTEMPTS {
        let port = if attempt == 0 && keep { wanted } else { first + start.wrapping_add(attempt) % size };
        becomes.source_port = (port as u16).to_be_bytes();
        if service.snat_count > 0 {
            let index = ((plan.hash >> 32) as u32).wrapping_add(attempt) % service.snat_count & 7;
            becomes.source = service.snat_ips[index as usize];
        }
        match write_server_side(key, &becomes, flow, BPF_NOEXIST) {
            Ok(()) => return Ok(becomes),
            Err(EEXIST) => attempt += 1,
            Err(_) => return Err(Outcome::FlowTableFull),
        }
    }
    Err(Outcome::PortsExhausted)
}

/// Flags and addresses may have changed since the flow was opened.
#[inline(always)]
fn is_snat_address(address: [u8; 4], service: &Service, plan: &Plan) -> bool {
    if service.snat_count == 0 {
        return address == plan.server.snat;
    }
    let mut found = false;
    let mut index = 0;
    while index < service.snat_ips.len() {
        found |= (index as u32) < service.snat_count && service.snat_ips[index] == address;
        index += 1;
    }
    found
}

/// A closed tuple keeps its port for its own client.
#[inline(always)]
fn reuse(key: &FlowKey, old: &FlowKey, flow: &mut Flow) -> bool {
    let Some(entry) = FLOWS.get_ptr_mut(old.reversed()) else { return false };
    // SAFETY: an entry of the flow map, valid for the length of this run.
    let still_ours = unsafe { (*entry).becomes } == key.reversed();
    still_ours && write_server_side(key, old, flow, BPF_ANY).is_ok()
}

#[inline(always)]
fn write_server_side(key: &FlowKey, becomes: &FlowKey, flow: &mut Flow, flags: u32) -> Result<(), i32> {
    (flow.ip_delta, flow.tcp_delta) = checksum::deltas(&becomes.reversed(), &key.reversed());
    FLOWS.insert(becomes.reversed(), &*flow, u64::from(flags))
}
