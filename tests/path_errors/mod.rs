//! ICMP and path MTU end to end: narrow links in front of the balancer, behind it and at it, with real routers and ends.

mod wire;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use wire::{Ear, Family, Heard, What};
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Host, Lab, Namespace, wait_until};

use crate::site::{BALANCER, PATIENCE, SOURCE_FIRST, Visit, trial};

/// The MTU of what is narrow; all links have 1500.
const NARROW: u16 = 1400;
/// Many full packets.
const LENGTH: usize = 1 << 20;

type Story = fn(Family) -> Result<()>;

pub fn trials() -> Vec<Trial> {
    let stories: [(&str, Story); 7] = [
        ("an_upload_fits_through_a_narrow_way_behind_us", upload_through_a_narrow_way_behind),
        ("a_download_fits_through_a_narrow_way_before_us", download_through_a_narrow_way_before),
        ("an_upload_fits_through_our_own_narrow_way", upload_through_our_narrow_way),
        ("a_download_fits_through_our_own_narrow_way", download_through_our_narrow_way),
        ("links_of_different_mtu_are_fast", links_of_different_mtu),
        ("a_port_that_is_closed_in_the_middle_is_said_to_the_client", closed_port),
        ("a_client_learns_where_its_packets_end", time_exceeded),
    ];
    let both = |(name, story): (&str, Story)| {
        [
            trial(name, move || story(Family::V4)),
            trial(&format!("{name}_over_ipv6"), move || story(Family::V6)),
        ]
    };
    stories.into_iter().flat_map(both).collect()
}

/// Host 1 of either net is its router, host 2 the end.
impl Family {
    const fn clients(self) -> &'static str {
        match self {
            Self::V4 => "10.40.1.",
            Self::V6 => "2001:db8:40:1::",
        }
    }

    const fn servers(self) -> &'static str {
        match self {
            Self::V4 => "10.30.1.",
            Self::V6 => "2001:db8:30:1::",
        }
    }

    fn block(self, net: &str) -> String {
        match self {
            Self::V4 => format!("{net}0/24"),
            Self::V6 => format!("{net}/64"),
        }
    }

    /// What the table of sources has of the client.
    const fn known_as(self) -> &'static str {
        match self {
            Self::V4 => "10.40.1.2",
            Self::V6 => "2001:db8:40:1::",
        }
    }

    fn server(self) -> Result<SocketAddr> {
        Ok((format!("{}2", self.servers()).parse::<IpAddr>()?, 8080).into())
    }

    /// How the routes of routers to the ends are told from any others.
    const fn near(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["dev", "near"],
            Self::V6 => &["dev", "near", "metric", "256"],
        }
    }

    /// The router on a link of the balancer's, seen from there.
    fn router(self, host: &Host) -> String {
        match self {
            Self::V4 => host.address().to_string(),
            Self::V6 => host.addresses6[0].to_string(),
        }
    }
}

/// One client and one server, each behind a router of its own:
///
/// ```text
/// client 10.40.1.2 ── router ── c1 balancer s1 ── router ── 10.30.1.2 server
/// ```
///
/// Dropped in the order of its fields.
struct Chain {
    daemon: Daemon,
    server: Nginx,
    lab: Lab,
    family: Family,
}

impl Chain {
    fn open(family: Family) -> Result<Self> {
        let lab = Lab::star().clients(2).build()?;
        put_behind(&lab, &lab.clients[0], &lab.clients[1].ns, family, family.clients())?;
        put_behind(&lab, &lab.servers[0], &lab.servers[1].ns, family, family.servers())?;
        let server = Nginx::start(&lab.servers[1].ns, family.server()?, "s1")?;
        let flags = format!(
            "--listen {} --xdp c1 --xdp s1 --server s1={} --check tcp --check-interval 200ms --workers 1 --flow-table 32k",
            vip(&lab, family),
            family.server()?
        );
        let flags: Vec<&str> = flags.split(' ').chain(SOURCE_FIRST.iter().copied()).collect();
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
        let chain = Self { daemon, server, lab, family };
        wait_until(PATIENCE, "the first check", || {
            chain.daemon.server("s1").is_ok_and(|row| row["health"] == "up")
        })?;
        chain.introduce()?;
        Ok(chain)
    }

    fn introduce(&self) -> Result<()> {
        let response = http::get(self.client(), None, self.vip(), "/", &[])?;
        ensure!(!Visit::of(&response)?.fast, "an unknown client went past the proxy");
        wait_until(PATIENCE, "the client to be known", || {
            self.daemon.affinity("source", self.family.known_as()).is_ok_and(|found| found.is_some())
        })
    }

