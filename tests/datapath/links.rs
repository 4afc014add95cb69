//! Interfaces and addresses that come and go.

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::http;
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Lab, wait_until};

use crate::site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, Visit, all_flags, start_servers, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_interface_that_is_made_again_is_attached_to_again", made_again),
        trial("without_root_it_says_who_can_attach_again", without_root),
        trial("a_renamed_interface_goes_on_under_its_new_name", renamed),
        trial("an_interface_that_was_down_goes_on", down_and_up),
        trial("an_address_of_lo_is_ours_and_one_that_is_gone_captures_nothing", address_gone),
        trial("a_service_that_was_detached_by_force_keeps_its_hands_off", detached_by_force),
    ]
}

/// Takes the client's link away and makes another one with the same names and addresses.
fn make_again(site: &Site) -> Result<()> {
    let (balancer, client) = (&site.lab.balancer, site.lab.client());
    balancer.output("ip", &["link", "del", "dev", "c1"])?;
    wait_until(PATIENCE, "the loss to be said", || {
        let log = site.daemon.log();
        log.contains("c1 is gone") && log.contains("10.10.1.1:80 is no address of this host")
    })
    .with_context(|| site.daemon.log())?;
    let ns = client.ns.name();
    let link = ["link", "add", "c1", "type", "veth", "peer", "name", "eth0", "netns", ns];
    balancer.output("ip", &link)?;
    for address in &client.addresses {
        client.ns.output("ip", &["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    }
    client.ns.output("ip", &["link", "set", "eth0", "up"])?;
    client.ns.output("ethtool", &["-K", "eth0", "tx", "off", "gro", "on"])?;
    balancer.output("ip", &["addr", "add", "10.10.1.1/24", "dev", "c1"])?;
    balancer.output("ip", &["link", "set", "c1", "up"])?;
    client.ns.output("ip", &["route", "add", "default", "via", "10.10.1.1"])?;
    Ok(())
}

fn index_of(site: &Site, interface: &str) -> Result<u64> {
    let info = site.daemon.show(&["info"])?;
    let rows = info["datapath"]["interfaces"].as_array().context("interfaces")?;
    let row = rows.iter().find(|row| row["name"] == interface);
    row.and_then(|row| row["index"].as_u64()).with_context(|| format!("no {interface} in {info}"))
}

fn made_again() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let before = index_of(&site, "c1")?;
    make_again(&site)?;
    wait_until(PATIENCE, "the program to be there again", || {
        index_of(&site, "c1").is_ok_and(|index| index != before)
    })?;
    ensure!(kept.get("/", &[]).is_err(), "a flow of the old interface is used again");
    ensure!(site.daemon.show(&["flows"])?.as_array().is_some_and(Vec::is_empty));
    wait_until(PATIENCE, "the client to be fast again", || {
        site.visit(0, &[]).is_ok_and(|visit| visit.fast && visit.server == home)
    })?;
    let log = site.daemon.log();
    ensure!(log.matches("XDP on c1 again").count() == 1 && log.matches("c1 is gone").count() <= 2, "{log}");
    let pins: Vec<_> = std::fs::read_dir(site.pins())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(!pins.iter().any(|name| *name == *format!("link-{before}")), "{pins:?}");
    Ok(())
}

fn without_root() -> Result<()> {
    let site = Site::open(&[SOURCE_FIRST, &["--user", "nobody"]].concat())?;
    let home = site.introduce(0)?;
    ensure!(site.visit(0, &[])?.fast);
    make_again(&site)?;
    wait_until(PATIENCE, "what to do", || site.daemon.log().contains("restart balancer to attach to it"))?;
    let visit = site.visit(0, &[])?;
    ensure!(!visit.fast && visit.server == home, "{visit:?}");
    Ok(())
}

fn renamed() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let index = index_of(&site, "c1")?;
    for words in [&["down"][..], &["name", "front"], &["up"]] {
        let device = if words == ["up"] { "front" } else { "c1" };
        site.lab.balancer.output("ip", &[&["link", "set", "dev", device], words].concat())?;
    }
    wait_until(PATIENCE, "its new name", || index_of(&site, "front").is_ok_and(|found| found == index))?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home);
    ensure!(site.visit(0, &[])?.fast);
    let log = site.daemon.log();
    ensure!(log.contains("XDP: c1 is called front now") && !log.contains("c1 is gone"), "{log}");
    Ok(())
}

