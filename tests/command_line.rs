//! The binary as its users meet it: flags, exit codes, sockets, signals. Runs without privileges.

mod dns;
mod operator;
mod scrape;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_wrong_command_line_is_refused_in_one_line_that_names_the_flag() {
    let table = [
        ("run --lisen 127.0.0.1:80", "unknown flag --lisen; did you mean --listen?"),
        ("run --xpd eth0", "unknown flag --xpd; did you mean --xdp?"),
        ("run --telepathy x", "unknown flag --telepathy"),
        ("run --mode udp", "--mode \"udp\" is not known; write http or tcp"),
        ("run --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --mode tcp --persist cookie=A", "--mode tcp"),
        (
            "run --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --deny 10.0.0.1/8",
            "--deny \"10.0.0.1/8\" has bits",
        ),
        (
            "run --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --deny @/nowhere",
            "--deny \"@/nowhere\" cannot be read",
        ),
        (
            "run --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --persist source --xdp e --fast-path always \
             --accept-proxy ::1",
            "--fast-path always cannot go with --accept-proxy",
        ),
        ("run --server s1=127.0.0.1:81", "--listen is missing; write --listen ADDR:PORT"),
        ("run --listen 127.0.0.1:80", "--server is missing; write --server NAME=ADDR:PORT"),
        ("run --check-interval 5", "--check-interval \"5\" has no unit; write 5s"),
        ("run --listen web:80 --server s1=127.0.0.1:81", "--listen \"web:80\" has a host name"),
        (
            "check --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --persist cookie=A,rewrite,indirect",
            "--persist",
        ),
        ("check --listen 127.0.0.1:80 --server s1=127.0.0.1:81 --persist source --fast-path always", "--xdp"),
        ("run @/nowhere/at/all", "@/nowhere/at/all cannot be read"),
        ("rum", "did you mean run?"),
        ("", "no command is given"),
    ];
    for (line, expected) in table {
        let output = balancer(line);
        let message = one_line(&output);
        assert_eq!(output.status.code(), Some(2), "balancer {line}: {message}");
        assert!(
            message.starts_with("balancer: ") && message.contains(expected),
            "balancer {line}: {message}"
        );
        assert!(output.stdout.is_empty(), "balancer {line}");
    }
}

