//! What the XDP program is told: which service this is, where it listens, which servers it has and in what state.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, bail};
use aya::maps::PerCpuValues;
use aya::maps::lpm_trie::Key as Prefix;
use aya::util::nr_cpus;
use balancer_ebpf::abi::{
    Address, DENIED, DeniedKey, EXCLUDED, FAST_PATH_ALWAYS, FAST_PATH_EXCLUSIVE, FAST_PATH_OFF, FORWARD_DSR,
    FORWARD_GATEWAY, FORWARD_NAT, ListenKey, MAX_DENIED, MAX_LISTENS, MAX_SERVICES, MAX_SNAT_IPS, PORT_WORDS,
    SERVER_ABSENT, SERVER_DOWN, SERVER_DRAIN, SERVER_MAINT, SERVER_UP, Server as KernelServer, ServerMeta,
    Service, Settings, denied_bits, denied_key, denied_slot, port_bit,
};
use balancer_ebpf::counter::{self, MAX_OUTCOMES};
use nix::ifaddrs::getifaddrs;

use super::maps::Maps;
use crate::cidr::AddressSet;
use crate::clock;
use crate::config::{DatapathConfig, FastPath, Forward};
use crate::server::{Identity, Server, State};

/// SYNs a second and CPU that are looked at: Katran bounds new flows per CPU at the same rate.
const SYN_RATE: u32 = 125_000;
/// ICMP errors of a kind a second and CPU: Linux sends as many of its own (`icmp_msgs_per_sec`).
const ICMP_RATE: u32 = 1_000;
/// Resets a second and CPU, after connections were ended in great number: the stack, which does not bound its own, takes a
/// microsecond or two for each.
const RESET_RATE: u32 = 10_000;

/// Enters the settings of all services, once: a secret that changed would re-route repeated SYNs.
///
/// # Errors
/// What the kernel refuses.
pub fn settings(maps: &mut Maps) -> anyhow::Result<()> {
    let mut settings = maps.settings.get(&0, 0)?;
    if settings == Settings::default() {
        settings.hash_key = random()?;
    }
    settings.half_open_cap = maps.flow_entries / 2 / 4;
    settings.syn_rate = SYN_RATE;
    settings.icmp_rate = ICMP_RATE;
    settings.reset_rate = RESET_RATE;
    Ok(maps.settings.set(0, settings, 0)?)
}

/// The slot of the service of that name; a free one is taken. To be called under the shared lock.
///
/// # Errors
/// When all slots are taken.
pub fn slot(maps: &mut Maps, name: &str) -> anyhow::Result<u32> {
    let padded = padded(name);
    let mut free = None;
    for slot in 1..MAX_SERVICES {
        let service = maps.services.get(&slot, 0)?;
        if service.name == padded {
            return Ok(slot);
        }
        if service.name == Service::FREE.name && free.is_none() {
            free = Some(slot);
        }
    }
    let Some(slot) = free else {
        bail!(
            "all {MAX_SERVICES} services of this network namespace are taken; `balancer detach` removes unused ones"
        )
    };
    maps.services.set(slot, Service { name: padded, ..Service::FREE }, 0)?;
    clear_counters(maps, slot)?;
    Ok(slot)
}

/// What an earlier service has counted in the slot is not this one's.
fn clear_counters(maps: &mut Maps, slot: u32) -> anyhow::Result<()> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    for number in 0..MAX_OUTCOMES {
        let none = PerCpuValues::try_from(vec![0_u64; cpus])?;
        maps.counters.set(counter::index(slot, number), none, 0)?;
    }
    Ok(())
}

/// The slots that are taken.
pub fn slots(maps: &Maps) -> impl Iterator<Item = u32> {
    (1..MAX_SERVICES)
        .filter(|slot| maps.services.get(slot, 0).is_ok_and(|service| service.name != Service::FREE.name))
}

/// The slot of the service of that name, if it has one.
pub fn find_slot(maps: &Maps, name: &str) -> Option<u32> {
    (1..MAX_SERVICES)
        .find(|slot| maps.services.get(slot, 0).is_ok_and(|service| service.name == padded(name)))
}

