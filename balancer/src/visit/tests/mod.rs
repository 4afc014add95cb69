//! What holds after any sequence of requests and of what happens to servers, without sockets: methods agree, and nobody
//! is moved who need not be. What hostile requests come to is in [`hostile`].

mod hostile;

use std::sync::Arc;

use balancer_ebpf::affinity::Affinity;
use proptest::prelude::*;

use super::*;
use crate::balance::Balance as Balancing;
use crate::cli;
use crate::config::{Config, Host, Limits, Plan};
use crate::http::fields::Slots;
use crate::http::{request, response};
use crate::persist::dates;
use crate::server::{Health, Operator, Server, Servers};
use crate::service::Service;
use crate::table::{HashKey, Key as TableKey, Tables};

/// s3 is a backup.
const SERVERS: usize = 3;
const CLIENTS: usize = 3;

/// Lists of methods that can all be pointed anew. Small tables forget.
const LISTS: [&str; 7] = [
    "--persist cookie=SRV --persist session=JS --persist source",
    "--persist session=JS --persist header=X-User --persist cookie=SRV",
    "--persist source --persist cookie=SRV",
    "--persist session=JS,size=1 --persist header=X-User,size=2,nopurge --persist cookie=SRV,maxidle=30m",
    "--persist cookie=SRV,maxidle=30m,maxlife=8h --persist session=JS",
    "--persist session=JS --persist cookie=SRV --leave-backup",
    "--persist cookie=SRV --persist header=X-User --on-down fail",
];

/// Lists with a method that only the application can change, which it does when a client without it logs in; a session
/// remembers moves.
const FIXED: [&str; 5] = [
    "--persist cookie=SRV,rewrite --persist session=JS",
    "--persist cookie=SRV,passive --persist session=JS",
    "--persist session=JS --persist cookie=SRV,passive",
    "--persist route=RT --persist session=JS",
    "--persist route=RT --persist session=JS --leave-backup",
];

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Request {
        client: usize,
        answer: Answer,
    },
    /// The client has a new browser, but is still who it is.
    LosesCookie(usize),
    /// A day passes for its cookie.
    Ages(usize),
    Health(usize, Health),
    Operator(usize, Operator),
    /// Connections to the server fail, or its queue is full, and nobody has noticed so far.
    Refuses(usize, bool),
    /// The operator points one of the client's entries, that of the method at that place, at a server.
    Points {
        client: usize,
        place: usize,
        server: usize,
    },
    /// A process ends and another goes on with its tables.
    Restart,
}

/// What the application says beside that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Ok,
    Error,
    /// The client gets another id.
    LogsIn,
    LogsOut,
}

struct Client {
    address: IpAddr,
    user: String,
    cookie: Option<String>,
    id: Option<String>,
    /// Who answered it last.
    home: Option<usize>,
}

struct World {
    service: Arc<Service>,
    tables: Tables,
    books: Rc<Books>,
    clients: Vec<Client>,
    refusing: [bool; SERVERS],
    ids: u32,
}

fn config(flags: &str) -> Config {
    let line = format!(
        "balancer run --admin /x/y.sock --listen 127.0.0.1:80 --server s1=10.0.0.1:80 --server s2=10.0.0.2:80 \
         --server s3=10.0.0.3:80,backup {flags}"
    );
    let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split_whitespace().map(Into::into)) else {
        panic!("{line}");
    };
    Plan::new(&run, settings, &Host::read()).expect("valid").config
}

impl World {
    fn new(flags: &str) -> Self {
        let config = config(flags);
        let servers = (1..).zip(&config.servers).map(|(id, server)| {
            Server::configured(server.clone(), crate::server::Identity { id, generation: 1 })
        });
        let servers = Servers::new(servers.collect());
        let balance = Balancing::new(config.balance.clone(), &servers);
        let tables = Tables::in_memory(&config.persist, HashKey::from_bytes([1; 16]));
        let service = Arc::new(Service { config, servers, balance });
        let clients = (0..CLIENTS).map(|n| Client {
            address: IpAddr::from([10, 1, 0, n as u8]),
            user: format!("user{n}"),
            cookie: None,
            id: None,
            home: None,
        });
        let books = Rc::new(Books::new(Arc::clone(&service), tables.handle()));
        Self { service, tables, books, clients: clients.collect(), refusing: [false; SERVERS], ids: 0 }
    }

