//! Messages and connections: what passes, in what form, and what is refused.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::balancer::{Balancer, Builder, wait_for};
use super::origin::Origin;

fn in_front_of(origin: &Origin) -> Balancer {
    Builder::new([]).server(origin.address).start()
}

#[test]
fn a_connection_serves_one_request_after_the_other_and_so_does_the_servers() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    for n in 0..5 {
        let response = client.get(&format!("/{n}"));
        assert_eq!((response.text().as_str(), response.header("connection")), ("s1", None));
        assert_eq!(origin.request().start, format!("GET /{n} HTTP/1.1"));
    }
    assert_eq!((balancer.stats().upstream_connects, balancer.stats().upstream_reuses), (1, 4));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(|request| {
        format!("HTTP/1.1 200 OK\r\nX-For: {}\r\nContent-Length: 0\r\n\r\n", request.start)
    });
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    for expected in ["GET /1 HTTP/1.1", "POST /2 HTTP/1.1", "GET /3 HTTP/1.1"] {
        assert_eq!(client.response().header("x-for"), Some(expected));
    }
    assert_eq!(origin.request().body, b"");
    assert_eq!(origin.request().body, b"abc");
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let request =
        "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n";
    let mut client = balancer.client();
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().text(), "s1");
    let seen = origin.request();
    assert_eq!(
        (seen.start.as_str(), seen.text().as_str()),
        ("POST /a HTTP/1.1", "3;x=y\r\nabc\r\n0\r\n\r\n")
    );
}

#[test]
fn chunked_bodies_pass_both_ways_and_the_connection_goes_on() {
    let origin = Origin::answering(|request| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", request.text())
    });
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let response = client.response();
        assert_eq!((response.header("transfer-encoding"), response.text().as_str()), (Some("chunked"), body));
    }
}

#[test]
fn large_bodies_pass_both_ways_through_small_buffers() {
    let origin = Origin::answering(|request| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", request.body.len(), request.text())
    });
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    let body: String = (0..300_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert!(client.response().text() == body);
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn the_answer_to_head_has_a_length_and_no_body() {
    let origin = Origin::answering(|_| "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".into());
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    for _ in 0..2 {
        let response = client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").response_to_head();
        assert_eq!((response.status(), response.header("content-length")), (200, Some("1000")));
    }
}

#[test]
fn interim_responses_reach_1_1_clients_in_time_and_1_0_clients_never() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    assert_eq!(server.head().expect("read").expect("head").header("expect"), Some("100-continue"));
    server
        .stream
        .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        .expect("write");
    assert_eq!(client.response_to_head().status(), 100);
    assert_eq!(client.response_to_head().header("link"), Some("</a>"));
    client.send("hello");
    server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("write");
    assert_eq!(client.response().status(), 200);

    let mut old = balancer.client();
    old.send("GET / HTTP/1.0\r\n\r\n");
    server.head().expect("read").expect("the same connection, used again");
    server
        .stream
        .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        .expect("write");
    assert_eq!(old.response().status(), 200);
}

#[test]
fn a_1_0_client_gets_the_content_without_chunks_and_then_the_end() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".into()
    });
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let answer = String::from_utf8(client.rest().expect("an orderly end")).expect("text");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world");
    let mut client = balancer.client();
    let head = client.send("HEAD / HTTP/1.0\r\n\r\n").response_to_head();
    assert_eq!(head.header("transfer-encoding"), None);
}

#[test]
fn a_1_0_client_keeps_its_connection_if_it_asks() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    let response = client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!(response.header("connection"), Some("keep-alive"));
    assert_eq!(origin.request().header("host"), Some(&*balancer.address.to_string()));
    let response = client.send("GET / HTTP/1.0\r\n\r\n").response();
    assert_eq!(response.header("connection"), Some("close"));
    client.expect_end();
}

#[test]
fn an_answer_without_length_ends_with_the_connection() {
    let origin = Origin::saying_and_closing("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = String::from_utf8(client.rest().expect("an orderly end")).expect("text");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
}

#[test]
fn an_early_answer_does_not_wait_for_the_body() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nonly the beginning");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    server.stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").expect("write");
    let response = client.response();
    assert_eq!((response.status(), response.header("connection")), (413, Some("close")));
    client.expect_end();
}

