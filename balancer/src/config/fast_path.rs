//! `--xdp`, `--fast-path` and the flags that belong to them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::options::Value;
use super::persistence::together;
use super::{
    DatapathConfig, FastPath, Forward, Host, IdentityConfig, InterfaceConfig, ServerConfig, XdpMode,
    identity as blocks,
};
use crate::cli::Stop;
use crate::cli::flags::{DatapathArgs, FastPathArg, ForwardArg};
use crate::persist::List;

/// Told wherever it applies: the words are part of the contract.
pub const MISROUTING: &str =
    "the first connections of a second user behind one NAT, bound elsewhere by a cookie, are misrouted";

pub(super) const HIDDEN_CLIENT: &str = "the client's address is in bytes that the fast path does not see";
pub(super) const NO_BYTES: &str = "the fast path sends no bytes of its own";
pub(super) const FORGED_CLIENT: &str =
    "servers would see the balancer's address and believe what the client itself wrote into such a header";

pub(super) const SEEN_CLIENT: &str =
    "servers see the client itself, and whatever it writes into such a header";

const XDP_FORM: &str = "auto|IF[,mode=auto|native|generic]";

/// In the place of an interface: those that the addresses say.
const AUTO: &str = "auto";

/// Kernel's `IFNAMSIZ` without the NUL.
const LONGEST_INTERFACE_NAME: usize = 15;

/// Enough ports for the kernel's own connections that a proposed range may be called usable.
const FEW_PORTS: u16 = 1024;

/// The process says that it is alive once a second.
const SHORTEST_HOLD: Duration = Duration::from_secs(2);

pub(super) fn datapath(
    args: &DatapathArgs,
    list: &List,
    identity: &IdentityConfig,
    host: &Host,
) -> Result<Option<DatapathConfig>, Stop> {
    // Everything is read even when there is nothing to attach to: what is wrong is wrong.
    let (interfaces, auto) = interfaces(&args.xdp)?;
    let exclude = blocks::addresses("--fast-path-exclude", &args.fast_path_exclude)?;
    let snat_ips = snat_ips(&args.snat_ip)?;
    let snat_ports = snat_ports(&args.snat_ports)?;
    let forward = forward(args);
    let obstacle =
        needs_bytes(identity, forward).or_else(|| together::needs_bytes(list)).or_else(|| unreadable(list));
    let (fast_path, fast_path_reason) = fast_path(args.fast_path, list, obstacle)?;
    if args.datapath_hold < SHORTEST_HOLD {
        return Err(Stop::Usage(
            "--datapath-hold is below 2s, so a process that is only busy would count as dead; give 2s or more".into(),
        ));
    }
    if interfaces.is_empty() && auto.is_none() {
        return match args.fast_path {
            FastPathArg::Auto | FastPathArg::Off => Ok(None),
            FastPathArg::Exclusive | FastPathArg::Always => Err(Stop::Usage(format!(
                "--fast-path {} without --xdp has no interface to work on; add --xdp IF or leave out --fast-path",
                word(fast_path)
            ))),
        };
    }
    if fast_path != FastPath::Off && forward == Forward::Nat {
        check_port_overlap(snat_ports, host)?;
    }
    Ok(Some(DatapathConfig {
        interfaces,
        auto,
        fast_path,
        fast_path_reason,
        verify_share: args.verify_share,
        exclude,
        forward,
        snat_ips,
        snat_ports,
        mss: args.mss.map_or(0, |mss| mss as u16),
        masks: list.source().map_or((32, 64), |source| (source.mask4, source.mask6)),
        flow_table: args.flow_table,
        hold: args.datapath_hold,
        detach_on_stop: args.detach_on_stop,
    }))
}

/// What is allowed and yet should be known.
pub(super) fn warnings(config: &DatapathConfig, list: &List, identity: &IdentityConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let misroutes = match config.fast_path {
        FastPath::Off => return warnings,
        FastPath::Exclusive => true,
        FastPath::Always => !list.source_is_first(),
    };
    if misroutes {
        warnings.push(format!("--fast-path {}: {MISROUTING}", word(config.fast_path)));
    }
    if identity.forwarded.is_some() {
        warnings.push(format!(
            "--forwarded with --forward {}: on the fast path {SEEN_CLIENT}, so they must believe it only from this \
             host's own addresses",
            config.forward.as_str()
        ));
    }
    if list.cookie().is_some_and(|cookie| cookie.indirect) {
        warnings.push(
            "--persist cookie=…,indirect: on the fast path nobody reads the bytes, so servers see the cookie there"
                .into(),
        );
    }
    warnings
}

/// The word of the command line.
pub(crate) fn word(fast_path: FastPath) -> &'static str {
    match fast_path {
        FastPath::Off => "off",
        FastPath::Exclusive => "exclusive",
        FastPath::Always => "always",
    }
}

