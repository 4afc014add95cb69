//! On a real terminal, in front of a real instance.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use balancer::top::terminal::Screen;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::pty::Terminal;

const BALANCER: &str = env!("CARGO_BIN_EXE_balancer");

/// In front of nobody: requests are answered with 503.
fn instance(name: &str) -> Daemon {
    let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    let name = format!("{name}-{}", std::process::id());
    Daemon::start(
        &name,
        port,
        &["--server", "other=127.0.0.1:9", "--persist", "cookie=SRV", "--persist", "session=JS"],
    )
}

fn watch(admin: &Path, size: (u16, u16)) -> Terminal {
    let admin = admin.to_str().expect("text");
    Terminal::start(&[BALANCER, "top", "--interval", "100ms", "--admin", admin], &[], size)
}

fn ask(admin: &Path, words: &str) -> Output {
    let mut command = Command::new(BALANCER);
    command.args(words.split(' ')).arg("--admin").arg(admin).env_remove("COLUMNS");
    command.output().expect("started")
}

fn get(address: SocketAddr) {
    let mut client = TcpStream::connect(address).expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    client.read_to_end(&mut Vec::new()).expect("answered");
}

#[test]
fn an_instance_is_watched_while_it_changes_and_when_it_is_gone() {
    let daemon = instance("watched");
    let folder = tempfile::TempDir::new().expect("a folder");
    let admin = folder.path().join("admin.sock");
    symlink(daemon.admin(), &admin).expect("linked");
    let mut terminal = watch(&admin, (80, 24));
    terminal.wait_for(&["watched-", "2 of 2 servers up", "s1", "other", "No request has been answered yet."]);

    get(daemon.address);
    terminal.wait_for(&["503", "cookie:miss"]);
    terminal.press("2");
    terminal.wait_for(&["2 servers", "server ▲"]);
    assert!(ask(&admin, "set server s1 drain").status.success());
    terminal.wait_for(&["1 of 2 servers up", "◐ s1", "drain"]);
    terminal.press("/other\r");
    let screen = terminal.wait_for(&["1 of 2 servers with \"other\""]);
    assert!(!screen.contains("s1"), "{screen}");
    terminal.press("\x1b");
    terminal.wait_for(&["s1"]);
    terminal.press("G\r");
    terminal.wait_for(&["Server s1", "the operator says  drain", "0 now, proxy and fast path together"]);
    terminal.press("5\r");
    terminal.wait_for(&[
        "A request",
        "answered with",
        "503",
        "cookie found nothing that names a server of today.",
    ]);
    terminal.press("4");
    terminal.wait_for(&["This service has no fast path"]);

    terminal.press("1");
    terminal.wait_for(&["means of 5s"]);
    let object = ask(&admin, "top --once --json");
    has_members(&serde_json::from_slice(&object.stdout).expect("an object"));

    terminal.press("4");
    kill(Pid::from_raw(daemon.pid() as i32), Signal::SIGKILL).expect("there");
    terminal.wait_for(&["NO ANSWER since", "answers at"]);
    terminal.press("2");
    terminal.wait_for(&["2 servers", "drain"]);

    // Somebody starts it again: nobody has to tell us.
    let again = instance("again");
    fs::remove_file(&admin).expect("removed");
    symlink(again.admin(), &admin).expect("linked");
    terminal.wait_until("answer", |screen| {
        screen.contents().contains("again-") && !screen.contents().contains("NO ANSWER")
    });
    terminal.press("q");
    assert_eq!(terminal.wait_until_ended(), 0);
    terminal.wait_until_given_back();
}