    fn client(&self) -> &Namespace {
        &self.lab.clients[1].ns
    }

    fn vip(&self) -> SocketAddr {
        vip(&self.lab, self.family)
    }

    /// Lets nothing larger than [`NARROW`] through to the clients or the servers from `ns`.
    fn narrow(&self, ns: &Namespace, net: &str, way: &[&str]) -> Result<()> {
        let (block, mtu) = (self.family.block(net), NARROW.to_string());
        let words = [&["route", "replace", &block][..], way, &["mtu", "lock", &mtu]].concat();
        ns.output("ip", &words).map(drop)
    }

    /// A connection that is fast.
    fn connect(&self) -> Result<Connection> {
        let mut connection = Connection::open(self.client(), None, self.vip())?;
        ensure!(Visit::of(&connection.get("/", &[])?)?.fast, "the connection is not fast");
        Ok(connection)
    }

    fn upload(&self, connection: &mut Connection) -> Result<()> {
        let body: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        let response = connection.request("PUT", "/upload/body", &[], &body)?;
        ensure!(matches!(response.status, 201 | 204), "status {}", response.status);
        ensure!(self.server.uploaded("body")? == body, "something else has arrived");
        Ok(())
    }

    /// The server's end of the client's connection, as the server sees the peer.
    fn at_server(&self, connection: &mut Connection) -> Result<SocketAddr> {
        connection.get("/", &[])?.peer().context("a peer")
    }
}

fn vip(lab: &Lab, family: Family) -> SocketAddr {
    match family {
        Family::V4 => lab.client().gateway_at(80),
        Family::V6 => lab.client().gateway6_at(80),
    }
}

/// Gives `host` an interface of its own behind the namespace of `router`, and every other one a way there.
fn put_behind(lab: &Lab, router: &Host, host: &Namespace, family: Family, net: &str) -> Result<()> {
    let (forwarding, length): (_, &[&str]) = match family {
        Family::V4 => ("net.ipv4.ip_forward", &["24"]),
        Family::V6 => ("net.ipv6.conf.all.forwarding", &["64", "nodad"]),
    };
    let (near, far) = (format!("{net}1"), format!("{net}2"));
    let name = |ns: &Namespace, address: &str, link: &str| {
        let address = format!("{address}/{}", length[0]);
        ns.output("ip", &[&["addr", "add", &address, "dev", link][..], &length[1..]].concat())?;
        ns.output("ip", &["link", "set", link, "up"])
    };
    router.ns.sysctl(forwarding, "1")?;
    let link = ["link", "add", "near", "type", "veth", "peer", "name", "far", "netns", host.name()];
    router.ns.output("ip", &link)?;
    host.output("ip", &["link", "del", "dev", "eth0"])?;
    name(&router.ns, &near, "near")?;
    name(host, &far, "far")?;
    host.output("ip", &["route", "add", "default", "via", &near])?;
    host.output("ethtool", &["-K", "far", "tx", "off"])?;
    let (block, via) = (family.block(net), family.router(router));
    lab.balancer.output("ip", &["route", "add", &block, "via", &via, "dev", &router.interface]).map(drop)
}

fn upload_through_a_narrow_way_behind(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    chain.narrow(&chain.lab.servers[0].ns, family.servers(), family.near())?;
    let ear = Ear::open(chain.client(), family)?;
    let mut connection = chain.connect()?;
    chain.upload(&mut connection)?;
    expect_too_big(&ear, chain.vip(), connection.local_addr()?, chain.vip())?;
    ensure!(chain.daemon.counter("icmp_to_client")? > 0);
    ensure!(chain.daemon.counter("icmp_too_big")? == 0, "the router has said it");
    Ok(())
}

fn download_through_a_narrow_way_before(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    chain.narrow(&chain.lab.clients[0].ns, family.clients(), family.near())?;
    let ear = Ear::open(&chain.lab.servers[1].ns, family)?;
    let mut connection = chain.connect()?;
    let peer = chain.at_server(&mut connection)?;
    ensure!(connection.get("/1m", &[])?.body == vec![b'x'; LENGTH]);
    expect_too_big(&ear, peer, family.server()?, peer)?;
    ensure!(chain.daemon.counter("icmp_to_server")? > 0);
    ensure!(chain.daemon.counter("icmp_too_big")? == 0, "the router has said it");
    Ok(())
}

fn upload_through_our_narrow_way(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    let router = family.router(&chain.lab.servers[0]);
    chain.narrow(&chain.lab.balancer, family.servers(), &["via", &router, "dev", "s1"])?;
    let ear = Ear::open(chain.client(), family)?;
    let mut connection = chain.connect()?;
    chain.upload(&mut connection)?;
    expect_too_big(&ear, chain.vip(), connection.local_addr()?, chain.vip())?;
    ensure!(chain.daemon.counter("icmp_too_big")? > 0);
    Ok(())
}

