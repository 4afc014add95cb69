//! Attaching the program to interfaces, by links that are pinned: it stays when the process goes.

use std::{fs, io};

use anyhow::{Context as _, anyhow, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};
use aya::programs::{ProgramError, Xdp};
use balancer_ebpf::abi::Flow;
use nix::net::if_::if_nametoindex;

use super::links::{Links, name_of};
use super::maps::{self, Maps};
use super::netdev;
use super::pins::{Pins, Rollback};
use super::view::InterfaceInfo;
use crate::config::{InterfaceConfig, XdpMode};
use crate::log;
use crate::netlink::link::{self, NATIVE_MTU_LIMIT};

const PROGRAM: &str = "balancer";
/// See [`balancer_ebpf::abi::Chore`].
const TEND: &str = "tend";
/// Flows of a program that is on an interface for a moment.
const PROBE_TABLE: u32 = 1000;

/// The program of a loaded object.
///
/// # Errors
/// An object of another build.
pub fn of(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    named(ebpf, PROGRAM)
}

/// The program that changes flows in place, which is run and never attached.
///
/// # Errors
/// As above.
pub fn tend(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    named(ebpf, TEND)
}

fn named<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).context("the object holds no program: it is of another build")?;
    Ok(program.try_into()?)
}

/// Passes both programs through the verifier.
///
/// # Errors
/// The verifier's last words.
pub fn verify(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    pass(of(ebpf)?)?;
    pass(tend(ebpf)?)
}

fn pass(program: &mut Xdp) -> anyhow::Result<()> {
    program.load().map_err(|error| match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().rev().take(4).collect();
            anyhow!("the kernel refuses the XDP program: {}: {}", log::reason(io_error), last.join(" | "))
        }
        _ => anyhow!(error).context("the kernel refuses the XDP program"),
    })
}

/// Attaches to every interface of the list, and takes over the pinned links of earlier processes, without a gap.
/// `notes` say which of those that were only found have not got it.
///
/// # Errors
/// Names the interface and what to do.
pub fn attach(
    program: &mut Xdp,
    interfaces: &[InterfaceConfig],
    pins: &Pins,
    maps: &mut Maps,
    rollback: &mut Rollback,
    notes: &mut Vec<String>,
) -> anyhow::Result<Links> {
    let places = indexes(interfaces)?;
    let wanted: Vec<_> = places.iter().copied().zip(interfaces).collect();
    let mut attached = pins.linked_interfaces();
    attached.retain(|index| adopt(program, pins, *index));
    let fresh: Vec<_> = wanted.iter().filter(|(index, _)| !attached.contains(index)).collect();
    if !fresh.is_empty() {
        forget_flows_beyond(maps, &attached);
    }
    for (index, interface) in fresh {
        rollback.note(pins.link(*index));
        match attach_fresh(program, interface, pins, *index) {
            Err(error) if interface.is_found => notes.push(format!("{}; it is left out", log::chain(&error))),
            done => {
                done?;
                attached.push(*index);
            }
        }
    }
    let attached: Vec<_> = attached.into_iter().filter_map(describe).collect();
    for (index, interface) in wanted {
        let mode = attached.iter().find(|info| info.index == index).map(|info| info.mode);
        if interface.mode == XdpMode::Native && mode == Some("generic") && !interface.is_found {
            bail!(
                "--xdp {name},mode=native: the program is attached to {name} in generic mode; detach the services \
                 here first (balancer detach)",
                name = interface.name
            );
        }
    }
    Ok(Links { attached, places })
}

/// The indexes of the interfaces of the flags.
///
/// # Errors
/// Names the one that is not there.
pub fn indexes(interfaces: &[InterfaceConfig]) -> anyhow::Result<Vec<u32>> {
    let index = |interface: &InterfaceConfig| {
        if_nametoindex(interface.name.as_str()).map_err(|_| {
            anyhow!(
                "--xdp {}: there is no such interface in this network namespace; `ip link` lists them",
                interface.name
            )
        })
    };
    interfaces.iter().map(index).collect()
}