/// What is missing is shown as nothing, so that versions understand each other. Here nothing is.
fn has_members(status: &Value) {
    for (place, members) in [
        ("", "info ready clients responses waiting servers tables fast_path history decisions"),
        ("/info", "name version pid uptime_seconds draining tables"),
        ("/clients", "now most limit connections_per_second requests_per_second"),
        ("/responses", "1xx 2xx 3xx 4xx 5xx none"),
        (
            "/servers/0",
            "name address host state operator health weight effective_weight backup cookie in_flight maxconn queue \
             requests fast fast_traffic entries millis sessions_per_second responses failures down_seconds \
             seconds_in_state",
        ),
        ("/servers/0/millis", "queue connect response total"),
        ("/servers/0/failures", "connect response broken_off"),
        ("/tables/0", "name kind entries probation size timeout"),
        ("/history", "seconds samples"),
        (
            "/history/samples/0",
            "requests_per_second connections_per_second fast_per_second failures_per_second p50_millis p99_millis",
        ),
        ("/decisions/0", "time client status server letters persist"),
    ] {
        let object = status.pointer(place).and_then(Value::as_object).unwrap_or_else(|| panic!("no {place}"));
        for member in members.split_whitespace() {
            assert!(object.contains_key(member), "{place} has no {member}: {object:?}");
        }
    }
}

#[test]
fn the_keyboard_works_while_the_instance_hangs() {
    let daemon = instance("hanging");
    let pid = Pid::from_raw(daemon.pid() as i32);
    let mut terminal = watch(&daemon.admin(), (80, 24));
    terminal.wait_for(&["2 of 2 servers up"]);
    kill(pid, Signal::SIGSTOP).expect("there");
    terminal.press("3");
    terminal.wait_for(&["1 learned tables", "session=JS"]);
    terminal.wait_for(&["NO ANSWER since", "it is there, and says nothing"]);
    terminal.press("2");
    terminal.wait_for(&["2 servers"]);
    kill(pid, Signal::SIGCONT).expect("there");
    terminal.wait_until("answer", |screen| !screen.contents().contains("NO ANSWER"));
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    let daemon = instance("ending");
    for end in ["q", "\x03"] {
        let mut terminal = watch(&daemon.admin(), (80, 24));
        terminal.wait_until("other screen", vt100::Screen::alternate_screen);
        terminal.wait_for(&["ending-"]);
        terminal.press(end);
        assert_eq!(terminal.wait_until_ended(), 0, "{end:?}");
        terminal.wait_until_given_back();
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut terminal = watch(&daemon.admin(), (80, 24));
        terminal.wait_for(&["ending-"]);
        // These are meant for the service, by whoever sends them to all of its program's name.
        terminal.signal(Signal::SIGUSR1);
        terminal.signal(Signal::SIGUSR2);
        terminal.press("3");
        terminal.wait_for(&["1 learned tables"]);
        terminal.signal(signal);
        assert_eq!(terminal.wait_until_ended(), 0, "{signal}");
        terminal.wait_until_given_back();
    }
    let mut terminal = watch(&daemon.admin(), (80, 24));
    terminal.wait_for(&["ending-"]);
    terminal.hang_up();
    assert_eq!(terminal.wait_until_ended(), 0, "hung up");
}

/// Who panics is this test once more, on a terminal.
#[test]
fn the_terminal_is_given_back_by_a_panic() {
    const ON_TERMINAL: &str = "TOP_TEST_PANICS";
    if std::env::var_os(ON_TERMINAL).is_some() {
        // Like a release, which ends at a panic without any drop.
        Box::leak(Box::new(Screen::take().expect("a terminal")));
        panic!("nobody expects this");
    }
    let this = std::env::current_exe().expect("known");
    let this = this.to_str().expect("text");
    let command = [this, "--exact", "--nocapture", "watching::the_terminal_is_given_back_by_a_panic"];
    let mut terminal = Terminal::start(&command, &[(ON_TERMINAL, "1")], (80, 24));
    terminal.wait_for(&["nobody expects this"]);
    assert_ne!(terminal.wait_until_ended(), 0);
    terminal.wait_until_given_back();
    assert!(terminal.was_taken, "it was another screen at some time");
}

#[test]
fn it_can_be_left_for_the_shell_and_come_back_to() {
    let daemon = instance("shell");
    let mut terminal = watch(&daemon.admin(), (80, 24));
    terminal.wait_for(&["shell-"]);
    for _ in 0..2 {
        terminal.press("\x1a");
        terminal.wait_until_stopped();
        terminal.wait_until_given_back();
        terminal.signal(Signal::SIGCONT);
        terminal.wait_until("other screen", vt100::Screen::alternate_screen);
        terminal.wait_for(&["shell-", "2 of 2 servers up", "? help"]);
    }
    terminal.press("\x0c");
    terminal.signal(Signal::SIGTSTP);
    terminal.wait_until_stopped();
    terminal.wait_until_given_back();
}

