//! WebSockets, and what must not become one.

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use balancer::config::Timeouts;

use super::balancer::{Balancer, Builder, cookie};
use super::client::Client;
use super::origin::Origin;
use super::{PATIENCE, Reader};

pub const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub const GRANT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// `Hello` in a frame, as a client and as a server send it (RFC 6455 §5.7).
const MASKED: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const UNMASKED: &[u8] = b"\x81\x05\x48\x65\x6c\x6c\x6f";

/// A balancer in front of one server that the test plays.
struct Stage {
    balancer: Balancer,
    connections: Receiver<Reader>,
    _origin: Origin,
}

impl Stage {
    fn new(timeouts: impl FnOnce(&mut Timeouts)) -> Self {
        let (origin, connections) = Origin::by_hand();
        let balancer = Builder::new([cookie()]).server(origin.address).timeouts(timeouts).start();
        Self { balancer, connections, _origin: origin }
    }

    fn server(&self) -> Reader {
        self.connections.recv_timeout(PATIENCE).expect("connection")
    }

    /// Both ends of an open tunnel.
    fn tunnel(&self) -> (Client, Reader) {
        let mut client = self.balancer.client();
        client.send(ASK);
        let mut server = self.server();
        server.head().expect("read").expect("head");
        server.stream.write_all(GRANT.as_bytes()).expect("write");
        assert_eq!(client.response_to_head().status(), 101);
        (client, server)
    }
}

