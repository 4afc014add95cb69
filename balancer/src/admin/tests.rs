use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use balancer_ebpf::affinity::Affinity;
use serde_json::Value;

use super::*;
use crate::balance::Balance;
use crate::cli;
use crate::clock;
use crate::config::{Config, Host, Plan, ServerConfig, servers};
use crate::instance::Instance;
use crate::intent::Intents;
use crate::intent::ledger::{InMemory, Records};
use crate::intent::muster::Member;
use crate::persist::List;
use crate::server::tests::named;
use crate::server::{Operator, Servers, State};
use crate::service::Service;
use crate::table::set::Stores;
use crate::table::{HashKey, Key, Store, Tables, Walk, source_key};

const ACCESS: Access<'_> = Access { mode: 0o600, owner: None };

fn config(line: &str) -> Config {
    let line = format!("balancer run --listen 127.0.0.1:80 --server s1=10.0.0.1:80 --admin /x/y.sock {line}");
    let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split_whitespace().map(Into::into)) else {
        panic!("{line}");
    };
    Plan::new(&run, settings, &Host::read()).expect("valid").config
}

/// Two servers, and a source table that knows two clients.
pub(super) fn desk() -> Desk {
    let config = config("--persist source,timeout=1600s,size=16 --persist session=JS,timeout=100s,size=16");
    let tables = Tables::in_memory(&config.persist, HashKey::from_bytes([3; 16]));
    let table = tables.source().expect("there");
    let now = clock::boot_seconds();
    let learn = |address: &str, entry| {
        table.put(&source_key(address.parse().expect("address")), entry).expect("memory never refuses");
    };
    learn("10.9.9.2", Affinity::new(7, 1, now + 50).with_ambiguity(now, 1600));
    learn("10.9.9.1", Affinity::new(2, 1, now + 100));
    learn("10.9.9.3", Affinity::new(1, 1, now.saturating_sub(1)));
    let servers = Servers::new(vec![named(1), named(2)]);
    let balance = Balance::new(config.balance.clone(), &servers);
    let service = Arc::new(Service { config, servers, balance });
    let settings = ["s1=127.0.0.1:8001", "s2=127.0.0.1:8002"]
        .map(|text| servers::one(text, &[], &[], &List::default()).expect(text));
    let records = InMemory::new();
    let member = |settings: ServerConfig| {
        records.enter(&settings, &[]).expect("an id");
        Member { wish: Operator::Ready, weight: settings.weight, settings }
    };
    let members = settings.map(member);
    let ledger = Rc::new(Ledger::new(Box::new(records), Intents::new(), Intents::new(), &members));
    let listen = vec!["127.0.0.1:8080".parse().expect("address")];
    let stats = Rc::new(Statistics::new(&service, vec![Arc::default(), Arc::default()]));
    Desk {
        names: Names::new(&service, &ledger, &listen),
        books: Rc::new(Books::new(Arc::clone(&service), tables)),
        decisions: RefCell::default(),
        table_turn: tokio::sync::Mutex::default(),
        census: RefCell::default(),
        bulk: Arc::new(Semaphore::new(MOST_BULKY)),
        service,
        ledger,
        view: None,
        walked: RefCell::default(),
        stats,
        listen,
        warnings: vec!["mind the gap".into()],
        started: Instant::now(),
        draining: Cell::new(false),
        was_ready: Cell::new(false),
        log: None,
        estate: RefCell::default(),
    }
}

pub(super) fn answer(desk: &Desk, line: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    tokio::task::LocalSet::new().block_on(&runtime, desk.answer(line)).text
}

fn json(desk: &Desk, line: &str) -> Value {
    serde_json::from_str(&answer(desk, line)).expect(line)
}

