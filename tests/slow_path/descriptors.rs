//! A host that runs short of descriptors. The limit is the process's, so each of these tests has a process of its own.

use std::fs::File;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::balancer::{Builder, cookie, wait_for};
use super::origin::Origin;

/// Set in the process that a test has for itself.
const ALONE: &str = "BALANCER_TEST_ALONE";

/// Runs `story`, which is all of the test `name` of this module, in another process.
fn alone(name: &str, story: impl FnOnce()) {
    in_its_own_process(&format!("slow_path::descriptors::{name}"), story);
}

/// Runs `story`, which is all of the test of that path, in another process.
pub fn in_its_own_process(name: &str, story: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return story();
    }
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(["--exact", name]).env(ALONE, "1").output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 1 passed"), "{text}");
}

fn limit(files: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, files, hard).expect("set");
}

/// Takes every descriptor that is left of a small limit.
fn take_all() -> Vec<File> {
    limit(128);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn a_shortage_does_not_move_a_user_off_a_healthy_server() {
    alone("a_shortage_does_not_move_a_user_off_a_healthy_server", || {
        let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
        let balancer = Builder::new([cookie()]).server(s1.address).server(s2.address).start();
        let mut client = balancer.client();
        wait_for("the client", || (balancer.stats().connections == 1).then_some(()));
        let taken = take_all();
        let short = client.get_with_cookie("SRV=s2");
        drop(taken);
        assert_eq!((short.status(), short.header("set-cookie")), (503, None));
        let line = balancer.log_line(0);
        assert!(line.ends_with(" s2 VN persist=cookie:hit>s2 fault=shortage\n"), "{line}");
        assert_eq!((balancer.stats().retries, balancer.stats().redispatches), (2, 0));
        let after = client.get_with_cookie("SRV=s2");
        assert_eq!((after.text().as_str(), after.header("set-cookie")), ("s2", None));
    });
}

#[test]
fn idle_connections_are_given_up_for_one_that_is_needed() {
    alone("idle_connections_are_given_up_for_one_that_is_needed", || {
        let (s1, s2) = (Origin::named("s1"), Origin::named("s2"));
        let balancer = Builder::new([cookie()]).server(s1.address).server(s2.address).start();
        let mut client = balancer.client();
        assert_eq!(client.get_with_cookie("SRV=s1").text(), "s1");
        let taken = take_all();
        assert_eq!(client.get_with_cookie("SRV=s2").text(), "s2");
        drop(taken);
        assert_eq!((balancer.stats().retries, balancer.stats().redispatches), (0, 0));
    });
}

#[test]
fn clients_never_take_the_descriptors_of_their_servers() {
    alone("clients_never_take_the_descriptors_of_their_servers", || {
        limit(161);
        let origin = Origin::named("s1");
        let balancer = Builder::new([]).server(origin.address).start();
        assert_eq!(balancer.client().get("/").text(), "s1", "the worker has seen its limit");
        wait_for("its end", || (balancer.stats().connections_active == 0).then_some(()));
        limit(getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").1);
        // 161 without a reserve of 1 × (4 + 2) + 1 + 64, halved.
        let mut clients: Vec<_> = (0..45).map(|_| balancer.client()).collect();
        assert!(clients.iter_mut().all(|client| client.get("/").text() == "s1"));
        let mut late = balancer.client();
        late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(Duration::from_millis(300));
        assert_eq!(balancer.stats().connections_active, 45, "the next one waits");
        drop(clients.pop());
        assert_eq!(late.response().text(), "s1");
    });
}

#[test]
fn a_drain_starts_in_a_shortage_and_still_serves_the_queue() {
    alone("a_drain_starts_in_a_shortage_and_still_serves_the_queue", || {
        let origin = Origin::named("s1");
        let mut balancer = Builder::new([]).server(origin.address).start();
        let mut idle = balancer.client();
        assert_eq!(idle.get("/").text(), "s1");
        let mut taken = take_all();
        taken.pop();
        let mut queued = balancer.client();
        queued.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        thread::sleep(Duration::from_millis(50));
        balancer.drain();
        idle.expect_end();
        drop(idle);
        let response = queued.response();
        assert_eq!((response.text().as_str(), response.header("connection")), ("s1", Some("close")));
        drop(queued);
        balancer.expect_end();
    });
}
