//! Who is measured: each path, set up and shown to do what its row says.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Paths;
use crate::lab::nginx::Nginx;
use crate::lab::{Child, Daemon, Lab, Namespace, http, wait_for, wait_for_port};
use crate::privilege::find_program;

const ORIGIN_PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(10);
/// The file of 13 bytes that nginx does not log.
const FILE: &str = "/quiet";
/// Client ports. They are the ones that the fast path may keep, so that a client's next connection with a
/// port finds it still reserved for itself; every row gets the same ones.
const CLIENT_PORTS: &str = "10000 32767";

/// Everyone who is measured, and the networks they live in. Dropped from the top.
pub(super) struct Field {
    pub(super) contenders: Vec<Contender>,
    _origins: Vec<Nginx>,
    pub(super) labs: Vec<Lab>,
}

/// One row of the table.
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) url: String,
    /// How it was started, or that nothing was.
    pub(super) line: String,
    client: Namespace,
    process: Process,
}

/// What serves a row, for as long as it is measured.
enum Process {
    Nobody,
    Balancer { daemon: Daemon, fast: bool },
    Haproxy { _child: Child },
    Nginx { _server: Nginx },
}

impl Field {
    /// The fast path gets a network of its own: no other row is to pay for its program on the interfaces.
    pub(super) fn prepare(paths: Paths, balancer: &Path) -> Result<Self> {
        let mut field = Self { contenders: Vec::new(), _origins: Vec::new(), labs: Vec::new() };
        let plain = field.network()?;
        field.add(direct("direct", &field.labs[plain]))?;
        if paths != Paths::Proxy {
            let with_xdp = field.network()?;
            field.add(fast_path(&field.labs[with_xdp], balancer)?)?;
            // The same interfaces, the program on them passing everything: what is left is the path itself.
            field.add(direct("direct beside XDP", &field.labs[with_xdp]))?;
        }
        if paths != Paths::Fast {
            let lab = &field.labs[plain];
            let proxies = [proxy(lab, balancer)?, haproxy(lab)?, nginx(lab)?];
            for contender in proxies {
                field.add(contender)?;
            }
        }
        Ok(field)
    }

    fn network(&mut self) -> Result<usize> {
        let lab = Lab::star().servers(1).build()?;
        let client = &lab.client().ns;
        client.sysctl("net.ipv4.ip_local_port_range", CLIENT_PORTS)?;
        // Whoever closes first holds the port for a minute; with 64 connections as fast as they go that may
        // be wrk.
        client.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        let server = lab.server(1);
        self._origins.push(Nginx::start(&server.ns, server.at(ORIGIN_PORT), "s1")?);
        self.labs.push(lab);
        Ok(self.labs.len() - 1)
    }

    /// Takes a contender in once it has shown that the origin's answer comes through unchanged.
    fn add(&mut self, contender: Contender) -> Result<()> {
        let to: SocketAddr = contender.url.trim_start_matches("http://").trim_end_matches(FILE).parse()?;
        let answer = http::get(&contender.client, None, to, FILE, &[("Cookie", "SRV=s1")])?;
        let name = contender.name;
        ensure!(
            answer.status == 200 && answer.body.len() == 13,
            "{name} answered {}: {}",
            answer.status,
            answer.text()
        );
        ensure!(answer.header("X-Server") == Some("s1"), "{name}: the answer is not the origin's");
        self.contenders.push(contender);
        Ok(())
    }
}

