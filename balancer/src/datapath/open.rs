//! Opening the kernel side, keeping it up, and leaving it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use aya::Ebpf;
use balancer_ebpf::abi::Service;
use balancer_ebpf::counter::Outcome;
use nix::fcntl::Flock;

use super::collect::Collector;
use super::kernel_table::KernelTable;
use super::maps::{self, Maps};
use super::pins::{Pins, Rollback};
use super::registry::Registry;
use super::view::{DatapathInfo, FlowRow, InterfaceInfo, View};
use super::{Opened, flows, in_memory, program, publish};
use crate::config::{Config, DatapathConfig, FastPath};
use crate::log;
use crate::server::{Identity, Operator, Server};
use crate::table::Store;

const SOURCE: &str = "source";
const REGISTRY: &str = "registry";

/// How often the program is told that we live, and wildcards are looked at again.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two steps of the collector while there is something left to look at.
const COLLECT_PAUSE: Duration = Duration::from_millis(20);
/// Heartbeats between two looks at what interfaces can transmit.
const TRANSMISSION_CHECK: u32 = 5;

/// A running service's hold on the kernel.
pub struct Datapath {
    inner: Arc<Mutex<Inner>>,
    config: DatapathConfig,
    listen: Vec<std::net::SocketAddr>,
    name: String,
    /// Server names by id, for `show flows`.
    names: HashMap<u16, String>,
}

/// What the publisher, the upkeep and the view share; none of them is on the request path.
struct Inner {
    pins: Pins,
    registry: Registry,
    /// Held for life: the role of this service.
    _role: Flock<File>,
    rollback: Rollback,
    xdp: Option<Attached>,
}

struct Attached {
    maps: Maps,
    slot: u32,
    service: Service,
    interfaces: Vec<InterfaceInfo>,
    /// The program itself: dropping it is harmless once links are pinned, but tests of a kernel without pins are not.
    _ebpf: Ebpf,
}

/// Opens tables, registry and, if asked for, the program; nothing is attached before [`Datapath::attach`].
///
/// # Errors
/// With `--xdp`: whatever is missing. Without it the tables fall back to memory, and a note says so.
pub fn open(config: &Config) -> anyhow::Result<Opened> {
    match open_kernel(config) {
        Ok(opened) => Ok(opened),
        Err(error) if config.datapath.is_none() && !error.is::<InUse>() => {
            let note = format!("learned tables are in memory and will not survive a restart: {error:#}");
            Ok(in_memory(config, config.persist.source().map(|_| note)))
        }
        Err(error) => Err(error),
    }
}

/// Another process has the role: falling back to memory would split the service in two.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct InUse(String);

fn open_kernel(config: &Config) -> anyhow::Result<Opened> {
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
    let role = pins.lock_service(&config.name).map_err(|error| InUse(format!("{error:#}")))?;
    rollback.note(pins.shared(REGISTRY));
    let mut registry = Registry::open(&pins.shared(REGISTRY))?;
    let mut servers = Vec::new();
    for server in &config.servers {
        servers.push(registry.enter(&config.name, &server.name, server.address)?);
    }
    let source = match config.persist.source() {
        Some(source) => {
            rollback.note(folder.join(SOURCE));
            Some(KernelTable::open(&folder.join(SOURCE), source.size)?)
        }
        None => None,
    };
    let mut inner = Inner { pins, registry, _role: role, rollback, xdp: None };
    if let Some(datapath) = &config.datapath {
        inner.load(config, datapath, source.as_ref(), &servers)?;
    }
    let names =
        config.servers.iter().zip(&servers).map(|(s, (identity, _))| (identity.id, s.name.clone())).collect();
    let datapath = config.datapath.clone().unwrap_or_else(no_interfaces);
    Ok(Opened {
        servers,
        source: source.map(|table| Box::new(table) as Box<dyn Store>),
        datapath: Some(Datapath {
            inner: Arc::new(Mutex::new(inner)),
            config: datapath,
            listen: config.listen.clone(),
            name: config.name.clone(),
            names,
        }),
        notes: Vec::new(),
    })
}

fn no_interfaces() -> DatapathConfig {
    DatapathConfig {
        interfaces: Vec::new(),
        fast_path: FastPath::Off,
        fast_path_reason: None,
        verify_share: 0,
        snat_ips: Vec::new(),
        snat_ports: (0, 0),
        flow_table: 0,
        hold: Duration::ZERO,
        detach_on_stop: false,
    }
}

