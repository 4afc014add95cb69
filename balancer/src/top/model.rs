//! What the instance says: the members of `show status json` and of what is asked besides that are shown here. Text in
//! them is cleaned as it is read.

use serde::Deserialize;

use super::clean::Clean;
pub use crate::datapath::view::FastTraffic;
pub use crate::stats::Sample;

/// All that one round of questions has brought.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `show status json`.
    pub status: Status,
    /// `show flows limit N json`, or why there is none; `None`: it was not asked for.
    pub flows: Option<Result<Vec<Flow>, Clean>>,
    /// `show server NAME json` with the name, if it was asked for.
    pub server: Option<(String, ServerDetail)>,
    /// When it came: Unix time in milliseconds.
    pub at: u64,
}

/// `show status json`.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs, reason = "the members are described where the object is made")]
pub struct Status {
    pub info: Info,
    pub ready: bool,
    pub clients: Clients,
    pub responses: Responses,
    pub waiting: u64,
    pub servers: Vec<Server>,
    pub tables: Vec<Table>,
    pub fast_path: Option<FastPath>,
    pub history: History,
    pub decisions: Vec<Decision>,
}

/// The process.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Info {
    pub name: Clean,
    pub version: Clean,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub draining: bool,
    pub tables: Clean,
}

/// Connections to the proxy.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Clients {
    pub now: u64,
    pub most: u64,
    pub limit: u64,
    pub connections_per_second: u64,
    pub requests_per_second: u64,
}

/// Answers by class.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Responses {
    #[serde(rename = "1xx")]
    pub informational: u64,
    #[serde(rename = "2xx")]
    pub success: u64,
    #[serde(rename = "3xx")]
    pub redirection: u64,
    #[serde(rename = "4xx")]
    pub client_error: u64,
    #[serde(rename = "5xx")]
    pub server_error: u64,
    pub none: u64,
}

/// A server.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Server {
    pub name: Clean,
    pub address: Option<Clean>,
    pub host: Option<Clean>,
    pub state: Clean,
    pub operator: Clean,
    pub health: Clean,
    pub weight: u32,
    pub effective_weight: f64,
    pub backup: bool,
    pub cookie: Option<Clean>,
    pub in_flight: u64,
    pub maxconn: Option<u64>,
    pub queue: u64,
    pub requests: u64,
    pub fast: u64,
    pub fast_traffic: Option<FastTraffic>,
    pub entries: Option<u64>,
    pub millis: Millis,
    pub sessions: u64,
    pub sessions_per_second: u64,
    pub responses: Responses,
    pub failures: Failures,
    pub down_seconds: u64,
    pub seconds_in_state: u64,
}

/// Means of the last requests.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Millis {
    pub queue: f64,
    pub connect: f64,
    pub response: f64,
    pub total: f64,
}

/// What went wrong with a server.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Failures {
    pub connect: u64,
    pub response: u64,
    pub broken_off: u64,
}

impl Failures {
    pub(super) fn sum(&self) -> u64 {
        self.connect.saturating_add(self.response).saturating_add(self.broken_off)
    }
}

/// What `show server NAME json` adds to its row.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ServerDetail {
    pub connections: u64,
    pub entries: Option<u64>,
    pub fast_traffic: Option<FastTraffic>,
}

/// A learned table.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Table {
    pub name: Clean,
    pub kind: Clean,
    pub entries: u64,
    pub probation: u64,
    pub size: u64,
    pub timeout: u64,
}

/// The fast path.
#[derive(Deserialize, Clone, Copy, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct FastPath {
    pub connections: u64,
    pub opened: u64,
    pub share: Option<f64>,
}

/// The last minutes.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct History {
    pub seconds: u64,
    pub samples: Vec<Sample>,
}

/// A request, and why it went where it went.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Decision {
    pub time: Clean,
    pub client: Option<Clean>,
    pub status: Option<u16>,
    pub server: Option<Clean>,
    pub letters: Clean,
    pub persist: Clean,
}

impl Decision {
    /// The time of day, with milliseconds.
    pub(super) fn time_of_day(&self) -> &str {
        let time = self.time.as_str();
        time.split_once('T').map_or(time, |(_, time)| time.trim_end_matches('Z'))
    }
}

/// A connection on the fast path.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Flow {
    pub client: Clean,
    pub server: Clean,
    pub address: Clean,
    pub snat: Clean,
    pub phase: Clean,
    pub age_seconds: u64,
    pub idle_seconds: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::view;

    /// Missing members are no errors, so that two versions understand each other; misspelt ones would not be seen.
    #[test]
    fn members_are_called_as_they_are_written() {
        let row = view::FlowRow {
            client: "1.2.3.4:5".into(),
            server: "s1".into(),
            address: "10.0.0.1:80".into(),
            snat: "10.0.0.9:7".into(),
            phase: "closing",
            age_seconds: 1,
            idle_seconds: 2,
            packets_in: 3,
            packets_out: 4,
            bytes_in: 5,
            bytes_out: 6,
            packets: 7,
            bytes: 11,
        };
        let flow: Flow = serde_json::from_value(serde_json::to_value(row).expect("json")).expect("a flow");
        let texts = [&flow.client, &flow.server, &flow.address, &flow.snat, &flow.phase].map(Clean::as_str);
        assert_eq!(texts, ["1.2.3.4:5", "s1", "10.0.0.1:80", "10.0.0.9:7", "closing"]);
        let numbers = [flow.age_seconds, flow.idle_seconds, flow.packets_in, flow.packets_out];
        assert_eq!((numbers, flow.bytes_in, flow.bytes_out), ([1, 2, 3, 4], 5, 6));
    }
}
