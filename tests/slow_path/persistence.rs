//! The ordered list in stories of several requests. Those of one are rows, in `cases`.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;

use balancer::server::{Health, Operator};

use super::balancer::{Balancer, Builder, TABLE_TIMEOUT, cookie, source};
use super::client::Client;
use super::origin::{Origin, refusing};

/// s1 and s2 up, cookie SRV in insert,indirect mode.
fn two_servers() -> (Balancer, Origin, Origin) {
    let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
    let balancer = Builder::new([cookie()]).server(s1.address).server(s2.address).start();
    (balancer, s1, s2)
}

#[test]
fn case_1_a_new_client_is_balanced_and_gets_a_cookie() {
    let (balancer, _s1, _s2) = two_servers();
    let (first, second) = (balancer.client().get("/"), balancer.client().get("/"));
    assert_eq!((first.text().as_str(), first.header("set-cookie")), ("s1", Some("SRV=s1; path=/")));
    assert_eq!((second.text().as_str(), second.header("set-cookie")), ("s2", Some("SRV=s2; path=/")));
    assert_eq!(balancer.letters(0), "NI");
    assert!(balancer.log_line(0).ends_with(" s1 NI persist=cookie:miss,balance>s1\n"));
}

#[test]
fn cases_8_and_82_the_first_usable_value_counts_over_all_headers() {
    let (balancer, _s1, _s2) = two_servers();
    for headers in
        ["Cookie: SRV=s2; SRV=zz\r\n", "Cookie: SRV=zz; SRV=s2\r\n", "Cookie: a=1\r\nCookie: SRV=s2\r\n"]
    {
        assert_eq!(balancer.client().get_with("/", headers).text(), "s2", "{headers}");
    }
    balancer.service.servers.set_health(1, Health::Down);
    assert_eq!(balancer.client().get_with_cookie("SRV=s2; SRV=s1").text(), "s1");
    assert_eq!((balancer.letters(0), balancer.letters(3)), ("VN".into(), "VN".into()));
}

#[test]
fn case_15_a_draining_server_gets_nobody_new_and_keeps_who_it_has() {
    let (balancer, _s1, _s2) = two_servers();
    balancer.service.servers.set_operator(1, Operator::Drain);
    for _ in 0..3 {
        assert_eq!(balancer.client().get("/").text(), "s1");
    }
    assert_eq!(balancer.client().get_with_cookie("SRV=s2").text(), "s2");
}

#[test]
fn case_18_without_redispatch_a_server_that_refuses_is_an_error() {
    let s1 = Origin::named("s1");
    let builder = Builder::new([cookie()]).server(s1.address).server(refusing()).no_redispatch();
    let balancer = builder.start();
    let response = balancer.client().get_with_cookie("SRV=s2");
    assert_eq!((response.status(), response.header("set-cookie")), (503, None));
    assert_eq!(balancer.letters(0), "VN");
    assert!(balancer.log_line(0).ends_with(" s2 VN persist=cookie:hit>s2 fault=unreachable\n"));
    s1.expect_no_request();
}

#[test]
fn case_19_a_client_of_a_server_that_refuses_is_moved_after_the_retries() {
    let s1 = Origin::named("s1");
    let balancer = Builder::new([cookie()]).server(s1.address).server(refusing()).start();
    let mut client = balancer.client();
    let response = client.get_with_cookie("SRV=s2");
    assert_eq!((response.text().as_str(), response.header("set-cookie")), ("s1", Some("SRV=s1; path=/")));
    assert_eq!(balancer.letters(0), "DI");
    assert_eq!((balancer.stats().retries, balancer.stats().redispatches), (2, 1));
}

#[test]
fn case_21_when_all_are_down_there_is_an_error_without_a_cookie() {
    let (balancer, _s1, _s2) = two_servers();
    balancer.service.servers.set_health(0, Health::Down);
    balancer.service.servers.set_health(1, Health::Down);
    let mut client = balancer.client();
    let response = client.get("/");
    assert_eq!((response.status(), response.header("set-cookie")), (503, None));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.text().contains("no server is available"));
    balancer.service.servers.set_health(0, Health::Up);
    assert_eq!(client.get("/").text(), "s1", "the connection survives an error that is not the client's");
}

#[test]
fn case_25_every_final_status_of_a_server_carries_the_cookie() {
    for (status, has_body) in [("304 Not Modified", false), ("503 Busy", true), ("204 No Content", false)] {
        let s1 = Origin::answering(move |_| {
            format!("HTTP/1.1 {status}\r\n{}\r\n", if has_body { "Content-Length: 0\r\n" } else { "" })
        });
        let balancer = Builder::new([cookie()]).server(s1.address).start();
        let mut client = balancer.client();
        let response = client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response();
        assert_eq!(response.start, format!("HTTP/1.1 {status}"));
        assert_eq!(response.header("set-cookie"), Some("SRV=s1; path=/"));
        assert_eq!(client.get("/").status(), response.status(), "the connection goes on");
    }
}

