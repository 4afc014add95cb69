use std::time::{Duration, Instant};

use serde_json::Value;

use crate::admin::tests::{answer, desk};
use crate::server::{Checked, Health, Operator};
use crate::stats::capture::{Captured, Side, masked};

/// What HAProxy 2.6.12 from Debian's package begins its answer with.
const HEADER: &str = include_str!("header.csv");

fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// What stands in a column of a row.
fn cell(text: &str, row: &str, column: &str) -> String {
    let names: Vec<_> = text.lines().next().expect("a header")[2..].split(',').collect();
    let place = names.iter().position(|name| *name == column).expect(column);
    let rows = rows(text);
    rows.iter().find(|cells| cells[1] == row).expect(row)[place].clone()
}

#[test]
fn stat_has_haproxys_header_and_a_cell_for_each_column() {
    let text = answer(&desk(), "show stat");
    assert_eq!(text.lines().next(), HEADER.lines().next());
    let columns = HEADER.lines().next().expect("a header").split(',').count();
    let rows = rows(&text);
    assert_eq!(
        rows.iter().map(|cells| cells[1].as_str()).collect::<Vec<_>>(),
        ["FRONTEND", "s1", "s2", "BACKEND"]
    );
    for cells in &rows {
        assert_eq!((cells.len(), cells[0].as_str()), (columns, "balancer"), "{cells:?}");
    }
    assert!(text.ends_with(",\n\n"), "an empty line ends it");
}

#[test]
fn stat_says_what_was_counted() {
    let desk = desk();
    let stats = &desk.stats.workers[0];
    stats.accepted();
    stats.requested();
    stats.visit_begins();
    stats.session_begins(0, Instant::now(), true);
    stats.connected(0);
    stats.of(Some(0)).responded(Some(503));
    stats.responded(Some(503));
    stats.moved_bytes(Some(0), 80, 120);
    stats.idle(0, 1);
    let text = answer(&desk, "show stat");
    let table = [
        ("FRONTEND", "stot", "1"),
        ("FRONTEND", "req_tot", "1"),
        ("FRONTEND", "hrsp_5xx", "1"),
        ("FRONTEND", "status", "OPEN"),
        ("FRONTEND", "bin", "80"),
        ("FRONTEND", "qcur", ""),
        ("s1", "stot", "1"),
        ("s1", "lbtot", "1"),
        ("s1", "hrsp_5xx", "1"),
        ("s1", "bout", "120"),
        ("s1", "connect", "1"),
        ("s1", "srv_icur", "1"),
        ("s1", "status", "UP"),
        ("s1", "lastsess", "0"),
        ("s2", "lastsess", "-1"),
        ("s2", "stot", "0"),
        ("s1", "addr", "127.0.0.1:8001"),
        ("s1", "cookie", ""),
        ("BACKEND", "scur", "1"),
        ("BACKEND", "stot", "1"),
        ("BACKEND", "act", "2"),
        ("BACKEND", "algo", "roundrobin"),
        ("BACKEND", "hrsp_5xx", "1"),
    ];
    for (row, column, expected) in table {
        assert_eq!(cell(&text, row, column), expected, "{row} {column}");
    }
    answer(&desk, "clear counters");
    assert_eq!(cell(&answer(&desk, "show stat"), "s1", "stot"), "1");
    assert_eq!(answer(&desk, "clear counters all"), "\n");
    let cleared = answer(&desk, "show stat");
    for (row, column, expected) in
        [("s1", "stot", "0"), ("BACKEND", "hrsp_5xx", "0"), ("BACKEND", "scur", "1")]
    {
        assert_eq!(cell(&cleared, row, column), expected, "{row} {column}");
    }
}

