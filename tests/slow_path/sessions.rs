//! Learned sessions, headers and parameters: what is remembered, from which answers, and for whom. Cases of the
//! specification as stories: one request after the other, and who answers it.

use std::sync::{Arc, Barrier};
use std::thread;

use balancer::server::{Health, Operator};

use super::Message;
use super::balancer::{Balancer, Builder};
use super::client::Client;
use super::origin::{Origin, refusing};

/// s1 and s2, which answer as the request's `X-Answer` says: a status, then header lines, joined by `|`; the body is the
/// server's name.
struct World {
    balancer: Balancer,
    _origins: [Origin; 2],
}

fn world(flags: &[&str]) -> World {
    let origins = ["s1", "s2"].map(obedient);
    let builder = Builder::of_flags(flags).server(origins[0].address).server(origins[1].address);
    World { balancer: builder.start(), _origins: origins }
}

fn obedient(name: &'static str) -> Origin {
    Origin::answering(move |request| {
        let wish = request.header("x-answer").unwrap_or("200").to_owned();
        let (status, lines) = wish.split_once('|').unwrap_or((&wish, ""));
        let lines: String =
            lines.split('|').filter(|line| !line.is_empty()).map(|line| format!("{line}\r\n")).collect();
        format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\n\r\n{name}", name.len())
    })
}

impl World {
    /// Sends `target` with these header lines, joined by `|`, on a connection of its own.
    fn ask(&self, target: &str, headers: &str) -> Message {
        self.ask_from("127.0.0.1", target, headers)
    }

    fn ask_from(&self, client: &str, target: &str, headers: &str) -> Message {
        let lines = headers.split('|').filter(|line| !line.is_empty());
        // What the server is to say stands in one line, in which `+` joins.
        let lines: String = lines.map(|line| format!("{}\r\n", line.replace('+', "|"))).collect();
        Client::connect_from(client, self.balancer.address).get_with(target, &lines)
    }

    /// Who answers that.
    fn who(&self, target: &str, headers: &str) -> String {
        self.ask(target, headers).text()
    }

    /// Turns of the balancing, until the next new client goes to `server`.
    fn turn_to(&self, server: &str) {
        let other = if server == "s1" { "s2" } else { "s1" };
        assert!((0..3).any(|_| self.who("/", "") == other), "nobody new goes to {other}");
    }

    fn health(&self, server: usize, health: Health) {
        self.balancer.service.servers.set_health(server, health);
    }
}

#[test]
fn case_71_an_id_that_a_server_sets_leads_back_to_it() {
    let world = world(&["--persist", "session=JS"]);
    world.turn_to("s2");
    assert_eq!(world.who("/", "X-Answer: 200+Set-Cookie: JS=abc; Path=/"), "s2");
    for target in ["/", "/a;JS=abc", "/a;js=abc?x=y"] {
        let headers = if target == "/" { "Cookie: a=b; JS=abc" } else { "" };
        for _ in 0..3 {
            assert_eq!(world.who(target, headers), "s2", "{target}");
        }
    }
    assert!(world.balancer.log_line(2).contains("persist=session:hit>s2"));
    assert_eq!(world.balancer.letters(2), "--");
}

#[test]
fn case_72_an_id_that_nobody_has_set_is_learned_from_the_request() {
    let world = world(&["--persist", "session=JS"]);
    let first = world.who("/", "Cookie: JS=abc");
    world.turn_to(if first == "s1" { "s2" } else { "s1" });
    assert_eq!(world.who("/", "Cookie: JS=abc"), first);
    let strict = self::world(&["--persist", "session=JS,no-request-learn"]);
    let answers: Vec<_> = (0..4).map(|_| strict.who("/", "Cookie: JS=abc")).collect();
    assert_eq!(answers, ["s1", "s2", "s1", "s2"]);
}

#[test]
fn case_76_an_id_is_learned_from_answers_that_are_good_and_kept_by_any() {
    let world = world(&["--persist", "session=JS"]);
    assert_eq!(world.who("/", "X-Answer: 500+Set-Cookie: JS=abc"), "s1");
    let answers: Vec<_> = (0..2).map(|_| world.who("/", "Cookie: JS=abc|X-Answer: 503")).collect();
    assert_eq!(answers, ["s2", "s1"], "nothing is remembered of failures");
    assert_eq!(world.who("/", "X-Answer: 401+Set-Cookie: JS=def"), "s2");
    assert_eq!(world.who("/", "Cookie: JS=def|X-Answer: 500"), "s2");
    world.health(1, Health::Down);
    assert_eq!(world.who("/", "Cookie: JS=def|X-Answer: 500"), "s1");
    world.health(1, Health::Up);
    assert_eq!(world.who("/", "Cookie: JS=def"), "s1", "a known id is pointed anew by any answer");
}

