//! HAProxy beside the balancer, the same load on both, and `show stat` of both.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::http::Connection;
use xtask::lab::{Daemon, Lab, Namespace, wait_until};

use crate::haproxy;
use crate::site::{BALANCER, PATIENCE, start_servers};

/// Columns that are not the same, and why: as in the table at `show stat`'s code.
const DIFFERENT: &[(&str, &str)] = &[
    ("pxname", "is the name of the service"),
    ("iid", "HAProxy's `listen` has one number for both sides"),
    (
        "bin",
        "bytes of the connection; HAProxy's are those of its own form of the message: compared with h1_bytes_in",
    ),
    ("bout", "the same, and error pages differ"),
    ("slim", "follows from the limit of descriptors; HAProxy's backend has its fullconn"),
    ("smax", "whether a client meets the one before it, which is going, is chance"),
    ("lastchg", "the two did not start at the same moment"),
    ("downtime", "the same"),
    ("check_duration", "another measurement"),
    ("last_chk", "says more"),
    ("rate", "HAProxy's is of the second that goes on, and falls with it"),
    ("req_rate", "the same"),
    ("conn_rate", "the same"),
    (
        "rate_max",
        "looked at four times a second, where HAProxy looks at every event; the load takes a second or less",
    ),
    ("req_rate_max", "the same"),
    ("conn_rate_max", "the same"),
    ("lastsess", "the two had it one after the other"),
    ("qtime", "measured"),
    ("ctime", "measured"),
    ("rtime", "measured"),
    ("ttime", "measured"),
    ("qtime_max", "measured"),
    ("ctime_max", "measured"),
    ("rtime_max", "measured"),
    ("ttime_max", "measured"),
    ("need_conn_est", "HAProxy's estimate"),
    ("idle_conn_cur", "kept connections are all safe"),
    ("safe_conn_cur", "HAProxy takes some for not safe"),
    ("h1_bytes_in", "of the backend: connections to servers are not counted by bytes"),
    ("h1_bytes_out", "the same"),
    ("h1_open_connections", "the same"),
    ("h1_open_streams", "the same"),
    ("h1_total_connections", "the same"),
    ("h1_total_streams", "HAProxy counts a stream that waits for a request"),
    ("h1_spliced_bytes_in", "nothing is spliced"),
    ("h1_spliced_bytes_out", "nothing is spliced"),
];

