//! The cookie cases of the specification, a row each: what the flags say, what the client and the server send, and what
//! has to come of it. s1 and s2 are up and have their names as ids.

use balancer::server::{Health, Operator};

use super::balancer::{Balancer, Builder};
use super::client::Client;
use super::origin::Origin;

/// What both servers add to their answers, and what the servers are in, and the request.
struct Case {
    number: &'static str,
    flags: &'static [&'static str],
    /// As in `s2 down`, `s1 maint`; empty: both are up.
    world: &'static str,
    /// The first line without the version, then header lines, joined by `|`.
    request: &'static str,
    /// Header lines that servers add to their answers, joined by `|`.
    answer: &'static str,
    /// Who has to answer: a server, or a status of ours.
    by: &'static str,
    /// Every Set-Cookie that the client gets, and Cache-Control, joined by `|`.
    gets: &'static str,
    /// The Cookie header that the server gets.
    sees: &'static str,
    letters: &'static str,
}

const fn case(number: &'static str, flags: &'static [&'static str]) -> Case {
    Case { number, flags, world: "", request: "GET /", answer: "", by: "s1", gets: "", sees: "", letters: "" }
}

const INSERT: &[&str] = &["--persist", "cookie=SRV,insert,indirect"];
const POSTONLY: &[&str] = &["--persist", "cookie=SRV,postonly"];
const NOCACHE: &[&str] = &["--persist", "cookie=SRV,nocache"];
const PRESERVE: &[&str] = &["--persist", "cookie=SRV,preserve"];
const DOMAINS: &[&str] = &["--persist", "cookie=SRV,domain=a.example,domain=b.example"];
const REWRITE: &[&str] = &["--persist", "cookie=SRV,rewrite"];
const PREFIX: &[&str] = &["--persist", "cookie=JS,prefix"];
const PASSIVE: &[&str] = &["--persist", "cookie=SRV,passive"];
const ROUTE: &[&str] = &["--persist", "route=JSESSIONID"];
const FAIL: &[&str] = &["--persist", "cookie=SRV", "--on-down", "fail"];
const WAIT: &[&str] = &["--persist", "cookie=SRV", "--on-down", "wait=10s"];
const WAIT_SHORTLY: &[&str] = &["--persist", "cookie=SRV", "--on-down", "wait=200ms"];
const IGNORE: &[&str] = &["--persist", "cookie=SRV", "--persist-ignore", "/static"];
const IGNORE_PREFIX: &[&str] = &["--persist", "cookie=JS,prefix", "--persist-ignore", "/static"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { gets: "SRV=s1; path=/", letters: "NI", ..case("1", INSERT) },
    Case { request: "GET /|Cookie: SRV=s2", by: "s2", letters: "VN", ..case("2", INSERT) },
    Case { request: "GET /|Cookie: a=1; SRV=s2; b=2", by: "s2", sees: "a=1; b=2", letters: "VN", ..case("3", INSERT) },
    Case { request: "GET /|Cookie: SRV=zz", gets: "SRV=s1; path=/", letters: "II", ..case("4", INSERT) },
    Case { world: "s2 down", request: "GET /|Cookie: SRV=s2", gets: "SRV=s1; path=/", letters: "DI", ..case("12", INSERT) },
    Case { world: "s2 maint", request: "GET /|Cookie: SRV=s2", gets: "SRV=s1; path=/", sees: "SRV=s2", letters: "DI",
        ..case("13: maintenance is not waited for", WAIT) },
    Case { world: "s2 down", request: "GET /|Cookie: SRV=s2", gets: "SRV=s1; path=/", sees: "SRV=s2", letters: "DI",
        ..case("13: waited in vain", WAIT_SHORTLY) },
    Case { world: "s2 down", request: "GET /|Cookie: SRV=s2", by: "503", letters: "DN", ..case("20", FAIL) },
    Case { world: "s2 drain", request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..case("20: drained", FAIL) },
    Case { answer: "Set-Cookie: SRV=; Max-Age=0", gets: "SRV=; Max-Age=0", letters: "NP", ..case("31", PRESERVE) },
    Case { gets: "SRV=s1; path=/", letters: "NI", ..case("31: nothing set", PRESERVE) },
    Case { letters: "NN", ..case("32: GET", POSTONLY) },
    Case { request: "POST /|Content-Length: 0", gets: "SRV=s1; path=/", letters: "NI", ..case("32: POST", POSTONLY) },
    Case { answer: "ETag: x", gets: "SRV=s1; path=/|private", letters: "NI", ..case("33", NOCACHE) },
    Case { gets: "SRV=s1; path=/|private", letters: "NI", ..case("34", NOCACHE) },
    Case { answer: "Cache-Control: no-store", gets: "SRV=s1; path=/|no-store", letters: "NI", ..case("34: kept from caches", NOCACHE) },
    Case { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..case("34: nothing inserted", NOCACHE) },
    Case { gets: "SRV=s1; path=/; domain=a.example|SRV=s1; path=/; domain=b.example", letters: "NI", ..case("35", DOMAINS) },
    Case { answer: "Set-Cookie: SRV=x; Path=/", gets: "SRV=s1; Path=/", letters: "NR", ..case("44", REWRITE) },
    Case { letters: "NN", ..case("45", REWRITE) },
    Case { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..case("45: bound", REWRITE) },
    Case { request: "GET /|Cookie: a=b; JS=s2~abc", by: "s2", sees: "a=b; JS=abc", letters: "VN", ..case("47", PREFIX) },
    Case { request: "GET /|Cookie: JS=\"s2~abc\"", by: "s2", sees: "JS=abc", letters: "VN", ..case("47: quoted", PREFIX) },
    Case { request: "GET /|Cookie: JS=zzz~abc", sees: "JS=zzz~abc", letters: "NN", ..case("48", PREFIX) },
    Case { request: "GET /|Cookie: JS=abc", sees: "JS=abc", letters: "NN", ..case("49", PREFIX) },
    Case { answer: "Set-Cookie: JS=abc; HttpOnly", gets: "JS=s1~abc; HttpOnly", letters: "NR", ..case("50", PREFIX) },
    Case { answer: "Set-Cookie: JS=; Max-Age=0", gets: "JS=; Max-Age=0", letters: "NP", ..case("51", PREFIX) },
    Case { request: "GET /|Cookie: SRV=s2", by: "s2", sees: "SRV=s2", letters: "VN", ..case("passive", PASSIVE) },
    Case { answer: "Set-Cookie: SRV=s2", gets: "SRV=s2", letters: "NP", ..case("passive: set by the server", PASSIVE) },
    Case { request: "GET /static/a|Cookie: SRV=s2", sees: "SRV=s2", letters: "UN", ..case("52", IGNORE) },
    Case { request: "GET /static/a", answer: "Set-Cookie: JS=abc", gets: "JS=s1~abc", letters: "NR", ..case("53", IGNORE_PREFIX) },
    Case { request: "GET /static/a|Cookie: JS=s2~abc", sees: "JS=abc", letters: "UN", ..case("53: request", IGNORE_PREFIX) },
    Case { request: "GET /|Cookie: JSESSIONID=abc.s2", by: "s2", sees: "JSESSIONID=abc.s2", letters: "--", ..case("route", ROUTE) },
    Case { request: "GET /a;jsessionid=abc.s2?x=y", by: "s2", letters: "--", ..case("route in the path", ROUTE) },
];

#[test]
fn every_case_comes_out_as_specified() {
    for case in CASES {
        let (balancer, s1, s2) = world(case);
        let response = ask(&mut balancer.client(), case.request);
        let number = case.number;
        if case.by.starts_with('s') {
            assert_eq!(response.text(), case.by, "case {number}: who answers");
            let origin = if case.by == "s1" { &s1 } else { &s2 };
            let seen = origin.request().all("cookie").join("|");
            assert_eq!(seen, case.sees, "case {number}: what the server sees");
            let gets = [response.all("set-cookie"), response.all("cache-control")].concat().join("|");
            assert_eq!(gets, case.gets, "case {number}: what the client gets");
        } else {
            assert_eq!(response.status().to_string(), case.by, "case {number}: the status");
            assert_eq!(
                response.all("set-cookie").join("|"),
                case.gets,
                "case {number}: what the client gets"
            );
        }
        assert_eq!(balancer.letters(0), case.letters, "case {number}: the letters");
    }
}

fn world(case: &Case) -> (Balancer, Origin, Origin) {
    let lines = case.answer.split('|').filter(|line| !line.is_empty());
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    let origin = |name: &'static str| {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\n{name}");
        Origin::answering(move |_| head.clone())
    };
    let (s1, s2) = (origin("s1"), origin("s2"));
    let balancer = Builder::of_flags(case.flags).server(s1.address).server(s2.address).start();
    let servers = &balancer.service.servers;
    for word in case.world.split(", ").filter(|word| !word.is_empty()) {
        let (name, state) = word.split_once(' ').expect("a server and its state");
        let place = servers.by_name(name).expect("a server");
        match state {
            "down" => drop(servers.set_health(place, Health::Down)),
            word => servers.set_operator(place, Operator::from_word(word).expect("a state")),
        }
    }
    (balancer, s1, s2)
}

