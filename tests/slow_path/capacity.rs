//! Servers with `maxconn=`, those who wait for them, and sessions that are ended from outside.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use balancer::config::Balance;
use balancer::server::{Ended, Health, Operator};

use super::balancer::{Balancer, Builder, cookie, source, wait_for};
use super::client::Client;
use super::origin::{Origin, refusing};
use super::tunnel::{ASK, GRANT};
use super::{PATIENCE, Reader};

/// A server that the test plays.
struct ByHand {
    address: SocketAddr,
    connections: Receiver<Reader>,
    _origin: Origin,
}

impl ByHand {
    fn new() -> Self {
        let (origin, connections) = Origin::by_hand();
        Self { address: origin.address, connections, _origin: origin }
    }

    /// The next connection.
    fn accept(&self) -> Reader {
        self.connections.recv_timeout(PATIENCE).expect("a connection")
    }

    fn expect_nobody(&self) {
        assert!(self.connections.try_recv().is_err(), "somebody has connected");
    }
}

/// The target of the next request.
fn target(server: &mut Reader) -> String {
    let head = server.head().expect("read").expect("a request");
    head.start.split(' ').nth(1).expect("a target").to_owned()
}

fn answer(server: &mut Reader, text: &str) {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    server.stream.write_all(answer.as_bytes()).expect("sent");
}

/// A client that asks and does not wait for the answer.
fn ask(balancer: &Balancer, target: &str, headers: &str) -> Client {
    let mut client = balancer.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
    client
}

/// Until so many wait.
fn wait_for_queue(balancer: &Balancer, count: u64) {
    wait_for("a queue", || (balancer.stats().queued_active == count).then_some(()));
}

/// A balancer in front of one server that takes one request at a time, which it has, and the connection of that.
fn busy(build: impl FnOnce(Builder) -> Builder) -> (Balancer, ByHand, Client, Reader) {
    let server = ByHand::new();
    let balancer = build(Builder::new([cookie()]).server(server.address).maxconn(1)).start();
    let first = ask(&balancer, "/first", "");
    let mut connection = server.accept();
    assert_eq!(target(&mut connection), "/first");
    (balancer, server, first, connection)
}

const STUCK: &str = "Cookie: SRV=s1\r\n";

#[test]
fn who_comes_first_is_served_first_stuck_or_not_and_on_whatever_thread() {
    let (balancer, server, mut first, mut connection) = busy(|builder| builder.workers(3));
    let mut clients = Vec::new();
    for n in 1..=9_usize {
        let headers = if n % 2 == 0 { STUCK } else { "" };
        let mut client = Client::connect(balancer.addresses[n % 3]);
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"));
        wait_for_queue(&balancer, n as u64);
        clients.push(client);
    }
    assert_eq!((balancer.service.servers.waiting(), balancer.service.servers.waiting_for(0)), (9, 4));
    answer(&mut connection, "first");
    assert_eq!(first.response().text(), "first");
    // Each thread has connections of its own; never is there more than one request.
    let mut connections = vec![connection];
    for (client, n) in clients.iter_mut().zip(1..) {
        let next = wait_for("the next request", || {
            connections.extend(server.connections.try_recv().ok());
            connections.iter_mut().position(Reader::has_more)
        });
        assert_eq!(target(&mut connections[next]), format!("/{n}"));
        assert!(connections.iter_mut().all(|connection| !connection.has_more()));
        answer(&mut connections[next], "next");
        assert_eq!(client.response().text(), "next");
    }
    let stats = balancer.stats();
    assert_eq!((stats.queued, stats.queued_active, stats.queue_timeouts), (9, 0, 0));
    assert!(!balancer.log_line(9).contains("fault="));
}