#[test]
fn an_id_that_the_application_ends_is_forgotten() {
    let world = world(&["--persist", "session=JS"]);
    assert_eq!(world.who("/", "X-Answer: 200+Set-Cookie: JS=abc"), "s1");
    assert_eq!(world.who("/", "Cookie: JS=abc|X-Answer: 200+Set-Cookie: JS=; Max-Age=0"), "s1");
    assert_eq!(world.who("/", "Cookie: JS=abc|X-Answer: 500"), "s2");
}

#[test]
fn cases_64_and_65_empty_keys_are_none_and_long_ones_are_told_apart() {
    let world = world(&["--persist", "session=JS"]);
    let answers: Vec<_> = (0..4).map(|_| world.who("/", "Cookie: JS=")).collect();
    assert_eq!(answers, ["s1", "s2", "s1", "s2"]);
    let [first, second] = ["a", "b"].map(|end| format!("Cookie: JS={}{end}", "x".repeat(8000)));
    assert_eq!((world.who("/", &first), world.who("/", &second)), ("s1".into(), "s2".into()));
    assert_eq!((world.who("/", &first), world.who("/", &second)), ("s1".into(), "s2".into()));
}

#[test]
fn cases_62_and_70_entries_follow_moves_and_the_methods_agree_afterwards() {
    let world = world(&["--persist", "cookie=SRV", "--persist", "session=JS", "--persist", "source"]);
    let first = world.ask("/", "Cookie: JS=abc");
    assert_eq!((first.text(), first.header("set-cookie")), ("s1".into(), Some("SRV=s1; path=/")));
    world.balancer.service.servers.set_operator(0, Operator::Maint);
    let moved = world.ask("/", "Cookie: JS=abc; SRV=s1");
    assert_eq!((moved.text(), moved.header("set-cookie")), ("s2".into(), Some("SRV=s2; path=/")));
    world.balancer.service.servers.set_operator(0, Operator::Ready);
    assert_eq!(world.who("/", "Cookie: SRV=s2"), "s2", "the cookie");
    assert_eq!(world.who("/", "Cookie: JS=abc"), "s2", "the session");
    assert_eq!(world.who("/", ""), "s2", "the address");
}

#[test]
fn case_75_a_prefix_decides_before_the_session_and_both_agree_afterwards() {
    let world = world(&["--persist", "cookie=JS,prefix", "--persist", "session=JS"]);
    assert_eq!(world.who("/", "Cookie: JS=abc"), "s1", "learned without a prefix");
    assert_eq!(world.who("/", "Cookie: JS=s2~abc"), "s2");
    assert!(world.balancer.log_line(1).contains("persist=cookie:hit>s2,session:outvoted>s1"));
    assert_eq!(world.who("/", "Cookie: JS=abc"), "s2", "the bare id is the key");
}

#[test]
fn a_client_that_was_moved_away_from_its_prefix_stays_where_it_is() {
    let world = world(&["--persist", "cookie=JS,prefix", "--persist", "session=JS"]);
    assert_eq!(world.who("/", "Cookie: JS=s2~abc"), "s2");
    world.health(1, Health::Down);
    assert_eq!(world.who("/", "Cookie: JS=s2~abc"), "s1");
    world.health(1, Health::Up);
    for n in 0..3 {
        assert_eq!(world.who("/", "Cookie: JS=s2~abc"), "s1", "request {n}: its session is here now");
    }
    assert!(world.balancer.log_line(2).contains("persist=cookie:outvoted>s2,session:hit>s1"));
    let renewed = world.ask("/", "Cookie: JS=s2~abc|X-Answer: 200+Set-Cookie: JS=new");
    assert_eq!(renewed.header("set-cookie"), Some("JS=s1~new"), "the application sets a new one");
    assert_eq!(world.who("/", "Cookie: JS=s2~other"), "s2", "only this session was moved");
    world.health(0, Health::Down);
    assert_eq!(world.who("/", "Cookie: JS=s2~abc"), "s2", "a server that is down outvotes nobody");
}

