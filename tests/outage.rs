//! A server that dies under load: who notices, and who must not.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of hot restarts")]
mod load;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use load::{From, Load};
use nix::sys::signal::Signal;
use site::{PATIENCE, Site, trial};
use xtask::lab::http::{Connection, Response};
use xtask::lab::wait_until;

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![trial("a_server_that_is_killed_under_load_loses_what_cannot_be_repeated", killed)];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Requests of each kind that the dying server has and has not answered.
const CAUGHT: usize = 4;

fn killed() -> Result<()> {
    let site = Site::open(&["--persist", "cookie=SRV,insert,indirect"])?;
    let (dying, well) = (site.nginx("s1"), site.nginx("s2"));
    load::echo(UnixListener::bind(well.echo_socket())?);
    // From the balancer's own host no packet passes XDP.
    let from = From { ns: site.lab.balancer.clone(), source: None, to: site.lab.client().gateway_at(80) };
    let connect = || Connection::open(&from.ns, None, from.to);
    let (at_s1, at_s2) = (("Cookie", "SRV=s1"), ("Cookie", "SRV=s2"));
    let mut websocket = connect()?;
    let upgrade = [at_s2, ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    ensure!(websocket.get("/echo", &upgrade)?.status == 101);
    echo(&mut websocket, 1)?;
    let mut download = connect()?;
    download.send(b"GET /slow HTTP/1.1\r\nHost: lab\r\nCookie: SRV=s2\r\n\r\n")?;
    let mut piece = [0; 32 * 1024];
    download.stream().read_exact(&mut piece)?;
    let mut load = Load::default();
    for _ in 0..2 {
        load.new_connections(from.clone(), Duration::from_millis(5));
        load.keep_alive(from.clone(), Duration::from_millis(1));
    }

    // It takes connections and says nothing any more.
    dying.child.signal(Signal::SIGSTOP)?;
    let mut caught = Vec::new();
    for _ in 0..CAUGHT {
        for (method, body) in [("GET", ""), ("POST", "once only")] {
            let mut client = connect()?;
            caught.push((
                method,
                thread::spawn(move || client.request(method, "/", &[at_s1], body.as_bytes())),
            ));
        }
    }
    wait_until(PATIENCE, "requests that the server has", || {
        let s1 = site.daemon.server("s1");
        s1.is_ok_and(|s1| s1["in_flight"].as_u64().is_some_and(|count| count >= 2 * CAUGHT as u64))
    })?;
    let failed = || site.daemon.show(&["info"])?["responses_5xx"].as_u64().context("a counter");
    let before = failed()?;
    dying.child.kill();
    for (method, client) in caught {
        let answer: Response =
            client.join().expect("no panic").with_context(|| format!("{method}, caught"))?;
        if method == "GET" {
            ensure!(answer.status == 200, "GET: {} {}", answer.status, answer.text());
            ensure!(answer.header("X-Server") == Some("s2"));
            ensure!(answer.header("Set-Cookie") == Some("SRV=s2; path=/"));
        } else {
            ensure!(answer.status == 502, "POST: {} {}", answer.status, answer.text());
        }
    }
    site.wait_for_state("s1", "down")?;
    echo(&mut websocket, 2)?;
    for (name, tally) in load.end() {
        ensure!(tally.errors.is_empty(), "{name}, {} done: {:?}", tally.done, tally.errors);
        ensure!(tally.done > 0, "{name}: nothing was tried");
    }
    let lost = failed()? - before;
    ensure!(lost == CAUGHT as u64, "{lost} are counted");
    // More than can have been under way.
    for _ in 0..4 {
        download.stream().read_exact(&mut piece).context("the download")?;
    }
    echo(&mut websocket, 3)?;
    ensure!(site.daemon.server("s1")?["in_flight"] == 0);
    Ok(())
}

fn echo(websocket: &mut Connection, word: u64) -> Result<()> {
    let (said, mut heard) = (word.to_be_bytes(), [0; 8]);
    websocket.send(&said)?;
    websocket.stream().read_exact(&mut heard)?;
    ensure!(said == heard, "the echo of {said:?} is {heard:?}");
    Ok(())
}