/// An interface that is to get the program while the service runs.
pub struct Attachment<'a> {
    /// As the flags name it.
    pub interface: &'a InterfaceConfig,
    /// What it is to the kernel now.
    pub index: u32,
    /// Where the link is to be pinned.
    pub pins: &'a Pins,
}

impl Attachment<'_> {
    /// Attaches; `before`: what the interface was to the kernel when it had the program last, or 0.
    ///
    /// # Errors
    /// What keeps it from having the program.
    pub fn renew(
        &self,
        program: &mut Xdp,
        maps: &mut Maps,
        attached: &[InterfaceInfo],
        before: u32,
    ) -> anyhow::Result<InterfaceInfo> {
        let pin = self.pins.link(self.index);
        // Another service here may have been quicker.
        if !pin.exists() || netdev::attached_mode(self.index).is_none() {
            let _ = fs::remove_file(&pin);
            let adopted: Vec<u32> = attached.iter().map(|info| info.index).collect();
            forget_flows_beyond(maps, &adopted);
            attach_fresh(program, self.interface, self.pins, self.index)?;
        }
        if before != 0 {
            let _ = fs::remove_file(self.pins.link(before));
        }
        describe(self.index).context("it is gone again")
    }
}

/// Lets fast packets leave by those interfaces that can transmit them; says which cannot.
pub fn open_for_transmission(maps: &mut Maps, attached: &[InterfaceInfo]) -> Vec<String> {
    // A generic program hands over whole socket buffers, which any device takes; a native one raw frames, which a
    // device without the driver's support loses without a trace, whatever mode its own program runs in.
    let all_generic = attached.iter().all(|interface| interface.mode == "generic");
    let mut notes = Vec::new();
    for InterfaceInfo { name, index, mode } in attached {
        if name_of(*index).is_none() {
            continue;
        }
        let can = all_generic || netdev::transmits(*index).unwrap_or(*mode == "native");
        let is_open = maps.interfaces.get(*index, 0).is_ok();
        if can && !is_open {
            if let Err(error) = maps.interfaces.insert(*index, *index, None, 0) {
                notes.push(format!("nothing fast leaves by {name}: {error}"));
            }
        } else if !can {
            let _ = maps.interfaces.remove(*index);
            notes.push(format!(
                "{name} cannot transmit XDP frames, so nothing fast leaves by it; on a veth pair: ethtool -K <its \
                 peer> gro on"
            ));
        }
    }
    notes
}

/// What is to be said of an interface with the program; `None`: it is gone.
pub fn describe(index: u32) -> Option<InterfaceInfo> {
    Some(InterfaceInfo {
        name: name_of(index)?,
        index,
        mode: netdev::attached_mode(index).unwrap_or("unknown"),
    })
}

/// Replaces the program behind a pinned link. False: the link's interface is gone, and now its pin.
fn adopt(program: &mut Xdp, pins: &Pins, index: u32) -> bool {
    let path = pins.link(index);
    let link = PinnedLink::from_pin(&path).ok().and_then(|link| XdpLink::try_from(FdLink::from(link)).ok());
    let adopted = link.and_then(|link| program.attach_to_link(link).ok());
    let Some(id) = adopted else {
        let _ = fs::remove_file(&path);
        return false;
    };
    // The pin alone holds the link from here on, so that whoever removes the pin detaches the program.
    drop(program.take_link(id));
    true
}

fn attach_fresh(
    program: &mut Xdp,
    interface: &InterfaceConfig,
    pins: &Pins,
    index: u32,
) -> anyhow::Result<()> {
    let name = &interface.name;
    let modes: &[AyaMode] = match interface.mode {
        XdpMode::Auto => &[AyaMode::Driver, AyaMode::Skb],
        XdpMode::Native => &[AyaMode::Driver],
        XdpMode::Generic => &[AyaMode::Skb],
    };
    let mut refusal = None;
    for mode in modes {
        match program.attach_to_if_index(index, *mode) {
            Ok(id) => {
                let link = program.take_link(id)?;
                let link = FdLink::try_from(link)
                    .with_context(|| format!("--xdp {name}: this kernel has no links for XDP (5.9 has)"))?;
                let path = pins.link(index);
                link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
                return Ok(());
            }
            // Only a driver that has no XDP at all is reason to try the next mode.
            Err(error) if os_error(&error) == Some(libc::EOPNOTSUPP) => refusal = Some(error),
            Err(error) if matches!(os_error(&error), Some(libc::EBUSY | libc::EEXIST)) => {
                return Err(busy(name, pins, index));
            }
            Err(error) => return Err(explain(name, &error)),
        }
    }
    match refusal {
        Some(error) => Err(explain(name, &error)),
        None => bail!("--xdp {name}: no mode to try"),
    }
}