/// Word for word: who has never seen the source reads them first.
#[test]
fn what_newcomers_get_wrong_is_told_so_that_they_know_what_to_write() {
    let folder = TempDir::new().expect("folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("flags"), "# the shop\n--listen 127.0.0.1:80\n--server s1=127.0.0.1:81,wieght=2\n")
        .expect("written");
    fs::write(path("typo"), "--listen 127.0.0.1:80\n--sever s1=127.0.0.1:81\n").expect("written");
    let (service, nowhere) =
        ("--listen 127.0.0.1:0 --server s1=127.0.0.1:81", "/tmp/there-is-no-such-folder");
    let name = format!(" {} ", fresh_name());
    let table = [
        ("run", 2, "--listen is missing; write --listen ADDR:PORT"),
        ("start", 2, "unknown command \"start\"; see balancer --help for the commands there are"),
        ("run eth0", 2, "\"eth0\" is not expected here; flags begin with --, see --help"),
        (
            "check DIR/flags",
            2,
            "\"DIR/flags\" is not expected here; if it is a file of flags, write @DIR/flags",
        ),
        (
            "check @DIR/flags",
            2,
            "--server \"s1=127.0.0.1:81,wieght=2\" from @DIR/flags line 3 has an unknown option \"wieght\"; \
             did you mean weight?",
        ),
        ("check @DIR/typo", 2, "unknown flag --sever in @DIR/typo line 2; did you mean --server?"),
        ("run --listen 80", 2, "--listen \"80\" has no address; write 0.0.0.0:80 for all of this host's"),
        (
            "run --listen localhost:80",
            2,
            "--listen \"localhost:80\" has a host name; write an address, as in 127.0.0.1:80",
        ),
        ("run --listen 127.0.0.1:80 --server s1=web", 2, "--server \"s1=web\" has no port; write web:PORT"),
        (
            "run SERVICE --server 127.0.0.1:82",
            2,
            "--server \"127.0.0.1:82\" has no name; write \
             NAME=ADDR:PORT[,id=VALUE][,weight=N][,backup][,maxconn=N]\
             [,maxqueue=N][,disabled]",
        ),
        (
            "run SERVICE --server s2=127.0.0.1:82~weight~2",
            2,
            "--server \"s2=127.0.0.1:82 weight 2\" has a space in it; options follow after commas, as in \
             s1=192.0.2.1:80,weight=2",
        ),
        (
            "run SERVICE --server s2=127.0.0.1:82,check",
            2,
            "--server \"s2=127.0.0.1:82,check\" has an unknown option \"check\"; all servers are checked, \
             as --check says",
        ),
        (
            "run SERVICE --persist cookies=SRV",
            2,
            "--persist \"cookies=SRV\" is not a known method; write cookie=NAME, session=NAME, route=NAME, \
             header=NAME, query=NAME or source",
        ),
        (
            "run SERVICE --persist cookie=SRV,insrt",
            2,
            "--persist \"cookie=SRV,insrt\" has an unknown option \"insrt\"; did you mean insert?",
        ),
        ("run SERVICE --check http", 2, "--check \"http\" has no path; write http=/PATH"),
        (
            "run SERVICE --check-interval 2",
            2,
            "--check-interval \"2\" has no unit; write 2s for seconds or 2ms for milliseconds",
        ),
        ("run SERVICE --xdp", 2, "--xdp has no value; write --xdp auto|IF[,mode=auto|native|generic]"),
        (
            "run SERVICE --fast-path always",
            2,
            "--fast-path always without --persist source has nothing to learn which client is whose; add \
             --persist source",
        ),
        (
            "run SERVICE --http-admin 9100",
            2,
            "--http-admin \"9100\" has no address; write 127.0.0.1:9100, which only this host can reach",
        ),
        (
            "run SERVICE --user no-such-user",
            2,
            "--user \"no-such-user\" is not a user of this host; getent passwd lists them",
        ),
        (
            "run SERVICE --name NAME --admin DIR/a.sock --access-log NOWHERE/log",
            1,
            "--access-log NOWHERE/log: cannot be opened: no such file or directory; name a file in a folder \
             that can be written to",
        ),
        (
            "run SERVICE --name NAME --admin DIR/a.sock --state-file NOWHERE/state",
            1,
            "--state-file NOWHERE/state: cannot write to NOWHERE: no such file or directory; give a folder \
             that the process can write to",
        ),
        (
            "run --listen 192.0.2.77:80 --server s1=127.0.0.1:81 --name NAME --admin DIR/a.sock",
            1,
            "--listen 192.0.2.77:80: no interface of this host has the address; ip addr shows those there \
             are",
        ),
        (
            "show info --name web --admin DIR/web.sock",
            1,
            "no balancer named \"web\" answers at DIR/web.sock; start it, or name another one by --name or \
             --admin",
        ),
        ("set server s1 up", 2, "STATE \"up\" is not known; write ready, drain, maint or weight"),
    ];
    for (line, code, expected) in table {
        let filled = |text: &str| {
            let text = text.replace("SERVICE", service).replace("NOWHERE", nowhere).replace(" NAME ", &name);
            text.replace("DIR", path("").trim_end_matches('/'))
        };
        let words = filled(line);
        let words = words.split_whitespace().map(|word| word.replace('~', " "));
        let output = command("").args(words).output().expect("started");
        assert_eq!(one_line(&output), format!("balancer: {}", filled(expected)), "balancer {line}");
        assert_eq!(output.status.code(), Some(code), "balancer {line}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for line in ["--version", "--help", "run --help"] {
        let output = balancer(line);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{line}");
    }
    assert_eq!(text(&balancer("--version").stdout), concat!("balancer ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_flag_comes_before_the_environment_and_that_before_the_default() {
    let check = |flags: &str, environment: &[(&str, &str)]| {
        let line = format!("check --dump --listen 127.0.0.1:80 --admin /tmp/x.sock {flags}");
        let output = command(&line).envs(environment.iter().copied()).output().expect("started");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let server = "--server s1=127.0.0.1:81";
    let environment = [("BALANCER_CHECK_INTERVAL", "7s"), ("BALANCER_REDISPATCH", "off")];
    let dump = check(server, &environment);
    assert!(has_setting(&dump, "--check-interval 7s", "BALANCER_CHECK_INTERVAL"), "{dump}");
    assert!(has_setting(&dump, "--redispatch off", "BALANCER_REDISPATCH"), "{dump}");
    let dump = check(&format!("{server} --check-interval 9s"), &environment);
    assert!(has_setting(&dump, "--check-interval 9s", "flag"), "{dump}");
    assert!(has_setting(&check(server, &[]), "--check-interval 2s", "default"));

    // A repeatable flag has one value per line there, and the command line replaces them all.
    let servers = [("BALANCER_SERVER", "\n a=127.0.0.1:81\nb=127.0.0.1:82\n\n")];
    let dump = check("", &servers);
    assert!(dump.contains("a=127.0.0.1:81") && dump.contains("b=127.0.0.1:82"), "{dump}");
    assert!(dump.contains("2 servers"), "{dump}");
    let dump = check(server, &servers);
    assert!(!dump.contains("b=127.0.0.1:82") && has_setting(&dump, server, "flag"), "{dump}");

    let wrong = |name: &str, value: &str| {
        let output = command("check").env(name, value).output().expect("started");
        assert_eq!(output.status.code(), Some(2));
        one_line(&output)
    };
    let message = wrong("BALANCER_RETRIES", "many");
    assert!(
        message.contains("--retries \"many\" from BALANCER_RETRIES is not a whole number from 0 to 10"),
        "{message}"
    );
    let message = wrong("BALANCER_DETACH_ON_STOP", "maybe");
    assert!(
        message.contains("--detach-on-stop \"maybe\" from BALANCER_DETACH_ON_STOP is neither"),
        "{message}"
    );
}

#[test]
fn a_file_of_flags_counts_where_it_stands() {
    let directory = TempDir::new().expect("directory");
    let file = directory.path().join("servers");
    fs::write(&file, "# ours\n--server b=127.0.0.1:82 --server 'c=127.0.0.1:83'\n").expect("written");
    let line = format!(
        "check --dump --admin /tmp/x.sock --listen 127.0.0.1:80 --server a=127.0.0.1:81 @{} --server d=127.0.0.1:84",
        file.display()
    );
    let output = balancer(&line);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let dump = text(&output.stdout);
    let order: Vec<_> = dump.lines().filter_map(|line| line.strip_prefix("--server ")?.get(..1)).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);

    fs::write(&file, "--name web\n--name 'other").expect("written");
    let output = balancer(&format!("run @{}", file.display()));
    assert_eq!(output.status.code(), Some(2));
    assert!(one_line(&output).contains("line 2: a quote is not closed"), "{}", one_line(&output));
}

#[test]
fn what_check_dumps_is_a_file_of_flags() {
    let directory = TempDir::new().expect("directory");
    let file = directory.path().join("flags");
    let line =
        "check --dump --admin /tmp/x.sock --listen 127.0.0.1:80 --server a=127.0.0.1:81,id= --workers 3";
    let first = text(&balancer(line).stdout);
    fs::write(&file, &first).expect("written");
    let second = balancer(&format!("check --dump @{}", file.display()));
    assert!(second.status.success(), "{}", text(&second.stderr));
    let settings = |dump: &str| -> Vec<String> {
        dump.lines()
            .filter(|line| line.starts_with("--"))
            .map(|line| line.split("  #").next().expect("a part").trim().to_owned())
            .collect()
    };
    assert_eq!(settings(&text(&second.stdout)), settings(&first));
}

#[test]
fn clients_are_served_and_the_operator_is_answered() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--server s1={origin} --persist cookie=SRV --persist source",
        origin = origin.address
    ));
    daemon.wait_for_health("s1", "up");
    let response = daemon.get();
    assert!(response.starts_with("HTTP/1.1 200") && response.contains("SRV=s1"), "{response}");

    let info = daemon.json("show info --json");
    assert_eq!(info["listen"], serde_json::json!([daemon.address]));
    assert_eq!(info["pid"], daemon.child.id());
    assert_eq!(info["requests"], 1);
    let table = daemon.json("show table source --json");
    assert_eq!((&table[0]["key"], &table[0]["server"]), (&"127.0.0.1".into(), &"s1".into()));
    assert_eq!(daemon.json("show flows --json"), serde_json::json!([]));

    let output = daemon.ask("set server s1 maint");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(daemon.json("show servers --json")[0]["state"], "maint");
    assert!(text(&daemon.ask("show servers").stdout).contains("maint"));
    assert!(daemon.get().starts_with("HTTP/1.1 503"));
    daemon.ask("set server s1 ready");
    assert!(daemon.get().starts_with("HTTP/1.1 200"));

    for (line, expected) in [
        ("show table nothing", "No such table; there are: source"),
        ("set server s7 ready", "there is no server \"s7\"; there are: s1"),
    ] {
        let output = daemon.ask(line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(one_line(&output).contains(expected), "{line}: {}", one_line(&output));
    }
}

#[test]
fn more_clients_than_there_are_descriptors_for_are_not_promised() {
    let few = Daemon::start("--server s1=127.0.0.1:9 --check none --max-connections 7");
    assert_eq!(few.json("show info --json")["max_connections"], 7);
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("a limit");
    if hard > 32_000_000 {
        // Here there are enough for whatever the flag can ask.
        return;
    }
    let many = Daemon::start("--server s1=127.0.0.1:9 --check none --max-connections 16m");
    let info = many.json("show info --json");
    let possible = info["max_connections"].as_u64().expect("a number");
    let seen = many.seen.borrow();
    let warning = seen.iter().find(|line| line.contains("--max-connections")).expect("a warning");
    assert!(warning.starts_with("warn: --max-connections 16000000: the descriptor limit of "), "{warning}");
    assert!(warning.contains(&format!(" allows {possible}, which is what counts")), "{warning}");
    assert!(
        seen.iter().any(|line| *line == format!("info: clients: at most {possible} at one time")),
        "{seen:?}"
    );
    assert_eq!(info["warnings"][0].as_str().map(|text| format!("warn: {text}")).as_ref(), Some(warning));
}

#[test]
fn a_deny_list_is_a_file_and_a_denied_client_gets_nothing() {
    let directory = TempDir::new().expect("directory");
    let (list, flags) = (directory.path().join("deny"), directory.path().join("flags"));
    fs::write(&list, "# everybody here\n127.0.0.0/8\n").expect("written");
    fs::write(&flags, format!("--deny @{}", list.display())).expect("written");
    let daemon = Daemon::start(&format!("--server s1=127.0.0.1:9 --check none @{}", flags.display()));
    let mut answer = Vec::new();
    // The reset may come at any of these steps.
    let _ = TcpStream::connect(&daemon.address).and_then(|mut client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        client.read_to_end(&mut answer)
    });
    assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(daemon.json("show info --json")["denied"], 1);
}

#[test]
fn asking_nobody_is_an_error() {
    let output = balancer("show info --name nobody --admin /tmp/there-is-no-such.sock");
    assert_eq!(output.status.code(), Some(1));
    let expected = "no balancer named \"nobody\" answers at /tmp/there-is-no-such.sock; start it";
    assert!(one_line(&output).contains(expected), "{}", one_line(&output));
}

#[test]
fn a_second_instance_of_a_name_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start("--server s1=127.0.0.1:1");
    let line = format!("run --listen 127.0.0.1:0 --server s1=127.0.0.1:1 --name {} --admin", daemon.name);
    let output = command(&line).arg(daemon.admin()).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    let message = one_line(&output);
    let expected =
        format!("an instance named \"{}\" is already running (pid {}", daemon.name, daemon.child.id());
    assert!(message.contains(&expected) && message.contains("--name"), "{message}");
    assert_eq!(daemon.json("show info --json")["pid"], daemon.child.id());
}

