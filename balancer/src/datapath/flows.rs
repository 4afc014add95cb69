//! Listing the fast connections of a service.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use balancer_ebpf::abi::{Address, FROM_CLIENT, Flow, FlowKey};
use balancer_ebpf::phase;

use super::collect::{flow_clock, twin};
use super::maps::Maps;
use super::syscall::BatchWalk;
use super::view::FlowRow;

const BATCH: usize = 2048;

/// Rows for every live flow of the service in `slot`; `names` are servers' names by id.
pub fn list(maps: &Maps, slot: u32, names: &HashMap<u16, String>) -> Vec<FlowRow> {
    let now = flow_clock();
    let mut rows = Vec::new();
    let mut walk = BatchWalk::new(BATCH);
    while let Ok((entries, at_end)) = walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd()) {
        rows.extend(
            entries
                .iter()
                .filter(|(_, flow)| flow.direction == FROM_CLIENT && u32::from(flow.service) == slot)
                .filter_map(|(key, flow)| row(maps, key, flow, names, now)),
        );
        if at_end {
            break;
        }
    }
    rows
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
    if !phase::is_live(flow.side.phase, last_seen, now) {
        return None;
    }
    let (packets, bytes) = twin.map_or((0, 0), |twin| (twin.packets, twin.bytes));
    Some(FlowRow {
        client: address(key.source, key.source_port),
        server: names.get(&flow.server).cloned().unwrap_or_else(|| format!("#{}", flow.server)),
        address: address(flow.becomes.destination, flow.becomes.destination_port),
        snat: address(flow.becomes.source, flow.becomes.source_port),
        phase: match flow.side.phase {
            phase::HALF_OPEN => "half-open",
            phase::ESTABLISHED => "established",
            phase::CLOSING => "closing",
            _ => "dead",
        },
        idle_seconds: now.saturating_sub(last_seen) / 1_000_000_000,
        packets: flow.packets + packets,
        bytes: flow.bytes + bytes,
    })
}

fn address(address: Address, port: [u8; 2]) -> String {
    SocketAddr::new(address.ip(), u16::from_be_bytes(port)).to_string()
}