#[test]
fn case_59_an_answer_teaches_the_source_with_the_full_timeout() {
    let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
    let balancer = Builder::new([source(), cookie()]).server(s1.address).server(s2.address).start();
    let before = balancer::clock::boot_seconds();
    let mut client = Client::connect_from("127.0.0.7", balancer.address);
    assert_eq!(client.get("/").text(), "s1");
    let entry = balancer.entry("127.0.0.7").expect("learned");
    assert_eq!((entry.server(), entry.is_tentative(), entry.is_ambiguous()), (1, false, false));
    assert!(entry.expiry() >= before + TABLE_TIMEOUT);
    assert_eq!(Client::connect_from("127.0.0.7", balancer.address).get("/").text(), "s1");
    assert_eq!(Client::connect_from("127.0.0.8", balancer.address).get("/").text(), "s2");
}

#[test]
fn case_69_a_mapped_address_is_the_v4_address_and_v6_clients_are_learned() {
    let s1 = Origin::named("s1");
    let listen: SocketAddr = "[::]:0".parse().expect("address");
    let balancer = Builder::new([source()]).server(s1.address).listen(listen).start();
    let port = balancer.address.port();
    Client::connect_from("127.0.0.5", SocketAddr::from(([127, 0, 0, 1], port))).get("/");
    assert!(balancer.entry("127.0.0.5").is_some());
    assert!(balancer.log_line(0).contains("Z 127.0.0.5:"));
    Client::connect(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))).get("/");
    assert!(balancer.entry("::1").is_some());
}

#[test]
fn a_move_re_points_the_table_and_the_cookie_together() {
    let s1 = Origin::named("s1");
    let balancer = Builder::new([cookie(), source()]).server(s1.address).server(refusing()).start();
    balancer.learn("127.0.0.1", 2);
    let response = balancer.client().get_with_cookie("SRV=s2");
    assert_eq!((response.text().as_str(), response.header("set-cookie")), ("s1", Some("SRV=s1; path=/")));
    let entry = balancer.entry("127.0.0.1").expect("learned");
    assert_eq!((entry.server(), entry.is_ambiguous()), (1, false), "a move is not a second user");
    assert_eq!(balancer.letters(0), "DI");
}

#[test]
fn a_cookie_and_a_source_that_disagree_are_two_users_behind_one_address() {
    let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
    let balancer = Builder::new([cookie(), source()]).server(s1.address).server(s2.address).start();
    balancer.learn("127.0.0.1", 1);
    assert_eq!(balancer.client().get_with_cookie("SRV=s2").text(), "s2");
    let entry = balancer.entry("127.0.0.1").expect("learned");
    assert_eq!((entry.server(), entry.is_ambiguous()), (2, true));
    assert!(balancer.log_line(0).contains("persist=cookie:hit>s2,source:outvoted>s1"));
}

#[test]
fn a_client_behind_a_proxy_is_learned_as_ambiguous() {
    let s1 = Origin::named("s1");
    let balancer = Builder::new([source()]).server(s1.address).start();
    balancer.client().get_with("/", "X-Forwarded-For: 10.9.9.9\r\n");
    assert!(balancer.entry("127.0.0.1").expect("learned").is_ambiguous());
}

#[test]
fn parallel_first_requests_of_one_client_go_to_one_server() {
    const CLIENTS: usize = 6;
    // No server answers before all requests have come, so none of them can learn from another's answer.
    let all_asked = Arc::new(Barrier::new(CLIENTS));
    let origin = |name: &'static str| {
        let all_asked = Arc::clone(&all_asked);
        Origin::answering(move |_| {
            all_asked.wait();
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{name}")
        })
    };
    let (s1, s2) = (origin("s1"), origin("s2"));
    let balancer = Builder::new([cookie(), source()]).server(s1.address).server(s2.address).start();
    let asking: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = balancer.client();
            thread::spawn(move || client.get("/").text())
        })
        .collect();
    let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().expect("an answer")).collect();
    assert_eq!(answers, vec![answers[0].clone(); CLIENTS]);
    assert!(!balancer.entry("127.0.0.1").expect("learned").is_tentative());
}

#[test]
fn a_request_that_no_server_answers_leaves_nothing_in_the_table() {
    let balancer = Builder::new([source()]).server(refusing()).start();
    let response = balancer.client().get("/");
    assert_eq!(response.status(), 503);
    balancer.log_line(0);
    assert_eq!(balancer.entry("127.0.0.1"), None);
}

#[test]
fn a_client_of_a_server_far_down_the_list_is_moved_too() {
    let origin = Origin::named("alive");
    let alive = (0..70).fold(Builder::new([cookie()]), |builder, _| builder.server(origin.address));
    let balancer = alive.server(refusing()).start();
    let response = balancer.client().get_with_cookie("SRV=s71");
    assert_eq!((response.status(), response.header("set-cookie")), (200, Some("SRV=s1; path=/")));
    assert_eq!((balancer.letters(0).as_str(), balancer.stats().redispatches), ("DI", 1));
}

#[test]
fn a_value_that_is_repeated_does_not_push_out_one_that_can_be_used() {
    let (balancer, _s1, _s2) = two_servers();
    balancer.service.servers.set_health(0, Health::Down);
    let repeated = "SRV=s1; ".repeat(10);
    let response = balancer.client().get_with_cookie(&format!("{repeated}SRV=s2"));
    assert_eq!((response.text().as_str(), response.header("set-cookie")), ("s2", None));
}

#[test]
fn cookies_without_ours_reach_the_server_as_they_are() {
    let (balancer, s1, _s2) = two_servers();
    assert_eq!(balancer.client().get_with_cookie("a=1;b=2;;c=3;").text(), "s1");
    assert_eq!(s1.request().header("cookie"), Some("a=1;b=2;;c=3;"));
}
