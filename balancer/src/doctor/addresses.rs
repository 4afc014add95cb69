//! Addresses and ports: those that clients connect to, and those that servers see.

use std::net::{IpAddr, SocketAddr};

use super::row::{Row, word};
use super::taken;
use crate::config::fast_path::{overlap, usual_ports};
use crate::config::{FastPath, Forward, Subject};
use crate::netlink::around::{self, Local};

/// `running`: the process that has the name of the service.
pub(super) fn examine(subject: &Subject, running: Option<u32>) -> Vec<Row> {
    let local = around::addresses();
    let listen = subject.listen.iter();
    let mut rows: Vec<Row> =
        listen.map(|listen| taken::examine(listens(*listen, &local), *listen, running)).collect();
    if let Some(address) = subject.plan.as_ref().and_then(|plan| plan.config.http_admin) {
        let row = Row::ok(format!("--http-admin {address}"), "nobody else listens there");
        rows.push(taken::examine(row, address, running));
    }
    // Servers see none of them else.
    if subject.forward != Forward::Nat {
        return rows;
    }
    rows.extend(subject.snat_ips.iter().map(|address| answers(*address, &local)));
    let datapath = subject.plan.as_ref().and_then(|plan| plan.config.datapath.as_ref());
    let is_off = datapath.is_some_and(|datapath| datapath.fast_path == FastPath::Off);
    if let (Some(range), false) = (subject.local_ports, is_off) {
        rows.push(ports(subject.snat_ports, range));
    }
    rows
}

fn holder(address: IpAddr, local: &[Local]) -> Option<&str> {
    local.iter().find(|local| local.address == address).map(|local| local.interface.as_str())
}

fn listens(listen: SocketAddr, local: &[Local]) -> Row {
    let (check, address) = (format!("listen {listen}"), listen.ip().to_canonical());
    if address.is_unspecified() {
        return Row::ok(check, "every address of this host");
    }
    match holder(address, local) {
        Some(interface) => Row::ok(check, format!("an address of {interface}")),
        None => Row::missing(check, format!("{address} is no address of this host")).mend(add(address, None)),
    }
}

/// Servers answer to this address, so it has to be one of ours.
fn answers(address: IpAddr, local: &[Local]) -> Row {
    let check = format!("--snat-ip {address}");
    match holder(address, local) {
        Some(interface) => Row::ok(check, format!("an address of {interface}")),
        None => Row::warning(check, "no address of this host, so servers' answers may go elsewhere")
            .mend(add(address, None)),
    }
}

/// On the loopback, which packets come through to from any side.
fn add(address: IpAddr, interface: Option<&str>) -> String {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    format!("ip address add {address}/{prefix} dev {}", word(interface.unwrap_or("lo")))
}

fn ports((low, high): (u16, u16), (local_low, local_high): (u16, u16)) -> Row {
    let check = "ports";
    let Some(overlap) = overlap((low, high), (local_low, local_high)) else {
        let detail =
            format!("--snat-ports {low}-{high} and this host's own {local_low}-{local_high} are apart");
        return Row::ok(check, detail);
    };
    let mend = overlap.sysctl.or(overlap.flag);
    let detail = format!(
        "--snat-ports {low}-{high} overlap the ports {local_low}-{local_high} that this host gives to its own \
         connections; balancer does not start"
    );
    Row::missing(check, detail).mend(mend.unwrap_or_else(usual_ports))
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    #[test]
    fn addresses_have_to_be_this_host_s() {
        let local =
            [Local { address: "192.0.2.1".parse().expect("an address"), interface: "eth0".to_owned() }];
        let listens = |text: &str| listens(text.parse().expect("an address"), &local);
        assert_eq!(listens("192.0.2.1:80").detail, "an address of eth0");
        assert_eq!(listens("0.0.0.0:80").state, State::Ok);
        let row = listens("192.0.2.2:80");
        assert_eq!(row.state, State::Missing);
        assert_eq!(row.mend.as_deref(), Some("ip address add 192.0.2.2/32 dev lo"));
        let row = answers("2001:db8::1".parse().expect("an address"), &local);
        assert_eq!(row.mend.as_deref(), Some("ip address add 2001:db8::1/128 dev lo"));
    }

    #[test]
    fn an_overlap_of_ports_is_ended_by_the_kernel_or_by_the_flag() {
        assert_eq!(ports((10_000, 32_767), (32_768, 60_999)).state, State::Ok);
        assert_eq!(
            ports((10_000, 32_767), (20_000, 60_999)).mend.as_deref(),
            Some("sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"")
        );
        assert_eq!(
            ports((10_000, 65_000), (32_768, 60_999)).mend.as_deref(),
            Some("--snat-ports 10000-32767"),
            "above the flag's there are too few"
        );
    }
}