impl Inner {
    fn load(
        &mut self,
        config: &Config,
        datapath: &DatapathConfig,
        source: Option<&KernelTable>,
        servers: &[(Identity, Operator)],
    ) -> anyhow::Result<()> {
        let (mut ebpf, mut maps) = maps::load(&self.pins, datapath.flow_table, &mut self.rollback)?;
        program::verify(&mut ebpf)?;
        publish::settings(&mut maps)?;
        let slot = publish::slot(&mut maps, &config.name)?;
        if let Some(source) = source {
            let table = aya::maps::HashMap::try_from(aya::maps::Map::LruHashMap(source.map_data()?))?;
            maps.sources.set(slot, &table, 0).context("cannot give the program the source table")?;
        }
        self.retire(config, &mut maps, source, servers);
        let service = publish::service(&config.name, datapath, &maps, false);
        maps.services.set(slot, service, 0)?;
        self.xdp = Some(Attached { maps, slot, service, interfaces: Vec::new(), _ebpf: ebpf });
        Ok(())
    }

    /// Servers that the flags no longer name take nobody new; their ids are free once nothing names them.
    fn retire(
        &mut self,
        config: &Config,
        maps: &mut Maps,
        source: Option<&KernelTable>,
        servers: &[(Identity, Operator)],
    ) {
        let keep: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
        for (name, id) in self.registry.retired(&config.name, &keep) {
            debug_assert!(servers.iter().all(|(identity, _)| identity.id != id));
            publish::remove_server(maps, id);
            let mut held = flows::names_server(maps, id);
            if let Some(source) = source {
                source.for_each(&mut |_, entry| held |= entry.server() == id);
            }
            if !held {
                self.registry.forget(&config.name, &name);
            }
        }
    }
}

impl Datapath {
    /// Attaches the program and lets known clients through; to be called when the proxy is listening.
    ///
    /// # Errors
    /// Names the interface and what to do; what was made is taken back.
    pub fn attach(&self) -> anyhow::Result<Vec<String>> {
        let mut inner = self.lock();
        let Inner { pins, rollback, xdp, .. } = &mut *inner;
        let Some(Attached { maps, slot, service, interfaces, _ebpf: ebpf }) = xdp else {
            rollback.commit();
            return Ok(Vec::new());
        };
        let _turn = pins.lock_shared()?;
        publish::listens(maps, *slot, &self.listen)?;
        let program = ebpf.program_mut("balancer").context("the object holds no program")?.try_into()?;
        *interfaces = program::attach(program, &self.config.interfaces, pins, maps, rollback)?;
        let notes = program::open_for_transmission(maps, interfaces)?;
        *service = publish::service(&self.name, &self.config, maps, true);
        maps.services.set(*slot, *service, 0)?;
        rollback.commit();
        Ok(notes)
    }

    /// What is to be told of every change of a server's state.
    pub fn publisher(&self) -> Box<dyn Fn(&Server) + Send + Sync> {
        let (inner, name) = (Arc::clone(&self.inner), self.name.clone());
        Box::new(move |server| {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = inner.registry.set_operator(&name, &server.name, server.operator()) {
                log::warn(format_args!("the state of server {} is not on record: {error:#}", server.name));
            }
            if let Some(Attached { maps, .. }) = &mut inner.xdp
                && let Err(error) = publish::server(maps, server)
            {
                log::warn(format_args!("XDP is not told the state of server {}: {error:#}", server.name));
            }
        })
    }

    /// What operators see; `None` without `--xdp`.
    pub fn view(self: &Rc<Self>) -> Option<Rc<dyn View>> {
        self.lock().xdp.is_some().then(|| Rc::clone(self) as Rc<dyn View>)
    }

    /// Runs for as long as the service: heartbeat, wildcard addresses, collection.
    pub async fn upkeep(self: Rc<Self>) {
        if self.lock().xdp.is_none() {
            return std::future::pending().await;
        }
        let collector = Rc::clone(&self);
        tokio::join!(self.keep_alive(), collector.collect());
    }

