//! Sysctls: whether packets that come in by an interface may leave by another one, and what is asked of their source.

use std::fs;

use super::Families;
use super::row::{Row, word};
use crate::config::InterfaceConfig;
use crate::netlink::link::Link;

/// Of the interfaces together: one command where none of them forwards.
pub(super) fn in_general(interfaces: &[(Link, InterfaceConfig)], families: Families) -> Vec<Row> {
    let of = |family: &str, sysctl: &str| {
        let values: Vec<_> =
            interfaces.iter().map(|(link, _)| read(family, &link.name, "forwarding")).collect();
        general(family, sysctl, read(family, "all", "forwarding"), &values)
    };
    let v4 = families.v4.then(|| of("ipv4", "net.ipv4.ip_forward"));
    let v6 = families.v6.then(|| of("ipv6", "net.ipv6.conf.all.forwarding"));
    v4.into_iter().chain(v6).collect()
}

pub(super) fn examine(link: &Link, families: Families) -> Vec<Row> {
    let mut rows = Vec::new();
    if families.v4 {
        rows.push(of_interface("ipv4", &link.name, read("ipv4", &link.name, "forwarding")));
        let of = |interface| read("ipv4", interface, "rp_filter").unwrap_or_default();
        rows.push(source_check(&link.name, of("all"), of(&link.name)));
    }
    if families.v6 {
        rows.push(of_interface("ipv6", &link.name, read("ipv6", &link.name, "forwarding")));
    }
    rows
}

/// The kernel shows everyone the settings of the network namespace they are in.
fn read(family: &str, interface: &str, setting: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/{family}/conf/{interface}/{setting}")).ok()?.trim().parse().ok()
}

/// A name may have dots, so slashes part the words.
fn set(family: &str, interface: &str, setting: &str, value: u32) -> String {
    format!("sysctl -w {}", word(&format!("net/{family}/conf/{interface}/{setting}={value}")))
}

fn general(family: &str, sysctl: &str, all: Option<u32>, interfaces: &[Option<u32>]) -> Row {
    let check = format!("forwarding {family}");
    let is_on = |value: &Option<u32>| value.is_some_and(|value| value > 0);
    if !interfaces.is_empty() && interfaces.iter().all(is_on) {
        return Row::ok(check, "on where it has to be");
    }
    match all {
        Some(1..) => Row::ok(check, "on in general"),
        Some(0) => Row::missing(check, "off: nothing is ever fast").mend(format!("sysctl -w {sysctl}=1")),
        None => Row::warning(check, format!("this kernel has no {family}, or hides it")),
    }
}

fn of_interface(family: &str, interface: &str, value: Option<u32>) -> Row {
    let check = format!("forwarding {family} {interface}");
    match value {
        Some(1..) => Row::ok(check, "on"),
        Some(0) => {
            Row::missing(check, "off: packets that come in there are never fast (pass_forwarding_off)")
                .mend(set(family, interface, "forwarding", 1))
        }
        None => Row::warning(check, format!("{interface} has no {family}")),
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

    #[test]
    fn what_counts_is_the_interface() {
        let judge = |all, interfaces: &[_]| general("ipv4", "net.ipv4.ip_forward", all, interfaces);
        assert_eq!(judge(Some(0), &[Some(1), Some(1)]).state, State::Ok);
        assert_eq!(judge(Some(1), &[Some(1), Some(0)]).state, State::Ok, "the interface has its own row");
        let off = judge(Some(0), &[Some(1), Some(0)]);
        assert_eq!(
            (off.state, off.mend.as_deref()),
            (State::Missing, Some("sysctl -w net.ipv4.ip_forward=1"))
        );
        assert_eq!(judge(None, &[None]).state, State::Warning);
        let row = of_interface("ipv6", "eth0.5", Some(0));
        assert_eq!(row.mend.as_deref(), Some("sysctl -w net/ipv6/conf/eth0.5/forwarding=1"));
        assert_eq!(of_interface("ipv4", "eth0", Some(1)).state, State::Ok);
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