impl Contender {
    fn new(name: &'static str, lab: &Lab, to: SocketAddr, line: String, process: Process) -> Self {
        Self { name, url: format!("http://{to}{FILE}"), line, client: lab.client().ns.clone(), process }
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
}

fn direct(name: &'static str, lab: &Lab) -> Contender {
    let line = "(nothing: the kernel of the balancer's namespace routes)".to_owned();
    Contender::new(name, lab, lab.server(1).at(ORIGIN_PORT), line, Process::Nobody)
}

fn fast_path(lab: &Lab, executable: &Path) -> Result<Contender> {
    let listen = lab.client().gateway_at(8000);
    let (listen_flag, server) = (listen.to_string(), format!("s1={}", lab.server(1).at(ORIGIN_PORT)));
    let (front, back) = (lab.client().interface.as_str(), lab.server(1).interface.as_str());
    let flags = [
        "--listen",
        &listen_flag,
        "--server",
        &server,
        "--workers",
        "1",
        "--check",
        "tcp", //
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
    ];
    let daemon = Daemon::start(&lab.balancer, executable, "bench-fast", &flags)?;
    wait_until_up(&daemon)?;
    // The first request teaches the source; from then on its connections are fast.
    http::get(&lab.client().ns, None, listen, FILE, &[])?;
    let client = lab.client().address().to_string();
    wait_for(SOON, "the client to be learned", || daemon.affinity("source", &client))?;
    let before = daemon.counter("syn_forwarded")?;
    http::get(&lab.client().ns, None, listen, FILE, &[])?;
    ensure!(daemon.counter("syn_forwarded")? > before, "a known client does not go through the fast path");
    let line = daemon.line();
    Ok(Contender::new("fast path", lab, listen, line, Process::Balancer { daemon, fast: true }))
}

fn proxy(lab: &Lab, executable: &Path) -> Result<Contender> {
    let listen = lab.client().gateway_at(8001);
    let (listen_flag, server) = (listen.to_string(), format!("s1={}", lab.server(1).at(ORIGIN_PORT)));
    let flags = [
        "--listen",
        &listen_flag,
        "--server",
        &server,
        "--workers",
        "1",
        "--check",
        "tcp", //
        "--persist",
        "cookie=SRV,insert,indirect",
    ];
    let daemon = Daemon::start(&lab.balancer, executable, "bench-proxy", &flags)?;
    wait_until_up(&daemon)?;
    let line = daemon.line();
    Ok(Contender::new("balancer proxy", lab, listen, line, Process::Balancer { daemon, fast: false }))
}

fn wait_until_up(daemon: &Daemon) -> Result<()> {
    wait_for(SOON, "the server to be up", || Ok((daemon.server("s1")?["state"] == "up").then_some(())))
}

fn haproxy(lab: &Lab) -> Result<Contender> {
    let program = find_program("haproxy").context("haproxy is missing: cargo xtask setup")?;
    let listen = lab.client().gateway_at(8002);
    let server = lab.server(1).at(ORIGIN_PORT);
    let path = lab.balancer.fresh_path("haproxy.cfg");
    let configuration = format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 60s
    http-reuse always
frontend bench
    bind {listen} backlog 4096
    default_backend bench
backend bench
    cookie SRV insert indirect
    server s1 {server} cookie s1 check inter 2s
"
    );
    fs::write(&path, configuration)?;
    let command = lab.balancer.command(program).args(["-db".as_ref(), "-f".as_ref(), path.as_os_str()]);
    let line = command.line() + "   # nbthread 1, http-reuse always, cookie SRV insert indirect";
    let child = command.spawn()?;
    wait_for_port(&lab.balancer, listen, SOON).with_context(|| format!("haproxy: {}", child.stderr()))?;
    Ok(Contender::new("HAProxy", lab, listen, line, Process::Haproxy { _child: child }))
}

fn nginx(lab: &Lab) -> Result<Contender> {
    let listen = lab.client().gateway_at(8003);
    let origin = lab.server(1).at(ORIGIN_PORT);
    let server = Nginx::start_with(&lab.balancer, listen, "proxy", |folder| {
        format!(
            "    access_log off; proxy_temp_path {}/tmp; keepalive_requests 1000000000; tcp_nodelay on;
    upstream bench {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {listen} backlog=4096;
        location / {{ proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection ''; }}
    }}
",
            folder.display()
        )
    })?;
    let line = "nginx, one process   # proxy_pass with keepalive 64, access_log off".to_owned();
    Ok(Contender::new("nginx proxy", lab, listen, line, Process::Nginx { _server: server }))
}
