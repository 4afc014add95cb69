//! What `--forward gateway` and `dsr` need: servers whose answers come back through this host, or that have the service's
//! address and keep quiet about it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::arp::{self, Mac};
use super::peer::{Peer, Place};
use super::row::{Row, word};
use crate::config::{Forward, Subject};
use crate::netlink::around::{self, Local};
use crate::netlink::link::{self, Link};
use crate::netlink::namespaces;
use crate::netlink::route::{self, Route};

/// Whom servers answer, as far as anybody knows.
const CLIENTS: (Ipv4Addr, std::net::Ipv6Addr) = around::ELSEWHERE;

pub(super) fn examine(subject: &Subject, servers: &[(String, SocketAddr)]) -> Vec<Row> {
    let local = around::addresses();
    match subject.forward {
        Forward::Nat => Vec::new(),
        Forward::Gateway => servers.iter().filter_map(|(name, at)| way_back(name, at.ip(), &local)).collect(),
        Forward::Dsr => {
            let mut rows = Vec::new();
            let mut links: Vec<Link> = Vec::new();
            for (name, at) in servers {
                let Some((route, link)) = way(at.ip()) else { continue };
                rows.push(on_link(name, at.ip(), &route, &link));
                let listen = subject.listen.iter().filter(|listen| is_of_one_family(**listen, *at));
                rows.extend(listen.map(|listen| has_address(name, at.ip(), listen.ip(), &link)));
                if !links.iter().any(|known| known.index == link.index) {
                    links.push(link);
                }
            }
            let servers: Vec<IpAddr> = servers.iter().map(|(_, at)| at.ip().to_canonical()).collect();
            rows.extend(links.iter().flat_map(|link| quiet(link, subject, &local, &servers)));
            rows
        }
    }
}

/// A wildcard is any address; it cannot be known which of them clients use.
fn is_of_one_family(listen: SocketAddr, server: SocketAddr) -> bool {
    let (listen, server) = (listen.ip().to_canonical(), server.ip().to_canonical());
    listen.is_ipv4() == server.is_ipv4() && !listen.is_unspecified()
}

/// The way to a server that is not on this host. What else there is to say of it has its own row.
fn way(server: IpAddr) -> Option<(Route, Link)> {
    let route = route::to(server).ok()??;
    (!route.is_local).then_some(())?;
    Some((route, link::by_index(route.interface).ok()?))
}

/// The other end of a link, if that is where one of these servers lives, and not only a bridge on the way there, and somebody
/// may look at things from there.
fn peer(link: &Link, servers: &[IpAddr]) -> Option<(Peer, std::path::PathBuf)> {
    let peer = Peer::of(link)?;
    match &peer.place {
        Place::There(namespace) => {
            let namespace = namespace.clone();
            let there = namespaces::inside(&namespace, around::addresses).ok()?;
            let is_server = there.iter().any(|local| servers.contains(&local.address.to_canonical()));
            is_server.then_some((peer, namespace))
        }
        Place::Here | Place::Hidden => None,
    }
}

/// Whether a server's answers to clients come through this host.
fn way_back(name: &str, server: IpAddr, local: &[Local]) -> Option<Row> {
    let (route, link) = way(server)?;
    let server = server.to_canonical();
    let ours = local.iter().find(|local| {
        local.interface == link.name
            && local.address.is_ipv4() == server.is_ipv4()
            && !is_link_local(local.address)
    });
    let ours = ours.map(|local| local.address);
    let seen = peer(&link, &[server]).filter(|_| route.gateway.is_none()).map(|(peer, namespace)| {
        let clients = if server.is_ipv4() { IpAddr::from(CLIENTS.0) } else { CLIENTS.1.into() };
        let way = namespaces::inside(&namespace, || route::to(clients).ok().flatten()).ok().flatten();
        (peer, way)
    });
    Some(judge_way_back(name, ours, local, seen))
}

fn judge_way_back(
    name: &str,
    ours: Option<IpAddr>,
    local: &[Local],
    seen: Option<(Peer, Option<Route>)>,
) -> Row {
    let check = format!("way back {name}");
    let command = ours.map(|ours| format!("ip route replace default via {ours}"));
    let Some((peer, way)) = seen else {
        let detail = "it cannot be seen from here whether its answers to clients come through this host";
        return Row::warning(check, detail)
            .mend_if(command.map(|command| format!("on the server: {command}")));
    };
    let gateway = way.and_then(|way| way.gateway);
    if let Some(gateway) = gateway.filter(|gateway| local.iter().any(|local| local.address == *gateway)) {
        return Row::ok(check, format!("its answers to clients come through {gateway}"));
    }
    let through = gateway.map_or("lead nowhere".to_owned(), |gateway| format!("leave through {gateway}"));
    Row::missing(check, format!("its answers to clients {through}, and not through this host"))
        .mend_if(command.map(|command| peer.command(&command)))
}