#[test]
fn a_thousand_clients_are_never_more_than_maxconn_and_all_are_served() {
    const CLIENTS: usize = 1000;
    const MAXCONN: [u32; 2] = [3, 5];
    balancer::listen::raise_descriptor_limit();
    let loads: [Arc<(AtomicU32, AtomicU32)>; 2] = Default::default();
    let origins = loads.each_ref().map(|load| {
        let load = Arc::clone(load);
        Origin::answering(move |_| {
            load.1.fetch_max(load.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(500));
            load.0.fetch_sub(1, Ordering::SeqCst);
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()
        })
    });
    let mut builder = Builder::new([]).workers(3).balance(Balance::LeastConn);
    for (origin, maxconn) in origins.iter().zip(MAXCONN) {
        builder = builder.server(origin.address).maxconn(maxconn);
    }
    let balancer = builder.timeouts(|timeouts| timeouts.queue = Duration::from_secs(30)).start();
    let mut clients: Vec<_> = (0..CLIENTS).map(|n| Client::connect(balancer.addresses[n % 3])).collect();
    for _ in 0..2 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().status(), 200);
        }
    }
    let most = loads.map(|load| load.1.load(Ordering::SeqCst));
    assert_eq!(most, MAXCONN, "as many as may be, and no more");
    let stats = balancer.stats();
    assert!(stats.queued > 500 && stats.queued_active == 0, "{stats:?}");
}

#[test]
fn who_is_stuck_waits_for_its_server_and_others_go_elsewhere() {
    let elsewhere = Origin::named("s2");
    let (balancer, server, mut first, mut connection) =
        busy(|builder| builder.balance(Balance::First).server(elsewhere.address));
    let mut stuck = ask(&balancer, "/stuck", STUCK);
    wait_for_queue(&balancer, 1);
    for _ in 0..5 {
        assert_eq!(balancer.client().get("/").text(), "s2");
    }
    server.expect_nobody();
    answer(&mut connection, "first");
    assert_eq!(first.response().text(), "first");
    assert_eq!(target(&mut connection), "/stuck");
    answer(&mut connection, "stuck");
    assert_eq!(stuck.response().header("set-cookie"), None);
    let mut again = ask(&balancer, "/again", "");
    assert_eq!(target(&mut connection), "/again");
    answer(&mut connection, "s1 again");
    assert_eq!(again.response().text(), "s1 again");
}

#[test]
fn a_key_waits_for_its_server() {
    let (one, two) = (ByHand::new(), ByHand::new());
    let builder = Builder::new([]).balance(Balance::Source).workers(1);
    let balancer = builder.server(one.address).maxconn(1).server(two.address).maxconn(1).start();
    let mut first = ask(&balancer, "/", "");
    let server = wait_for("a connection", || {
        [&one, &two].into_iter().find_map(|server| server.connections.try_recv().ok())
    });
    let mut server = server;
    assert_eq!(target(&mut server), "/");
    let mut second = ask(&balancer, "/second", "");
    wait_for_queue(&balancer, 1);
    answer(&mut server, "1");
    assert_eq!(first.response().text(), "1");
    assert_eq!(target(&mut server), "/second");
    answer(&mut server, "2");
    assert_eq!(second.response().text(), "2");
}

#[test]
fn two_requests_of_a_new_client_that_both_have_to_wait_go_to_one_server() {
    let (one, two) = (ByHand::new(), ByHand::new());
    let builder = Builder::new([source()]).server(one.address).maxconn(1).server(two.address).maxconn(1);
    let balancer = builder.start();
    let from = |address: &str, target: &str| {
        let mut client = Client::connect_from(address, balancer.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client
    };
    let mut others = [from("127.0.3.1", "/1"), from("127.0.3.2", "/2")];
    let mut servers = [one.accept(), two.accept()];
    assert_eq!(servers.each_mut().map(target), ["/1", "/2"]);
    let mut clients = Vec::new();
    for (n, target) in ["/a", "/b"].into_iter().enumerate() {
        clients.push(from("127.0.3.3", target));
        wait_for_queue(&balancer, n as u64 + 1);
    }
    // Both become free, one after the other.
    answer(&mut servers[1], "2");
    others[1].response();
    assert_eq!(target(&mut servers[1]), "/a");
    answer(&mut servers[0], "1");
    others[0].response();
    // The second is called to s1 as well, and finds that it is at home at s2.
    answer(&mut servers[1], "a");
    assert_eq!(clients[0].response().text(), "a");
    assert_eq!(target(&mut servers[1]), "/b");
    answer(&mut servers[1], "b");
    assert_eq!(clients[1].response().text(), "b");
    assert!(!servers[0].has_more());
    assert_eq!(balancer.entry("127.0.3.3").expect("learned").server(), 2);
}

#[test]
fn who_waits_too_long_is_told_when_to_come_again() {
    let (balancer, _server, _first, _connection) =
        busy(|builder| builder.timeouts(|timeouts| timeouts.queue = Duration::from_millis(300)));
    let start = Instant::now();
    let refused = ask(&balancer, "/late", STUCK).response();
    assert!((300..60_000).contains(&start.elapsed().as_millis()));
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("5")));
    assert_eq!(
        (refused.header("set-cookie"), refused.text()),
        (None, "503 no server had room in time\n".into())
    );
    let line = balancer.log_line(0);
    assert!(
        line.contains(" GET /late 503 ")
            && line.ends_with(" s1 VN persist=cookie:hit>s1 fault=queue-timeout\n")
    );
    assert_eq!((balancer.stats().queue_timeouts, balancer.stats().queued_active), (1, 0));
    assert_eq!(balancer.service.servers.waiting(), 0);
}

