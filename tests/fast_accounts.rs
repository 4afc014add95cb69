//! What is known of fast connections when they are over, and of those that are not: the access log, counters per service and
//! server, `show flows`, `flows reset`. Real XDP on real veth pairs, and clients that count for themselves.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use site::{PATIENCE, SOURCE_FIRST, Site, Visit, start, trial};
use tempfile::TempDir;
use xtask::lab::http::{self, Connection};
use xtask::lab::{Daemon, Namespace, wait_until};

const CLOSE: &[(&str, &str)] = &[("Connection", "close")];

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("every_fast_connection_has_one_line_that_agrees_with_its_client", lines_agree),
        trial("what_ends_while_no_process_runs_is_told_by_the_next_one", told_after_a_crash),
        trial("connections_that_end_while_the_process_stops_are_told_once", told_over_a_stop),
        trial("connections_that_last_over_a_hot_restart_are_told_once", told_after_a_hot_restart),
        trial("a_line_says_who_has_reset_a_connection_and_who_ended_it", reasons),
        trial("people_read_a_line_too", text_line),
        trial("flows_are_shown_and_reset_by_client_and_by_server", shown_and_reset),
        trial("two_services_count_for_themselves_and_for_the_host", two_services),
        trial("what_a_server_has_carried_is_known_while_it_runs_and_after_a_crash", carried),
        trial("show_stat_and_metrics_count_fast_sessions_and_their_bytes", counted_for_tools),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The file that a site's access log goes to.
struct Log {
    path: PathBuf,
    _folder: TempDir,
}

impl Log {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { path: folder.path().join("access.log"), _folder: folder })
    }

    fn open(&self, flags: &[&str]) -> Result<Site> {
        let path = self.path.to_str().context("a path")?;
        Site::open(&[SOURCE_FIRST, &["--access-log", path, "--log-format", "json"], flags].concat())
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// The lines about fast connections, those that are complete.
    fn fast(&self) -> Result<Vec<Value>> {
        let text = self.text();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?));
        let lines = lines.collect::<Result<Vec<_>>>().with_context(|| text.clone())?;
        Ok(lines.into_iter().filter(|line| line["path"] == "fast").collect())
    }

    /// Waits until there are `count` such lines, and sees that there are no more.
    fn wait_for(&self, count: usize) -> Result<Vec<Value>> {
        let enough = || self.fast().is_ok_and(|lines| lines.len() >= count);
        wait_until(PATIENCE, &format!("{count} lines"), enough)
            .with_context(|| format!("there are {}", self.fast().map_or(0, |lines| lines.len())))?;
        let lines = self.fast()?;
        ensure!(lines.len() == count, "{} lines instead of {count}: {lines:?}", lines.len());
        Ok(lines)
    }
}

/// What connections have sent and received, each with its client's port, in the order of these: a port may come back.
type Tally = Vec<(u16, (u64, u64))>;

/// One request on a connection of its own, read to the end of it; counts every byte.
fn visit(ns: &Namespace, source: Ipv4Addr, to: SocketAddr, path: &str) -> Result<(u16, (u64, u64))> {
    let mut connection = Connection::open(ns, Some(source), to)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
    connection.send(request.as_bytes())?;
    let mut answer = Vec::new();
    connection.stream().read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok((connection.local_addr()?.port(), (request.len() as u64, answer.len() as u64)))
}

/// So many of them, a few at a time.
fn visits(site: &Site, count: usize) -> Result<Tally> {
    let (ns, to) = (&site.lab.client().ns, site.lab.client().gateway_at(80));
    let source = site.address(0);
    let mut tally = Tally::new();
    thread::scope(|scope| -> Result<()> {
        let clients = [0, 1, 2, 3].map(|n| {
            let mine = (0..count).filter(move |visit| visit % 4 == n);
            scope.spawn(move || mine.map(|_| visit(ns, source, to, "/13")).collect::<Result<Vec<_>>>())
        });
        for client in clients {
            tally.extend(client.join().expect("the thread")?);
        }
        Ok(())
    })?;
    tally.sort_unstable();
    Ok(tally)
}

fn told(lines: &[Value]) -> Result<Tally> {
    let connection = |line: &Value| {
        let number = |name: &str| line[name].as_u64().with_context(|| format!("no {name} in {line}"));
        Ok((number("client_port")? as u16, (number("bytes_in")?, number("bytes")?)))
    };
    let mut tally = lines.iter().map(connection).collect::<Result<Tally>>()?;
    tally.sort_unstable();
    Ok(tally)
}