#[test]
fn info_has_its_fields() {
    let info = json(&desk(), "show process json");
    for field in
        ["name", "version", "pid", "uptime_seconds", "workers", "requests", "connections", "datapath"]
    {
        assert!(info.get(field).is_some(), "{field} in {info}");
    }
    assert_eq!(info["listen"], serde_json::json!(["127.0.0.1:8080"]));
    assert_eq!(info["tables"], "memory");
    assert_eq!(info["warnings"], serde_json::json!(["mind the gap"]));
    assert_eq!(info["datapath"], Value::Null);
    let text = answer(&desk(), "show process");
    for line in ["name: balancer", "requests: 0", "warning: mind the gap", "fast_path: none"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn the_status_counts_what_is_stuck_to_each_server() {
    let desk = desk();
    let status = json(&desk, "show status json");
    assert_eq!((&status["ready"], &status["fast_path"]), (&serde_json::json!(false), &Value::Null));
    assert_eq!(status["history"], serde_json::json!({ "seconds": 5, "samples": [] }));
    let tables: Vec<_> =
        status["tables"].as_array().expect("two").iter().map(|table| &table["entries"]).collect();
    assert_eq!(tables, [2, 0], "one of three is over");
    // The live entries name 7, which is nobody, and the second one.
    let stuck: Vec<_> =
        status["servers"].as_array().expect("two").iter().map(|row| &row["entries"]).collect();
    assert_eq!(stuck, [0, 1]);
    assert!(answer(&desk, "show status").starts_with("error: "), "it is for programs");
}

#[test]
fn servers_have_their_states() {
    let desk = desk();
    desk.service.servers[1].requests.store(5, std::sync::atomic::Ordering::Relaxed);
    let rows = json(&desk, "show servers json");
    let expected = serde_json::json!({
        "name": "s2", "address": "127.0.0.1:8002", "host": null, "state": "up", "operator": "ready",
        "health": "unknown", "weight": 1, "effective_weight": 1.0, "backup": false, "cookie": "s2", "id": 2,
        "generation": 1, "in_flight": 0, "maxconn": null, "queue": 0, "requests": 5, "fast": 0, "fast_traffic": null,
    });
    assert_eq!(rows[1], expected);
    let text = answer(&desk, "show servers");
    assert!(text.starts_with("name  address         state  operator"), "{text}");
    desk.service.servers.set_share(1, 4);
    assert_eq!(json(&desk, "show servers json")[1]["effective_weight"], 0.25);
    let text = answer(&desk, "show servers");
    assert!(text.lines().any(|line| line.starts_with("s2 ") && line.contains(" 0.25 of 1 ")), "{text}");
}

#[test]
fn tables_show_live_entries_by_address() {
    let desk = desk();
    let rows = json(&desk, "show table source json");
    let keys: Vec<_> = rows.as_array().expect("array").iter().map(|row| row["key"].clone()).collect();
    assert_eq!(keys, ["10.9.9.1", "10.9.9.2"]);
    assert_eq!(rows[0]["server"], "s2");
    assert_eq!(rows[1]["server"], "#7", "a server that is not configured any more");
    assert_eq!((&rows[0]["ambiguous"], &rows[1]["ambiguous"]), (&Value::Bool(false), &Value::Bool(true)));
    let summary = json(&desk, "show table json");
    assert_eq!(summary[0]["entries"], 2);
    assert_eq!(json(&desk, "show flows json"), serde_json::json!([]));
}

#[test]
fn tables_are_written_as_haproxy_writes_them() {
    let desk = desk();
    let tables =
        "# table: source, type: ip, size:16, used:2\n# table: session=JS, type: string, size:16, used:0\n\n";
    assert_eq!(answer(&desk, "show table"), tables);
    let shown = answer(&desk, "show table source");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "# table: source, type: ip, size:16, used:2");
    let (pointer, rest) = lines[1].split_once(": ").expect("two parts");
    assert_eq!(pointer, "0x00000000000000000000ffff0a090901");
    let words: Vec<_> = rest.split(' ').collect();
    assert_eq!((words[0], words[1]), ("key=10.9.9.1", "use=0"));
    let left: u32 = words[2].strip_prefix("exp=").expect("exp").parse().expect("a number");
    assert!((98_000..=100_000).contains(&left), "{left}");
    assert_eq!(words[3..], ["shard=0", "server_id=2", "server_key=s2"]);
    assert!(lines[2].ends_with("server_id=7 server_key=-"));
    assert_eq!(lines[3..], [""], "an empty line ends it");
    let again = answer(&desk, &format!("show table source ptr {pointer}"));
    let (pointed, _) =
        again.lines().nth(1).and_then(|line| line.split_once(" exp=")).expect("the entry itself");
    assert!(lines[1].starts_with(pointed), "the pointer names it: {again}");
    let keys = |filter: &str| answer(&desk, &format!("show table source {filter}")).matches("key=10").count();
    assert_eq!((keys(""), keys("data.server_id eq 2"), keys("data.server_key ne s2")), (2, 1, 1));
    assert_eq!((keys("data.server_id gt 2 data.server_id lt 7"), keys("key 10.9.9.2")), (0, 1));
    assert_eq!(answer(&desk, "show table source key 10.9.9.9"), "\n", "nothing");
    assert_eq!(answer(&desk, "show table source key 10.9.9.3"), "\n", "it has expired");
}

#[test]
fn the_operator_points_keys_at_servers_and_takes_them_out() {
    let desk = desk();
    let server = |name: &str, key: &str| {
        let rows = json(&desk, &format!("show table {name} key {key} json"));
        let row = rows[0].clone();
        assert_eq!((&row["tentative"], &row["probation"]), (&Value::Bool(false), &Value::Bool(false)));
        (row["server"].as_str().expect("a name").to_owned(), row["ambiguous"].as_bool().expect("a mark"))
    };
    assert_eq!(answer(&desk, "set table session=JS key a\\ b\\;c data.server_key s2"), "\n");
    assert_eq!(server("session=JS", "a\\ b\\;c"), ("s2".into(), false));
    let table = desk.books.tables.by_label("session=JS").expect("there");
    let key = table.key(b"a b;c").expect("not empty");
    let entry = table.get(&key).expect("an entry");
    assert!(entry.expiry() >= clock::boot_seconds() + 99, "it has its full life");
    answer(&desk, "set table session=JS key a\\ b\\;c data.server_id 1");
    assert_eq!(server("session=JS", "a\\ b\\;c"), ("s1".into(), false));
    answer(&desk, "set table source key ::ffff:10.9.9.2 data.server_key s1");
    assert_eq!(server("source", "10.9.9.2"), ("s1".into(), true), "there are several users still");
    assert_eq!(answer(&desk, "clear table source key 10.9.9.1 text"), "source: 1 entries are forgotten\n\n");
    assert_eq!(
        answer(&desk, "show table source key 10.9.9.1 text"),
        "error: there is no such key in source\n\n"
    );
    assert_eq!(
        answer(&desk, "clear table source; show table").lines().nth(1),
        Some("# table: source, type: ip, size:16, used:0")
    );
    assert_eq!(json(&desk, "show table json")[1]["entries"], 1, "the other one is as it was");
    answer(&desk, "clear table session=js data.server_id eq 1");
    assert_eq!(json(&desk, "show table json")[1]["entries"], 0);
}

/// What is said of entries that are sent over the socket, or of a load that is broken off.
fn loaded(path: &Path, lines: &str) -> Value {
    let answer = exchange(path, lines.as_bytes());
    serde_json::from_str(&answer).unwrap_or(Value::String(answer))
}

#[test]
fn many_entries_are_loaded_and_each_that_is_not_is_told() {
    with_socket(|path| {
        let load = |lines: &str| loaded(path, lines);
        let said = load(
            "load table source\n1 192%2E0%2E2%2E1 s1 50000;2 2001%3Adb8%3A%3A1 s2 -\n\
             3 192.0.2.3 s9 1;4 nobody s1 1;5 2001:db8::2 s1 9000\nend\n",
        );
        // Three were there before, one of them over; a /64 has one entry, and that which expires last counts.
        assert_eq!(
            (&said["loaded"], &said["merged"], &said["entries"]),
            (&2.into(), &1.into(), &4.into()),
            "{said}"
        );
        assert_eq!(said["skipped"]["unknown_server"]["examples"], serde_json::json!([[3, "s9"]]));
        assert_eq!(said["skipped"]["unfit_key"]["examples"], serde_json::json!([[4, "nobody"]]));
        let shown = exchange(path, b"show table source text\n");
        let row =
            |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{shown}"));
        assert!(row("192.0.2.1 ").contains(" s1 "), "{shown}");
        assert!(row("2001:db8:: ").contains(" s2 "), "{shown}");
        let left: u32 =
            row("192.0.2.1 ").split_whitespace().nth(2).and_then(|left| left.parse().ok()).expect("seconds");
        assert!((45..=50).contains(&left), "{left}: it lives no longer than it would have there");

        let ids = load("load table session=JS\n7 a%3Bb%20c%FF s1 999999999\nend\n");
        assert_eq!((&ids["loaded"], &ids["size"]), (&1.into(), &16.into()), "{ids}");
        let line = "load table session=JS dry\n8 other s1 -\nend\n";
        assert_eq!(
            (&load(line)["entries"], &load(line)["entries"]),
            (&2.into(), &2.into()),
            "nothing was written"
        );
    });
}

#[test]
fn a_full_table_forgets_nobody_for_the_sake_of_those_that_are_loaded() {
    with_socket(|path| {
        let entries: Vec<String> = (1..=20).map(|n| format!("{n} 192.0.2.{n} s1 -")).collect();
        let said = loaded(path, &format!("load table source\n{}\nend\n", entries.join(";")));
        assert_eq!((&said["loaded"], &said["entries"]), (&14.into(), &16.into()), "{said}");
        assert_eq!(said["skipped"]["full"]["count"], 6);
        let shown = exchange(path, b"show table source key 10.9.9.1 text\n");
        assert!(shown.contains("10.9.9.1"), "{shown}");
    });
}

#[test]
fn a_load_that_is_wrong_or_broken_off_says_so() {
    with_socket(|path| {
        let table = [
            ("load table nope\n1 a s1 -\nend\n", "error: No such table; there are: source, session=JS\n\n"),
            (
                "load table source\n1 192.0.2.1 s1 -\n",
                "error: the entries ended without a line that says end\n\n",
            ),
            ("load table source\nwhat is this\nend\n", "error: \"what is this\" is no entry; write NUMBER"),
            ("load table source\n1 192.0.2.1 s1 -5\nend\n", "error: \"1 192.0.2.1 s1 -5\" is no entry"),
        ];
        for (lines, expected) in table {
            let answer = exchange(path, lines.as_bytes());
            assert!(answer.starts_with(expected), "{lines}: {answer}");
        }
        let long = format!("load table source\n1 {} s1 -\nend\n", "a".repeat(20_000));
        assert!(exchange(path, long.as_bytes()).starts_with("error: the line is longer than"));
        let none = exchange(path, b"load table source\nend\n");
        assert!(none.starts_with("{\"loaded\":0,"), "{none}");
    });
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    let desk = desk();
    let table = [
        ("show table header=X", "No such table; there are: source, session=JS\n\n"),
        ("show table header=X json", "error: No such table; there are: source, session=JS\n\n"),
        ("set table source key 10.0.0.1 data.server_key s9", "No such server; there are: s1, s2\n\n"),
        (
            "set table source key abc data.server_key s1",
            "Invalid key; the keys of this table are addresses\n\n",
        ),
        ("set server s9 maint", "error: there is no server \"s9\"; there are: s1, s2\n\n"),
        ("set server s1 sleep", "error: there is no state \"sleep\"; write ready, drain or maint\n\n"),
    ];
    for (line, expected) in table {
        assert_eq!(answer(&desk, line), expected);
    }
    let unknown = answer(&desk, "frobnicate");
    assert!(unknown.starts_with("error: unknown command \"frobnicate\"") && unknown.contains("show servers"));
}

#[test]
fn the_operator_takes_servers_out_and_puts_them_back() {
    let desk = desk();
    let state = || desk.service.servers[0].state();
    assert_eq!(
        answer(&desk, "set server s1 drain"),
        "server s1 is set to drain; it is drain now\n0 connections and 0 learned entries still point there\n\n"
    );
    assert_eq!(state(), State::Drain);
    answer(&desk, "set server balancer/s1 state maint");
    assert_eq!(state(), State::Maint);
    answer(&desk, "set server s1 ready");
    assert_eq!(state(), State::Up);
}

#[test]
fn the_operator_hears_what_still_points_to_a_server() {
    let desk = desk();
    desk.service.servers[1].in_flight.store(3, std::sync::atomic::Ordering::Relaxed);
    let said = answer(&desk, "set server s2 drain");
    assert!(said.ends_with("3 connections and 1 learned entries still point there\n\n"), "{said}");
    let row = json(&desk, "show server balancer/s2 json");
    assert_eq!((&row["name"], &row["connections"], &row["entries"]), (&"s2".into(), &3.into(), &1.into()));
    let text = answer(&desk, "show server s2");
    assert!(text.contains("\nstate: drain\n") && text.ends_with("connections: 3\nentries: 1\n\n"), "{text}");
}

#[test]
fn weights_are_given_and_read_as_in_haproxy() {
    let desk = desk();
    assert_eq!(answer(&desk, "set server s1 weight 8"), "server s1 has weight 8 (initial 1)\n\n");
    assert_eq!(answer(&desk, "get weight balancer/s1"), "8 (initial 1)\n\n");
    answer(&desk, "set weight balancer/s1 300%");
    assert_eq!(desk.service.servers[0].weight(), 3, "of the configured one");
    assert_eq!(desk.ledger.intents()["s1"].weight.as_ref().map(|given| given.weight), Some(3));
    answer(&desk, "set weight balancer/s1 100%");
    assert!(desk.ledger.intents().is_empty(), "as configured: nothing to remember");
    assert!(answer(&desk, "set server s1 weight 257").starts_with("error: \"257\" is no weight"));
}

#[test]
fn servers_come_and_go() {
    let desk = desk();
    let names = || desk.service.servers.iter().map(|server| server.name.clone()).collect::<Vec<_>>();
    assert_eq!(
        answer(&desk, "add server s3 127.0.0.1:8003,weight=2"),
        "server s3 is added; it is up now\n\n"
    );
    assert_eq!(
        answer(&desk, "add server balancer/s4 127.0.0.1:8004 disabled"),
        "server s4 is added; it is maint now\n\n"
    );
    assert_eq!(names(), ["s1", "s2", "s3", "s4"]);
    let s3 = &desk.service.servers[2];
    assert_eq!((s3.weight(), s3.cookie.as_deref(), s3.identity.id), (2, Some("s3"), 3));
    assert_eq!(desk.ledger.intents().keys().collect::<Vec<_>>(), ["s3", "s4"]);
    let table = [
        ("add server s3 127.0.0.1:9", "server \"s3=127.0.0.1:9\" has the name of a server before it"),
        ("add server s5 127.0.0.1:9,id=s2", "has the id \"s2\", which server s2 has too"),
        ("add server s5 127.0.0.1:8080", "has the address of --listen 127.0.0.1:8080"),
        ("add server s5 127.0.0.1", "has no port; write 127.0.0.1:PORT"),
        ("add server s5 0.0.0.0:80", "has an address that nothing can be connected to"),
        ("del server s3", "server s3 is not in maint; say set server s3 maint before"),
        ("del server s9", "there is no server \"s9\"; there are: s1, s2, s3, s4"),
    ];
    for (line, expected) in table {
        let refused = answer(&desk, line);
        assert!(refused.starts_with("error: ") && refused.contains(expected), "{line}: {refused}");
    }
    answer(&desk, "set server s3 maint");
    s3.in_flight.store(1, std::sync::atomic::Ordering::Relaxed);
    let refused = answer(&desk, "del server s3");
    assert!(
        refused.starts_with("error: server s3 has 1 connections; wait, or say shutdown sessions"),
        "{refused}"
    );
    s3.in_flight.store(0, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(answer(&desk, "del server s3"), "server s3 is deleted\n\n");
    assert_eq!(desk.ledger.intents().keys().collect::<Vec<_>>(), ["s4"], "nobody has to remember it");
    // The flags name s1 alone, at another address.
    answer(&desk, "del server s1 force; del server s2 force; del server s4 force");
    assert!(names().is_empty());
    assert_eq!(desk.ledger.intents()["s1"].deleted.as_deref(), Some("10.0.0.1:80"));
    assert_eq!(answer(&desk, "set server s1 maint"), "error: there is no server \"s1\"; there are: none\n\n");
    // As the flags say it is nothing to be remembered.
    answer(&desk, "add server s1 10.0.0.1:80");
    assert!(desk.ledger.intents().is_empty());
    assert_eq!(desk.service.servers.by_name("s1"), Some(4), "a place of its own");
    assert_eq!(desk.service.servers[4].identity.generation, 2, "another address");
}

#[test]
fn while_somebody_takes_over_servers_stay_who_they_are() {
    let desk = desk();
    desk.ledger.freeze(true);
    for line in ["add server s3 127.0.0.1:8003", "del server s1 force", "set server s1 weight 5"] {
        let refused = answer(&desk, line);
        assert!(refused.starts_with("error: another process is taking over just now"), "{line}: {refused}");
    }
    assert_eq!((desk.service.servers.len(), desk.service.servers[0].weight()), (2, 1));
    assert!(
        answer(&desk, "set server s1 maint").contains("it is maint now"),
        "which is passed on at the last moment"
    );
}

#[test]
fn sessions_are_ended() {
    assert_eq!(
        answer(&desk(), "shutdown sessions server s1"),
        "server s1: 0 connections of the proxy and 0 of the fast path ended\n\n"
    );
}

#[test]
fn each_of_several_commands_has_its_answer() {
    let answers = answer(&desk(), "set server s1 drain; set server s2 maint ;; show table");
    assert_eq!(answers.matches("\n\n").count(), 3, "{answers}");
    assert!(answer(&desk(), "").contains("show info"), "an empty line is answered with help");
}

/// Runs `client` on a thread of its own against a socket in a fresh directory.
fn with_socket(client: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("web.sock");
    let instance = Instance::claim("web", &path).expect("claimed");
    let socket = Socket::bind(&path, ACCESS, &instance).expect("bound");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let done = {
        let path = path.clone();
        runtime.spawn_blocking(move || client(&path))
    };
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            () = socket.serve(Rc::new(desk())).expect("served") => unreachable!("it serves for ever"),
            outcome = done => outcome.expect("client"),
        }
    });
    drop(socket);
    assert!(!path.exists(), "removed");
}