    fn happen(&mut self, event: &Event) {
        let servers = &self.service.servers;
        match *event {
            Event::Request { client, answer } => self.request(client, answer),
            Event::LosesCookie(client) => self.clients[client].cookie = None,
            Event::Ages(client) => self.age(client),
            Event::Health(place, health) => drop(servers.set_health(place, health)),
            Event::Operator(place, wish) => servers.set_operator(place, wish),
            Event::Refuses(place, refuses) => self.refusing[place] = refuses,
            Event::Points { client, place, server } => self.point(client, place, server),
            Event::Restart => {
                self.books = Rc::new(Books::new(Arc::clone(&self.service), self.tables.handle()));
            }
        }
    }

    /// `set table`, with which the methods disagree until the client's next answer.
    fn point(&mut self, client: usize, place: usize, server: usize) {
        let (Some(table), Some(key)) = (self.tables.get(place), self.key(client, place)) else { return };
        let (id, expiry) = (self.service.servers[server].identity.id, clock::boot_seconds() + table.timeout);
        let entry = match table.is_of_sources() {
            true => Affinity::new(id, 1, expiry),
            false => Affinity::learned(id, expiry),
        };
        if table.put(&key, entry).is_ok() {
            // To be moved is the operator's wish, if that method comes before the others.
            self.clients[client].home = None;
        }
    }

    /// Dates that are there are of yesterday.
    fn age(&mut self, client: usize) {
        let Some(cookie) = &mut self.clients[client].cookie else { return };
        let Some((id, _)) = cookie.split_once('|') else { return };
        let (mut aged, yesterday) = (id.as_bytes().to_vec(), clock::unix_seconds() - 86_400);
        cookie.matches('|').for_each(|_| dates::write(&mut aged, yesterday));
        *cookie = String::from_utf8(aged).expect("ASCII");
    }

    fn request(&mut self, client: usize, answer: Answer) {
        let (before, home) = (self.named(client), self.clients[client].home);
        let must_stay = home.filter(|home| before.contains(&Some(*home)) && !self.may_leave(*home));
        let (served, issued) = self.serve(client, answer);
        let Some(serving) = served else {
            assert_eq!(
                self.named(client),
                before,
                "nobody answered, so nothing is known that was not before"
            );
            assert_eq!(must_stay, None, "its server was there");
            return;
        };
        assert!(must_stay.is_none_or(|home| home == serving), "moved from {home:?} to {serving}");
        self.clients[client].home = Some(serving);
        self.clients[client].cookie = issued.or(self.clients[client].cookie.take());
        match answer {
            Answer::LogsIn => self.clients[client].id = Some(format!("id{}", self.ids)),
            Answer::LogsOut => self.clients[client].id = None,
            Answer::Ok | Answer::Error => {}
        }
        let methods = self.service.config.persist.methods();
        for (method, named) in methods.iter().zip(self.named(client)).filter(|(method, _)| !method.is_fixed())
        {
            let says = named.unwrap_or(serving);
            assert_eq!(says, serving, "{} says who has answered, or nothing", method.label());
        }
    }

    /// The exceptions, all of them. That a cookie is too old (`maxidle=`, `maxlife=`) and that a table has forgotten an
    /// entry are none: the client is not named any more then.
    fn may_leave(&self, home: usize) -> bool {
        let servers = &self.service.servers;
        // It is down or in maintenance.
        let is_lost = !servers[home].state().keeps_users();
        // It refuses connections, or its queue is full.
        let refuses = self.refusing[home];
        // It is a backup that is to be left (`--leave-backup`), and a primary is there.
        let is_left = self.service.config.policy.leave_backup
            && servers[home].backup
            && servers.iter().any(|server| !server.backup && server.takes_new());
        is_lost || refuses || is_left
    }

    fn head(&self, client: usize) -> String {
        let Client { user, cookie, id, .. } = &self.clients[client];
        let mut cookies = Vec::new();
        cookies.extend(cookie.as_ref().map(|value| match self.fixed() {
            Some(Method::Route(_)) => format!("RT=x.{value}"),
            _ => format!("SRV={value}"),
        }));
        cookies.extend(id.as_ref().map(|value| format!("JS={value}")));
        let cookies = match cookies.is_empty() {
            true => String::new(),
            false => format!("Cookie: {}\r\n", cookies.join("; ")),
        };
        format!("GET / HTTP/1.1\r\nHost: test\r\nX-User: {user}\r\n{cookies}\r\n")
    }

