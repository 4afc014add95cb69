//! The rows. "Whole" ones are what a request costs; the others are parts of them, or bodies.

use std::ffi::OsString;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balancer::access_log::{Layout, Load, Path, Record, Times, write_request};
use balancer::balance::Balance;
use balancer::cli::{self, Command};
use balancer::config::{Host, Limits, LogFormat, Plan, ServerConfig};
use balancer::http::Version;
use balancer::http::chunked::Decoder;
use balancer::http::fields::Slots;
use balancer::http::request::{self, Request};
use balancer::http::response::{self, Connection};
use balancer::http::scan::Scan;
use balancer::persist::decide::{Decision, Policy, Refused, Scene};
use balancer::persist::issue::{self, CookieFacts, Issue, Letters, SetCookie};
use balancer::persist::named::Named;
use balancer::persist::{CookieMethod, List, Method, cookie};
use balancer::server::{Identity, Server, Servers};
use balancer::service::Service;
use balancer::table::{HashKey, Tables};
use balancer::visit::{Books, Choice, Visit};
use balancer_ebpf::affinity::Affinity;

use super::Case;
use super::messages::{self, APPLICATION_RESPONSE, SMALL_REQUEST, SMALL_RESPONSE};

/// The name of the persistence cookie.
const OURS: &str = "SRV";

/// What visits are decided by.
const COOKIE_ALONE: &[&str] = &["--persist", "cookie=SRV,insert,indirect"];
const THREE_METHODS: &[&str] =
    &["--persist", "cookie=SRV,insert,indirect", "--persist", "session=PHPSESSID", "--persist", "source"];

pub(super) const ALL: &[Case] = &[
    Case { name: "whole, small", run: |times| whole(times, SMALL_REQUEST, SMALL_RESPONSE) },
    Case {
        name: "whole, browser",
        run: |times| whole(times, &messages::browser_request(), APPLICATION_RESPONSE),
    },
    Case { name: "request head, small", run: |times| request_head(times, SMALL_REQUEST) },
    Case { name: "request head, browser", run: |times| request_head(times, &messages::browser_request()) },
    Case { name: "parse a request, small", run: |times| parse_request(times, SMALL_REQUEST) },
    Case {
        name: "parse a request, browser",
        run: |times| parse_request(times, &messages::browser_request()),
    },
    Case { name: "response head, small", run: |times| response_head(times, SMALL_RESPONSE) },
    Case { name: "response head, application", run: |times| response_head(times, APPLICATION_RESPONSE) },
    Case { name: "visit, one cookie", run: |times| visit(times, COOKIE_ALONE, SMALL_REQUEST) },
    Case { name: "visit, browser", run: |times| visit(times, COOKIE_ALONE, &messages::browser_request()) },
    Case {
        name: "visit, cookie and session and source",
        run: |times| visit(times, THREE_METHODS, &messages::browser_request()),
    },
    Case { name: "session look-up in memory", run: session_look_up },
    Case { name: "cookie scan, 600 bytes", run: cookie_scan },
    Case { name: "cookie removal, 600 bytes", run: cookie_removal },
    Case { name: "chunked 16 KiB, one chunk", run: |times| chunked(times, 16 * 1024) },
    Case { name: "chunked 16 KiB, 512 bytes each", run: |times| chunked(times, 512) },
    Case { name: "log line, text", run: |times| log_line(times, LogFormat::Text) },
    Case { name: "log line, JSON", run: |times| log_line(times, LogFormat::Json) },
    Case { name: "log line, HAProxy", run: |times| log_line(times, LogFormat::Haproxy) },
];

/// What a worker has while it serves: everything in its place, buffers grown.
struct Worker {
    servers: Servers,
    list: List,
    limits: Limits,
    out: Vec<u8>,
}

impl Worker {
    fn new() -> Self {
        let servers = (1..=2).map(|n| {
            let address = SocketAddr::from(([127, 0, 0, 1], 8000 + n));
            Server::new(format!("s{n}"), Some(format!("s{n}")), address, Identity { id: n, generation: 1 })
        });
        let cookie = CookieMethod { name: OURS.into(), indirect: true, ..CookieMethod::default() };
        let cookie = Method::Cookie(cookie);
        Self {
            servers: Servers::new(servers.collect()),
            list: List::new(vec![cookie]),
            limits: Limits::default(),
            out: Vec::with_capacity(16 * 1024),
        }
    }

