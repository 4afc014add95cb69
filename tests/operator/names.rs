//! Servers whose hosts have names.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::super::{Origin, balancer, eventually, one_line, text};
use super::Daemon;
use crate::dns::{Dns, Says, are};
use balancer::names::resolver::{LATEST, Resolver, SOONEST};

fn flags(dns: &Dns) -> String {
    format!("--server s1=app.example:80 --check none --resolver {}", dns.address)
}

#[test]
fn a_server_follows_its_name_and_moves_only_when_it_must() {
    let dns = Dns::start(are(&["192.0.2.5", "192.0.2.6"]));
    let daemon = Daemon::start(&flags(&dns));
    let row = daemon.server("s1");
    assert_eq!((&row["address"], &row["host"]), (&"192.0.2.5:80".into(), &"app.example".into()));
    daemon.told("set server s1 drain");
    daemon.told("set server s1 weight 9");

    // Answers that turn round, and one more that would be the first, move nobody.
    dns.say_from_now_on(are(&["192.0.2.6", "192.0.2.1", "192.0.2.5"]));
    let before = dns.asked();
    eventually("more questions", || dns.asked() >= before + 6);
    assert_eq!(daemon.server("s1")["address"], "192.0.2.5:80");

    dns.say_from_now_on(are(&["192.0.2.7"]));
    daemon.wait_for_line("info: server s1: app.example is 192.0.2.7 now (was 192.0.2.5)");
    let row = daemon.server("s1");
    assert_eq!((&row["address"], &row["generation"]), (&"192.0.2.7:80".into(), &2.into()));
    assert_eq!((&row["operator"], &row["weight"]), (&"drain".into(), &9.into()), "it is the same server");

    // Whatever the answers are like, it stays where it is.
    for (says, why) in [
        (Says::Failure, "cannot be resolved: "),
        (Says::NoSuchName, "cannot be resolved: there is no such name"),
        (are(&["127.0.0.1"]), "is 127.0.0.1, which no server can have"),
        (are(&["0.0.0.0", "224.0.0.1", "::1"]), "which no server can have"),
        (are(&[]), "cannot be resolved: it has no address"),
        (Says::Garbage, "cannot be resolved: "),
        (Says::Lies, "cannot be resolved: "),
    ] {
        dns.say_from_now_on(says.clone());
        let line = daemon.wait_for_line("server s1: app.example ");
        assert!(line.starts_with("warn: ") && line.contains(why), "{says:?}: {line}");
        assert!(line.ends_with("; it stays at 192.0.2.7"), "{says:?}: {line}");
        assert_eq!(daemon.server("s1")["address"], "192.0.2.7:80", "{says:?}");
        dns.say_from_now_on(are(&["192.0.2.7"]));
        daemon.wait_for_line("info: server s1: app.example is 192.0.2.7 still");
    }
    let shown = daemon.told("show servers");
    assert!(shown.contains("192.0.2.7:80 (app.example)"), "{shown}");
}

#[test]
fn a_server_that_was_never_found_is_down_until_it_is() {
    let Some(own) = own_address() else { return };
    let origin = Origin::start_at("0.0.0.0:0");
    let port = origin.address.rsplit(':').next().expect("a port").to_owned();
    let dns = Dns::start(Says::NoSuchName);
    let daemon = Daemon::start(&format!(
        "--server s1=app.example:{port} --check-interval 50ms --check-rise 1 --resolver {}",
        dns.address
    ));
    let warning = "warn: server s1: app.example cannot be resolved: there is no such name; it is down until \
                   its address is known, for which is asked again and again";
    assert!(daemon.seen.borrow().iter().any(|line| line == warning), "{:?}", daemon.seen);
    let row = daemon.server("s1");
    assert_eq!((&row["address"], &row["state"]), (&serde_json::Value::Null, &"down".into()));
    assert!(daemon.told("show servers").contains("unresolved (app.example)"));
    assert!(daemon.get().starts_with("HTTP/1.1 503"));
    dns.say_from_now_on(are(&[&own.to_string()]));
    daemon.wait_for_line(&format!("info: server s1: app.example is {own} now"));
    eventually("an answer", || daemon.get().starts_with("HTTP/1.1 200"));
    // One that is added later finds its way as well.
    daemon.told("del server s1 --force");
    assert_eq!(
        daemon.told(&format!("add server s2=other.example:{port}")),
        "server s2 is added; it is down now"
    );
    daemon.wait_for_line(&format!("info: server s2: other.example is {own} now"));
    eventually("an answer", || daemon.get().starts_with("HTTP/1.1 200"));
}

