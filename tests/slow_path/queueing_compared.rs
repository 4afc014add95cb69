//! The same stories about full servers, told to the balancer and to HAProxy: who is served when and where, and who is
//! refused, must be the same.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use balancer::config::Balance;

use super::Reader;
use super::balancer::{Balancer, Builder, cookie, wait_for};
use super::client::Client;
use super::haproxy::Haproxy;
use super::origin::Origin;

/// Each request has a connection of its own: the two do not keep them equally long.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Those who come in the same millisecond are, for HAProxy, in no order.
const HAPROXYS_CLOCK: Duration = Duration::from_millis(10);

/// Who is between the clients and their servers.
enum Subject {
    Balancer(Balancer),
    Haproxy(Haproxy),
}

/// What a story needs.
#[derive(Clone, Copy)]
struct Setting {
    servers: usize,
    /// Clients are bound by a cookie; otherwise the path decides.
    cookie: bool,
    maxqueue: Option<u32>,
    redispatch: bool,
    timeout_queue: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        let timeout_queue = Duration::from_secs(9);
        Self { servers: 1, cookie: true, maxqueue: None, redispatch: true, timeout_queue }
    }
}

impl Subject {
    fn balancer(setting: Setting, servers: &[SocketAddr]) -> Self {
        let methods = if setting.cookie { vec![cookie()] } else { vec![] };
        let mut builder = Builder::new(methods);
        for &server in servers {
            builder = builder.server(server).maxconn(1);
            if let Some(most) = setting.maxqueue {
                builder = builder.maxqueue(most);
            }
        }
        if !setting.redispatch {
            builder = builder.no_redispatch();
        }
        if !setting.cookie {
            builder = builder.balance(Balance::Uri);
        }
        Self::Balancer(builder.timeouts(|timeouts| timeouts.queue = setting.timeout_queue).start())
    }

    fn haproxy(setting: Setting, servers: &[SocketAddr]) -> Option<Self> {
        let mut lines = vec![
            format!("timeout queue {}ms", setting.timeout_queue.as_millis()),
            if setting.redispatch { "option redispatch" } else { "no option redispatch" }.to_owned(),
            if setting.cookie { "cookie SRV insert indirect" } else { "balance uri" }.to_owned(),
        ];
        for (server, n) in servers.iter().zip(1..) {
            let maxqueue = setting.maxqueue.map_or_else(String::new, |most| format!("maxqueue {most}"));
            lines.push(format!("server s{n} {server} cookie s{n} maxconn 1 {maxqueue}"));
        }
        Haproxy::start(&lines).map(Self::Haproxy)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Balancer(balancer) => balancer.address,
            Self::Haproxy(haproxy) => haproxy.address,
        }
    }

    /// How many wait for servers.
    fn waiting(&self) -> u64 {
        match self {
            Self::Balancer(balancer) => balancer.stats().queued_active,
            Self::Haproxy(haproxy) => {
                // Of its servers and of the whole section: the third column, frontends have none.
                let table = haproxy.say("show stat");
                let rows = table.lines().filter(|row| row.starts_with("web,"));
                rows.filter_map(|row| row.split(',').nth(2)?.parse::<u64>().ok()).sum()
            }
        }
    }
}

/// A subject, its clients and their servers.
///
/// Dropped in the order of its fields: the balancer ends when its last client has.
struct Stage {
    clients: Vec<Client>,
    connections: Vec<(usize, Reader)>,
    subject: Subject,
    origins: Vec<(Origin, Receiver<Reader>)>,
}

impl Drop for Stage {
    /// Not everybody has been answered.
    fn drop(&mut self) {
        if let Subject::Balancer(balancer) = &self.subject {
            balancer.cut_off();
        }
    }
}