fn exchange(path: &Path, sent: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).expect("connected");
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_socket_answers_and_is_its_owners_alone() {
    with_socket(|path| {
        let mode = std::fs::metadata(path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(exchange(path, b"show servers\n").starts_with("name"));
        assert!(exchange(path, b"show servers").starts_with("name"), "the end of the input ends a line too");
    });
}

#[test]
fn hostile_input_is_harmless() {
    with_socket(|path| {
        assert!(
            exchange(path, &vec![b'x'; 100_000]).starts_with("error: the line is longer than 16384 bytes")
        );
        assert!(exchange(path, b"\0\xff\xfe;show\x1b info\n").starts_with("error: unknown command"));
        assert!(exchange(path, b";;;;\n").contains("show info"));
        let idle: Vec<_> = (0..64).map(|_| UnixStream::connect(path).expect("connected")).collect();
        assert!(exchange(path, b"show process\n").starts_with("error: too many connections"));
        drop(idle);
        let patience = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            exchange(path, b"show process\n").starts_with("name: ")
        });
        assert!(patience, "places are free again");
    });
}

#[test]
fn a_file_or_a_stranger_in_the_sockets_place_is_left_alone() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("web.sock");
    let instance = Instance::claim("web", &path).expect("claimed");
    std::fs::write(&path, "precious").expect("written");
    let refused = Socket::bind(&path, ACCESS, &instance).expect_err("a file").to_string();
    assert!(refused.contains("a file that is not a socket"), "{refused}");
    std::fs::remove_file(&path).expect("removed");
    let stranger = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let refused = Socket::bind(&path, ACCESS, &instance).expect_err("a stranger").to_string();
    assert!(refused.contains("another process answers there"), "{refused}");
    drop(stranger);
    Socket::bind(&path, ACCESS, &instance).expect("what a dead process has left is replaced");
}

