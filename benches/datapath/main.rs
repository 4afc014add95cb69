//! What a packet costs in the XDP program: nanoseconds above the floor, as BPF_PROG_TEST_RUN measures them.
//!
//! The program is the one that is shipped. A test run repeats it on one packet without restoring what it rewrites, so the
//! flows are made for that: each one's rewrite leads to the next one's packet ([`chain`]). The floor is the same loop
//! around a program that returns at once ([`floor`]).
//!
//! Needs root, for a network namespace of its own. Prints JSON; `cargo xtask bench datapath` makes a table of it.
#![allow(unreachable_pub, missing_docs, reason = "a benchmark is nobody's library")]

mod chain;
#[path = "../../tests/fixture/mod.rs"]
#[allow(dead_code, reason = "a world with more in it than is measured here")]
mod fixture;
mod floor;
mod world;

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::ExitCode;

use balancer_ebpf::counter::Outcome;
use chain::Chain;
use fixture::packet::{ACK, Frame};
use fixture::{SERVER_PORT, World};
use serde_json::{Value, json};
use world::alone;

/// Room for the flows of the largest row, and for those that are opened.
const FLOW_TABLE: u32 = 1_100_000;
/// Hops that a packet may have, less those that are left when it is not forwarded any more.
const HOPS: u32 = 250;
/// Runs that make one figure, of which the median counts.
const ROUNDS: usize = 21;

fn main() -> ExitCode {
    // Cargo says that this is a benchmark. For somebody who only wants to see that it works: fewer runs.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let scale = if words.iter().any(|word| word == "--quick") { 20 } else { 1 };
    match [false, true].map(|is_ipv6| alone(is_ipv6, FLOW_TABLE, |world| (rows(world, scale), table(world))))
    {
        [Ok(four), Ok(six)] => {
            let ((mut rows, table), (others, _)) = (four, six);
            rows.extend(others);
            println!("{:#}", json!({ "rows": rows, "table": table }));
            ExitCode::SUCCESS
        }
        outcomes => {
            let errors = outcomes.into_iter().filter_map(Result::err);
            errors.for_each(|error| eprintln!("bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Every row of one family.
fn rows(world: &mut World, scale: u32) -> Vec<Value> {
    stay_here();
    let mut rows = foreign(world, scale);
    rows.push(opening(world, scale));
    for (flows, goal) in [(1, Some(110)), (262_144, Some(200)), (1_000_000, None)] {
        let mut chain = Chain::of(world, flows);
        // Once around, so that every flow has a route and what fits into the caches is there.
        chain.walk(world, (flows / HOPS).min(1100) / scale + 1);
        let measured = median(|| chain.walk(world, 600 / scale / ROUNDS as u32 + 1));
        let mut row = row(world, "established", measured - floor::of(world, HOPS), goal);
        row["flows"] = flows.into();
        rows.push(row);
        chain.end(world);
    }
    let mut chain = Chain::of(world, HOPS);
    let measured = median(|| {
        chain.forget_routes(world);
        chain.walk(world, 1)
    });
    rows.push(row(world, "established, the route asked for", measured - floor::of(world, HOPS), Some(110)));
    chain.end(world);
    rows
}

/// Packets that are for somebody else: the one cost that those pay who have nothing to do with us.
fn foreign(world: &mut World, scale: u32) -> Vec<Value> {
    let times = 200_000 / scale;
    let floor = floor::of(world, times);
    let packets = [
        ("foreign: SYN to another port", world.syn().destination_port(81), Outcome::NotService),
        ("foreign: data to another port", world.syn().destination_port(81).flags(ACK), Outcome::NoFlow),
        ("foreign: UDP", world.syn().protocol(17), Outcome::NotTcp),
        ("foreign: ARP", world.syn().ether_type(0x0806), Outcome::NotIp),
    ];
    let mut measure = |(name, packet, outcome): (&str, Frame, Outcome)| {
        let bytes = packet.bytes();
        let measured = median(|| world.repeat(&bytes, times, outcome).nanoseconds);
        row(world, name, measured - floor, Some(25))
    };
    packets.map(&mut measure).into()
}

/// SYNs of known sources, each opening a flow. One a test run, for there is no way from one to the next: what the caches
/// lose between two is in the figure, as it is between two SYNs on a wire.
fn opening(world: &mut World, scale: u32) -> Value {
    const SOURCES: u16 = 100;
    let floor = floor::of(world, 1);
    let sources: Vec<_> = (0..SOURCES).map(|number| world.know(number)).collect();
    let mut port = 10_000;
    let measured = median(|| {
        let mut sum = 0.0;
        for source in &sources {
            for _ in 0..(10 / scale).max(1) {
                let syn = world.syn().source(*source).source_port(port);
                sum += world.repeat(&syn.bytes(), 1, Outcome::SynForwarded).nanoseconds;
                // There may be so many that are half-open.
                world.complete(&syn);
                port += 1;
            }
            port = 10_000 + (port - 10_000) % 22_000;
        }
        sum / f64::from(u32::from(SOURCES) * (10 / scale).max(1))
    });
    world.forget_flows();
    row(world, "SYN of a known source", measured - floor, Some(400))
}

/// What the table takes, full or not: it is made whole, so that no packet waits for memory.
fn table(world: &World) -> Value {
    let descriptor = world.maps.flows_data.fd().as_fd().as_raw_fd();
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap_or_default();
    let bytes = about.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok());
    json!({ "flows": world.maps.flow_entries / 2, "bytes": bytes })
}

fn row(world: &World, name: &str, above: f64, goal: Option<u32>) -> Value {
    let family = if world.client().is_ipv4() { "IPv4" } else { "IPv6" };
    eprintln!("bench: {family}: {name}: {above:.0} ns");
    json!({ "name": name, "family": family, "ns_above_floor": (above * 10.0).round() / 10.0, "goal": goal })
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

/// On the core that it is on: another one has other caches, and another share of what is counted for each.
fn stay_here() {
    let core = nix::sched::sched_getcpu().expect("a core");
    let mut set = nix::sched::CpuSet::new();
    set.set(core).expect("a core");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("to stay");
}

/// The packet of a flow in the chain.
fn link(world: &World, number: u32) -> Frame {
    let source = World::address(world.client(), (number >> 15) as u16);
    let port = 1024 + (number & 0x7fff) as u16;
    let frame = world.syn().source(source).source_port(port).flags(ACK).ttl(255);
    frame.destination(world.server()).destination_port(SERVER_PORT)
}
