//! Clients whose server takes its time.

use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::PATIENCE;
use super::balancer::Builder;
use super::origin::Origin;

/// Long enough for the balancer to look at the client.
const A_WHILE: Duration = Duration::from_millis(500);

#[test]
fn a_client_that_resets_frees_its_server() {
    for said in ["", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"] {
        let (origin, connections) = Origin::by_hand();
        let balancer = Builder::new([]).server(origin.address).start();
        let mut client = balancer.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let mut server = connections.recv_timeout(PATIENCE).expect("connection");
        server.message(true).expect("read").expect("message");
        server.stream.write_all(said.as_bytes()).expect("write");
        if !said.is_empty() {
            client.0.head().expect("read").expect("head");
            client.0.exactly(6).expect("read");
        }
        client.0.reset();
        assert!(server.rest().expect("an end").is_empty());
        assert!(balancer.log_line(0).ends_with(" fault=client-gone\n"));
    }
}

#[test]
fn a_client_that_has_ended_its_side_is_answered_however_long_it_takes() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    client.send("GET / HTTP/1.0\r\n\r\n").0.stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut server = connections.recv_timeout(PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    thread::sleep(A_WHILE);
    server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").expect("write");
    thread::sleep(A_WHILE);
    server.stream.write_all(b"ok").expect("write");
    assert_eq!(client.response().text(), "ok");
    client.expect_end();
    assert!(!balancer.log_line(0).contains("fault="));
}

#[test]
fn requests_that_come_meanwhile_wait_their_turn() {
    const MANY: usize = 3000;
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    let mut requests = String::new();
    for n in 0..MANY {
        requests.push_str(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = connections.recv_timeout(PATIENCE).expect("connection");
    server.head().expect("read").expect("head");
    client.send(requests);
    thread::sleep(A_WHILE);
    let serve = thread::spawn(move || {
        server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("write");
        for n in 0..MANY {
            let request = server.head().expect("read").expect("head");
            assert_eq!(request.start, format!("GET /{n} HTTP/1.1"));
            server.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("write");
        }
    });
    for _ in 0..=MANY {
        assert_eq!(client.response().status(), 200);
    }
    serve.join().expect("no panic");
}

#[test]
fn a_server_that_is_silent_with_its_client_watching_is_still_a_time_out() {
    let (origin, connections) = Origin::by_hand();
    let builder = Builder::new([]).server(origin.address);
    let balancer = builder.timeouts(|timeouts| timeouts.server = Duration::from_millis(600)).start();
    let start = std::time::Instant::now();
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let _server = connections.recv_timeout(PATIENCE).expect("connection");
    assert_eq!(client.response().status(), 504);
    let took = start.elapsed();
    assert!((600..60_000).contains(&took.as_millis()), "{took:?}");
}
