//! One interface: whether it is up, whose program it has or could have, and offloads that a program does not get on with.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::bpf;
use super::peer::Peer;
use super::row::{Row, word};
use crate::config::{InterfaceConfig, XdpMode};
use crate::netlink::ethtool::{self, Channels};
use crate::netlink::link::{self, Link, NATIVE_MTU_LIMIT};

/// What fits everywhere.
const USUAL_MTU: u32 = 1500;

/// Offloads that give a program several packets as one.
const MERGING: [&str; 2] = ["rx-lro", "rx-gro-hw"];

/// Whose program is on an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OnIt {
    Nothing,
    Ours,
    #[cfg_attr(not(feature = "xdp"), allow(dead_code, reason = "a build without XDP reads no pins"))]
    OtherVersion {
        /// The pin that keeps it there.
        pin: PathBuf,
    },
    Foreign {
        /// The link that keeps it there, if it is one.
        link: Option<u32>,
    },
}

/// What was read of it.
#[derive(Clone, Debug)]
struct Facts {
    link: Link,
    /// `--xdp …,mode=`
    mode: XdpMode,
    on: OnIt,
    /// The driver runs programs itself.
    runs: Option<bool>,
    /// The driver takes XDP frames now.
    transmits: Option<bool>,
    features: BTreeSet<String>,
    channels: Option<Channels>,
    peer: Option<Peer>,
    /// VLAN devices on it.
    vlans: Vec<String>,
    /// Our process, and whether its program is on other interfaces.
    running: Option<u32>,
    attached_elsewhere: bool,
    /// What an attempt has shown.
    probed: Option<Result<(), String>>,
}

impl Facts {
    fn read(link: &Link, wish: &InterfaceConfig, running: Option<u32>, probe: bool) -> Self {
        let on = bpf::on(link);
        let is_on = |other: &Link| other.kind.as_deref() == Some("vlan") && other.other == Some(link.index);
        let vlans = link::all().unwrap_or_default().into_iter().filter(is_on).map(|vlan| vlan.name);
        let may_try = probe && on == OnIt::Nothing;
        Self {
            mode: wish.mode,
            // That of a pair does, and takes it back only while the queues do not match, which has a row of its own.
            runs: bpf::runs(link).map(|runs| runs || link.is_veth()),
            transmits: bpf::transmits(link),
            features: ethtool::features(link.index).unwrap_or_default(),
            channels: ethtool::channels(link.index).ok(),
            peer: Peer::of(link),
            vlans: vlans.collect(),
            running,
            attached_elsewhere: !bpf::attached().is_empty(),
            probed: may_try.then(|| bpf::probe(link).map_err(|error| format!("{error:#}"))),
            link: link.clone(),
            on,
        }
    }

    /// Packets are handed over as socket buffers, which every device takes.
    fn is_generic(&self) -> bool {
        match (self.link.xdp, &self.on) {
            (Some(xdp), OnIt::Ours) => xdp.mode == "generic",
            _ => self.mode == XdpMode::Generic || self.runs == Some(false) && self.mode == XdpMode::Auto,
        }
    }

    fn is_attached_native(&self) -> bool {
        self.on == OnIt::Ours && !self.is_generic()
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        word(&self.link.name)
    }
}

pub(super) fn examine(link: &Link, wish: &InterfaceConfig, running: Option<u32>, probe: bool) -> Vec<Row> {
    let facts = Facts::read(link, wish, running, probe);
    let mut rows = vec![state(&facts)];
    if cfg!(feature = "xdp") {
        rows.extend([program(&facts), mtu(&facts)]);
        rows.extend(
            [transmit(&facts), queues(&facts), checksums(&facts), merging(&facts), tags(&facts)]
                .into_iter()
                .flatten(),
        );
    }
    rows
}

/// An interface that is not there. If one of ours has a name that nobody asked for, it was renamed.
pub(super) fn absent(name: &str, attached: &[u32], wishes: &[InterfaceConfig]) -> Row {
    let names = attached.iter().filter_map(|index| link::by_index(*index).ok()).map(|link| link.name);
    let stray: Vec<_> = names.filter(|there| !wishes.iter().any(|wish| wish.name == *there)).collect();
    gone(name, &stray)
}

fn gone(name: &str, stray: &[String]) -> Row {
    let row =
        Row::missing(format!("interface {name}"), "there is none of that name in this network namespace");
    match stray {
        [other] => {
            let detail =
                format!("there is none of that name; {other} has balancer's program, so it was renamed");
            let mend = format!("ip link set dev {} name {}", word(other), word(name));
            Row { detail, ..row }.mend(mend)
        }
        _ => row.mend("ip link lists those there are; name one of them"),
    }
}

