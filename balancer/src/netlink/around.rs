//! The interfaces that a service's packets come and go by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;

use super::link::{self, Link};
use super::route;

/// Somebody far away, to learn the way there. Nothing is sent.
pub const ELSEWHERE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(1, 1, 1, 1), Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111));

/// An address of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// The address.
    pub address: IpAddr,
    /// The interface that has it.
    pub interface: String,
}

/// The addresses of this host.
pub fn addresses() -> Vec<Local> {
    let entries = getifaddrs().into_iter().flatten();
    let local = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
        Some(Local { address: v4.or_else(v6)?, interface: entry.interface_name })
    };
    entries.filter_map(local).collect()
}

/// The interfaces of the listen addresses and those towards the servers, as they are now. The loopback is none of them,
/// nor is one that is down.
pub fn interfaces(listen: &[SocketAddr], servers: &[SocketAddr]) -> Vec<Link> {
    let links = link::all().unwrap_or_default();
    let way = |to: IpAddr| route::to(to).ok().flatten().map(|route| route.interface);
    choose(&links, &addresses(), listen, servers, way)
}

fn choose(
    links: &[Link],
    addresses: &[Local],
    listen: &[SocketAddr],
    servers: &[SocketAddr],
    way: impl Fn(IpAddr) -> Option<u32>,
) -> Vec<Link> {
    let is_loopback = |name: &str| links.iter().any(|link| link.is_loopback && link.name == name);
    let mut wanted: Vec<u32> = Vec::new();
    let mut want_holder = |holder: &str| {
        wanted.extend(links.iter().filter(|link| link.name == holder).map(|link| link.index));
    };
    let mut from_elsewhere = Vec::new();
    for at in listen.iter().map(|listen| listen.ip().to_canonical()) {
        let same_family = |local: &&Local| local.address.is_ipv4() == at.is_ipv4();
        for local in addresses.iter().filter(same_family) {
            let is_meant = local.address == at || at.is_unspecified() && !is_link_local(local.address);
            if is_meant && !is_loopback(&local.interface) {
                want_holder(&local.interface);
            } else if is_meant && !local.address.is_loopback() {
                // A service address on the loopback, as routing protocols announce them: its clients come from outside.
                from_elsewhere.push(if at.is_ipv4() { ELSEWHERE.0.into() } else { ELSEWHERE.1.into() });
            }
        }
    }
    let servers = servers.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified());
    wanted.extend(from_elsewhere.into_iter().chain(servers).filter_map(way));
    links
        .iter()
        .filter(|link| link.is_up && !link.is_loopback && wanted.contains(&link.index))
        .cloned()
        .collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listen: &[&str], servers: &[&str]) -> String {
        let link = |index: u32, name: &str| Link {
            name: name.to_owned(),
            index,
            is_up: name != "down",
            is_loopback: name == "lo",
            ..Link::default()
        };
        let links = [link(1, "lo"), link(2, "front"), link(3, "back"), link(4, "down"), link(5, "v6")];
        let local = |(address, interface): (&str, &str)| Local {
            address: address.parse().expect("an address"),
            interface: interface.to_owned(),
        };
        let addresses = [
            ("127.0.0.1", "lo"),
            ("198.51.100.7", "lo"),
            ("192.0.2.1", "front"),
            ("10.0.0.1", "back"),
            ("10.9.0.1", "down"),
            ("2001:db8::1", "v6"),
            ("fe80::1", "front"),
        ]
        .map(local);
        let way = |to: IpAddr| match to.to_string().as_str() {
            "1.1.1.1" => Some(2),
            "10.0.0.2" => Some(3),
            "127.0.0.1" => Some(1),
            _ => None,
        };
        let parse = |texts: &[&str]| {
            texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<SocketAddr>>()
        };
        let found = choose(&links, &addresses, &parse(listen), &parse(servers), way);
        found.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_holder_of_an_address_and_the_way_to_a_server_are_meant() {
        assert_eq!(chosen(&["192.0.2.1:80"], &["10.0.0.2:8080"]), "front back");
        assert_eq!(chosen(&["192.0.2.1:80", "192.0.2.1:81"], &[]), "front");
        assert_eq!(chosen(&[], &["203.0.113.9:80"]), "", "there is no way");
    }

    #[test]
    fn a_wildcard_means_every_address_of_its_family_that_others_can_reach() {
        assert_eq!(chosen(&["[::]:80"], &[]), "v6");
        assert_eq!(chosen(&["0.0.0.0:80"], &[]), "front back", "not what is down");
    }

    #[test]
    fn clients_of_an_address_on_the_loopback_come_from_outside() {
        assert_eq!(chosen(&["198.51.100.7:80"], &[]), "front");
        assert_eq!(chosen(&["127.0.0.1:80"], &["127.0.0.1:8080"]), "");
    }
}
