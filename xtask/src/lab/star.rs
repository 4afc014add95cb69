//! The topology: clients and servers, each on its own link to the balancer's namespace.
//!
//! ```text
//! client 10.10.1.2 ── c1 10.10.1.1 ┐            ┌ s1 10.20.1.1 ── 10.20.1.2 server
//!                                  ├─ balancer ─┤
//! client 10.10.2.2 ── c2 10.10.2.1 ┘            └ s2 10.20.2.1 ── 10.20.2.2 server
//! ```
//!
//! The same in IPv6, where the host has it: `2001:db8:10:1::2` is the first client, `2001:db8:20:1::1` the balancer on the
//! first server's link. Hosts call their interface `eth0` and route everything through the balancer, which forwards, so a client
//! can also talk to a server directly.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::bpffs;
use super::namespace::{self, Namespace};
use super::scratch::Scratch;

/// How the balancer lets fast packets travel: its `--forward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Forward {
    /// Servers see an address of the balancer's
    Nat,
    /// They see the client, and answer through the balancer
    Gateway,
    /// They have the balancer's address as well, see the client, and answer it directly
    Dsr,
}

impl Forward {
    /// The word of the flag.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Gateway => "gateway",
            Self::Dsr => "dsr",
        }
    }

    /// Where a server of that port listens: with `dsr` on the balancer's address, too.
    #[must_use]
    pub fn origin(self, server: &Host, port: u16) -> SocketAddr {
        if self == Self::Dsr { ([0, 0, 0, 0], port).into() } else { server.at(port) }
    }
}

/// Hosts of one kind; their number is the third octet of an address.
const MOST_HOSTS: usize = 200;
/// Addresses of one client, within its /24.
const MOST_ADDRESSES: usize = 250;

/// A laboratory that stands. Dropping it removes everything in it.
#[derive(Debug)]
pub struct Lab {
    /// The clients, each with interface `c<n>` of the balancer as its gateway.
    pub clients: Vec<Host>,
    /// Where the balancer runs.
    pub balancer: Namespace,
    /// The servers, each with interface `s<n>` of the balancer as its gateway.
    pub servers: Vec<Host>,
}

/// One end host.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub ns: Namespace,
    /// Its addresses; the first is the one it uses by itself.
    pub addresses: Vec<Ipv4Addr>,
    /// Its IPv6 addresses, as many.
    pub addresses6: Vec<Ipv6Addr>,
    /// The balancer's address on this link.
    pub gateway: Ipv4Addr,
    /// The balancer's IPv6 address on this link.
    pub gateway6: Ipv6Addr,
    /// The balancer's interface on this link.
    pub interface: String,
}

impl Host {
    /// Its first address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.addresses[0]
    }

    /// A port on its first address.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address(), port).into()
    }

    /// A port on its first IPv6 address.
    #[must_use]
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.addresses6[0], port).into()
    }

    /// A port on the balancer's address on this link.
    #[must_use]
    pub fn gateway_at(&self, port: u16) -> SocketAddr {
        (self.gateway, port).into()
    }

    /// A port on the balancer's IPv6 address on this link.
    #[must_use]
    pub fn gateway6_at(&self, port: u16) -> SocketAddr {
        (self.gateway6, port).into()
    }
}

impl Lab {
    /// One client with one address and two servers, unless told otherwise.
    #[must_use]
    pub fn star() -> Star {
        Star { clients: 1, addresses: 1, servers: 2, offloads: false, mtu: None, direct: false }
    }

    /// The first client.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.clients[0]
    }

    /// Server `number`, counted from 1 like its interface.
    ///
    /// # Panics
    /// When there is no such server.
    #[must_use]
    pub fn server(&self, number: usize) -> &Host {
        &self.servers[number - 1]
    }
}

/// A laboratory to be built.
#[derive(Debug, Clone)]
pub struct Star {
    clients: usize,
    addresses: usize,
    servers: usize,
    offloads: bool,
    mtu: Option<u32>,
    direct: bool,
}