#[test]
fn a_request_is_explained_and_nothing_changes() {
    let desk = desk();
    let before = answer(&desk, "show table");
    let known = json(&desk, "explain src=10.9.9.1 json");
    assert_eq!((&known["decided_by"], &known["servers"]), (&"source".into(), &serde_json::json!(["s2"])));
    assert_eq!(known["methods"][0]["found"], "10.9.9.1");
    let unknown = answer(&desk, "explain src=10.9.9.9 path=%2Fa header=Cookie%3A%20JS%3Dabc");
    for expected in [
        "source       miss 10.9.9.9\n",
        "decision     s1, s2, by balance roundrobin\n",
        "would write  session #",
        "would write  source 10.9.9.9 > s1, for 1600 s\n",
        "letters      --\n",
        "connection   slow: there is no --xdp\n",
    ] {
        assert!(unknown.contains(expected), "{expected} in {unknown}");
    }
    assert!(!unknown.contains("abc"), "ids are secrets: {unknown}");
    assert_eq!(answer(&desk, "show table"), before);
    for wrong in [
        "explain",
        "explain src=",
        "explain src=x",
        "explain src=10.0.0.1 path=%0d%0a",
        "explain src=10.0.0.1 x=y",
    ] {
        assert!(answer(&desk, wrong).starts_with("error: "), "{wrong}");
    }
}