/// Whether the slot is still that of `service`: it is taken away by a detach that is forced, and may be another's then.
pub fn has_slot(maps: &Maps, slot: u32, service: &Service) -> bool {
    maps.services.get(&slot, 0).is_ok_and(|there| there.name == service.name)
}

/// What the program is to do for the service. `enabled`: false while the process drains.
pub fn service(
    name: &str,
    config: &DatapathConfig,
    deny: &AddressSet,
    maps: &Maps,
    enabled: bool,
) -> Service {
    let (first_port, last_port) = config.snat_ports;
    let ports = u32::from(last_port - first_port) + 1;
    let (v4, v6): (Vec<_>, Vec<_>) =
        config.snat_ips.iter().map(|ip| Address::from(*ip)).partition(Address::is_v4);
    let mut snat_ips = [Address::NONE; MAX_SNAT_IPS];
    for (slot, address) in snat_ips.iter_mut().zip(v4.iter().chain(&v6)) {
        *slot = *address;
    }
    let addresses = v4.len().max(v6.len()).max(1) as u32;
    let half_open_cap = maps.flow_entries / 2 / 4;
    Service {
        name: padded(name),
        heartbeat: clock::boot_ns(),
        hold: config.hold.as_nanos() as u64,
        fast_path: match config.fast_path {
            _ if !enabled => FAST_PATH_OFF,
            FastPath::Off => FAST_PATH_OFF,
            FastPath::Exclusive => FAST_PATH_EXCLUSIVE,
            FastPath::Always => FAST_PATH_ALWAYS,
        },
        verify_share: config.verify_share,
        half_open_cap: match config.forward {
            Forward::Nat => half_open_cap.min(ports * addresses / 4),
            Forward::Gateway | Forward::Dsr => half_open_cap,
        },
        first_port,
        last_port,
        snat_v4: v4.len() as u16,
        snat_v6: v6.len() as u16,
        snat_ips,
        denies: u16::from(!deny.is_empty() || !config.exclude.is_empty()),
        mask4: config.masks.0,
        mask6: config.masks.1,
        mss: config.mss,
        forward: match config.forward {
            Forward::Nat => FORWARD_NAT,
            Forward::Gateway => FORWARD_GATEWAY,
            Forward::Dsr => FORWARD_DSR,
        },
        padding: [0; 5],
    }
}

/// Makes the service's listen addresses known, a wildcard as the addresses this host has now, and takes away those
/// it no longer has. A wildcard never captures what is only passing through.
///
/// # Errors
/// What the kernel refuses.
pub fn listens(maps: &mut Maps, slot: u32, listen: &[SocketAddr]) -> anyhow::Result<()> {
    let wanted = expand(listen, &local_addresses());
    let known: Vec<(ListenKey, u32)> = maps.listens.iter().filter_map(Result::ok).collect();
    for (key, _) in known.iter().filter(|(key, owner)| *owner == slot && !wanted.contains(key)) {
        let _ = maps.listens.remove(key);
    }
    for key in &wanted {
        if !known.contains(&(*key, slot)) {
            maps.listens.insert(key, slot, 0).with_context(|| {
                format!(
                    "the kernel does not take --listen; all services here may have {MAX_LISTENS} addresses \
                     together"
                )
            })?;
        }
    }
    Ok(())
}

/// The ports that servers answer to.
pub fn answered(config: &DatapathConfig) -> (u16, u16) {
    match config.forward {
        Forward::Gateway => (0, u16::MAX),
        // Servers that answer directly do not answer to us; those of earlier flows may.
        Forward::Nat | Forward::Dsr => config.snat_ports,
    }
}

