//! `--forward gateway`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Lab, wait_for, wait_until};

use crate::site::{BALANCER, Forward, PATIENCE, SOURCE_FIRST, Site, Visit, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_gateways_server_logs_the_client_and_its_port", logged),
        trial("a_gateways_server_logs_the_client_of_ipv6", logged6),
        trial("a_client_on_its_servers_own_link_is_served_by_the_proxy", beside),
        trial("behind_a_gateway_a_forwarded_header_of_the_clients_own_comes_from_the_client", forwarded),
    ]
}

fn logged() -> Result<()> {
    let site = Site::open_by(Forward::Gateway, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut connection = site.connect(0)?;
    let visit = Visit::of(&connection.get("/seen", &[])?)?;
    ensure!(visit.fast && visit.peer == connection.local_addr()?, "{visit:?}");
    expect_in_log(site.nginx(&home), "/seen", connection.local_addr()?)?;
    let flows = site.daemon.show(&["flows"])?;
    ensure!(flows[0]["snat"] == connection.local_addr()?.to_string(), "{flows}");
    ensure!(site.daemon.show(&["info"])?["datapath"]["forward"] == "gateway");
    // Through the proxy it is somebody else.
    ensure!(!site.visit(1, &[])?.peer.ip().eq(&site.address(1)));
    Ok(())
}

/// nginx logs after it has answered.
fn expect_in_log(server: &Nginx, path: &str, peer: SocketAddr) -> Result<()> {
    let found = wait_for(PATIENCE, "the request in the server's log", || {
        Ok(server.requests().into_iter().find(|request| request.line.contains(path)))
    })?;
    ensure!(found.peer == peer, "the server's log has {found:?} and not {peer}");
    Ok(())
}

fn logged6() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let (server, front) = (lab.server(1).at6(8080), lab.client().gateway6_at(80));
    let nginx = Nginx::start(&lab.server(1).ns, server, "s1")?;
    let flags = format!(
        "--listen {front} --server s1={server} --xdp c1 --xdp s1 --forward gateway --check none --workers 1 --flow-table 32k"
    );
    let flags: Vec<&str> = flags.split(' ').chain(SOURCE_FIRST.iter().copied()).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    http::get(&lab.client().ns, None, front, "/", &[])?;
    wait_until(PATIENCE, "the client to be known", || {
        daemon.affinity("source", "2001:db8:10:1::").is_ok_and(|found| found.is_some())
    })?;
    let mut connection = Connection::open(&lab.client().ns, None, front)?;
    let answer = connection.get("/seen", &[])?;
    ensure!(answer.status == 200 && answer.peer() == Some(connection.local_addr()?), "{}", answer.text());
    expect_in_log(&nginx, "/seen", connection.local_addr()?)
}

/// Its server would answer it past us, from an address that it has not talked to.
fn beside() -> Result<()> {
    let site = Site::open_by(Forward::Gateway, SOURCE_FIRST)?;
    let home = site.visit(0, &[])?.server;
    let other = site.other(&home).to_owned();
    site.daemon.set_server(&other, "drain")?;
    let host = site.lab.server(home[1..].parse()?);
    let visit = || Visit::of(&http::get(&host.ns, None, site.front(), "/", &[])?);
    visit()?;
    wait_until(PATIENCE, "the server to be known as a client", || {
        site.daemon.affinity("source", &host.address().to_string()).is_ok_and(|found| found.is_some())
    })?;
    let again = visit()?;
    ensure!(!again.fast && again.server == home, "{again:?}");
    ensure!(site.daemon.counter("pass_client_beside_server")? > 0);
    let words = ["explain", "--src", &host.address().to_string(), "--name", "web"];
    let explained = site.daemon.client(&words)?;
    ensure!(explained.stdout.contains("on its server's own link"), "{explained:?}");
    Ok(())
}

fn forwarded() -> Result<()> {
    let flags = [SOURCE_FIRST, &["--forwarded", "x-forwarded-for"]].concat();
    let refused = Site::open_by(Forward::Nat, &flags);
    ensure!(format!("{:#}", refused.err().context("it has started")?).contains("--forwarded"));
    let site = Site::open_by(Forward::Gateway, &flags)?;
    site.introduce(0)?;
    let visit = site.visit(0, &[("X-Forwarded-For", "192.0.2.1")])?;
    ensure!(visit.fast && visit.peer.ip() == site.address(0), "{visit:?}");
    Ok(())
}
