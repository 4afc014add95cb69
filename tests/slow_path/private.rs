//! Connections that a server has authenticated: theirs is one client.

use std::io::Write;
use std::sync::mpsc::Receiver;

use super::balancer::{Builder, cookie};
use super::client::Client;
use super::origin::Origin;
use super::{PATIENCE, Reader};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const NTLM: &str =
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\", NTLM\r\nContent-Length: 0\r\n\r\n";

/// One request of `client`, answered by `server`.
fn exchange(client: &mut Client, headers: &str, server: &mut Reader, answer: &str) {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    server.head().expect("read").expect("the request comes here");
    server.stream.write_all(answer.as_bytes()).expect("write");
    let status = client.response().status();
    assert!(answer.contains(&status.to_string()), "{status}");
}

fn next(client: &mut Client, headers: &str, connections: &Receiver<Reader>, answer: &str) -> Reader {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    let mut server = connections.recv_timeout(PATIENCE).expect("a new connection");
    server.head().expect("read").expect("head");
    server.stream.write_all(answer.as_bytes()).expect("write");
    client.response();
    server
}

#[test]
fn after_a_challenge_for_ntlm_the_connection_is_its_clients_alone() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let (mut first, mut second) = (balancer.client(), balancer.client());
    let mut of_first = next(&mut first, "", &connections, NTLM);
    let mut of_second = next(&mut second, "", &connections, OK);
    for _ in 0..2 {
        exchange(&mut first, "Authorization: NTLM TlRMTVNTUAAB\r\n", &mut of_first, OK);
        exchange(&mut second, "", &mut of_second, OK);
        exchange(&mut first, "", &mut of_first, OK);
    }
    drop(first);
    assert!(of_first.rest().expect("closed with its client").is_empty());
    exchange(&mut balancer.client(), "", &mut of_second, OK);
}

#[test]
fn credentials_for_a_connection_make_it_private_too() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let (mut first, mut second) = (balancer.client(), balancer.client());
    let mut of_first = next(&mut first, "Authorization: Negotiate YIIJ\r\n", &connections, OK);
    next(&mut second, "", &connections, OK);
    exchange(&mut first, "", &mut of_first, OK);
}

#[test]
fn a_private_connection_is_not_used_for_another_server_and_waits_meanwhile() {
    let (s1, first) = Origin::by_hand();
    let (s2, second) = Origin::by_hand();
    let balancer = Builder::new([cookie()]).server(s1.address).server(s2.address).start();
    let mut client = balancer.client();
    let mut of_s1 = next(&mut client, "Cookie: SRV=s1\r\n", &first, NTLM);
    let mut of_s2 = next(&mut client, "Cookie: SRV=s2\r\n", &second, OK);
    exchange(&mut client, "Cookie: SRV=s1\r\n", &mut of_s1, OK);
    exchange(&mut balancer.client(), "Cookie: SRV=s2\r\n", &mut of_s2, OK);
}

#[test]
fn a_handshake_stays_at_its_server_where_nothing_else_decides() {
    let (s1, first) = Origin::by_hand();
    let s2 = Origin::named("s2");
    let balancer = Builder::new([]).server(s1.address).server(s2.address).start();
    let mut client = balancer.client();
    let mut of_s1 = next(&mut client, "", &first, NTLM);
    for _ in 0..3 {
        exchange(&mut client, "Authorization: NTLM TlRMTVNTUAAB\r\n", &mut of_s1, OK);
    }
    assert_eq!(balancer.client().get("/").text(), "s2", "others are balanced");
}

#[test]
fn a_private_connection_that_was_closed_is_replaced() {
    let (origin, connections) = Origin::by_hand();
    let balancer = Builder::new([]).server(origin.address).start();
    let mut client = balancer.client();
    drop(next(&mut client, "", &connections, NTLM));
    next(&mut client, "", &connections, OK);
}
