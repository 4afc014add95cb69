//! What the operator is told of a change: which server, why, who is left, and how many connections it concerns.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::monitor::{Change, Reason};
use crate::log::counted;
use crate::server::{Ended, Health, Servers};

/// Connections that the server at `place` has now, on both paths.
pub(super) fn connections(servers: &Servers, place: usize) -> u64 {
    let slow = servers[place].in_flight.load(Ordering::Relaxed);
    u64::from(slow) + u64::from(servers.fast_connections(place))
}

/// The line for a change at `place` that has been published; `None`: nobody has said anything else before.
/// `connections`: those it had; `ended`: what has become of them.
pub(super) fn line(
    servers: &Servers,
    place: usize,
    change: &Change,
    connections: u64,
    ended: Option<Ended>,
) -> Option<String> {
    let server = &servers[place];
    let is_back = change.from == Health::Down;
    let (news, whose) = match (change.to, change.from) {
        (Health::Down, _) => ("is down", "affected"),
        (Health::Draining, Health::Down) => ("is up and asks for no new clients", ""),
        (Health::Draining, _) => ("asks for no new clients", "stay for the time being"),
        (_, Health::Draining) => ("takes new clients again", ""),
        (_, Health::Down) => ("is up", ""),
        (_, Health::Unknown | Health::Up) => return None,
    };
    let mut line = format!("server {} {news}", server.name);
    // Writing to a string cannot fail.
    let _ = match &change.why {
        Reason::Well(1) if is_back => write!(line, ": a check is well"),
        Reason::Well(count) if is_back => write!(line, ": {count} checks in a row are well"),
        Reason::Well(_) | Reason::Itself => Ok(()),
        Reason::Ill(1, why) => write!(line, ": {why}"),
        Reason::Ill(count, why) => write!(line, ": {why} ({count} checks in a row)"),
        Reason::Observed(streak) => {
            let errors = counted(u64::from(streak.count), "error");
            write!(line, ": observed {errors} in a row, the last one: {}", streak.last)
        }
    };
    let _ = write!(line, "; {}", left(servers));
    if !whose.is_empty() {
        let _ = write!(line, "; {} {whose}", counted(connections, "connection"));
    }
    if let Some(Ended { slow, fast }) = ended {
        let _ = write!(line, ", ended: {slow} in the proxy, {fast} on the fast path");
    }
    Some(line)
}

/// Who takes new clients.
fn left(servers: &Servers) -> String {
    let takes_new =
        |backup| servers.iter().filter(|server| server.backup == backup && server.takes_new()).count();
    let of = servers.iter().filter(|server| !server.backup).count();
    match (takes_new(false), takes_new(true)) {
        (0, 0) if of == servers.len() => format!("none of {of} left, so new clients are refused"),
        (0, 0) => format!("none of {of} left, and no backup, so new clients are refused"),
        (0, 1) => format!("none of {of} left, 1 backup serves"),
        (0, backups) => format!("none of {of} left, {backups} backups serve"),
        (up, _) => format!("{up} of {of} left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{servers, weighted};
    use crate::server::{Mark, Operator, Streak};

    fn change(from: Health, to: Health, why: Reason) -> Change {
        Change { from, to, why }
    }

    #[test]
    fn a_change_is_told_with_its_reason_who_is_left_and_whom_it_concerns() {
        let set = servers(3);
        set[1].in_flight.store(12, Ordering::Relaxed);
        let told = |change: &Change, ended| {
            set.set_health(1, change.to);
            line(&set, 1, change, connections(&set, 1), ended)
        };
        let ill = |count| Reason::Ill(count, "connection refused".into());
        let down = |why| change(Health::Up, Health::Down, why);
        let observed = Reason::Observed(Streak { count: 10, last: Mark::Status(503) });
        let table = [
            (
                down(ill(3)),
                "server s2 is down: connection refused (3 checks in a row); 2 of 3 left; 12 connections affected",
            ),
            (down(ill(1)), "server s2 is down: connection refused; 2 of 3 left; 12 connections affected"),
            (
                down(observed),
                "server s2 is down: observed 10 errors in a row, the last one: an answer 503; 2 of 3 left; 12 \
                 connections affected",
            ),
            (
                change(Health::Down, Health::Up, Reason::Well(2)),
                "server s2 is up: 2 checks in a row are well; 3 of 3 left",
            ),
            (
                change(Health::Up, Health::Draining, Reason::Itself),
                "server s2 asks for no new clients; 2 of 3 left; 12 connections stay for the time being",
            ),
            (
                change(Health::Draining, Health::Up, Reason::Well(3)),
                "server s2 takes new clients again; 3 of 3 left",
            ),
            (
                change(Health::Down, Health::Draining, Reason::Itself),
                "server s2 is up and asks for no new clients; 2 of 3 left",
            ),
        ];
        for (change, expected) in table {
            assert_eq!(told(&change, None).as_deref(), Some(expected));
        }
        let ended = told(&down(ill(2)), Some(Ended { slow: 8, fast: 4 })).expect("news");
        assert!(
            ended.ends_with("; 12 connections affected, ended: 8 in the proxy, 4 on the fast path"),
            "{ended}"
        );
        assert_eq!(told(&change(Health::Unknown, Health::Up, Reason::Well(1)), None), None);
    }

    #[test]
    fn who_is_left_are_those_that_take_new_clients() {
        let set = weighted(&[(1, false), (1, false), (0, false), (1, true), (1, true)]);
        assert_eq!(left(&set), "2 of 3 left", "one has no weight");
        set.set_operator(0, Operator::Drain);
        set.set_health(1, Health::Down);
        assert_eq!(left(&set), "none of 3 left, 2 backups serve");
        set.set_health(3, Health::Down);
        assert_eq!(left(&set), "none of 3 left, 1 backup serves");
        set.set_health(4, Health::Down);
        assert_eq!(left(&set), "none of 3 left, and no backup, so new clients are refused");
        set.retire(4);
        set.retire(3);
        assert_eq!(left(&set), "none of 3 left, so new clients are refused");
    }
}
