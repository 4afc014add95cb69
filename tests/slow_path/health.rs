//! Which servers get clients: checks of servers that misbehave, real traffic that meets with errors, servers that come back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balancer::config::{
    Balance, CheckConfig, HealthConfig, ObserveConfig, OnMarkedDown, Probe, Statuses, Timeouts,
};
use balancer::server::{FastLoads, Health, Identity, Server, State, WHOLE};

use super::balancer::{Balancer, Builder, cookie, wait_for};
use super::origin::{Mood, Moods, Origin, refusing};

/// Long enough that only the first check of it is ever seen.
const NEVER: Duration = Duration::from_secs(3600);

const FAILS: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// `--check http=/health,drain-on=404`, two of a kind in a row.
fn checked(interval: Duration) -> HealthConfig {
    let probe =
        Probe::Http { path: "/health".into(), host: None, expect: Statuses::default(), drain_on: Some(404) };
    let check = CheckConfig { probe, interval, timeout: Duration::from_secs(1), rise: 2, fall: 2 };
    HealthConfig { check: Some(check), ..HealthConfig::default() }
}

/// Checked once, and then observed: three errors in a row are too many.
fn observed(connect: bool, answers: bool) -> HealthConfig {
    let observe = Some(ObserveConfig { connect, answers, limit: 3 });
    HealthConfig { observe, ..checked(NEVER) }
}

fn wait_for_health(balancer: &Balancer, place: usize, health: Health) {
    let is = || (balancer.service.servers[place].health() == health).then_some(());
    wait_for(&format!("s{} to be {}", place + 1, health.as_str()), is);
}

/// How often each of s1, s2, … answers so many new clients.
fn answers(balancer: &Balancer, count: usize) -> Vec<usize> {
    let mut answers = vec![0; balancer.service.servers.len()];
    for _ in 0..count {
        let name = balancer.client().get("/").text();
        answers[name[1..].parse::<usize>().expect("sN") - 1] += 1;
    }
    answers
}

#[test]
fn servers_that_misbehave_are_told_from_those_that_do_not() {
    let (origin, moods) = Origin::moody("s1");
    let balancer = Builder::new([]).server(origin.address).health(checked(Duration::from_millis(20))).start();
    wait_for_health(&balancer, 0, Health::Up);
    let ills = [
        Mood::Hangs,
        Mood::Resets,
        Mood::Says(""),
        Mood::Says("HTTP/1.1 200 OK\r\n"),
        Mood::Says("SSH-2.0-OpenSSH\r\n"),
        Mood::Says("\0\0\0\0\0"),
        Mood::Says("HTTP/1.1 2000 OK\r\n\r\n"),
        Mood::Says(FAILS),
    ];
    for ill in ills {
        moods.set(ill);
        wait_for_health(&balancer, 0, Health::Down);
        assert_eq!(balancer.client().get("/").status(), 503, "{ill:?}");
        moods.set(Mood::Well);
        wait_for_health(&balancer, 0, Health::Up);
        assert_eq!(balancer.client().get("/").text(), "s1", "{ill:?}");
    }
    moods.set(Mood::Says("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"));
    wait_for_health(&balancer, 0, Health::Draining);
}

#[test]
fn a_server_that_nobody_listens_for_is_down_until_somebody_does() {
    let address = refusing();
    let balancer = Builder::new([]).server(address).health(checked(Duration::from_millis(20))).start();
    wait_for_health(&balancer, 0, Health::Down);
    let _origin = Origin::named_at("s1", address);
    wait_for_health(&balancer, 0, Health::Up);
    assert_eq!(balancer.client().get("/").text(), "s1");
}

#[test]
fn a_server_that_flaps_keeps_its_state() {
    let count = AtomicU64::new(0);
    let origin = Origin::answering(move |_| match count.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
        _ => FAILS.into(),
    });
    let balancer = Builder::new([]).server(origin.address).health(checked(Duration::from_millis(4))).start();
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    balancer.service.servers.publish_with(Box::new(move |server| {
        seen.lock().expect("lock").push(server.state());
    }));
    (0..40).for_each(|_| drop(origin.request()));
    assert_eq!(balancer.service.servers[0].health(), Health::Up);
    assert!(states.lock().expect("lock").iter().all(|state| *state == State::Up));
}

/// s1, which can be made to feel as one likes, s2, and what is made of traffic.
fn moody_and_well(health: HealthConfig, set: impl FnOnce(&mut Timeouts)) -> (Balancer, Moods, [Origin; 2]) {
    let ((moody, moods), well) = (Origin::moody("s1"), Origin::named("s2"));
    let builder = Builder::new([cookie()]).server(moody.address).server(well.address).timeouts(set);
    let balancer = builder.health(health).start();
    wait_for_health(&balancer, 0, Health::Up);
    (balancer, moods, [moody, well])
}

