//! The story, step by step. Client A is followed all the way; B, C and D come by.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::narrator::Narrator;
use super::stage::{Counts, Stage, Visit, visit_on};
use crate::lab::Forward;
use crate::lab::http::Connection;
use crate::lab::wrk::Load;

const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 3;

pub(super) fn tell(stage: &mut Stage, say: &mut Narrator) -> Result<()> {
    let [a, b, c, d] = [0, 1, 2, 3].map(|index| stage.person(index));
    let home = first_request(stage, say, a)?;
    second_connection(stage, say, a, &home)?;
    let other = another_client(stage, say, b, &home)?;
    let kept = crash_and_restart(stage, say, a, &home)?;
    cookie_from_elsewhere(stage, say, d, &other)?;
    drop(kept);
    drain(stage, say, [a, c], &home)?;
    maintenance(stage, say, a, [&home, &other])?;
    throughput(stage, say, a)
}

fn first_request(stage: &Stage, say: &mut Narrator, a: Ipv4Addr) -> Result<String> {
    say.chapter(format!("The first request of client A ({a}): unknown, so it goes through the proxy"))?;
    let before = stage.counts()?;
    let visit = stage.visit(a, None)?;
    through_the_proxy(stage, say, &visit, before)?;
    let cookie = visit.set_cookie.as_deref();
    say.expect(cookie == Some(&visit.server), "the answer sets the cookie", set_cookie(&visit))?;
    let learned = stage.learned(a)?;
    say.expect(learned == visit.server, "show table source: learned", format!("{a} -> {learned}"))?;
    Ok(visit.server)
}

fn second_connection(stage: &Stage, say: &mut Narrator, a: Ipv4Addr, home: &str) -> Result<()> {
    say.chapter(format!("The next connection of A: known, so XDP sends it straight to {home}"))?;
    let before = stage.counts()?;
    let visit = stage.visit(a, None)?;
    on_the_fast_path(stage, say, &visit, Some(before))?;
    say.expect(visit.server == home, "the same server answers", &visit.server)
}

fn another_client(stage: &Stage, say: &mut Narrator, b: Ipv4Addr, home: &str) -> Result<String> {
    say.chapter(format!("Client B ({b}) comes from another address: proxy, and balanced"))?;
    let before = stage.counts()?;
    let visit = stage.visit(b, None)?;
    through_the_proxy(stage, say, &visit, before)?;
    say.expect(visit.server != home, "balanced to the other server", &visit.server)?;
    say.expect(
        visit.set_cookie.as_deref() == Some(&visit.server),
        "with a cookie of its own",
        set_cookie(&visit),
    )?;
    Ok(visit.server)
}

/// Returns the connection that lived through it all.
fn crash_and_restart(stage: &mut Stage, say: &mut Narrator, a: Ipv4Addr, home: &str) -> Result<Connection> {
    say.chapter("kill -9: neither what was learned nor what is running depends on the process")?;
    let mut kept = stage.connect(a)?;
    let address = kept.local_addr()?.to_string();
    let visit = visit_on(&mut kept, None)?;
    say.expect(
        visit.came_fast(),
        &format!("A opens a fast connection ({address}) and keeps it"),
        peer(&visit),
    )?;
    let flows = stage.daemon.show(&["flows"])?;
    let flow =
        flows.as_array().and_then(|flows| flows.iter().find(|flow| flow["client"] == address.as_str()));
    let seen = flow.map_or_else(
        || flows.to_string(),
        |flow| format!("{address} -> {} as {}", flow["server"], flow["snat"]),
    );
    say.expect(flow.is_some_and(|flow| flow["server"] == home), "show flows: it is there", seen)?;

    let pid = stage.daemon.child.pid();
    stage.daemon.kill();
    say.tell(format!("kill -9 {pid}"));
    let visit = visit_on(&mut kept, None)?;
    say.expect(visit.server == home, "the open connection still answers, without a daemon", &visit.server)?;
    let visit = stage.visit(a, None)?;
    on_the_fast_path(stage, say, &visit, None)?;
    say.expect(visit.server == home, "and it lands where A belongs", &visit.server)?;

    stage.daemon.restart()?;
    stage.wait_until_healthy(&stage.daemon)?;
    say.tell(format!("restarted with the same flags: pid {}", stage.daemon.child.pid()));
    let learned = stage.learned(a)?;
    say.expect(learned == home, "show table source: nothing was forgotten", format!("{a} -> {learned}"))?;
    let visit = visit_on(&mut kept, None)?;
    say.expect(visit.server == home, "the old connection still answers", peer(&visit))?;
    Ok(kept)
}

fn cookie_from_elsewhere(stage: &Stage, say: &mut Narrator, d: Ipv4Addr, other: &str) -> Result<()> {
    say.chapter(format!("B's browser turns up at an unknown address ({d}) with its cookie: that decides"))?;
    let before = stage.counts()?;
    let visit = stage.visit(d, Some(other))?;
    through_the_proxy(stage, say, &visit, before)?;
    say.expect(
        visit.server == other,
        &format!("Cookie: SRV={other} is honoured after the restart"),
        &visit.server,
    )?;
    say.expect(visit.set_cookie.is_none(), "and need not be set again", set_cookie(&visit))
}