/// Whether `--forward dsr` can do what is asked for.
pub(super) fn direct(
    config: &DatapathConfig,
    listen: &[SocketAddr],
    servers: &[ServerConfig],
) -> Result<(), Stop> {
    if !config.is_direct() {
        return Ok(());
    }
    if let Some(wildcard) = listen.iter().find(|listen| listen.ip().is_unspecified()) {
        return Err(Stop::Usage(format!(
            "--listen {wildcard} with --forward dsr: servers take packets for the addresses alone that they have been given; \
             name each of these, or choose --forward nat or gateway"
        )));
    }
    servers.iter().try_for_each(|server| fits_direct(config, listen, server)).map_err(Stop::Usage)
}

/// Whether that server can be one with `--forward dsr`, if that is what there is.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn fits_direct(
    config: &DatapathConfig,
    listen: &[SocketAddr],
    server: &ServerConfig,
) -> Result<(), String> {
    if !config.is_direct() {
        return Ok(());
    }
    let (name, location) = (&server.name, server.location());
    if server.maxconn.is_some() {
        return Err(format!(
            "--server {name}={location},maxconn with --forward dsr: answers do not pass here, so nobody knows when a \
             connection is over; leave maxconn out, or choose --forward nat or gateway"
        ));
    }
    match listen.iter().find(|listen| listen.port() != server.address.port()) {
        None => Ok(()),
        Some(other) => Err(format!(
            "--server {name}={location} has another port than --listen {other}, and --forward dsr cannot change it; let the \
             server listen on port {}, or choose --forward nat or gateway",
            other.port()
        )),
    }
}

/// A flag that asks for what the fast path cannot do, and why.
type Obstacle = (&'static str, &'static str);

/// The address that servers see is what makes a header of the client's own believable: it is this host's with `nat` alone.
fn needs_bytes(identity: &IdentityConfig, forward: Forward) -> Option<Obstacle> {
    if !identity.accept_proxy.is_empty() {
        return Some(("--accept-proxy", HIDDEN_CLIENT));
    }
    if identity.send_proxy.is_some() {
        return Some(("--send-proxy", NO_BYTES));
    }
    (identity.forwarded.is_some() && forward == Forward::Nat).then_some(("--forwarded", FORGED_CLIENT))
}

/// A table of sources that the program does not look into, or not in the way that the proxy does.
pub(super) fn unreadable(list: &List) -> Option<Obstacle> {
    let source = list.source()?;
    source.table.nopurge.then_some((
        "--persist source,nopurge",
        "the fast path only reads tables that forget old entries when they are full",
    ))
}

fn fast_path(
    wish: FastPathArg,
    list: &List,
    obstacle: Option<Obstacle>,
) -> Result<(FastPath, Option<String>), Stop> {
    let explicit = match wish {
        FastPathArg::Auto => return Ok(resolve_auto(list, obstacle)),
        FastPathArg::Off => FastPath::Off,
        FastPathArg::Exclusive => FastPath::Exclusive,
        FastPathArg::Always => FastPath::Always,
    };
    if let (FastPath::Exclusive | FastPath::Always, Some((flag, why))) = (explicit, obstacle) {
        return Err(Stop::Usage(format!(
            "--fast-path {} cannot go with {flag}: {why}; leave out one of them",
            word(explicit)
        )));
    }
    if explicit != FastPath::Off && list.source().is_none() {
        return Err(Stop::Usage(format!(
            "--fast-path {} without --persist source has nothing to learn which client is whose; add --persist source",
            word(explicit)
        )));
    }
    Ok((explicit, None))
}

fn resolve_auto(list: &List, obstacle: Option<Obstacle>) -> (FastPath, Option<String>) {
    if let Some((flag, why)) = obstacle {
        return (FastPath::Off, Some(format!("fast path off, because of {flag}: {why}")));
    }
    let (resolved, reason) = if list.source_is_first() {
        (
            FastPath::Always,
            "fast path always: source decides before everything else, so an address tells the server".into(),
        )
    } else if list.source().is_some() {
        (
            FastPath::Off,
            format!(
                "fast path off: {} decides before source, so an address alone does not tell the server; put \
                 `--persist source` first, or choose --fast-path exclusive or always",
                list.labels().first().map_or("the list", String::as_str)
            ),
        )
    } else {
        (
            FastPath::Off,
            "fast path off: without source in the list nothing is learned about addresses; add `--persist source` as \
             the first one, or as another and choose --fast-path exclusive or always"
                .into(),
        )
    };
    (resolved, Some(reason))
}

/// The interfaces that are named, and the mode of those that are to be found.
pub(super) fn interfaces(texts: &[String]) -> Result<(Vec<InterfaceConfig>, Option<XdpMode>), Stop> {
    let mut interfaces: Vec<InterfaceConfig> = Vec::new();
    let mut auto = None;
    for text in texts {
        let value = Value { flag: "--xdp", text };
        let interface = interface(value)?;
        if interface.name == AUTO {
            value.set_once(&mut auto, AUTO, interface.mode)?;
            continue;
        }
        if interfaces.iter().any(|earlier| earlier.name == interface.name) {
            return Err(value.wrong("names an interface a second time; give it once"));
        }
        interfaces.push(interface);
    }
    Ok((interfaces, auto))
}

