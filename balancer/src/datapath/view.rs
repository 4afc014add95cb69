//! What the datapath shows to operators: the same structs make the tables and the JSON.

use std::net::IpAddr;

use balancer_ebpf::affinity::Affinity;
use serde::Serialize;

/// `show info`, the part about XDP.
#[derive(Clone, Debug, Serialize)]
pub struct DatapathInfo {
    /// Where the program is attached.
    pub interfaces: Vec<InterfaceInfo>,
    /// `off`, `exclusive` or `always`.
    pub fast_path: &'static str,
    /// Outcomes of packets by name, shared by all services of the network namespace.
    pub counters: std::collections::BTreeMap<&'static str, u64>,
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
    /// Seconds since its last packet.
    pub idle_seconds: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes of IP in both directions.
    pub bytes: u64,
}

/// What the admin socket asks the datapath.
pub trait View {
    /// Attachment and counters.
    fn info(&self) -> DatapathInfo;
    /// The live fast connections of this service.
    fn flows(&self) -> Vec<FlowRow>;
    /// Whether a new connection of `client`, whose entry in the table of sources is `entry`, would be fast, and why.
    fn foresee(&self, client: IpAddr, entry: Option<Affinity>) -> (bool, String);
}