#[test]
fn the_wait_does_not_count_against_other_times() {
    let (balancer, _server, mut first, mut connection) = busy(|builder| {
        builder.timeouts(|timeouts| {
            timeouts.queue = Duration::from_secs(60);
            timeouts.server = Duration::from_secs(2);
            timeouts.client = Duration::from_secs(2);
        })
    });
    answer(&mut connection, "first");
    assert_eq!(first.response().text(), "first");
    // A tunnel is not bound by them either, so it can hold the server for longer.
    let mut tunnel = balancer.client();
    tunnel.send(ASK);
    connection.head().expect("read").expect("head");
    connection.stream.write_all(GRANT.as_bytes()).expect("sent");
    assert_eq!(tunnel.response_to_head().status(), 101);
    let mut waiting = balancer.client();
    waiting.send("POST /long HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
    wait_for_queue(&balancer, 1);
    waiting.send("lf");
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(balancer.service.servers[0].in_flight.load(Ordering::Relaxed), 1, "a tunnel counts");
    drop((tunnel, connection));
    let mut connection = _server.accept();
    let request = connection.message(true).expect("read").expect("a request");
    assert_eq!((&*request.start, request.text().as_str()), ("POST /long HTTP/1.1", "half"));
    answer(&mut connection, "done");
    assert_eq!(waiting.response().text(), "done");
}

#[test]
fn a_client_that_leaves_gives_its_place_up() {
    let (balancer, server, mut first, mut connection) = busy(|builder| builder);
    let gone = ask(&balancer, "/gone", "");
    wait_for_queue(&balancer, 1);
    let mut next = ask(&balancer, "/next", "");
    wait_for_queue(&balancer, 2);
    gone.0.reset();
    wait_for_queue(&balancer, 1);
    assert!(balancer.log_line(0).ends_with(" fault=client-gone\n"), "{}", balancer.log_line(0));
    answer(&mut connection, "first");
    first.response();
    assert_eq!(target(&mut connection), "/next");
    answer(&mut connection, "next");
    assert_eq!(next.response().text(), "next");
    server.expect_nobody();
}

#[test]
fn those_who_wait_for_a_server_that_goes_down_go_elsewhere() {
    let other = ByHand::new();
    let (balancer, _server, _first, _connection) = busy(|builder| builder.server(other.address).maxconn(1));
    let mut second = ask(&balancer, "/second", "");
    let mut elsewhere = other.accept();
    assert_eq!(target(&mut elsewhere), "/second");
    let mut stuck = ask(&balancer, "/stuck", STUCK);
    wait_for_queue(&balancer, 1);
    let mut any = ask(&balancer, "/any", "");
    wait_for_queue(&balancer, 2);
    balancer.service.servers.set_health(0, Health::Down);
    wait_for("them to decide anew", || (balancer.service.servers.waiting() == 2).then_some(()));
    answer(&mut elsewhere, "second");
    second.response();
    assert_eq!(target(&mut elsewhere), "/stuck", "it came first");
    answer(&mut elsewhere, "s2");
    assert_eq!(stuck.response().header("set-cookie"), Some("SRV=s2; path=/"));
    assert_eq!((balancer.letters(1).as_str(), balancer.stats().queued), ("DI", 2));
    assert_eq!(target(&mut elsewhere), "/any");
    let mut last = ask(&balancer, "/last", "");
    wait_for_queue(&balancer, 1);
    balancer.service.servers.set_operator(1, Operator::Maint);
    let refused = last.response();
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("5")));
    assert!(balancer.log_line(2).ends_with(" fault=no-server\n"), "{}", balancer.log_line(2));
    answer(&mut elsewhere, "any");
    assert_eq!(any.response().text(), "any");
    assert_eq!((balancer.stats().queued, balancer.stats().queued_active), (3, 0));
}

