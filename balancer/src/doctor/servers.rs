//! The way to each server: a route, an interface with the program, a neighbour.

use std::net::{IpAddr, SocketAddr};

use tokio::task::LocalSet;

use super::row::{Row, word};
use crate::config::Subject;
use crate::names::{Answers, Found};
use crate::netlink::link;
use crate::netlink::route::{self, Route};

/// Where the servers are, by name, and what is to be said of those that are nowhere.
pub(super) fn located(subject: &Subject) -> (Vec<(String, SocketAddr)>, Vec<Row>) {
    let (mut servers, mut rows) = (Vec::new(), Vec::new());
    let answers = subject.servers.iter().any(|server| server.host.is_some()).then(|| ask(subject)).flatten();
    for server in &subject.servers {
        let check = format!("server {}", server.name);
        match (&server.host, &answers) {
            (None, _) => servers.push((server.name.clone(), server.address)),
            (Some(_), None) => {
                rows.push(Row::warning(check, "its host is looked up once --listen is given, too"));
            }
            (Some(host), Some(answers)) => match answers.find(server, None, &[]) {
                Found::At(address) => {
                    servers.push((server.name.clone(), SocketAddr::new(address, server.address.port())));
                }
                Found::Nowhere(why) => rows.push(Row::missing(check, format!("{host} {why}"))),
                Found::NotAsked => {}
            },
        }
    }
    (servers, rows)
}

fn ask(subject: &Subject) -> Option<Answers> {
    let config = &subject.plan.as_ref()?.config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    Some(LocalSet::new().block_on(&runtime, Answers::ask(config)))
}

/// `with_program`: the interfaces that have it or are to get it.
pub(super) fn examine(name: &str, server: SocketAddr, with_program: &[u32]) -> Vec<Row> {
    let address = server.ip().to_canonical();
    let check = format!("server {name}");
    let route = match route::to(address) {
        Err(error) => {
            return vec![Row::warning(check, format!("the kernel does not tell its route: {error}"))];
        }
        Ok(None) => {
            return vec![
                Row::missing(check, format!("there is no route to {address}"))
                    .mend("bring its interface up, or add a route (ip route add)"),
            ];
        }
        Ok(Some(route)) => route,
    };
    let interface = link::by_index(route.interface).map(|link| link.name).unwrap_or_default();
    let way = way(&check, address, route, &interface, with_program);
    if route.is_local {
        return vec![way];
    }
    let next = route.gateway.unwrap_or(address);
    let state = route::neighbour(route.interface, next).ok().flatten();
    vec![way, neighbour(name, next, &interface, state)]
}

fn way(check: &str, address: IpAddr, route: Route, interface: &str, with_program: &[u32]) -> Row {
    if route.is_local {
        return Row::warning(check, format!("{address} is this host: connections to it are never fast"));
    }
    let through = route.gateway.map(|gateway| format!(" through {gateway}")).unwrap_or_default();
    if with_program.contains(&route.interface) {
        return Row::ok(check, format!("{address} is reached by {interface}{through}"));
    }
    let detail = format!(
        "{address} is reached by {interface}{through}, which gets no program: connections to it are never fast"
    );
    Row::missing(check, detail).mend(format!("--xdp {}", word(interface)))
}

fn neighbour(server: &str, next: IpAddr, interface: &str, state: Option<&str>) -> Row {
    let check = format!("neighbour {server}");
    match state {
        Some(known @ ("REACHABLE" | "STALE" | "DELAY" | "PROBE" | "PERMANENT" | "NOARP")) => {
            Row::ok(check, format!("{next}: {known}"))
        }
        unknown => {
            let detail = format!(
                "{next}: {}; the first connection goes through the proxy, which asks for it",
                unknown.unwrap_or("unknown")
            );
            Row::warning(check, detail).mend(format!("ip neigh replace {next} dev {} use", word(interface)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn the_interface_towards_a_server_needs_the_program() {
        let route = Route { interface: 3, gateway: None, is_local: false };
        let judge = |route, with: &[u32]| way("server s1", SERVER, route, "eth1", with);
        assert_eq!(judge(route, &[2, 3]).state, State::Ok);
        let row = judge(route, &[2]);
        assert_eq!((row.state, row.mend.as_deref()), (State::Missing, Some("--xdp eth1")));
        assert_eq!(judge(Route { is_local: true, ..route }, &[3]).state, State::Warning);
        let behind = Route { gateway: Some(IpAddr::from([10, 0, 0, 254])), ..route };
        assert_eq!(judge(behind, &[3]).detail, "10.0.0.2 is reached by eth1 through 10.0.0.254");
    }

    #[test]
    fn a_neighbour_that_is_not_known_can_be_asked_for() {
        let judge = |state| neighbour("s1", SERVER, "eth1", state);
        assert_eq!(judge(Some("STALE")).state, State::Ok);
        for state in [None, Some("FAILED"), Some("INCOMPLETE")] {
            assert_eq!(judge(state).mend.as_deref(), Some("ip neigh replace 10.0.0.2 dev eth1 use"));
        }
    }
}
