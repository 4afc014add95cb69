//! Whether somebody else has an address of the service, as HAProxy may on the day of the move.

use std::fs;
use std::net::SocketAddr;

use super::row::{Row, State, word};
use crate::listen;
use crate::occupant::{Occupants, Process};

/// What is to be said of `address`: `row`, unless it is somebody else's. `running`: the service, whose it may be.
pub(super) fn examine(row: Row, address: SocketAddr, running: Option<u32>) -> Row {
    if row.state != State::Ok || address.port() == 0 {
        return row;
    }
    let occupants = match listen::is_taken(address) {
        Some(true) => Some(Occupants::of(address)),
        Some(false) => None,
        // Whoever may not bind it can still see who listens.
        None => Occupants::listening(address),
    };
    match occupants {
        Some(occupants) => judge(row, &occupants, running, unit),
        None => row,
    }
}

fn judge(
    row: Row,
    occupants: &Occupants,
    running: Option<u32>,
    unit: impl Fn(&Process) -> Option<String>,
) -> Row {
    let Occupants(processes) = occupants;
    // Whose descriptors cannot be seen may be the service itself.
    if running.is_some_and(|pid| processes.is_empty() || occupants.has(pid)) {
        return row;
    }
    let detail = format!("in use by {occupants}, so balancer cannot listen there");
    let Some(first) = processes.first() else {
        return Row::missing(row.check, detail).mend("run balancer doctor as root, who sees which one");
    };
    if let [Process { pid: 1, name }] = processes.as_slice()
        && name == "systemd"
    {
        let detail = "systemd listens there for a .socket unit, so balancer starts only if that is its own";
        return Row::warning(row.check, detail).mend("systemctl list-sockets");
    }
    let pids: Vec<_> = processes.iter().map(|process| process.pid.to_string()).collect();
    let kill = || format!("kill {}", pids.join(" "));
    let stop = unit(first).map(|unit| format!("systemctl stop {}", word(&unit)));
    Row::missing(row.check, detail).mend(stop.unwrap_or_else(kill))
}

/// The unit that starts such a process again if it is only killed. What the doctor itself belongs to is not to be stopped.
fn unit(process: &Process) -> Option<String> {
    let group = |process: &str| fs::read_to_string(format!("/proc/{process}/cgroup")).ok();
    let theirs = group(&process.pid.to_string()).filter(|theirs| group("self").as_ref() != Some(theirs))?;
    unit_in(&theirs, &process.name)
}

/// `0::/system.slice/haproxy.service`. A unit of another name may hold more than that process: it is left out.
fn unit_in(group: &str, name: &str) -> Option<String> {
    let of_line = |line: &str| line.split_once(":/system.slice/")?.1.split('/').next().map(str::to_owned);
    group.lines().find_map(of_line).filter(|unit| unit.strip_suffix(".service") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(holders: &[(u32, &str)], running: Option<u32>) -> Row {
        let process = |(pid, name): &(u32, &str)| Process { pid: *pid, name: (*name).to_owned() };
        let occupants = Occupants(holders.iter().map(process).collect());
        let unit = |process: &Process| (process.name == "haproxy").then(|| "haproxy.service".to_owned());
        judge(Row::ok("listen 192.0.2.1:80", "an address of eth0"), &occupants, running, unit)
    }

    #[test]
    fn whoever_else_has_the_address_is_named_with_what_stops_it() {
        let row = judged(&[(7, "nginx"), (8, "nginx")], None);
        assert_eq!((row.state, &*row.check), (State::Missing, "listen 192.0.2.1:80"));
        assert!(row.detail.starts_with("in use by nginx (pid 7) and 1 more"), "{row:?}");
        assert_eq!(row.mend.as_deref(), Some("kill 7 8"));
        // Which would be started again if it were killed.
        assert_eq!(judged(&[(7, "haproxy")], None).mend.as_deref(), Some("systemctl stop haproxy.service"));
        let unseen = judged(&[], None);
        assert!(unseen.state == State::Missing && unseen.mend.is_some_and(|mend| mend.contains("as root")));
    }

    #[test]
    fn the_running_service_has_its_address() {
        assert_eq!(
            judged(&[(6, "balancer"), (7, "balancer")], Some(7)).state,
            State::Ok,
            "a predecessor drains"
        );
        assert_eq!(judged(&[], Some(7)).state, State::Ok, "of another user");
        assert_eq!(judged(&[(6, "balancer")], Some(7)).state, State::Missing, "another service has it");
    }

    #[test]
    fn systemd_may_listen_for_us() {
        let row = judged(&[(1, "systemd")], None);
        assert!(
            row.state == State::Warning && row.mend.as_deref() == Some("systemctl list-sockets"),
            "{row:?}"
        );
    }

    #[test]
    fn a_unit_is_known_by_the_name_of_its_process() {
        let unit = |group: &str, name: &str| unit_in(group, name);
        assert_eq!(unit("0::/system.slice/haproxy.service\n", "haproxy").as_deref(), Some("haproxy.service"));
        assert_eq!(
            unit("12:pids:/x\n1:name=systemd:/system.slice/nginx.service/a", "nginx").as_deref(),
            Some("nginx.service")
        );
        assert_eq!(
            unit("0::/system.slice/docker.service\n", "docker-proxy"),
            None,
            "with all its containers"
        );
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n", "haproxy"), None);
        assert_eq!(unit("", "haproxy"), None);
    }
}
