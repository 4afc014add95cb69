//! `balancer doctor`: what this host offers to a balancer, and how to mend what it lacks.
//!
//! Every file has a group of checks, in two halves: one reads the host, the other judges what was read and is tested
//! without it. Nothing is changed, and without privileges what cannot be looked at is said.
//!
//! | module | what it looks at |
//! |---|---|
//! | [`row`], [`report`] | one check; all of them, as a table or as JSON |
//! | `kernel` | version, capabilities, descriptors |
//! | `bpf` | the program in this kernel's verifier, the file system of pins, what other versions have left |
//! | `instance` | locks, and who holds them |
//! | `addresses` | listen addresses, addresses and ports towards servers |
//! | `taken` | who else listens at an address of the service |
//! | `interface`, `peer` | an interface, its driver and offloads; the other end of a veth pair |
//! | `forwarding` | sysctls of an interface |
//! | `servers` | routes and neighbours |
//! | `answers`, `arp` | what `--forward` needs of servers and their links |
//! | `netfilter` | rules that fast packets do not meet |

mod addresses;
mod answers;
mod arp;
#[cfg(feature = "xdp")]
mod bpf;
#[cfg(not(feature = "xdp"))]
mod bpf_absent;
mod forwarding;
mod instance;
mod interface;
mod kernel;
mod locks;
mod netfilter;
mod peer;
pub mod report;
pub mod row;
mod servers;
mod taken;

#[cfg(not(feature = "xdp"))]
use bpf_absent as bpf;

use std::net::{IpAddr, SocketAddr};

use crate::config::{InterfaceConfig, Subject};
use crate::netlink::around;
use crate::netlink::link::{self, Link};

pub use report::Report;
pub use row::{Row, State};

/// A host of many containers has more interfaces than anybody wants to read about.
const MOST_INTERFACES: usize = 16;

/// Looks at everything. `probe`: a program may be attached for a moment.
pub fn examine(subject: &Subject, probe: bool) -> Report {
    let (servers, mut unresolved) = servers::located(subject);
    let (interfaces, missing) = interfaces(subject, &servers);
    let mut rows = kernel::examine(subject);
    rows.extend(bpf::examine());
    let (running, instance) = instance::examine(subject);
    rows.extend(instance);
    rows.extend(addresses::examine(subject, running));
    rows.extend(missing);
    let families = Families::of(subject, &servers, &interfaces);
    rows.extend(forwarding::in_general(&interfaces, families));
    for (link, wish) in &interfaces {
        rows.extend(interface::examine(link, wish, running, probe));
        rows.extend(forwarding::examine(link, families));
    }
    rows.append(&mut unresolved);
    let with_program: Vec<u32> = interfaces.iter().map(|(link, _)| link.index).collect();
    rows.extend(servers.iter().flat_map(|(name, at)| servers::examine(name, *at, &with_program)));
    rows.extend(answers::examine(subject, &servers));
    rows.extend(netfilter::examine(&subject.listen));
    Report(rows)
}

/// The families that fast connections could be of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn of(
        subject: &Subject,
        servers: &[(String, SocketAddr)],
        interfaces: &[(Link, InterfaceConfig)],
    ) -> Self {
        let servers = servers.iter().map(|(_, at)| at.ip());
        let mut named: Vec<IpAddr> = subject.listen.iter().map(SocketAddr::ip).chain(servers).collect();
        if named.is_empty() {
            let is_there = |name: &str| interfaces.iter().any(|(link, _)| link.name == name);
            let local = around::addresses().into_iter().filter(|local| is_there(&local.interface));
            named.extend(local.map(|local| local.address));
            named.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        }
        let canonical = || named.iter().map(IpAddr::to_canonical);
        Self {
            v4: named.is_empty() || canonical().any(|ip| ip.is_ipv4()),
            v6: canonical().any(|ip| ip.is_ipv6()),
        }
    }
}

/// The interfaces to look at, and what is to be said of those that are not there.
fn interfaces(
    subject: &Subject,
    servers: &[(String, SocketAddr)],
) -> (Vec<(Link, InterfaceConfig)>, Vec<Row>) {
    let (mut found, mut rows) = (Vec::new(), Vec::new());
    for wish in &subject.interfaces {
        match link::by_name(&wish.name) {
            Ok(link) => found.push((link, wish.clone())),
            Err(_) => rows.push(interface::absent(&wish.name, &bpf::attached(), &subject.interfaces)),
        }
    }
    if !subject.interfaces.is_empty() && subject.auto.is_none() {
        return (found, rows);
    }
    let servers: Vec<SocketAddr> = servers.iter().map(|(_, at)| *at).collect();
    let mut more = match (subject.listen.as_slice(), servers.as_slice()) {
        ([], []) => link::all()
            .unwrap_or_default()
            .into_iter()
            .filter(|link| link.is_up && !link.is_loopback)
            .collect(),
        (listen, servers) => around::interfaces(listen, servers),
    };
    more.retain(|link| !found.iter().any(|(known, _)| known.index == link.index));
    if more.len() > MOST_INTERFACES {
        let detail = format!("{} are up, and the first {MOST_INTERFACES} are looked at", more.len());
        rows.push(Row::warning("interfaces", detail).mend("balancer doctor --interface IF"));
        more.truncate(MOST_INTERFACES);
    }
    let mode = subject.auto.unwrap_or_default();
    let wish = |link: &Link| InterfaceConfig { name: link.name.clone(), mode, is_found: true };
    found.extend(more.into_iter().map(|link| (link.clone(), wish(&link))));
    if found.is_empty() && rows.is_empty() {
        let detail = "clients and servers are all on this host, or the interfaces towards them are down";
        rows.push(Row::warning("interfaces", detail));
    }
    (found, rows)
}
