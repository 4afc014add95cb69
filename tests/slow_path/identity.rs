//! Who the client is, who says so, and who may be one.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use balancer::cidr::{AddressSet, Cidr};
use balancer::http::forwarded::Style;
use balancer::proxy_protocol::{self, Addresses, Version};

use super::balancer::{Builder, cookie, source, wait_for};
use super::client::Client;
use super::origin::{Origin, refusing};
use super::{Message, PATIENCE, Reader};

pub fn set(blocks: &[&str]) -> AddressSet {
    blocks.iter().map(|block| Cidr::parse(block).expect(block)).collect()
}

pub fn header(version: Version, source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (source.parse().expect(source), destination.parse().expect(destination));
    let mut bytes = Vec::new();
    proxy_protocol::write(&mut bytes, version, Some(Addresses { source, destination }));
    bytes
}

/// Everything of a connection until its end, whatever kind of end that is.
pub fn until_end(client: &mut Client) -> Vec<u8> {
    client.rest().unwrap_or_default()
}

/// The PROXY header that a server's connection starts with.
pub fn greeting(connection: &mut Reader) -> proxy_protocol::Header {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        assert_eq!(connection.stream.read(&mut byte).expect("a byte"), 1, "it ends after {bytes:?}");
        bytes.push(byte[0]);
        if let Some((header, length)) = proxy_protocol::parse(&bytes).expect("a header") {
            assert_eq!(length, bytes.len());
            return header;
        }
    }
}

fn answer(connection: &mut Reader) -> Message {
    let request = connection.message(true).expect("read").expect("a request");
    connection.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("answered");
    request
}

#[test]
fn a_trusted_proxy_says_who_the_client_is_for_log_table_and_headers() {
    for version in [Version::V1, Version::V2] {
        let origin = Origin::named("s1");
        let balancer = Builder::new([source()])
            .server(origin.address)
            .identity(|identity| {
                identity.accept_proxy = set(&["127.0.0.0/8"]);
                identity.forwarded = Some(Style::XForwarded);
            })
            .start();
        let mut client = balancer.client();
        client.send(header(version, "192.0.2.7:4711", "198.51.100.1:8443"));
        assert_eq!(
            client.get_with("/", "X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n").text(),
            "s1"
        );
        assert_eq!(client.get("/again").text(), "s1", "one header a connection");
        for chain in ["10.9.9.9, 192.0.2.7", "192.0.2.7"] {
            let request = origin.request();
            assert_eq!(request.header("x-forwarded-for"), Some(chain));
            assert_eq!(request.header("x-forwarded-proto"), Some("http"));
            assert_eq!(request.header("x-forwarded-host"), Some("test"));
            assert_eq!(request.header("x-forwarded-port"), Some("8443"));
        }
        assert!(balancer.log_line(0).contains(" 192.0.2.7:4711 GET / 200 "), "{}", balancer.log_line(0));
        assert!(balancer.entry("192.0.2.7").is_some() && balancer.entry("127.0.0.1").is_none());
    }
}

#[test]
fn a_header_may_come_in_any_pieces_with_the_request_behind_it() {
    let origin = Origin::named("s1");
    let accept = set(&["127.0.0.1"]);
    let balancer =
        Builder::new([]).server(origin.address).identity(|identity| identity.accept_proxy = accept).start();
    for version in [Version::V1, Version::V2] {
        let mut client = balancer.client();
        let bytes = [
            &header(version, "[2001:db8::7]:1", "[2001:db8::1]:2")[..],
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for byte in bytes.concat() {
            client.send([byte]);
        }
        assert_eq!(client.response().text(), "s1");
    }
    assert!(balancer.log_line(1).contains(" [2001:db8::7]:1 GET "), "{}", balancer.log_line(1));
    // A health check of the proxy itself, and a proxy that does not know.
    for local in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = balancer.client();
        assert_eq!(client.send(local).get("/").text(), "s1");
    }
    assert!(balancer.log_line(3).contains(" 127.0.0.1:"), "{}", balancer.log_line(3));
}

