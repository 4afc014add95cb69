//! The maps. All but the counts of this CPU are shared by every service of the network namespace.
//!
//! Rule for hash maps: an element that was removed may be reused for another key while a pointer to it is held. What
//! must not be mixed up is copied, looked up again, and only believed if both reads agree.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use balancer_ebpf::abi::{
    Address, BOUNDS, DEFAULT_FLOW_ENTRIES, DEFAULT_SOURCE_ENTRIES, DeniedKey, Draft, EVENT_RING_BYTES, Event,
    EventRate, Flow, FlowKey, ListenKey, Load, MAX_DENIED, MAX_HALF_OPEN_SOURCES, MAX_INTERFACES,
    MAX_LISTENS, MAX_SERVERS, MAX_SERVICES, PORT_WORDS, Question, Rate, Server, Service, Settings,
};
use balancer_ebpf::counter::MAX_OUTCOMES;
use balancer_ebpf::window::Window;

/// A learned table of one service; written by user space only.
type Sources = LruHashMap<Address, u64, { DEFAULT_SOURCE_ENTRIES as usize }>;

#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, Flow, { DEFAULT_FLOW_ENTRIES as usize }> = HashMap::new();

/// Address and port → slot of the service.
#[btf_map]
pub(crate) static LISTENS: HashMap<ListenKey, u32, { MAX_LISTENS as usize }> = HashMap::new();

/// See [`PORT_WORDS`].
#[btf_map]
pub(crate) static PORTS: Array<u64, { PORT_WORDS as usize }> = Array::new();

#[btf_map]
pub(crate) static SERVICES: Array<Service, { MAX_SERVICES as usize }> = Array::new();

/// By slot of the service.
#[btf_map]
pub(crate) static SOURCES: ArrayOfMaps<Sources, { MAX_SERVICES as usize }> = ArrayOfMaps::new();

/// Sources that a service denies or excludes, and which of both.
#[btf_map]
pub(crate) static DENIED: LpmTrie<DeniedKey, u8, { MAX_DENIED as usize }> = LpmTrie::new();

#[btf_map]
pub(crate) static SERVERS: Array<Server, { MAX_SERVERS as usize }> = Array::new();

/// By server id.
#[btf_map]
pub(crate) static LOADS: Array<Load, { MAX_SERVERS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Until when a server is not fast, nanoseconds of `CLOCK_BOOTTIME`.
#[btf_map]
pub(crate) static NOT_FAST: Array<u64, { MAX_SERVERS as usize }> = Array::new();

/// Interfaces that have the program and can transmit frames, by index: where a fast packet may leave.
#[btf_map]
pub(crate) static INTERFACES: DevMapHash<{ MAX_INTERFACES as usize }> = DevMapHash::new();

#[btf_map]
pub(crate) static HALF_OPEN: LruHashMap<Address, Window, { MAX_HALF_OPEN_SOURCES as usize }> =
    LruHashMap::new();

/// Half-open flows by slot of the service; slot 0 is all of them.
#[btf_map]
pub(crate) static HALF_OPEN_TOTALS: Array<Window, { MAX_SERVICES as usize }> = Array::new();

#[btf_map]
pub(crate) static SYN_RATES: PerCpuArray<Rate, 1> = PerCpuArray::new();

/// By [`crate::caps::Bound`].
#[btf_map]
pub(crate) static RATES: PerCpuArray<Rate, { BOUNDS as usize }> = PerCpuArray::new();

/// Of this CPU.
#[btf_map]
pub(crate) static DRAFT: PerCpuArray<Draft, 1> = PerCpuArray::new();

/// Of this CPU.
#[btf_map]
pub(crate) static QUESTION: PerCpuArray<Question, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// By slot of the service and number: see [`balancer_ebpf::counter::index`].
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { (MAX_SERVICES * MAX_OUTCOMES) as usize }> = PerCpuArray::new();

/// What a service is told; read by its process only.
type Ring = RingBuf<Event, { EVENT_RING_BYTES as usize }>;

/// By slot of the service.
#[btf_map]
pub(crate) static EVENTS: ArrayOfMaps<Ring, { MAX_SERVICES as usize }> = ArrayOfMaps::new();

/// By slot of the service.
#[btf_map]
pub(crate) static EVENT_RATES: PerCpuArray<EventRate, { MAX_SERVICES as usize }> = PerCpuArray::new();