pub fn same_numbers() -> Result<()> {
    let lab = Lab::star().servers(3).build()?;
    let servers = start_servers(&lab)?;
    // s3 is in nobody's service.
    servers[2].child.kill();
    let fronts = [80, 8001].map(|port| lab.client().gateway_at(port));
    let listen = fronts[0].to_string();
    let mut flags: Vec<String> =
        ["--listen", &listen, "--workers", "1", "--persist", "cookie=SRV,insert,indirect"]
            .map(str::to_owned)
            .into();
    flags.extend(["--check-interval", "500ms"].map(str::to_owned));
    let socket = lab.balancer.fresh_path("haproxy.sock");
    let mut section = format!(
        "global\n  nbthread 1\n  stats socket {} level admin\nlisten web\n  bind {}\n  cookie SRV insert indirect\n  \
         balance roundrobin\n  http-reuse always\n  option redispatch 1\n",
        socket.display(),
        fronts[1]
    );
    for n in 1..=3 {
        let at = lab.server(n).at(8080);
        flags.extend(["--server".to_owned(), format!("s{n}={at},weight={n},maxconn=10")]);
        let _ = writeln!(
            section,
            "  server s{n} {at} weight {n} maxconn 10 cookie s{n} check inter 500 rise 2 fall 3"
        );
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let _haproxy = haproxy(&lab.balancer, fronts[1], &section)?;
    let sockets = [daemon.admin(), &socket];
    for socket in sockets {
        wait_until(PATIENCE, "s3 to be found down", || {
            stat(socket).is_ok_and(|rows| rows["s3"]["status"] == "DOWN" && rows["s1"]["status"] == "UP")
        })?;
        // From here on the same happens to both.
        ask(socket, "clear counters all")?;
    }
    for front in fronts {
        load(&lab.client().ns, front)?;
    }
    let is_quiet = |socket: &Path| stat(socket).is_ok_and(|rows| rows["FRONTEND"]["scur"] == "0");
    wait_until(PATIENCE, "the clients to have gone", || sockets.iter().all(|socket| is_quiet(socket)))?;
    wait_until(PATIENCE, "the idle connections to be counted", || {
        stat(daemon.admin()).is_ok_and(|rows| rows["s1"]["srv_icur"] != "0" && rows["s2"]["srv_icur"] != "0")
    })?;
    let [ours, theirs] = [stat(sockets[0])?, stat(sockets[1])?];
    let differences = compare(&ours, &theirs);
    ensure!(differences.is_empty(), "not the same:\n{}", differences.join("\n"));
    // What was sent is not the same: each has its own page for what it did not understand.
    let (ours, theirs) = (&ours["FRONTEND"]["bin"], &theirs["FRONTEND"]["h1_bytes_in"]);
    ensure!(ours == theirs, "bytes of clients: {ours}, HAProxy {theirs}");
    Ok(())
}

/// Both are told the same; what they refuse they refuse in the same words.
pub fn same_switches() -> Result<()> {
    let lab = Lab::star().servers(2).build()?;
    let servers = start_servers(&lab)?;
    let fronts = [80, 8001].map(|port| lab.client().gateway_at(port));
    let socket = lab.balancer.fresh_path("haproxy.sock");
    let [one, two] = [1, 2].map(|n| lab.server(n).at(8080));
    let (listen, named) = (fronts[0].to_string(), [format!("s1={one}"), format!("s2={two}")]);
    let flags =
        ["--listen", &listen, "--server", &named[0], "--server", &named[1], "--check-interval", "50ms"];
    let section = format!(
        "global\n  stats socket {} level admin\nlisten web\n  bind {}\n  server s1 {one} check inter 50\n  server s2 \
         {two} check inter 50\n",
        socket.display(),
        fronts[1]
    );
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let _haproxy = haproxy(&lab.balancer, fronts[1], &section)?;
    let sockets = [daemon.admin(), &socket];
    let both_say = |status: &str| {
        wait_until(PATIENCE, &format!("s1 to be {status}"), || {
            sockets.iter().all(|socket| stat(socket).is_ok_and(|rows| rows["s1"]["status"] == status))
        })
    };
    let checked = |socket: &Path| -> Result<Vec<String>> {
        let rows = stat(socket)?;
        let cell = |row: &str, name: &str| rows[row][name].clone();
        Ok(["s1", "s2"].iter().flat_map(|row| [cell(row, "status"), cell(row, "check_status")]).collect())
    };
    both_say("UP")?;
    for refused in [
        "disable health",
        "disable health web/s9",
        "disable health shop/s1",
        "enable agent",
        "enable agent web/s1",
        "enable agent web/s9",
        "enable frontend",
        "enable frontend shop",
        "enable frontend web",
    ] {
        let [ours, theirs] = [ask(sockets[0], refused)?, ask(sockets[1], refused)?];
        // All our refusals begin so.
        let words = ours.strip_prefix("error: ").with_context(|| ours.clone())?;
        ensure!(words == theirs, "{refused}: {ours:?}, HAProxy {theirs:?}");
    }
    for socket in sockets {
        ask(socket, "disable health web/s1")?;
        ask(socket, "disable agent web/s1")?;
        ask(socket, "disable health web/s1")?;
    }
    both_say("no check")?;
    // HAProxy puts a star before the result of the last check while the next one is under way.
    wait_until(
        PATIENCE,
        "both to say the same of checks",
        || matches!((checked(sockets[0]), checked(sockets[1])), (Ok(ours), Ok(theirs)) if ours == theirs),
    )?;
    // Nobody notices now that they are gone, until they are looked at again.
    drop(servers);
    for socket in sockets {
        wait_until(PATIENCE, "s2 to be down", || {
            stat(socket).is_ok_and(|rows| rows["s2"]["status"] == "DOWN")
        })?;
        ensure!(stat(socket)?["s1"]["status"] == "no check", "{:?}", stat(socket)?["s1"]);
    }
    let state = |socket: &Path| -> Result<Option<String>> {
        let text = ask(socket, "show servers state web")?;
        let row = text.lines().find(|line| line.split(' ').nth(3) == Some("s1"));
        Ok(row.and_then(|row| row.split(' ').nth(13)).map(str::to_owned))
    };
    ensure!(state(sockets[0])? == state(sockets[1])?, "srv_check_state: {:?}", state(sockets[0])?);
    for socket in sockets {
        ask(socket, "enable health web/s1")?;
    }
    both_say("DOWN")
}

type Rows = BTreeMap<String, BTreeMap<String, String>>;

fn ask(socket: &Path, command: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// By row and column.
fn stat(socket: &Path) -> Result<Rows> {
    let text = ask(socket, "show stat")?;
    let mut lines = text.lines();
    let names: Vec<_> =
        lines.next().and_then(|line| line.strip_prefix("# ")).context("no header")?.split(',').collect();
    let row = |line: &str| {
        let cells: BTreeMap<_, _> =
            names.iter().map(ToString::to_string).zip(line.split(',').map(str::to_owned)).collect();
        (cells["svname"].clone(), cells)
    };
    Ok(lines.filter(|line| !line.is_empty()).map(row).collect())
}

/// What HAProxy has and we have not, or not so.
fn compare(ours: &Rows, theirs: &Rows) -> Vec<String> {
    let mut differences = Vec::new();
    for (row, cells) in theirs {
        for (column, theirs) in cells.iter().filter(|(_, value)| !value.is_empty()) {
            let ours = ours.get(row).and_then(|cells| cells.get(column)).map_or("", String::as_str);
            if ours != theirs && !DIFFERENT.iter().any(|(name, _)| name == column) {
                differences.push(format!("{row} {column}: {ours:?}, HAProxy {theirs:?}"));
            }
        }
    }
    differences
}

/// A bit of everything: connections with one request and with several, known clients, a client that speaks nonsense.
fn load(ns: &Namespace, front: SocketAddr) -> Result<()> {
    let ask = |headers: &[(&str, &str)]| -> Result<()> {
        let answer = Connection::open(ns, None, front)?.get("/", headers)?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    };
    // With those whose cookie is of no use six are balanced, which is twice what the two servers have in weights.
    for _ in 0..4 {
        ask(&[("Connection", "close")])?;
    }
    for cookie in ["SRV=s1", "SRV=s2", "SRV=s3", "SRV=nobody"] {
        ask(&[("Cookie", cookie), ("Connection", "close")])?;
    }
    let mut kept = Connection::open(ns, None, front)?;
    for _ in 0..4 {
        ensure!(kept.get("/1k", &[("Cookie", "SRV=s2")])?.status == 200, "on a kept connection");
    }
    drop(kept);
    let mut wrong = Connection::open(ns, None, front)?;
    wrong.send(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")?;
    ensure!(wrong.receive()?.status == 400, "a space before the colon");
    let mut upload = Connection::open(ns, None, front)?;
    upload.send(b"PUT /upload/a HTTP/1.1\r\nHost: x\r\nCookie: SRV=s1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")?;
    // The second to come replaces what the first has brought.
    ensure!(matches!(upload.receive()?.status, 201 | 204), "an upload");
    Ok(())
}