    /// Who answers, and the cookie that is issued.
    fn serve(&mut self, client: usize, answer: Answer) -> (Option<usize>, Option<String>) {
        let head = self.head(client);
        let mut slots = Slots::default();
        let request = request::parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed");
        let mut visit = Visit::new(&self.books, &request.expect("whole"), self.clients[client].address);
        let serving = loop {
            match visit.choose() {
                Choice::Bound(server) | Choice::Free(server) if self.refusing[server] => visit.refuse(),
                Choice::Bound(server) | Choice::Free(server) => break server,
                Choice::Hold(Hold::Fail) | Choice::Nobody => return (None, None),
                choice @ (Choice::Any | Choice::Hold(Hold::Wait(..))) => panic!("{choice:?}"),
            }
        };
        let by_application = (answer == Answer::LogsIn && self.clients[client].cookie.is_none())
            .then(|| self.fixed())
            .flatten()
            .map(|_| self.service.servers[serving].cookie.clone().expect("an id"));
        let (status, mut line) = match answer {
            Answer::Ok => ("200 OK", String::new()),
            Answer::Error => ("500 Oops", String::new()),
            Answer::LogsIn => {
                self.ids += 1;
                ("200 OK", format!("Set-Cookie: JS=id{}\r\n", self.ids))
            }
            Answer::LogsOut => ("200 OK", "Set-Cookie: JS=; Max-Age=0\r\n".to_owned()),
        };
        match (self.fixed(), &by_application) {
            (Some(Method::Route(_)), Some(id)) => line.push_str(&format!("Set-Cookie: RT=x.{id}\r\n")),
            (_, Some(id)) => line.push_str(&format!("Set-Cookie: SRV={id}\r\n")),
            _ => {}
        }
        let head = format!("HTTP/1.1 {status}\r\n{line}Content-Length: 0\r\n\r\n");
        let mut slots = Slots::default();
        let response = response::parse(head.as_bytes(), &mut slots, &Limits::default(), false);
        let action = visit.answered(Some(&response.expect("well-formed").expect("whole")));
        let mut written = Vec::new();
        if let Some(issue) = visit.issue(&self.books, action) {
            issue.write_ours(&mut written);
        }
        let written = String::from_utf8(written).expect("ASCII");
        let value = written.strip_prefix("Set-Cookie: SRV=").and_then(|rest| rest.split(';').next());
        (Some(serving), by_application.or(value.map(str::to_owned)))
    }

    /// The method that only the application can change.
    fn fixed(&self) -> Option<&Method> {
        self.service.config.persist.methods().iter().find(|method| method.is_fixed())
    }

    /// Whom the client is named by each method of the list; a cookie that is too old names nobody.
    fn named(&self, client: usize) -> Vec<Option<usize>> {
        let servers = &self.service.servers;
        let methods = self.service.config.persist.methods().iter().enumerate();
        let of_method = |(place, method): (usize, &Method)| {
            if method.is_fixed() {
                return servers.by_cookie(self.clients[client].cookie.as_ref()?.as_bytes());
            }
            let Method::Cookie(method) = method else {
                let entry = self.tables.get(place)?.get(&self.key(client, place)?)?;
                return servers.by_id(entry.server());
            };
            let cookie = self.clients[client].cookie.as_ref()?;
            let (id, dates) = dates::split(cookie.as_bytes())?;
            let age = dates::check(dates, method.max_idle, method.max_life, clock::unix_seconds());
            matches!(age, dates::Age::Good { .. }).then(|| servers.by_cookie(id))?
        };
        methods.map(of_method).collect()
    }

    /// The client's key in the table of the method at that place of the list.
    fn key(&self, client: usize, place: usize) -> Option<TableKey> {
        let Client { address, user, id, .. } = &self.clients[client];
        let table = self.tables.get(place)?;
        match self.service.config.persist.methods().get(place)? {
            Method::Session(_) => table.key(id.as_ref()?.as_bytes()),
            Method::Header(_) => table.key(user.as_bytes()),
            Method::Source(_) => Some(table.source_key(*address)),
            Method::Cookie(_) | Method::Route(_) | Method::Query(_) => None,
        }
    }
}

