//! Who gets a request that no method has decided.

use balancer::config::Balance;

use super::balancer::{Balancer, Builder, cookie};
use super::origin::Origin;

fn three_servers(algorithm: Balance) -> (Balancer, [Origin; 3]) {
    let origins = ["s1", "s2", "s3"].map(Origin::named);
    let builder = origins.iter().fold(Builder::new([]), |builder, origin| builder.server(origin.address));
    (builder.balance(algorithm).start(), origins)
}

/// Of 24 requests that differ in `part`, each asked twice: the answers are the same both times, and not all alike.
fn expect_the_part_decides(algorithm: Balance, ask: impl Fn(&Balancer, &str) -> String) {
    let (balancer, _origins) = three_servers(algorithm);
    let answers = || (0..24).map(|n| ask(&balancer, &format!("u{n}"))).collect::<Vec<_>>();
    let first = answers();
    assert_eq!(first, answers());
    for server in ["s1", "s2", "s3"] {
        assert!(first.iter().any(|answer| answer == server), "{server} gets nothing: {first:?}");
    }
}

#[test]
fn the_path_decides_and_the_query_does_not() {
    expect_the_part_decides(Balance::Uri, |balancer, part| {
        let plain = balancer.client().get(&format!("/{part}")).text();
        assert_eq!(balancer.client().get(&format!("/{part}?page=2")).text(), plain);
        assert_eq!(balancer.client().get(&format!("http://test/{part}")).text(), plain);
        plain
    });
}

#[test]
fn a_header_decides() {
    expect_the_part_decides(Balance::Header("X-User".into()), |balancer, part| {
        balancer.client().get_with("/", &format!("x-user: {part}\r\n")).text()
    });
}

#[test]
fn a_parameter_of_the_query_decides() {
    expect_the_part_decides(Balance::Query("user".into()), |balancer, part| {
        balancer.client().get(&format!("/?page=2&user={part}")).text()
    });
}

#[test]
fn the_clients_address_decides() {
    expect_the_part_decides(Balance::Source, |balancer, part| {
        let host: u8 = part[1..].parse().expect("a number");
        let mut client =
            super::client::Client::connect_from(&format!("127.0.7.{}", host + 1), balancer.address);
        client.get("/").text()
    });
}

#[test]
fn without_the_key_requests_take_turns() {
    let (balancer, _origins) = three_servers(Balance::Header("X-User".into()));
    let answers: Vec<_> = (0..6).map(|_| balancer.client().get("/").text()).collect();
    assert_eq!(answers, ["s1", "s2", "s3", "s1", "s2", "s3"]);
}

#[test]
fn a_server_that_is_busy_gets_less_with_leastconn() {
    let (held, connections) = Origin::by_hand();
    let quick = Origin::named("s2");
    let balancer =
        Builder::new([]).server(held.address).server(quick.address).balance(Balance::LeastConn).start();
    let mut waiting = balancer.client();
    waiting.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    let mut busy = connections.recv_timeout(super::PATIENCE).expect("the first server is asked");
    for _ in 0..5 {
        assert_eq!(balancer.client().get("/").text(), "s2");
    }
    busy.head().expect("read").expect("the request");
    std::io::Write::write_all(&mut busy.stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ns1")
        .expect("sent");
    assert_eq!(waiting.response().text(), "s1");
}

#[test]
fn a_backup_serves_when_the_primary_refuses_and_keeps_its_users() {
    let backup = Origin::named("s2");
    let balancer =
        Builder::new([cookie()]).server(super::origin::refusing()).server(backup.address).backup().start();
    let answer = balancer.client().get("/");
    assert_eq!((answer.text().as_str(), answer.header("set-cookie")), ("s2", Some("SRV=s2; path=/")));
    let (primary, backup) = (Origin::named("s1"), Origin::named("s2"));
    let balancer = Builder::new([cookie()]).server(primary.address).server(backup.address).backup().start();
    assert!((0..4).all(|_| balancer.client().get("/").text() == "s1"));
    assert_eq!(balancer.client().get_with_cookie("SRV=s2").text(), "s2", "who has its cookie stays");
}
