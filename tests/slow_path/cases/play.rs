//! One row, from its words to what came of it.

use std::net::{IpAddr, SocketAddr};

use balancer::clock;
use balancer::server::{Health, Operator};
use balancer::table::{Key, Table};
use balancer_ebpf::affinity::Affinity;

use super::super::Message;
use super::super::balancer::{Balancer, Builder};
use super::super::client::Client;
use super::super::haproxy::Haproxy;
use super::super::origin::{Origin, refusing};
use super::Row;
use super::words::Words;

const TIMEOUT: u32 = 1600;

/// What came of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    by: String,
    gets: String,
    sees: String,
    letters: String,
    leaves: String,
    trace: String,
}

impl Outcome {
    pub(super) fn wanted(row: &Row) -> Self {
        let [by, gets, sees, letters, leaves, trace] =
            [row.by, row.gets, row.sees, row.letters, row.leaves, row.trace].map(str::to_owned);
        Self { by, gets, sees, letters, leaves, trace }
    }

    pub(super) fn without_letters(&self) -> Self {
        Self { letters: String::new(), ..self.clone() }
    }

    /// Without what only we tell.
    pub(super) fn wanted_of_haproxy(row: &Row) -> Self {
        Self { leaves: String::new(), trace: String::new(), ..Self::wanted(row) }
    }
}

/// The servers of a row.
pub(super) struct Scenery<'a> {
    row: &'a Row,
    origins: [Origin; 2],
    /// Where they are said to be.
    addresses: [SocketAddr; 2],
    words: Words,
}

impl<'a> Scenery<'a> {
    pub(super) fn new(row: &'a Row) -> Self {
        let origins = ["s1", "s2"].map(|name| {
            let (status, lines) = row.answer.split_once('|').unwrap_or((row.answer, ""));
            let lines = header_lines(lines);
            // What has no body says so by not saying how long it is.
            let length = if status.starts_with("200") { "Content-Length: 0\r\n" } else { "" };
            let head = format!("HTTP/1.1 {status}\r\nX-Server: {name}\r\n{lines}{length}\r\n");
            Origin::answering(move |_| head.clone())
        });
        let mut addresses = [origins[0].address, origins[1].address];
        for (n, address) in addresses.iter_mut().enumerate() {
            if is(row, n, "refusing") {
                *address = refusing();
            }
        }
        Self { row, origins, addresses, words: Words::new(&addresses) }
    }

    pub(super) fn play_ours(&self) -> Outcome {
        let row = self.row;
        let mut flags = Vec::new();
        for (n, address) in self.addresses.iter().enumerate() {
            let mut server = format!("s{}={address}", n + 1);
            for (state, option) in [("weightless", ",weight=0"), ("nameless", ",id="), ("backup", ",backup")]
            {
                if is(row, n, state) {
                    server.push_str(option);
                }
            }
            flags.extend(["--server".to_owned(), server]);
        }
        flags.extend(row.setting.flags.split_whitespace().map(|word| self.words.fill(word)));
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let balancer = Builder::of_servers_and_flags(&flags).start();
        for place in 0..2 {
            let servers = &balancer.service.servers;
            for (state, wish) in [("maint", Operator::Maint), ("drain", Operator::Drain)] {
                if is(row, place, state) {
                    servers.set_operator(place, wish);
                }
            }
            if is(row, place, "down") {
                servers.set_health(place, Health::Down);
            }
        }
        for (key, server) in entries(row.learned) {
            let (table, key) = table_of(&balancer, key);
            let expiry = clock::boot_seconds() + TIMEOUT;
            let entry = match table.is_of_sources() {
                true => Affinity::new(server, 1, expiry),
                false => Affinity::learned(server, expiry),
            };
            table.put(&key, entry).expect("there is room");
        }
        let (by, gets, sees) = self.ask(balancer.address);
        let letters = balancer.letters(0);
        let trace = match row.trace {
            "" => String::new(),
            _ => {
                let line = balancer.log_line(0);
                let trace = line.split_once(" persist=").map_or("", |(_, rest)| rest);
                trace.split_whitespace().next().unwrap_or_default().to_owned()
            }
        };
        Outcome { by, gets, sees, letters, leaves: self.leaves(&balancer), trace }
    }

