//! Who plays, and what can be seen of them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Narrator;
use crate::lab::http::{Connection, Response};
use crate::lab::origin::Origin;
use crate::lab::{Daemon, Forward, Lab, wait_for, wait_until};

/// The balancer's default source ports for what XDP forwards. The proxy's own connections lie above.
const FAST_PORTS: RangeInclusive<u16> = 10_000..=32_767;
const SOON: Duration = Duration::from_secs(5);

/// Dropped from the top: the daemon before the network it serves.
pub(super) struct Stage {
    pub(super) daemon: Daemon,
    _origins: Vec<Origin>,
    access_log: PathBuf,
    balancer: PathBuf,
    pub(super) forward: Forward,
    pub(super) lab: Lab,
}

/// What one request showed.
pub(super) struct Visit {
    pub(super) server: String,
    /// Who the server believes to have talked to.
    pub(super) peer: SocketAddr,
    /// Who has talked to it.
    pub(super) client: SocketAddr,
    /// The value of the cookie that the balancer set, if it did.
    pub(super) set_cookie: Option<String>,
}

/// What can be counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    /// SYNs that XDP forwarded, of `show info`.
    pub(super) forwarded: u64,
    /// Lines about connections of XDP in the access log.
    pub(super) told: usize,
    /// The other lines in it.
    pub(super) logged: usize,
}

impl Stage {
    pub(super) fn set(balancer: &Path, forward: Forward, narrator: &mut Narrator) -> Result<Self> {
        narrator
            .prepare("network namespaces: one client host with four addresses, the balancer, two servers");
        if forward == Forward::Dsr {
            narrator.prepare(
                "and a link from each server to the client, by which it answers from the balancer's address",
            );
        }
        let lab = Lab::star().client_addresses(4).servers(2).forward(forward).build()?;
        let mut origins = Vec::new();
        for (number, host) in (1..).zip(&lab.servers) {
            let name = format!("s{number}");
            let at = forward.origin(host, port(forward));
            narrator.prepare(format!("origin {name} on {at}"));
            origins.push(Origin::start(&host.ns, at, &name)?);
        }
        let access_log = lab.balancer.fresh_path("access.log");
        let log = access_log.to_string_lossy().into_owned();
        let interfaces = lab.clients.iter().chain(&lab.servers).map(|host| host.interface.as_str());
        let xdp: Vec<&str> = interfaces.flat_map(|interface| ["--xdp", interface]).collect();
        let service = service_flags(&lab, forward, lab.client().gateway_at(80));
        let mut flags: Vec<&str> = service.iter().map(String::as_str).collect();
        flags.extend(xdp);
        flags.extend(["--fast-path", "always", "--forward", forward.word(), "--access-log", &log]);
        let daemon = Daemon::start(&lab.balancer, balancer, "demo", &flags)?;
        narrator.prepare(daemon.line());
        let stage =
            Self { daemon, _origins: origins, access_log, balancer: balancer.to_path_buf(), forward, lab };
        stage.wait_until_healthy(&stage.daemon)?;
        Ok(stage)
    }

