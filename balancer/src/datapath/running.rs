//! A service's hold on the kernel: attached, kept up, drained, left.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::MapData;
use balancer_ebpf::abi::{Service, Traffic};
use balancer_ebpf::affinity::Affinity;
use balancer_ebpf::counter::{self, Note, Outcome};

use super::collect::Collector;
use super::intents::IntentMap;
use super::links::Links;
use super::loads::{Loads, ServerLoads};
use super::maps::Maps;
use super::pins::{Pins, Rollback};
use super::records::retire;
use super::registry::Registry;
use super::ring::Ring;
use super::roster::Roster;
use super::tables::{Fresh, Pinned};
use super::upgrade::{self, Waiting};
use super::view::{Asked, DatapathInfo, FastTraffic, FlowRow, View};
use super::{detach, ended, flows, foresee, program, publish, routes, tend};
use crate::access_log::Sender;
use crate::cidr::{AddressSet, SharedSet};
use crate::config::{DatapathConfig, FastPath};
use crate::log;
use crate::server::{FastLoads, Server};

/// How often the program is told that we live, and addresses, interfaces and neighbours are looked at again.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Between two steps of the collector while there is something left to look at.
const COLLECT_PAUSE: Duration = Duration::from_millis(20);

/// A running service's hold on the kernel.
pub struct Datapath {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) config: DatapathConfig,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) deny: SharedSet,
    pub(super) name: String,
    pub(super) drain_timeout: Duration,
}