impl Star {
    /// How many client hosts.
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        Self { clients, ..self }
    }

    /// How many addresses each client has: .2, .3, …
    #[must_use]
    pub fn client_addresses(self, addresses: usize) -> Self {
        Self { addresses, ..self }
    }

    /// How many servers.
    #[must_use]
    pub fn servers(self, servers: usize) -> Self {
        Self { servers, ..self }
    }

    /// Leaves the hosts' offloads as the kernel sets them: packets arrive with unfinished checksums.
    #[must_use]
    pub fn keep_offloads(self) -> Self {
        Self { offloads: true, ..self }
    }

    /// The MTU of every link, both ends.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu: Some(mtu), ..self }
    }

    /// Every server has the balancer's address on the first client's link, too, and a link of its own to that client: what it
    /// sends from there does not pass the balancer.
    #[must_use]
    pub fn direct_answers(self) -> Self {
        Self { direct: true, ..self }
    }

    /// What that way of travelling needs of the network.
    #[must_use]
    pub fn forward(self, forward: Forward) -> Self {
        if forward == Forward::Dsr { self.direct_answers() } else { self }
    }

    /// Builds it.
    ///
    /// # Errors
    /// Without root, or when a step fails; what was made until then is removed.
    ///
    /// # Panics
    /// When asked for no client address, or for more hosts than the address plan holds.
    pub fn build(&self) -> Result<Lab> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        assert!(
            (1..=MOST_ADDRESSES).contains(&self.addresses),
            "a client has 1 to {MOST_ADDRESSES} addresses"
        );
        assert!(self.clients.max(self.servers) <= MOST_HOSTS, "at most {MOST_HOSTS} clients and servers");
        namespace::sweep();
        bpffs::mount_if_needed()?;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let scratch = Arc::new(Scratch::new(&namespace::name(serial, "files"))?);
        let create = |role: &str| Namespace::create(namespace::name(serial, role), Arc::clone(&scratch));

        let balancer = create("balancer")?;
        balancer.sysctl("net.ipv4.ip_forward", "1")?;
        if has_ipv6() {
            balancer.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }
        balancer.output("ip", &["link", "set", "lo", "up"])?;
        let mut lab = Lab { clients: Vec::new(), balancer, servers: Vec::new() };
        for number in 1..=self.clients {
            let ns = create(&format!("client{number}"))?;
            let host = self.connect(&lab.balancer, ns, 10, format!("c{number}"), number, self.addresses);
            lab.clients.push(host?);
        }
        for number in 1..=self.servers {
            let ns = create(&format!("server{number}"))?;
            let host = self.connect(&lab.balancer, ns, 20, format!("s{number}"), number, 1);
            lab.servers.push(host?);
        }
        if self.direct {
            for (number, server) in (1..).zip(&lab.servers) {
                shortcut(lab.client(), server, number)?;
            }
        }
        Ok(lab)
    }

    fn connect(
        &self,
        balancer: &Namespace,
        ns: Namespace,
        net: u8,
        interface: String,
        number: usize,
        addresses: usize,
    ) -> Result<Host> {
        let at = |host: usize| -> Result<Ipv4Addr> {
            Ok(Ipv4Addr::new(10, net, u8::try_from(number)?, u8::try_from(host)?))
        };
        let gateway = at(1)?;
        let at6 = |host: usize| format!("2001:db8:{net}:{number}::{host:x}").parse::<Ipv6Addr>();
        let gateway6 = at6(1)?;
        let addresses6 = (2..addresses + 2).map(at6).collect::<Result<Vec<_>, _>>()?;
        let addresses = (2..addresses + 2).map(at).collect::<Result<Vec<_>>>()?;

        let link = ["link", "add", &interface, "netns", balancer.name(), "type", "veth"];
        namespace::ip(&[&link[..], &["peer", "name", "eth0", "netns", ns.name()]].concat())
            .with_context(|| format!("cannot connect {}", ns.name()))?;
        if let Some(mtu) = self.mtu.map(|mtu| mtu.to_string()) {
            balancer.output("ip", &["link", "set", &interface, "mtu", &mtu])?;
            ns.output("ip", &["link", "set", "eth0", "mtu", &mtu])?;
        }
        balancer.output("ip", &["addr", "add", &format!("{gateway}/24"), "dev", &interface])?;
        balancer.output("ip", &["link", "set", &interface, "up"])?;
        for address in &addresses {
            ns.output("ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        }
        ns.output("ip", &["link", "set", "lo", "up"])?;
        ns.output("ip", &["link", "set", "eth0", "up"])?;
        ns.output("ip", &["route", "add", "default", "via", &gateway.to_string()])?;
        if has_ipv6() {
            add_ipv6(balancer, &interface, &[gateway6])?;
            add_ipv6(&ns, "eth0", &addresses6)?;
            ns.output("ip", &["-6", "route", "add", "default", "via", &gateway6.to_string()])?;
        }
        if !self.offloads {
            settle_offloads(&ns)?;
        }
        Ok(Host { ns, addresses, addresses6, gateway, gateway6, interface })
    }
}

/// A link from a server to a client, and the service's address on the server.
fn shortcut(client: &Host, server: &Host, number: usize) -> Result<()> {
    let (ours, mac) = (format!("d{number}"), format!("02:00:00:00:dd:{number:02x}"));
    let link = ["link", "add", "direct", "type", "veth", "peer", "name", &ours, "address", &mac];
    server.ns.output("ip", &[&link[..], &["netns", client.ns.name()]].concat())?;
    for (ns, link) in [(&server.ns, "direct"), (&client.ns, ours.as_str())] {
        ns.output("ip", &["link", "set", link, "up"])?;
        // A packet comes in by one link, and its answer goes out by the other.
        for interface in ["all", "eth0", link] {
            ns.sysctl(&format!("net.ipv4.conf.{interface}.rp_filter"), "0")?;
        }
    }
    // The address is the balancer's to everybody on the link.
    server.ns.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    server.ns.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
    let direct = |block: String, address: String, neighbours: Vec<String>| -> Result<()> {
        server.ns.output("ip", &["addr", "add", &address, "dev", "lo"])?;
        server.ns.output("ip", &["route", "add", &block, "dev", "direct"])?;
        for neighbour in neighbours {
            server.ns.output("ip", &["neigh", "replace", &neighbour, "lladdr", &mac, "dev", "direct"])?;
        }
        Ok(())
    };
    let v4 = client.addresses.iter().map(ToString::to_string).collect();
    direct(format!("{}/24", network(client.gateway)), format!("{}/32", client.gateway), v4)?;
    if has_ipv6() {
        let v6 = client.addresses6.iter().map(ToString::to_string).collect();
        let block = format!("{}/64", Ipv6Addr::from_bits(client.gateway6.to_bits() & !u128::from(u64::MAX)));
        direct(block, format!("{}/128", client.gateway6), v6)?;
    }
    Ok(())
}

/// The first address of a /24.
fn network(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & !0xff)
}

/// A kernel can be without it.
fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Without looking for others who have them (RFC 4862 §5.4), which would take a second.
fn add_ipv6(ns: &Namespace, interface: &str, addresses: &[Ipv6Addr]) -> Result<()> {
    for address in addresses {
        ns.output("ip", &["addr", "add", &format!("{address}/64"), "dev", interface, "nodad"])?;
    }
    Ok(())
}

/// Two facts of veth pairs. A packet of a local peer carries an unfinished checksum, which nobody finishes
/// after a native redirect: so the host sends finished ones. And a redirected frame is delivered only to a
/// peer that has GRO on or an XDP program of its own.
fn settle_offloads(ns: &Namespace) -> Result<()> {
    ns.output("ethtool", &["-K", "eth0", "tx", "off", "gro", "on"]).map(drop)
}
