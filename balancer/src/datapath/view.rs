//! What the datapath shows to operators: the same structs make the tables and the JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use balancer_ebpf::affinity::Affinity;
use serde::{Deserialize, Serialize};

/// `show info`, the part about XDP.
#[derive(Clone, Debug, Serialize)]
pub struct DatapathInfo {
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceInfo>,
    /// `off`, `exclusive` or `always`.
    pub fast_path: &'static str,
    /// `nat`, `gateway` or `dsr`.
    pub forward: &'static str,
    /// Outcomes of packets by name: of this service, and of what belongs to none.
    pub counters: BTreeMap<&'static str, u64>,
    /// Those of this service alone.
    pub own: BTreeMap<&'static str, u64>,
    /// Those of the network namespace, with all of its services.
    pub host: BTreeMap<&'static str, u64>,
}

/// One interface with the program.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceInfo {
    /// The interface's name.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// The mode that was obtained: `native` or `generic`.
    pub mode: &'static str,
}

/// A row of `show flows`.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    /// The client's address and port.
    pub client: String,
    /// The server's name, or its id when it is no longer configured.
    pub server: String,
    /// The server's address and port.
    pub address: String,
    /// The address and port that the server sees.
    pub snat: String,
    /// `half-open`, `established`, `closing` or `dead`.
    pub phase: &'static str,
    /// Seconds since its SYN.
    pub age_seconds: u64,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
    /// Packets from the client.
    pub packets_in: u64,
    /// Packets to the client.
    pub packets_out: u64,
    /// Bytes of payload from the client.
    pub bytes_in: u64,
    /// Bytes of payload to the client.
    pub bytes_out: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes of payload in both directions.
    pub bytes: u64,
}

/// Which flows are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Those of this client.
    pub client: Option<IpAddr>,
    /// Those to this server, by name.
    pub server: Option<String>,
    /// Rows at most.
    pub limit: usize,
}

/// What the fast path has carried for a server, since its id was given to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FastTraffic {
    /// Connections that were opened, again if they were revived.
    pub opened: u64,
    /// Connections that have ended.
    pub closed: u64,
    /// Connections now.
    pub active: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes of payload from clients.
    pub bytes_in: u64,
    /// Bytes of payload to clients.
    pub bytes_out: u64,
}

/// What the admin socket asks the datapath.
pub trait View {
    /// Attachment and counters.
    fn info(&self) -> DatapathInfo;
    /// The live fast connections of this service that are asked for, and how many more there are.
    fn flows(&self, asked: &Asked) -> (Vec<FlowRow>, usize);
    /// Ends those that are asked for; returns how many.
    fn reset(&self, asked: &Asked) -> u64;
    /// What was carried for the servers with these ids.
    fn traffic(&self, ids: &[u16]) -> Vec<FastTraffic>;
    /// Whether a new connection of `client`, whose entry in the table of sources is `entry`, would be fast, and why.
    fn foresee(&self, client: IpAddr, entry: Option<Affinity>) -> (bool, String);
}
