//! `/status.json`: one object with everything that a page about the service needs. Its members are a contract; later
//! versions may add some.
//!
//! | member | what it is |
//! |---|---|
//! | `info` | as `show info json`: the process, its counters, the fast path |
//! | `ready` | what `/readyz` says |
//! | `clients` | connections `now`, the `most` at one time and the `limit`; connections and requests of the last second |
//! | `responses` | by class, `none` for requests that ended without |
//! | `millis` | the mean of the last 1024: `queue`, `connect`, `response`, `total` |
//! | `waiting` | requests that wait for any server |
//! | `servers` | rows as in `show servers json`, each with `millis`, `sessions`, `sessions_per_second`, `responses`, `failures`, `down_seconds` |
//! | `decisions` | as `show decisions json`; without `client` unless who asks is on this host and the socket is too |

use serde::Serialize;
use serde_json::Value;

use super::super::report::{Info, ServerRow};
use super::super::{Desk, decisions};
use super::server::is_ready;
use crate::stats::{BackTotals, Latencies, Since};

/// The object.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    info: Info,
    ready: bool,
    clients: Clients,
    responses: Responses,
    millis: Millis,
    waiting: u64,
    servers: Vec<ServerStatus>,
    decisions: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Clients {
    now: u64,
    most: u64,
    limit: u64,
    connections_per_second: u64,
    requests_per_second: u64,
}

#[derive(Debug, Serialize)]
struct Responses {
    #[serde(rename = "1xx")]
    informational: u64,
    #[serde(rename = "2xx")]
    success: u64,
    #[serde(rename = "3xx")]
    redirection: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
    none: u64,
}

#[derive(Debug, Serialize)]
struct Millis {
    queue: u64,
    connect: u64,
    response: u64,
    total: u64,
}

impl Millis {
    fn of(latencies: &Latencies) -> Self {
        Self {
            queue: latencies.queue.mean_millis(),
            connect: latencies.connect.mean_millis(),
            response: latencies.response.mean_millis(),
            total: latencies.total.mean_millis(),
        }
    }
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    #[serde(flatten)]
    row: ServerRow,
    millis: Millis,
    sessions: u64,
    sessions_per_second: u64,
    responses: Responses,
    failures: Failures,
    down_seconds: u64,
}

/// What went wrong with a server.
#[derive(Debug, Serialize)]
struct Failures {
    connect: u64,
    response: u64,
    broken_off: u64,
}

impl Status {
    /// `with_clients`: whoever asks may know who the clients are.
    pub(super) fn of(desk: &Desk, with_clients: bool) -> Self {
        let (front, service) = (desk.stats.front(Since::Start), desk.stats.service(Since::Start));
        let totals = desk.stats.servers(Since::Start);
        let info = Info::of(desk);
        let rows = ServerRow::all(desk, false).into_iter();
        let counters = &front.counters;
        Self {
            ready: is_ready(desk),
            clients: Clients {
                now: front.connections.0,
                most: front.connections.1,
                limit: info.max_connections,
                connections_per_second: front.connection_rate.0,
                requests_per_second: front.request_rate.0,
            },
            responses: Responses {
                informational: counters.responses_1xx,
                success: counters.responses_2xx,
                redirection: counters.responses_3xx,
                client_error: counters.responses_4xx,
                server_error: counters.responses_5xx,
                none: counters.responses_none,
            },
            millis: Millis::of(&service.latencies),
            waiting: service.waiting.0,
            servers: rows.zip(&totals).map(|(row, (_, totals))| server(row, totals)).collect(),
            decisions: decisions::rows(desk).iter().map(|row| told(row, with_clients)).collect(),
            info,
        }
    }
}

fn server(row: ServerRow, totals: &BackTotals) -> ServerStatus {
    let counters = &totals.counters;
    ServerStatus {
        row,
        millis: Millis::of(&totals.latencies),
        sessions: counters.sessions,
        sessions_per_second: totals.rate.0,
        responses: Responses {
            informational: counters.responses_1xx,
            success: counters.responses_2xx,
            redirection: counters.responses_3xx,
            client_error: counters.responses_4xx,
            server_error: counters.responses_5xx,
            none: counters.responses_none,
        },
        failures: Failures {
            connect: counters.connect_failures,
            response: counters.response_failures,
            broken_off: counters.server_aborts,
        },
        down_seconds: totals.availability.down().as_secs(),
    }
}

fn told(row: &impl Serialize, with_clients: bool) -> Value {
    let mut row = serde_json::to_value(row).unwrap_or_default();
    if let (false, Some(members)) = (with_clients, row.as_object_mut()) {
        members.remove("client");
    }
    row
}