fn ask(client: &mut Client, request: &str) -> super::Message {
    let mut lines = request.split('|');
    let start = lines.next().expect("a first line");
    let headers: String = lines.map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{start} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
    client.response()
}

#[test]
fn who_waits_for_a_server_gets_it_when_it_comes_back() {
    let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
    let balancer = Builder::of_flags(WAIT).server(s1.address).server(s2.address).start();
    balancer.service.servers.set_health(1, Health::Down);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\nCookie: SRV=s2\r\n\r\n");
    super::balancer::wait_for("the request", || (balancer.stats().requests == 1).then_some(()));
    balancer.service.servers.set_health(1, Health::Up);
    let response = client.response();
    assert_eq!((response.text().as_str(), response.header("set-cookie")), ("s2", None));
    assert_eq!(balancer.letters(0), "VN");
    s1.expect_no_request();
}

#[test]
fn case_23_a_backup_keeps_its_users_unless_they_are_to_leave_it() {
    for (flags, by) in
        [(&["--persist", "cookie=SRV"][..], "b"), (&["--persist", "cookie=SRV", "--leave-backup"], "s1")]
    {
        let (s1, backup) = (Origin::named("s1"), Origin::named("b"));
        let balancer = Builder::of_flags(flags).server(s1.address).server(backup.address).backup().start();
        assert_eq!(balancer.client().get_with_cookie("SRV=s2").text(), by, "{flags:?}");
    }
}