fn on_link(name: &str, server: IpAddr, route: &Route, link: &Link) -> Row {
    let (check, server) = (format!("on link {name}"), server.to_canonical());
    let Some(gateway) = route.gateway else {
        return Row::ok(check, format!("{server} is on the link of {}", link.name));
    };
    let detail = format!(
        "{server} is behind the router {gateway}; what is not on a link of this host cannot be used with --forward dsr"
    );
    let bits = if server.is_ipv4() { 32 } else { 128 };
    Row::missing(check, detail).mend(format!("ip route replace {server}/{bits} dev {}", word(&link.name)))
}

/// Whether a server takes packets for the service's address.
fn has_address(name: &str, server: IpAddr, service: IpAddr, link: &Link) -> Row {
    let (check, service) = (format!("address {name} {service}"), service.to_canonical());
    let bits = if service.is_ipv4() { 32 } else { 128 };
    let command = format!("ip addr add {service}/{bits} dev lo");
    let Some((peer, namespace)) = peer(link, &[server.to_canonical()]) else {
        let detail = "it cannot be seen from here whether the server has the service's address";
        return Row::warning(check, detail).mend(format!("on the server: {command}"));
    };
    let has = namespaces::inside(&namespace, || {
        around::addresses().iter().any(|local| local.address.to_canonical() == service)
    });
    match has {
        Ok(true) => Row::ok(check, "the server has it"),
        _ => Row::missing(check, "the server does not have it, and does not take its packets")
            .mend(peer.command(&command)),
    }
}

/// Whether nobody but this host answers for the service's addresses.
fn quiet(link: &Link, subject: &Subject, local: &[Local], servers: &[IpAddr]) -> Vec<Row> {
    let as_v4 = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) if !ip.is_unspecified() => Some(ip),
        _ => None,
    };
    let services = subject.listen.iter().filter_map(|listen| as_v4(listen.ip()));
    let services: std::collections::BTreeSet<Ipv4Addr> = services.collect();
    let own =
        local.iter().filter(|local| local.interface == link.name).filter_map(|local| as_v4(local.address));
    let Some(own) = own.into_iter().find(|own| !services.contains(own)) else { return Vec::new() };
    let ask = |service: Ipv4Addr| {
        judge_quiet(link, service, arp::who_has(&link.name, own, service), peer(link, servers))
    };
    services.into_iter().map(ask).collect()
}

fn judge_quiet(
    link: &Link,
    service: Ipv4Addr,
    answer: std::io::Result<Option<Mac>>,
    peer: Option<(Peer, std::path::PathBuf)>,
) -> Row {
    let check = format!("arp {service} {}", link.name);
    match answer {
        Ok(None) => Row::ok(check, "nobody else answers for the service's address there"),
        Ok(Some(mac)) => {
            let command = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
            let command = match peer {
                Some((peer, _)) => peer.command(command),
                None => format!("on the server with {mac}: {command}"),
            };
            let detail =
                format!("{mac} answers for the service's address there, and gets what is this host's");
            Row::warning(check, detail).mend(command)
        }
        Err(error) => Row::warning(check, format!("nobody can be asked there: {error}")),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_server_behind_a_router_is_not_on_the_link() {
        let link = Link { name: "eth1".into(), ..Link::default() };
        let route = Route { interface: 3, gateway: None, is_local: false };
        assert_eq!(on_link("s1", SERVER, &route, &link).state, State::Ok);
        let behind = Route { gateway: Some(OURS), ..route };
        let row = on_link("s1", SERVER, &behind, &link);
        assert_eq!(
            (row.state, row.mend.as_deref()),
            (State::Missing, Some("ip route replace 10.0.0.2/32 dev eth1"))
        );
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let row = judge_way_back("s1", Some(OURS), &[], None);
        assert_eq!(row.state, State::Warning);
        assert_eq!(row.mend.as_deref(), Some("on the server: ip route replace default via 10.0.0.1"));
        let link = Link { name: "eth1".into(), ..Link::default() };
        let answered =
            judge_quiet(&link, Ipv4Addr::new(192, 0, 2, 1), Ok(Some(Mac([2, 0, 0, 0, 0, 9]))), None);
        assert!(answered.mend.is_some_and(|mend| mend.starts_with("on the server with 02:00:00:00:00:09: ")));
    }
}