/// Both together.
fn with(mut tally: Tally, more: Tally) -> Tally {
    tally.extend(more);
    tally.sort_unstable();
    tally
}

fn lines_agree() -> Result<()> {
    const COUNT: usize = 400;
    let log = Log::new()?;
    let site = log.open(&[])?;
    let home = site.introduce(0)?;
    let tally = visits(&site, COUNT)?;
    // The client may come back to the port of its first visit, which the stack still remembers.
    let fast = site.daemon.counter("syn_forwarded")? as usize;
    ensure!(
        fast + site.daemon.counter("pass_socket_exists")? as usize == COUNT,
        "some went through the proxy"
    );
    let lines = log.wait_for(fast)?;
    let mut left = tally.clone();
    for connection in told(&lines)? {
        let place = left.iter().position(|known| *known == connection);
        left.swap_remove(place.with_context(|| format!("{connection:?} is not among {tally:?}"))?);
    }
    let client = site.address(0).to_string();
    for line in &lines {
        ensure!(line["server"] == home && line["client"] == client && line["method"] == "XDP", "{line}");
        ensure!(line["fault"].is_null() && line["persist"] == format!("source>{home}"), "{line}");
        ensure!(line["duration_ms"].as_f64().is_some_and(|ms| ms < 10_000.0), "{line}");
    }
    let text = log.text();
    ensure!(text.lines().any(|line| line.contains(r#""path":"slow""#)), "{text}");
    ensure!(site.daemon.counter("ends_lost")? == 0);
    Ok(())
}

fn told_after_a_crash() -> Result<()> {
    let log = Log::new()?;
    let mut site = log.open(&[])?;
    site.introduce(0)?;
    let tally = visits(&site, 20)?;
    log.wait_for(20)?;
    site.daemon.kill();
    let tally = with(tally, visits(&site, 30)?);
    ensure!(log.fast()?.len() == 20, "nobody is there to tell");
    site.daemon.restart()?;
    ensure!(told(&log.wait_for(50)?)? == tally);
    let tally = with(tally, visits(&site, 10)?);
    ensure!(told(&log.wait_for(60)?)? == tally);
    Ok(())
}

/// A stop takes a moment, in which connections end; so does the next start.
fn told_over_a_stop() -> Result<()> {
    let log = Log::new()?;
    let mut site = log.open(&[])?;
    site.introduce(0)?;
    let mut kept: Vec<_> = (0..200).map(|_| site.connect(0)).collect::<Result<_>>()?;
    let fast = site.daemon.counter("syn_forwarded")? as usize;
    site.daemon.child.signal(Signal::SIGTERM)?;
    while site.daemon.child.is_running() {
        kept.pop();
    }
    kept.clear();
    site.daemon.restart()?;
    log.wait_for(fast)?;
    Ok(())
}

fn told_after_a_hot_restart() -> Result<()> {
    let log = Log::new()?;
    let site = log.open(&["--drain-timeout", "1s"])?;
    site.introduce(0)?;
    let mut kept: Vec<_> = (0..10).map(|_| site.connect(0)).collect::<Result<_>>()?;
    for connection in &mut kept {
        ensure!(Visit::of(&connection.get("/", &[])?)?.fast);
    }
    let pid = || -> Result<i32> { Ok(site.daemon.show(&["info"])?["pid"].as_i64().context("a pid")? as i32) };
    for _ in 0..2 {
        let before = pid()?;
        kill(Pid::from_raw(before), Signal::SIGUSR2)?;
        let stop = AtomicBool::new(false);
        let told_before = log.fast()?.len();
        let meanwhile = thread::scope(|scope| {
            let client = scope.spawn(|| -> Result<usize> {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    // The client may come back to the port of a visit that the stack still remembers.
                    count += usize::from(Visit::of(&site.connect(0)?.get("/", CLOSE)?)?.fast);
                }
                Ok(count)
            });
            let succeeded = wait_until(PATIENCE, "the successor", || pid().is_ok_and(|pid| pid != before));
            stop.store(true, Ordering::Relaxed);
            succeeded.and(client.join().expect("the thread"))
        })?;
        ensure!(meanwhile > 0);
        log.wait_for(told_before + meanwhile)?;
    }
    let told_before = log.fast()?.len();
    for mut connection in kept.drain(..) {
        connection.get("/", CLOSE)?;
    }
    told(&log.wait_for(told_before + 10)?[told_before..])?;
    kill(Pid::from_raw(pid()?), Signal::SIGTERM)?;
    Ok(())
}

fn reasons() -> Result<()> {
    let log = Log::new()?;
    let site = log.open(&[])?;
    let home = site.introduce(0)?;
    let faults = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|line| line["fault"].as_str().unwrap_or("none").to_owned()).collect()
    };
    let mut reset = site.connect(0)?;
    ensure!(Visit::of(&reset.get("/", &[])?)?.fast);
    // Closing a socket with something unread in it is a reset; so is closing one that does not linger.
    socket2::SockRef::from(reset.stream()).set_linger(Some(Duration::ZERO))?;
    drop(reset);
    ensure!(faults(&log.wait_for(1)?) == ["reset-by-client"]);
    let mut ended = site.connect(0)?;
    ensure!(Visit::of(&ended.get("/", &[])?)?.fast);
    site.operator(&["shutdown", "sessions", &home])?;
    ensure!(faults(&log.wait_for(2)?)[1] == "killed");
    // Nobody is at the server's port any more, and the checks have not found out yet or not at all.
    let site = {
        let Site { daemon, mut servers, lab } = site;
        let place = servers.iter().position(|server| server.name == home).context("the server")?;
        drop(servers.remove(place));
        Site { daemon, servers, lab }
    };
    let refused = site.connect(0);
    if refused.is_err() {
        ensure!(faults(&log.wait_for(3)?)[2] == "refused", "{:?}", log.fast()?);
    }
    Ok(())
}

