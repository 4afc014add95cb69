//! Who is measured: each path, set up and shown to do what its row says.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::measure::Body;
use crate::lab::nginx::Nginx;
use crate::lab::{Child, Daemon, Forward, Lab, Namespace, http, wait_for};

pub(super) const ORIGIN_PORT: u16 = 8080;
pub(super) const ORIGIN_NAME: &str = "s1";
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Client ports. They are the ones that the fast path may keep, so that a client's next connection with a
/// port finds it still reserved for itself; every row gets the same ones.
const CLIENT_PORTS: &str = "10000 32767";

/// One row of the table.
pub(super) struct Contender {
    pub(super) name: &'static str,
    /// Where its clients connect.
    pub(super) address: SocketAddr,
    /// How it was started and set up, or that nothing was.
    pub(super) lines: Vec<String>,
    client: Namespace,
    process: Process,
    /// An access log that would fill the disk.
    log: Option<PathBuf>,
}

/// What serves a row, for as long as it is measured.
pub(super) enum Process {
    Nobody,
    Balancer { daemon: Daemon, fast: bool },
    Haproxy { _child: Child },
    Nginx { _server: Nginx },
}

impl Contender {
    pub(super) fn new(
        name: &'static str,
        lab: &Lab,
        address: SocketAddr,
        lines: Vec<String>,
        process: Process,
    ) -> Self {
        Self { name, address, lines, client: lab.client().ns.clone(), process, log: None }
    }

    pub(super) fn with_log(self, log: PathBuf) -> Self {
        Self { log: Some(log), ..self }
    }

    pub(super) fn client(&self) -> &Namespace {
        &self.client
    }

    pub(super) fn is_fast_path(&self) -> bool {
        matches!(self.process, Process::Balancer { fast: true, .. })
    }

    /// Connections that XDP has forwarded; 0 for everyone but the fast path.
    pub(super) fn forwarded(&self) -> Result<u64> {
        match &self.process {
            Process::Balancer { daemon, fast: true } => daemon.counter("syn_forwarded"),
            _ => Ok(0),
        }
    }

    /// Fails unless the origin's answers come through unchanged.
    pub(super) fn prove(&self, bodies: &[Body]) -> Result<()> {
        let name = self.name;
        for body in bodies {
            let answer = http::get(&self.client, None, self.address, body.path(), &[("Cookie", "SRV=s1")])?;
            ensure!(answer.status == 200, "{name} answered {}: {}", answer.status, answer.text());
            ensure!(
                answer.body.len() == body.length(),
                "{name}: {} of {} bytes",
                answer.body.len(),
                body.length()
            );
            ensure!(answer.header("X-Server") == Some(ORIGIN_NAME), "{name}: the answer is not the origin's");
        }
        match &self.log {
            Some(log) => {
                let is_written = || Ok((fs::metadata(log)?.len() > 0).then_some(()));
                wait_for(SOON, "a line in the access log", is_written)
            }
            None => Ok(()),
        }
    }

    /// What was logged until now has served its purpose.
    pub(super) fn empty_log(&self) -> Result<()> {
        if let Some(log) = &self.log {
            OpenOptions::new().write(true).truncate(true).open(log)?;
        }
        Ok(())
    }
}

/// A client, the balancer's namespace, and a host for the origin.
pub(super) fn network(forward: Forward) -> Result<Lab> {
    let lab = Lab::star().servers(1).forward(forward).build()?;
    let client = &lab.client().ns;
    client.sysctl("net.ipv4.ip_local_port_range", CLIENT_PORTS)?;
    // Whoever closes first holds the port for a minute; with 64 connections as fast as they go that may
    // be wrk.
    client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    Ok(lab)
}

pub(super) fn direct(name: &'static str, lab: &Lab) -> Contender {
    let line = "(nothing: the kernel of the balancer's namespace routes)".to_owned();
    Contender::new(name, lab, lab.server(1).at(ORIGIN_PORT), vec![line], Process::Nobody)
}

pub(super) fn fast_path(lab: &Lab, executable: &Path, forward: Forward) -> Result<Contender> {
    // Nobody changes the port with `dsr`.
    let listen = lab.client().gateway_at(if forward == Forward::Dsr { ORIGIN_PORT } else { 8000 });
    let (front, back) = (lab.client().interface.as_str(), lab.server(1).interface.as_str());
    let flags = [
        "--persist",
        "source",
        "--persist",
        "cookie=SRV,insert,indirect", //
        "--xdp",
        front,
        "--xdp",
        back,
        "--fast-path",
        "always",
        "--forward",
        forward.word(),
    ];
    let daemon = balancer(lab, executable, "bench-fast", listen, &flags)?;
    // The first request teaches the source; from then on its connections are fast.
    http::get(&lab.client().ns, None, listen, Body::Small.path(), &[])?;
    let client = lab.client().address().to_string();
    wait_for(SOON, "the client to be learned", || daemon.affinity("source", &client))?;
    let before = daemon.counter("syn_forwarded")?;
    http::get(&lab.client().ns, None, listen, Body::Small.path(), &[])?;
    ensure!(daemon.counter("syn_forwarded")? > before, "a known client does not go through the fast path");
    let line = daemon.line();
    Ok(Contender::new("fast path", lab, listen, vec![line], Process::Balancer { daemon, fast: true }))
}

/// The daemon with what every row of it has: one worker, one server, checked by connecting.
pub(super) fn balancer(
    lab: &Lab,
    executable: &Path,
    name: &str,
    listen: SocketAddr,
    flags: &[&str],
) -> Result<Daemon> {
    let (listen, server) = (listen.to_string(), format!("s1={}", lab.server(1).at(ORIGIN_PORT)));
    let basics = ["--listen", &listen, "--server", &server, "--workers", "1", "--check", "tcp"];
    let daemon = Daemon::start(&lab.balancer, executable, name, &[&basics, flags].concat())?;
    wait_for(SOON, "the server to be up", || Ok((daemon.server("s1")?["state"] == "up").then_some(())))?;
    Ok(daemon)
}