#[test]
fn case_83_a_full_queue_moves_the_client() {
    let other = Origin::named("s2");
    let (balancer, _server, _first, _connection) =
        busy(|builder| builder.maxqueue(1).server(other.address).balance(Balance::First));
    let _waiting = ask(&balancer, "/waiting", STUCK);
    wait_for_queue(&balancer, 1);
    let moved = ask(&balancer, "/moved", STUCK).response();
    assert_eq!((moved.text().as_str(), moved.header("set-cookie")), ("s2", Some("SRV=s2; path=/")));
    assert_eq!((balancer.letters(0).as_str(), balancer.stats().redispatches), ("DI", 1));
}

#[test]
fn a_full_queue_without_redispatch_or_without_another_server_is_told() {
    for redispatch in [true, false] {
        let other = Origin::named("s2");
        let (balancer, _server, _first, _connection) = busy(|builder| {
            let builder = builder.maxqueue(1);
            if redispatch { builder } else { builder.server(other.address).no_redispatch() }
        });
        let _waiting = ask(&balancer, "/waiting", STUCK);
        wait_for_queue(&balancer, 1);
        let refused = ask(&balancer, "/refused", STUCK).response();
        assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("5")));
        assert_eq!(refused.text(), "503 too many requests wait for the server\n");
        assert!(balancer.log_line(0).ends_with(" fault=queue-full\n"), "{}", balancer.log_line(0));
    }
}

#[test]
fn an_attempt_that_fails_gives_its_slot_back() {
    let good = Origin::named("s2");
    let builder = Builder::new([]).balance(Balance::First).server(refusing()).maxconn(1);
    let balancer = builder.server(good.address).start();
    let mut clients: Vec<_> = (0..8).map(|_| ask(&balancer, "/", "")).collect();
    let answers: Vec<_> = clients.iter_mut().map(|client| client.response().text()).collect();
    assert_eq!(answers, ["s2"; 8]);
    assert!(balancer.service.servers.take(0), "nothing is taken for ever");
    assert_eq!(balancer.service.servers.waiting(), 0);
}

#[test]
fn connections_that_nobody_uses_do_not_count() {
    let origin = Origin::named("s1");
    let balancer = Builder::new([]).server(origin.address).maxconn(1).start();
    let mut clients = [(); 3].map(|()| balancer.client());
    for _ in 0..3 {
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "s1");
        }
    }
    assert_eq!((balancer.stats().queued, balancer.stats().upstream_connects), (0, 1));
}

#[test]
fn with_tcp_connections_count() {
    let server = ByHand::new();
    let balancer = Builder::new([]).tcp().server(server.address).maxconn(1).start();
    let first = balancer.client();
    let mut connection = server.accept();
    let mut second = balancer.client();
    second.send("early ");
    let gone = {
        wait_for_queue(&balancer, 1);
        balancer.client()
    };
    wait_for_queue(&balancer, 2);
    gone.0.reset();
    wait_for_queue(&balancer, 1);
    second.send("words");
    server.expect_nobody();
    drop(first);
    assert_eq!(connection.rest().expect("an end"), b"");
    drop(connection);
    let mut next = server.accept();
    assert_eq!(next.exactly(11).expect("read"), b"early words");
    next.stream.write_all(b"welcome").expect("sent");
    assert_eq!(second.0.exactly(7).expect("read"), b"welcome");
}