/// A request is on its way while something happens to its client; what the table says after its answer, and whether a
/// cookie is issued.
fn late(flags: &str, meanwhile: impl FnOnce(&mut World, usize)) -> (Option<usize>, Option<usize>, SetCookie) {
    let mut world = World::new(flags);
    world.request(0, Answer::LogsIn);
    // Not by the cookie: another browser window that has not got it yet.
    world.clients[0].cookie = None;
    let head = world.head(0);
    let mut slots = Slots::default();
    let request = request::parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed");
    let books = Rc::clone(&world.books);
    let mut visit = Visit::new(&books, &request.expect("whole"), world.clients[0].address);
    let Choice::Bound(home) = visit.choose() else { panic!("it is known") };
    meanwhile(&mut world, home);
    let now_at = world.clients[0].home;
    let mut slots = Slots::default();
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let response = response::parse(head, &mut slots, &Limits::default(), false).expect("well-formed");
    let action = visit.answered(response.as_ref());
    let place = world.service.config.persist.methods().iter().position(|m| matches!(m, Method::Session(_)));
    (world.named(0)[place.expect("there is one")], now_at, action)
}

#[test]
fn an_answer_that_comes_late_undoes_nothing() {
    let move_away = |world: &mut World, home: usize| {
        world.service.servers.set_operator(home, Operator::Maint);
        world.clients[0].home = None;
        world.request(0, Answer::Ok);
        assert_ne!(world.clients[0].home, Some(home));
        world.clients[0].cookie = None;
    };
    for flags in ["--persist session=JS", "--persist session=JS --persist cookie=SRV", LISTS[0]] {
        let (says, is_at, action) = late(flags, move_away);
        assert_eq!((says, action), (is_at, SetCookie::Nothing), "{flags}: moved");
        let (says, is_at, _) = late(flags, |world, home| {
            let place =
                world.service.config.persist.methods().iter().position(|m| matches!(m, Method::Session(_)));
            world.point(0, place.expect("there is one"), 1 - home);
            world.clients[0].home = Some(1 - home);
        });
        assert_eq!(says, is_at, "{flags}: the operator's word");
        let (says, _, _) = late(flags, |world, _| world.tables.iter().for_each(|(_, table)| table.clear()));
        assert_eq!(says, None, "{flags}: the operator has cleared it");
        let (says, _, action) = late(flags, |_, _| {});
        let wants_cookie = flags.contains("cookie=");
        assert!(
            says.is_some() && (action == SetCookie::Insert) == wants_cookie,
            "{flags}: nothing has happened"
        );
    }
}

fn event() -> impl Strategy<Value = Event> {
    let (server, client) = (0..SERVERS, 0..CLIENTS);
    let answer = prop_oneof![
        4 => Just(Answer::Ok),
        1 => Just(Answer::Error),
        2 => Just(Answer::LogsIn),
        1 => Just(Answer::LogsOut),
    ];
    let health = prop_oneof![Just(Health::Up), Just(Health::Down), Just(Health::Draining)];
    let wish = prop_oneof![Just(Operator::Ready), Just(Operator::Drain), Just(Operator::Maint)];
    prop_oneof![
        10 => (client.clone(), answer).prop_map(|(client, answer)| Event::Request { client, answer }),
        1 => client.clone().prop_map(Event::LosesCookie),
        1 => client.prop_map(Event::Ages),
        2 => (server.clone(), health).prop_map(|(server, health)| Event::Health(server, health)),
        2 => (server.clone(), wish).prop_map(|(server, wish)| Event::Operator(server, wish)),
        2 => (server, any::<bool>()).prop_map(|(server, refuses)| Event::Refuses(server, refuses)),
        1 => (0..CLIENTS, 0..3_usize, 0..SERVERS)
            .prop_map(|(client, place, server)| Event::Points { client, place, server }),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #[test]
    fn a_move_is_remembered_where_only_the_application_could_say_so(
        list in 0..FIXED.len(),
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(FIXED[list]);
        for event in &events {
            world.happen(event);
        }
    }

    #[test]
    fn methods_agree_and_nobody_is_moved_without_need(
        list in 0..LISTS.len(),
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new(LISTS[list]);
        for event in &events {
            world.happen(event);
        }
    }
}
