//! `--http-admin`: what programs are told over HTTP, and who is not told.

mod openmetrics;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Daemon, Origin, PATIENCE, eventually, fresh_name};
use openmetrics::Metrics;

/// As many as may ask at one time.
const MOST_CONNECTIONS: usize = 32;

/// Where it listens.
fn address(daemon: &Daemon) -> String {
    let seen = daemon.seen.borrow();
    let line = seen.iter().find(|line| line.contains("http admin ")).expect("it says where it listens");
    line.rsplit(' ').next().expect("an address").to_owned()
}

/// Whatever is answered to these bytes; nothing if the connection is closed without a word.
fn say(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    // It may have been refused before.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(answer).expect("text"),
    }
}

/// Status and body.
fn get(address: &str, path: &str) -> (u16, String) {
    let answer = say(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

#[test]
fn metrics_are_well_formed_and_count() {
    let origin = Origin::start();
    let flags = format!(
        "--http-admin 127.0.0.1:0 --check none --retries 0 --persist cookie=SRV,insert --persist source \
         --server s1={} --server s2=127.0.0.1:1,weight=0",
        origin.address
    );
    let daemon = Daemon::start(&flags);
    let asked = address(&daemon);
    let metrics = || {
        let (status, text) = get(&asked, "/metrics");
        assert_eq!(status, 200);
        Metrics::parse(&text)
    };
    let before = metrics();
    assert_eq!(before.value("balancer_requests_total{code_class=\"2xx\"}"), 0.0);
    (0..3).for_each(|_| drop(daemon.get()));
    daemon.get_with("Cookie: SRV=s2\r\n");
    let after = || {
        let now = metrics();
        (now.value("balancer_requests_total{code_class=\"2xx\"}") == 3.0).then_some(now)
    };
    eventually("the counts", || after().is_some());
    let now = after().expect("counted");
    for (sample, value) in [
        ("balancer_requests_total{code_class=\"5xx\"}", 1.0),
        ("balancer_server_responses_total{server=\"s1\",code_class=\"2xx\"}", 3.0),
        ("balancer_server_failures_total{server=\"s2\",kind=\"connect\"}", 1.0),
        ("balancer_server_up{server=\"s1\"}", 1.0),
        ("balancer_server_state{server=\"s1\",state=\"down\"}", 0.0),
        ("balancer_persistence_total{method=\"cookie\",verdict=\"hit\"}", 1.0),
        ("balancer_persistence_total{method=\"cookie\",verdict=\"miss\"}", 3.0),
        ("balancer_request_duration_seconds_count", 4.0),
        ("balancer_server_response_duration_seconds_bucket{le=\"+Inf\",server=\"s1\"}", 3.0),
        ("balancer_table_size{table=\"source\"}", 256_000.0),
        ("balancer_ready", 1.0),
        ("balancer_draining", 0.0),
        ("balancer_connections_total", 4.0),
    ] {
        assert_eq!(now.value(sample), value, "{sample}");
    }
    assert!(now.value("balancer_sent_bytes_total") > 100.0);
    assert!(now.value("balancer_start_time_seconds") > 1.6e9);
    now.has_not_gone_back_since(&before);
}

#[test]
fn the_status_is_one_object_with_the_last_decisions() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--http-admin 127.0.0.1:0 --check none --persist source --server s1={}",
        origin.address
    ));
    let asked = address(&daemon);
    daemon.get();
    let status = || -> Value { serde_json::from_str(&get(&asked, "/status.json").1).expect("an object") };
    eventually("the decision", || status()["decisions"].as_array().is_some_and(|list| !list.is_empty()));
    let status = status();
    assert_eq!((&status["ready"], &status["info"]["name"]), (&json!(true), &json!(daemon.name)));
    assert_eq!((&status["responses"]["2xx"], &status["responses"]["none"]), (&json!(1), &json!(0)));
    let server = &status["servers"][0];
    assert_eq!(
        (&server["name"], &server["state"], &server["sessions"]),
        (&json!("s1"), &json!("up"), &json!(1))
    );
    let decision = &status["decisions"][0];
    assert_eq!((&decision["client"], &decision["server"]), (&json!("127.0.0.1"), &json!("s1")));
    for (query, wrong) in
        [("decisions=all", "decisions is \"all\""), ("decisons=1", "no parameter \"decisons\"")]
    {
        let (code, why) = get(&asked, &format!("/status.json?{query}"));
        assert!(code == 400 && why.contains(wrong) && why.contains("?decisions=10"), "{code} {why}");
    }
    for (most, kept) in [(0, 0), (1, 1), (5000, 1)] {
        let (code, status) = get(&asked, &format!("/status.json?decisions={most}"));
        let status: Value = serde_json::from_str(&status).expect("an object");
        assert_eq!((code, status["decisions"].as_array().map(Vec::len)), (200, Some(kept)));
    }
    // Nothing has been taken away by looking.
    assert_eq!(daemon.json("show decisions --json").as_array().map(Vec::len), Some(1));
}

