//! What a benchmark does with the world of the fixtures, and no test does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use balancer::datapath::publish;
use balancer_ebpf::abi::FlowKey;
use balancer_ebpf::affinity::Affinity;
use balancer_ebpf::counter::Outcome;
use xtask::lab::Lab;

use crate::fixture::{SERVER_PORT, World};

/// A story that is no test, in a fresh world with a table for so many flows.
pub fn alone<T: Send>(
    is_ipv6: bool,
    flow_table: u32,
    story: impl FnOnce(&mut World) -> T + Send,
) -> anyhow::Result<T> {
    let laboratory = Arc::new(Lab::star().servers(1).build()?);
    let inside = Arc::clone(&laboratory);
    laboratory.balancer.run(|| {
        let mut world = World::new(inside, is_ipv6, flow_table);
        // Nobody is there to say every second that the service lives.
        world.service(|service| service.hold = u64::MAX);
        // The packets of a chain go from flow to flow by the server's port.
        publish::ports(&mut world.maps, &[], (SERVER_PORT, SERVER_PORT)).expect("known");
        story(&mut world)
    })
}

/// What became of a packet that the program was given again and again, each time as it had left it.
pub struct Repeated {
    /// Each time, on average.
    pub nanoseconds: f64,
    /// In the end.
    pub packet: Vec<u8>,
}

impl World {
    /// Gives it what it has made of it, again and again; each time with that outcome.
    pub fn repeat(&mut self, packet: &[u8], times: u32, outcome: Outcome) -> Repeated {
        let count = |world: &Self| world.counters()[outcome as usize];
        let before = count(self);
        let (_, packet, nanoseconds) = self.give(packet, times);
        assert_eq!(count(self) - before, u64::from(times), "each time {outcome:?}");
        Repeated { nanoseconds, packet }
    }

    /// Another source that is known, and a neighbour.
    pub fn know(&mut self, number: u16) -> IpAddr {
        let source = Self::address(self.client(), number + 1);
        self.learn_block(source, Affinity::new(self.server_id(), 1, self.boot_seconds() + 3600));
        self.client_neighbour(source);
        source
    }

    /// So many addresses behind this one.
    pub fn address(first: IpAddr, number: u16) -> IpAddr {
        match first {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + u32::from(number)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(number)).into(),
        }
    }

    /// Takes every flow out of the table.
    pub fn forget_flows(&mut self) {
        let keys: Vec<FlowKey> = self.maps.flows.keys().map(|key| key.expect("a key")).collect();
        for key in &keys {
            self.maps.remove_flow(key);
        }
    }
}