/// Makes the ports known that fast packets may go to: where this service is to listen, also at addresses that this host may
/// get later, and what its servers answer to. Also those of other services, should a program be theirs, too, that had no such
/// map. To be called under the shared lock, and before there can be such a packet.
///
/// # Errors
/// What the kernel refuses.
pub fn ports(maps: &mut Maps, listen: &[SocketAddr], servers_answer_to: (u16, u16)) -> anyhow::Result<()> {
    let services = slots(maps).filter_map(|slot| maps.services.get(&slot, 0).ok());
    // Where servers see clients, a client may have any port.
    let ranges = services.map(|service| match service.forward {
        FORWARD_GATEWAY => (0, u16::MAX),
        _ => (service.first_port, service.last_port),
    });
    let ranges: Vec<_> = ranges.chain([servers_answer_to]).collect();
    let listens = maps.listens.keys().filter_map(Result::ok).map(|key| u16::from_be_bytes(key.port));
    let listens = listens.chain(listen.iter().map(SocketAddr::port));
    let mut words = [0; PORT_WORDS as usize];
    for port in listens.chain(ranges.into_iter().flat_map(|(first, last)| first..=last)) {
        let (word, bit) = port_bit(port);
        words[word as usize] |= bit;
    }
    for (index, word) in (0..).zip(words) {
        let known = maps.ports.get(&index, 0)?;
        if known | word != known {
            maps.ports.set(index, known | word, 0)?;
        }
    }
    Ok(())
}

/// Makes `deny` the sources that the service in `slot` denies, and `exclude` those that are the proxy's. What is new is entered before what is old is removed, so
/// that nobody slips through meanwhile.
///
/// # Errors
/// What the kernel refuses.
pub fn deny(maps: &mut Maps, slot: u32, deny: &AddressSet, exclude: &AddressSet) -> anyhow::Result<()> {
    let key = |(first, prefix): (IpAddr, u8)| {
        let first = Address::from(first);
        (denied_bits(&first) + u32::from(prefix), denied_key(slot, &first))
    };
    let mut wanted: HashMap<_, _> = exclude.blocks().map(|block| (key(block), EXCLUDED)).collect();
    wanted.extend(deny.blocks().map(|block| (key(block), DENIED)));
    let of_slot = |data: &DeniedKey| denied_slot(data) == slot;
    let known = maps.denied.iter().filter_map(Result::ok);
    let known = known.map(|(key, what)| ((key.prefix_len(), key.data()), what));
    let known: HashMap<_, _> = known.filter(|((_, data), _)| of_slot(data)).collect();
    for (block, what) in wanted.iter().filter(|(block, what)| known.get(*block) != Some(*what)) {
        maps.denied.insert(&Prefix::new(block.0, block.1), what, 0).with_context(|| {
            format!(
                "the kernel does not take --deny and --fast-path-exclude; all services here may have {MAX_DENIED} \
                 blocks together"
            )
        })?;
    }
    for (length, data) in known.keys().filter(|block| !wanted.contains_key(*block)) {
        let _ = maps.denied.remove(&Prefix::new(*length, *data));
    }
    Ok(())
}

/// Writes a server. A new address is written under an absent state, so that nobody reads half of it.
///
/// # Errors
/// What the kernel refuses.
pub fn server(maps: &mut Maps, server: &Server) -> anyhow::Result<()> {
    let Identity { id, generation } = server.identity;
    let id = u32::from(id);
    let meta = |state| ServerMeta { state, generation, port: server.address.port().to_be_bytes() }.pack();
    let state = match server.state() {
        State::Up => SERVER_UP,
        State::Drain => SERVER_DRAIN,
        State::Down => SERVER_DOWN,
        State::Maint => SERVER_MAINT,
    };
    let address = match Address::from(server.address.ip()) {
        // Nobody could say by which interface.
        address if address.is_link_local() => Address::NONE,
        address => address,
    };
    let snat = if address.is_none() { address } else { source_towards(server.address) };
    write_server(maps, id, KernelServer { meta: meta(state), address, snat })
}

