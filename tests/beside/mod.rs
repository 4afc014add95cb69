//! HAProxy beside the balancer: the same servers, the same clients, and whoever gets how many.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::process::Child;
use xtask::lab::{Daemon, Lab, wait_until};

use super::haproxy;
use crate::site::{BALANCER, PATIENCE, start_servers, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("weights_mean_to_roundrobin_what_they_mean_to_haproxy", roundrobin),
        trial("held_connections_are_spread_by_leastconn_as_haproxy_does", leastconn),
        trial("first_fills_the_first_as_haproxy_does", first),
        trial("source_keeps_clients_where_they_are_as_haproxy_does", source),
        trial("as_many_failed_answers_take_a_server_down_as_with_haproxy", observed),
    ]
}

/// Both, with the same servers.
struct Pair {
    fronts: [SocketAddr; 2],
    daemon: Daemon,
    _haproxy: Child,
    servers: Vec<Nginx>,
    lab: Lab,
}

/// What both are told of the servers.
struct Told<'a> {
    /// Of each server, for us and for HAProxy.
    options: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
    /// Of HAProxy's section.
    lines: &'a str,
}

impl Pair {
    fn start(addresses: usize, told: &Told<'_>) -> Result<Self> {
        let lab = Lab::star().servers(told.options.len()).client_addresses(addresses).build()?;
        let servers = start_servers(&lab)?;
        Self::start_before(lab, servers, told)
    }

    fn start_before(lab: Lab, servers: Vec<Nginx>, told: &Told<'_>) -> Result<Self> {
        let fronts = [80, 8001].map(|port| lab.client().gateway_at(port));
        let listen = fronts[0].to_string();
        let mut flags = vec!["--listen".to_owned(), listen];
        let mut section = format!("listen front\n  bind {}\n  {}\n", fronts[1], told.lines);
        for (n, (ours, theirs)) in (1..).zip(told.options) {
            let at = lab.server(n).at(8080);
            flags.extend(["--server".to_owned(), format!("s{n}={at}{ours}")]);
            section += &format!("  server s{n} {at} {theirs}\n");
        }
        flags.extend(told.flags.iter().map(ToString::to_string));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
        let haproxy = haproxy(&lab.balancer, fronts[1], &section)?;
        Ok(Self { fronts, daemon, _haproxy: haproxy, servers, lab })
    }

    /// Who answers so many requests, each on a connection of its own; of both.
    fn shares(&self, count: usize) -> Result<[BTreeMap<String, usize>; 2]> {
        let mut shares = [BTreeMap::new(), BTreeMap::new()];
        for (front, shares) in self.fronts.iter().zip(&mut shares) {
            for _ in 0..count {
                *shares.entry(self.ask(None, *front)?).or_insert(0) += 1;
            }
        }
        Ok(shares)
    }

    fn ask(&self, source: Option<Ipv4Addr>, front: SocketAddr) -> Result<String> {
        let answer = http::get(&self.lab.client().ns, source, front, "/", &[])?;
        Ok(answer.header("X-Server").context("no server has answered")?.to_owned())
    }
}

fn of(shares: &[(&str, usize)]) -> BTreeMap<String, usize> {
    shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect()
}

fn roundrobin() -> Result<()> {
    let table: [(&[u32], usize); 3] = [(&[3, 1], 40), (&[5, 1, 1], 70), (&[1, 1, 1], 30)];
    for (weights, count) in table {
        let options: Vec<_> =
            weights.iter().map(|weight| (format!(",weight={weight}"), format!("weight {weight}"))).collect();
        let options: Vec<_> = options.iter().map(|(ours, theirs)| (&**ours, &**theirs)).collect();
        let told = Told { options: &options, flags: &["--check", "none"], lines: "balance roundrobin" };
        let [ours, theirs] = Pair::start(1, &told)?.shares(count)?;
        ensure!(ours == theirs, "{weights:?}: {ours:?}, HAProxy {theirs:?}");
        let total: u32 = weights.iter().sum();
        let exact = (1..)
            .zip(weights)
            .map(|(n, weight)| (format!("s{n}"), count * *weight as usize / total as usize));
        ensure!(ours == exact.collect(), "{weights:?}: {ours:?}");
    }
    Ok(())
}

