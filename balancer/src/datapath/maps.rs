//! The maps of the XDP program: found pinned and checked, or created by loading the program.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use aya::maps::lpm_trie::{Key as Prefix, LpmTrie};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapInfo, MapType, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use balancer_ebpf::abi::{
    Address, BOUNDS, DeniedKey, Draft, EventRate, FROM_CLIENT, Flow, FlowKey, ListenKey, Load, MAX_DENIED,
    MAX_HALF_OPEN_SOURCES, MAX_INTERFACES, MAX_LISTENS, MAX_SERVERS, MAX_SERVICES, PORT_WORDS, Question,
    Rate, Server, Service, Settings,
};
use balancer_ebpf::counter::MAX_OUTCOMES;
use balancer_ebpf::state::State;
use balancer_ebpf::window::Window;

use super::loads::Loads;
use super::pins::{Pins, Rollback};
use super::ring::Ring;
use super::syscall;
use crate::table::Key;

/// The compiled program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/balancer-xdp"));

/// What a pinned map must look like to be the one we know.
struct Shape {
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// `None`: set by a flag.
    entries: Option<u32>,
}

const FLOWS: &str = "FLOWS";

const SHAPES: [Shape; 20] = [
    shape::<FlowKey, Flow>(FLOWS, MapType::Hash, None),
    shape::<ListenKey, u32>("LISTENS", MapType::Hash, Some(MAX_LISTENS)),
    shape::<u32, u64>("PORTS", MapType::Array, Some(PORT_WORDS)),
    shape::<u32, Service>("SERVICES", MapType::Array, Some(MAX_SERVICES)),
    shape::<u32, u32>("SOURCES", MapType::ArrayOfMaps, Some(MAX_SERVICES)),
    shape::<Prefix<DeniedKey>, u8>("DENIED", MapType::LpmTrie, Some(MAX_DENIED)),
    shape::<u32, Server>("SERVERS", MapType::Array, Some(MAX_SERVERS)),
    shape::<u32, Load>("LOADS", MapType::Array, Some(MAX_SERVERS)),
    shape::<u32, u64>("NOT_FAST", MapType::Array, Some(MAX_SERVERS)),
    shape::<u32, [u32; 2]>("INTERFACES", MapType::DevMapHash, Some(MAX_INTERFACES)),
    shape::<Address, Window>("HALF_OPEN", MapType::LruHash, Some(MAX_HALF_OPEN_SOURCES)),
    shape::<u32, Window>("HALF_OPEN_TOTALS", MapType::Array, Some(MAX_SERVICES)),
    shape::<u32, Rate>("SYN_RATES", MapType::PerCpuArray, Some(1)),
    shape::<u32, Rate>("RATES", MapType::PerCpuArray, Some(BOUNDS)),
    shape::<u32, Draft>("DRAFT", MapType::PerCpuArray, Some(1)),
    shape::<u32, Question>("QUESTION", MapType::PerCpuArray, Some(1)),
    shape::<u32, Settings>("SETTINGS", MapType::Array, Some(1)),
    shape::<u32, u64>("COUNTERS", MapType::PerCpuArray, Some(MAX_SERVICES * MAX_OUTCOMES)),
    shape::<u32, u32>("EVENTS", MapType::ArrayOfMaps, Some(MAX_SERVICES)),
    shape::<u32, EventRate>("EVENT_RATES", MapType::PerCpuArray, Some(MAX_SERVICES)),
];

const fn shape<K, V>(name: &'static str, kind: MapType, entries: Option<u32>) -> Shape {
    Shape { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries }
}

/// Typed handles to the maps that user space reads or writes.
pub struct Maps {
    /// Both directions of every fast connection.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// Where services listen.
    pub listens: HashMap<MapData, ListenKey, u32>,
    /// A bit for each port that fast packets may go to.
    pub ports: Array<MapData, u64>,
    /// By slot.
    pub services: Array<MapData, Service>,
    /// The services' source tables, by slot.
    pub sources: ArrayOfMaps<MapData, HashMap<MapData, Key, u64>>,
    /// The sources that services deny or exclude.
    pub denied: LpmTrie<MapData, DeniedKey, u8>,
    /// By server id.
    pub servers: Array<MapData, Server>,
    /// By server id, in memory.
    pub loads: Arc<Loads>,
    /// By server id.
    pub not_fast: Array<MapData, u64>,
    /// Where a fast packet may leave.
    pub interfaces: DevMapHash<MapData>,
    /// One element.
    pub settings: Array<MapData, Settings>,
    /// By slot and outcome.
    pub counters: PerCpuArray<MapData, u64>,
    /// The services' rings of events, by slot.
    pub events: MapData,
    /// A second descriptor of `flows`, for walks.
    pub flows_data: MapData,
    /// Entries that `flows` can hold: two a flow.
    pub flow_entries: u32,
}

