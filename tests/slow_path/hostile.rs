//! Clients and servers that mean harm, or are broken in ways that come to the same.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::balancer::{Balancer, Builder, wait_for};
use super::origin::Origin;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// What kernel and balancer may hold of a stream on its way, both sockets' buffers included: loopback's are generous.
const IN_FLIGHT: u64 = 16 * 1024 * 1024;

fn in_front_of(origin: &Origin) -> Balancer {
    Builder::new([]).server(origin.address).start()
}

#[test]
fn a_slowloris_is_told_to_go_although_it_never_stops() {
    let origin = Origin::named("s1");
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.request = Duration::from_millis(300)).start();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "y".repeat(10_000));
    let mut client = balancer.client();
    let start = Instant::now();
    let sent = client.drip(head.as_bytes(), Duration::from_millis(20));
    assert_eq!(client.response().status(), 408);
    assert!(sent < head.len() && start.elapsed() < Duration::from_secs(60), "after {sent} bytes");
    client.expect_end();
    origin.expect_no_request();
}

#[test]
fn a_client_that_never_reads_holds_up_the_server_and_not_the_balancer() {
    let start = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
    let more: &str = Box::leak("x".repeat(10_000).into_boxed_str());
    let (origin, said) = Origin::saying_without_end(start, more);
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.client = Duration::from_secs(1)).start();
    let mut client = balancer.client();
    client.send(GET);
    let line = balancer.log_line(0);
    assert!(line.ends_with(" fault=client-gone\n"), "{line}");
    assert!(said.load(Ordering::Relaxed) < IN_FLIGHT, "{said:?} bytes were taken from the server");
    assert_eq!(balancer.log_line(0).split(' ').nth(4), Some("200"));
}

#[test]
fn a_server_that_never_reads_holds_up_the_client_and_not_the_balancer() {
    let origin = Origin::taking_heads_only();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.server = Duration::from_secs(1)).start();
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let mut stream = client.0.stream.try_clone().expect("clone");
    let sender = std::thread::spawn(move || {
        let (mut sent, piece) = (0_u64, [b'x'; 10_000]);
        while stream.write_all(&piece).is_ok() {
            sent += piece.len() as u64;
        }
        sent
    });
    let mut answer = [0; 12];
    client.0.stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 504");
    client.0.stream.shutdown(std::net::Shutdown::Both).ok();
    let sent = sender.join().expect("no panic");
    assert!(sent < IN_FLIGHT, "{sent} bytes were taken from the client");
}

#[test]
fn a_server_that_resets_in_mid_body_is_not_mistaken_for_one_that_is_done() {
    for (answer, is_reset) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true),
    ] {
        let origin = Origin::saying_and_resetting(answer);
        let balancer = in_front_of(&origin);
        let mut client = balancer.client();
        client.send(GET);
        let rest = client.rest();
        assert_eq!(rest.is_err(), is_reset, "{answer:?}: {rest:?}");
        assert!(balancer.log_line(0).ends_with(" fault=server-cut\n"), "{answer:?}");
    }
}

#[test]
fn a_server_that_resets_before_its_answer_is_a_bad_gateway() {
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let origin = Origin::saying_and_resetting(answer);
        let balancer = in_front_of(&origin);
        assert_eq!(balancer.client().get("/").status(), 502, "{answer:?}");
    }
}

#[test]
fn heads_interims_and_trailers_without_end_end() {
    for (start, more, status) in [
        ("HTTP/1.1 200 OK\r\n", "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 502),
        ("HTTP/1.1 200 OK\r\nX: ", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", 502),
        ("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 502),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            "X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n",
            200,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "yyyyyyyyyyyyyyyyyyyyyyyyyy", 200),
    ] {
        let (origin, said) = Origin::saying_without_end(start, more);
        let balancer = in_front_of(&origin);
        let mut client = balancer.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8_lossy(&client.rest_of_any_end()).into_owned();
        let last = answer.rmatch_indices("HTTP/1.1 ").next().map(|(at, _)| &answer[at + 9..at + 12]);
        // A chunked answer may be refused before or after its head has been relayed.
        assert!(last == Some(&*status.to_string()) || last == Some("502"), "{start:?}: {last:?}");
        let line = balancer.log_line(0);
        assert!(line.ends_with(" fault=bad-response\n"), "{line}");
        assert!(said.load(Ordering::Relaxed) < IN_FLIGHT);
    }
}

#[test]
fn an_early_answer_to_a_body_that_never_ends_reaches_its_client() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut server = connections.recv_timeout(PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    server.stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").expect("write");
    let response = client.response();
    assert_eq!((response.status(), response.header("connection")), (403, Some("close")));
    for _ in 0..20 {
        client.send("5\r\nhello\r\n");
    }
    client.expect_end();
    assert_eq!(balancer.stats().upstream_reuses, 0);
}

#[test]
fn a_second_answer_is_nobodys_and_late_bytes_are_not_either() {
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    for round in 0..3 {
        client.send(GET);
        let mut server = connections.recv_timeout(PATIENCE).expect("a connection of its own");
        server.head().expect("read").expect("head");
        server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("write");
        assert_eq!(client.response().text(), "ok", "round {round}");
        // When the connection lies idle already.
        server.stream.write_all(second.as_bytes()).expect("write");
        // Until the balancer has seen it and closed. A request that comes within microseconds may be faster, as it may
        // be faster than a server's own close.
        let _ = server.rest();
    }
    assert_eq!(balancer.stats().upstream_reuses, 0);
}

#[test]
fn a_client_that_leaves_while_it_is_answered_frees_its_server() {
    let more: &str = Box::leak("x".repeat(10_000).into_boxed_str());
    let (origin, _) = Origin::saying_without_end("HTTP/1.1 200 OK\r\n\r\n", more);
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send(GET);
    assert_eq!(client.response_to_head().status(), 200);
    drop(client);
    wait_for("its end", || (balancer.stats().connections_active == 0).then_some(()));
    assert_eq!(balancer.service.servers[0].in_flight.load(Ordering::Relaxed), 0);
}

#[test]
fn cookies_of_any_kind_are_answered_and_so_is_whoever_comes_next() {
    let origin = Origin::named("s1");
    let flags = ["--persist", "cookie=SRV", "--persist", "session=JS", "--persist", "route=JS"];
    let balancer = Builder::of_flags(&flags).server(origin.address).start();
    let names: String = (0..1500).map(|n| format!("n{n}=; ")).collect();
    let expect = |cookie: String, status: u16| {
        let mut client = balancer.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
        assert_eq!(client.response().status(), status, "{cookie:.40?}");
        assert_eq!(balancer.client().get_with_cookie("SRV=s1").text(), "s1");
    };
    expect(names, 200);
    expect("SRV=zz; JS=; ".repeat(1000), 200);
    expect(format!("JS={}", "x".repeat(15_000)), 200);
    expect("SRV=~; SRV=|; JS=~|.; JS=.; JS==; ; =".into(), 200);
    expect("SRV=s1\u{0}".into(), 400);
    expect("SRV=s1\u{7f}".into(), 400);
    // A megabyte is refused before all of it has been taken, so the refusal itself may be lost in a reset.
    let mut client = balancer.client();
    let cookie = "SRV=s1; ".repeat(1 << 17);
    let _ = client
        .0
        .stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n").as_bytes());
    let answer = client.rest_of_any_end();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    expect("SRV=s1".into(), 200);
}