/// A store whose walk does not end before somebody says so.
struct Endless {
    began: std::sync::mpsc::SyncSender<()>,
    end: Arc<std::sync::Barrier>,
}

impl Store for Endless {
    fn get(&self, _: &Key) -> Option<Affinity> {
        None
    }

    fn put(&self, _: &Key, _: Affinity) -> std::io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Key) {}

    fn walk(&self, _: &mut Walk, _: &mut dyn FnMut(Key, Affinity)) -> bool {
        self.began.send(()).expect("somebody waits");
        self.end.wait();
        true
    }

    fn clear(&self) {}

    fn handle(&self) -> Box<dyn Store> {
        Box::new(Self { began: self.began.clone(), end: Arc::clone(&self.end) })
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}

#[test]
fn a_large_table_keeps_nobody_waiting() {
    let (began, begins) = std::sync::mpsc::sync_channel(8);
    let end = Arc::new(std::sync::Barrier::new(2));
    let mut desk = desk();
    let config = config("--persist source,size=16");
    let tables = Tables::open(&config.persist, HashKey::from_bytes([3; 16]), |_, _, _| {
        let main = Box::new(Endless { began: began.clone(), end: Arc::clone(&end) });
        Ok::<_, std::convert::Infallible>(Stores { main, probation: None, is_new: true, size: 16 })
    });
    let Ok(tables) = tables;
    desk.books = Rc::new(Books::new(Arc::clone(&desk.service), tables));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let desk = Rc::new(desk);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let asked = Rc::clone(&desk);
        let large = tokio::task::spawn_local(async move { asked.answer("show table source").await.text });
        while begins.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        assert!(
            desk.answer("show process").await.text.starts_with("name: balancer"),
            "meanwhile others are served"
        );
        assert!(!large.is_finished());
        let mut next = Box::pin(desk.answer("show table source"));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), &mut next).await;
        assert!(waits.is_err() && begins.try_recv().is_err(), "one walk at a time");
        let ends = std::thread::spawn(move || {
            for _ in 0..4 {
                end.wait();
            }
        });
        assert!(large.await.expect("not stopped").starts_with("# table: source"));
        assert!(next.await.text.starts_with("# table: source"));
        ends.join().expect("each walk has ended: the entries', and the summary's");
    });
}