#[test]
fn who_asks_from_elsewhere_is_not_told_who_the_clients_are() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--http-admin 0.0.0.0:0 --check none --persist source --server s1={}",
        origin.address
    ));
    let seen =
        daemon.seen.borrow().iter().any(|line| line.starts_with("warn: --http-admin 0.0.0.0:0 is open"));
    assert!(seen, "{:?}", daemon.seen.borrow());
    let asked = address(&daemon).replace("0.0.0.0", "127.0.0.1");
    daemon.get();
    let decision = || {
        serde_json::from_str::<Value>(&get(&asked, "/status.json").1).expect("an object")["decisions"][0]
            .clone()
    };
    eventually("the decision", || !decision().is_null());
    assert_eq!((&decision()["server"], decision().get("client")), (&json!("s1"), None));
}

#[test]
fn a_url_is_explained_as_the_command_does_it() {
    let origin = Origin::start();
    let server = format!("--server s1={}", origin.address);
    let daemon =
        Daemon::start(&format!("--http-admin 127.0.0.1:0 --check none --persist cookie=SRV {server}"));
    let asked = address(&daemon);
    let question = "src=192.0.2.7&method=POST&path=%2Fcart%3Fx%3D1&header=Cookie%3A+SRV%3Ds1%3B+a%3D%2B";
    let (status, text) = get(&asked, &format!("/explain.json?{question}"));
    let found: Value = serde_json::from_str(&text).expect("an object");
    let by_command = daemon
        .json("explain --json --src 192.0.2.7 --method POST --path /cart?x=1 --header Cookie:SRV=s1;a=+");
    assert_eq!((status, &found), (200, &by_command));
    assert_eq!((&found["servers"], &found["decided_by"]), (&json!(["s1"]), &json!("cookie")));
    for (query, why) in [
        ("", "write /explain.json?src=ADDR"),
        ("src=192.0.2.7&sauce=x", "write /explain.json?src=ADDR"),
        ("src=here", "\"here\" is not an address"),
        ("src=192.0.2.7&header=N:%20o%0d%0aX:%20y%0d%0a%0d%0a", "the header has a line end in it"),
        ("src=192.0.2.7&header=%00", "such a request is refused"),
        ("src=192.0.2.7&header=A:b%0d%0aCookie:SRV=s1", "the header has a line end in it"),
        ("src=192.0.2.7&path=/%20HTTP/1.1%0aX:y", "the path has a line end in it"),
    ] {
        let (status, text) = get(&asked, &format!("/explain.json?{query}"));
        let found: Value = serde_json::from_str(&text).expect("an object");
        let told = found["error"].as_str().unwrap_or_default();
        assert!(status == 400 && told.contains(why), "{query}: {status} {text}");
    }
    let open = Daemon::start(&format!("--http-admin 0.0.0.0:0 --check none {server}"));
    let asked = address(&open).replace("0.0.0.0", "127.0.0.1");
    let (status, text) = get(&asked, "/explain.json?src=192.0.2.7");
    assert!(status == 403 && text.contains("only who is on this host may ask"), "{text}");
}