#[test]
fn servers_have_haproxys_states() {
    let desk = desk();
    let servers = &desk.service.servers;
    let checked = |word, code, said: &str| Checked {
        word,
        code,
        duration: Duration::from_millis(3),
        said: said.to_owned(),
    };
    let s1 = |column: &str| cell(&answer(&desk, "show stat"), "s1", column);
    servers[0].checks.note(checked("L4OK", None, ""), 4, false);
    assert_eq!(
        (s1("status"), s1("check_status"), s1("check_health")),
        ("UP".into(), "L4OK".into(), "4".into())
    );
    servers[0].checks.note(checked("L7STS", Some(500), "GET / is answered with 500"), 3, true);
    let found = [s1("status"), s1("check_code"), s1("check_duration"), s1("chkfail"), s1("check_desc")];
    assert_eq!(found, ["UP 2/3", "500", "3", "1", "Layer7 wrong status"]);
    servers[0].checks.note(checked("L7RSP", None, "one, \"two\""), 3, true);
    assert!(answer(&desk, "show stat").contains(",\"One, \"\"two\"\"\","), "a comma is in quotes");
    servers.set_health(0, Health::Down);
    servers[0].checks.note(checked("L4CON", None, "connection refused"), 1, false);
    assert_eq!((s1("status"), s1("last_chk")), ("DOWN 1/2".into(), "Connection refused".into()));
    servers.set_health(0, Health::Draining);
    servers[0].checks.note(checked("L7OKC", Some(404), ""), 4, false);
    assert_eq!(s1("status"), "NOLB");
    for (wish, status, weight) in [(Operator::Drain, "DRAIN", "0"), (Operator::Maint, "MAINT", "1")] {
        servers.set_operator(0, wish);
        assert_eq!((s1("status").as_str(), s1("weight").as_str()), (status, weight));
    }
    let names = |words: &str| {
        let text = answer(&desk, &format!("show stat {words}"));
        rows(&text).into_iter().map(|cells| cells[1].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("no-maint"), ["FRONTEND", "s2", "BACKEND"]);
    assert_eq!(names("up"), ["FRONTEND", "s2", "BACKEND"]);
    assert_eq!(names("-1 4 -1"), ["s1", "s2"]);
    assert_eq!(names("3 4 2"), ["s2"]);
    assert_eq!(names("2 -1 -1"), ["FRONTEND"]);
    assert_eq!(names("balancer 6 -1 no-maint"), ["s2", "BACKEND"]);
    assert_eq!(
        answer(&desk, "show stat shop 6 -1"),
        "error: there is no backend \"shop\"; there is \"balancer\"\n\n"
    );
    assert!(answer(&desk, "show stat please").starts_with("error: write show stat [NAME|IID TYPE SID]"));
}

#[test]
fn typed_and_json_are_written_as_haproxy_writes_them() {
    let desk = desk();
    let typed = answer(&desk, "show stat typed");
    for line in [
        "F.2.0.0.pxname.1:KNS:str:balancer",
        "F.2.0.7.stot.1:MCP:u64:0",
        "S.3.1.17.status.1:SGP:str:UP",
        "S.3.2.55.lastsess.1:MAP:s32:-1",
        "S.3.1.19.act.1:SGP:u32:1",
        "B.3.0.19.act.1:MGP:u32:2",
        "B.3.0.76.algo.1:CGS:str:roundrobin",
        "F.2.0.124.h1_bytes_out.1:MCP:u64:0",
    ] {
        assert!(typed.lines().any(|found| found == line), "{line} in {typed}");
    }
    let json: Value = serde_json::from_str(&answer(&desk, "show stat json")).expect("JSON");
    let expected = serde_json::json!({
        "objType": "Frontend", "proxyId": 2, "id": 0, "field": {"pos": 4, "name": "scur"}, "processNum": 1,
        "tags": {"origin": "Metric", "nature": "Gauge", "scope": "Process"},
    });
    let mut scur =
        json[0].as_array().expect("cells").iter().find(|cell| cell["field"]["name"] == "scur").cloned();
    let value = scur.as_mut().and_then(|cell| cell.as_object_mut()).and_then(|cell| cell.remove("value"));
    assert_eq!((scur, value.expect("a value")["type"].as_str()), (Some(expected), Some("u32")));
    let info = answer(&desk, "show info");
    for key in [
        "Name",
        "Version",
        "Release_date",
        "Nbproc",
        "Process_num",
        "Pid",
        "Uptime",
        "Maxconn",
        "CurrConns",
        "Maxpipes",
        "PipesUsed",
        "Tasks",
        "Run_queue",
        "node",
    ] {
        let line = info.lines().find(|line| line.starts_with(&format!("{key}: ")));
        assert!(line.is_some_and(|line| line.len() > key.len() + 2), "{key} in {info}");
    }
    assert!(answer(&desk, "show info typed").starts_with("0.Name.1:POS:str:balancer\n1.Version.1:POS:str:"));
    let info: Value = serde_json::from_str(&answer(&desk, "show info json")).expect("JSON");
    assert_eq!(info[0]["tags"]["origin"], "Product");
}

#[test]
fn states_are_written_as_for_haproxys_file() {
    let desk = desk();
    answer(&desk, "set server s2 state drain");
    let text = answer(&desk, "show servers state balancer");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1].trim_start_matches("# ").split(' ').count(), 25);
    assert_eq!(lines[2], "3 balancer 1 s1 127.0.0.1 2 0 1 1 0 1 0 0 6 0 0 0 - 8001 - 0 0 - - 0");
    let s2: Vec<_> = lines[3].split(' ').collect();
    assert_eq!((s2.len(), s2[3], s2[5], s2[6]), (25, "s2", "2", "8"), "{text}");
    assert!(text.ends_with("\n\n"));
    assert!(answer(&desk, "show servers state shop").starts_with("error: there is no backend"));
    let connections = answer(&desk, "show servers conn");
    assert!(connections.contains("\nbalancer/s1 3/1 127.0.0.1 8001 - 0 0 0 0 0 0 -1 0 0\n"), "{connections}");
    assert_eq!(answer(&desk, "show backend"), "# name\nbalancer\n\n");
}

