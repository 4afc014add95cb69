//! What holds however fast packets travel.

use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::lab::http::Connection;
use xtask::lab::wait_until;

use crate::site::{Forward, PATIENCE, SOURCE_FIRST, Site, Visit};

pub fn known_and_unknown(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, SOURCE_FIRST)?;
    let first = site.visit(0, &[])?;
    ensure!(!first.fast && first.cookie.as_ref() == Some(&first.server), "{first:?}");
    site.wait_until_learned(0, &first.server)?;
    let second = site.visit(0, &[])?;
    ensure!(second.fast && second.server == first.server && second.cookie.is_none(), "{second:?}");
    let is_seen = second.peer.ip() == site.address(0);
    ensure!(is_seen == (forward != Forward::Nat), "the server has seen {}", second.peer);
    ensure!(site.daemon.counter("syn_forwarded")? == 1);
    let stranger = site.visit(1, &[])?;
    ensure!(!stranger.fast && stranger.server != first.server, "{stranger:?}");
    Ok(())
}

pub fn kill_and_restart(forward: Forward) -> Result<()> {
    let mut site = Site::open_by(forward, SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let mut kept = site.connect(0)?;
    let before = Visit::of(&kept.get("/", &[])?)?;
    ensure!(before.fast);
    let counted = site.daemon.counter("to_server")?;
    site.daemon.kill();
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "the running connection");
    let while_dead = site.visit(0, &[])?;
    ensure!(while_dead.fast && while_dead.server == homes[0], "a new connection of a known client");
    site.daemon.restart()?;
    for (client, home) in homes.iter().enumerate() {
        let key = site.address(client).to_string();
        ensure!(site.daemon.affinity("source", &key)?.as_ref() == Some(home), "{key} was forgotten");
        let visit = site.visit(client, &[])?;
        ensure!(visit.fast && visit.server == *home, "{visit:?}");
    }
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "the running connection, after the restart");
    ensure!(site.daemon.counter("to_server")? > counted, "counters go on from where they were");
    Ok(())
}

pub fn download_survives_kill(forward: Forward) -> Result<()> {
    let mut site = Site::open_by(forward, SOURCE_FIRST)?;
    site.introduce(0)?;
    let (client, to) = (site.lab.client().ns.clone(), site.front());
    let source = Some(site.address(0));
    let download = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut connection = Connection::open(&client, source, to)?;
        connection.stream().set_read_timeout(Some(Duration::from_secs(40)))?;
        Ok(connection.get("/slow", &[])?.body)
    });
    wait_until(PATIENCE, "the download to run", || {
        site.daemon.show(&["flows"]).is_ok_and(|flows| flows[0]["packets_in"].as_u64() > Some(4))
    })?;
    site.daemon.kill();
    site.daemon.restart()?;
    let body = download.join().expect("the thread")?;
    ensure!(body.len() == 1 << 20 && body.iter().all(|byte| *byte == b'x'), "{} bytes", body.len());
    Ok(())
}

pub fn drain_and_maint(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let other = site.other(&home).to_owned();
    site.daemon.set_server(&home, "drain")?;
    let stays = site.visit(0, &[])?;
    ensure!(!stays.fast && stays.server == home, "{stays:?}");
    for client in [1, 2] {
        ensure!(site.visit(client, &[])?.server == other, "a new client was sent to a draining server");
    }
    site.daemon.set_server(&home, "maint")?;
    let moved = site.visit(0, &[("Cookie", &format!("SRV={home}"))])?;
    ensure!(moved.server == other && moved.cookie.as_ref() == Some(&other), "{moved:?}");
    site.wait_until_learned(0, &other)?;
    site.daemon.set_server(&home, "ready")?;
    let settled = site.visit(0, &[])?;
    ensure!(
        settled.fast && settled.server == other,
        "a client that has moved stays where it is: {settled:?}"
    );
    Ok(())
}

pub fn dead_server(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let other = site.other(&home).to_owned();
    site.nginx(&home).child.kill();
    site.wait_for_state(&home, "down")?;
    let moved = site.visit(0, &[])?;
    ensure!(!moved.fast && moved.server == other && moved.cookie.as_ref() == Some(&other), "{moved:?}");
    site.wait_until_learned(0, &other)?;
    let settled = site.visit(0, &[])?;
    ensure!(settled.fast && settled.server == other, "{settled:?}");
    Ok(())
}

pub fn live_flow_survives_drain(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    for state in ["drain", "maint"] {
        site.daemon.set_server(&home, state)?;
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == home, "a running connection was moved by {state}");
    }
    Ok(())
}
