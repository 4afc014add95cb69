//! Whether a SYN may be fast, and the flow it opens.
//!
//! The proxy is always right, so every doubt about a SYN is a pass. Nothing is rewritten, and nothing is written to
//! the flow table, before everything needed to carry the whole connection is known.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{
    Address, DeniedKey, Draft, EXCLUDED, FAST_PATH_EXCLUSIVE, FAST_PATH_OFF, FORWARD_DSR, FORWARD_GATEWAY,
    FORWARD_NAT, FROM_CLIENT, FROM_SERVER, Flow, FlowKey, ListenKey, MAX_SNAT_IPS, SERVER_DOWN, SERVER_DRAIN,
    SERVER_MAINT, SERVER_UP, Server, ServerMeta, Service, Settings, Traffic, denied_key,
};
use balancer_ebpf::affinity::Affinity;
use balancer_ebpf::checksum;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::packet::{Headers, Packet};
use balancer_ebpf::phase::Side;
use balancer_ebpf::siphash::siphash13;
use balancer_ebpf::state::State;

use crate::kernel::{self, NoRoute, Route};
use crate::maps::{
    DENIED, DRAFT, FLOWS, INTERFACES, LISTENS, NOT_FAST, SERVERS, SERVICES, SETTINGS, SOURCES,
};
use crate::{caps, events, flows, forward, ingress, loads};

/// Ports that are tried for one SYN before it goes to the proxy.
const PORT_ATTEMPTS: u32 = 16;
const EEXIST: i32 = -17;

/// What is known about a SYN before a flow is made of it.
struct Plan {
    slot: u32,
    affinity: Affinity,
    /// Keyed hash of tuple and sequence number: the same for a repeated SYN.
    hash: u64,
    to_server: Route,
}

/// A SYN without a live flow: fast, or the stack's. In either case what the table had of its tuple is over.
#[inline(always)]
pub(crate) fn open(ctx: &XdpContext, packet: &Packet, of: &mut u32, now: u64) -> Result<Outcome, Outcome> {
    let key = &packet.key;
    let old = flows::leave_to_the_stack(key, now)?;
    let slot = service_of(key)?;
    *of = slot;
    let settings = SETTINGS.get(0).ok_or(Outcome::NotConfigured)?;
    let service = SERVICES.get(slot).ok_or(Outcome::NotConfigured)?;
    let draft = DRAFT.get_ptr_mut(0).ok_or(Outcome::NotConfigured)?;
    // SAFETY: the element of this CPU, and nothing interrupts the program on it.
    let draft = unsafe { &mut *draft };
    if let Some(old) = old {
        // SAFETY: an entry of the flow map, valid for the length of this run.
        draft.old.set(unsafe { &(*old).becomes });
    }
    draft.forward = service.forward;
    // In memory, from here on: what the verifier knows of an address of IPv4 would be a way of its own.
    draft.flow.becomes.set_reversed(key);
    draft.client.set(&draft.flow.becomes.destination);
    let plan = consider(ctx, packet, settings, service, slot, draft, now)?;
    establish(ctx, packet, service, &plan, old.is_some(), draft, now)
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
    settings: &Settings,
    service: &Service,
    slot: u32,
    draft: &mut Draft,
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
    let client = &draft.client;
    if service.denies != 0 {
        check_source(slot, client)?;
    }
    // Its answers would have to leave by the interface that it came in by, whatever the routes say.
    if client.is_link_local() {
        return Err(Outcome::LinkLocal);
    }
    let source = client.masked(service.mask4, service.mask6);
    let affinity = affinity_of(slot, &source, (boot / 1_000_000_000) as u32)?;
    usable_server(affinity, boot, &mut draft.server)?;
    if draft.server.address.is_v4() != client.is_v4() {
        return Err(Outcome::FamilyDiffers);
    }
    let hash = hash(ctx, settings, &draft.flow.becomes)?;
    if service.fast_path == FAST_PATH_EXCLUSIVE && hash % u64::from(service.verify_share.max(1)) == 0 {
        return Err(Outcome::Sampled);
    }
    if packet.hops <= 1 {
        return Err(Outcome::TtlExpired);
    }
    if ingress::is_unfinished(ctx, packet) {
        return Err(Outcome::UnfinishedSyn);
    }
    caps::check_half_open(settings, service, slot, client, now)?;
    if kernel::socket_exists(ctx, &draft.flow.becomes) {
        return Err(Outcome::SocketExists);
    }
    let to_server = both_ways(ctx, draft).inspect_err(|doubt| {
        if matches!(doubt, Outcome::NoNeighbour) {
            events::tell_no_neighbour(slot, affinity.server(), now);
        }
    })?;
    Ok(Plan { slot, affinity, hash, to_server })
}

