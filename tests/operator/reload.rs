//! HUP: flags and the files that they name are read again.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Daemon, Origin, PATIENCE, eventually, fresh_name};

/// A service whose servers are in a file.
struct Stage {
    directory: Rc<TempDir>,
    name: String,
    file: PathBuf,
}

impl Stage {
    fn new(flags: &str) -> Self {
        let directory = Rc::new(TempDir::new().expect("directory"));
        let stage = Self { name: fresh_name(), file: directory.path().join("flags"), directory };
        stage.write(flags);
        stage
    }

    fn write(&self, flags: &str) {
        fs::write(&self.file, flags).expect("written");
    }

    fn start(&self) -> Daemon {
        self.start_with("--check none")
    }

    fn start_with(&self, flags: &str) -> Daemon {
        let flags = format!("{flags} --retries 0 @{}", self.file.display());
        Daemon::start_at(&self.directory, &self.name, &flags)
    }
}

/// What it says of a HUP.
fn hang_up(daemon: &Daemon) -> String {
    kill(daemon.pid(), Signal::SIGHUP).expect("signalled");
    daemon.wait_for_line("HUP: ")
}

/// The servers in the order of their names, with their weights.
fn servers(daemon: &Daemon) -> Vec<(String, u64)> {
    let rows = daemon.json("show servers --json");
    let of = |row: &Value| (row["name"].as_str().unwrap_or_default().to_owned(), row["weight"].as_u64());
    let rows = rows.as_array().expect("rows").iter().map(of);
    let mut rows: Vec<_> = rows.map(|(name, weight)| (name, weight.expect("a weight"))).collect();
    rows.sort();
    rows
}