    /// A second instance without XDP, to compare with.
    pub(super) fn proxy_only(&self, at: SocketAddr) -> Result<Daemon> {
        let flags = service_flags(&self.lab, self.forward, at);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&self.lab.balancer, &self.balancer, "demo-proxy", &flags)?;
        self.wait_until_healthy(&daemon)?;
        Ok(daemon)
    }

    /// The address of the service.
    pub(super) fn front(&self) -> SocketAddr {
        self.lab.client().gateway_at(80)
    }

    /// One of the client's addresses, as if each were a person.
    pub(super) fn person(&self, index: usize) -> Ipv4Addr {
        self.lab.client().addresses[index]
    }

    pub(super) fn connect(&self, from: Ipv4Addr) -> Result<Connection> {
        Connection::open(&self.lab.client().ns, Some(from), self.front())
    }

    /// One request on a connection of its own, with the persistence cookie if one is given.
    pub(super) fn visit(&self, from: Ipv4Addr, cookie: Option<&str>) -> Result<Visit> {
        visit_on(&mut self.connect(from)?, cookie)
    }

    pub(super) fn counts(&self) -> Result<Counts> {
        Ok(Counts {
            forwarded: self.daemon.counter("syn_forwarded")?,
            told: self.log_lines(true),
            logged: self.log_lines(false),
        })
    }

    /// The access log is written after the answer: waits for one more line than `before`.
    pub(super) fn logged_after(&self, before: Counts) -> Result<bool> {
        let line = wait_until(SOON, "a line in the access log", || self.log_lines(false) > before.logged);
        crate::lab::interrupt::check()?;
        Ok(line.is_ok())
    }

    /// The same for a connection that was fast and has ended; true when nothing else was logged.
    pub(super) fn told_after(&self, before: Counts) -> Result<bool> {
        let line = wait_until(SOON, "a line in the access log", || self.log_lines(true) > before.told);
        crate::lab::interrupt::check()?;
        Ok(line.is_ok() && self.log_lines(false) == before.logged)
    }

    pub(super) fn last_log_line(&self) -> String {
        self.log().lines().last().unwrap_or_default().to_owned()
    }

    /// The entry that `show table source` has for this address, once it is there.
    pub(super) fn learned(&self, address: Ipv4Addr) -> Result<String> {
        let what = format!("{address} in table source");
        wait_for(SOON, &what, || self.daemon.affinity("source", &address.to_string()))
    }

    /// The entry once it names `server`, else whatever it names when patience ends.
    pub(super) fn learned_as(&self, address: Ipv4Addr, server: &str) -> Result<String> {
        let _ =
            wait_until(SOON, "the entry to move", || self.learned(address).is_ok_and(|name| name == server));
        self.learned(address)
    }

    pub(super) fn wait_until_healthy(&self, daemon: &Daemon) -> Result<()> {
        wait_for(SOON * 2, "both servers to be up", || {
            let states = [daemon.server("s1")?, daemon.server("s2")?];
            Ok(states.iter().all(|row| row["state"] == "up" && row["health"] == "up").then_some(()))
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.access_log).unwrap_or_default()
    }

    /// Lines about fast connections, or the others.
    fn log_lines(&self, fast: bool) -> usize {
        self.log().lines().filter(|line| line.contains(" XDP - ") == fast).count()
    }
}

impl Visit {
    /// True when the server's peer is a port that only XDP uses, or the client itself.
    pub(super) fn came_fast(&self) -> bool {
        FAST_PORTS.contains(&self.peer.port()) || self.peer == self.client
    }
}

pub(super) fn visit_on(connection: &mut Connection, cookie: Option<&str>) -> Result<Visit> {
    let cookie = cookie.map(|value| format!("SRV={value}"));
    let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("Cookie", cookie.as_str())).collect();
    let client = connection.local_addr()?;
    read(&connection.get("/", &headers)?, client)
}

fn read(answer: &Response, client: SocketAddr) -> Result<Visit> {
    let text = answer.text();
    Ok(Visit {
        server: answer.word("server").with_context(|| format!("status {}: {text}", answer.status))?,
        peer: answer.peer().with_context(|| format!("no peer in {text}"))?,
        client,
        set_cookie: answer.all("Set-Cookie").find_map(|line| {
            let value = line.strip_prefix("SRV=")?;
            Some(value.split(';').next().unwrap_or(value).to_owned())
        }),
    })
}

/// That of the service where nobody can change it.
fn port(forward: Forward) -> u16 {
    if forward == Forward::Dsr { 80 } else { 8080 }
}

fn service_flags(lab: &Lab, forward: Forward, listen: SocketAddr) -> Vec<String> {
    let mut flags = vec!["--listen".to_owned(), listen.to_string()];
    for (number, host) in (1..).zip(&lab.servers) {
        flags.extend(["--server".to_owned(), format!("s{number}={}", host.at(port(forward)))]);
    }
    let rest = "--persist source --persist cookie=SRV,insert,indirect --check tcp --check-interval 500ms --workers 1";
    flags.extend(rest.split(' ').map(str::to_owned));
    flags
}