    /// Parse, look the cookie up, decide, write.
    fn request(&mut self, bytes: &[u8]) -> (Decision, CookieFacts) {
        let mut slots = Slots::default();
        assert!(Scan::default().worth_parsing(bytes), "the first piece always is");
        let request = parsed(bytes, &mut slots, &self.limits);
        let Some(method) = self.list.cookie() else { unreachable!("the list has one") };
        let named = Named::by_cookie(&request, method, &self.servers, 0);
        let (refused, policy) = (Refused::default(), Policy::default());
        let scene = Scene { servers: &self.servers, refused: &refused, policy };
        let finding = named.finding(&scene);
        let mut decision = Decision::default();
        decision.weigh(finding, false, &scene);
        self.out.clear();
        let cookie = Some(request::CookieEdit { name: OURS, unprefixed: None });
        request.write(&mut self.out, &request::Rewrite { cookie, default_host: "", forwarded: None });
        black_box(&self.out);
        let facts = CookieFacts {
            finding,
            verdict: decision.trace.steps()[0].verdict,
            present: named.present,
            refresh: false,
            stale: None,
            first_seen: None,
            is_post: false,
            ignored: false,
        };
        (decision, facts)
    }

    /// Parse, learn, write.
    fn response(&mut self, bytes: &[u8], facts: &CookieFacts) {
        let mut slots = Slots::default();
        assert!(Scan::default().worth_parsing(bytes), "the first piece always is");
        let response = response::parse(bytes, &mut slots, &self.limits, false)
            .expect("a good response")
            .expect("a whole head");
        let Some(method) = self.list.cookie() else { unreachable!("the list has one") };
        let by_server = issue::by_server(&method.name, response.set_cookies(), 0);
        let action = issue::set_cookie(method, facts, 0, &self.servers, by_server);
        let cookie = Some(Issue { method, action, id: Some("s1"), first_seen: None, now: 0 });
        let rewrite =
            response::Rewrite { connection: Connection::Implicit, cookie, unchunked: false, debug: b"" };
        self.out.clear();
        response.write(&mut self.out, &rewrite);
        black_box(&self.out);
    }
}

fn parsed<'b, 'h>(bytes: &'b [u8], slots: &'h mut Slots<'b>, limits: &Limits) -> Request<'b, 'h> {
    request::parse(bytes, slots, limits).expect("a good request").expect("a whole head")
}

fn whole(times: u32, request: &[u8], response: &[u8]) {
    let mut worker = Worker::new();
    for _ in 0..times {
        let (decision, facts) = worker.request(black_box(request));
        assert_eq!(decision.server, Some(0), "the cookie names s1");
        worker.response(black_box(response), &facts);
    }
}

fn request_head(times: u32, request: &[u8]) {
    let mut worker = Worker::new();
    for _ in 0..times {
        black_box(worker.request(black_box(request)));
    }
}

fn parse_request(times: u32, request: &[u8]) {
    let limits = Limits::default();
    for _ in 0..times {
        let mut slots = Slots::default();
        black_box(&parsed(black_box(request), &mut slots, &limits));
    }
}

fn response_head(times: u32, response: &[u8]) {
    let mut worker = Worker::new();
    let (_, facts) = worker.request(SMALL_REQUEST);
    for _ in 0..times {
        worker.response(black_box(response), &facts);
    }
}