#[test]
fn what_was_not_understood_is_shown_without_what_is_secret() {
    let desk = desk();
    let message = b"GET /a?token=1 HTTP/1.1\r\nHost : x\r\nCookie: JS=secret\r\n\r\n";
    desk.stats.workers[1].capture(Captured {
        side: Side::Request,
        unix_millis: 1_795_342_272_345,
        client: "192.0.2.1:4000".parse().expect("an address"),
        server: None,
        fault: "malformed head",
        bytes: masked(message),
        length: message.len(),
    });
    let text = answer(&desk, "show errors");
    let (first, rest) = text.split_once('\n').expect("lines");
    assert!(first.starts_with("Total events captured on [") && first.ends_with("] : 1"), "{first}");
    let expected = "
[22/Nov/2026:10:11:12.345] frontend balancer (#2): invalid request: malformed head
  backend balancer (#3), server <NONE>, event #0, src 192.0.2.1:4000
  56 of 56 bytes, what may be secret as asterisks:

  00000  GET /a?******* ********\\r\\n
  00025  Host : x\\r\\n
  00035  Cookie: *********\\r\\n
  00054  \\r\\n

";
    assert_eq!(rest, expected);
    for (command, count) in
        [("show errors response", 0), ("show errors balancer request", 1), ("show errors -1", 1)]
    {
        assert!(
            answer(&desk, command).lines().next().is_some_and(|line| line.ends_with(&format!(" : {count}")))
        );
    }
}

#[test]
fn who_is_connected_is_shown_in_haproxys_words() {
    let desk = desk();
    let roll = &desk.stats.workers[1].roll;
    let present = roll.enter("192.0.2.1:4000".parse().expect("an address"));
    roll.enter("[2001:db8::1]:5".parse().expect("an address"));
    roll.asks(present);
    roll.is_served(present, Some(1));
    let text = answer(&desk, "show sess");
    let expected = "0x1000000000001: proto=tcpv4 src=192.0.2.1:4000 fe=balancer be=balancer srv=s2 ts=00 epoch=0 age=0s calls=1 \
                    rate=0 cpu=0 lat=0 exp= rc=0 c_exp=\n\
                    0x1000000000002: proto=tcpv6 src=[2001:db8::1]:5 fe=balancer be=<NONE> srv=<none> ts=00 epoch=0 age=0s calls=0 \
                    rate=0 cpu=0 lat=0 exp= rc=0 c_exp=\n\n";
    assert_eq!(text, expected);
}
