//! A version with another schema was here before. It is this very version, whose pins are moved to where such a one would
//! have them: what it runs is on the interfaces still, and nobody finds its maps.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use balancer_ebpf::abi::SCHEMA;
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;
use xtask::lab::{Daemon, Lab, http, wait_until};

use crate::load::{From, Load};
use crate::site::{PATIENCE, SOURCE_FIRST, Site, Visit, pins, start, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_upgrade_waits_until_the_old_connections_have_ended", stop_and_start),
        trial("an_upgrade_waits_no_longer_than_the_drain_timeout", limit),
        trial("an_upgrade_in_a_hot_restart_is_not_noticed", hot_restart),
        trial("an_upgrade_without_root_takes_the_program_over_as_well", without_root),
        trial("a_service_of_the_old_version_keeps_its_program", other_service),
        trial("an_upgrade_that_fails_leaves_the_old_version_as_it_was", failed_start),
    ]
}

fn old_pins(lab: &Lab) -> PathBuf {
    let cookie = lab.balancer.cookie().to_string();
    Path::new("/sys/fs/bpf/balancer").join(format!("v{}", SCHEMA - 1)).join(cookie)
}

/// From here on what is there is of another version.
fn grow_old(lab: &Lab) -> Result<()> {
    let old = old_pins(lab);
    fs::create_dir_all(old.parent().context("a folder")?)?;
    Ok(fs::rename(pins(lab), old)?)
}

fn stop(daemon: &mut Daemon) -> Result<()> {
    daemon.child.signal(Signal::SIGTERM)?;
    ensure!(daemon.child.wait(PATIENCE)?.success(), "{}", daemon.log());
    Ok(())
}

fn is_replaced(daemon: &Daemon) -> bool {
    daemon.log().contains("is replaced on")
}

fn stop_and_start() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    site.operator(&["set", "server", "s1", "weight", "7"])?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    stop(&mut site.daemon)?;
    grow_old(&site.lab)?;
    site.daemon.restart()?;
    let log = site.daemon.log();
    ensure!(
        log.contains(&format!("version with schema {}", SCHEMA - 1)) && log.contains("drain-timeout"),
        "{log}"
    );
    ensure!(site.daemon.server("s1")?["weight"] == 7, "the operator's intent");
    for (client, home) in homes.iter().enumerate() {
        let visit = site.visit(client, &[])?;
        ensure!(!visit.fast && visit.server == *home, "{visit:?}");
    }
    let why = site.daemon.client(&["explain", "--src", &site.address(0).to_string()])?;
    ensure!(why.stdout.contains("the program of a version with"), "{why:?}");
    // For some beats, as the connection is in use.
    for _ in 0..20 {
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "the old program carries it on");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(!is_replaced(&site.daemon), "{}", site.daemon.log());
    drop(kept);
    wait_until(PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))?;
    wait_until(PATIENCE, "the fast path", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    for (client, home) in homes.iter().enumerate() {
        let visit = site.visit(client, &[])?;
        ensure!(visit.fast && visit.server == *home, "{visit:?}");
    }
    ensure!(!site.daemon.log().contains("are cut"), "{}", site.daemon.log());
    ensure!(!old_pins(&site.lab).exists(), "the old pins are left");
    // It is as if there had never been another one.
    site.daemon.kill();
    ensure!(site.visit(0, &[])?.fast);
    site.daemon.restart()?;
    ensure!(site.visit(1, &[])?.fast);
    Ok(())
}

fn limit() -> Result<()> {
    let mut site = Site::open(&[SOURCE_FIRST, &["--drain-timeout", "2s"]].concat())?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    site.daemon.kill();
    grow_old(&site.lab)?;
    site.daemon.restart()?;
    wait_until(PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))?;
    ensure!(site.daemon.log().contains("are cut"), "{}", site.daemon.log());
    ensure!(kept.get("/", &[]).is_err(), "a connection that nobody knows any more");
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    Ok(())
}

