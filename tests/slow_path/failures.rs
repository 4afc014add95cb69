//! Servers that fail, and clients that leave.

use std::io::Write;
use std::time::Duration;

use super::balancer::{Balancer, Builder, cookie, wait_for};
use super::origin::{Origin, refusing};

fn in_front_of(origin: &Origin) -> Balancer {
    Builder::new([cookie()]).server(origin.address).start()
}

#[test]
fn a_server_that_closes_in_mid_body_is_not_mistaken_for_one_that_is_done() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
    let origin = Origin::saying_and_closing(whole);
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = String::from_utf8(client.rest().expect("an end")).expect("text");
    assert!(answer.contains("Content-Length: 100\r\n") && answer.ends_with("\r\n\r\nonly this"), "{answer}");
    assert!(balancer.log_line(0).contains(" GET / 200 9 "));
    assert!(balancer.log_line(0).ends_with(" fault=server-cut\n"));
    assert_eq!(balancer.stats().aborted, 1);
}

#[test]
fn a_server_that_closes_in_mid_chunks_leaves_them_without_an_end() {
    let origin =
        Origin::saying_and_closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = String::from_utf8(client.rest().expect("an end")).expect("text");
    assert!(answer.ends_with("\r\n\r\n5\r\nhello\r\n"), "{answer}");
}

#[test]
fn chunks_that_break_off_are_a_reset_for_a_1_0_client() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    server
        .stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .expect("write");
    assert_eq!(client.0.head().expect("read").map(|head| head.status()), Some(200));
    drop(server);
    client.rest().expect_err("an end would look like the end of the content");
}

#[test]
fn an_idle_connection_that_the_server_has_closed_is_not_noticed_by_the_client() {
    let (origin, closed) = Origin::closing_idle_connections("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    for method in ["GET", "POST", "GET"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.response().text(), "s1", "{method}");
        closed.recv_timeout(super::PATIENCE).expect("the server closes");
    }
}

#[test]
fn a_connection_that_closes_under_a_request_is_retried_if_the_method_allows() {
    let origin = Origin::closing_on_the_second_request("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    assert_eq!(client.get("/1").text(), "s1");
    assert_eq!(client.get("/2").text(), "s1", "retried on a new connection");
    let post = "POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let response = client.send(post).response();
    assert_eq!(
        (response.status(), response.header("set-cookie")),
        (502, None),
        "nobody knows whether it was done"
    );
    assert!(balancer.log_line(2).ends_with(" fault=server-closed\n"));
}

#[test]
fn a_body_that_was_kept_is_sent_again_whole_and_one_that_was_not_is_not() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let bodies = [
        (format!("Content-Length: 64000\r\n\r\n{}", "y".repeat(64_000)), 64_000, 200),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(30_000), chunk(20_000)),
            50_021,
            200,
        ),
        (format!("Content-Length: 100000\r\n\r\n{}", "z".repeat(100_000)), 100_000, 502),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(60_000), chunk(60_000)),
            120_021,
            502,
        ),
    ];
    for (sent, length, expected) in bodies {
        let mut client = balancer.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut first = connections.recv_timeout(super::PATIENCE).expect("connection");
        first.head().expect("read").expect("head");
        first.stream.write_all(ok.as_bytes()).expect("write");
        assert_eq!(client.response().status(), 200);
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{sent}"));
        first.head().expect("read").expect("the same connection");
        let body = first.exactly(length).expect("read");
        drop(first);
        if expected == 200 {
            let mut second = connections.recv_timeout(super::PATIENCE).expect("connection");
            second.head().expect("read").expect("head");
            assert!(second.exactly(length).expect("read") == body, "the body is another the second time");
            second
                .stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .expect("write");
        }
        assert_eq!(client.response().status(), expected);
    }
}

#[test]
fn what_is_not_http_is_a_bad_gateway() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let origin = Origin::saying_and_closing(garbage);
        let balancer = in_front_of(&origin);
        let mut client = balancer.client();
        let response = client.get("/");
        assert_eq!((response.status(), response.header("set-cookie")), (502, None), "{garbage:?}");
        assert!(balancer.log_line(0).ends_with(" fault=bad-response\n"), "{garbage:?}");
    }
}

#[test]
fn a_server_that_closes_without_an_answer_is_a_bad_gateway() {
    for nothing in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let origin = Origin::saying_and_closing(nothing);
        let balancer = in_front_of(&origin);
        let response = balancer.client().get("/");
        assert_eq!((response.status(), response.header("set-cookie")), (502, None), "{nothing:?}");
    }
}

#[test]
fn bytes_after_an_answer_belong_to_nobody() {
    let origin = Origin::answering(|_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
            .into()
    });
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(balancer.stats().upstream_reuses, 0);
}

#[test]
fn a_silent_server_is_a_gateway_time_out() {
    let origin = Origin::silent();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.server = Duration::from_millis(200)).start();
    let response = balancer.client().get("/");
    assert_eq!(response.status(), 504);
    assert!(balancer.log_line(0).ends_with(" fault=server-silent\n"));
}

#[test]
fn a_slow_head_is_a_request_time_out_and_a_silent_client_is_let_go() {
    let origin = Origin::named("s1");
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder
        .timeouts(|timeouts| {
            timeouts.request = Duration::from_millis(200);
            timeouts.keepalive = Duration::from_millis(400);
        })
        .start();
    let mut slow = balancer.client();
    assert_eq!(slow.send("GET / HT").response().status(), 408);
    slow.expect_end();
    assert!(balancer.log_line(0).ends_with(" fault=slow-head\n"));
    balancer.client().expect_end();
}