#[test]
fn the_status_has_the_last_minutes() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--http-admin 127.0.0.1:0 --check none --persist source --server s1={}",
        origin.address
    ));
    let asked = address(&daemon);
    daemon.get();
    let status = || -> Value { serde_json::from_str(&get(&asked, "/status.json").1).expect("an object") };
    let samples = || status()["history"]["samples"].as_array().cloned().unwrap_or_default();
    let with_requests = |sample: &Value| sample["requests_per_second"].as_f64() > Some(0.0);
    eventually("a sample with the request", || samples().iter().any(with_requests));
    let samples = samples();
    let sample = samples.iter().find(|sample| with_requests(sample)).expect("found a moment ago");
    assert_eq!(
        (&sample["requests_per_second"], &sample["connections_per_second"]),
        (&json!(0.2), &json!(0.2))
    );
    assert_eq!((&sample["failures_per_second"], &sample["fast_per_second"]), (&json!(0.0), &json!(0.0)));
    assert!(sample["p99_millis"].as_f64() > Some(0.0), "{sample}");
    eventually("who has asked is stuck to it", || status()["servers"][0]["entries"] == 1);
}

#[test]
fn what_is_not_there_is_refused() {
    let daemon = Daemon::start("--http-admin 127.0.0.1:0 --check none --server s1=127.0.0.1:1");
    let asked = address(&daemon);
    let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    for (request, expected) in [
        ("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 "),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 302 "),
        ("DELETE /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 "),
        ("GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n\r\n", "HTTP/1.1 421 "),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 "),
        (&long, "HTTP/1.1 431 "),
    ] {
        let answer = say(&asked, request.as_bytes());
        assert!(answer.starts_with(expected), "{request:.60}: {answer}");
    }
    let head = say(&asked, b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let wrong = super::balancer("check --listen 127.0.0.1:80 --server s1=127.0.0.1:1 --http-admin 9100");
    assert!(super::one_line(&wrong).contains("--http-admin \"9100\" has no address; write 127.0.0.1:9100"));
}

#[test]
fn readiness_waits_for_the_first_checks_and_ends_with_a_drain() {
    let server = TcpListener::bind("127.0.0.1:0").expect("bound");
    let at = server.local_addr().expect("address");
    let mut daemon = Daemon::start(&format!(
        "--http-admin 127.0.0.1:0 --check http=/ --check-timeout 20s --check-interval 20s --server s1={at}"
    ));
    let asked = address(&daemon);
    assert_eq!(get(&asked, "/readyz"), (503, "the first round of checks is not complete\n".to_owned()));
    assert_eq!(get(&asked, "/healthz").0, 200);
    let (mut check, _) = server.accept().expect("a check");
    check.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("answered");
    eventually("readiness", || get(&asked, "/readyz") == (200, "ready\n".to_owned()));
    // Somebody is in the middle of a request, so that the drain takes its time.
    let mut client = TcpStream::connect(&daemon.address).expect("connected");
    client.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    kill(daemon.pid(), Signal::SIGTERM).expect("signalled");
    eventually("the drain", || get(&asked, "/readyz") == (503, "draining\n".to_owned()));
    assert_eq!(get(&asked, "/healthz").0, 200);
    drop(client);
    assert_eq!(daemon.wait(), Some(0));
}

#[test]
fn a_crowd_that_says_nothing_harms_nobody() {
    let origin = Origin::start();
    let daemon =
        Daemon::start(&format!("--http-admin 127.0.0.1:0 --check none --server s1={}", origin.address));
    let asked = address(&daemon);
    let mut crowd: Vec<_> =
        (0..3 * MOST_CONNECTIONS).map(|_| TcpStream::connect(&asked).expect("connected")).collect();
    // One says a little now and then, and is not done either.
    crowd[0].write_all(b"GET /healthz HTT").expect("sent");
    for _ in 0..20 {
        assert_eq!((get(&asked, "/healthz").0, get(&asked, "/readyz").0), (200, 200));
    }
    assert!(daemon.get().starts_with("HTTP/1.1 200 "));
    // Each is told that its time is over, when somebody needed the place or later.
    for mut silent in crowd {
        silent.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut answer = String::new();
        silent.read_to_string(&mut answer).expect("told");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn those_who_ask_all_the_time_are_answered_all_the_time_and_so_are_others() {
    let origin = Origin::start();
    let daemon =
        Daemon::start(&format!("--http-admin 127.0.0.1:0 --check none --server s1={}", origin.address));
    let asked = address(&daemon);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Once at least, however late a busy host lets a thread begin; and not for ever, should the others fail.
        let poll = || {
            let begun = Instant::now();
            loop {
                assert_eq!(get(&asked, "/status.json").0, 200);
                if is_over.load(Ordering::SeqCst) || begun.elapsed() > PATIENCE {
                    break;
                }
            }
        };
        let pollers: Vec<_> = (0..2 * MOST_CONNECTIONS).map(|_| scope.spawn(poll)).collect();
        for _ in 0..20 {
            assert_eq!((get(&asked, "/healthz").0, get(&asked, "/readyz").0), (200, 200));
        }
        is_over.store(true, Ordering::SeqCst);
        pollers.into_iter().for_each(|poller| poller.join().expect("answered"));
    });
}

#[test]
fn no_scrape_is_refused_while_a_new_process_takes_over() {
    let (directory, name) = (Rc::new(TempDir::new().expect("directory")), fresh_name());
    let mut old =
        Daemon::start_at(&directory, &name, "--http-admin 127.0.0.1:0 --check none --server s1=127.0.0.1:1");
    let asked = address(&old);
    let (is_over, target) = (Arc::new(AtomicBool::new(false)), asked.clone());
    let told = Arc::clone(&is_over);
    let scraper = thread::spawn(move || {
        let mut scrapes = 0;
        while !told.load(Ordering::SeqCst) {
            let (status, text) = get(&target, "/metrics");
            assert_eq!(status, 200);
            Metrics::parse(&text);
            scrapes += 1;
        }
        scrapes
    });
    let new = Daemon::start_at(
        &directory,
        &name,
        &format!("--takeover --http-admin {asked} --check none --server s1=127.0.0.1:1"),
    );
    assert_eq!(old.wait(), Some(0));
    let pid = || {
        let status: Value = serde_json::from_str(&get(&asked, "/status.json").1).expect("an object");
        status["info"]["pid"].as_u64()
    };
    assert_eq!(pid(), Some(u64::from(new.child.id())));
    is_over.store(true, Ordering::SeqCst);
    assert!(scraper.join().expect("every scrape is answered") > 0);
}

#[test]
fn clients_do_not_notice_that_somebody_asks_all_the_time() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!(
        "--http-admin 127.0.0.1:0 --check none --persist source --server s1={}",
        origin.address
    ));
    let asked = address(&daemon);
    let is_over = AtomicBool::new(false);
    let client = || {
        let mut stream = TcpStream::connect(&daemon.address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    };
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut scrapes = 0;
            while !is_over.load(Ordering::SeqCst) {
                Metrics::parse(&get(&asked, "/metrics").1);
                assert_eq!(get(&asked, "/status.json").0, 200);
                scrapes += 1;
            }
            scrapes
        });
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..200).for_each(|_| client()))).collect();
        let outcomes: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(scraper.join().expect("every scrape is answered") > 0);
        assert!(outcomes.iter().all(Result::is_ok), "every client is answered");
    });
    let metrics = Metrics::parse(&get(&asked, "/metrics").1);
    assert_eq!(metrics.value("balancer_requests_total{code_class=\"2xx\"}"), 800.0);
}
