//! Listing the fast connections of a service.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use balancer_ebpf::abi::{Address, FROM_CLIENT, Flow, FlowKey, Traffic};
use balancer_ebpf::phase;

use super::collect::{flow_clock, twin};
use super::maps::Maps;
use super::syscall::BatchWalk;
use super::view::{Asked, FlowRow};

const BATCH: usize = 2048;

/// Rows for the live flows of the service in `slot` that are asked for, and how many more there are. `names`: servers'
/// names by id.
pub fn list(maps: &Maps, slot: u32, names: &HashMap<u16, String>, asked: &Asked) -> (Vec<FlowRow>, usize) {
    let now = flow_clock();
    let (mut rows, mut more) = (Vec::new(), 0);
    for_each(maps, |key, flow| {
        if !is_asked_for(slot, asked, names, key, flow) {
            return;
        }
        if let Some(row) = row(maps, key, flow, names, now) {
            if rows.len() < asked.limit { rows.push(row) } else { more += 1 }
        }
    });
    (rows, more)
}

/// Whether this is the client's direction of a flow that is asked for.
pub(super) fn is_asked_for(
    slot: u32,
    asked: &Asked,
    names: &HashMap<u16, String>,
    key: &FlowKey,
    flow: &Flow,
) -> bool {
    let server = names.get(&flow.server).map(String::as_str);
    flow.direction == FROM_CLIENT
        && u32::from(flow.service) == slot
        && asked
            .client
            .is_none_or(|client| client.to_canonical() == address(key.source, key.source_port).ip())
        && asked.server.as_deref().is_none_or(|asked| server == Some(asked))
}

/// What live flows have carried so far, from clients and to clients, by server.
pub fn traffic(maps: &Maps) -> HashMap<u16, [Traffic; 2]> {
    let mut sums: HashMap<u16, [Traffic; 2]> = HashMap::new();
    for_each(maps, |_, flow| {
        let sum = &mut sums.entry(flow.server).or_default()[usize::from(flow.direction != FROM_CLIENT)];
        sum.packets += flow.packets;
        sum.bytes += flow.bytes;
    });
    sums
}

fn for_each(maps: &Maps, mut visit: impl FnMut(&FlowKey, &Flow)) {
    let mut walk = BatchWalk::new(BATCH);
    while let Ok((entries, at_end)) = walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) {
        entries.iter().for_each(|(key, flow)| visit(key, flow));
        if at_end {
            break;
        }
    }
}

/// Adds the servers that flows go to.
pub fn servers(maps: &Maps, held: &mut HashSet<u16>) {
    let mut walk = BatchWalk::new(BATCH);
    while let Ok((entries, at_end)) = walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) {
        held.extend(entries.iter().map(|(_, flow)| flow.server));
        if at_end {
            break;
        }
    }
}

/// Whether any flow goes to that server.
pub fn names_server(maps: &Maps, id: u16) -> bool {
    let mut walk = BatchWalk::new(BATCH);
    while let Ok((entries, at_end)) = walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) {
        if entries.iter().any(|(_, flow)| flow.server == id) {
            return true;
        }
        if at_end {
            break;
        }
    }
    false
}

fn row(maps: &Maps, key: &FlowKey, flow: &Flow, names: &HashMap<u16, String>, now: u64) -> Option<FlowRow> {
    let twin = twin(maps, key, flow);
    let last_seen = twin.map_or(flow.last_seen, |twin| twin.last_seen.max(flow.last_seen));
    if !phase::is_live(flow.side, last_seen, now) {
        return None;
    }
    let (packets_out, bytes_out) = twin.map_or((0, 0), |twin| (twin.packets, twin.bytes));
    Some(FlowRow {
        client: address(key.source, key.source_port).to_string(),
        server: names.get(&flow.server).cloned().unwrap_or_else(|| format!("#{}", flow.server)),
        address: address(flow.becomes.destination, flow.becomes.destination_port).to_string(),
        snat: address(flow.becomes.source, flow.becomes.source_port).to_string(),
        phase: match flow.side.phase {
            phase::HALF_OPEN => "half-open",
            phase::ESTABLISHED => "established",
            phase::CLOSING => "closing",
            _ => "dead",
        },
        age_seconds: now.saturating_sub(flow.created) / 1_000_000_000,
        idle_seconds: now.saturating_sub(last_seen) / 1_000_000_000,
        packets_in: flow.packets,
        packets_out,
        bytes_in: flow.bytes,
        bytes_out,
        packets: flow.packets + packets_out,
        bytes: flow.bytes + bytes_out,
    })
}

pub(super) fn address(address: Address, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(address.ip(), u16::from_be_bytes(port))
}
