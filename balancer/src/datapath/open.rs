//! Opening the kernel side of a service: tables, registry, and the program if it is asked for.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use balancer_ebpf::abi::Service;

use super::intents::IntentMap;
use super::kernel_table::KernelTable;
use super::links::Links;
use super::maps;
use super::pins::{self, Pins, Rollback};
use super::records::KernelRecords;
use super::registry::Registry;
use super::ring::Ring;
use super::roster::{Entry, Roster};
use super::running::{Attached, Datapath, Inner};
use super::{Enrolled, Known, Opened, auto, in_memory, ledger, program, publish, routes, tables, upgrade};
use crate::cidr::AddressSet;
use crate::config::{Config, DatapathConfig, FastPath, Forward, ServerConfig};
use crate::intent::muster::muster;
use crate::log;

/// The pin of the ring of events, in the service's folder.
const RING: &str = "events";

/// Opens tables, registry and, if asked for, the program; nothing is attached before [`Datapath::attach`]. `role`: what
/// a predecessor that still serves has passed on. `known`: what is known already of servers and entries.
///
/// # Errors
/// With `--xdp`: whatever is missing. With `--xdp auto` alone there is no fast path then, and a note says why; without
/// `--xdp` the tables fall back to memory, which a note says as well.
pub fn open(config: &Config, role: Option<File>, known: &Known) -> anyhow::Result<Opened> {
    let again = role.as_ref().map(File::try_clone).transpose()?;
    match open_kernel(config, role, known).map_err(name_the_privilege) {
        Ok(opened) => Ok(opened),
        Err(error) if error.is::<InUse>() => Err(error),
        Err(error) if config.datapath.is_none() => in_memory(config, known, &log::chain(&error)),
        Err(error) if auto::is_all(config) => {
            let mut opened = open(&auto::without(config), again, known)?;
            opened.notes.insert(0, auto::no_fast_path(&log::chain(&error)));
            Ok(opened)
        }
        Err(error) => Err(error),
    }
}

/// Another process has the role: falling back to memory would split the service in two.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InUse(String);

/// The kernel only says "not permitted"; what is to be done about it is always the same.
fn name_the_privilege(error: anyhow::Error) -> anyhow::Error {
    let is_refusal = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(is_refusal) {
        return anyhow!(
            "the kernel does not permit BPF here; root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, are needed"
        );
    }
    error
}

fn open_kernel(config: &Config, role: Option<File>, known: &Known) -> anyhow::Result<Opened> {
    let mut rollback = Rollback::default();
    let located = Pins::locate()?;
    for folder in located.root().ancestors().take(3).collect::<Vec<_>>().into_iter().rev() {
        rollback.note(folder.to_owned());
    }
    let pins = Pins::open()?;
    let _turn = pins.lock_shared()?;
    let folder = pins.service(&config.name);
    rollback.note(folder.clone());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let has_predecessor = role.is_some();
    let role = match role {
        Some(role) => pins.share_service(&config.name, role),
        None => pins.lock_service(&config.name),
    };
    let role = role.map_err(|error| InUse(log::chain(&error)))?;
    // What an earlier start could not take away when it had given up root.
    upgrade::tidy(&pins, &config.name);
    let mut notes = upgrade::inherit(&pins, &config.name, &mut rollback)?;
    rollback.note(pins.shared(pins::REGISTRY));
    let mut registry = Registry::open(&pins.shared(pins::REGISTRY))?;
    rollback.note(pins.shared(pins::INTENT));
    let intents = IntentMap::open(&pins.shared(pins::INTENT))?;
    let (recorded, broken) = intents.read(&config.name);
    // A service that is on record has been here since the last reboot: what a file says is older.
    let is_on_record = !recorded.is_empty() || !registry.retired(&config.name, &[]).is_empty();
    let is_on_record = is_on_record && !tables::was_broken_off(&folder);
    let at_hand = if is_on_record { &recorded } else { &known.kept };
    let mut mustered = muster(
        &config.servers,
        &config.listen,
        &config.persist,
        known.intents.as_ref().unwrap_or(at_hand).clone(),
    );
    notes.append(&mut mustered.notes);
    let mut warnings: Vec<_> = broken
        .iter()
        .map(|server| {
            format!(
                "what the operator wanted of server {server} is ignored, as its record is not understood; \
                 set server {server} says it anew"
            )
        })
        .collect();
    let last = |server: &str, host: &str| registry.last_address(&config.name, server, host);
    known.place(&mut mustered.members, last, &mut notes, &mut warnings);
    let mut members = Vec::new();
    for member in mustered.members {
        let settings = &member.settings;
        let (identity, health) =
            registry.enter(&config.name, &settings.name, settings.address, settings.host.as_deref())?;
        members.push(Enrolled { member, identity, health });
    }
    let opening = tables::Opening {
        folder: &folder,
        has_predecessor,
        key: known.hash_key,
        rollback: &mut rollback,
        fresh: tables::Fresh::default(),
    };
    let tables::Opened { tables, source, fresh, notes: more } = opening.open(&config.persist)?;
    notes.extend(more);
    // Also those that this run does not have: the next one may.
    let learned = tables::all(&folder, &fresh);
    let turn = File::open(pins.root()).with_context(|| format!("cannot open {}", pins.root().display()))?;
    let roster = members.iter().map(|Enrolled { member, identity, .. }| Entry {
        id: identity.id,
        name: member.settings.name.clone(),
        address: member.settings.address,
    });
    let mut inner = Inner {
        pins,
        registry,
        intents,
        roster: Roster::new(roster.collect()),
        role: Some(role),
        rollback,
        xdp: None,
        learned,
        fresh,
        turn,
        is_silent: false,
    };
    let addresses = members.iter().map(|Enrolled { member, .. }| member.settings.address);
    let datapath = auto::resolve(config, addresses, &mut notes);
    if let Some(datapath) = &datapath {
        let servers: Vec<_> = members.iter().map(|enrolled| &enrolled.member.settings).collect();
        on_link(config, datapath, &servers)?;
        inner.load(datapath, source.as_ref(), &folder)?;
    }
    let inner = Arc::new(Mutex::new(inner));
    let records = KernelRecords { inner: Arc::clone(&inner), service: config.name.clone() };
    let ledger = ledger(Box::new(records), recorded, mustered.intents, &members);
    let datapath = datapath.unwrap_or_else(no_interfaces);
    Ok(Opened {
        members,
        ledger,
        tables,
        datapath: Some(Datapath {
            inner,
            config: datapath,
            listen: config.listen.clone(),
            deny: config.identity.deny.clone(),
            name: config.name.clone(),
            drain_timeout: config.drain_timeout,
        }),
        notes,
        warnings,
    })
}