/// What the publisher, the upkeep and the view share; none of them is on the request path.
pub(super) struct Inner {
    pub(super) pins: Pins,
    pub(super) registry: Registry,
    pub(super) intents: IntentMap,
    /// Kept by the publisher.
    pub(super) roster: Roster,
    /// The role of this service, held until a successor has it.
    pub(super) role: Option<File>,
    pub(super) rollback: Rollback,
    pub(super) xdp: Option<Attached>,
    /// The learned tables there are, whether or not this run uses them.
    pub(super) learned: Vec<Pinned>,
    /// Those that are being filled.
    pub(super) fresh: Fresh,
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
    pub(super) links: Links,
    /// The program of another version is on the interfaces.
    pub(super) waiting: Option<Waiting>,
    /// The program itself; once its links are pinned it stays without us.
    pub(super) ebpf: Ebpf,
    /// What the program tells this service.
    pub(super) ring: Ring,
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
        let Some(Attached { maps, slot, service, links, waiting, ebpf, source, ring }) = xdp else {
            return Ok(Vec::new());
        };
        let _turn = pins.lock_shared()?;
        *slot = publish::slot(maps, &self.name)?;
        if let Some(source) = source.take() {
            let table = aya::maps::HashMap::try_from(aya::maps::Map::LruHashMap(source))?;
            maps.sources.set(*slot, &table, 0).context("the XDP program cannot be given the table source")?;
        }
        maps.give_ring(*slot, ring).context("the XDP program cannot be given where to report")?;
        publish::listens(maps, *slot, &routes::sorted(&self.listen).0)?;
        publish::ports(maps, &self.listen, publish::answered(&self.config))?;
        let wanted = program::indexes(&self.config.interfaces)?;
        *waiting = Waiting::look(pins, &wanted, self.drain_timeout, rollback)?;
        let mut notes = Vec::new();
        if let Some(waiting) = waiting {
            notes.push(waiting.note());
            links.places = wanted;
        } else {
            let wanted = &self.config.interfaces;
            *links = program::attach(program::of(ebpf)?, wanted, pins, maps, rollback, &mut notes)?;
            // The first beat says which cannot transmit, as every later one would.
            let _ = program::open_for_transmission(maps, &links.attached);
        }
        if maps.flow_entries != self.config.flow_table.saturating_mul(2) {
            notes.push(format!(
                "the flow table holds {} flows, as it was made; --flow-table {} counts once the last service here has \
                 been detached",
                maps.flow_entries / 2,
                self.config.flow_table
            ));
        }
        publish::deny(maps, *slot, &self.deny.now(), &self.config.exclude)?;
        *service = publish::service(&self.name, &self.config, &self.deny.now(), maps, true);
        maps.services.set(*slot, *service, 0)?;
        Ok(notes)
    }

    /// The learned tables have all that they start with. To be called before anybody is served, with the privileges of
    /// the start.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tables_are_complete(&self) -> anyhow::Result<()> {
        self.lock().fresh.keep()
    }

    /// The start has succeeded, and no predecessor is left: what it has made stays, new addresses of servers are on
    /// record, and those that the flags no longer name are taken out. Opens nothing by path.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn settle(&self) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let Inner { pins, registry, roster, rollback, xdp, learned, turn, .. } = &mut *inner;
        turn.lock().context("cannot lock the folder of pins")?;
        let committed = registry.commit();
        if let Some(Attached { maps, .. }) = xdp {
            retire(&self.name, &roster.names_in_use(), registry, Some(maps), learned);
        }
        turn.unlock().context("cannot unlock the folder of pins")?;
        committed?;
        rollback.commit();
        if xdp.as_ref().is_none_or(|xdp| xdp.waiting.is_none()) {
            upgrade::tidy(pins, &self.name);
        }
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
        self.lock().xdp.as_ref().is_some_and(|xdp| xdp.waiting.is_none())
    }

    /// From now on a successor publishes.
    pub fn fall_silent(&self) {
        let mut inner = self.lock();
        inner.is_silent = true;
        if let Some(Attached { maps, .. }) = &inner.xdp {
            maps.loads.fall_silent();
        }
    }

    /// The successor has failed, perhaps after it has published something: everything that is not about a server is
    /// published again, the rest is the caller's business.
    pub fn speak_again(&self) {
        let mut inner = self.lock();
        inner.is_silent = false;
        let Inner { registry, roster, xdp, learned, .. } = &mut *inner;
        if let Some(Attached { maps, slot, service, .. }) = xdp {
            maps.loads.speak_again(roster.ids());
            // Servers that have gone meanwhile.
            retire(&self.name, &roster.names_in_use(), registry, Some(maps), learned);
            // What fails now the next heartbeat tries again, and says so.
            let _ = publish::listens(maps, *slot, &routes::sorted(&self.listen).0);
            let _ = publish::heartbeat(maps, *slot, service);
        }
    }

    /// A successor has the role. `is_fast`: it has an XDP program, too; otherwise new connections pass from now on.
    pub fn hand_over(&self, is_fast: bool) {
        if !is_fast {
            self.drain();
        }
        self.fall_silent();
        let mut inner = self.lock();
        (inner.xdp, inner.role) = (None, None);
    }

    /// What is to be told of every change of a server, of those that come, too, and of those that go.
    pub fn publisher(&self) -> Box<dyn Fn(&Server) + Send + Sync> {
        let (inner, name) = (Arc::clone(&self.inner), self.name.clone());
        Box::new(move |server| inner.lock().unwrap_or_else(PoisonError::into_inner).publish(&name, server))
    }

    /// What the fast path knows of servers; `None` without `--xdp`.
    pub fn loads(&self) -> Option<Box<dyn FastLoads>> {
        let inner = self.lock();
        let loads = Arc::clone(&inner.xdp.as_ref()?.maps.loads);
        Some(Box::new(ServerLoads { loads, inner: Arc::clone(&self.inner) }))
    }

    /// What operators see; `None` without `--xdp`.
    pub fn view(self: &Rc<Self>) -> Option<Rc<dyn View>> {
        self.lock().xdp.is_some().then(|| Rc::clone(self) as Rc<dyn View>)
    }

    /// Runs for as long as the service: heartbeat, wildcard addresses, collection, and what the program tells. Fast
    /// connections that have ended are written to `log`.
    pub async fn upkeep(self: Rc<Self>, log: Option<Sender>) {
        if self.lock().xdp.is_none() {
            return std::future::pending().await;
        }
        let log = log.as_ref();
        tokio::join!(self.keep_alive(), self.collect(log), self.hear(log));
    }

    async fn keep_alive(&self) {
        let mut complaint = String::new();
        loop {
            let message = match self.beat() {
                Ok(notes) => notes.join("; "),
                Err(error) => log::chain(&error),
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

    fn beat(&self) -> anyhow::Result<Vec<String>> {
        let mut inner = self.lock();
        let Inner { pins, xdp, roster, turn, is_silent, .. } = &mut *inner;
        let Some(xdp) = xdp.as_mut().filter(|_| !*is_silent) else {
            return Ok(Vec::new());
        };
        if !publish::has_slot(&xdp.maps, xdp.slot, &xdp.service) {
            let what = "the service has been detached by force, and nothing of it is fast; restart balancer";
            return Ok(vec![what.to_owned()]);
        }
        publish::heartbeat(&mut xdp.maps, xdp.slot, &mut xdp.service)?;
        let (ours, not_ours) = routes::sorted(&self.listen);
        publish::listens(&mut xdp.maps, xdp.slot, &ours)?;
        let mut notes: Vec<_> = not_ours
            .iter()
            .map(|address| format!("{address} is no address of this host; nothing is fast there until it is"))
            .collect();
        look_after_servers(xdp, roster)?;
        notes.extend(self.look_after_links(xdp, pins, turn)?);
        Ok(notes)
    }

    fn look_after_links(&self, xdp: &mut Attached, pins: &Pins, turn: &File) -> anyhow::Result<Vec<String>> {
        let Attached { maps, links, waiting, ebpf, .. } = xdp;
        let program = program::of(ebpf)?;
        if let Some(before) = waiting.as_mut() {
            if let Err(note) = before.is_over() {
                return Ok(note.into_iter().collect());
            }
            // Whoever has the turn may be starting just now; the next beat is soon.
            if turn.try_lock().is_err() {
                return Ok(Vec::new());
            }
            let replaced =
                waiting.take().map(|it| it.replace(&self.name, &links.places, program, maps, pins));
            let _ = turn.unlock();
            if let Some(replaced) = replaced {
                *links = replaced?;
            }
        }
        let mut notes = links.follow(&self.config.interfaces, program, maps, pins, turn);
        notes.extend(program::open_for_transmission(maps, &links.attached));
        Ok(notes)
    }

    async fn collect(&self, log: Option<&Sender>) {
        let mut collector = Collector::default();
        loop {
            let at_end = self.collect_some(&mut collector, log);
            tokio::time::sleep(if at_end { HEARTBEAT } else { COLLECT_PAUSE }).await;
        }
    }

    fn collect_some(&self, collector: &mut Collector, access_log: Option<&Sender>) -> bool {
        let mut inner = self.lock();
        let Inner { xdp, roster, is_silent, .. } = &mut *inner;
        let Some(Attached { maps, ebpf, slot, .. }) = xdp else { return true };
        // A successor checks the counts itself, and tells the ends.
        let own = roster.ids().filter(|_| !*is_silent);
        let step = collector.step(maps, ebpf, own, Some(*slot).filter(|_| !*is_silent));
        if let Some(log) = access_log {
            ended::log(&step.ended, log, |id| roster.name_of(id));
        }
        for (id, excess) in step.corrected {
            let name = roster.names().remove(&id).unwrap_or_default();
            log::info(format_args!(
                "server {name}: the count of its fast connections was too large by {excess}, and is right now"
            ));
        }
        step.at_end
    }

    /// The kernel is to turn these away too. Who is being served goes on.
    ///
    /// # Errors
    /// It does not take them, and goes on with those of before.
    pub fn deny(&self, deny: &AddressSet) -> anyhow::Result<()> {
        if let Some(Attached { maps, slot, service, .. }) = &mut self.lock().xdp
            && publish::has_slot(maps, *slot, service)
        {
            let outcome = publish::deny(maps, *slot, deny, &self.config.exclude);
            if outcome.is_err() {
                // What there was before had room.
                let _ = publish::deny(maps, *slot, &self.deny.now(), &self.config.exclude);
            }
            outcome?;
            *service = publish::service(&self.name, &self.config, deny, maps, true);
            maps.services.set(*slot, *service, 0)?;
        }
        Ok(())
    }

    /// The process is going: new connections pass from now on, running ones are kept.
    pub fn drain(&self) {
        if let Some(Attached { maps, slot, service, .. }) = &mut self.lock().xdp
            && publish::has_slot(maps, *slot, service)
        {
            *service = publish::service(&self.name, &self.config, &self.deny.now(), maps, false);
            let _ = maps.services.set(*slot, *service, 0);
        }
    }

    /// The last step of a clean stop: the pins stay for the next start, unless the program is to be detached.
    pub fn leave(&self) {
        if self.config.detach_on_stop {
            let pins = self.lock().pins.clone();
            let turn = pins.lock_shared();
            if let Err(error) = turn.and_then(|_turn| detach::remove(&pins, &self.name)) {
                log::warn(format_args!("cannot detach: {}; balancer detach does it", log::chain(&error)));
            }
        }
        // A process that has wanted to take over and came too late may hold a descriptor still.
        if let Some(role) = self.lock().role.take() {
            let _ = role.unlock();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn publish(&mut self, service: &str, server: &Server) {
        let id = server.identity.id;
        if server.is_retired() {
            self.roster.leave(id);
            if let Some(Attached { maps, .. }) = self.xdp.as_mut().filter(|_| !self.is_silent) {
                publish::remove_server(maps, id);
            }
            return;
        }
        self.roster.enter(server);
        if self.is_silent {
            return;
        }
        if let Err(error) = self.registry.record(service, server) {
            let error = log::chain(&error);
            log::warn(format_args!(
                "server {}: its state is not on record, so the next start does not know it: {error}",
                server.name
            ));
        }
        let Some(Attached { maps, .. }) = &mut self.xdp else { return };
        if let Err(error) = publish::server(maps, server) {
            let error = log::chain(&error);
            log::warn(format_args!(
                "fast path: the state of server {} does not get there, so its clients go on as before: \
                 {error}",
                server.name
            ));
        }
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
        let (interfaces, [counters, own, host]) = match &inner.xdp {
            Some(Attached { maps, links, slot, .. }) => {
                let own = counters(maps, [*slot].into_iter());
                let sum = counters(maps, [0, *slot].into_iter());
                let host = counters(maps, publish::slots(maps).chain([0]));
                (links.attached.clone(), [sum, own, host])
            }
            None => Default::default(),
        };
        let fast_path = match self.config.fast_path {
            FastPath::Off => "off",
            FastPath::Exclusive => "exclusive",
            FastPath::Always => "always",
        };
        DatapathInfo { interfaces, fast_path, forward: self.config.forward.as_str(), counters, own, host }
    }

    fn flows(&self, asked: &Asked) -> (Vec<FlowRow>, usize) {
        let inner = self.lock();
        match &inner.xdp {
            Some(Attached { maps, slot, .. }) => flows::list(maps, *slot, &inner.roster.names(), asked),
            None => (Vec::new(), 0),
        }
    }

    fn reset(&self, asked: &Asked) -> u64 {
        let inner = self.lock();
        let Some(Attached { slot, .. }) = &inner.xdp else { return 0 };
        let (slot, names) = (*slot, inner.roster.names());
        drop(inner);
        tend::end_some(&self.inner, tend::ANY, |key, flow| {
            flows::is_asked_for(slot, asked, &names, key, flow)
        })
    }

    fn traffic(&self, ids: &[u16]) -> Vec<FastTraffic> {
        let inner = self.lock();
        let Some(Attached { maps, .. }) = &inner.xdp else {
            return vec![FastTraffic::default(); ids.len()];
        };
        // In this order: a flow that ends meanwhile is missing for a moment rather than counted twice.
        let gone: Vec<_> = ids.iter().map(|id| maps.loads.traffic(*id)).collect();
        let live = flows::traffic(maps);
        ids.iter().zip(gone).map(|(id, gone)| fast_traffic(&maps.loads, *id, gone, live.get(id))).collect()
    }

    fn foresee(&self, client: IpAddr, entry: Option<Affinity>) -> (bool, String) {
        match &self.lock().xdp {
            Some(Attached { waiting: Some(waiting), .. }) => (false, waiting.obstacle()),
            Some(Attached { maps, service, .. }) => {
                let deny = self.deny.now();
                let lists = (&*deny, &self.config.exclude);
                foresee::foresee(maps, service, lists, client, entry)
            }
            None => (false, "a successor has the fast path".to_owned()),
        }
    }
}

/// Which address of ours the kernel uses towards a server may change, and neighbours are forgotten that nobody uses:
/// packets of fast connections do not count as use. Without root there are the checks, and what the program tells.
fn look_after_servers(xdp: &mut Attached, roster: &mut Roster) -> anyhow::Result<()> {
    for server in roster.next_turn() {
        publish::source_address(&mut xdp.maps, server.id, server.address)?;
        if let Some(neighbour) = routes::neighbour_towards(server.address.ip()) {
            let _ = routes::use_neighbour(neighbour);
        }
    }
    Ok(())
}

fn fast_traffic(loads: &Loads, id: u16, gone: [Traffic; 2], live: Option<&[Traffic; 2]>) -> FastTraffic {
    let [live_in, live_out] = live.copied().unwrap_or_default();
    let [gone_in, gone_out] = gone;
    let (active, opened) = (loads.connections(id).max(0) as u64, loads.opened(id));
    FastTraffic {
        opened,
        closed: opened.saturating_sub(active),
        active,
        packets_in: gone_in.packets + live_in.packets,
        packets_out: gone_out.packets + live_out.packets,
        bytes_in: gone_in.bytes + live_in.bytes,
        bytes_out: gone_out.bytes + live_out.bytes,
    }
}

/// The counters of the services in `slots`, added up.
fn counters(maps: &Maps, slots: impl Iterator<Item = u32>) -> BTreeMap<&'static str, u64> {
    let outcomes = Outcome::ALL.iter().map(|outcome| (outcome.name(), *outcome as u32));
    let numbers: Vec<_> = outcomes.chain(Note::ALL.iter().map(|note| (note.name(), *note as u32))).collect();
    let mut sums: BTreeMap<_, _> = numbers.iter().map(|(name, _)| (*name, 0)).collect();
    for slot in slots {
        for (name, number) in &numbers {
            let values = maps.counters.get(&counter::index(slot, *number), 0);
            *sums.entry(*name).or_default() += values.map_or(0, |values| values.iter().sum::<u64>());
        }
    }
    sums
}