/// Loads the program into the kernel's verifier with its maps pinned under `pins`: those that are there are used, if
/// they have the layout of this build, and the others are made.
///
/// # Errors
/// Maps of another layout; what the kernel or the verifier refuses, with its last words.
pub fn load(pins: &Pins, flow_table: u32, rollback: &mut Rollback) -> anyhow::Result<(Ebpf, Maps)> {
    let mut loader = EbpfLoader::new();
    // Nothing of the kernel's own types is used, so its BTF need not be read.
    loader.btf(None).map_max_entries(FLOWS, flow_table.saturating_mul(2));
    for shape in &SHAPES {
        let path = pins.shared(shape.name);
        check_pinned(&path, shape)?;
        rollback.note(path.clone());
        loader.map_pin_path(shape.name, path);
    }
    let mut ebpf = loader.load(OBJECT).context("the kernel does not take the maps of the XDP program")?;
    let maps = Maps::take(&mut ebpf)?;
    Ok((ebpf, maps))
}

/// Loads the program with maps of its own, which go away with it: for `check` and for tests.
///
/// # Errors
/// As for [`load`].
pub fn load_unpinned(flow_table: u32) -> anyhow::Result<(Ebpf, Maps)> {
    let mut loader = EbpfLoader::new();
    loader.btf(None).map_max_entries(FLOWS, flow_table.saturating_mul(2));
    let mut ebpf = loader.load(OBJECT).context("the kernel does not take the maps of the XDP program")?;
    let maps = Maps::take(&mut ebpf)?;
    Ok((ebpf, maps))
}

impl Maps {
    fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        // Left where it is: the programs, which are not loaded yet, name it by this descriptor.
        let Some(Map::Array(loads)) = ebpf.map("LOADS") else {
            bail!("the XDP program has no map LOADS: it is of another build")
        };
        let loads =
            Loads::of(loads.fd().as_fd()).context("cannot share the loads of servers with the kernel")?;
        let mut take = |name: &str| -> anyhow::Result<Map> {
            ebpf.take_map(name)
                .with_context(|| format!("the XDP program has no map {name}: it is of another build"))
        };
        let Map::HashMap(flows) = take(FLOWS)? else { bail!("the map {FLOWS} is of another kind") };
        let flows_data = MapData::from_fd(flows.fd().as_fd().try_clone_to_owned()?)?;
        let Map::ArrayOfMaps(events) = take("EVENTS")? else { bail!("the map EVENTS is of another kind") };
        let flow_entries = flows_data.info()?.max_entries();
        Ok(Self {
            flows: Map::HashMap(flows).try_into()?,
            listens: take("LISTENS")?.try_into()?,
            ports: take("PORTS")?.try_into()?,
            services: take("SERVICES")?.try_into()?,
            sources: take("SOURCES")?.try_into()?,
            denied: take("DENIED")?.try_into()?,
            servers: take("SERVERS")?.try_into()?,
            loads: Arc::new(loads),
            not_fast: take("NOT_FAST")?.try_into()?,
            interfaces: take("INTERFACES")?.try_into()?,
            settings: take("SETTINGS")?.try_into()?,
            counters: take("COUNTERS")?.try_into()?,
            events,
            flows_data,
            flow_entries,
        })
    }

    /// From now on the program tells the service in `slot` through that ring.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn give_ring(&mut self, slot: u32, ring: &Ring) -> io::Result<()> {
        let ring = ring.map().fd().as_fd().as_raw_fd();
        syscall::update(self.events.fd().as_fd(), &slot, &ring)
    }

    /// Removes an entry of the flow table, and adds up what it has carried; if that was an open connection, it is one no
    /// more. `None`: another process was quicker.
    pub fn remove_flow(&mut self, key: &FlowKey) -> Option<Flow> {
        // Of several processes that remove the same entry one gets it, and accounts for it.
        let flow = syscall::take::<FlowKey, Flow>(self.flows_data.fd().as_fd(), key).ok()?;
        self.loads.carried(&flow);
        if flow.direction == FROM_CLIENT && State(flow.state).is_open() {
            self.loads.close(flow.server);
        }
        Some(flow)
    }
}

/// The loader uses a pinned map without looking at it; so we look first.
fn check_pinned(path: &Path, shape: &Shape) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
    let same = info.map_type()? == shape.kind
        && info.key_size() as usize == shape.key
        && info.value_size() as usize == shape.value
        && shape.entries.is_none_or(|entries| info.max_entries() == entries);
    if !same {
        bail!(
            "the map {} was made by another build of balancer; stop every balancer of this network namespace, then: \
             balancer detach --force",
            path.display()
        );
    }
    Ok(())
}