#[test]
fn a_body_that_stops_coming_is_a_request_time_out() {
    let origin = Origin::silent();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.client = Duration::from_millis(200)).start();
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response().status(), 408);
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_client_that_is_told_late_to_go_on_is_not_a_slow_one() {
    let (origin, connections) = Origin::by_hand();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.client = Duration::from_secs(2)).start();
    let mut client = balancer.client();
    client.send(EXPECTING);
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    server.stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").expect("write");
    assert_eq!(client.response_to_head().status(), 103);
    std::thread::sleep(Duration::from_millis(2500));
    server.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("write");
    assert_eq!(client.response_to_head().status(), 100);
    client.send("hello");
    server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("write");
    assert_eq!(client.response().status(), 200);

    client.send(EXPECTING);
    server.head().expect("read").expect("head");
    server.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("write");
    assert_eq!(client.response_to_head().status(), 100);
    assert_eq!(client.response().status(), 408, "now it is the client's turn");
}

#[test]
fn a_server_that_does_not_say_go_on_is_silent() {
    let (origin, _connections) = Origin::by_hand();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder
        .timeouts(|timeouts| {
            timeouts.client = Duration::from_millis(100);
            timeouts.server = Duration::from_millis(400);
        })
        .start();
    let response = balancer.client().send(EXPECTING).response();
    assert_eq!(response.status(), 504);
    assert!(balancer.log_line(0).ends_with(" fault=server-silent\n"));
}

#[test]
fn a_client_that_leaves_in_mid_body_takes_its_request_along() {
    let (origin, connections) = Origin::by_hand();
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    drop(client);
    assert_eq!(server.rest().expect("an end"), b"half");
    assert!(balancer.log_line(0).contains(" POST / - 0 "));
    assert!(balancer.log_line(0).ends_with(" fault=client-gone\n"));
}

#[test]
fn a_client_that_has_only_ended_its_side_is_answered() {
    let origin = Origin::named("s1");
    let balancer = in_front_of(&origin);
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.0.stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(client.response().text(), "s1");
    client.expect_end();
}

#[test]
fn an_early_answer_does_not_cut_off_a_request_that_the_server_goes_on_reading() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n").send(vec![b'x'; 1000]);
    let mut server = connections.recv_timeout(super::PATIENCE).expect("asked");
    server.head().expect("read").expect("a request");
    server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
    assert_eq!(client.response().text(), "ok");
    client.send(vec![b'x'; 2000]);
    client.expect_end();
    let mut next = balancer.client();
    next.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    // All of the body, then the next request on the same connection.
    assert_eq!(server.bytes(3000).expect("the whole body"), vec![b'x'; 3000]);
    assert!(server.head().expect("read").expect("a request").start.starts_with("GET /next "));
    server.stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("sent");
    assert_eq!(next.response().status(), 204);
}

#[test]
fn a_body_that_a_bodiless_answer_should_not_have_is_nobodys_answer() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = connections.recv_timeout(super::PATIENCE).expect("asked");
    first.head().expect("read").expect("a request");
    first.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").expect("sent");
    assert_eq!(client.response_to_head().status(), 200);
    // The connection is kept by now. The reactor may not have seen what comes next, the kernel has.
    first.stream.write_all(b"EVIL").expect("sent");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut second = connections.recv_timeout(super::PATIENCE).expect("another connection");
    second.head().expect("read").expect("a request");
    second.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").expect("sent");
    assert_eq!(client.response().text(), "good");
}

#[test]
fn whoever_is_cut_off_at_the_end_of_a_drain_can_tell_and_is_in_the_log() {
    let (origin, connections) = Origin::by_hand();
    let mut balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = connections.recv_timeout(super::PATIENCE).expect("asked");
    server.head().expect("read").expect("a request");
    server.stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nonly this").expect("sent");
    assert_eq!(client.0.bytes(8).expect("the head"), b"HTTP/1.1");
    balancer.drain();
    balancer.cut_off();
    balancer.expect_end();
    assert!(client.rest().is_err(), "an answer that the end of the connection ends must not look complete");
    assert!(balancer.log_line(0).ends_with(" fault=cut-off\n"), "{}", balancer.log_line(0));
}

#[test]
fn a_user_stays_with_a_server_that_is_back_before_the_pause_is_over() {
    let address = refusing();
    let builder = Builder::new([cookie()]).server(address).server(refusing());
    let balancer = builder.no_redispatch().retry_pause(Duration::from_secs(3)).start();
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: SRV=s1\r\n\r\n");
    wait_for("the first attempt to fail", || (balancer.stats().retries == 1).then_some(()));
    let _back = Origin::named_at("s1", address);
    assert_eq!(client.response().text(), "s1");
}

#[test]
fn a_request_that_nothing_binds_does_not_insist_on_a_server_that_refuses() {
    let s2 = Origin::named("s2");
    let balancer = Builder::new([]).server(refusing()).server(s2.address).start();
    assert_eq!(balancer.client().get("/").text(), "s2");
    assert_eq!((balancer.stats().retries, balancer.stats().redispatches), (1, 1));
}