/// Connections that are held, so that it shows who is thought to be the least busy.
fn leastconn() -> Result<()> {
    let options = [(",weight=3", "weight 3"), (",weight=1", "weight 1")];
    let flags = ["--mode", "tcp", "--balance", "leastconn", "--check", "none"];
    let pair =
        Pair::start(1, &Told { options: &options, flags: &flags, lines: "mode tcp\n  balance leastconn" })?;
    for front in pair.fronts {
        let (mut held, mut shares) = (Vec::new(), BTreeMap::new());
        for _ in 0..16 {
            let mut connection = Connection::open(&pair.lab.client().ns, None, front)?;
            let answer = connection.get("/", &[])?;
            let name = answer.header("X-Server").context("no server has answered")?.to_owned();
            *shares.entry(name).or_insert(0) += 1;
            held.push(connection);
        }
        ensure!(shares == of(&[("s1", 12), ("s2", 4)]), "{front}: {shares:?}");
    }
    Ok(())
}

fn first() -> Result<()> {
    let told = Told {
        options: &[(",weight=1", "weight 1"), (",weight=256", "weight 256")],
        flags: &["--balance", "first", "--check", "none"],
        lines: "balance first",
    };
    let [ours, theirs] = Pair::start(1, &told)?.shares(12)?;
    ensure!(ours == of(&[("s1", 12)]) && theirs == ours, "{ours:?}, HAProxy {theirs:?}");
    Ok(())
}

/// Not the same server for the same client, but one for each, and nobody moves who need not.
fn source() -> Result<()> {
    const CLIENTS: usize = 40;
    let told = Told {
        options: &[("", "check inter 100ms fall 1"); 3],
        flags: &["--balance", "source", "--check", "tcp", "--check-interval", "100ms", "--check-fall", "1"],
        lines: "balance source\n  hash-type consistent",
    };
    let pair = Pair::start(CLIENTS, &told)?;
    let everybody = |front| -> Result<Vec<String>> {
        pair.lab.client().addresses.iter().map(|client| pair.ask(Some(*client), front)).collect()
    };
    let mut before = Vec::new();
    for front in pair.fronts {
        let places = everybody(front)?;
        ensure!(places == everybody(front)?, "{front}: the second time is another one");
        for server in ["s1", "s2", "s3"] {
            ensure!(places.iter().any(|place| place == server), "{front}: {server} gets nobody: {places:?}");
        }
        before.push(places);
    }
    pair.servers[1].child.kill();
    wait_until(PATIENCE, "s2 to be down", || {
        pair.daemon.server("s2").is_ok_and(|row| row["state"] == "down")
    })?;
    for (front, before) in pair.fronts.into_iter().zip(before) {
        // HAProxy is given as long as it takes.
        wait_until(PATIENCE, "s2 to get nobody", || {
            everybody(front).is_ok_and(|places| places.iter().all(|place| place != "s2"))
        })?;
        let after = everybody(front)?;
        let moved = before.iter().zip(&after).filter(|(was, is)| *was != "s2" && was != is).count();
        ensure!(moved * 100 <= CLIENTS * 5, "{front}: {moved} of others move");
    }
    Ok(())
}

/// `--observe 5xx,limit=4` is `observe layer7 error-limit 4 on-error mark-down`.
fn observed() -> Result<()> {
    let lab = Lab::star().build()?;
    let servers = [("s1", "500"), ("s2", "200")].into_iter().zip(1..).map(|((name, status), n)| {
        let host = lab.server(n);
        let listen = host.at(8080);
        Nginx::start_with(&host.ns, listen, name, |folder| {
            format!(
                "access_log off; client_body_temp_path {f}/tmp; proxy_temp_path {f}/tmp; server {{ listen {listen}; \
                 add_header X-Server {name} always; location / {{ return {status} 'said'; }} \
                 location /health {{ return 200 'well'; }} }}\n",
                f = folder.display()
            )
        })
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let theirs = "check inter 1h observe layer7 error-limit 4 on-error mark-down";
    let told = Told {
        options: &[("", theirs), ("", theirs)],
        flags: &["--check", "http=/health", "--check-interval", "1h", "--observe", "5xx,limit=4"],
        lines: "balance roundrobin\n  option httpchk GET /health",
    };
    let pair = Pair::start_before(lab, servers, &told)?;
    wait_until(PATIENCE, "the first checks", || {
        pair.daemon.show(&["servers"]).is_ok_and(|servers| {
            servers.as_array().is_some_and(|all| all.iter().all(|server| server["health"] == "up"))
        })
    })?;
    let shares = pair.shares(40)?;
    for (shares, whose) in shares.iter().zip(["ours", "HAProxy's"]) {
        ensure!(*shares == of(&[("s1", 4), ("s2", 36)]), "{whose}: {shares:?}");
    }
    ensure!(pair.daemon.server("s1")?["health"] == "down");
    let log = pair.daemon.log();
    ensure!(
        log.contains("server s1 is down: observed 4 errors in a row, the last one: an answer 500"),
        "{log}"
    );
    Ok(())
}
