//! `--mode tcp`: connections whose bytes nobody reads.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::thread;
use std::time::Duration;

use balancer::proxy_protocol::Version;

use super::Reader;
use super::balancer::{Builder, source, wait_for};
use super::client::Client;
use super::identity::{Plain, greeting, header, set, until_end};
use super::origin::refusing;

fn read_exactly(reader: &mut Reader, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    reader.stream.read_exact(&mut bytes).expect("that many bytes");
    bytes
}

#[test]
fn passes_bytes_and_ends_each_way() {
    let server = Plain::start();
    let balancer = Builder::new([source()]).tcp().server(server.address).start();
    let mut client = balancer.client();
    let mut connection = server.next();
    // The server speaks first, as in SMTP.
    connection.stream.write_all(b"220 hello\r\n").expect("sent");
    assert_eq!(read_exactly(&mut client.0, 11), b"220 hello\r\n");
    client.send(b"\0\xff GET nonsense\n");
    assert_eq!(read_exactly(&mut connection, 16), b"\0\xff GET nonsense\n");
    client.0.stream.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(connection.rest().expect("its end"), b"");
    connection.stream.write_all(b"still here").expect("sent");
    drop(connection);
    assert_eq!(client.rest().expect("an orderly end"), b"still here");
    let line = balancer.log_line(0);
    assert!(
        line.contains(" TCP - - 21 ") && line.contains(" s1 -- persist=source:miss,balance>s1\n"),
        "{line}"
    );
    assert!(balancer.entry("127.0.0.1").is_some_and(|entry| !entry.is_tentative()));
    let stats = balancer.stats();
    assert_eq!((stats.bytes_in, stats.bytes_out, stats.aborted, stats.requests), (16, 21, 0, 0));
}

#[test]
fn a_client_stays_on_its_server_and_is_moved_when_that_is_gone() {
    let (one, two) = (Plain::start(), Plain::start());
    let balancer =
        Builder::new([source()]).tcp().server(one.address).server(two.address).server(refusing()).start();
    balancer.learn("127.0.0.5", 2);
    balancer.learn("127.0.0.6", 3);
    for _ in 0..3 {
        let client = Client::connect_from("127.0.0.5", balancer.address);
        let mut connection = two.next();
        drop(client);
        assert_eq!(connection.rest().expect("its end"), b"");
    }
    // Its server refuses, and the last retry goes elsewhere.
    let mut moved = Client::connect_from("127.0.0.6", balancer.address);
    moved.send("x");
    let entry =
        wait_for("another server", || balancer.entry("127.0.0.6").filter(|entry| entry.server() != 3));
    let taken = if entry.server() == 1 { one.next() } else { two.next() };
    drop(taken);
    let _ = until_end(&mut moved);
    assert_eq!(balancer.stats().redispatches, 1);
}

#[test]
fn moves_much_both_ways_at_once() {
    const SIZE: usize = 4 << 20;
    let server = Plain::start();
    let balancer = Builder::new([]).tcp().server(server.address).start();
    let client = balancer.client().0.stream;
    let connection = server.next().stream;
    let pattern = |seed: usize| -> Vec<u8> { (0..SIZE).map(|n| (n * 31 + n / 251 + seed) as u8).collect() };
    let send = |stream: &std::net::TcpStream, bytes: &[u8]| {
        let mut stream = stream;
        stream.write_all(bytes).expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
    };
    let receive = |stream: &std::net::TcpStream| {
        let (mut stream, mut bytes) = (stream, Vec::new());
        stream.read_to_end(&mut bytes).expect("read");
        bytes
    };
    let (up, down) = (pattern(1), pattern(2));
    thread::scope(|scope| {
        scope.spawn(|| send(&client, &up));
        scope.spawn(|| send(&connection, &down));
        let got = scope.spawn(|| receive(&connection));
        assert!(receive(&client) == down, "what the client got is what the server sent");
        assert!(got.join().expect("read") == up, "what the server got is what the client sent");
    });
}

#[test]
fn ends_after_silence_and_by_the_failure_of_a_side() {
    let server = Plain::start();
    let balancer = Builder::new([])
        .tcp()
        .server(server.address)
        .timeouts(|timeouts| timeouts.tunnel = Duration::from_secs(4))
        .start();
    let mut client = balancer.client();
    let mut connection = server.next();
    // Either side keeps it alive, for longer than that.
    for _ in 0..5 {
        thread::sleep(Duration::from_secs(1));
        connection.stream.write_all(b".").expect("sent");
        assert_eq!(read_exactly(&mut client.0, 1), b".");
    }
    assert_eq!(until_end(&mut client), b"");
    assert!(balancer.log_line(0).ends_with(" fault=tunnel-silent\n"), "{}", balancer.log_line(0));

    let mut client = balancer.client();
    let mut connection = server.next();
    // A reset before anybody has noticed the connection is a failed attempt, and another one follows.
    connection.stream.write_all(b".").expect("sent");
    assert_eq!(read_exactly(&mut client.0, 1), b".");
    socket2::SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)).expect("option");
    drop(connection);
    assert!(client.rest().is_err(), "a failure does not look like an end");
    assert!(balancer.log_line(1).ends_with(" fault=server-cut\n"), "{}", balancer.log_line(1));
}

#[test]
fn a_connection_without_a_server_is_closed_and_logged() {
    let balancer = Builder::new([source()]).tcp().server(refusing()).no_redispatch().start();
    assert_eq!(until_end(&mut balancer.client()), b"");
    let line = balancer.log_line(0);
    assert!(line.contains(" TCP - - 0 ") && line.ends_with(" fault=unreachable\n"), "{line}");
    assert!(balancer.entry("127.0.0.1").is_none(), "what was reserved is given back");
    assert_eq!(balancer.stats().aborted, 1);
}

#[test]
fn takes_and_gives_proxy_headers() {
    let server = Plain::start();
    let balancer = Builder::new([source()])
        .tcp()
        .server(server.address)
        .identity(|identity| {
            identity.accept_proxy = set(&["127.0.0.1"]);
            identity.send_proxy = Some(Version::V2);
        })
        .start();
    let mut client = balancer.client();
    client.send(header(Version::V1, "192.0.2.7:4711", "192.0.2.1:25")).send("EHLO\r\n");
    let mut connection = server.next();
    let said = greeting(&mut connection).expect("addresses");
    assert_eq!(said.source.ip(), "192.0.2.7".parse::<IpAddr>().expect("address"));
    assert_eq!(read_exactly(&mut connection, 6), b"EHLO\r\n");
    assert!(balancer.entry("192.0.2.7").is_some());
}