fn named(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn is_denied(daemon: &Daemon) -> bool {
    let mut stream = TcpStream::connect(&daemon.address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let _ = std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n");
    !matches!(stream.read(&mut [0]), Ok(1..))
}

fn deny_list(directory: &Path, text: &str) -> String {
    let path = directory.join("deny");
    fs::write(&path, text).expect("written");
    format!("--deny @{}", path.display())
}

#[test]
fn servers_and_weights_of_a_file_count_from_a_hup_on() {
    let origin = Origin::start();
    let (s1, s2) = ("--server s1=127.0.0.1:1", "--server s2=127.0.0.1:2");
    let stage = Stage::new(&format!("{s1}\n{s2}\n"));
    let mut daemon = stage.start();
    assert!(hang_up(&daemon).contains("say what they said"));
    assert!(daemon.get().starts_with("HTTP/1.1 503 "));

    stage.write(&format!("{s2},weight=5\n--server s3={}\n", origin.address));
    assert!(daemon.ask("set server s2 drain").status.success());
    assert!(hang_up(&daemon).contains("counts from now on"));
    assert_eq!(servers(&daemon), named(&[("s2", 5), ("s3", 1)]));
    eventually("the new server", || daemon.get().starts_with("HTTP/1.1 200 "));
    assert!(hang_up(&daemon).contains("say what they said"));

    // What was said by the flags is not what the operator has said: at a start they say it themselves.
    stage.write(&format!("{s1}\n{s2}\n"));
    kill(daemon.pid(), Signal::SIGTERM).expect("signalled");
    assert_eq!(daemon.wait(), Some(0));
    let daemon = stage.start();
    assert_eq!(servers(&daemon), named(&[("s1", 1), ("s2", 1)]));
}

#[test]
fn a_deny_list_counts_from_a_hup_on() {
    let origin = Origin::start();
    let stage = Stage::new("");
    let deny = deny_list(stage.directory.path(), "192.0.2.1\n");
    stage.write(&format!("--server s1={} {deny}", origin.address));
    let daemon = stage.start();
    assert!(!is_denied(&daemon));
    deny_list(stage.directory.path(), "127.0.0.0/8\n");
    assert!(hang_up(&daemon).contains("counts from now on"));
    assert!(is_denied(&daemon));
    deny_list(stage.directory.path(), "nonsense\n");
    assert!(hang_up(&daemon).contains("nothing is changed: --deny"));
    assert!(is_denied(&daemon));
    deny_list(stage.directory.path(), "");
    assert!(hang_up(&daemon).contains("counts from now on"));
    assert!(!is_denied(&daemon));
}

#[test]
fn another_time_out_counts_for_who_comes_and_for_who_is_there() {
    let origin = Origin::start();
    let server = format!("--server s1={}", origin.address);
    let stage = Stage::new(&format!("{server} --timeout-keepalive 1h"));
    let daemon = stage.start();
    let mut stream = TcpStream::connect(&daemon.address).expect("connected");
    stage.write(&format!("{server} --timeout-keepalive 100ms --timeout-connect 2s"));
    let said = hang_up(&daemon);
    assert!(said.ends_with("counts from now on: --timeout-connect, --timeout-keepalive"), "{said}");
    let is_ended = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
        std::io::Write::write_all(stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        end.is_ok()
    };
    // A worker looks at what has changed ten times a second.
    eventually("the new time-out", || is_ended(&mut TcpStream::connect(&daemon.address).expect("connected")));
    assert!(is_ended(&mut stream), "its wait had begun before, the next one is another");
}

#[test]
fn checks_are_done_in_another_way_from_a_hup_on() {
    let origin = Origin::start();
    let server = format!("--server s1={}", origin.address);
    let stage = Stage::new(&format!("{server} --check none"));
    let daemon = stage.start_with("");
    assert_eq!(daemon.server("s1")["health"], "unknown", "--check none");
    stage.write(&format!("{server} --check http=/ --check-interval 1h --check-rise 1 --check-fall 1"));
    assert!(hang_up(&daemon).contains("--check, "));
    daemon.wait_for_health("s1", "up");
    origin.answer_from_now_on(500);
    // The next check would come in an hour.
    stage.write(&format!("{server} --check http=/ --check-interval 20ms --check-rise 1 --check-fall 1"));
    assert!(hang_up(&daemon).ends_with("--check-interval"));
    daemon.wait_for_health("s1", "down");
    assert!(daemon.get().starts_with("HTTP/1.1 503 "));
    stage.write(&format!("{server} --check http=/,expect=500 --check-interval 20ms"));
    hang_up(&daemon);
    daemon.wait_for_health("s1", "up");
    stage.write(&format!("{server} --check http=/,expect=200 --check-interval 20ms"));
    hang_up(&daemon);
    daemon.wait_for_health("s1", "down");
    stage.write(&format!("{server} --check none"));
    hang_up(&daemon);
    daemon.wait_for_line("server s1 is up: nobody checks it any more");
    assert!(daemon.get().starts_with("HTTP/1.1 500 "));
}

#[test]
fn the_access_log_is_written_elsewhere_from_a_hup_on() {
    let origin = Origin::start();
    let server = format!("--server s1={}", origin.address);
    let stage = Stage::new("");
    let at = |name: &str| stage.directory.path().join(name);
    let write = |log: &Path, rest: &str| {
        stage.write(&format!("{server} --access-log {} {rest}", log.display()));
    };
    write(&at("one"), "");
    let daemon = stage.start();
    let lines = |name: &str| fs::read_to_string(at(name)).map_or(0, |text| text.lines().count());
    daemon.get();
    eventually("a line", || lines("one") == 1);
    write(&at("no/where"), "");
    let said = hang_up(&daemon);
    assert!(said.contains("nothing is changed: --access-log /") && said.contains("no such file"), "{said}");
    write(&at("two"), "");
    assert!(hang_up(&daemon).ends_with("counts from now on: --access-log"));
    daemon.get();
    eventually("a line in the other file", || lines("two") == 1);
    write(&at("two"), "--log-format json");
    assert!(hang_up(&daemon).contains("nothing is changed: --log-format can only"));
    stage.write(&server);
    assert!(hang_up(&daemon).contains("nothing is changed: --access-log can only"));
    daemon.get();
    eventually("the lines of both", || (lines("one"), lines("two")) == (1, 2));
}

#[test]
fn what_takes_a_new_process_is_named_and_nothing_is_changed() {
    let stage = Stage::new("--server s1=127.0.0.1:1");
    let daemon = stage.start();
    let before = servers(&daemon);
    for (flags, expected) in [
        (
            "--server s1=127.0.0.1:1,weight=7 --server s2=127.0.0.1:2 --timeout-server 5s --max-headers 50",
            "--max-headers can only change with a new process",
        ),
        (
            "--server s1=127.0.0.1:9 --server s2=127.0.0.1:2",
            "--server s1 (more of it than its weight) can only change",
        ),
        ("--server s1=127.0.0.1:1 --servr s2=127.0.0.1:2", "unknown flag --servr"),
        ("--server s1=127.0.0.1:1 --server s2=127.0.0.1:2 --server s2=127.0.0.1:3", "--server \"s2="),
        ("--server s1=127.0.0.1:1 \"", "@"),
    ] {
        stage.write(flags);
        let said = hang_up(&daemon);
        assert!(said.starts_with("warn: HUP: nothing is changed: "), "{flags}: {said}");
        assert!(said.contains(expected), "{flags}: {said}");
        assert_eq!(servers(&daemon), before, "{flags}");
    }
    fs::remove_file(&stage.file).expect("removed");
    let said = hang_up(&daemon);
    assert!(said.contains("nothing is changed") && said.contains("cannot be read"), "{said}");
}