#[test]
fn a_websocket_is_a_tunnel_after_the_servers_101() {
    let stage = Stage::new(|_| {});
    let mut client = stage.balancer.client();
    client.send(ASK);
    let mut server = stage.server();
    let asked = server.head().expect("read").expect("head");
    assert_eq!((asked.header("connection"), asked.header("upgrade")), (Some("Upgrade"), Some("websocket")));
    assert_eq!(asked.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(asked.header("sec-websocket-version"), Some("13"));
    server.stream.write_all(&[GRANT.as_bytes(), UNMASKED].concat()).expect("write");
    let granted = client.response_to_head();
    assert_eq!(granted.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(
        (granted.header("connection"), granted.header("upgrade")),
        (Some("Upgrade"), Some("websocket"))
    );
    assert_eq!(granted.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(granted.header("set-cookie"), Some("SRV=s1; path=/"), "the session starts here");
    assert_eq!(client.0.exactly(UNMASKED.len()).expect("read"), UNMASKED);
    for _ in 0..3 {
        client.send(MASKED);
        assert_eq!(server.exactly(MASKED.len()).expect("read"), MASKED);
        server.stream.write_all(UNMASKED).expect("write");
        assert_eq!(client.0.exactly(UNMASKED.len()).expect("read"), UNMASKED);
    }
    drop(server);
    client.expect_end();
    drop(client);
    let line = stage.balancer.log_line(0);
    assert!(line.contains(&format!(" GET /chat 101 {} ", 4 * UNMASKED.len())), "{line}");
    assert!(line.ends_with(" s1 NI persist=cookie:miss,balance>s1\n"), "{line}");
}

#[test]
fn much_passes_both_ways_at_once() {
    const MUCH: usize = 8 * 1024 * 1024;
    let stage = Stage::new(|_| {});
    let (client, server) = stage.tunnel();
    let pattern = |seed: usize| -> Vec<u8> { (0..MUCH).map(|n| (n * 31 / 7 + seed) as u8).collect() };
    let ends = [(client.0, pattern(1), pattern(2)), (server, pattern(2), pattern(1))];
    let busy = ends.map(|(mut end, sent, expected)| {
        let mut writer = end.stream.try_clone().expect("clone");
        let writes = thread::spawn(move || writer.write_all(&sent).expect("write"));
        thread::spawn(move || {
            assert!(end.exactly(MUCH).expect("read") == expected, "something was changed on the way");
            writes.join().expect("no panic");
        })
    });
    for thread in busy {
        thread.join().expect("no panic");
    }
}

#[test]
fn what_the_client_sends_early_is_held_back_until_the_101() {
    let stage = Stage::new(|_| {});
    let mut client = stage.balancer.client();
    client.send([ASK.as_bytes(), MASKED].concat());
    let mut server = stage.server();
    server.head().expect("read").expect("head");
    server.stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").expect("write");
    assert_eq!(client.response_to_head().status(), 103);
    assert!(server.held.is_empty());
    server.stream.set_nonblocking(true).expect("option");
    server.more().expect_err("nothing has come");
    server.stream.set_nonblocking(false).expect("option");
    server.stream.write_all(GRANT.as_bytes()).expect("write");
    assert_eq!(server.exactly(MASKED.len()).expect("read"), MASKED);
    assert_eq!(client.response_to_head().status(), 101);
}

#[test]
fn an_ordinary_answer_leaves_ordinary_connections() {
    let origin = Origin::named("s1");
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    client.send(format!("{ASK}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
    for start in ["GET /chat HTTP/1.1", "GET /next HTTP/1.1"] {
        assert_eq!(client.response().text(), "s1");
        assert_eq!(origin.request().start, start);
    }
    assert_eq!((balancer.stats().upstream_connects, balancer.stats().upstream_reuses), (1, 1));
}

#[test]
fn no_other_protocol_is_asked_for() {
    let origin = Origin::named("s1");
    let balancer = Builder::new([]).server(origin.address).start();
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let tls = "Connection: upgrade\r\nUpgrade: TLS/1.0\r\n";
    let choice = "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n";
    let unsaid = "Upgrade: websocket\r\n";
    let mut client = balancer.client();
    for headers in [h2c, tls, choice, unsaid] {
        assert_eq!(client.get_with("/", headers).text(), "s1", "{headers}");
        let seen = origin.request();
        for name in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(seen.header(name), None, "{headers}");
        }
    }
    let old = "GET / HTTP/1.0\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(client.send(old).response().text(), "s1");
    assert_eq!(origin.request().header("upgrade"), None);
}

#[test]
fn a_101_that_was_not_asked_for_is_a_bad_gateway() {
    let plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let to_h2c = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nsecret";
    let to_nothing = "HTTP/1.1 101 S\r\n\r\nsecret";
    for (request, answer) in [(plain, GRANT), (h2c, GRANT), (h2c, to_h2c), (ASK, to_h2c), (ASK, to_nothing)] {
        let origin = Origin::saying_and_closing(answer);
        let balancer = Builder::new([cookie()]).server(origin.address).start();
        let mut client = balancer.client();
        let response = client.send(request).response();
        assert_eq!((response.status(), response.header("set-cookie")), (502, None), "{request} {answer}");
        client.0.stream.shutdown(Shutdown::Write).expect("shutdown");
        client.expect_end();
        assert!(balancer.log_line(0).ends_with(" fault=bad-response\n"));
    }
}

#[test]
fn each_side_may_end_while_the_other_goes_on() {
    let stage = Stage::new(|_| {});
    let (mut client, mut server) = stage.tunnel();
    client.send("bye").0.stream.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(server.rest().expect("an end"), b"bye");
    server.stream.write_all(b"later").expect("write");
    assert_eq!(client.0.exactly(5).expect("read"), b"later");
    drop(server);
    client.expect_end();

    let (mut client, mut server) = stage.tunnel();
    server.stream.write_all(b"bye").expect("write");
    server.stream.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(client.rest().expect("an end"), b"bye");
    client.send("later");
    assert_eq!(server.exactly(5).expect("read"), b"later");
    drop(client);
    assert!(server.rest().expect("an end").is_empty());
    for line in 0..2 {
        assert!(stage.balancer.log_line(line).contains(" GET /chat 101 "));
        assert!(!stage.balancer.log_line(line).contains("fault="));
    }
}

#[test]
fn a_side_that_fails_fails_the_other() {
    let stage = Stage::new(|_| {});
    let (mut client, server) = stage.tunnel();
    server.reset();
    client.rest().expect_err("not an end");
    assert!(stage.balancer.log_line(0).ends_with(" fault=server-cut\n"));

    let (client, mut server) = stage.tunnel();
    client.0.reset();
    assert!(server.rest().expect("an end").is_empty());
    assert!(stage.balancer.log_line(1).ends_with(" fault=client-gone\n"));
}

#[test]
fn a_byte_in_either_direction_keeps_a_tunnel_open() {
    let stage = Stage::new(|timeouts| {
        timeouts.tunnel = Duration::from_secs(4);
        timeouts.client = Duration::from_secs(1);
        timeouts.server = Duration::from_secs(1);
    });
    let (mut client, mut server) = stage.tunnel();
    for round in 0..4 {
        thread::sleep(Duration::from_millis(1200));
        if round % 2 == 0 {
            client.send("u");
            assert_eq!(server.exactly(1).expect("read"), b"u");
        } else {
            server.stream.write_all(b"d").expect("write");
            assert_eq!(client.0.exactly(1).expect("read"), b"d");
        }
    }
    client.expect_end();
    assert!(server.rest().expect("an end").is_empty());
    assert!(stage.balancer.log_line(0).ends_with(" fault=tunnel-silent\n"));
}

#[test]
fn a_drain_lets_tunnels_go_on() {
    let mut stage = Stage::new(|_| {});
    let (mut client, mut server) = stage.tunnel();
    stage.balancer.drain();
    for _ in 0..3 {
        client.send(MASKED);
        assert_eq!(server.exactly(MASKED.len()).expect("read"), MASKED);
        server.stream.write_all(UNMASKED).expect("write");
        assert_eq!(client.0.exactly(UNMASKED.len()).expect("read"), UNMASKED);
    }
    drop(client);
    assert!(server.rest().expect("an end").is_empty());
    drop(server);
    stage.balancer.expect_end();
}
