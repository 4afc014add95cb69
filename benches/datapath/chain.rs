//! Flows of which each one's rewrite makes the packet of the next, in no order that a processor could guess, and the last
//! one's that of the first: a test run that repeats the program on its own output walks from flow to flow.

use balancer::datapath::collect::flow_clock;
use balancer_ebpf::abi::{FROM_CLIENT, FROM_SERVER, Flow, FlowKey};
use balancer_ebpf::checksum;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::phase::flag::{ACK, SYN};
use balancer_ebpf::state::{Said, State};

use crate::fixture::{World, key_of};
use crate::{HOPS, link};

pub struct Chain {
    entries: Vec<(FlowKey, Flow)>,
    /// As the last walk left it, with all its hops again.
    packet: Vec<u8>,
}

impl Chain {
    /// Enters that many flows, both directions of each.
    pub fn of(world: &mut World, flows: u32) -> Self {
        let keys: Vec<FlowKey> = (0..flows).map(|number| key_of(&link(world, number))).collect();
        let now = flow_clock();
        let entry = |from: usize, to: usize| (keys[from], flow(world, &keys[from], &keys[to], now));
        let order = order(keys.len());
        let next = order.iter().skip(1).chain(&order[..1]);
        let entries: Vec<_> = order.iter().zip(next).map(|(from, to)| entry(*from, *to)).collect();
        for (key, flow) in &entries {
            world.maps.flows.insert(key, flow, 0).expect("room");
            let twin = Flow { becomes: key.reversed(), direction: FROM_SERVER, state: 0, ..*flow };
            world.maps.flows.insert(flow.becomes.reversed(), twin, 0).expect("room");
        }
        let first = order[0] as u32;
        Self { entries, packet: link(world, first).bytes() }
    }

    /// Nanoseconds a packet, over so many times as many packets as one has hops.
    pub fn walk(&mut self, world: &mut World, batches: u32) -> f64 {
        let mut sum = 0.0;
        for _ in 0..batches {
            let run = world.repeat(&self.packet, HOPS, Outcome::ToServer);
            sum += run.nanoseconds;
            self.packet = run.packet;
            // The program takes hops off; it does not look at the checksum of the header that has them.
            let hops = if world.client().is_ipv4() { 22 } else { 21 };
            self.packet[hops] = 255;
        }
        sum / f64::from(batches)
    }

    /// Makes every flow ask for its route again.
    pub fn forget_routes(&self, world: &mut World) {
        for (key, flow) in &self.entries {
            world.maps.flows.insert(key, flow, 0).expect("to replace");
        }
    }

    pub fn end(self, world: &mut World) {
        world.forget_flows();
    }
}

fn flow(world: &World, from: &FlowKey, to: &FlowKey, now: u64) -> Flow {
    let answered = State::NEW.after(Said { flags: SYN | ACK, ..Said::default() }).0;
    let proves = Said { from_client: true, flags: ACK, proves_address: true, ..Said::default() };
    let state = answered.after(proves).0;
    let (ip_delta, tcp_delta) = checksum::deltas(from, to);
    Flow {
        becomes: *to,
        side: state.client(),
        direction: FROM_CLIENT,
        ip_delta,
        tcp_delta,
        server: world.server_id(),
        created: now,
        last_seen: now,
        state: state.0,
        ..Flow::default()
    }
}

/// A permutation, always the same (Fisher and Yates, with numbers of xorshift).
fn order(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..count).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order
}