fn state(facts: &Facts) -> Row {
    let Facts { link, .. } = facts;
    let check = format!("interface {}", link.name);
    if !link.is_up {
        return Row::missing(check, "down").mend(format!("ip link set dev {} up", facts.name()));
    }
    if !link.has_carrier {
        let row = Row::warning(check, "up, but nothing is at the other end");
        let peer_is_down = |peer: &&Peer| peer.link.as_ref().is_some_and(|peer| !peer.is_up);
        let up = facts.peer.as_ref().filter(peer_is_down).map(|peer| peer.command("ip link set dev NAME up"));
        return row.mend(up.unwrap_or_else(|| "look at the cable, or at the other end".to_owned()));
    }
    Row::ok(check, format!("up, {}", link.kind.as_deref().unwrap_or("hardware")))
}

/// Whose program it has, or what it could have.
fn program(facts: &Facts) -> Row {
    let check = format!("xdp {}", facts.link.name);
    let name = facts.name();
    match &facts.on {
        OnIt::Foreign { link } => {
            let row =
                Row::missing(check, "somebody else's XDP program is attached there, and there can be one");
            let off = match facts.link.xdp.map(|xdp| xdp.mode) {
                Some("generic") => "xdpgeneric off",
                Some("offloaded") => "xdpoffload off",
                _ => "xdp off",
            };
            row.mend(match link {
                Some(id) => format!("bpftool link detach id {id}"),
                None => format!("ip link set dev {name} {off}"),
            })
        }
        OnIt::OtherVersion { pin } => {
            let detail = "a balancer of another version has its program there";
            Row::missing(check, detail).mend(format!("rm {}", word(&pin.to_string_lossy())))
        }
        OnIt::Ours if facts.is_generic() && facts.runs == Some(true) && facts.mode != XdpMode::Generic => {
            Row::warning(check, "balancer's program, generic, although the driver runs programs itself")
                .mend("stop balancer, then: balancer detach, and start it again")
        }
        OnIt::Ours if facts.is_generic() => slow(check, &name, facts.mode, "balancer's program, generic"),
        OnIt::Ours => Row::ok(check, "balancer's program, native"),
        OnIt::Nothing if facts.running.is_some() && facts.attached_elsewhere => {
            let detail = "balancer runs, and its program is on other interfaces and not on this one";
            let pid = facts.running.unwrap_or_default();
            Row::warning(check, detail).mend(format!("kill -USR2 {pid}"))
        }
        OnIt::Nothing => possible(check, &name, facts),
    }
}

/// Nothing is there yet.
fn possible(check: String, name: &str, facts: &Facts) -> Row {
    match (&facts.probed, facts.runs) {
        (Some(Ok(())), _) => Row::ok(check, "native: tried, and it works"),
        (Some(Err(error)), Some(true)) => Row::missing(check, format!("native does not work: {error}"))
            .mend(format!("--xdp {name},mode=generic")),
        (None, Some(true)) => Row::ok(check, "native: the driver runs programs itself; --probe tries it"),
        (_, Some(false)) | (Some(Err(_)), None) => slow(check, name, facts.mode, "generic"),
        (None, None) => Row::warning(
            check,
            "this kernel (before 6.3) does not say whether the driver runs programs itself",
        )
        .mend("balancer doctor --probe"),
    }
}

fn slow(check: String, name: &str, mode: XdpMode, what: &str) -> Row {
    let detail = format!("{what}: the driver runs no programs, so each packet costs a socket buffer first");
    match mode {
        XdpMode::Native => Row::missing(check, "native is asked for, and the driver runs no programs")
            .mend(format!("--xdp {name},mode=generic")),
        XdpMode::Generic => Row::ok(check, what),
        XdpMode::Auto => {
            Row::warning(check, detail).mend(format!("--xdp {name},mode=generic, if that will do"))
        }
    }
}

fn mtu(facts: &Facts) -> Row {
    let (check, own) = (format!("mtu {}", facts.link.name), facts.link.mtu);
    if facts.is_attached_native() || facts.is_generic() {
        return Row::ok(check, format!("{own}"));
    }
    // The driver of a pair looks at the end that sends.
    let sender = facts.peer.as_ref().and_then(|peer| peer.link.as_ref()).map_or(own, |peer| peer.mtu);
    if sender <= NATIVE_MTU_LIMIT {
        return Row::ok(check, format!("{own}; native XDP takes up to {NATIVE_MTU_LIMIT}"));
    }
    let lower = |mtu| format!("ip link set dev {} mtu {mtu}", facts.name());
    match &facts.peer {
        Some(peer) => {
            let detail =
                format!("{sender} at {}: native XDP takes up to {NATIVE_MTU_LIMIT}", peer.describe());
            let there = peer.command(&format!("ip link set dev NAME mtu {NATIVE_MTU_LIMIT}"));
            Row::missing(check, detail).mend(format!("{} && {there}", lower(NATIVE_MTU_LIMIT)))
        }
        None => {
            let detail = format!("{own}: many drivers take native XDP only up to about {NATIVE_MTU_LIMIT}");
            Row::warning(check, detail).mend(lower(USUAL_MTU))
        }
    }
}

