//! One program for several services: what happens to one is not noticed by another.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use xtask::lab::process::copy_program;
use xtask::lab::{Daemon, wait_until};

use crate::load::{From, Load};
use crate::site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, all_flags, start, trial};

pub fn trials() -> Vec<Trial> {
    vec![trial("whatever_happens_to_one_service_another_does_not_notice", unnoticed)]
}

fn unnoticed() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    site.introduce(0)?;
    let from = |client: usize| From {
        ns: site.lab.client().ns.clone(),
        source: Some(site.address(client)),
        to: site.lab.client().gateway_at(80),
    };
    let mut load = Load::default();
    load.download("a long answer by XDP", from(0), "/slow", 1 << 20);
    load.keep_alive(from(0), Duration::from_millis(2));
    load.known_client(from(0), Duration::from_millis(10));
    load.new_connections(from(1), Duration::from_millis(20));
    load.keep_alive(from(2), Duration::from_millis(2));
    wait_until(PATIENCE, "the download to run", || {
        site.daemon.show(&["flows"]).is_ok_and(|flows| flows.as_array().is_some_and(|rows| rows.len() >= 2))
    })?;
    beside(&site)?;
    let mut excused = 0;
    for (name, mut tally) in load.end() {
        // The client may come back to the port of its first visit, which the stack still remembers.
        tally.errors.retain(|error| {
            !error.starts_with("it went through the proxy") || {
                excused += 1;
                false
            }
        });
        ensure!(tally.errors.is_empty() && tally.done > 0, "{name}, {} done: {:?}", tally.done, tally.errors);
    }
    ensure!(excused <= site.daemon.counter("pass_socket_exists")?, "{excused} went through the proxy");
    Ok(())
}

/// The life of another service, with all that may happen in one.
fn beside(site: &Site) -> Result<()> {
    let lab = &site.lab;
    let program = lab.balancer.fresh_path("balancer");
    copy_program(Path::new(BALANCER), &program)?;
    let flags = all_flags(lab, 81, SOURCE_FIRST);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut other = Daemon::start(&lab.balancer, &program, "other", &flags)?;
    other.kill();
    other.restart()?;
    // Another file in the place of the program, and a hot restart.
    let new = lab.balancer.fresh_path("balancer");
    copy_program(Path::new(BALANCER), &new)?;
    std::fs::rename(new, &program)?;
    let before = other.show(&["info"])?["pid"].clone();
    other.child.signal(Signal::SIGUSR2)?;
    wait_until(PATIENCE, "a successor", || other.show(&["info"]).is_ok_and(|info| info["pid"] != before))?;
    let force = ["detach", "--name", "other", "--force"];
    let done = lab.balancer.command(BALANCER).args(force).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    drop(other);
    // Its successor is no child of ours.
    let pid = |daemon: &Daemon| -> Result<i32> {
        Ok(i32::try_from(daemon.show(&["info"])?["pid"].as_i64().unwrap_or_default())?)
    };
    let other = start(
        lab,
        "third",
        82,
        &[SOURCE_FIRST, &["--datapath-hold", "3s", "--deny", "192.0.2.0/24"]].concat(),
    );
    let mut other = other?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid(&other)?), Signal::SIGTERM)?;
    other.child.wait(PATIENCE)?;
    let failing = all_flags(lab, 82, &[SOURCE_FIRST, &["--xdp", "nonsense0"]].concat());
    let failing: Vec<&str> = failing.iter().map(String::as_str).collect();
    ensure!(Daemon::start(&lab.balancer, Path::new(BALANCER), "third", &failing).is_err());
    other.restart()?;
    other.child.signal(Signal::SIGTERM)?;
    other.child.wait(PATIENCE)?;
    let done = lab.balancer.command(BALANCER).args(["detach", "--name", "third"]).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    Ok(())
}
