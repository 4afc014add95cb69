//! Both families side by side: what the fast path does for IPv4 it does for IPv6, and neither for a pair of one of each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Lab, wait_until};

use super::site::{BALANCER, PATIENCE, SOURCE_FIRST, Visit};

/// One client host, and two servers that listen on both of their addresses.
struct TwoFamilies {
    daemon: Daemon,
    _servers: Vec<Nginx>,
    lab: Lab,
}

impl TwoFamilies {
    /// `listen` and `server` say which of the addresses of a host the service is told.
    fn open(listen: &[fn(&Lab) -> SocketAddr], server: fn(&Lab, usize) -> SocketAddr) -> Result<Self> {
        Self::open_with(listen, server, &[])
    }

    fn open_with(
        listen: &[fn(&Lab) -> SocketAddr],
        server: fn(&Lab, usize) -> SocketAddr,
        more: &[&str],
    ) -> Result<Self> {
        let lab = Lab::star().build()?;
        let mut servers = Vec::new();
        let mut flags: Vec<String> = Vec::new();
        let mut flag = |name: &str, value: String| flags.extend([name.to_owned(), value]);
        flag("--xdp", lab.client().interface.clone());
        for address in listen {
            flag("--listen", address(&lab).to_string());
        }
        for number in [1, 2] {
            let (at, name) = (server(&lab, number), format!("s{number}"));
            servers.push(Nginx::start(&lab.server(number).ns, at, &name)?);
            flag("--server", format!("{name}={at}"));
            flag("--xdp", lab.server(number).interface.clone());
        }
        for words in [["--check", "tcp"], ["--check-interval", "200ms"], ["--flow-table", "32k"]] {
            flag(words[0], words[1].to_owned());
        }
        flags.extend(SOURCE_FIRST.iter().chain(more).map(ToString::to_string));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
        let site = Self { daemon, _servers: servers, lab };
        wait_until(PATIENCE, "the first health checks", || {
            ["s1", "s2"].iter().all(|name| site.daemon.server(name).is_ok_and(|row| row["health"] == "up"))
        })?;
        Ok(site)
    }

    fn visit(&self, to: SocketAddr) -> Result<(Visit, SocketAddr)> {
        let response = http::get(&self.lab.client().ns, None, to, "/", &[])?;
        Ok((Visit::of(&response)?, response.peer().expect("the origin names its peer")))
    }

    /// The first visit of the client, after which `key` is known.
    fn introduce(&self, to: SocketAddr, key: &str) -> Result<String> {
        let (visit, _) = self.visit(to)?;
        ensure!(!visit.fast, "an unknown client went past the proxy");
        wait_until(PATIENCE, &format!("{key} to be known"), || {
            self.daemon.affinity("source", key).is_ok_and(|server| server.as_ref() == Some(&visit.server))
        })?;
        Ok(visit.server)
    }
}

fn front4(lab: &Lab) -> SocketAddr {
    lab.client().gateway_at(80)
}

fn front6(lab: &Lab) -> SocketAddr {
    lab.client().gateway6_at(80)
}

fn server4(lab: &Lab, number: usize) -> SocketAddr {
    lab.server(number).at(8080)
}

fn server6(lab: &Lab, number: usize) -> SocketAddr {
    lab.server(number).at6(8080)
}

/// The block of the first client, as the table of sources has it.
const CLIENTS: &str = "2001:db8:10:1::";

pub fn known_and_unknown() -> Result<()> {
    let site = TwoFamilies::open(&[front6], server6)?;
    let front = front6(&site.lab);
    let home = site.introduce(front, CLIENTS)?;
    let (visit, peer) = site.visit(front)?;
    ensure!(visit.fast && visit.server == home && visit.cookie.is_none(), "{visit:?}");
    let number = usize::from(home == "s2") + 1;
    ensure!(peer.ip() == site.lab.server(number).gateway6, "the server was asked by {peer}");
    ensure!(site.daemon.counter("syn_forwarded")? == 1);
    let flows = site.daemon.show(&["flows"])?;
    ensure!(
        flows[0]["client"].as_str().is_some_and(|client| client.starts_with("[2001:db8:10:1::2]:")),
        "{flows}"
    );
    Ok(())
}