#[test]
fn large_answers_wait_until_others_were_taken() {
    let desk = desk();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut taken = Vec::new();
        for _ in 0..MOST_BULKY {
            taken.push(desk.answer("show table source").await);
        }
        assert!(desk.answer("show table source key 10.9.9.1").await.text.contains("10.9.9.1"), "a small one");
        let mut next = Box::pin(desk.answer("show process; show table source"));
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), &mut next).await;
        assert!(waits.is_err());
        taken.pop();
        assert!(next.await.text.contains("# table: source"));
    });
}

#[test]
fn a_cookie_with_a_name_of_its_own_is_given_as_clients_send_it() {
    let mut desk = desk();
    let config = config("--persist session=ASP,prefix-name,size=16");
    let tables = Tables::in_memory(&config.persist, HashKey::from_bytes([3; 16]));
    let servers = Servers::new(vec![named(1), named(2)]);
    let balance = Balance::new(config.balance.clone(), &servers);
    desk.service = Arc::new(Service { config, servers, balance });
    desk.books = Rc::new(Books::new(Arc::clone(&desk.service), tables.handle()));
    assert_eq!(answer(&desk, "set table session=ASP key ASPAB=xyz data.server_key s2"), "\n");
    let table = tables.get(0).expect("there");
    let entry = table.get(&table.key(b"AB=xyz").expect("a key")).expect("an entry");
    assert_eq!(entry.server(), 2);
    let refused = answer(&desk, "set table session=ASP key xyz data.server_key s2");
    assert!(
        refused.starts_with("Invalid key; write the cookie as clients send it, ASPREST=VALUE"),
        "{refused}"
    );
}

