//! A site: clients, the balancer with XDP on every link, and real nginx servers, each in a namespace of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use balancer_ebpf::abi::SCHEMA;
use libtest_mimic::{Failed, Trial};
pub use xtask::lab::Forward;
use xtask::lab::http::{self, Connection, Response};
use xtask::lab::nginx::Nginx;
use xtask::lab::star::Star;
use xtask::lab::{self, Daemon, Lab, wait_until};

pub const BALANCER: &str = env!("CARGO_BIN_EXE_balancer");
/// As long as nobody waits for it where all is well: for what has to happen on a host that others keep busy, too.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Ports that only XDP uses towards servers.
const SNAT_PORTS: std::ops::RangeInclusive<u16> = 10_000..=32_767;

/// Cookies for everyone, and source affinity first: exact, and fast.
pub const SOURCE_FIRST: &[&str] =
    &["--persist", "source", "--persist", "cookie=SRV,insert,indirect", "--fast-path", "always"];

/// A test that needs namespaces; ignored, visibly, where none can be made, and failed in CI.
pub fn trial(name: &str, story: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let missing = lab::unavailable();
    let ignored = missing.is_some() && std::env::var_os("CI").is_none();
    let run = move || match missing {
        Some(reason) => Err(Failed::from(reason)),
        None => story().map_err(|error| Failed::from(format!("{error:#}"))),
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

/// Dropped in the order of its fields: the daemon before its servers before the network.
pub struct Site {
    pub daemon: Daemon,
    pub servers: Vec<Nginx>,
    pub lab: Lab,
}

impl Site {
    /// Two servers and one client host with three addresses.
    pub fn open(flags: &[&str]) -> Result<Self> {
        Self::open_in(&Lab::star().client_addresses(3), flags)
    }

    pub fn open_by(forward: Forward, flags: &[&str]) -> Result<Self> {
        Self::open_in(
            &Lab::star().client_addresses(3).forward(forward),
            &[flags, &["--forward", forward.word()]].concat(),
        )
    }

    pub fn open_in(star: &Star, flags: &[&str]) -> Result<Self> {
        let lab = star.build()?;
        let servers = start_servers_for(&lab, flags)?;
        let daemon = start(&lab, "web", 80, flags)?;
        let site = Self { daemon, servers, lab };
        site.wait_until_checked(&site.daemon)?;
        Ok(site)
    }

    /// A client's address, counted from 0.
    pub fn address(&self, client: usize) -> Ipv4Addr {
        self.lab.client().addresses[client]
    }

    /// The address of the service.
    pub fn front(&self) -> SocketAddr {
        self.lab.client().gateway_at(80)
    }

    /// One request over a connection of its own.
    pub fn visit(&self, client: usize, headers: &[(&str, &str)]) -> Result<Visit> {
        let source = Some(self.address(client));
        let response = http::get(&self.lab.client().ns, source, self.front(), "/", headers)?;
        Visit::of(&response)
    }

    pub fn connect(&self, client: usize) -> Result<Connection> {
        Connection::open(&self.lab.client().ns, Some(self.address(client)), self.front())
    }

    /// The first visit of a client, after which it is known.
    pub fn introduce(&self, client: usize) -> Result<String> {
        let visit = self.visit(client, &[])?;
        ensure!(!visit.fast, "an unknown client went past the proxy");
        self.wait_until_learned(client, &visit.server)?;
        Ok(visit.server)
    }

    /// A client command, which is to succeed.
    pub fn operator(&self, words: &[&str]) -> Result<()> {
        let output = self.daemon.client(&[words, &["--name", "web"]].concat())?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(())
    }

    pub fn wait_until_learned(&self, client: usize, server: &str) -> Result<()> {
        let key = self.address(client).to_string();
        wait_until(PATIENCE, &format!("{key} -> {server} in the table"), || {
            self.daemon.affinity("source", &key).is_ok_and(|found| found.as_deref() == Some(server))
        })
    }

    pub fn wait_until_checked(&self, daemon: &Daemon) -> Result<()> {
        wait_until(PATIENCE, "the first health checks", || {
            daemon.show(&["servers"]).is_ok_and(|servers| {
                servers.as_array().is_some_and(|all| all.iter().all(|server| server["health"] == "up"))
            })
        })
    }

    pub fn wait_for_state(&self, server: &str, state: &str) -> Result<()> {
        wait_until(PATIENCE, &format!("{server} to be {state}"), || {
            self.daemon.server(server).is_ok_and(|row| row["state"] == state)
        })
    }

    /// The server process of that name.
    pub fn nginx(&self, name: &str) -> &Nginx {
        self.servers.iter().find(|server| server.name == name).expect("a server of this site")
    }

    /// The name of the other of two servers.
    pub fn other(&self, name: &str) -> &str {
        &self.servers.iter().find(|server| server.name != name).expect("two servers").name
    }

    /// The folder of this site's pins.
    pub fn pins(&self) -> std::path::PathBuf {
        pins(&self.lab)
    }
}

pub fn pins(lab: &Lab) -> std::path::PathBuf {
    Path::new("/sys/fs/bpf/balancer").join(format!("v{SCHEMA}")).join(lab.balancer.cookie().to_string())
}

/// The port of servers: that of the service, if nobody can change it.
fn server_port(flags: &[&str]) -> u16 {
    if flags.contains(&Forward::Dsr.word()) { 80 } else { 8080 }
}

/// Those that answer directly listen on the service's address as well.
fn start_servers_for(lab: &Lab, flags: &[&str]) -> Result<Vec<Nginx>> {
    if server_port(flags) == 8080 {
        return start_servers(lab);
    }
    let hosts = lab.servers.iter().enumerate();
    let any = SocketAddr::from(([0, 0, 0, 0], server_port(flags)));
    hosts.map(|(n, host)| Nginx::start(&host.ns, any, &format!("s{}", n + 1))).collect()
}

pub fn start_servers(lab: &Lab) -> Result<Vec<Nginx>> {
    let hosts = lab.servers.iter().enumerate();
    hosts.map(|(n, host)| Nginx::start(&host.ns, host.at(8080), &format!("s{}", n + 1))).collect()
}

/// A balancer on `port` with XDP on every link and all servers of the laboratory.
pub fn start(lab: &Lab, name: &str, port: u16, flags: &[&str]) -> Result<Daemon> {
    let flags = all_flags(lab, port, flags);
    Daemon::start(
        &lab.balancer,
        Path::new(BALANCER),
        name,
        &flags.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

pub fn all_flags(lab: &Lab, port: u16, flags: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut flag = |name: &str, value: String| all.extend([name.to_owned(), value]);
    for client in &lab.clients {
        flag("--listen", client.gateway_at(port).to_string());
        flag("--xdp", client.interface.clone());
    }
    for (n, server) in lab.servers.iter().enumerate() {
        flag("--server", format!("s{}={}", n + 1, server.at(server_port(flags))));
        flag("--xdp", server.interface.clone());
    }
    flag("--check", "tcp".to_owned());
    flag("--check-interval", "200ms".to_owned());
    // A server that is gone refuses; one that is slow is not to be taken for gone.
    flag("--check-timeout", "10s".to_owned());
    flag("--check-fall", "1".to_owned());
    flag("--check-rise", "1".to_owned());
    flag("--workers", "2".to_owned());
    flag("--flow-table", "32k".to_owned());
    all.extend(flags.iter().map(ToString::to_string));
    all
}

/// What a client and the server saw of one request.
#[derive(Debug)]
pub struct Visit {
    pub server: String,
    /// The server's peer was a port that only XDP uses, or a client.
    pub fast: bool,
    /// Whom the server has seen.
    pub peer: SocketAddr,
    /// The value of our cookie, if one was set.
    pub cookie: Option<String>,
}

impl Visit {
    pub fn of(response: &Response) -> Result<Self> {
        ensure!(response.status == 200, "status {}: {}", response.status, response.text());
        let server = response.header("X-Server").context("the origin names itself")?.to_owned();
        let peer = response.peer().with_context(|| format!("no peer in {}", response.text()))?;
        let cookie = response
            .header("Set-Cookie")
            .and_then(|value| value.strip_prefix("SRV=")?.split(';').next().map(str::to_owned));
        let fast = SNAT_PORTS.contains(&peer.port()) || is_client(peer.ip());
        Ok(Self { server, fast, peer, cookie })
    }
}

/// As the laboratory has them.
fn is_client(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..2] == [10, 10],
        IpAddr::V6(address) => address.segments()[..3] == [0x2001, 0xdb8, 0x10],
    }
}