/// A thread's tables in memory, of a service with two servers.
fn books(flags: &[&str]) -> Rc<Books> {
    let words = ["balancer", "run", "--listen", "127.0.0.1:80", "--admin", "/x/y.sock"];
    let servers = ["--server", "s1=127.0.0.1:8001", "--server", "s2=127.0.0.1:8002"];
    let words = words.iter().chain(&servers).chain(flags).map(OsString::from);
    let Ok(Command::Run(run, settings)) = cli::parse(words) else { unreachable!("it is well-formed") };
    let plan = Plan::new(&run, settings, &Host::read()).expect("a plan");
    let config = plan.config;
    let server = |(id, server): (u16, &ServerConfig)| {
        Server::configured(server.clone(), Identity { id, generation: 1 })
    };
    let servers = Servers::new((1..).zip(&config.servers).map(server).collect());
    let balance = Balance::new(config.balance.clone(), &servers);
    let tables = Tables::in_memory(&config.persist, HashKey::from_bytes([1; 16]));
    Rc::new(Books::new(Arc::new(Service { config, servers, balance }), tables))
}

/// What persistence does for a request and its answer between reading and writing them: decide and learn.
fn visit(times: u32, flags: &[&str], request: &[u8]) {
    let (books, limits) = (books(flags), Limits::default());
    let (mut slots, mut answer_slots) = (Slots::default(), Slots::default());
    let request = parsed(request, &mut slots, &limits);
    let response = response::parse(SMALL_RESPONSE, &mut answer_slots, &limits, false)
        .expect("a good response")
        .expect("a whole head");
    let client = IpAddr::from([10, 20, 0, 1]);
    for _ in 0..times {
        let mut visit = Visit::new(&books, black_box(&request), client);
        assert_eq!(visit.choose(), Choice::Bound(0), "the cookie names s1");
        let action = visit.answered(Some(black_box(&response)));
        assert_eq!(action, SetCookie::Nothing, "the client has it");
        black_box(visit.letters(Some(action)));
    }
}

/// From the id to the entry.
fn session_look_up(times: u32) {
    let books = books(THREE_METHODS);
    let table = books.tables.get(1).expect("of sessions");
    let entry = Affinity::learned(1, u32::MAX);
    for n in 0..10_000 {
        let key = table.key(format!("session-{n}").as_bytes()).expect("a key");
        table.put(&key, entry).expect("there is room");
    }
    for _ in 0..times {
        let key = table.key(black_box(b"session-4711")).expect("a key");
        assert_eq!(table.get(&key), Some(entry));
    }
}

fn cookie_scan(times: u32) {
    let header = messages::cookies().into_bytes();
    for _ in 0..times {
        let count = cookie::values(black_box(&header), black_box(OURS)).count();
        assert_eq!(black_box(count), 1);
    }
}

fn cookie_removal(times: u32) {
    let header = messages::cookies().into_bytes();
    let mut out = Vec::with_capacity(1024);
    for _ in 0..times {
        out.clear();
        assert!(cookie::write_without(black_box(&header), black_box(OURS), &mut out), "others are left");
        black_box(&out);
    }
}

fn chunked(times: u32, size: usize) {
    let body = messages::chunks(size);
    for _ in 0..times {
        let mut decoder = Decoder::default();
        let used = decoder.accept(black_box(&body), |data| {
            black_box(data);
        });
        assert_eq!(black_box(used), Ok(body.len()));
    }
}

fn log_line(times: u32, format: LogFormat) {
    let mut worker = Worker::new();
    let (decision, _) = worker.request(SMALL_REQUEST);
    let (mut request, mut line) = (Vec::with_capacity(1024), Vec::with_capacity(1024));
    let layout = Layout::new(format, "web");
    for _ in 0..times {
        request.clear();
        line.clear();
        write_request(
            format,
            &mut request,
            black_box("GET"),
            black_box("/catalogue/items?page=3&sort=price"),
            Version::Http11,
        );
        let record = Record {
            unix_millis: black_box(1_795_342_272_345),
            client: black_box(SocketAddr::from(([10, 20, 0, 1], 40_000))),
            request: &request,
            status: Some(200),
            bytes: 13,
            elapsed: black_box(Duration::from_micros(1_234)),
            server: Some("s1"),
            letters: Letters { request: 'V', response: 'N' },
            trace: Some(decision.trace.display(&worker.list, &worker.servers, Some(0))),
            fault: None,
            path: Path::Slow,
            sent: 161,
            times: black_box(Times::default()),
            ending: *b"--",
            load: Load::default(),
        };
        record.write(&layout, &mut line);
        black_box(&line);
    }
}