    /// `None`: it is not installed.
    pub(super) fn play_haproxys(&self) -> Option<Outcome> {
        let row = self.row;
        let mut lines = vec!["retries 1".to_owned(), "option redispatch".to_owned()];
        lines.extend(row.setting.haproxy.split('|').map(str::to_owned));
        for (n, address) in self.addresses.iter().enumerate() {
            let mut line = format!("server s{} {address}", n + 1);
            if !is(row, n, "nameless") && !row.setting.haproxy.contains("dynamic") {
                line.push_str(&format!(" cookie s{}", n + 1));
            }
            for (state, words) in [("weightless", " weight 0"), ("backup", " backup")] {
                if is(row, n, state) {
                    line.push_str(words);
                }
            }
            lines.push(line);
        }
        let haproxy = Haproxy::start(&lines)?;
        let say = |command: &str| {
            let answer = haproxy.say(command);
            assert!(answer.trim().is_empty(), "case {}: {command}: {answer}", row.number);
        };
        for n in 0..2 {
            for state in ["maint", "drain"].into_iter().filter(|state| is(row, n, state)) {
                say(&format!("set server web/s{} state {state}", n + 1));
            }
            if is(row, n, "down") {
                say(&format!("set server web/s{} health down", n + 1));
            }
        }
        for (key, server) in entries(row.learned) {
            say(&format!("set table web key {key} data.server_id {server}"));
        }
        let (by, gets, sees) = self.ask(haproxy.address);
        let letters = haproxy.letters();
        Some(Outcome { by, gets, sees, letters, leaves: String::new(), trace: String::new() })
    }

    /// Who answers, what the client gets, what the server sees.
    fn ask(&self, address: SocketAddr) -> (String, String, String) {
        let mut lines = self.row.request.split('|');
        let start = lines.next().expect("a first line");
        let headers: String = lines.map(|line| format!("{}\r\n", self.words.fill(line))).collect();
        let mut client = Client::connect(address);
        client.send(format!("{start} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        let response = client.response();
        let joined = |message: &Message, names: &[&str]| {
            let values = names.iter().flat_map(|name| message.all(name)).map(|value| self.words.read(value));
            values.collect::<Vec<_>>().join("|")
        };
        let Some(by) = response.header("x-server") else {
            return (response.status().to_string(), joined(&response, &["set-cookie"]), String::new());
        };
        let origin = &self.origins[usize::from(by == "s2")];
        let sees = joined(&origin.request(), &["cookie"]);
        (by.to_owned(), joined(&response, &["set-cookie", "cache-control"]), sees)
    }

    /// What is in the tables: the keys that the row names, and how many others.
    fn leaves(&self, balancer: &Balancer) -> String {
        let named = entries(self.row.learned).chain(entries(self.row.leaves)).map(|(key, _)| key);
        let mut named: Vec<_> = named.collect();
        named.sort_unstable();
        named.dedup();
        let mut found = Vec::new();
        for key in named {
            let (table, hash) = table_of(balancer, key);
            if let Some(entry) = table.get(&hash) {
                let mark = if entry.is_tentative() { "?" } else { "" };
                found.push(format!("{key}>s{}{mark}", entry.server()));
            }
        }
        let mut others = 0;
        balancer.tables.iter().for_each(|(_, table)| table.for_each(|_, _| others += 1));
        others -= found.len();
        if others > 0 {
            found.push(format!("{others} more"));
        }
        found.join("|")
    }
}

/// The row says that of the server at that place.
fn is(row: &Row, place: usize, state: &str) -> bool {
    let words = row.world.split(", ").filter_map(|word| word.split_once(' '));
    words.into_iter().any(|(server, word)| server == format!("s{}", place + 1) && word == state)
}

/// Keys and the ids of their servers.
fn entries(text: &str) -> impl Iterator<Item = (&str, u16)> {
    let pairs = text.split('|').filter_map(|entry| entry.split_once(">s"));
    pairs.map(|(key, server)| (key, server.parse().expect("a number")))
}

fn table_of<'a>(balancer: &'a Balancer, key: &str) -> (&'a Table, Key) {
    if let Ok(address) = key.parse::<IpAddr>() {
        let table = balancer.tables.source().expect("a table of sources");
        return (table, table.source_key(address));
    }
    let mut tables = balancer.tables.iter().map(|(_, table)| table);
    let table = tables.find(|table| !table.is_of_sources()).expect("a table of ids");
    (table, table.key(key.as_bytes()).expect("a key"))
}

fn header_lines(joined: &str) -> String {
    joined.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect()
}