#[test]
fn a_proxy_that_does_not_say_who_its_client_is_is_closed_counted_and_logged() {
    let origin = Origin::named("s1");
    let balancer = Builder::new([])
        .server(origin.address)
        .identity(|identity| identity.accept_proxy = set(&["127.0.0.1"]))
        .timeouts(|timeouts| timeouts.request = Duration::from_secs(1))
        .start();
    let wrong: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        // Slow: what is there is right as far as it goes.
        b"PROXY TCP4 192.0",
    ];
    for (number, bytes) in wrong.into_iter().enumerate() {
        let mut client = balancer.client();
        client.send(bytes);
        assert_eq!(until_end(&mut client), b"", "no answer to {bytes:?}");
        let line = balancer.log_line(number);
        let fault = if number == 3 { "slow-head" } else { "bad-proxy-header" };
        assert!(
            line.contains(" - <bad-request> - 0 ") && line.ends_with(&format!("fault={fault}\n")),
            "{line}"
        );
    }
    assert_eq!(balancer.stats().bad_proxy_headers, 4);
    // A connection without a byte is nobody's fault.
    drop(balancer.client());
    wait_for("its end", || (balancer.stats().connections_active == 0).then_some(()));
    assert_eq!(balancer.stats().bad_proxy_headers, 4);
    origin.expect_no_request();
}

#[test]
fn from_anybody_else_a_header_is_a_malformed_request() {
    let origin = Origin::named("s1");
    for accept in [set(&[]), set(&["127.0.0.2"])] {
        let balancer = Builder::new([])
            .server(origin.address)
            .identity(|identity| identity.accept_proxy = accept)
            .start();
        for version in [Version::V1, Version::V2] {
            let mut client = balancer.client();
            client
                .send(header(version, "192.0.2.7:1", "192.0.2.1:80"))
                .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response().status(), 400);
            client.expect_end();
        }
        assert!(balancer.log_line(1).contains(" 127.0.0.1:"), "{}", balancer.log_line(1));
    }
    origin.expect_no_request();
}

#[test]
fn denied_clients_are_turned_away_without_an_answer() {
    let origin = Origin::named("s1");
    let balancer = Builder::new([source()])
        .server(origin.address)
        .identity(|identity| {
            identity.deny = set(&["127.0.0.8/29", "192.0.2.0/24"]).into();
            identity.accept_proxy = set(&["127.0.0.1"]);
        })
        .start();
    for last in ["127.0.0.8", "127.0.0.15"] {
        // The reset may be faster than we notice that we are connected, or than the request.
        let Ok(mut denied) = Client::try_connect_from(last, balancer.address) else { continue };
        let _ = denied.0.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(until_end(&mut denied), b"");
    }
    assert_eq!(Client::connect_from("127.0.0.16", balancer.address).get("/").text(), "s1");
    let mut denied = balancer.client();
    denied.send(header(Version::V2, "192.0.2.200:1", "192.0.2.1:80"));
    assert_eq!(until_end(&mut denied), b"");
    let mut allowed = balancer.client();
    assert_eq!(allowed.send(header(Version::V2, "192.0.3.1:1", "192.0.2.1:80")).get("/").text(), "s1");
    wait_for("the count", || (balancer.stats().denied == 3).then_some(()));
    let stats = balancer.stats();
    assert_eq!((stats.denied, stats.requests, stats.connections), (3, 2, 3));
    assert!(balancer.entry("192.0.2.200").is_none() && balancer.entry("127.0.0.8").is_none());
}

#[test]
fn servers_are_told_who_the_client_is_and_no_connection_serves_two() {
    for version in [Version::V1, Version::V2] {
        let (origin, connections) = Origin::by_hand();
        let balancer = Builder::new([])
            .server(origin.address)
            .identity(|identity| identity.send_proxy = Some(version))
            .start();
        let next = || connections.recv_timeout(PATIENCE).expect("a connection");
        let mut one = Client::connect_from("127.0.0.7", balancer.address);
        let mut kept = None;
        for target in ["/1", "/2"] {
            one.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let connection = kept.get_or_insert_with(|| {
                let mut connection = next();
                let header = greeting(&mut connection).expect("addresses");
                assert_eq!(header.source, one.0.stream.local_addr().expect("address"));
                assert_eq!(header.destination, balancer.address);
                connection
            });
            assert_eq!(answer(connection).start, format!("GET {target} HTTP/1.1"));
            assert_eq!(one.response().text(), "ok");
        }
        let mut other = Client::connect_from("127.0.0.7", balancer.address);
        other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut connection = next();
        let header = greeting(&mut connection).expect("addresses");
        assert_eq!(header.source, other.0.stream.local_addr().expect("address"));
        answer(&mut connection);
        assert_eq!(other.response().text(), "ok");
        assert_eq!((balancer.stats().upstream_connects, balancer.stats().upstream_reuses), (2, 1));
        drop(one);
        assert_eq!(kept.expect("used").rest().expect("an end"), b"", "it ends with its client's");
    }
}