#[test]
fn headers_and_parameters_are_learned() {
    for (method, target, headers) in [
        ("header=X-User", "/", "X-User: ann"),
        ("query=user", "/?a=b&user=ann", ""),
        ("session=SID,in=query+header", "/?sid=ann", ""),
        ("session=SID,in=query+header", "/", "sid: ann"),
    ] {
        let world = world(&["--persist", method]);
        world.turn_to("s2");
        assert_eq!(world.who(target, headers), "s2", "{method}");
        for _ in 0..3 {
            assert_eq!(world.who(target, headers), "s2", "{method}");
        }
    }
}

#[test]
fn with_masks_a_block_of_addresses_is_one_client() {
    let world = world(&["--persist", "source,mask4=24"]);
    let who = |client: &str| world.ask_from(client, "/", "").text();
    assert_eq!((who("127.0.1.1"), who("127.0.1.200")), ("s1".into(), "s1".into()));
    assert_eq!((who("127.0.2.1"), who("127.0.1.9")), ("s2".into(), "s1".into()));
}

#[test]
fn what_is_ignored_teaches_nothing() {
    let world = world(&["--persist", "session=JS", "--persist-ignore", "/static"]);
    assert_eq!(world.who("/static/a", "Cookie: JS=abc|X-Answer: 200+Set-Cookie: JS=def"), "s1");
    assert_eq!(world.who("/static/a", "Cookie: JS=abc"), "s2");
    assert_eq!(world.who("/", "Cookie: JS=abc"), "s1");
    assert_eq!(world.who("/", "Cookie: JS=def"), "s2");
    assert_eq!(world.who("/static/a", "Cookie: JS=def"), "s1", "nor does anything decide");
}

#[test]
fn case_66_a_full_table_that_must_not_forget_refuses_and_everybody_is_served() {
    let world = world(&["--persist", "header=X-User,size=4,nopurge"]);
    for n in 0..40 {
        // The second time a key is used it is to leave its probation, for which there is no room in the end.
        for _ in 0..2 {
            assert!(world.ask("/", &format!("X-User: {n}")).status() == 200);
        }
    }
    let first = world.who("/", "X-User: 0");
    assert!((0..6).all(|_| world.who("/", "X-User: 0") == first), "who came first is remembered");
}

#[test]
fn one_time_ids_push_out_no_user() {
    let world = world(&["--persist", "session=JS,size=64"]);
    world.turn_to("s2");
    for _ in 0..3 {
        assert_eq!(world.who("/", "Cookie: JS=user"), "s2");
    }
    let mut client = world.balancer.client();
    for n in 0..2000 {
        client.get_with_cookie(&format!("JS=flood-{n}"));
    }
    for _ in 0..3 {
        assert_eq!(world.who("/", "Cookie: JS=user"), "s2");
    }
}

#[test]
fn parallel_first_requests_of_one_session_go_to_one_server() {
    const CLIENTS: usize = 6;
    let all_asked = Arc::new(Barrier::new(CLIENTS));
    let origin = |name: &'static str| {
        let all_asked = Arc::clone(&all_asked);
        Origin::answering(move |_| {
            all_asked.wait();
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{name}")
        })
    };
    let (s1, s2) = (origin("s1"), origin("s2"));
    let flags = ["--persist", "cookie=SRV", "--persist", "session=JS"];
    let balancer = Builder::of_flags(&flags).server(s1.address).server(s2.address).start();
    let asking: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = balancer.client();
            thread::spawn(move || client.get_with_cookie("JS=abc").text())
        })
        .collect();
    let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().expect("an answer")).collect();
    assert_eq!(answers, vec![answers[0].clone(); CLIENTS]);
}

#[test]
fn a_session_that_no_server_has_answered_for_is_not_kept() {
    let s1 = obedient("s1");
    let flags = ["--persist", "session=JS", "--retries", "0", "--redispatch", "off"];
    let balancer = Builder::of_flags(&flags).server(refusing()).server(s1.address).start();
    let mut client = balancer.client();
    assert_eq!(client.get_with_cookie("JS=abc").status(), 503);
    assert_eq!(client.get_with_cookie("JS=abc").text(), "s1", "balanced anew");
}