fn text_line() -> Result<()> {
    let log = Log::new()?;
    let path = log.path.to_str().context("a path")?;
    let site = Site::open(&[SOURCE_FIRST, &["--access-log", path]].concat())?;
    let home = site.introduce(0)?;
    let (port, (sent, received)) =
        visit(&site.lab.client().ns, site.address(0), site.lab.client().gateway_at(80), "/13")?;
    wait_until(PATIENCE, "the line", || log.text().contains(" XDP - - "))?;
    let text = log.text();
    let line = text.lines().find(|line| line.contains(" XDP - - ")).context("the line")?;
    let words: Vec<_> = line.split(' ').collect();
    ensure!(words[1] == format!("{}:{port}", site.address(0)), "{line}");
    ensure!(words[5] == received.to_string() && words[7] == home && words[8] == "--", "{line}");
    ensure!(words[9..] == [format!("persist=source>{home}"), format!("in={sent}")], "{line}");
    Ok(())
}

fn shown_and_reset() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    ensure!(homes[0] != homes[1], "two clients, two servers");
    let mut kept = Vec::new();
    for client in [0, 0, 0, 1, 1] {
        let mut connection = site.connect(client)?;
        ensure!(Visit::of(&connection.get("/", &[])?)?.fast);
        kept.push(connection);
    }
    let rows = |words: &[&str]| -> Result<Vec<Value>> {
        let rows = site.daemon.show(&[&["flows"], words].concat())?;
        Ok(rows.as_array().context("rows")?.clone())
    };
    let (first, second) = (site.address(0).to_string(), site.address(1).to_string());
    ensure!(rows(&[])?.len() == 5 && rows(&["--client", &first])?.len() == 3);
    ensure!(rows(&["--server", &homes[1]])?.len() == 2);
    ensure!(rows(&["--client", &first, "--server", &homes[1]])?.is_empty());
    ensure!(rows(&["--limit", "2"])?.len() == 2);
    for row in rows(&["--client", &second])? {
        let is_some = |name: &str| row[name].as_u64().is_some_and(|count| count > 0);
        ensure!(row["client"].as_str().is_some_and(|client| client.starts_with(&second)), "{row}");
        ensure!(row["server"] == homes[1] && row["phase"] == "established", "{row}");
        ensure!(
            ["packets_in", "packets_out", "bytes_in", "bytes_out"].iter().all(|name| is_some(name)),
            "{row}"
        );
        ensure!(row["age_seconds"].is_u64() && row["idle_seconds"].is_u64(), "{row}");
    }
    let text = site.daemon.client(&["show", "flows", "--limit", "2"])?.stdout;
    ensure!(text.trim_end().ends_with("... and 3 more") && text.lines().count() == 4, "{text}");
    ensure!(site.daemon.client(&["show", "flows", "--server", "s9"])?.status.code() == Some(1));

    let reset = |words: &[&str]| site.daemon.client(&[&["flows", "reset"], words].concat());
    let refused = reset(&[])?;
    ensure!(refused.status.code() == Some(1) && refused.stderr.contains("which flows"), "{refused:?}");
    let done = reset(&["--client", &first, "--server", &homes[1]])?;
    ensure!(done.stdout.starts_with("0 fast connections"), "{done:?}");
    let done = reset(&["--client", &second])?;
    ensure!(done.stdout.starts_with("2 fast connections"), "{done:?}");
    ensure!(kept.pop().context("a connection")?.get("/", &[]).is_err(), "it was reset");
    ensure!(Visit::of(&kept[0].get("/", &[])?)?.fast, "the other client's go on");
    let done = reset(&["--server", &homes[0]])?;
    ensure!(done.stdout == format!("3 fast connections to {} are ended\n", homes[0]), "{done:?}");
    ensure!(kept[0].get("/", &[]).is_err() && rows(&[])?.is_empty());
    let again = site.visit(0, &[])?;
    ensure!(again.server == homes[0], "a new connection goes where it belongs: {again:?}");
    Ok(())
}

