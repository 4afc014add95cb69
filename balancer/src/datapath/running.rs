//! A service's hold on the kernel: attached, kept up, drained, left.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::MapData;
use balancer_ebpf::abi::Service;
use balancer_ebpf::counter::Outcome;

use super::collect::Collector;
use super::intents::IntentMap;
use super::kernel_table::KernelTable;
use super::maps::Maps;
use super::pins::{Pins, Rollback};
use super::records::retire;
use super::registry::Registry;
use super::view::{DatapathInfo, FlowRow, InterfaceInfo, View};
use super::{detach, flows, program, publish};
use crate::cidr::AddressSet;
use crate::config::{DatapathConfig, FastPath};
use crate::log;
use crate::server::Server;

/// How often the program is told that we live, and wildcards and interfaces are looked at again.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two steps of the collector while there is something left to look at.
const COLLECT_PAUSE: Duration = Duration::from_millis(20);
/// Servers whose source address is looked at again in one heartbeat.
const SERVERS_A_BEAT: usize = 64;

/// A running service's hold on the kernel.
pub struct Datapath {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) config: DatapathConfig,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) deny: AddressSet,
    pub(super) name: String,
    /// Ids, names and addresses of the servers.
    pub(super) servers: Vec<(u16, String, SocketAddr)>,
}

/// What the publisher, the upkeep and the view share; none of them is on the request path.
pub(super) struct Inner {
    pub(super) pins: Pins,
    pub(super) registry: Registry,
    pub(super) intents: IntentMap,
    /// The role of this service, held until a successor has it.
    pub(super) role: Option<File>,
    pub(super) rollback: Rollback,
    pub(super) xdp: Option<Attached>,
    /// The table of sources if there is one, whether or not this run uses it.
    pub(super) learned: Option<anyhow::Result<KernelTable>>,
    /// The folder of all services, to take one's turn by; opened early, as the privilege for it may be given up.
    pub(super) turn: File,
    /// A successor has the role, or is just taking it: nothing is published.
    pub(super) is_silent: bool,
}

/// The program, loaded, and the interfaces once it is attached.
pub(super) struct Attached {
    pub(super) maps: Maps,
    pub(super) slot: u32,
    pub(super) service: Service,
    pub(super) interfaces: Vec<InterfaceInfo>,
    /// The program itself; once its links are pinned it stays without us.
    pub(super) ebpf: Ebpf,
    /// The `source` table, until [`Datapath::attach`] gives it to the program.
    pub(super) source: Option<MapData>,
}

impl Datapath {
    /// Attaches the program and lets known clients through; to be called when the proxy is listening. A predecessor
    /// may be serving still, and go on if this start fails after all.
    ///
    /// # Errors
    /// Names the interface and what to do; what was made is taken back.
    pub fn attach(&self) -> anyhow::Result<Vec<String>> {
        let mut inner = self.lock();
        let Inner { pins, rollback, xdp, .. } = &mut *inner;
        let Some(Attached { maps, slot, service, interfaces, ebpf, source }) = xdp else {
            return Ok(Vec::new());
        };
        let _turn = pins.lock_shared()?;
        *slot = publish::slot(maps, &self.name)?;
        if let Some(source) = source.take() {
            let table = aya::maps::HashMap::try_from(aya::maps::Map::LruHashMap(source))?;
            maps.sources.set(*slot, &table, 0).context("cannot give the program the source table")?;
        }
        publish::listens(maps, *slot, &self.listen)?;
        *interfaces = program::attach(program::of(ebpf)?, &self.config.interfaces, pins, maps, rollback)?;
        let mut notes = program::open_for_transmission(maps, interfaces);
        if maps.flow_entries != self.config.flow_table.saturating_mul(2) {
            notes.push(format!(
                "the flow table holds {} flows, as it was made; --flow-table {} counts once the last service here has \
                 been detached",
                maps.flow_entries / 2,
                self.config.flow_table
            ));
        }
        publish::deny(maps, *slot, &self.deny)?;
        *service = publish::service(&self.name, &self.config, &self.deny, maps, true);
        maps.services.set(*slot, *service, 0)?;
        Ok(notes)
    }