#[test]
fn malformed_requests_are_refused_with_their_status_and_nothing_is_passed_on() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let long = "x".repeat(20_000);
    let many = "X: y\r\n".repeat(200);
    let post = "POST / HTTP/1.1\r\nHost: a\r\n";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    let table = [
        (400, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into()),
        (400, "GET / HTTP/1.1\nHost: a\n\n".into()),
        (400, "GET / HTTP/1.1\r\n\r\n".into()),
        (400, format!("{get}Host: b\r\n\r\n")),
        (400, format!("{get}X : y\r\n\r\n")),
        (400, format!("{get}X: y\r\n folded\r\n\r\n")),
        (400, format!("{get}X: a\0b\r\n\r\n")),
        (400, format!("{get}X: a\rb\r\n\r\n")),
        (400, format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")),
        (400, format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")),
        (400, format!("{post}Content-Length: +5\r\n\r\nhello")),
        (400, format!("{post}Content-Length: 5,5\r\n\r\nhello")),
        (400, format!("{post}Content-Length:\r\n\r\n")),
        (400, format!("{post}Content-Length: 99999999999999999999\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n")),
        (400, format!("{post}Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n")),
        (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into()),
        (405, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, format!("{get}X: {long}\r\n\r\n")),
        (431, format!("{get}{many}\r\n")),
        (501, format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into()),
    ];
    for (line, (status, request)) in table.iter().enumerate() {
        let mut client = balancer.client();
        let response = client.send(request).response();
        assert_eq!(
            (response.status(), response.header("connection")),
            (*status, Some("close")),
            "{request:?}"
        );
        client.expect_end();
        let logged = balancer.log_line(line);
        assert!(logged.contains(&format!(" - <bad-request> {status} 0 ")), "{logged}");
        assert!(logged.ends_with(" - -- persist=- fault=bad-request\n"), "{logged}");
    }
    origin.expect_no_request();
    assert_eq!(balancer.stats().upstream_connects, 0);
}

#[test]
fn a_body_that_turns_malformed_stops_before_the_fault() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    client.send("0\r\nX: y\n\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status(), 400);
    client.expect_end();
    let seen = server.rest().expect("an end");
    assert_eq!(String::from_utf8_lossy(&seen), "3\r\nabc\r\n");
}

#[test]
fn trailers_pass_unless_they_belong_into_a_head() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    let good = "3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n";
    let mut client = balancer.client();
    client.send(format!("{head}{good}"));
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    let seen = server.head().expect("read").expect("head");
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("TE")));
    assert_eq!(server.exactly(good.len()).expect("read"), good.as_bytes());
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{good}");
    server.stream.write_all(answer.as_bytes()).expect("write");
    assert_eq!(client.0.head().expect("read").expect("head").status(), 200);
    assert_eq!(client.0.exactly(good.len()).expect("read"), good.as_bytes());

    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nCookie: SRV=s1\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    client.expect_end();
    let bad = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nset-Cookie: a=b\r\n\r\n";
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.head().expect("read").expect("the same connection: it has seen nothing of what was refused");
    server.stream.write_all(bad.as_bytes()).expect("write");
    assert_eq!(client.response().status(), 502);
}

#[test]
fn a_hostile_target_cannot_forge_a_log_line() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    balancer.client().get("/\"a\\b%0a");
    let line = balancer.log_line(0);
    assert!(line.contains(r#" GET /"a\x5cb%0a 200 2 "#), "{line}");
}

#[test]
fn a_hand_over_keeps_idle_connections_until_their_next_answer() {
    let origin = Origin::named("s1");
    let mut balancer = in_front_of(&origin);
    let (mut idle, mut fresh) = (balancer.client(), balancer.client());
    assert_eq!(idle.get("/").header("connection"), None);
    wait_for("both", || (balancer.stats().connections == 2).then_some(()));
    balancer.hand_over();
    // Longer than a drain leaves to those who have not said anything yet; nothing could be waited for.
    std::thread::sleep(Duration::from_millis(1500));
    for client in [&mut idle, &mut fresh] {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.header("connection")), ("s1", Some("close")));
        client.expect_end();
    }
    drop((idle, fresh));
    balancer.expect_end();
}

#[test]
fn a_drain_ends_idle_connections_and_lets_requests_finish() {
    let (origin, connections) = Origin::by_hand();
    let mut balancer = in_front_of(&origin);
    let (mut idle, mut busy) = (balancer.client(), balancer.client());
    let mut servers = Vec::new();
    for (client, answers) in [(&mut idle, true), (&mut busy, false)] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if answers {
            let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
            server.head().expect("read").expect("head");
            server
                .stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .expect("write");
            assert_eq!(client.response().status(), 200);
        } else {
            servers.push(connections.recv_timeout(super::PATIENCE).expect("connection"));
        }
    }
    servers[0].head().expect("read").expect("head");
    balancer.drain();
    idle.expect_end();
    servers[0].stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("write");
    let response = busy.response();
    assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
    busy.expect_end();
    drop(busy);
    balancer.expect_end();
}

#[test]
fn counters_tell_what_happened() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.get("/");
    balancer.client().send("BAD\r\n\r\n").response();
    let stats = wait_for("the second line", || {
        let stats = balancer.stats();
        (stats.responses_4xx == 1).then_some(stats)
    });
    assert_eq!((stats.connections, stats.requests, stats.responses_2xx, stats.errors), (2, 2, 1, 1));
    let server = &balancer.service.servers[0];
    assert_eq!((server.requests.load(Ordering::Relaxed), server.in_flight.load(Ordering::Relaxed)), (1, 0));
    drop(client);
    wait_for("the end of both", || (balancer.stats().connections_active == 0).then_some(()));
}