/// Sends lines one by one; what came up to each prompt.
fn converse(path: &Path, lines: &[&str]) -> Vec<String> {
    let mut stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("option");
    let mut said = Vec::new();
    for line in lines {
        stream.write_all(format!("{line}\n").as_bytes()).expect("sent");
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece).expect("an answer");
            answer.extend_from_slice(&piece[..count]);
            if count == 0 || answer.ends_with(b"\n> ") {
                break;
            }
        }
        said.push(String::from_utf8(answer).expect("text"));
    }
    said
}

#[test]
fn with_a_prompt_one_command_follows_the_other() {
    with_socket(|path| {
        let said = converse(
            path,
            &[
                "prompt",
                "show backend",
                "",
                "get weight s1; get weight s2\r",
                "nonsense",
                "prompt; show version",
            ],
        );
        assert_eq!(
            said[..4],
            ["\n> ", "# name\nbalancer\n\n> ", "\n> ", "1 (initial 1)\n\n1 (initial 1)\n\n> "]
        );
        assert!(
            said[4].starts_with("error: unknown command \"nonsense\"; the commands are:\n"),
            "{}",
            said[4]
        );
        assert_eq!(
            said[5],
            format!("\n{}\n\n", env!("CARGO_PKG_VERSION")),
            "the end: the prompt is off again"
        );
        let said = converse(
            path,
            &["prompt", "set timeout cli 90", "set timeout cli 5m", "set timeout cli x", "quit"],
        );
        assert_eq!(said[..3], ["\n> "; 3]);
        assert!(said[3].starts_with("error: \"x\" is no time"), "{}", said[3]);
        assert_eq!(said[4], "");
    });
}

#[test]
fn operators_are_served_whoever_holds_the_places() {
    with_socket(|path| {
        let mut crowd: Vec<_> = (0..1000).map(|_| UnixStream::connect(path).expect("connected")).collect();
        let interactive = &mut crowd[0];
        interactive.write_all(b"prompt\n").expect("sent");
        let served = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            // Or a reset: there are so many that not all of them are told.
            let mut stream = UnixStream::connect(path).expect("connected");
            let mut answer = String::new();
            stream.write_all(b"show backend\n").is_ok_and(|()| stream.read_to_string(&mut answer).is_ok())
                && answer.starts_with("# name")
        });
        assert!(served, "who is silent makes room for who is not");
        for _ in 0..200 {
            assert!(exchange(path, b"show backend\n").starts_with("# name"));
        }
    });
}
