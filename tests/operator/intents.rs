//! What operators have said, after a restart. The rules themselves are tested where they are.

use super::Daemon;

const FLAGS: &str =
    "--server s1=127.0.0.1:1,weight=5 --server s2=127.0.0.1:2 --server s3=127.0.0.1:3 --check none";

/// Says something of every kind.
fn speak(daemon: &Daemon) {
    daemon.told("set server s1 weight 7");
    daemon.told("set server s2 drain");
    daemon.told("del server s3 --force");
    daemon.told("add server late=127.0.0.1:4,weight=2");
    daemon.told("set server late maint");
    daemon.told("add server later=localhost:5");
}

/// Whether that is how things are.
fn is_heard(daemon: &Daemon) {
    assert_eq!(daemon.servers(), ["s1", "s2", "late", "later"]);
    let of = |name: &str, field: &str| daemon.server(name)[field].clone();
    assert_eq!((of("s1", "weight"), of("s1", "operator")), (7.into(), "ready".into()));
    assert_eq!((of("s2", "weight"), of("s2", "operator")), (1.into(), "drain".into()));
    assert_eq!((of("late", "weight"), of("late", "operator")), (2.into(), "maint".into()));
    super::super::eventually("an address", || of("later", "address") == "127.0.0.1:5");
}

#[test]
fn what_was_said_survives_a_crash_where_there_is_bpf() {
    let mut daemon = Daemon::start(FLAGS);
    if !daemon.remembers() {
        return;
    }
    speak(&daemon);
    is_heard(&daemon);
    let mut again = daemon.crash_and_start(FLAGS);
    assert!(
        again.seen.borrow().iter().any(|line| line.contains("server s3 stays deleted")),
        "{:?}",
        again.seen
    );
    is_heard(&again);

    // Flags that change win, and a server that they do not name is gone with all that was said of it.
    let changed =
        "--server s1=127.0.0.1:1,weight=6 --server s3=127.0.0.1:9 --server late=127.0.0.1:4 --check none";
    let mut other = again.crash_and_start(changed);
    assert_eq!(other.servers(), ["s1", "s3", "late", "later"]);
    assert_eq!((&other.server("s1")["weight"], &other.server("late")["weight"]), (&6.into(), &1.into()));
    assert_eq!(other.server("late")["operator"], "maint", "which is said of the name");
    other.told("del server later --force");
    let mut back = other.crash_and_start(FLAGS);
    assert_eq!(back.servers(), ["s1", "s2", "s3"]);
    assert_eq!((&back.server("s1")["weight"], &back.server("s2")["operator"]), (&5.into(), &"ready".into()));
    back.told("set server s1 maint");
    back.child.kill().expect("killed");
    back.child.wait().expect("ended");
    let detached = super::super::balancer(&format!("detach --name {}", back.name));
    assert!(detached.status.success(), "{detached:?}");
    let fresh = Daemon::start_at(&back.directory, &back.name, FLAGS);
    assert_eq!(fresh.server("s1")["operator"], "ready", "detached: forgotten");
}

#[test]
fn what_was_said_survives_a_hot_restart() {
    let mut daemon = Daemon::start(FLAGS);
    speak(&daemon);
    let again = Daemon::start_at(&daemon.directory, &daemon.name, &format!("{FLAGS} --takeover"));
    assert_eq!(daemon.wait(), Some(0));
    is_heard(&again);
}

#[test]
fn a_disabled_server_waits_for_the_operator() {
    let flags = "--server s1=127.0.0.1:1,disabled --check none";
    let mut daemon = Daemon::start(flags);
    assert_eq!(daemon.server("s1")["state"], "maint");
    daemon.told("set server s1 ready");
    let again = Daemon::start_at(&daemon.directory, &daemon.name, &format!("{flags} --takeover"));
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(again.server("s1")["state"], "up", "the operator has spoken");
}
