//! A balancer in a network of its own, in front of servers that give sessions to whoever has none.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use balancer::admin::client;
use balancer::table::hash::{hex, unhex};
use balancer::table::{HashKey, Key};
use balancer_ebpf::affinity::Affinity;
use serde_json::Value;
use xtask::lab::http::Connection;
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Lab};

use crate::site::{BALANCER, PATIENCE, pins};

pub const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

const SERVERS: [(&str, u16); 2] = [("s1", 8081), ("s2", 8082)];

/// Dropped in the order of its fields.
pub struct Stand {
    pub daemon: Daemon,
    _servers: Vec<Nginx>,
    pub lab: Lab,
}

/// An entry of a table, wherever it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub entry: Affinity,
    pub probation: bool,
}

impl Stand {
    pub fn open(flags: &[&str]) -> Result<Self> {
        let lab = Lab::star().build()?;
        let servers: Result<_> = SERVERS.iter().map(|(name, port)| server(&lab, name, *port)).collect();
        let daemon = start(&lab, flags, false)?;
        Ok(Self { daemon, _servers: servers?, lab })
    }

    /// SIGKILL, and another process with these flags and the servers in another order.
    pub fn crash(&mut self, flags: &[&str]) -> Result<()> {
        self.daemon.kill();
        self.daemon.child.wait(PATIENCE)?;
        self.daemon = start(&self.lab, flags, true)?;
        Ok(())
    }

    pub fn connect(&self, source: Ipv4Addr) -> Result<Connection> {
        Connection::open(&self.lab.balancer, Some(source), FRONT)
    }

    pub fn ask(&self, line: &str) -> Result<Value> {
        let answer = client::ask("web", self.daemon.admin(), &format!("{line} json"))?;
        serde_json::from_str(&answer).with_context(|| format!("{line}: {answer:.200}"))
    }

    /// Whom the entry of `id` names.
    pub fn server_of(&self, id: &str) -> Result<String> {
        let rows = self.ask(&format!("show table session=JS key {id}"))?;
        Ok(rows[0]["server"].as_str().with_context(|| format!("{rows}"))?.to_owned())
    }

    /// What ids are hashed with.
    pub fn hash_key(&self) -> Result<HashKey> {
        let map = MapData::from_pin(pins(&self.lab).join("web/hash_key"))?;
        let map: aya::maps::Array<_, [u8; 16]> = Map::Array(map).try_into()?;
        Ok(HashKey::from_bytes(map.get(&0, 0)?))
    }

    /// What the kernel says is in the pinned maps of the sessions; none of our code reads them.
    pub fn dump(&self) -> Result<BTreeMap<Key, Seen>> {
        let mut all = BTreeMap::new();
        for (file, probation) in [("session-JS", false), ("session-JS~probation", true)] {
            let path = pins(&self.lab).join("web").join(file);
            let map = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
            let map: HashMap<_, Key, u64> = Map::LruHashMap(map).try_into()?;
            for row in map.iter() {
                let (key, word) = row?;
                let twice = all.insert(key, Seen { entry: Affinity(word), probation });
                ensure!(twice.is_none(), "{} is in both maps", hex(&key));
            }
        }
        Ok(all)
    }

    /// `show table` tells what the kernel does: returns how many entries.
    pub fn agrees_with_the_kernel(&self) -> Result<usize> {
        let names = self.names()?;
        let before = balancer::clock::boot_seconds();
        let rows = self.ask("show table session=JS")?;
        let after = balancer::clock::boot_seconds();
        let mut kernels = self.dump()?;
        let rows = rows.as_array().context("rows")?;
        for row in rows {
            let key = row["key"].as_str().and_then(|key| unhex(key.as_bytes())).context("a key")?;
            let Seen { entry, probation } =
                kernels.remove(&key).with_context(|| format!("{row} is not in the kernel"))?;
            let left = entry.expiry() - after..=entry.expiry() - before;
            let agrees = names.get(&entry.server()).is_some_and(|name| row["server"] == **name)
                && row["expires_in"].as_u64().is_some_and(|shown| left.contains(&(shown as u32)))
                && row["probation"] == probation
                && row["tentative"] == entry.is_tentative();
            ensure!(agrees, "the kernel says {entry:?}, {probation}; {row}");
        }
        ensure!(kernels.is_empty(), "{} entries are not shown", kernels.len());
        Ok(rows.len())
    }

    /// Names of servers by their ids in entries.
    pub fn names(&self) -> Result<BTreeMap<u16, String>> {
        let rows = self.ask("show servers")?;
        let name =
            |row: &Value| Some((row["id"].as_u64()?.try_into().ok()?, row["name"].as_str()?.to_owned()));
        Ok(rows.as_array().into_iter().flatten().filter_map(name).collect())
    }
}

fn start(lab: &Lab, flags: &[&str], swapped: bool) -> Result<Daemon> {
    let mut servers = SERVERS.map(|(name, port)| format!("{name}=127.0.0.1:{port}"));
    if swapped {
        servers.reverse();
    }
    let (front, [one, other]) = (FRONT.to_string(), &servers);
    let base = ["--listen", &front, "--check", "none", "--workers", "2", "--server", one, "--server", other];
    let all = [&base, flags].concat();
    Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &all)
}

/// A server that gives a session to a request without one.
fn server(lab: &Lab, name: &str, port: u16) -> Result<Nginx> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Nginx::start_with(&lab.balancer, listen, name, |folder| {
        format!(
            "access_log off; client_body_temp_path {f}/tmp; proxy_temp_path {f}/tmp; keepalive_requests 1000000;
             map $cookie_JS $session {{ '' 'JS=$request_id; Path=/'; default ''; }}
             server {{ listen {listen}; location / {{
                 add_header Set-Cookie $session; add_header X-Server {name}; return 200 hello; }} }}\n",
            f = folder.display()
        )
    })
}