/// Attaches the program, which without a service passes everything, and takes it off again at once.
///
/// # Errors
/// As the start would say it.
pub fn probe(name: &str, index: u32) -> anyhow::Result<()> {
    let (mut ebpf, _maps) = maps::load_unpinned(PROBE_TABLE)?;
    let program = of(&mut ebpf)?;
    pass(program)?;
    match program.attach_to_if_index(index, AyaMode::Driver) {
        Ok(link) => Ok(program.detach(link)?),
        Err(error) => Err(explain(name, &error)),
    }
}

fn busy(name: &str, pins: &Pins, index: u32) -> anyhow::Error {
    match pins.of_other_schemas().iter().find(|other| other.link(index).exists()) {
        Some(other) => anyhow!(
            "--xdp {name}: a balancer of another version has its program there; stop it, then take it off with its own \
             `balancer detach`, or by removing {}",
            other.link(index).display()
        ),
        None => anyhow!(
            "--xdp {name}: another XDP program is attached there; if nobody needs it, balancer doctor --interface {name} \
             says how to take it off"
        ),
    }
}

fn explain(name: &str, error: &ProgramError) -> anyhow::Error {
    match os_error(error) {
        Some(libc::ERANGE | libc::EINVAL) => {
            // The driver of a pair looks at the MTU of the end that sends.
            let pair = link::by_name(name).is_ok_and(|link| link.is_veth());
            let there = if pair { ", and that of its peer" } else { "" };
            anyhow!(
                "--xdp {name}: the driver refuses the program, most likely for the MTU: native XDP takes at most \
                 {NATIVE_MTU_LIMIT}; lower it (ip link set dev {name} mtu 1500){there}, or --xdp {name},mode=generic; \
                 balancer doctor says more"
            )
        }
        Some(libc::EOPNOTSUPP) => {
            anyhow!("--xdp {name}: its driver has no native XDP; write --xdp {name},mode=generic")
        }
        Some(libc::ENOSPC) => anyhow!(
            "--xdp {name}: its peer transmits by more queues than it receives by; give it as many: ethtool \
             -L {name} rx N"
        ),
        Some(libc::EPERM) => {
            anyhow!(
                "--xdp {name}: not permitted; root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, are needed"
            )
        }
        Some(code) => {
            anyhow!("--xdp {name}: cannot attach: {}", log::reason(&io::Error::from_raw_os_error(code)))
        }
        None => anyhow!("--xdp {name}: cannot attach: {error}"),
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(aya::programs::XdpError::NetlinkError(_)) => Some(libc::EINVAL),
        _ => None,
    }
}

/// While the program was not on an interface, the stack has owned the tuples of the flows that use it. Before it is
/// attached anew they are removed: all flows but those between interfaces that have had the program all along.
pub fn forget_flows_beyond(maps: &mut Maps, adopted: &[u32]) {
    let is_stale =
        |flow: &Flow| !adopted.contains(&flow.client_ifindex) || !adopted.contains(&flow.server_ifindex);
    let entries = maps.flows.iter().filter_map(Result::ok);
    let keys: Vec<_> = entries.filter(|(_, flow)| is_stale(flow)).map(|(key, _)| key).collect();
    for key in keys {
        maps.remove_flow(&key);
    }
    let open: Vec<u32> = maps.interfaces.keys().filter_map(Result::ok).collect();
    for index in open.into_iter().filter(|index| !adopted.contains(index)) {
        let _ = maps.interfaces.remove(index);
    }
}
