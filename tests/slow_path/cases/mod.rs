//! The cases of the specification, a row each, and whoever plays them: the balancer, and HAProxy where it does the same.

mod play;
mod rows;
mod words;

use balancer::server::Health;

use super::balancer::Builder;
use super::origin::Origin;
use play::{Outcome, Scenery};
use rows::ROWS;

/// How a service is set up.
#[derive(Clone, Copy, Debug)]
struct Setting {
    /// Ours. What stands in `{}` is made for the row, as in [`words`].
    flags: &'static str,
    /// The lines of HAProxy's section that mean the same, joined by `|`; empty: it has nothing like it.
    haproxy: &'static str,
}

/// One request, and what comes of it.
#[derive(Clone, Copy, Debug)]
struct Row {
    number: &'static str,
    setting: Setting,
    /// What is not as it should be with s1 and s2: `s2 down, s1 maint`. A server can also be `drain`, `weightless`,
    /// `refusing`, `nameless` (without an id) and `backup`.
    world: &'static str,
    /// What is learned already: `KEY>s1`, joined by `|`. A key that is an address belongs to `source`, any other to the
    /// first other method that learns.
    learned: &'static str,
    /// The first line without the version, then header lines, joined by `|`.
    request: &'static str,
    /// What both servers answer: status, then header lines, joined by `|`.
    answer: &'static str,
    /// Who has to answer: a server, or a status of the one in the middle.
    by: &'static str,
    /// Every Set-Cookie that the client gets, and Cache-Control, joined by `|`.
    gets: &'static str,
    /// The Cookie headers that the server gets, joined by `|`.
    sees: &'static str,
    letters: &'static str,
    /// All that is learned afterwards, as above.
    leaves: &'static str,
    /// What the log says of the decision; empty: it is not looked at.
    trace: &'static str,
    haproxy: Haproxy,
}

/// What HAProxy makes of a row that it has a setting for.
#[derive(Clone, Copy, Debug)]
enum Haproxy {
    /// The same.
    Agrees,
    /// The same, except that its log says something else; why.
    HasOtherLetters(&'static str),
    /// Something else; why.
    Differs(&'static str),
}

#[test]
fn every_case_comes_out_as_specified() {
    let failures = ROWS.iter().filter_map(|row| {
        let scenery = Scenery::new(row);
        let outcome = scenery.play_ours();
        let wanted = Outcome::wanted(row);
        (outcome != wanted).then(|| format!("case {}: {outcome:?}\n   instead of {wanted:?}", row.number))
    });
    let failures: Vec<_> = failures.collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Where HAProxy is known to differ it still has to: a reason that is none any more is to go.
#[test]
fn haproxy_does_the_same_unless_there_is_a_reason() {
    let mut failures = Vec::new();
    for row in ROWS.iter().filter(|row| !row.setting.haproxy.is_empty()) {
        let Some(outcome) = Scenery::new(row).play_haproxys() else {
            eprintln!("haproxy is not installed: nothing was compared");
            return;
        };
        let wanted = Outcome::wanted_of_haproxy(row);
        // Whether it is the same without its letters, and with them.
        let is_same = (outcome.without_letters() == wanted.without_letters(), outcome == wanted);
        let (is_to_be_same, why) = match row.haproxy {
            Haproxy::Agrees => ((true, true), "it is to do the same"),
            Haproxy::HasOtherLetters(why) => ((true, false), why),
            Haproxy::Differs(why) => ((false, false), why),
        };
        if is_same != is_to_be_same {
            failures.push(format!("case {}: {why}: {outcome:?}\n   beside {wanted:?}", row.number));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn who_waits_for_a_server_gets_it_when_it_comes_back() {
    let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
    let flags = ["--persist", "cookie=SRV", "--on-down", "wait=10s"];
    let balancer = Builder::of_flags(&flags).server(s1.address).server(s2.address).start();
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