#[test]
fn requests_are_balanced_one_by_one_whatever_servers_are_told() {
    let (one, two) = (Plain::start(), Plain::start());
    let balancer = Builder::new([])
        .server(one.address)
        .server(two.address)
        .identity(|identity| identity.send_proxy = Some(Version::V2))
        .start();
    let mut client = balancer.client();
    for server in [&one, &two, &one] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut connection = server.next();
        assert_eq!(
            greeting(&mut connection).expect("addresses").source,
            client.0.stream.local_addr().expect("address")
        );
        answer(&mut connection);
        assert_eq!(client.response().text(), "ok");
    }
}

#[test]
fn what_a_proxy_said_is_passed_on_to_the_server() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([])
        .server(origin.address)
        .identity(|identity| {
            identity.accept_proxy = set(&["127.0.0.1"]);
            identity.send_proxy = Some(Version::V1);
        })
        .start();
    let mut client = balancer.client();
    client
        .send(header(Version::V2, "192.0.2.7:4711", "[2001:db8::1]:443"))
        .send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut connection = connections.recv_timeout(PATIENCE).expect("a connection");
    let said = greeting(&mut connection).expect("addresses");
    assert_eq!(
        (said.source, said.destination),
        ("192.0.2.7:4711".parse().expect("address"), "[2001:db8::1]:443".parse().expect("address"))
    );
    answer(&mut connection);
    assert_eq!(client.response().text(), "ok");
}

#[test]
fn the_standard_header_names_the_client_too() {
    let origin = Origin::named("s1");
    let style = Some(Style::Rfc7239);
    let balancer = Builder::new([cookie()])
        .server(origin.address)
        .identity(|identity| identity.forwarded = style)
        .start();
    balancer.client().get_with("/", "Forwarded: for=_x\r\nX-Forwarded-For: 1.1.1.1\r\n");
    let request = origin.request();
    assert_eq!(request.header("forwarded"), Some("for=_x, for=127.0.0.1;host=test;proto=http"));
    assert_eq!(request.header("x-forwarded-for"), None, "a server that prefers it would believe the client");
}

#[test]
fn errors_are_told_in_the_form_that_is_asked_for() {
    let balancer = Builder::new([]).server(refusing()).no_redispatch().start();
    let mut client = balancer.client();
    let json = client.get_with("/", "Accept: application/json, */*\r\n");
    assert_eq!((json.status(), json.header("content-type")), (503, Some("application/json")));
    assert_eq!(json.text(), "{\"status\":503,\"error\":\"the server cannot be reached\"}\n");
    for accept in ["", "Accept: */*\r\n", "Accept: text/html, application/json;q=0.5\r\n"] {
        let plain = client.get_with("/", accept);
        assert_eq!((plain.status(), plain.header("content-type")), (503, Some("text/plain")), "{accept}");
        assert_eq!(plain.text(), "503 the server cannot be reached\n");
    }
    let malformed = client.get_with("/", "Accept: application/json\r\nbad header: x\r\n");
    assert_eq!((malformed.status(), malformed.header("content-type")), (400, Some("text/plain")));
}

#[test]
fn no_more_clients_than_there_may_be_are_let_in() {
    // The count is of the process, and other tests have clients too.
    let name = "slow_path::identity::no_more_clients_than_there_may_be_are_let_in";
    super::descriptors::in_its_own_process(name, || {
        let origin = Origin::named("s1");
        let balancer = Builder::new([]).server(origin.address).max_connections(2).start();
        let mut clients = [balancer.client(), balancer.client()];
        assert!(clients.iter_mut().all(|client| client.get("/").text() == "s1"));
        let mut late = balancer.client();
        late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(balancer.stats().connections_active, 2, "the next one waits");
        let [first, _second] = clients;
        drop(first);
        assert_eq!(late.response().text(), "s1");
    });
}

/// A server that does not speak HTTP: by hand, one connection at a time.
pub struct Plain {
    _origin: Origin,
    connections: std::sync::mpsc::Receiver<Reader>,
    pub address: SocketAddr,
}

impl Plain {
    pub fn start() -> Self {
        let (origin, connections) = Origin::by_hand();
        Self { address: origin.address, _origin: origin, connections }
    }

    pub fn next(&self) -> Reader {
        self.connections.recv_timeout(PATIENCE).expect("a connection")
    }
}