fn download_through_our_narrow_way(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    let router = family.router(&chain.lab.clients[0]);
    chain.narrow(&chain.lab.balancer, family.clients(), &["via", &router, "dev", "c1"])?;
    let ear = Ear::open(&chain.lab.servers[1].ns, family)?;
    let mut connection = chain.connect()?;
    let peer = chain.at_server(&mut connection)?;
    ensure!(connection.get("/1m", &[])?.body == vec![b'x'; LENGTH]);
    expect_too_big(&ear, peer, family.server()?, peer)?;
    ensure!(chain.daemon.counter("icmp_too_big")? > 0);
    Ok(())
}

/// The sender hears of the MTU, about its own packet, from the address that it talks to.
fn expect_too_big(ear: &Ear, from: SocketAddr, sender: SocketAddr, receiver: SocketAddr) -> Result<()> {
    let heard = ear.hear(What::TooBig(NARROW))?;
    let expected = Heard { from: from.ip(), what: What::TooBig(NARROW), about: (sender, receiver) };
    ensure!(heard == expected, "{heard:?} instead of {expected:?}");
    Ok(())
}

/// What the ends tell each other of their links when they connect is enough.
fn links_of_different_mtu(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    for (ns, link) in [(&chain.lab.balancer, "s1"), (&chain.lab.servers[0].ns, "eth0")] {
        ns.output("ip", &["link", "set", "dev", link, "mtu", &NARROW.to_string()])?;
    }
    for (ns, link) in [(&chain.lab.servers[0].ns, "near"), (&chain.lab.servers[1].ns, "far")] {
        ns.output("ip", &["link", "set", "dev", link, "mtu", &NARROW.to_string()])?;
    }
    let mut connection = chain.connect()?;
    chain.upload(&mut connection)?;
    ensure!(connection.get("/1m", &[])?.body == vec![b'x'; LENGTH]);
    ensure!(chain.daemon.counter("icmp_too_big")? == 0 && chain.daemon.counter("pass_mtu_differs")? == 0);
    Ok(())
}

fn closed_port(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    let ear = Ear::open(chain.client(), family)?;
    let mut connection = chain.connect()?;
    let (table, error) = match family {
        Family::V4 => ("ip", "icmp"),
        Family::V6 => ("ip6", "icmpv6"),
    };
    let rule = format!("tcp dport 8080 reject with {error} type port-unreachable");
    let rules =
        format!("table {table} closed {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}");
    chain.lab.servers[1].ns.output("nft", &[&rules])?;
    connection.send(b"GET / HTTP/1.1\r\n")?;
    let heard = ear.hear(What::PortUnreachable)?;
    ensure!(heard.from == chain.vip().ip(), "not from the address that the client talks to: {heard:?}");
    ensure!(heard.about == (connection.local_addr()?, chain.vip()), "{heard:?}");
    // It may have been anybody who said so: the connection is as good as before.
    chain.lab.servers[1].ns.output("nft", &[&format!("delete table {table} closed")])?;
    connection.send(b"Host: lab\r\n\r\n")?;
    ensure!(Visit::of(&connection.receive()?)?.fast);
    Ok(())
}

fn time_exceeded(family: Family) -> Result<()> {
    let chain = Chain::open(family)?;
    let ear = Ear::open(chain.client(), family)?;
    let mut connection = chain.connect()?;
    // The router before us takes one, and so do we; the router behind us is the next.
    for (hops, counter) in [(2, "icmp_time_exceeded"), (3, "icmp_to_client")] {
        set_hops(&connection, family, hops)?;
        connection.send(b"GET ")?;
        let heard = ear.hear(What::TimeExceeded)?;
        ensure!(heard.from == chain.vip().ip(), "not from the address that the client talks to: {heard:?}");
        ensure!(heard.about == (connection.local_addr()?, chain.vip()), "{heard:?}");
        ensure!(chain.daemon.counter(counter)? > 0);
        set_hops(&connection, family, 64)?;
        connection.send(b"/ HTTP/1.1\r\nHost: lab\r\n\r\n")?;
        ensure!(Visit::of(&connection.receive()?)?.fast);
    }
    Ok(())
}

fn set_hops(connection: &Connection, family: Family, hops: u32) -> Result<()> {
    let socket = socket2::SockRef::from(connection.stream());
    match family {
        Family::V4 => socket.set_ttl_v4(hops)?,
        Family::V6 => socket.set_unicast_hops_v6(hops)?,
    }
    Ok(())
}