/// Looks again which address of ours the kernel uses towards a server: addresses and routes come and go while the
/// server's state stays the same.
///
/// # Errors
/// What the kernel refuses.
pub fn source_address(maps: &mut Maps, id: u16, server: SocketAddr) -> anyhow::Result<()> {
    let entry = maps.servers.get(&u32::from(id), 0)?;
    let snat = source_towards(server);
    if entry.snat == snat || entry.address.is_none() {
        return Ok(());
    }
    write_server(maps, u32::from(id), KernelServer { snat, ..entry })
}

fn write_server(maps: &mut Maps, id: u32, entry: KernelServer) -> anyhow::Result<()> {
    let old = maps.servers.get(&id, 0)?;
    if (old.address, old.snat) != (entry.address, entry.snat) {
        let absent = |server: KernelServer| KernelServer {
            meta: ServerMeta { state: SERVER_ABSENT, ..ServerMeta::unpack(server.meta) }.pack(),
            ..server
        };
        maps.servers.set(id, absent(old), 0)?;
        maps.servers.set(id, absent(entry), 0)?;
    }
    Ok(maps.servers.set(id, entry, 0)?)
}

/// Takes a server's id out of use: new connections to it are the proxy's.
pub fn remove_server(maps: &mut Maps, id: u16) {
    let _ = maps.servers.set(u32::from(id), KernelServer::default(), 0);
}

/// Tells the program that the process is alive.
///
/// # Errors
/// What the kernel refuses.
pub fn heartbeat(maps: &mut Maps, slot: u32, service: &mut Service) -> anyhow::Result<()> {
    service.heartbeat = clock::boot_ns();
    Ok(maps.services.set(slot, *service, 0)?)
}

/// The address that the kernel would use towards a server. Connecting a UDP socket sends nothing.
pub(super) fn source_towards(server: SocketAddr) -> Address {
    let any: IpAddr = match server.ip().to_canonical() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let server = (server.ip().to_canonical(), server.port());
    let local = UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect(server).and_then(|()| socket.local_addr()));
    match local.map(|address| Address::from(address.ip())) {
        Ok(address) if !address.is_link_local() => address,
        _ => Address::NONE,
    }
}

fn expand(listen: &[SocketAddr], local: &[IpAddr]) -> HashSet<ListenKey> {
    let key = |address: IpAddr, port: u16| ListenKey {
        address: address.into(),
        port: port.to_be_bytes(),
        padding: [0; 2],
    };
    let mut keys = HashSet::new();
    for address in listen {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if ip.is_unspecified() {
            let same_family = local.iter().filter(|local| local.is_ipv4() == ip.is_ipv4());
            keys.extend(same_family.map(|local| key(*local, port)));
        } else if !Address::from(ip).is_link_local() {
            keys.insert(key(ip, port));
        }
    }
    keys
}

/// Those that others can connect to from anywhere.
fn local_addresses() -> Vec<IpAddr> {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
    });
    addresses.filter(|ip| !ip.is_loopback() && !Address::from(*ip).is_link_local()).collect()
}

fn padded(name: &str) -> [u8; 32] {
    let mut padded = [0; 32];
    // Config has checked the length.
    let length = name.len().min(padded.len());
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}

fn random() -> anyhow::Result<[u64; 2]> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| bytes[at + n]));
    Ok([word(0), word(8)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_means_the_addresses_of_this_host_and_nothing_else() {
        let local = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|text| text.parse().expect("address"));
        let table = [
            ("0.0.0.0:80", "10.0.0.1:80 10.0.0.2:80"),
            ("[::]:80", "[2001:db8::1]:80"),
            ("192.0.2.9:443 [2001:db8::9]:443", "192.0.2.9:443 [2001:db8::9]:443"),
            ("[fe80::1]:80", ""),
        ];
        let addresses = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|text| text.parse().expect("address")).collect()
        };
        for (listen, expected) in table {
            let key = |at: &SocketAddr| ListenKey {
                address: at.ip().into(),
                port: at.port().to_be_bytes(),
                padding: [0; 2],
            };
            let expected = addresses(expected).iter().map(key).collect();
            assert_eq!(expand(&addresses(listen), &local), expected, "{listen}");
        }
    }
}