fn no_interfaces() -> DatapathConfig {
    DatapathConfig {
        interfaces: Vec::new(),
        auto: None,
        fast_path: FastPath::Off,
        fast_path_reason: None,
        verify_share: 0,
        exclude: AddressSet::default(),
        forward: Forward::Nat,
        snat_ips: Vec::new(),
        snat_ports: (0, 0),
        mss: 0,
        masks: (32, 64),
        flow_table: 0,
        hold: Duration::ZERO,
        detach_on_stop: false,
    }
}

impl Inner {
    /// Loads the program. What an earlier process has told it stays in force until [`Datapath::attach`]: its clients
    /// are being served, and this start may still fail.
    fn load(
        &mut self,
        datapath: &DatapathConfig,
        source: Option<&KernelTable>,
        folder: &Path,
    ) -> anyhow::Result<()> {
        // Flags that ask for such a table are refused with the fast path; but a predecessor may have made it.
        if datapath.fast_path != FastPath::Off && source.is_none() {
            bail!(
                "the running instance's table of sources was made with nopurge, which XDP cannot read; stop that \
                 instance and start this one without --takeover"
            );
        }
        let (mut ebpf, mut maps) = maps::load(&self.pins, datapath.flow_table, &mut self.rollback)?;
        program::verify(&mut ebpf)?;
        publish::settings(&mut maps)?;
        let source = source.map(KernelTable::map_data).transpose()?;
        let path = folder.join(RING);
        self.rollback.note(path.clone());
        let ring = Ring::open(&path)?;
        let (slot, service, links, waiting) = (0, Service::FREE, Links::default(), None);
        self.xdp = Some(Attached { maps, slot, service, links, waiting, ebpf, source, ring });
        Ok(())
    }
}

/// With `--forward dsr` servers are given packets for an address of ours, which nobody between them and us would know what to
/// do with. What has no route now may get one.
fn on_link(config: &Config, datapath: &DatapathConfig, servers: &[&ServerConfig]) -> anyhow::Result<()> {
    if !datapath.is_direct() {
        return Ok(());
    }
    let is_service =
        |ip: std::net::IpAddr| config.listen.iter().any(|listen| listen.ip().to_canonical() == ip);
    for server in servers {
        let source = publish::source_towards(server.address).ip();
        if is_service(source) {
            bail!(
                "--server {}={} would be asked from {source}, the service's own address, and answer itself, as --forward dsr \
                 gives it that address, too; give this host another address on the link to it, or choose --forward nat or \
                 gateway",
                server.name,
                server.location()
            );
        }
    }
    let behind = servers.iter().find_map(|server| {
        let address = server.address.ip().to_canonical();
        let router = routes::neighbour_towards(address).filter(|neighbour| neighbour.address != address)?;
        Some((server, router.address))
    });
    match behind {
        None => Ok(()),
        Some((server, router)) => bail!(
            "--server {}={} is behind the router {router}, and --forward dsr needs servers on a link of this host; put it \
             there, or choose --forward nat or gateway",
            server.name,
            server.location()
        ),
    }
}

/// What `balancer check` tries with `--xdp`: the program through the verifier, the interfaces by name. Attaches nothing.
///
/// # Errors
/// What this host lacks.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    // Names of hosts are left out: they may be anywhere by the time of the start.
    let addresses = config.servers.iter().map(|server| server.address);
    let Some(datapath) = &auto::resolve(config, addresses, &mut notes) else { return Ok(notes) };
    on_link(config, datapath, &config.servers.iter().collect::<Vec<_>>())?;
    match try_to_load(datapath.flow_table) {
        Err(error) if auto::is_all(config) => return Ok(vec![auto::no_fast_path(&log::chain(&error))]),
        tried => tried?,
    }
    notes.push("the XDP program passes the verifier".to_owned());
    for interface in &datapath.interfaces {
        let Ok(index) = nix::net::if_::if_nametoindex(interface.name.as_str()) else {
            bail!("--xdp {}: there is no such interface in this network namespace", interface.name)
        };
        if super::netdev::transmits(index) == Some(false) {
            notes.push(format!(
                "warning: {} cannot transmit XDP frames now; on a veth pair: ethtool -K <its peer> gro on",
                interface.name
            ));
        }
    }
    Ok(notes)
}

/// Passes the program through the verifier, with maps that go away again.
///
/// # Errors
/// What this host lacks.
pub fn try_to_load(flow_table: u32) -> anyhow::Result<()> {
    let (mut ebpf, _maps) = maps::load_unpinned(flow_table).map_err(name_the_privilege)?;
    program::verify(&mut ebpf).map_err(name_the_privilege)
}
