//! What the program would do with a SYN, as far as that can be told without one: the same questions in the same order,
//! asked of the same maps.

use std::net::IpAddr;

use balancer_ebpf::abi::{
    Address, FAST_PATH_EXCLUSIVE, FAST_PATH_OFF, FORWARD_DSR, FORWARD_GATEWAY, FORWARD_NAT, SERVER_DOWN,
    SERVER_DRAIN, SERVER_MAINT, SERVER_UP, ServerMeta, Service,
};
use balancer_ebpf::affinity::Affinity;

use super::maps::Maps;
use super::routes;
use crate::cidr::AddressSet;
use crate::clock;

/// Whether a new connection of `client`, whose entry in the table of sources is `entry`, would be fast, and why.
pub fn foresee(
    maps: &Maps,
    service: &Service,
    (deny, exclude): (&AddressSet, &AddressSet),
    client: IpAddr,
    entry: Option<Affinity>,
) -> (bool, String) {
    match obstacle(maps, service, (deny, exclude), client, entry) {
        Some(why) => (false, why),
        None if service.fast_path == FAST_PATH_EXCLUSIVE && service.verify_share <= 1 => {
            (false, "every new connection is verified by the proxy (--verify-share 1)".into())
        }
        None if service.fast_path == FAST_PATH_EXCLUSIVE => {
            (true, format!("but one in {} new connections is verified by the proxy", service.verify_share))
        }
        None => (true, "the address is known and its server is usable".into()),
    }
}

fn obstacle(
    maps: &Maps,
    service: &Service,
    (deny, exclude): (&AddressSet, &AddressSet),
    client: IpAddr,
    entry: Option<Affinity>,
) -> Option<String> {
    let now = clock::boot_ns();
    let seconds = (now / 1_000_000_000) as u32;
    if service.fast_path == FAST_PATH_OFF {
        return Some("the fast path is off".into());
    }
    if deny.contains(client) {
        return Some("--deny names the address".into());
    }
    if exclude.contains(client) {
        return Some("--fast-path-exclude names the address".into());
    }
    let client = Address::from(client);
    if client.is_link_local() {
        return Some("the address means something on one link only".into());
    }
    let Some(entry) = entry else { return Some("nothing is known about the address".into()) };
    if !entry.is_live(seconds) {
        return Some("what was known about the address has expired".into());
    }
    if entry.is_tentative() {
        return Some("no server has answered a request of this address yet".into());
    }
    if entry.is_ambiguous() {
        return Some("several users were seen behind the address".into());
    }
    let id = u32::from(entry.server());
    let Ok(server) = maps.servers.get(&id, 0) else { return Some("its server is not known".into()) };
    let meta = ServerMeta::unpack(server.meta);
    match meta.state {
        SERVER_UP => {}
        SERVER_DRAIN => return Some("its server drains".into()),
        SERVER_DOWN => return Some("its server is down".into()),
        SERVER_MAINT => return Some("its server is in maintenance".into()),
        _ => return Some("its server is not in use".into()),
    }
    if meta.generation != entry.generation() {
        return Some("its server has another address since".into());
    }
    if server.address.is_none() {
        return Some("the address of its server means something on one link only".into());
    }
    if server.address.is_v4() != client.is_v4() {
        return Some("one of the address and its server's is IPv4 and the other IPv6".into());
    }
    if service.forward == FORWARD_NAT && server.snat.is_none() {
        return Some("there is no route to its server".into());
    }
    let on_link = |ip| routes::neighbour_towards(ip).is_some_and(|neighbour| neighbour.address == ip);
    if service.forward == FORWARD_DSR && !on_link(server.address.ip()) {
        return Some("the way to its server leads through a router, which --forward dsr cannot use".into());
    }
    if service.forward == FORWARD_GATEWAY && is_beside(client.ip(), server.address.ip()) {
        return Some(
            "it is on its server's own link, whose answers would not come back through this host".into(),
        );
    }
    if maps.not_fast.get(&id, 0).is_ok_and(|until| until > now) {
        return Some(
            "its server answers with unfinished checksums (transmit offload); see the README".into(),
        );
    }
    None
}

/// Both are on the same link of ours, or the same.
fn is_beside(client: IpAddr, server: IpAddr) -> bool {
    let (Some(to_client), Some(to_server)) =
        (routes::neighbour_towards(client), routes::neighbour_towards(server))
    else {
        return false;
    };
    client == server || to_client.ifindex == to_server.ifindex && to_client.address == client
}