#[test]
fn answers_that_fail_one_after_the_other_take_a_server_down() {
    let table = [
        (Mood::WellWhenChecked(FAILS), 503),
        (Mood::WellWhenChecked("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), 500),
        (Mood::Says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), 200),
        (Mood::Says("nonsense\r\n\r\n"), 502),
        (Mood::Says(""), 502),
        (Mood::Resets, 502),
        (Mood::Hangs, 504),
    ];
    for (mood, status) in table {
        let patience = Duration::from_millis(if matches!(mood, Mood::Hangs) { 100 } else { 60_000 });
        let (balancer, moods, _origins) =
            moody_and_well(observed(false, true), |timeouts| timeouts.server = patience);
        moods.set(mood);
        for errors in 1..=3 {
            let mut client = balancer.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: SRV=s1\r\nConnection: close\r\n\r\n");
            let answer = String::from_utf8(client.rest().expect("an end")).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{mood:?}: {answer}");
            // The log is written after everything else, so what follows from the request has been done then.
            balancer.log_line(errors - 1);
            if errors < 3 {
                assert_eq!(balancer.service.servers[0].health(), Health::Up, "{mood:?}");
            }
        }
        wait_for_health(&balancer, 0, Health::Down);
        assert_eq!(answers(&balancer, 4), [0, 4], "{mood:?}");
        assert_eq!(balancer.client().get_with_cookie("SRV=s1").text(), "s2", "a user of its own");
    }
}

#[test]
fn a_good_answer_between_them_makes_errors_harmless() {
    let (balancer, moods, _origins) = moody_and_well(observed(true, true), |_| ());
    for round in 0..4 {
        moods.set(Mood::WellWhenChecked(FAILS));
        (0..2).for_each(|_| assert_eq!(balancer.client().get_with_cookie("SRV=s1").status(), 503));
        moods.set(Mood::Well);
        assert_eq!(balancer.client().get_with_cookie("SRV=s1").text(), "s1");
        balancer.log_line(3 * round + 2);
    }
    assert_eq!(balancer.service.servers[0].marks.streak(), None);
    assert_eq!(balancer.service.servers[0].health(), Health::Up);
}

#[test]
fn what_clients_ask_for_is_not_the_servers_failure() {
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let not_implemented = "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (balancer, moods, _origins) = moody_and_well(observed(true, true), |_| ());
    for (number, answer) in [not_found, not_implemented].into_iter().enumerate() {
        moods.set(Mood::WellWhenChecked(answer));
        (0..4).for_each(|_| assert!(balancer.client().get_with_cookie("SRV=s1").status() > 400));
        balancer.log_line(4 * number + 3);
        assert_eq!(balancer.service.servers[0].marks.streak(), None, "{answer}");
    }
}

#[test]
fn failed_answers_are_no_failed_connections() {
    let (balancer, moods, _origins) = moody_and_well(observed(true, false), |_| ());
    moods.set(Mood::WellWhenChecked(FAILS));
    for _ in 0..5 {
        assert_eq!(balancer.client().get_with_cookie("SRV=s1").status(), 503);
    }
    balancer.log_line(4);
    assert_eq!(balancer.service.servers[0].marks.streak(), None);
}

#[test]
fn connections_that_are_refused_take_a_server_down_and_a_check_brings_it_up_again() {
    for health in [observed(true, false), observed(true, true)] {
        let (gone, well) = (Origin::named("s1"), Origin::named("s2"));
        let address = gone.address;
        let balancer = Builder::new([cookie()]).server(address).server(well.address).health(health).start();
        wait_for_health(&balancer, 0, Health::Up);
        gone.stop();
        assert_eq!(
            balancer.client().get_with_cookie("SRV=s1").text(),
            "s2",
            "redispatched after two attempts"
        );
        assert_eq!(balancer.service.servers[0].health(), Health::Up);
        assert_eq!(balancer.client().get_with_cookie("SRV=s1").text(), "s2");
        wait_for_health(&balancer, 0, Health::Down);
    }
    let gone = Origin::named("s1");
    let health = HealthConfig { check: checked(Duration::from_millis(300)).check, ..observed(true, false) };
    let balancer = Builder::new([]).no_redispatch().server(gone.address).health(health).start();
    wait_for_health(&balancer, 0, Health::Up);
    let address = gone.address;
    gone.stop();
    wait_for("the marks to take it down", || {
        balancer.client().get("/");
        (balancer.service.servers[0].health() == Health::Down).then_some(())
    });
    let _back = Origin::named_at("s1", address);
    wait_for_health(&balancer, 0, Health::Up);
}

/// A fast path that is told what to have seen, and by whom its connections were ended.
#[derive(Clone, Debug, Default)]
struct Fast(Arc<FastState>);

#[derive(Debug, Default)]
struct FastState {
    refused: AtomicU64,
    unanswered: AtomicU64,
    looks: AtomicU64,
    ended: Mutex<Vec<u16>>,
}

impl FastLoads for Fast {
    fn connections(&self, id: u16) -> u32 {
        u32::from(id == 1) * 5
    }

    fn opened(&self, _id: u16) -> u64 {
        0
    }

    fn set_limit(&self, _id: u16, _limit: u32) {}

    fn refused(&self, id: u16) -> u64 {
        if id == 1 { self.0.refused.load(Ordering::Relaxed) } else { 0 }
    }

    fn unanswered(&self, id: u16) -> u64 {
        // The last that is asked for in a look.
        self.0.looks.fetch_add(u64::from(id == 1), Ordering::Release);
        if id == 1 { self.0.unanswered.load(Ordering::Relaxed) } else { 0 }
    }

    fn end(&self, id: u16) -> u64 {
        self.0.ended.lock().expect("lock").push(id);
        5
    }
}

#[test]
fn errors_of_the_fast_path_count_and_what_runs_is_ended_if_that_is_wanted() {
    for (on_marked_down, ended) in [(OnMarkedDown::Keep, vec![]), (OnMarkedDown::Reset, vec![1])] {
        let (origin, other, fast) = (Origin::named("s1"), Origin::named("s2"), Fast::default());
        fast.0.refused.store(1000, Ordering::Relaxed);
        let health = HealthConfig { on_marked_down, ..observed(true, false) };
        let builder = Builder::new([]).server(origin.address).server(other.address).health(health);
        let balancer = builder.fast(fast.clone()).start();
        wait_for_health(&balancer, 0, Health::Up);
        wait_for("a look", || (fast.0.looks.load(Ordering::Acquire) > 1).then_some(()));
        assert_eq!(balancer.service.servers[0].health(), Health::Up, "what was there before is no error");
        fast.0.refused.store(1001, Ordering::Relaxed);
        fast.0.unanswered.store(2, Ordering::Relaxed);
        wait_for_health(&balancer, 0, Health::Down);
        wait_for("the end", || (*fast.0.ended.lock().expect("lock") == ended).then_some(()));
        assert_eq!(balancer.service.servers[1].health(), Health::Up);
    }
}

#[test]
fn a_server_that_comes_back_gets_its_clients_by_and_by() {
    let (well, moody) = (Origin::named("s1"), Origin::moody("s2"));
    let (moody, moods) = moody;
    let health = HealthConfig { slow_start: Some(NEVER), ..checked(Duration::from_millis(20)) };
    let builder = Builder::new([]).server(well.address).server(moody.address);
    let balancer = builder.health(health).start();
    wait_for_health(&balancer, 1, Health::Up);
    assert_eq!(answers(&balancer, 8), [4, 4], "not at the start");
    moods.set(Mood::Says(FAILS));
    wait_for_health(&balancer, 1, Health::Down);
    moods.set(Mood::Well);
    wait_for_health(&balancer, 1, Health::Up);
    assert_eq!(balancer.service.servers[1].share(), 1);
    assert_eq!(answers(&balancer, 34), [32, 2], "a sixteenth of what the other gets");
}

#[test]
fn a_slow_start_comes_to_its_end_and_begins_again_after_a_maintenance() {
    use balancer::server::Operator;
    let origin = Origin::named("s1");
    let health = HealthConfig { slow_start: Some(Duration::from_millis(500)), ..HealthConfig::default() };
    let balancer = Builder::new([]).server(origin.address).health(health).start();
    let servers = &balancer.service.servers;
    let shares = Arc::new(Mutex::new(Vec::new()));
    let wait_for_share = |share| {
        wait_for("the share", || {
            let now = servers[0].share();
            shares.lock().expect("lock").push(now);
            (now == share).then_some(())
        });
    };
    for _ in 0..2 {
        servers.set_operator(0, Operator::Maint);
        wait_for_share(1);
        shares.lock().expect("lock").clear();
        servers.set_operator(0, Operator::Ready);
        wait_for_share(WHOLE);
        let seen = shares.lock().expect("lock").clone();
        assert!(seen.is_sorted() && seen.len() > 2, "{seen:?}");
    }
}

#[test]
fn servers_that_come_and_go_are_watched_while_they_are_there() {
    let [first, second, third] = ["s1", "s2", "s3"].map(Origin::named);
    let builder = Builder::new([]).server(first.address);
    let balancer = builder.balance(Balance::First).health(checked(Duration::from_millis(5))).start();
    let servers = &balancer.service.servers;
    let server =
        |name: &str, address| Server::new(name.into(), None, address, Identity { id: 9, generation: 1 });
    wait_for_health(&balancer, 0, Health::Up);
    let added = servers.add(server("s2", second.address)).expect("a place");
    wait_for_health(&balancer, added, Health::Up);
    let moved = servers.replace(added, server("s2", third.address)).expect("a place");
    wait_for_health(&balancer, moved, Health::Up);
    let is_left_alone = |origin: &Origin| {
        // One check may have been under way.
        origin.asked();
        (0..10).for_each(|_| drop(first.request()));
        assert!(origin.asked() <= 1, "it is checked still");
    };
    first.asked();
    is_left_alone(&second);
    assert!(third.asked() > 0);
    servers.retire(moved);
    first.asked();
    is_left_alone(&third);
}