/// Whether frames that are sent there arrive.
fn transmit(facts: &Facts) -> Option<Row> {
    let check = format!("transmit {}", facts.link.name);
    let Some(peer) = &facts.peer else {
        // Many drivers can only once they have a program.
        let cannot = facts.is_attached_native() && facts.transmits == Some(false);
        let detail = "its driver cannot transmit XDP frames, so nothing fast leaves by it";
        return cannot
            .then(|| Row::missing(check, detail).mend("give every --xdp mode=generic, and restart"));
    };
    if facts.is_generic() {
        return Some(Row::ok(check, "socket buffers, which every device takes"));
    }
    // What the driver says counts once they match.
    if has_few_queues(facts) {
        return None;
    }
    Some(match facts.transmits {
        Some(true) => Row::ok(check, format!("{} takes XDP frames", peer.describe())),
        Some(false) => {
            let detail = format!(
                "{} takes no XDP frames (it has neither GRO nor a program), so nothing fast leaves there",
                peer.describe()
            );
            Row::missing(check, detail).mend(peer.command("ethtool -K NAME gro on"))
        }
        None => Row::warning(
            check,
            format!("this kernel does not say whether {} takes XDP frames", peer.describe()),
        )
        .mend(peer.command("ethtool -K NAME gro on")),
    })
}

/// The peer sends by more queues than there are to receive.
fn has_few_queues(facts: &Facts) -> bool {
    let theirs = facts.peer.as_ref().and_then(|peer| peer.channels);
    matches!((theirs, facts.channels), (Some(theirs), Some(own)) if theirs.transmit > own.receive)
}

fn queues(facts: &Facts) -> Option<Row> {
    let (peer, own) = (facts.peer.as_ref()?, facts.channels?);
    let check = format!("queues {}", facts.link.name);
    let Some(theirs) = peer.channels else {
        return Some(Row::ok(
            check,
            format!("{} for packets that come in; its peer's are not known", own.receive),
        ));
    };
    if !has_few_queues(facts) {
        return Some(Row::ok(check, format!("{} for packets that come in", own.receive)));
    }
    let detail = format!(
        "{} transmits by {} queues, and {} are there to receive: native XDP is refused",
        peer.describe(),
        theirs.transmit,
        own.receive
    );
    let mend = match own.receive_most >= theirs.transmit {
        true => format!("ethtool -L {} rx {}", facts.name(), theirs.transmit),
        false => peer.command(&format!("ethtool -L NAME tx {}", own.receive)),
    };
    Some(if facts.is_attached_native() || facts.is_generic() {
        Row::warning(check, detail).mend(mend)
    } else {
        Row::missing(check, detail).mend(mend)
    })
}

/// A peer that leaves checksums to hardware which a pair does not have.
fn checksums(facts: &Facts) -> Option<Row> {
    let peer = facts.peer.as_ref()?;
    let check = format!("checksums {}", facts.link.name);
    let mend = peer.command("ethtool -K NAME tx off");
    let Some(features) = &peer.features else {
        let detail = format!(
            "whether {} finishes them is not known; if pass_unfinished_checksum rises in show info, it does not",
            peer.describe()
        );
        return Some(Row::warning(check, detail).mend(mend));
    };
    if facts.is_generic() || !features.iter().any(|name| is_checksum(name)) {
        return Some(Row::ok(check, format!("{} finishes them", peer.describe())));
    }
    let detail = format!(
        "{} leaves them unfinished (transmit offload): connections to and from it go through the proxy",
        peer.describe()
    );
    Some(Row::warning(check, detail).mend(mend))
}

/// Of TCP, in any of the ways that drivers announce it.
fn is_checksum(feature: &str) -> bool {
    matches!(feature, "tx-checksum-ip-generic" | "tx-checksum-ipv4" | "tx-checksum-ipv6")
}

fn merging(facts: &Facts) -> Option<Row> {
    let on: Vec<_> = MERGING.into_iter().filter(|name| facts.features.contains(*name)).collect();
    if on.is_empty() || facts.is_generic() {
        return None;
    }
    let off: String = on.iter().map(|name| format!(" {name} off")).collect();
    let detail =
        format!("{} on: the driver joins packets before the program sees them, or refuses it", on.join(", "));
    let check = format!("joined packets {}", facts.link.name);
    Some(Row::warning(check, detail).mend(format!("ethtool -K {}{off}", facts.name())))
}

/// Tags that the driver takes off are not seen by the program.
fn tags(facts: &Facts) -> Option<Row> {
    let vlans = (!facts.vlans.is_empty()).then(|| facts.vlans.join(", "))?;
    let check = format!("vlan {}", facts.link.name);
    if !facts.features.contains("rx-vlan-hw-parse") {
        return Some(Row::ok(check, format!("{vlans}: tags are left in the packets")));
    }
    let detail = format!("{vlans} on it, and the driver takes the tags off before the program sees them");
    Some(Row::warning(check, detail).mend(format!("ethtool -K {} rx-vlan-hw-parse off", facts.name())))
}

#[cfg(test)]
mod tests;