fn drain(stage: &Stage, say: &mut Narrator, [a, c]: [Ipv4Addr; 2], home: &str) -> Result<()> {
    say.chapter(format!("set server {home} drain: who belongs there stays, who is new goes elsewhere"))?;
    stage.daemon.set_server(home, "drain")?;
    let before = stage.counts()?;
    let visit = stage.visit(a, Some(home))?;
    through_the_proxy(stage, say, &visit, before)?;
    say.expect(visit.server == home, "A stays", &visit.server)?;
    let visit = stage.visit(c, None)?;
    say.expect(visit.server != home, &format!("client C ({c}), new, goes elsewhere"), &visit.server)
}

fn maintenance(stage: &Stage, say: &mut Narrator, a: Ipv4Addr, [home, other]: [&str; 2]) -> Result<()> {
    say.chapter(format!("set server {home} maint: A moves, once, and is told so"))?;
    stage.daemon.set_server(home, "maint")?;
    let visit = stage.visit(a, Some(home))?;
    say.expect(visit.server == other, "A is served by the other server", &visit.server)?;
    say.expect(visit.set_cookie.as_deref() == Some(other), "with a new cookie", set_cookie(&visit))?;
    let learned = stage.learned_as(a, other)?;
    say.expect(learned == other, "show table source: the entry moved along", format!("{a} -> {learned}"))?;
    stage.daemon.set_server(home, "ready")?;
    stage.wait_until_healthy(&stage.daemon)?;
    let before = stage.counts()?;
    let visit = stage.visit(a, Some(other))?;
    say.expect(
        visit.server == other,
        &format!("{home} is ready again, and A stays where it now belongs"),
        &visit.server,
    )?;
    on_the_fast_path(stage, say, &visit, Some(before))
}

/// Figures only: how fast is a matter of the machine.
fn throughput(stage: &Stage, say: &mut Narrator, a: Ipv4Addr) -> Result<()> {
    say.chapter(format!("Throughput of A: {CONNECTIONS} connections, keep-alive, {SECONDS} s each"))?;
    let at = stage.lab.client().gateway_at(81);
    let proxy = stage.proxy_only(at)?;
    let home = stage.learned(a)?;
    let mut rates = Vec::new();
    for (path, to) in [("proxy", at), ("fast path", stage.front())] {
        let forwarded = stage.counts()?.forwarded;
        let url = format!("http://{to}/bytes/13");
        let headers = vec![format!("Cookie: SRV={home}")];
        let load = Load { url, headers, connections: CONNECTIONS, seconds: SECONDS, core: None };
        let figures = load.run(&stage.lab.client().ns)?;
        let forwarded = stage.counts()?.forwarded - forwarded;
        say.tell(format!(
            "{path:<9} {:>9.0} requests/s   p50 {:?}   p99 {:?}   connections forwarded by XDP: {forwarded}",
            figures.rate, figures.p50, figures.p99
        ));
        rates.push(figures.rate);
    }
    drop(proxy);
    say.tell(format!("fast path / proxy: {:.2}", rates[1] / rates[0]));
    Ok(())
}

fn through_the_proxy(stage: &Stage, say: &Narrator, visit: &Visit, before: Counts) -> Result<()> {
    say.expect(!visit.came_fast(), "the server's peer is a connection of the proxy's own", peer(visit))?;
    say.expect(stage.logged_after(before)?, "the access log has a new line", stage.last_log_line())?;
    let now = stage.counts()?.forwarded;
    say.expect(
        now == before.forwarded,
        "XDP forwarded no SYN",
        format!("syn_forwarded {} -> {now}", before.forwarded),
    )
}

/// Counters can only be asked for while the daemon lives.
fn on_the_fast_path(stage: &Stage, say: &Narrator, visit: &Visit, before: Option<Counts>) -> Result<()> {
    let seen = match stage.forward {
        Forward::Nat => "the server's peer has a port that only XDP uses",
        Forward::Gateway | Forward::Dsr => "the server's peer is the client itself",
    };
    say.expect(visit.came_fast(), seen, peer(visit))?;
    if stage.forward == Forward::Dsr && before.is_some() {
        let answers = stage.daemon.counter("to_client")?;
        say.expect(answers == 0, "no answer has passed the balancer", format!("to_client {answers}"))?;
    }
    say.expect(visit.set_cookie.is_none(), "nothing touched the answer", set_cookie(visit))?;
    let Some(before) = before else { return Ok(()) };
    let now = stage.counts()?.forwarded;
    let seen = format!("syn_forwarded {} -> {now}", before.forwarded);
    say.expect(now > before.forwarded, "XDP forwarded the SYN", seen)?;
    say.expect(
        stage.told_after(before)?,
        "the access log has a line for the connection, none for the request",
        stage.last_log_line(),
    )
}

fn peer(visit: &Visit) -> String {
    format!("{} saw {}", visit.server, visit.peer)
}

fn set_cookie(visit: &Visit) -> String {
    visit.set_cookie.as_ref().map_or("no Set-Cookie".to_owned(), |value| format!("Set-Cookie: SRV={value}"))
}