#[test]
fn two_servers_of_one_name_have_two_addresses() {
    let dns = Dns::start(are(&["192.0.2.6", "192.0.2.5"]));
    let daemon = Daemon::start(&format!("{} --server s2=app.example:80", flags(&dns)));
    let address = |name: &str| daemon.server(name)["address"].clone();
    assert_eq!((address("s1"), address("s2")), ("192.0.2.5:80".into(), "192.0.2.6:80".into()));
}

#[test]
fn the_last_address_is_good_enough_for_a_start() {
    let dns = Dns::start(are(&["192.0.2.5"]));
    let mut daemon = Daemon::start(&flags(&dns));
    dns.say_from_now_on(Says::Silence);
    let stays = "app.example cannot be resolved: no answer; it stays at 192.0.2.5";
    // A hot restart is told by the predecessor.
    let mut again = Daemon::start_at(&daemon.directory, &daemon.name, &format!("{} --takeover", flags(&dns)));
    assert_eq!(daemon.wait(), Some(0));
    assert!(again.seen.borrow().iter().any(|line| line.contains(stays)), "{:?}", again.seen);
    assert_eq!(again.server("s1")["address"], "192.0.2.5:80");
    if !again.remembers() {
        return;
    }
    let mut after = again.crash_and_start(&flags(&dns));
    assert!(after.seen.borrow().iter().any(|line| line.contains(stays)), "{:?}", after.seen);
    assert_eq!(after.server("s1")["address"], "192.0.2.5:80");
    // It was the address of that host, and not of another.
    let other = after.crash_and_start(&flags(&dns).replace("app.example", "other.example"));
    assert_eq!(other.server("s1")["address"], serde_json::Value::Null);
}

#[test]
fn check_says_who_a_host_is_and_fails_where_it_is_nobody() {
    let dns = Dns::start(are(&["192.0.2.5"]));
    let check = || balancer(&format!("check --admin /tmp/x.sock --listen 127.0.0.1:80 {}", flags(&dns)));
    let output = check();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("server s1: app.example is 192.0.2.5"), "{}", text(&output.stdout));
    dns.say_from_now_on(Says::NoSuchName);
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    let message = one_line(&output);
    assert!(
        message.contains("--server s1: app.example cannot be resolved: there is no such name"),
        "{message}"
    );
}

#[test]
fn what_this_host_knows_by_itself_needs_no_resolver() {
    let origin = Origin::start();
    let port = origin.address.rsplit(':').next().expect("a port").to_owned();
    let dns = Dns::start(Says::Silence);
    let daemon =
        Daemon::start(&format!("--server s1=localhost:{port} --check none --resolver {}", dns.address));
    assert!(daemon.get().starts_with("HTTP/1.1 200"));
    assert_eq!(dns.asked(), 0);
}

#[test]
fn an_answer_holds_for_a_minute_at_most_and_a_second_at_least() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let life = |seconds: u32| {
        let dns = Dns::start(Says::Are(vec!["192.0.2.1".parse().expect("address")], seconds));
        let resolver = Resolver::new(&[dns.address]);
        runtime.block_on(resolver.resolve("app.example")).expect("an answer").life
    };
    assert_eq!((life(0), life(u32::MAX >> 1)), (SOONEST, LATEST));
    let between = life(30);
    assert!(between > Duration::from_secs(25) && between <= Duration::from_secs(30), "{between:?}");
}

/// An address of this host that others could connect to, if there is one. Connecting a UDP socket sends nothing.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}