    async fn keep_alive(&self) {
        let complaint = RefCell::new(String::new());
        let mut beats = 0_u32;
        loop {
            beats = beats.wrapping_add(1);
            let result = self.beat(beats.is_multiple_of(TRANSMISSION_CHECK));
            let message = match result {
                Ok(notes) => notes.join("; "),
                Err(error) => format!("{error:#}"),
            };
            // The same trouble is said once.
            if *complaint.borrow() != message {
                if !message.is_empty() {
                    log::warn(format_args!("fast path: {message}"));
                }
                complaint.replace(message);
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    fn beat(&self, check_transmission: bool) -> anyhow::Result<Vec<String>> {
        let mut inner = self.lock();
        let Some(Attached { maps, slot, service, interfaces, .. }) = &mut inner.xdp else {
            return Ok(Vec::new());
        };
        publish::heartbeat(maps, *slot, service)?;
        publish::listens(maps, *slot, &self.listen)?;
        if check_transmission { program::open_for_transmission(maps, interfaces) } else { Ok(Vec::new()) }
    }

    async fn collect(&self) {
        let mut collector = Collector::default();
        loop {
            let at_end = match &mut self.lock().xdp {
                Some(Attached { maps, .. }) => collector.step(maps).1,
                None => true,
            };
            tokio::time::sleep(if at_end { HEARTBEAT } else { COLLECT_PAUSE }).await;
        }
    }

    /// The process is going: new connections pass from now on, running ones are kept.
    pub fn drain(&self) {
        if let Some(Attached { maps, slot, service, .. }) = &mut self.lock().xdp {
            *service = publish::service(&self.name, &self.config, maps, false);
            let _ = maps.services.set(*slot, *service, 0);
        }
    }

    /// The last step of a clean stop: the pins stay for the next start, unless the program is to be detached.
    pub fn leave(&self) {
        if self.config.detach_on_stop {
            let pins = self.lock().pins.clone();
            if let Err(error) = remove(&pins, &self.name) {
                log::warn(format_args!("cannot detach: {error:#}"));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Datapath {
    /// The publisher may outlive a start that failed; what the start has made must not.
    fn drop(&mut self) {
        self.lock().rollback.undo();
    }
}

impl View for Datapath {
    fn info(&self) -> DatapathInfo {
        let inner = self.lock();
        let (interfaces, counters) = match &inner.xdp {
            Some(Attached { maps, interfaces, .. }) => (interfaces.clone(), counters(maps)),
            None => Default::default(),
        };
        let fast_path = match self.config.fast_path {
            FastPath::Off => "off",
            FastPath::Exclusive => "exclusive",
            FastPath::Always => "always",
        };
        DatapathInfo { interfaces, fast_path, counters }
    }

    fn flows(&self) -> Vec<FlowRow> {
        match &self.lock().xdp {
            Some(Attached { maps, slot, .. }) => flows::list(maps, *slot, &self.names),
            None => Vec::new(),
        }
    }
}

fn counters(maps: &Maps) -> BTreeMap<&'static str, u64> {
    let sum = |outcome: &Outcome| {
        let values = maps.counters.get(&(*outcome as u32), 0);
        values.map_or(0, |values| values.iter().sum())
    };
    Outcome::ALL.iter().map(|outcome| (outcome.name(), sum(outcome))).collect()
}

/// What `balancer check` tries with `--xdp`: the program through the verifier, the interfaces by name. Attaches nothing.
///
/// # Errors
/// What this host lacks.
pub fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let Some(datapath) = &config.datapath else { return Ok(Vec::new()) };
    let (mut ebpf, _maps) = maps::load_unpinned(datapath.flow_table)?;
    program::verify(&mut ebpf)?;
    let mut notes = vec!["the XDP program passes the verifier".to_owned()];
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

/// `balancer detach`: removes a service's pins; the last one takes the program and the shared pins with it. `force`
/// also removes what a live instance uses, and what cannot be read.
///
/// # Errors
/// The service is live, or there is none of that name.
pub fn detach(name: &str, force: bool) -> anyhow::Result<String> {
    let pins = Pins::locate()?;
    let folder = pins.service(name);
    if !folder.exists() && !force {
        bail!(
            "no service named \"{name}\" has pins in this network namespace; there are: {}",
            list(&pins.services())
        );
    }
    let _turn = pins.lock_shared()?;
    let role = pins.lock_service(name);
    if role.is_err() && !force && folder.exists() {
        bail!("\"{name}\" is running; stop it first, or use --force, which cuts its fast connections");
    }
    remove(&pins, name)?;
    Ok(if pins.root().exists() {
        format!("{name}: removed; the program stays for: {}", list(&pins.services()))
    } else {
        format!("{name}: removed, and the program with it")
    })
}

fn remove(pins: &Pins, name: &str) -> anyhow::Result<()> {
    if let Ok((_ebpf, mut maps)) = existing(pins)
        && let Some(slot) = publish::find_slot(&maps, name)
    {
        let _ = publish::listens(&mut maps, slot, &[]);
        let _ = maps.services.set(slot, Service::FREE, 0);
    }
    let folder = pins.service(name);
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        fs::remove_file(entry.path())?;
    }
    if folder.exists() {
        fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if pins.services().is_empty() {
        for entry in fs::read_dir(pins.root()).into_iter().flatten().flatten() {
            fs::remove_file(entry.path())?;
        }
        pins.remove_if_empty();
    }
    Ok(())
}

/// The maps as they are pinned, if they are.
fn existing(pins: &Pins) -> anyhow::Result<(Ebpf, Maps)> {
    if !pins.shared("FLOWS").exists() {
        bail!("the program is not loaded");
    }
    maps::load(pins, 1024, &mut Rollback::default())
}

fn list(services: &[String]) -> String {
    if services.is_empty() { "none".to_owned() } else { services.join(", ") }
}
