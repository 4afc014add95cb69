//! Sysctls: whether packets that come in by an interface may leave by another one, and what is asked of their source.

use std::fs;

use super::Families;
use super::row::{Row, word};
use crate::config::InterfaceConfig;
use crate::netlink::link::Link;

/// Of the interfaces together: one row where none of them forwards.
pub(super) fn in_general(interfaces: &[(Link, InterfaceConfig)], families: Families) -> Vec<Row> {
    let of = |family: &'static str| {
        let interfaces = interfaces.iter().map(|(link, _)| Interface::read(family, &link.name));
        general(family, read(family, "all", "forwarding"), &interfaces.collect::<Vec<_>>())
    };
    families.v4.then(|| of("ipv4")).into_iter().chain(families.v6.then(|| of("ipv6"))).collect()
}

pub(super) fn examine(link: &Link, families: Families) -> Vec<Row> {
    let mut rows = Vec::new();
    if families.v4 {
        rows.push(of_interface("ipv4", &Interface::read("ipv4", &link.name)));
        let of = |interface| read("ipv4", interface, "rp_filter").unwrap_or_default();
        rows.push(source_check(&link.name, of("all"), of(&link.name)));
    }
    if families.v6 {
        rows.push(of_interface("ipv6", &Interface::read("ipv6", &link.name)));
    }
    rows
}

/// What an interface does with packets of one family.
struct Interface {
    name: String,
    forwards: Option<u32>,
    /// It takes its routes from routers, and would not any more once it forwards.
    asks_routers: bool,
}

impl Interface {
    fn read(family: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            forwards: read(family, name, "forwarding"),
            asks_routers: family == "ipv6" && read(family, name, "accept_ra") == Some(1),
        }
    }

    fn is_on(&self) -> bool {
        self.forwards.is_some_and(|value| value > 0)
    }

    fn switch_on(&self, family: &str) -> String {
        let forward = set(family, &self.name, "forwarding", 1);
        match self.asks_routers {
            true => format!("{} && {forward}", set(family, &self.name, "accept_ra", 2)),
            false => forward,
        }
    }
}

/// The kernel shows everyone the settings of the network namespace they are in.
fn read(family: &str, interface: &str, setting: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/{family}/conf/{interface}/{setting}")).ok()?.trim().parse().ok()
}

/// A name may have dots, so slashes part the words.
fn set(family: &str, interface: &str, setting: &str, value: u32) -> String {
    format!("sysctl -w {}", word(&format!("net/{family}/conf/{interface}/{setting}={value}")))
}

fn general(family: &str, all: Option<u32>, interfaces: &[Interface]) -> Row {
    let check = format!("forwarding {family}");
    if !interfaces.is_empty() && interfaces.iter().all(Interface::is_on) {
        return Row::ok(check, "on where it has to be");
    }
    match all {
        Some(1..) => Row::ok(check, "on in general"),
        Some(0) => {
            let row = Row::missing(check, "off: nothing is ever fast");
            if family == "ipv4" || interfaces.is_empty() {
                let general =
                    if family == "ipv4" { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
                return row.mend(format!("sysctl -w {general}=1"));
            }
            // In general would mean other interfaces, too, which might lose their routes by it.
            let off = interfaces.iter().filter(|interface| !interface.is_on());
            row.mend(off.map(|interface| interface.switch_on(family)).collect::<Vec<_>>().join(" && "))
        }
        None => Row::warning(check, format!("this kernel has no {family}, or hides it")),
    }
}

fn of_interface(family: &str, interface: &Interface) -> Row {
    let check = format!("forwarding {family} {}", interface.name);
    match interface.forwards {
        Some(1..) => Row::ok(check, "on"),
        Some(0) => {
            Row::missing(check, "off: packets that come in there are never fast (pass_forwarding_off)")
                .mend(interface.switch_on(family))
        }
        None => Row::warning(check, format!("{} has no {family}", interface.name)),
    }
}

/// The kernel goes by the larger of the two; 1 is strict, 2 is loose.
fn source_check(interface: &str, all: u32, own: u32) -> Row {
    let check = format!("rp_filter {interface}");
    match all.max(own) {
        1 => {
            let detail = "strict: a client whose way back is another interface is fast, and cut off whenever the proxy \
                          should serve it";
            Row::warning(check, detail).mend(set("ipv4", interface, "rp_filter", 2))
        }
        2 => Row::ok(check, "loose"),
        _ => Row::ok(check, "off"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    fn interface(name: &str, forwards: Option<u32>, asks_routers: bool) -> Interface {
        Interface { name: name.to_owned(), forwards, asks_routers }
    }

    #[test]
    fn what_counts_is_the_interface() {
        let judge = |all, values: &[Option<u32>]| {
            let interfaces: Vec<_> = values.iter().map(|value| interface("eth0", *value, false)).collect();
            general("ipv4", all, &interfaces)
        };
        assert_eq!(judge(Some(0), &[Some(1), Some(1)]).state, State::Ok);
        assert_eq!(judge(Some(1), &[Some(1), Some(0)]).state, State::Ok, "the interface has its own row");
        let off = judge(Some(0), &[Some(1), Some(0)]);
        assert_eq!(
            (off.state, off.mend.as_deref()),
            (State::Missing, Some("sysctl -w net.ipv4.ip_forward=1"))
        );
        assert_eq!(judge(None, &[None]).state, State::Warning);
        let row = of_interface("ipv4", &interface("eth0.5", Some(0), false));
        assert_eq!(row.mend.as_deref(), Some("sysctl -w net/ipv4/conf/eth0.5/forwarding=1"));
        assert_eq!(of_interface("ipv4", &interface("eth0", Some(1), false)).state, State::Ok);
    }

    #[test]
    fn an_interface_that_starts_to_forward_keeps_its_ipv6_routes() {
        let mend = "sysctl -w net/ipv6/conf/eth0/accept_ra=2 && sysctl -w net/ipv6/conf/eth0/forwarding=1";
        let eth0 = || interface("eth0", Some(0), true);
        assert_eq!(of_interface("ipv6", &eth0()).mend.as_deref(), Some(mend));
        let row = general("ipv6", Some(0), &[eth0(), interface("eth1", Some(1), true)]);
        assert_eq!(row.mend.as_deref(), Some(mend), "and nothing is done to others");
    }

    #[test]
    fn the_larger_of_two_filters_counts() {
        assert_eq!(source_check("eth0", 0, 0).state, State::Ok);
        assert_eq!(source_check("eth0", 2, 1).detail, "loose");
        assert_eq!(
            source_check("eth0", 1, 0).mend.as_deref(),
            Some("sysctl -w net/ipv4/conf/eth0/rp_filter=2")
        );
    }
}
