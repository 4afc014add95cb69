//! Attaching the program to interfaces, by links that are pinned: it stays when the process goes.

use std::fs;

use anyhow::{Context as _, anyhow, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AyaMode};
use aya::programs::{ProgramError, Xdp};
use balancer_ebpf::abi::Flow;
use nix::net::if_::if_nametoindex;

use super::maps::Maps;
use super::netdev;
use super::pins::{Pins, Rollback};
use super::view::InterfaceInfo;
use crate::config::{InterfaceConfig, XdpMode};

const PROGRAM: &str = "balancer";
/// What a driver without multi-buffer support takes (veth on 4 KiB pages; most network cards are close to it).
const NATIVE_MTU_LIMIT: u32 = 3506;

/// Passes the program through the verifier.
///
/// # Errors
/// The verifier's last words.
pub fn verify(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program: &mut Xdp = ebpf
        .program_mut(PROGRAM)
        .context("the object holds no program: it is of another build")?
        .try_into()?;
    program.load().map_err(|error| match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let last: Vec<&str> = log.lines().rev().take(4).collect();
            anyhow!("the kernel refuses the XDP program: {io_error}: {}", last.join(" | "))
        }
        _ => anyhow!(error).context("the kernel refuses the XDP program"),
    })?;
    Ok(program)
}

/// Attaches to every interface of the list, or takes over the pinned link of an earlier process, without a gap.
///
/// # Errors
/// Names the interface and what to do.
pub fn attach(
    program: &mut Xdp,
    interfaces: &[InterfaceConfig],
    pins: &Pins,
    maps: &mut Maps,
    rollback: &mut Rollback,
) -> anyhow::Result<Vec<InterfaceInfo>> {
    let mut attached = Vec::new();
    for interface in interfaces {
        let index = if_nametoindex(interface.name.as_str()).map_err(|_| {
            anyhow!(
                "--xdp {}: there is no such interface in this network namespace; `ip link` lists them",
                interface.name
            )
        })?;
        let mode = match adopt(program, pins, index) {
            Some(()) => netdev::attached_mode(index).unwrap_or("unknown"),
            None => {
                forget_flows_of(maps, index)?;
                rollback.note(pins.link(index));
                attach_fresh(program, interface, pins, index)?
            }
        };
        attached.push(InterfaceInfo { name: interface.name.clone(), index, mode });
    }
    // Another service's interfaces run the same program: they are updated with ours.
    let ours: Vec<u32> = attached.iter().map(|interface| interface.index).collect();
    for index in pins.linked_interfaces().into_iter().filter(|index| !ours.contains(index)) {
        if adopt(program, pins, index).is_none() {
            let _ = fs::remove_file(pins.link(index));
        }
    }
    Ok(attached)
}

/// Lets fast packets leave by those interfaces that can transmit them; says which cannot.
///
/// # Errors
/// When the kernel refuses the map.
pub fn open_for_transmission(maps: &mut Maps, attached: &[InterfaceInfo]) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for InterfaceInfo { name, index, mode } in attached {
        let can = *mode == "generic" || netdev::transmits(*index).unwrap_or(true);
        let is_open = maps.interfaces.get(*index, 0).is_ok();
        if can && !is_open {
            maps.interfaces.insert(*index, *index, None, 0).with_context(|| format!("interface {name}"))?;
        }
        if !can {
            if is_open {
                let _ = maps.interfaces.remove(*index);
            }
            notes.push(format!(
                "{name} cannot transmit XDP frames, so nothing fast leaves by it; on a veth pair: ethtool -K <its \
                 peer> gro on"
            ));
        }
    }
    Ok(notes)
}

/// Replaces the program behind a pinned link. `None`: there is no link, or its interface is gone.
fn adopt(program: &mut Xdp, pins: &Pins, index: u32) -> Option<()> {
    let path = pins.link(index);
    let link = PinnedLink::from_pin(&path).ok()?;
    let link = XdpLink::try_from(FdLink::from(link)).ok()?;
    if program.attach_to_link(link).is_err() {
        let _ = fs::remove_file(&path);
        return None;
    }
    Some(())
}

fn attach_fresh(
    program: &mut Xdp,
    interface: &InterfaceConfig,
    pins: &Pins,
    index: u32,
) -> anyhow::Result<&'static str> {
    let name = &interface.name;
    let modes: &[(AyaMode, &'static str)] = match interface.mode {
        XdpMode::Auto => &[(AyaMode::Driver, "native"), (AyaMode::Skb, "generic")],
        XdpMode::Native => &[(AyaMode::Driver, "native")],
        XdpMode::Generic => &[(AyaMode::Skb, "generic")],
    };
    let mut refusal = None;
    for (mode, word) in modes {
        match program.attach_to_if_index(index, *mode) {
            Ok(id) => {
                let link = program.take_link(id)?;
                let link = FdLink::try_from(link)
                    .with_context(|| format!("--xdp {name}: this kernel has no links for XDP (5.9 has)"))?;
                let path = pins.link(index);
                link.pin(&path).with_context(|| format!("cannot pin {}", path.display()))?;
                return Ok(word);
            }
            // Only a driver that has no XDP at all is reason to try the next mode.
            Err(error) if os_error(&error) == Some(libc::EOPNOTSUPP) => refusal = Some(error),
            Err(error) => return Err(explain(name, &error)),
        }
    }
    match refusal {
        Some(error) => Err(explain(name, &error)),
        None => bail!("--xdp {name}: no mode to try"),
    }
}

fn explain(name: &str, error: &ProgramError) -> anyhow::Error {
    match os_error(error) {
        Some(libc::EBUSY) => anyhow!(
            "--xdp {name}: another XDP program is attached there; if nobody needs it: ip link set dev {name} xdp off"
        ),
        Some(libc::ERANGE | libc::EINVAL) => anyhow!(
            "--xdp {name}: the driver refuses the program, most likely for the MTU: native XDP takes at most \
             {NATIVE_MTU_LIMIT}; lower it (ip link set dev {name} mtu 1500), or --xdp {name},mode=generic"
        ),
        Some(libc::EOPNOTSUPP) => {
            anyhow!("--xdp {name}: its driver has no native XDP; --xdp {name},mode=generic")
        }
        Some(libc::EPERM) => {
            anyhow!("--xdp {name}: not permitted; root or CAP_NET_ADMIN and CAP_BPF are needed")
        }
        _ => anyhow!("--xdp {name}: cannot attach: {error}"),
    }
}

fn os_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(aya::programs::XdpError::NetlinkError(_)) => Some(libc::EINVAL),
        _ => None,
    }
}

/// While the program was not on this interface, the stack has owned the tuples of the flows that came in by it.
fn forget_flows_of(maps: &mut Maps, index: u32) -> anyhow::Result<()> {
    let stale = |flow: &Flow| flow.client_ifindex == index || flow.server_ifindex == index;
    let keys: Vec<_> = maps
        .flows
        .iter()
        .filter_map(Result::ok)
        .filter(|(_, flow)| stale(flow))
        .map(|(key, _)| key)
        .collect();
    for key in keys {
        let _ = maps.flows.remove(&key);
    }
    Ok(())
}