fn interface(value: Value<'_>) -> Result<InterfaceConfig, Stop> {
    let (name, options) = value.split();
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '=');
    if !(1..=LONGEST_INTERFACE_NAME).contains(&name.len()) || !name.chars().all(fits) || name.starts_with('.')
    {
        return Err(value.wrong(format_args!("does not name an interface; write {XDP_FORM}")));
    }
    let mut mode = None;
    for option in options {
        let chosen = match option {
            "mode=auto" => XdpMode::Auto,
            "mode=native" => XdpMode::Native,
            "mode=generic" => XdpMode::Generic,
            _ if option.starts_with("mode=") => {
                return Err(value.wrong("has an unknown mode; write mode=auto, mode=native or mode=generic"));
            }
            _ => return Err(value.unsupported(option, XDP_FORM, &[])),
        };
        value.set_once(&mut mode, "mode", chosen)?;
    }
    Ok(InterfaceConfig { name: name.to_owned(), mode: mode.unwrap_or_default(), is_found: false })
}

/// `--forward`.
pub(super) fn forward(args: &DatapathArgs) -> Forward {
    match args.forward {
        ForwardArg::Nat => Forward::Nat,
        ForwardArg::Gateway => Forward::Gateway,
        ForwardArg::Dsr => Forward::Dsr,
    }
}

pub(super) fn snat_ips(texts: &[String]) -> Result<Vec<IpAddr>, Stop> {
    let mut addresses = Vec::new();
    for text in texts {
        let value = Value { flag: "--snat-ip", text };
        let address: IpAddr = text
            .parse()
            .map_err(|_| value.wrong("is not an address; write for example 192.0.2.1 or 2001:db8::1"))?;
        let address = address.to_canonical();
        let is_of_one_link = match address {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_of_one_link {
            return Err(value.wrong("is not an address servers can answer to; write one of this host's"));
        }
        if addresses.contains(&address) {
            return Err(value.wrong("is given twice; give it once"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

pub(super) fn snat_ports(text: &str) -> Result<(u16, u16), Stop> {
    let value = Value { flag: "--snat-ports", text };
    let ends = text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    match ends {
        None => Err(value.wrong("is not a range of ports; write A-B, as in 10000-32767")),
        Some((low, high)) if low > high => {
            Err(value.wrong(format_args!("is the wrong way round; write {high}-{low}")))
        }
        Some((low, _)) if low < 1024 => {
            Err(value.wrong("takes ports that belong to services; write a range from 1024 upwards"))
        }
        Some(range) => Ok(range),
    }
}

/// A port that the kernel gives to the proxy's own connection must not be a flow's too.
fn check_port_overlap((low, high): (u16, u16), host: &Host) -> Result<(), Stop> {
    let Some(local) = host.local_ports else { return Ok(()) };
    let Some(Overlap { sysctl, flag }) = overlap((low, high), local) else { return Ok(()) };
    let remedy = match (sysctl, flag) {
        (Some(sysctl), Some(flag)) => format!("type {sysctl} or choose {flag}"),
        (Some(sysctl), None) => format!("type {sysctl}"),
        (None, Some(flag)) => format!("choose {flag}"),
        (None, None) => format!("type {} and leave out --snat-ports", usual_ports()),
    };
    let (local_low, local_high) = local;
    Err(Stop::Failed(format!(
        "--snat-ports {low}-{high} overlaps the ports {local_low}-{local_high} that this host gives to connections of \
         its own; {remedy}"
    )))
}

/// What ends an overlap of `--snat-ports` with the ports of the host's own connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Overlap {
    /// Other ports for the host; `None`: too few would be left.
    pub(crate) sysctl: Option<String>,
    /// Other ports for the flag; `None`: there are too few.
    pub(crate) flag: Option<String>,
}

/// What the kernel gives out unless it is told otherwise, which `--snat-ports` leaves alone unless it is told otherwise.
pub(crate) fn usual_ports() -> String {
    ports_sysctl(32_768, 60_999)
}

fn ports_sysctl(low: u16, high: u16) -> String {
    format!("sysctl -w net.ipv4.ip_local_port_range=\"{low} {high}\"")
}

/// Whether `--snat-ports` overlaps the `local` ports, and what to do about it.
pub(crate) fn overlap((low, high): (u16, u16), (local_low, local_high): (u16, u16)) -> Option<Overlap> {
    if high < local_low || local_high < low {
        return None;
    }
    let room_above = |top: u16| top.checked_sub(high).is_some_and(|ports| ports >= FEW_PORTS);
    let top = [local_high, 60_999].into_iter().find(|top| room_above(*top));
    let below = local_low.saturating_sub(1);
    let flag = (below >= 1024 + FEW_PORTS)
        .then(|| format!("--snat-ports {}-{below}", if below > 10_000 { 10_000 } else { 1024 }));
    Some(Overlap { sysctl: top.map(|top| ports_sysctl(high.saturating_add(1), top)), flag })
}