fn two_services() -> Result<()> {
    let logs = [Log::new()?, Log::new()?];
    let site = logs[0].open(&[])?;
    let path = logs[1].path.to_str().context("a path")?;
    let flags = [SOURCE_FIRST, &["--access-log", path, "--log-format", "json"]].concat();
    let second = start(&site.lab, "other", 81, &flags)?;
    site.wait_until_checked(&second)?;
    site.introduce(0)?;
    let (ns, fronts) = (&site.lab.client().ns, [80, 81].map(|port| site.lab.client().gateway_at(port)));
    let source = site.address(0);
    let home = Visit::of(&http::get(ns, Some(source), fronts[1], "/", &[])?)?.server;
    wait_until(PATIENCE, "the client to be known to the second, too", || {
        second.affinity("source", &source.to_string()).is_ok_and(|found| found.as_ref() == Some(&home))
    })?;
    for (front, count) in fronts.into_iter().zip([7, 3]) {
        for _ in 0..count {
            visit(ns, source, front, "/13")?;
        }
    }
    logs[0].wait_for(7)?;
    logs[1].wait_for(3)?;
    for (daemon, own) in [(&site.daemon, 7), (&second, 3)] {
        let info = daemon.show(&["info"])?;
        let counter = |of: &str, name: &str| info["datapath"][of][name].as_u64();
        ensure!(counter("own", "syn_forwarded") == Some(own), "{info}");
        ensure!(counter("counters", "syn_forwarded") == Some(own), "{info}");
        ensure!(counter("host", "syn_forwarded") == Some(10), "{info}");
        // Answers to the proxy's own connections, for one.
        let nobodys = counter("counters", "pass_no_flow");
        ensure!(counter("own", "pass_no_flow") == Some(0) && nobodys > Some(0), "{info}");
        ensure!(nobodys == counter("host", "pass_no_flow"), "{info}");
    }
    let text = second.client(&["show", "info"])?.stdout;
    ensure!(text.contains("\nsyn_forwarded: 3\n") && text.contains("\nhost: syn_forwarded 10\n"), "{text}");
    let opened = |daemon: &Daemon| -> Result<u64> {
        let rows = daemon.show(&["servers"])?;
        let rows = rows.as_array().context("rows")?;
        Ok(rows.iter().filter_map(|row| row["fast_traffic"]["opened"].as_u64()).sum())
    };
    // What is asked for again at once may be what was said before.
    wait_until(PATIENCE, "seven and three to be told", || {
        opened(&site.daemon).is_ok_and(|count| count == 7) && opened(&second).is_ok_and(|count| count == 3)
    })
}

fn carried() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let traffic = |site: &Site| -> Result<Value> { Ok(site.daemon.server(&home)?["fast_traffic"].clone()) };
    ensure!(traffic(&site)?["opened"] == 0, "{}", traffic(&site)?);
    let tally = visits(&site, 10)?;
    let (mut sent, mut received) = (0, 0);
    tally.iter().for_each(|(_, (out, back))| (sent, received) = (sent + out, received + back));
    let agrees = |site: &Site, when: &str| -> Result<()> {
        let is_told = |found: &Value| {
            let counts = ["opened", "closed", "active", "bytes_in", "bytes_out"];
            counts.map(|name| found[name].as_u64()) == [10, 10, 0, sent, received].map(Some)
        };
        wait_until(PATIENCE, when, || traffic(site).is_ok_and(|found| is_told(&found)))
            .with_context(|| format!("{:?}, {sent} and {received}", traffic(site)))
    };
    agrees(&site, "while the entries are there")?;
    site.daemon.kill();
    site.daemon.restart()?;
    agrees(&site, "after a crash")?;
    let entries = || -> usize {
        let pinned = site.pins().join("FLOWS");
        let map = aya::maps::MapData::from_pin(pinned).expect("the flow table");
        let map: aya::maps::HashMap<_, balancer_ebpf::abi::FlowKey, balancer_ebpf::abi::Flow> =
            aya::maps::Map::HashMap(map).try_into().expect("its shape");
        map.keys().count()
    };
    // The server closes first, so its ports rest for a minute.
    wait_until(Duration::from_secs(90), "the entries to be gone", || entries() == 0)?;
    agrees(&site, "when they are gone")?;
    let text = site.daemon.client(&["show", "server", &home])?.stdout;
    ensure!(
        text.contains(&format!("fast_bytes_out: {received}")) && text.contains("fast_opened: 10"),
        "{text}"
    );
    Ok(())
}

