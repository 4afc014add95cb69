//! What operators do to the servers of a running balancer, and what becomes of it when the process ends.

mod crowd;
mod intents;
mod names;
mod reload;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Daemon, Origin, one_line, text};

impl Daemon {
    /// The row of one server.
    fn server(&self, name: &str) -> Value {
        self.json(&format!("show server {name} --json"))
    }

    /// What a client command prints, if it succeeds.
    fn told(&self, line: &str) -> String {
        let output = self.ask(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    fn refuses(&self, line: &str) -> String {
        let output = self.ask(line);
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output.stdout));
        one_line(&output)
    }

    /// The names of the servers, in their order.
    fn servers(&self) -> Vec<String> {
        let rows = self.json("show servers --json");
        rows.as_array()
            .expect("rows")
            .iter()
            .map(|row| row["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    /// What operators say is on record in the kernel.
    fn remembers(&self) -> bool {
        !self.seen.borrow().iter().any(|line| line.contains("will not survive a restart"))
    }

    /// Ends as after a crash, and is started again with `flags`.
    fn crash_and_start(&mut self, flags: &str) -> Self {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        Self::start_at(&self.directory, &self.name, flags)
    }
}

#[test]
fn a_server_is_added_serves_and_is_deleted() {
    let (first, second) = (Origin::start(), Origin::start());
    second.answer_from_now_on(201);
    let daemon = Daemon::start(&format!("--server s1={} --check none --persist cookie=SRV", first.address));
    let added = daemon.told(&format!("add server s2={},weight=3", second.address));
    assert_eq!(added, "server s2 is added; it is up now");
    assert_eq!(daemon.servers(), ["s1", "s2"]);
    let balanced: Vec<_> = (0..4).map(|_| daemon.get().starts_with("HTTP/1.1 201")).collect();
    assert_eq!(balanced.iter().filter(|is_second| **is_second).count(), 3, "by weight: {balanced:?}");
    daemon.told("set server s1 weight 0");
    assert!((0..4).all(|_| daemon.get().starts_with("HTTP/1.1 201")));
    assert!(daemon.get_with("Cookie: SRV=s1\r\n").starts_with("HTTP/1.1 200"), "users stay");
    daemon.told("set server s1 weight 100%");
    assert_eq!(daemon.server("s1")["weight"], 1);

    let refused = daemon.refuses("del server s2");
    assert!(refused.contains("server s2 is not in maint"), "{refused}");
    daemon.told("set server s2 maint");
    assert_eq!(daemon.told("del server s2"), "server s2 is deleted");
    assert_eq!(daemon.servers(), ["s1"]);
    let moved = daemon.get_with("Cookie: SRV=s2\r\n");
    assert!(moved.starts_with("HTTP/1.1 200") && moved.contains("SRV=s1"), "{moved}");
    daemon.told("del server s1 --force");
    assert!(daemon.servers().is_empty());
    assert!(daemon.get().starts_with("HTTP/1.1 503"));
    daemon.told(&format!("add server s1={}", first.address));
    assert!(daemon.get().starts_with("HTTP/1.1 200"));
    let refused = daemon.refuses("add server s1=127.0.0.1:1");
    assert!(refused.contains("has the name of a server before it"), "{refused}");
}

#[test]
fn an_added_server_is_checked_like_the_others() {
    let origin = Origin::start();
    let flags = "--check-interval 50ms --check-rise 1 --check-fall 1";
    let daemon = Daemon::start(&format!("--server s1={} {flags}", origin.address));
    daemon.told("add server s2=127.0.0.1:1");
    daemon.wait_for_health("s2", "down");
    daemon.told(&format!("add server s3={}", origin.address));
    daemon.wait_for_health("s3", "up");
}

#[test]
fn whoever_drains_a_server_can_wait_until_it_is_left() {
    // An origin that thinks about its answer until it is told.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("address");
    let (go, told) = mpsc::channel();
    let origin = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        told.recv().expect("told");
        super::answer(stream, 200);
    });
    let daemon = Daemon::start(&format!("--server s1={address} --check none --persist source"));
    let mut client = TcpStream::connect(&daemon.address).expect("connected");
    client.set_read_timeout(Some(super::PATIENCE)).expect("set");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    super::eventually("the request is being served", || daemon.server("s1")["connections"] == 1);
    let drained = daemon.told("set server s1 drain");
    assert!(
        drained.starts_with("server s1 is set to drain; it is drain now\n1 connections and ")
            && drained.ends_with(" learned entries still point there"),
        "{drained}"
    );
    let output = daemon.ask("set server s1 drain --wait=300ms --connections-only");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    assert!(said.lines().count() >= 2 && said.contains("server s1: 1 connections and "), "{said}");
    assert!(said.trim_end().ends_with("learned entries lead there after 300ms"), "{said}");
    go.send(()).expect("it waits");
    let waited = daemon.told("set server s1 drain --wait=1m --connections-only");
    assert!(waited.ends_with("server s1: no connections lead there any more"), "{waited}");
    origin.join().expect("it has answered");
    // Whoever was learned would come back to it.
    super::eventually("the entry", || daemon.server("s1")["entries"] == 1);
    let output = daemon.ask("set server s1 drain --wait=100ms");
    assert!(
        text(&output.stderr).contains("0 connections and 1 learned entries lead there after"),
        "{output:?}"
    );
    let output = daemon.ask("set server s1 ready --wait");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_protocol_is_haproxys() {
    let daemon = Daemon::start("--server s1=127.0.0.1:1 --check none");
    let say = |line: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(daemon.admin()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        writeln!(stream, "{line}").expect("sent");
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
        answer
    };
    let name = &daemon.name;
    assert_eq!(
        say(&format!("set weight {name}/s1 50%; get weight {name}/s1")).lines().nth(2),
        Some("0 (initial 1)")
    );
    assert!(say(&format!("disable server {name}/s1")).contains("it is maint now"));
    assert!(say(&format!("enable server {name}/s1")).contains("it is up now"));
    assert!(
        say(&format!("add server {name}/s2 127.0.0.1:2 weight 5 backup check"))
            .starts_with("server s2 is added")
    );
    assert_eq!((&daemon.server("s2")["weight"], &daemon.server("s2")["backup"]), (&5.into(), &true.into()));
    assert!(
        say(&format!("set server {name}/s2 state maint; del server {name}/s2"))
            .contains("server s2 is deleted")
    );
    assert!(say("shutdown sessions server s1").starts_with("server s1: 0 connections of the proxy"));
    assert!(say("help").contains("shutdown sessions server"));
}