impl Stage {
    /// A client asks for its own number, with `rest` of a path; nothing is waited for.
    fn comes(&mut self, rest: &str, headers: &str) -> usize {
        let mut client = Client::connect(self.subject.address());
        let number = self.clients.len();
        client.send(format!("GET {rest}?{number} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        self.clients.push(client);
        number
    }

    /// The same until it is in the queue.
    fn waits(&mut self, rest: &str, headers: &str) {
        let before = self.subject.waiting();
        self.comes(rest, headers);
        wait_for("a queue", || (self.subject.waiting() == before + 1).then_some(()));
        thread::sleep(HAPROXYS_CLOCK);
    }

    /// The next request that a server gets: which server, and whose it is.
    fn asked(&mut self) -> (usize, usize) {
        wait_for("a request", || {
            for (server, (_, connections)) in self.origins.iter().enumerate() {
                let new = connections.try_iter();
                self.connections.extend(new.map(|connection| (server, connection)));
            }
            for (server, connection) in &mut self.connections {
                if connection.has_more()
                    && let Some(head) = connection.head().expect("read")
                {
                    let number = head.start.split(['?', ' ']).nth(2).expect("a number");
                    return Some((*server, number.parse().expect("a number")));
                }
            }
            None
        })
    }

    /// The server answers whom it serves, and who that is, `client`, is done.
    fn answers(&mut self, server: usize, client: usize) {
        for (at, connection) in &mut self.connections {
            if *at == server {
                connection.stream.write_all(ANSWER).expect("sent");
            }
        }
        let answer = self.clients[client].response();
        assert_eq!(answer.status(), 200, "{answer:?}");
        self.connections.retain(|(at, _)| *at != server);
    }

    /// What the client is told.
    fn told(&mut self, client: usize) -> (u16, Option<String>) {
        let answer = self.clients[client].response();
        (answer.status(), answer.header("set-cookie").map(str::to_owned))
    }
}

/// Tells the story to both. What it returns must be the same.
fn same<T: PartialEq + std::fmt::Debug>(setting: Setting, story: impl Fn(&mut Stage) -> T) -> T {
    let tell = |subject: &dyn Fn(&[SocketAddr]) -> Option<Subject>| {
        let origins: Vec<_> = (0..setting.servers).map(|_| Origin::by_hand()).collect();
        let addresses: Vec<_> = origins.iter().map(|(origin, _)| origin.address).collect();
        let subject = subject(&addresses)?;
        Some(story(&mut Stage { subject, clients: Vec::new(), origins, connections: Vec::new() }))
    };
    let ours = tell(&|servers| Some(Subject::balancer(setting, servers))).expect("told");
    match tell(&|servers| Subject::haproxy(setting, servers)) {
        Some(theirs) => assert_eq!(ours, theirs, "ours and HAProxy's"),
        None => eprintln!("haproxy is not installed: nothing was compared"),
    }
    ours
}

fn stuck(server: usize) -> String {
    format!("Cookie: SRV=s{}\r\n", server + 1)
}

#[test]
fn the_order_of_service_is_that_of_haproxy() {
    let order = same(Setting::default(), |stage| {
        stage.comes("/", "");
        let mut served = vec![stage.asked()];
        for n in 0..6 {
            stage.waits("/", &if n % 2 == 0 { stuck(0) } else { String::new() });
        }
        for n in 0..6 {
            stage.answers(0, served[n].1);
            served.push(stage.asked());
        }
        served
    });
    assert_eq!(order, (0..7).map(|client| (0, client)).collect::<Vec<_>>());
}

#[test]
fn between_two_servers_and_those_who_do_not_care_haproxy_decides_alike() {
    let order = same(Setting { servers: 2, ..Setting::default() }, |stage| {
        stage.comes("/", &stuck(0));
        let mut served = vec![stage.asked()];
        stage.comes("/", &stuck(1));
        served.push(stage.asked());
        for headers in [String::new(), stuck(0), stuck(1), String::new(), stuck(0)] {
            stage.waits("/", &headers);
        }
        // Whoever is served at the moment, by server.
        let mut at = [0, 1];
        for server in [1, 1, 0, 0, 0] {
            stage.answers(server, at[server]);
            let (asked, client) = stage.asked();
            at[asked] = client;
            served.push((asked, client));
        }
        served
    });
    assert_eq!(order, [(0, 0), (1, 1), (1, 2), (1, 4), (0, 3), (0, 5), (0, 6)]);
}

#[test]
fn who_waits_in_vain_is_told_what_haproxy_tells() {
    let setting = Setting { timeout_queue: Duration::from_millis(300), ..Setting::default() };
    let told = same(setting, |stage| {
        stage.comes("/", "");
        stage.asked();
        [stage.comes("/", ""), stage.comes("/", &stuck(0))].map(|client| stage.told(client))
    });
    assert_eq!(told, [(503, None), (503, None)]);
}

#[test]
fn a_full_queue_moves_or_refuses_as_in_haproxy() {
    for redispatch in [true, false] {
        let setting = Setting { servers: 2, maxqueue: Some(1), redispatch, ..Setting::default() };
        let outcome = same(setting, |stage| {
            stage.comes("/", &stuck(0));
            stage.asked();
            stage.waits("/", &stuck(0));
            let third = stage.comes("/", &stuck(0));
            if !redispatch {
                return stage.told(third);
            }
            let (server, client) = stage.asked();
            assert_eq!((server, client), (1, third));
            for (_, connection) in stage.connections.iter_mut().filter(|(at, _)| *at == 1) {
                connection.stream.write_all(ANSWER).expect("sent");
            }
            stage.told(third)
        });
        let moved = (200, Some("SRV=s2; path=/".to_owned()));
        assert_eq!(outcome, if redispatch { moved } else { (503, None) });
    }
}

#[test]
fn a_key_waits_for_its_server_and_its_queue_as_in_haproxy() {
    let setting = Setting { servers: 2, cookie: false, maxqueue: Some(1), ..Setting::default() };
    let outcome = same(setting, |stage| {
        stage.comes("/page", "");
        let (home, _) = stage.asked();
        stage.waits("/page", "");
        let third = stage.comes("/page", "");
        let told = stage.told(third);
        stage.answers(home, 0);
        let (server, client) = stage.asked();
        (told, server == home, client)
    });
    assert_eq!(outcome, ((503, None), true, 1));
}