#[test]
fn another_size_is_used_at_once() {
    let daemon = instance("size");
    // Nothing else is drawn meanwhile.
    let admin = daemon.admin();
    let admin = admin.to_str().expect("text");
    let mut terminal =
        Terminal::start(&[BALANCER, "top", "--interval", "1h", "--admin", admin], &[], (120, 40));
    terminal.wait_for(&["size-", "failed"]);
    terminal.resize(40, 10);
    terminal.wait_for(&["too small: 40x10", "needed: 60x14"]);
    terminal.resize(100, 30);
    terminal.wait_for(&["size-", "? help"]);
}

#[test]
fn an_old_terminal_gets_ascii_without_colours() {
    let daemon = instance("old");
    let admin = daemon.admin();
    let admin = admin.to_str().expect("text");
    let environment = [("LC_ALL", "C"), ("NO_COLOR", "1")];
    let mut terminal = Terminal::start(&[BALANCER, "top", "--admin", admin], &environment, (80, 24));
    let screen = terminal.wait_for(&["old-", "+ s1", "? help"]);
    assert!(screen.is_ascii(), "{screen}");
    terminal.wait_until("plain characters", |screen| {
        let cells = (0..24).flat_map(|y| (0..80).map(move |x| (y, x)));
        let coloured = |(y, x)| screen.cell(y, x).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default);
        !cells.into_iter().any(coloured)
    });
}

#[test]
fn once_is_a_text_or_the_object() {
    let daemon = instance("once");
    get(daemon.address);
    let text = ask(&daemon.admin(), "top --once");
    assert!(text.status.success(), "{text:?}");
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(!text.contains('\x1b') && text.contains("once-"), "{text}");
    for part in ["2 of 2 servers up", "requests/s", "server", "s1", "other"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(text.lines().any(|line| line.len() > 80), "in a pipe nothing is cut:\n{text}");

    let mut narrow = Command::new(BALANCER);
    narrow.args(["top", "--once", "--admin"]).arg(daemon.admin()).env("COLUMNS", "50");
    let narrow = narrow.output().expect("started");
    let narrow = String::from_utf8(narrow.stdout).expect("text");
    assert!(narrow.lines().all(|line| line.chars().count() <= 50), "{narrow}");

    let object = ask(&daemon.admin(), "top --once --json");
    let object: Value = serde_json::from_slice(&object.stdout).expect("an object");
    assert_eq!(object["servers"][0]["name"], "s1");
    assert_eq!(object["history"]["seconds"], 5);
}

#[test]
fn without_a_terminal_or_an_instance_it_says_what_to_do() {
    let daemon = instance("where");
    let output = ask(&daemon.admin(), "top");
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(message.contains("is not a terminal; write balancer top --once"), "{message}");

    let nobody = Path::new("/nowhere/admin.sock");
    let expected = ask(nobody, "show info");
    for words in ["top --once", "top --once --json"] {
        let output = ask(nobody, words);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert_eq!(output.stderr, expected.stderr, "{words}");
    }
    let mut terminal = watch(nobody, (80, 24));
    terminal.wait_for(&["no balancer named \"balancer\" answers at /nowhere/admin.sock"]);
    assert_eq!(terminal.wait_until_ended(), 1);

    for (words, expected) in [
        ("top --json", "--once is missing"),
        ("top --interval 5ms", "--interval \"5ms\" is out of range; write one from 100ms to 1h"),
    ] {
        let output = ask(nobody, words);
        let message = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let mut dumb = Terminal::start(&[BALANCER, "top"], &[("TERM", "dumb")], (80, 24));
    dumb.wait_for(&["TERM names no terminal to draw on; write balancer top --once"]);
    assert_eq!(dumb.wait_until_ended(), 2);
}