/// In the words of the tools that people have. Whoever went through the proxy is counted beside them.
fn counted_for_tools() -> Result<()> {
    let site = Site::open(&[SOURCE_FIRST, &["--http-admin", "10.10.1.1:9100"]].concat())?;
    let home = site.introduce(0)?;
    let rows = || -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
        let text = site.daemon.say("show stat")?;
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let names = lines.next().context("a header")?;
        let row = |cells: Vec<&str>| {
            let numbers = names.iter().zip(&cells);
            let numbers = numbers.filter_map(|(name, cell)| Some(((*name).to_owned(), cell.parse().ok()?)));
            (cells.get(1).copied().unwrap_or_default().to_owned(), numbers.collect())
        };
        Ok(lines.map(row).collect())
    };
    let metric = |sample: &str| -> Result<u64> {
        let at = site.lab.client().gateway_at(9100);
        let mut scrape = Connection::open(&site.lab.client().ns, None, at)?;
        scrape.send(format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes())?;
        let text = scrape.receive()?.text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.with_context(|| format!("no {sample} in {text}"))?.parse().context("a number")
    };
    wait_until(PATIENCE, "the first client to be gone", || {
        rows().is_ok_and(|rows| rows["FRONTEND"]["scur"] == 0)
    })?;
    let before = rows()?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    for row in ["FRONTEND", &home, "BACKEND"] {
        wait_until(PATIENCE, row, || rows().is_ok_and(|rows| rows[row]["scur"] == 1))?;
    }
    let of_home = format!("balancer_server_fast_connections{{server=\"{home}\"}}");
    wait_until(PATIENCE, &of_home, || metric(&of_home).is_ok_and(|count| count == 1))?;
    drop(kept);
    wait_until(PATIENCE, "it to be gone", || rows().is_ok_and(|rows| rows["FRONTEND"]["scur"] == 0))?;
    let (first, tally) = (rows()?, visits(&site, 10)?);
    let (mut sent, mut received) = (0, 0);
    tally.iter().for_each(|(_, (out, back))| (sent, received) = (sent + out, received + back));
    let all_told = || {
        let row = rows().ok()?.remove(&home)?;
        (row["stot"] == first[&home]["stot"] + 10 && row["scur"] == 0).then_some(())
    };
    wait_until(PATIENCE, "all to be told", || all_told().is_some())?;
    let after = rows()?;
    for row in ["FRONTEND", &home, "BACKEND"] {
        let more = |name: &str| after[row][name] - first[row][name];
        ensure!((more("stot"), more("bin"), more("bout")) == (10, sent, received), "{row}: {:?}", after[row]);
        // Nobody has read them.
        ensure!(after[row]["req_tot"] == before[row]["req_tot"], "{row}: {:?}", after[row]);
        ensure!(after[row]["hrsp_2xx"] == before[row]["hrsp_2xx"], "{row}: {:?}", after[row]);
    }
    let of_home = |name: &str| metric(&format!("balancer_server_fast_{name}_total{{server=\"{home}\"}}"));
    wait_until(PATIENCE, "the metrics to be as fresh", || {
        of_home("connections_opened").is_ok_and(|count| count == 11)
    })?;
    let (bin, bout) = (of_home("received_bytes")?, of_home("sent_bytes")?);
    let fast = |name: &str| after[&home][name] - before[&home][name];
    ensure!((bin, bout) == (fast("bin"), fast("bout")) && bin > sent && bout > received, "{bin} and {bout}");
    ensure!(metric("balancer_connections_total")? == 1, "those of the proxy");
    ensure!(metric("balancer_xdp_outcomes_total{outcome=\"syn_forwarded\"}")? == 11);
    Ok(())
}