#[test]
fn whoever_still_waits_at_the_end_of_a_drain_is_told() {
    let (mut balancer, _server, first, _connection) = busy(|builder| builder);
    let mut waiting = ask(&balancer, "/waiting", "");
    wait_for_queue(&balancer, 1);
    balancer.drain();
    balancer.cut_off();
    assert_eq!(waiting.response().status(), 503);
    drop((first, waiting));
    balancer.expect_end();
    let lines = [balancer.log_line(0), balancer.log_line(1)];
    assert!(lines.iter().all(|line| line.ends_with(" fault=cut-off\n")), "{lines:?}");
    assert_eq!(balancer.service.servers.waiting(), 0);
}

#[test]
fn sessions_are_ended_and_those_of_others_are_not() {
    let (one, two) = (ByHand::new(), ByHand::new());
    let builder = Builder::new([cookie()]).workers(2).server(one.address).server(two.address);
    let balancer = builder.start();
    let ask = |worker: usize, request: &str| {
        let mut client = Client::connect(balancer.addresses[worker]);
        client.send(request);
        client
    };
    let post = |server: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nCookie: SRV={server}\r\nContent-Length: 2\r\n\r\nhi")
    };
    let tunnel = ASK.replace("Host: a\r\n", "Host: a\r\nCookie: SRV=s1\r\n");
    // One that waits for its answer, one that is in the middle of it, a tunnel, and a connection that is kept.
    let mut unanswered = ask(0, &post("s1"));
    let mut asked = one.accept();
    asked.message(true).expect("read").expect("a request");
    let mut halfway = ask(1, &post("s1"));
    let mut answering = one.accept();
    answering.message(true).expect("read").expect("a request");
    answering.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").expect("sent");
    assert_eq!(halfway.0.head().expect("read").expect("head").status(), 200);
    let mut upgraded = ask(1, &tunnel);
    let mut tunnelled = one.accept();
    tunnelled.head().expect("read").expect("a request");
    tunnelled.stream.write_all(GRANT.as_bytes()).expect("sent");
    assert_eq!(upgraded.response_to_head().status(), 101);
    let mut done = ask(0, &post("s1"));
    let mut kept = one.accept();
    kept.message(true).expect("read").expect("a request");
    answer(&mut kept, "ok");
    assert_eq!(done.response().text(), "ok");
    let mut other = ask(0, &post("s2"));
    let mut untouched = two.accept();
    untouched.message(true).expect("read").expect("a request");

    assert_eq!(balancer.service.servers.end_sessions(0), Ended { slow: 3, fast: 0 });
    let refused = unanswered.response();
    assert_eq!(
        (refused.status(), refused.text().as_str()),
        (502, "502 the connection to the server was ended\n")
    );
    assert_eq!(halfway.rest().expect("an end"), b"half");
    assert!(upgraded.rest().is_err(), "a reset");
    for connection in [&mut asked, &mut answering, &mut kept] {
        assert_eq!(connection.rest().expect("an end"), b"");
    }
    assert!(tunnelled.rest().is_err(), "a reset");
    let lines: Vec<_> = (0..4).map(|n| balancer.log_line(n)).collect();
    assert_eq!(lines.iter().filter(|line| line.ends_with(" fault=killed\n")).count(), 3, "{lines:?}");
    answer(&mut untouched, "well");
    assert_eq!(other.response().text(), "well");
    // What comes after is served as ever.
    let mut later = ask(0, &post("s1"));
    let mut new = one.accept();
    new.message(true).expect("read").expect("a request");
    answer(&mut new, "later");
    assert_eq!(later.response().text(), "later");
    assert_eq!(balancer.service.servers[0].in_flight.load(Ordering::Relaxed), 0);
}

#[test]
fn a_request_that_may_be_repeated_goes_elsewhere_when_its_server_is_taken_out() {
    let (one, two) = (ByHand::new(), Origin::named("s2"));
    let builder = Builder::new([cookie()]).balance(Balance::First);
    let balancer = builder.server(one.address).server(two.address).start();
    let mut client = ask(&balancer, "/", STUCK);
    let mut connection = one.accept();
    assert_eq!(target(&mut connection), "/");
    balancer.service.servers.set_operator(0, Operator::Maint);
    balancer.service.servers.end_sessions(0);
    let moved = client.response();
    assert_eq!((moved.text().as_str(), moved.header("set-cookie")), ("s2", Some("SRV=s2; path=/")));
}