    /// The start has succeeded, and no predecessor is left: what it has made stays, new addresses of servers are on
    /// record, and those that the flags no longer name are taken out. Opens nothing by path.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn settle(&self) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let Inner { registry, rollback, xdp, learned, turn, .. } = &mut *inner;
        turn.lock().context("cannot lock the folder of pins")?;
        let committed = registry.commit();
        let keep: Vec<&str> = self.servers.iter().map(|(_, name, _)| name.as_str()).collect();
        if let Some(Attached { maps, .. }) = xdp {
            retire(&self.name, &keep, registry, Some(maps), learned.as_ref());
        }
        turn.unlock().context("cannot unlock the folder of pins")?;
        committed?;
        rollback.commit();
        Ok(())
    }

    /// Another descriptor of the role's lock, to pass on; `None` once a successor has the role.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn role(&self) -> io::Result<Option<File>> {
        self.lock().role.as_ref().map(File::try_clone).transpose()
    }

    /// There is an XDP program, and it is told what to do by us.
    pub fn is_fast(&self) -> bool {
        self.lock().xdp.is_some()
    }

    /// From now on a successor publishes.
    pub fn fall_silent(&self) {
        self.lock().is_silent = true;
    }

    /// The successor has failed, perhaps after it has published something: everything that is not about a server is
    /// published again, the rest is the caller's business.
    pub fn speak_again(&self) {
        let mut inner = self.lock();
        inner.is_silent = false;
        if let Some(Attached { maps, slot, service, .. }) = &mut inner.xdp {
            // What fails now the next heartbeat tries again, and says so.
            let _ = publish::listens(maps, *slot, &self.listen);
            let _ = publish::heartbeat(maps, *slot, service);
        }
    }

    /// A successor has the role. `is_fast`: it has an XDP program, too; otherwise new connections pass from now on.
    pub fn hand_over(&self, is_fast: bool) {
        if !is_fast {
            self.drain();
        }
        let mut inner = self.lock();
        inner.is_silent = true;
        (inner.xdp, inner.role) = (None, None);
    }

    /// What is to be told of every change of a server's state.
    pub fn publisher(&self) -> Box<dyn Fn(&Server) + Send + Sync> {
        let (inner, name) = (Arc::clone(&self.inner), self.name.clone());
        Box::new(move |server| {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.is_silent {
                return;
            }
            if let Err(error) = inner.registry.record(&name, server) {
                log::warn(format_args!("the health of server {} is not on record: {error:#}", server.name));
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
        let mut complaint = String::new();
        let mut beats = 0_usize;
        loop {
            beats = beats.wrapping_add(1);
            let turn = beats.wrapping_mul(SERVERS_A_BEAT) % self.servers.len().max(1);
            let message = match self.beat(turn) {
                Ok(notes) => notes.join("; "),
                Err(error) => format!("{error:#}"),
            };
            // The same trouble is said once, so every beat has to look at all that may be wrong.
            if complaint != message {
                if !message.is_empty() {
                    log::warn(format_args!("fast path: {message}"));
                }
                complaint = message;
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    fn beat(&self, turn: usize) -> anyhow::Result<Vec<String>> {
        let mut inner = self.lock();
        let is_silent = inner.is_silent;
        let Some(Attached { maps, slot, service, interfaces, .. }) =
            inner.xdp.as_mut().filter(|_| !is_silent)
        else {
            return Ok(Vec::new());
        };
        publish::heartbeat(maps, *slot, service)?;
        publish::listens(maps, *slot, &self.listen)?;
        // A bounded number a beat: a thousand servers take their turns.
        for (id, _, address) in
            self.servers.iter().cycle().skip(turn).take(self.servers.len().min(SERVERS_A_BEAT))
        {
            publish::source_address(maps, *id, *address)?;
        }
        Ok(program::open_for_transmission(maps, interfaces))
    }

    async fn collect(&self) {
        let mut collector = Collector::default();
        loop {
            let at_end = match &mut self.lock().xdp {
                Some(Attached { maps, .. }) => collector.step(maps),
                None => true,
            };
            tokio::time::sleep(if at_end { HEARTBEAT } else { COLLECT_PAUSE }).await;
        }
    }

    /// The process is going: new connections pass from now on, running ones are kept.
    pub fn drain(&self) {
        if let Some(Attached { maps, slot, service, .. }) = &mut self.lock().xdp {
            *service = publish::service(&self.name, &self.config, &self.deny, maps, false);
            let _ = maps.services.set(*slot, *service, 0);
        }
    }

    /// The last step of a clean stop: the pins stay for the next start, unless the program is to be detached.
    pub fn leave(&self) {
        if self.config.detach_on_stop {
            let pins = self.lock().pins.clone();
            let turn = pins.lock_shared();
            if let Err(error) = turn.and_then(|_turn| detach::remove(&pins, &self.name)) {
                log::warn(format_args!("cannot detach: {error:#}"));
            }
        }
        // A process that has wanted to take over and came too late may hold a descriptor still.
        if let Some(role) = self.lock().role.take() {
            let _ = role.unlock();
        }
    }

    fn names(&self) -> HashMap<u16, String> {
        self.servers.iter().map(|(id, name, _)| (*id, name.clone())).collect()
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
            Some(Attached { maps, slot, .. }) => flows::list(maps, *slot, &self.names()),
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