fn down_and_up() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let links = ["c1", &*format!("s{}", &home[1..])];
    for state in ["down", "up"] {
        for link in links {
            site.lab.balancer.output("ip", &["link", "set", "dev", link, state])?;
        }
    }
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home);
    wait_until(PATIENCE, "new connections to be fast", || {
        site.visit(0, &[]).is_ok_and(|visit| visit.fast && visit.server == home)
    })
}

/// The address of the service is on `lo`, then on another host behind this one, then here again.
fn address_gone() -> Result<()> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = start_servers(&lab)?;
    let vip = ("10.99.0.1/32", "10.99.0.1:80".parse()?);
    lab.balancer.output("ip", &["addr", "add", vip.0, "dev", "lo"])?;
    let mut flags = all_flags(&lab, 80, SOURCE_FIRST);
    flags.extend(["--listen".to_owned(), "10.99.0.1:80".to_owned()]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.balancer, BALANCER.as_ref(), "web", &flags)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    let (balancer, client) = (&site.lab.balancer, &site.lab.client().ns);
    let visit = || Visit::of(&http::get(client, None, vip.1, "/", &[])?);
    let home = visit()?.server;
    site.wait_until_learned(0, &home)?;
    ensure!(visit()?.fast, "an address of lo is as good as any");

    balancer.output("ip", &["addr", "del", vip.0, "dev", "lo"])?;
    let host = site.lab.server(2);
    balancer.output("ip", &["route", "add", vip.0, "via", &host.address().to_string()])?;
    host.ns.output("ip", &["addr", "add", vip.0, "dev", "lo"])?;
    let other = Nginx::start(&host.ns, vip.1, "elsewhere")?;
    let said = || site.daemon.log().matches("10.99.0.1:80 is no address of this host").count();
    wait_until(PATIENCE, "the loss to be said", || said() == 1)?;
    let beside = visit()?;
    let untouched = beside.server == "elsewhere" && beside.peer.ip() == site.address(0);
    ensure!(untouched, "transit traffic was captured: {beside:?}");
    ensure!(site.visit(0, &[])?.fast, "the other address goes on");

    drop(other);
    host.ns.output("ip", &["addr", "del", vip.0, "dev", "lo"])?;
    balancer.output("ip", &["route", "del", vip.0])?;
    balancer.output("ip", &["addr", "add", vip.0, "dev", "lo"])?;
    wait_until(PATIENCE, "the address to be fast again", || {
        visit().is_ok_and(|visit| visit.fast && visit.server == home)
    })?;
    ensure!(said() == 1, "{}", site.daemon.log());
    Ok(())
}

fn detached_by_force() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let second = crate::site::start(&site.lab, "other", 81, SOURCE_FIRST)?;
    site.wait_until_checked(&second)?;
    let detach = ["detach", "--name", "web", "--force"];
    let done = site.lab.balancer.command(BALANCER).args(detach).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    wait_until(PATIENCE, "it to be said", || site.daemon.log().contains("detached by force"))?;
    // Whoever comes next may have its slot.
    let third = crate::site::start(&site.lab, "third", 82, SOURCE_FIRST)?;
    site.wait_until_checked(&third)?;
    let visit = site.visit(0, &[])?;
    ensure!(!visit.fast && visit.server == home, "{visit:?}");
    let at = site.lab.client().gateway_at(82);
    let of_third = || Visit::of(&http::get(&site.lab.client().ns, Some(site.address(0)), at, "/", &[])?);
    of_third()?;
    wait_until(PATIENCE, "the third one to be fast", || of_third().is_ok_and(|visit| visit.fast))
}