#[inline(always)]
fn check_source(slot: u32, source: &Address) -> Result<(), Outcome> {
    match DENIED.get(&Key::new(u8::BITS * size_of::<DeniedKey>() as u32, denied_key(slot, source))) {
        None => Ok(()),
        Some(&EXCLUDED) => Err(Outcome::Excluded),
        Some(_) => Err(Outcome::Denied),
    }
}

/// The source's entry, if it counts here.
#[inline(always)]
fn affinity_of(slot: u32, source: &Address, now: u32) -> Result<Affinity, Outcome> {
    let first = read_source(slot, source).ok_or(Outcome::NoAffinity)?;
    if read_source(slot, source) != Some(first) {
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
fn read_source(slot: u32, key: &Address) -> Option<u64> {
    // SAFETY: one aligned word, copied at once; the caller reads twice.
    SOURCES.get_value_ptr_mut(slot, key).map(|entry| unsafe { entry.read_volatile() })
}

/// The server that the entry names, if new connections may go there.
#[inline(always)]
fn usable_server(affinity: Affinity, boot: u64, server: &mut Server) -> Result<(), Outcome> {
    let id = u32::from(affinity.server());
    let entry = SERVERS.get_ptr_mut(id).ok_or(Outcome::UnknownServer)?;
    // SAFETY: array elements stay where they are. User space writes them word by word, `meta` first and last.
    *server = unsafe { entry.read_volatile() };
    let meta = ServerMeta::unpack(server.meta);
    match meta.state {
        SERVER_UP => {}
        SERVER_DRAIN => return Err(Outcome::ServerDrain),
        SERVER_DOWN => return Err(Outcome::ServerDown),
        SERVER_MAINT => return Err(Outcome::ServerMaint),
        _ => return Err(Outcome::UnknownServer),
    }
    if meta.generation != affinity.generation() || server.address.is_none() {
        return Err(Outcome::Generation);
    }
    // SAFETY: as above.
    if unsafe { (&raw const (*entry).meta).read_volatile() } != server.meta {
        return Err(Outcome::Generation);
    }
    if NOT_FAST.get(id).is_none_or(|until| *until > boot) {
        return Err(Outcome::ServerNotFast);
    }
    Ok(())
}

#[inline(always)]
fn hash(ctx: &XdpContext, settings: &Settings, answers: &FlowKey) -> Result<u64, Outcome> {
    let headers = Headers::of(ingress::frame(ctx)).ok_or(Outcome::Truncated)?;
    // SAFETY: `of` has checked the header.
    let sequence = unsafe { (*headers.tcp).sequence };
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let [a, b] = answers.destination_port;
    let [c, d] = answers.source_port;
    let (source, destination) = (&answers.destination.0, &answers.source.0);
    let words = [
        pair(source[0], source[1]),
        pair(source[2], source[3]),
        pair(destination[0], destination[1]),
        pair(destination[2], destination[3]),
        pair(u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes(sequence)),
    ];
    Ok(siphash13(settings.hash_key, words))
}

/// The route to the server, once it is sure that there is one back as well. A client that forbids to cut its SYN up listens
/// to what routers say of their MTUs (RFC 1191 §3), so they may differ. Servers that answer directly do not need our way back;
/// but the proxy does, and so it is asked for in any case.
#[inline(always)]
fn both_ways(ctx: &XdpContext, draft: &mut Draft) -> Result<Route, Outcome> {
    let ingress = ctx.ingress_ifindex() as u32;
    let headers = Headers::of(ingress::frame(ctx)).ok_or(Outcome::Truncated)?;
    let (class, hears_of_mtu) = (headers.class(), headers.is_never_cut());
    if mode(draft) == FORWARD_NAT {
        // No route when it was last looked at: no source address is known that the server could answer to.
        if draft.server.snat.is_none() {
            return Err(Outcome::NoRoute);
        }
        draft.becomes.source.set(&draft.server.snat);
    } else {
        draft.becomes.source.set(&draft.client);
    }
    draft.becomes.destination.set(&draft.server.address);
    draft.becomes.source_port = draft.flow.becomes.destination_port;
    draft.becomes.destination_port = ServerMeta::unpack(draft.server.meta).port;
    if mode(draft) == FORWARD_DSR && draft.becomes.destination_port != draft.flow.becomes.source_port {
        return Err(Outcome::PortDiffers);
    }
    let to_server = match kernel::route(ctx, ingress, &draft.becomes, class, 0, &mut draft.detour) {
        Ok(route) => route,
        Err(NoRoute::NoNeighbour) => return Err(Outcome::NoNeighbour),
        Err(NoRoute::ForwardingOff) => return Err(Outcome::ForwardingOff),
        Err(NoRoute::TooBig(_) | NoRoute::Unreachable) => return Err(Outcome::NoRoute),
    };
    if INTERFACES.get_ifindex(to_server.ifindex).is_none() {
        return Err(Outcome::EgressForeign);
    }
    if mode(draft) == FORWARD_DSR && detour(draft) != 0 {
        return Err(Outcome::NotOnLink);
    }
    let egress_back =
        match kernel::route(ctx, to_server.ifindex, &draft.flow.becomes, class, 0, &mut draft.detour) {
            Ok(back) if back.mtu != to_server.mtu && !hears_of_mtu => return Err(Outcome::MtuDiffers),
            Ok(back)
                if mode(draft) == FORWARD_GATEWAY
                    && detour(draft) == 0
                    && back.ifindex == to_server.ifindex =>
            {
                return Err(Outcome::BesideServer);
            }
            Ok(back) => back.ifindex,
            // Whoever it is that is not resolved may be anybody on that link.
            Err(NoRoute::NoNeighbour) if mode(draft) == FORWARD_GATEWAY && ingress == to_server.ifindex => {
                return Err(Outcome::BesideServer);
            }
            // The flow remembers the way that the SYN came.
            Err(NoRoute::NoNeighbour) => ingress,
            Err(_) => return Err(Outcome::NoWayBack),
        };
    if mode(draft) == FORWARD_GATEWAY && draft.client == draft.server.address {
        return Err(Outcome::BesideServer);
    }
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
    service: &Service,
    plan: &Plan,
    is_known: bool,
    draft: &mut Draft,
    now: u64,
) -> Result<Outcome, Outcome> {
    loads::admit(plan.affinity.server())?;
    if let Err(refusal) = enter(ctx, &packet.key, service, plan, is_known, draft, now) {
        loads::close(plan.affinity.server());
        // The same SYN on another CPU was quicker: there is a flow now, and this packet belongs to it.
        let Some(winner) = flows::find_live(&packet.key, now) else { return Err(refusal) };
        return forward::forward(ctx, packet, winner.entry, now);
    }
    caps::opened(plan.slot, &draft.client, now);
    let entry = FLOWS.get_ptr_mut(&packet.key).ok_or(Outcome::FlowTableFull)?;
    // SAFETY: an entry of the flow map, valid for the length of this run.
    forward::send(ctx, packet, unsafe { &mut *entry }, &plan.to_server)?;
    Ok(Outcome::SynForwarded)
}

/// Writes both entries, the server's direction first: its key must be unique, the client's is.
#[inline(always)]
fn enter(
    ctx: &XdpContext,
    key: &FlowKey,
    service: &Service,
    plan: &Plan,
    is_known: bool,
    draft: &mut Draft,
    now: u64,
) -> Result<(), Outcome> {
    begin_flow(ctx, plan, now, &mut draft.flow)?;
    if mode(draft) == FORWARD_NAT {
        claim_port(service, plan, is_known, draft)?;
    } else if mode(draft) != FORWARD_DSR {
        claim_tuple(is_known, draft)?;
    }
    let is_one_way = mode(draft) == FORWARD_DSR;
    let flow = &mut draft.flow;
    if is_one_way {
        (flow.side, flow.state) = (Side::NEW_ONE_WAY, State::NEW_ONE_WAY.0);
    } else {
        (flow.ip_delta, flow.tcp_delta) = checksum::deltas(&flow.becomes, &draft.answers);
        flow.state = State::NEW.0;
    }
    flow.becomes.set(&draft.becomes);
    flow.direction = FROM_CLIENT;
    let only_if_new = if is_known { BPF_ANY } else { BPF_NOEXIST };
    if is_known {
        FLOWS.get_ptr_mut(key).map(flows::settle);
    }
    FLOWS.insert(key, &*flow, u64::from(only_if_new)).map_err(|_| {
        if mode(draft) != FORWARD_DSR {
            let _ = FLOWS.remove(&draft.answers);
        }
        Outcome::FlowTableFull
    })
}

/// Fills in the server's direction, but for what its packets become, which stands there already.
#[inline(always)]
fn begin_flow(ctx: &XdpContext, plan: &Plan, now: u64, flow: &mut Flow) -> Result<(), Outcome> {
    let headers = Headers::of(ingress::frame(ctx)).ok_or(Outcome::Truncated)?;
    // SAFETY: `of` has checked both headers.
    unsafe {
        flow.client_macs[..6].copy_from_slice(&(*headers.ethernet).source);
        flow.client_macs[6..].copy_from_slice(&(*headers.ethernet).destination);
        flow.isn = (*headers.tcp).sequence;
    }
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
    flow.told = Traffic { packets: 0, bytes: 0 };
    Ok(())
}

/// Finds a free source address and port towards the server and writes the entry of the server's direction there.
/// The client's own port comes first, so that most servers' logs show it.
#[inline(always)]
fn claim_port(service: &Service, plan: &Plan, is_known: bool, draft: &mut Draft) -> Result<(), Outcome> {
    let (first, last) = (u32::from(service.first_port), u32::from(service.last_port));
    let snat = SnatAddresses::of(service, draft.becomes.source.is_v4());
    if is_known && may_be_used_again(service, &snat, draft) {
        draft.becomes.source.set(&draft.old.source);
        draft.becomes.source_port = draft.old.source_port;
        if reuse(draft) {
            return Ok(());
        }
        draft.becomes.source.set(&draft.server.snat);
    }
    let size = last.wrapping_sub(first).wrapping_add(1);
    if size == 0 || size > 65_535 {
        return Err(Outcome::NotConfigured);
    }
    let wanted = u32::from(u16::from_be_bytes(draft.flow.becomes.destination_port));
    let keep = wanted >= first && wanted <= last;
    let start = plan.hash as u32;
    let mut attempt = 0;
    while attempt < PORT_ATTEMPTS {
        let port = if attempt == 0 && keep { wanted } else { first + start.wrapping_add(attempt) % size };
        draft.becomes.source_port = (port as u16).to_be_bytes();
        if snat.count > 0 {
            let index = snat.first + ((plan.hash >> 32) as u32).wrapping_add(attempt) % snat.count;
            draft.becomes.source.set(&service.snat_ips[index as usize & (MAX_SNAT_IPS - 1)]);
        }
        match write_server_side(draft, BPF_NOEXIST) {
            Ok(()) => return Ok(()),
            Err(EEXIST) => attempt += 1,
            Err(_) => return Err(Outcome::FlowTableFull),
        }
    }
    Err(Outcome::PortsExhausted)
}

/// Writes the entry of the server's direction of a client that keeps its address and port: there is one place for it.
#[inline(always)]
fn claim_tuple(is_known: bool, draft: &mut Draft) -> Result<(), Outcome> {
    if is_known && reuse(draft) {
        return Ok(());
    }
    match write_server_side(draft, BPF_NOEXIST) {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(Outcome::TupleTaken),
        Err(_) => Err(Outcome::FlowTableFull),
    }
}

/// How packets travel. Read anew each time it is needed, or else the verifier would follow each mode on a way of its own.
#[inline(always)]
fn mode(draft: &Draft) -> u8 {
    // SAFETY: the element of this CPU.
    unsafe { (&raw const draft.forward).read_volatile() }
}

#[inline(always)]
fn detour(draft: &Draft) -> u8 {
    // SAFETY: as above.
    unsafe { (&raw const draft.detour).read_volatile() }
}

/// Whether the earlier connection went to the same server, by a port and an address that are still for us to use: flags
/// and addresses may have changed since then.
#[inline(always)]
fn may_be_used_again(service: &Service, snat: &SnatAddresses, draft: &Draft) -> bool {
    let (old, new) = (&draft.old, &draft.becomes);
    let port = u16::from_be_bytes(old.source_port);
    old.destination == new.destination
        && old.destination_port == new.destination_port
        && port >= service.first_port
        && port <= service.last_port
        && is_snat_address(&old.source, service, snat, &draft.server.snat)
}

#[inline(always)]
fn is_snat_address(address: &Address, service: &Service, snat: &SnatAddresses, servers: &Address) -> bool {
    if snat.count == 0 {
        return address == servers;
    }
    let mut found = false;
    let mut index = 0;
    while index < service.snat_ips.len() {
        let is_one = (index as u32).wrapping_sub(snat.first) < snat.count;
        found |= is_one && service.snat_ips[index] == *address;
        index += 1;
    }
    found
}

/// Which of a service's addresses are of a family.
struct SnatAddresses {
    first: u32,
    count: u32,
}

impl SnatAddresses {
    #[inline(always)]
    fn of(service: &Service, is_v4: bool) -> Self {
        let (v4, v6) = (u32::from(service.snat_v4), u32::from(service.snat_v6));
        if is_v4 { Self { first: 0, count: v4 } } else { Self { first: v4, count: v6 } }
    }
}

/// A closed tuple keeps its port for its own client.
#[inline(always)]
fn reuse(draft: &mut Draft) -> bool {
    draft.answers.set_reversed(&draft.becomes);
    let Some(entry) = FLOWS.get_ptr_mut(&draft.answers) else { return false };
    // SAFETY: an entry of the flow map, valid for the length of this run.
    let still_ours = unsafe { (*entry).becomes == draft.flow.becomes };
    if still_ours {
        flows::settle(entry);
    }
    still_ours && write_server_side(draft, BPF_ANY).is_ok()
}

#[inline(always)]
fn write_server_side(draft: &mut Draft, flags: u32) -> Result<(), i32> {
    draft.answers.set_reversed(&draft.becomes);
    (draft.flow.ip_delta, draft.flow.tcp_delta) = checksum::deltas(&draft.answers, &draft.flow.becomes);
    FLOWS.insert(&draft.answers, &draft.flow, u64::from(flags))
}
