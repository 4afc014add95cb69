//! Neighbours and routes that change under running connections. Nothing checks the servers here, so nobody but the upkeep
//! uses their neighbours: packets of fast connections do not count as use.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use balancer_ebpf::abi::ROUTE_NS;
use libtest_mimic::Trial;
use xtask::lab::{Daemon, Lab, wait_until};

use crate::load::{From, Load};
use crate::site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, Visit, all_flags, start_servers, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_lost_neighbour_is_back_before_anybody_gives_up", lost),
        trial("a_server_with_another_mac_is_found", other_mac),
        trial("a_route_that_changes_is_followed", other_route),
    ]
}

fn open(lab: Lab, more: &[&str]) -> Result<Site> {
    let servers = start_servers(&lab)?;
    let flags = all_flags(&lab, 80, &[SOURCE_FIRST, more].concat());
    let flags: Vec<&str> = flags.iter().map(|flag| if flag == "tcp" { "none" } else { flag }).collect();
    let daemon = Daemon::start(&lab.balancer, BALANCER.as_ref(), "web", &flags)?;
    Ok(Site { daemon, servers, lab })
}

/// A client with a server, and a connection that is kept.
fn one_server() -> Result<(Site, xtask::lab::http::Connection)> {
    let lab = Lab::star().servers(1).client_addresses(3).build()?;
    make_doubtful(&lab)?;
    let site = open(lab, &[])?;
    site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    Ok((site, kept))
}

fn lost() -> Result<()> {
    let (site, mut kept) = one_server()?;
    let host = site.lab.server(1);
    let forget = ["neigh", "del", &host.address().to_string(), "dev", &host.interface];
    for _ in 0..3 {
        site.lab.balancer.output("ip", &forget)?;
        // Until then the flow uses the route that it knows.
        thread::sleep(Duration::from_nanos(2 * ROUTE_NS));
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == "s1", "the running connection");
        site.lab.balancer.output("ip", &forget)?;
        let passed = site.visit(0, &[])?;
        ensure!(passed.server == "s1", "a new connection");
    }
    Ok(())
}

/// So that the kernel doubts its neighbours after half a second instead of thirty. It counts for those that it learns then.
fn make_doubtful(lab: &Lab) -> Result<()> {
    for (name, value) in
        [("base_reachable_time_ms", "500"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "200")]
    {
        lab.balancer.sysctl(&format!("net.ipv4.neigh.s1.{name}"), value)?;
    }
    Ok(())
}

/// Nobody announces it: the packets of the running connection go to the old one until the kernel looks again.
fn other_mac() -> Result<()> {
    let (site, mut kept) = one_server()?;
    let host = site.lab.server(1);
    host.ns.output("ip", &["link", "set", "eth0", "address", "02:00:00:00:00:99"])?;
    let begun = Instant::now();
    kept.stream().set_read_timeout(Some(2 * PATIENCE))?;
    let answer = kept.get("/", &[]).with_context(|| {
        format!("{:?} {}", begun.elapsed(), site.lab.balancer.output("ip", &["neigh"]).unwrap_or_default())
    });
    ensure!(Visit::of(&answer?)?.server == "s1", "the running connection");
    wait_until(PATIENCE, "new connections to be fast", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    ensure!(begun.elapsed() < 2 * PATIENCE);
    Ok(())
}

/// A second link to the same server takes over in the middle of a download.
fn other_route() -> Result<()> {
    let lab = Lab::star().servers(1).client_addresses(3).build()?;
    let (balancer, server) = (lab.balancer.clone(), lab.server(1).ns.clone());
    balancer.output(
        "ip",
        &["link", "add", "second", "type", "veth", "peer", "name", "eth1", "netns", server.name()],
    )?;
    for (ns, device, address) in
        [(&balancer, "second", "10.20.101.1/24"), (&server, "eth1", "10.20.101.2/24")]
    {
        ns.output("ip", &["addr", "add", address, "dev", device])?;
        ns.output("ip", &["link", "set", device, "up"])?;
    }
    server.output("ethtool", &["-K", "eth1", "tx", "off", "gro", "on"])?;
    let site = open(lab, &["--xdp", "second"])?;
    site.introduce(0)?;
    let from = From {
        ns: site.lab.client().ns.clone(),
        source: Some(site.address(0)),
        to: site.lab.client().gateway_at(80),
    };
    let mut load = Load::default();
    load.download("a long answer", from, "/slow", 1 << 20);
    wait_until(PATIENCE, "the download to run", || {
        site.daemon.show(&["flows"]).is_ok_and(|flows| flows[0]["bytes"].as_u64() > Some(100_000))
    })?;
    balancer.output("ip", &["route", "add", "10.20.1.2/32", "via", "10.20.101.2", "dev", "second"])?;
    // What still came by the first link would be lost.
    let table = "table ip lab {
        chain in {
            type filter hook prerouting priority 0
            iifname eth0 drop
        }
    }";
    server.output("nft", &[table])?;
    for (name, tally) in load.end() {
        ensure!(tally.errors.is_empty() && tally.done == 1, "{name}: {tally:?}");
    }
    Ok(())
}