pub fn download_survives_kill() -> Result<()> {
    let mut site = TwoFamilies::open(&[front6], server6)?;
    let front = front6(&site.lab);
    let home = site.introduce(front, CLIENTS)?;
    let client = site.lab.client().ns.clone();
    let download = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut connection = Connection::open(&client, None, front)?;
        connection.stream().set_read_timeout(Some(Duration::from_secs(40)))?;
        Ok(connection.get("/slow", &[])?.body)
    });
    wait_until(PATIENCE, "the download to run", || {
        site.daemon.show(&["flows"]).is_ok_and(|flows| flows[0]["bytes"].as_u64() > Some(100_000))
    })?;
    site.daemon.kill();
    let (while_dead, _) = site.visit(front)?;
    ensure!(
        while_dead.fast && while_dead.server == home,
        "a new connection of a known client: {while_dead:?}"
    );
    site.daemon.restart()?;
    let (after, _) = site.visit(front)?;
    ensure!(after.fast && after.server == home, "{after:?}");
    let body = download.join().expect("the thread")?;
    ensure!(body.len() == 1 << 20 && body.iter().all(|byte| *byte == b'x'), "{} bytes", body.len());
    Ok(())
}

/// A wildcard is the addresses of its own family, and one family's clients do not go to the other's servers.
pub fn side_by_side() -> Result<()> {
    let any6 = |_: &Lab| SocketAddr::from(([0_u16; 8], 80));
    let site = TwoFamilies::open(&[front4, any6], server6)?;
    let (front4, front6) = (front4(&site.lab), front6(&site.lab));
    let home = site.introduce(front6, CLIENTS)?;
    let (visit, _) = site.visit(front6)?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    let client4 = site.lab.client().address().to_string();
    let other = site.introduce(front4, &client4)?;
    let (visit, _) = site.visit(front4)?;
    ensure!(!visit.fast && visit.server == other, "{visit:?}");
    ensure!(site.daemon.counter("pass_family_differs")? == 1);
    drop(site);
    let site = TwoFamilies::open(&[self::front4, self::front6], server4)?;
    site.introduce(front4, &client4)?;
    site.introduce(front6, CLIENTS)?;
    ensure!(site.visit(front4)?.0.fast && !site.visit(front6)?.0.fast);
    ensure!(site.daemon.counter("pass_family_differs")? == 1);
    Ok(())
}

pub fn excluded() -> Result<()> {
    let flags = ["--fast-path-exclude", "2001:db8:10::/48"];
    let site = TwoFamilies::open_with(&[front6], server6, &flags)?;
    let front = front6(&site.lab);
    let home = site.introduce(front, CLIENTS)?;
    let (visit, _) = site.visit(front)?;
    ensure!(!visit.fast && visit.server == home, "{visit:?}");
    ensure!(site.daemon.counter("pass_excluded")? > 0);
    let explained = site.daemon.client(&["explain", "--src", "2001:db8:10:1::2", "--name", "web"])?;
    ensure!(explained.stdout.contains("--fast-path-exclude names the address"), "{explained:?}");
    Ok(())
}

/// The options take their share of a segment.
const OPTIONS: u32 = 40;

pub fn segments() -> Result<()> {
    let site = TwoFamilies::open_with(&[front6], server6, &["--mss", "1200"])?;
    let front = front6(&site.lab);
    let told = || -> Result<(u32, bool)> {
        let mut connection = Connection::open(&site.lab.client().ns, None, front)?;
        let mss = socket2::SockRef::from(connection.stream()).tcp_mss()?;
        Ok((mss, Visit::of(&connection.get("/", &[])?)?.fast))
    };
    let expected = 1200 - OPTIONS..=1200;
    let (slow, is_fast) = told()?;
    ensure!(!is_fast && expected.contains(&slow), "{slow} from the proxy");
    wait_until(PATIENCE, "the client to be known", || {
        site.daemon.affinity("source", CLIENTS).is_ok_and(|server| server.is_some())
    })?;
    let (fast, is_fast) = told()?;
    ensure!(is_fast && expected.contains(&fast), "{fast} from the server");
    Ok(())
}