fn hot_restart() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let from = |client: usize| From {
        ns: site.lab.client().ns.clone(),
        source: Some(site.address(client)),
        to: site.lab.client().gateway_at(80),
    };
    // How many they are is the host's matter: enough to notice.
    let (mut kept, mut load) = (Load::default(), Load::default());
    // By the old program, which is to carry it on.
    kept.keep_alive(from(0), Duration::from_millis(5));
    load.new_connections(from(0), Duration::from_millis(10));
    load.new_connections(from(1), Duration::from_millis(10));
    load.new_connections(from(2), Duration::from_millis(10));
    wait_until(PATIENCE, "fast connections", || site.daemon.counter("syn_forwarded").is_ok_and(|n| n > 10))?;
    grow_old(&site.lab)?;
    let before = site.daemon.show(&["info"])?["pid"].clone();
    kill(Pid::from_raw(site.daemon.child.pid().cast_signed()), Signal::SIGUSR2)?;
    wait_until(PATIENCE, "a successor", || {
        site.daemon.show(&["info"]).is_ok_and(|info| info["pid"] != before)
    })?;
    for (client, home) in homes.iter().enumerate() {
        let visit = site.visit(client, &[])?;
        ensure!(!visit.fast && visit.server == *home, "{visit:?}");
    }
    for (name, tally) in kept.end() {
        ensure!(tally.errors.is_empty() && tally.done > 10, "{name}: {tally:?}");
    }
    wait_until(2 * PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))
        .with_context(|| site.daemon.log())?;
    wait_until(PATIENCE, "the fast path", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    for (name, tally) in load.end() {
        ensure!(tally.errors.is_empty() && tally.done > 10, "{name}: {tally:?}\n{}", site.daemon.log());
    }
    let visit = site.visit(1, &[])?;
    ensure!(visit.fast && visit.server == homes[1], "{visit:?}");
    Ok(())
}

fn without_root() -> Result<()> {
    let mut site = Site::open(&[SOURCE_FIRST, &["--user", "nobody"]].concat())?;
    let home = site.introduce(0)?;
    stop(&mut site.daemon)?;
    grow_old(&site.lab)?;
    site.daemon.restart()?;
    wait_until(PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))
        .with_context(|| site.daemon.log())?;
    wait_until(PATIENCE, "the fast path", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    // What it could not remove does not mislead the next one, which can.
    site.daemon.restart()?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}: {}", site.daemon.log());
    ensure!(!old_pins(&site.lab).exists(), "the old pins are left");
    Ok(())
}

/// Two services; one of them is upgraded, and the other one not yet.
fn other_service() -> Result<()> {
    let mut site = Site::open(&[SOURCE_FIRST, &["--drain-timeout", "1s"]].concat())?;
    let mut second = start(&site.lab, "other", 81, SOURCE_FIRST)?;
    site.wait_until_checked(&second)?;
    let (ns, at, source) =
        (site.lab.client().ns.clone(), site.lab.client().gateway_at(81), Some(site.address(1)));
    let of_second = || Visit::of(&http::get(&ns, source, at, "/", &[])?);
    let (home, of_other) = (site.introduce(0)?, of_second()?.server);
    wait_until(PATIENCE, "the other service to be fast", || of_second().is_ok_and(|visit| visit.fast))?;
    let mut kept = http::Connection::open(&ns, source, at)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    stop(&mut site.daemon)?;
    grow_old(&site.lab)?;
    site.daemon.restart()?;
    wait_until(PATIENCE, "what is in the way", || {
        site.daemon.log().contains("processes of that version run: other; upgrade them, too")
    })?;
    // Longer than the limit.
    for _ in 0..20 {
        ensure!(Visit::of(&kept.get("/", &[])?)?.fast && of_second()?.fast, "the other service has noticed");
        let visit = site.visit(0, &[])?;
        ensure!(!visit.fast && visit.server == home, "{visit:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(kept);
    stop(&mut second)?;
    wait_until(PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))?;
    ensure!(site.visit(0, &[])?.fast);
    // It may come much later and finds what it has learned.
    second.restart()?;
    let visit = of_second()?;
    ensure!(visit.fast && visit.server == of_other, "{visit:?}: {}", second.log());
    ensure!(!old_pins(&site.lab).exists(), "the old pins are left");
    Ok(())
}

fn failed_start() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    stop(&mut site.daemon)?;
    grow_old(&site.lab)?;
    let squatter =
        site.lab.balancer.run(|| std::net::TcpListener::bind(site.lab.client().gateway_at(80)))??;
    ensure!(site.daemon.restart().is_err(), "the address is taken");
    ensure!(!pins(&site.lab).exists() && old_pins(&site.lab).join("web/source").exists());
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home);
    drop((squatter, kept));
    site.daemon.restart()?;
    wait_until(PATIENCE, "the program to be replaced", || is_replaced(&site.daemon))?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    Ok(())
}