#[test]
fn an_address_in_use_is_refused_and_nothing_is_left_behind() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("bound");
    let other = Daemon::start("--server s1=127.0.0.1:1 --workers 2");
    let taken = [
        (stranger.local_addr().expect("address").to_string(), std::process::id()),
        (other.address.clone(), other.child.id()),
    ];
    for (taken, pid) in taken {
        let directory = TempDir::new().expect("directory");
        let name = fresh_name();
        let line = format!("run --name {name} --listen {taken} --server s1=127.0.0.1:1 --workers 2 --admin");
        let output = command(&line).arg(directory.path().join("x.sock")).output().expect("started");
        assert_eq!(output.status.code(), Some(1));
        let message = one_line(&output);
        assert!(message.contains(&format!("--listen {taken}: address in use by ")), "{message}");
        assert!(message.contains(&format!(" (pid {pid})")), "{message}");
        let left: Vec<_> = fs::read_dir(directory.path()).expect("readable").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_refused_and_nothing_is_left_behind() {
    let directory = TempDir::new().expect("directory");
    let line = format!(
        "run --name {} --listen 127.0.0.1:65000 --server s1=127.0.0.1:1 --xdp nosuch0 --fast-path off --admin",
        fresh_name()
    );
    let output = command(&line).arg(directory.path().join("x.sock")).output().expect("started");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    one_line(&output);
    let left: Vec<_> = fs::read_dir(directory.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_signal_ends_it_cleanly_and_a_killed_one_can_be_started_again() {
    let mut daemon = Daemon::start("--server s1=127.0.0.1:1");
    kill(daemon.pid(), Signal::SIGKILL).expect("killed");
    daemon.child.wait().expect("ended");
    let mut again = Daemon::start_at(&daemon.directory, &daemon.name, "--server s1=127.0.0.1:1");
    kill(again.pid(), Signal::SIGTERM).expect("signalled");
    assert_eq!(again.wait(), Some(0));
    let left: Vec<_> = fs::read_dir(daemon.directory.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn draining_waits_for_a_request_and_a_second_signal_does_not() {
    let mut daemon = Daemon::start("--server s1=127.0.0.1:1 --drain-timeout 1h --timeout-request 1h");
    let mut client = TcpStream::connect(&daemon.address).expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").expect("sent");
    let connected = || daemon.json("show info --json")["connections_active"] == 1;
    eventually("the connection is seen", connected);
    kill(daemon.pid(), Signal::SIGTERM).expect("signalled");
    daemon.wait_for_line("draining");
    thread::sleep(Duration::from_millis(300));
    assert!(daemon.child.try_wait().expect("known").is_none(), "it waits");
    kill(daemon.pid(), Signal::SIGINT).expect("signalled");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_drain_ends_at_its_limit() {
    let mut daemon = Daemon::start("--server s1=127.0.0.1:1 --drain-timeout 200ms --timeout-request 1h");
    let mut client = TcpStream::connect(&daemon.address).expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    kill(daemon.pid(), Signal::SIGTERM).expect("signalled");
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn the_access_log_is_opened_anew_on_hup() {
    let directory = TempDir::new().expect("directory");
    let (log, rotated) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let daemon =
        Daemon::start(&format!("--server s1=127.0.0.1:1 --check none --access-log {}", log.display()));
    daemon.get();
    let lines = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    eventually("the first line", || lines(&log) == 1);
    fs::rename(&log, &rotated).expect("renamed");
    kill(daemon.pid(), Signal::SIGHUP).expect("signalled");
    eventually("a new file", || log.exists());
    daemon.get();
    eventually("the second line", || lines(&log) == 1 && lines(&rotated) == 1);
}

#[test]
fn lines_for_the_journal_have_their_priority_and_others_have_none() {
    use std::os::unix::fs::MetadataExt;
    let directory = TempDir::new().expect("directory");
    let (stderr, admin) = (directory.path().join("stderr"), directory.path().join("admin.sock"));
    let said = |level: &str, is_journal: bool| {
        let name = fresh_name();
        let file = fs::File::create(&stderr).expect("made");
        let there = file.metadata().expect("there");
        // Somebody else's stderr was the journal.
        let inode = if is_journal { there.ino() } else { there.ino() + 1 };
        let flags = "--listen 127.0.0.1:0 --server s1=127.0.0.1:1 --check none --retries 0 --check-rise 3";
        let mut child = command(&format!("run --name {name} {flags} --log-level {level} --admin"))
            .arg(&admin)
            .env("JOURNAL_STREAM", format!("{}:{inode}", there.dev()))
            .stderr(file)
            .spawn()
            .expect("started");
        let shown = format!("show info --name {name} --admin {}", admin.display());
        eventually("an answer", || balancer(&shown).status.success());
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("signalled");
        assert!(child.wait().expect("ended").success());
        let _ = balancer(&format!("detach --name {name}"));
        fs::read_to_string(&stderr).expect("text")
    };
    let text = said("info", true);
    assert!(
        text.contains("<4>warn: --check-rise has no effect") && text.contains("\n<6>info: ready: "),
        "{text}"
    );
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
    let text = said("info", false);
    assert!(text.contains("warn: --check-rise has no effect") && text.contains("info: ready: "), "{text}");
    assert!(!text.contains('<'), "{text}");
    let text = said("warn", false);
    assert!(text.contains("warn: --check-rise has no effect") && !text.contains("info: "), "{text}");
    assert_eq!(said("error", false), "");
}

#[test]
fn the_access_log_can_be_json_whatever_clients_send() {
    let directory = TempDir::new().expect("directory");
    let log = directory.path().join("access.log");
    let flags = format!("--check none --retries 0 --log-format json --access-log {}", log.display());
    let daemon = Daemon::start(&format!("--server s1=127.0.0.1:1 --persist cookie=SRV {flags}"));
    let send = |request: &[u8]| {
        let mut client = TcpStream::connect(&daemon.address).expect("connected");
        client.write_all(request).expect("sent");
        client.read_to_end(&mut Vec::new()).expect("answered");
    };
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    };
    send(b"GET /\",\"status\":200,\"\\ HTTP/1.1\r\nHost: a\r\nCookie: SRV=s1\r\nConnection: close\r\n\r\n");
    eventually("the first line", || lines().len() == 1);
    send(b"GET /\xff\x1b\"}\r\n\r\n");
    eventually("the second line", || lines().len() == 2);
    let [asked, nonsense] = &lines()[..] else { panic!("two requests") };
    assert_eq!((&asked["method"], &asked["target"]), (&json!("GET"), &json!(r#"/","status":200,"\"#)));
    assert_eq!((&asked["status"], &asked["server"]), (&json!(503), &json!("s1")));
    assert_eq!((&asked["cookie"], &asked["persist"]), (&json!("VN"), &json!("cookie:hit>s1")));
    assert_eq!((&asked["client"], &asked["fault"]), (&json!("127.0.0.1"), &json!("unreachable")));
    assert_eq!((&nonsense["method"], &nonsense["target"]), (&Value::Null, &Value::Null));
    assert_eq!((&nonsense["status"], &nonsense["fault"]), (&json!(400), &json!("bad-request")));
}

#[test]
fn a_server_that_goes_and_comes_is_noticed() {
    let origin = Origin::start();
    let address = origin.address.clone();
    let daemon = Daemon::start(&format!(
        "--server s1={address} --server s2=127.0.0.1:1 --check-interval 50ms --check-rise 1 --check-fall 2"
    ));
    daemon.wait_for_line("server s2 is down: connection refused");
    daemon.wait_for_health("s1", "up");
    drop(origin);
    daemon.wait_for_line(
        "server s1 is down: connection refused (2 checks in a row); none of 2 left, so new clients are \
         refused; 0 connections affected",
    );
    let _origin = Origin::start_at(&address);
    daemon.wait_for_line("server s1 is up: a check is well; 1 of 2 left");
}

#[test]
fn a_server_is_asked_how_it_is_and_may_ask_for_no_new_clients() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--server s1={} --check http=/health,drain-on=404 --check-interval 50ms --check-rise 1 --check-fall 2 \
         --persist cookie=SRV,insert",
        origin.address
    ));
    daemon.wait_for_health("s1", "up");
    origin.answer_from_now_on(404);
    daemon.wait_for_line(
        "server s1 asks for no new clients; none of 1 left, so new clients are refused; 0 connections stay \
         for the time being",
    );
    assert!(daemon.get().starts_with("HTTP/1.1 503 "), "a new client");
    assert!(daemon.get_with("Cookie: SRV=s1\r\n").starts_with("HTTP/1.1 404 "), "a user of its own");
    origin.answer_from_now_on(500);
    daemon.wait_for_line(
        "server s1 is down: GET /health is answered with 500 (2 checks in a row); none of 1 left",
    );
    origin.answer_from_now_on(200);
    daemon.wait_for_line("server s1 is up: a check is well; 1 of 1 left");
}

/// `balancer LINE`, without any settings of the environment that the tests run in.
fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BALANCER_")) {
        command.env_remove(name);
    }
    // The default place of the admin socket, where there is a user's session or not.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    command.args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn balancer(line: &str) -> Output {
    command(line).output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The one line on stderr.
fn one_line(output: &Output) -> String {
    let message = text(&output.stderr);
    assert_eq!(message.matches('\n').count(), 1, "one line: {message:?}");
    message.trim_end().to_owned()
}

fn has_setting(dump: &str, setting: &str, origin: &str) -> bool {
    let lines = dump.lines().filter_map(|line| line.rsplit_once("  # "));
    lines.into_iter().any(|(text, from)| text.trim() == setting && from == origin)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A name that no other test and no other run of the tests has.
fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A running balancer on a port of the kernel's choice; killed on drop.
struct Daemon {
    child: Child,
    name: String,
    /// Where clients connect.
    address: String,
    directory: Rc<TempDir>,
    stderr: mpsc::Receiver<String>,
    seen: RefCell<VecDeque<String>>,
}

impl Daemon {
    fn start(flags: &str) -> Self {
        let directory = Rc::new(TempDir::new().expect("directory"));
        Self::start_at(&directory, &fresh_name(), flags)
    }

    fn start_at(directory: &Rc<TempDir>, name: &str, flags: &str) -> Self {
        let mut child = command(&format!("run --name {name} --listen 127.0.0.1:0 {flags} --admin"))
            .arg(directory.path().join("admin.sock"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let (lines, stderr) = mpsc::channel();
        let reader = BufReader::new(child.stderr.take().expect("piped"));
        thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let mut daemon = Self {
            child,
            name: name.to_owned(),
            address: String::new(),
            directory: Rc::clone(directory),
            stderr,
            seen: RefCell::default(),
        };
        let ready = daemon.wait_for_line("ready: ");
        let address =
            ready.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).expect("bound address");
        daemon.address = address.to_owned();
        daemon
    }

    fn admin(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The next line on stderr that contains `part`.
    fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stderr.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => self.seen.borrow_mut().push_back(line),
                Err(_) => panic!("no line with {part:?} after {:?}", self.seen.borrow()),
            }
        }
    }

    fn wait_for_health(&self, server: &str, health: &str) {
        eventually("the health of a server", || {
            let servers = self.json("show servers --json");
            servers
                .as_array()
                .expect("array")
                .iter()
                .any(|row| row["name"] == server && row["health"] == health)
        });
    }

    fn ask(&self, line: &str) -> Output {
        command(&format!("{line} --name {} --admin", self.name)).arg(self.admin()).output().expect("started")
    }

    fn json(&self, line: &str) -> Value {
        let output = self.ask(line);
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect(line)
    }

    /// The response to a plain request, all of it.
    fn get(&self) -> String {
        self.get_with("")
    }

    /// The same with header lines.
    fn get_with(&self, headers: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n").expect("sent");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response");
        response
    }

    /// The exit code.
    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().expect("known") {
                Some(status) => return status.code(),
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Where the tests run with privileges the tables were in the kernel.
        let _ = command(&format!("detach --name {}", self.name)).output();
    }
}

/// A server that answers every request with a word and closes; gone on drop.
struct Origin {
    address: String,
    status: Arc<AtomicU16>,
    gone: Arc<AtomicBool>,
}

impl Origin {
    fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let (gone, status) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU16::new(200)));
        let (stop, says) = (Arc::clone(&gone), Arc::clone(&status));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let status = says.load(Ordering::SeqCst);
                thread::spawn(move || answer(stream, status));
            }
        });
        Self { address, status, gone }
    }

    fn answer_from_now_on(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        // Wakes the thread, which then closes the listener.
        let _ = TcpStream::connect(&self.address);
    }
}

fn answer(mut stream: TcpStream, status: u16) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
            _ => return,
        }
    }
    let _ = write!(stream, "HTTP/1.1 {status} Fine\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
}
