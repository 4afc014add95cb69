//! `/status.json`, and `show status json`: one object with everything that a page about the service needs. Its members are a
//! contract; later versions may add some.
//!
//! | member | what it is |
//! |---|---|
//! | `now` | Unix time in milliseconds |
//! | `info` | as `show process json`: the process, its counters, the fast path |
//! | `ready` | what `/readyz` says |
//! | `clients` | connections `now`, the `most` at one time and the `limit`; connections and requests of the last second |
//! | `responses` | by class, `none` for requests that ended without |
//! | `millis` | the mean of the last 1024: `queue`, `connect`, `response`, `total` |
//! | `waiting` | requests that wait for a server, theirs or any |
//! | `servers` | rows as in `show servers json`, with `fast_traffic`, each with `entries`, `millis`, `sessions`, `sessions_per_second`, `responses`, `failures`, `down_seconds`, `seconds_in_state` |
//! | `tables` | rows as in `show table json`; these, and the servers' `entries`, are counted every few seconds |
//! | `fast_path` | null without one: `connections` now, `opened` since its maps were made, and of the connections of the last minute the `share` that was fast (null: there were none) |
//! | `history` | the last ten minutes: a [`Sample`] every `seconds`, the oldest first |
//! | `decisions` | as `show decisions json`, only the last N with `/status.json?decisions=N`; without `client` unless who asks is on this host and the socket is too |

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::report::{Info, ServerRow};
use super::tables::{Census, TableSummary};
use super::{Desk, decisions};
use crate::clock;
use crate::stats::history::INTERVAL;
use crate::stats::{BackTotals, Latencies, Sample, Since};

/// The object.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    now: u64,
    info: Info,
    ready: bool,
    clients: Clients,
    responses: Responses,
    millis: Millis,
    waiting: u64,
    servers: Vec<ServerStatus>,
    tables: Vec<TableSummary>,
    fast_path: Option<FastStatus>,
    history: Recent,
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

/// By class.
type Responses = BTreeMap<&'static str, u64>;

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
struct FastStatus {
    connections: u64,
    opened: u64,
    share: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Recent {
    seconds: u64,
    samples: Vec<Sample>,
}

#[derive(Debug, Serialize)]
struct ServerStatus {
    #[serde(flatten)]
    row: ServerRow,
    entries: Option<u64>,
    millis: Millis,
    sessions: u64,
    sessions_per_second: u64,
    responses: Responses,
    failures: Failures,
    down_seconds: u64,
    seconds_in_state: u64,
}

/// What went wrong with a server.
#[derive(Debug, Serialize)]
struct Failures {
    connect: u64,
    response: u64,
    broken_off: u64,
}

impl Status {
    /// `with_clients`: whoever asks may know who the clients are. `decisions`: as many of the last ones as that.
    pub(super) async fn of(desk: &Desk, with_clients: bool, decisions: usize) -> Self {
        let census = desk.census().await;
        Self::at(desk, &census, with_clients, decisions)
    }

    fn at(desk: &Desk, census: &Census, with_clients: bool, decisions: usize) -> Self {
        let (front, service) = (desk.stats.front(Since::Start), desk.stats.service(Since::Start));
        let totals = desk.stats.servers(Since::Start);
        let info = Info::of(desk);
        let rows = ServerRow::with_traffic(desk);
        let waiting = service.waiting.0 + rows.iter().map(|row| row.queue as u64).sum::<u64>();
        Self {
            now: clock::unix_millis(),
            ready: desk.is_ready(),
            clients: Clients {
                now: front.connections.0,
                most: front.connections.1,
                limit: info.max_connections,
                connections_per_second: front.connection_rate.0,
                requests_per_second: front.request_rate.0,
            },
            responses: front.counters.by_class().into(),
            millis: Millis::of(&service.latencies),
            waiting,
            servers: rows
                .into_iter()
                .zip(&totals)
                .map(|(row, (_, totals))| server(row, totals, census))
                .collect(),
            tables: census.tables.clone(),
            fast_path: desk.view.is_some().then(|| {
                let (connections, opened) = desk.service.servers.fast_in_all();
                FastStatus { connections, opened, share: desk.stats.fast_share() }
            }),
            history: Recent { seconds: INTERVAL.as_secs(), samples: desk.stats.history() },
            decisions: decisions::rows(desk, decisions).iter().map(|row| told(row, with_clients)).collect(),
            info,
        }
    }
}

fn server(row: ServerRow, totals: &BackTotals, census: &Census) -> ServerStatus {
    let counters = &totals.counters;
    ServerStatus {
        entries: census.entries(row.id),
        row,
        millis: Millis::of(&totals.latencies),
        sessions: counters.sessions,
        sessions_per_second: totals.rate.0,
        responses: counters.by_class().into(),
        failures: Failures {
            connect: counters.connect_failures,
            response: counters.response_failures,
            broken_off: counters.server_aborts,
        },
        down_seconds: totals.availability.down().as_secs(),
        seconds_in_state: totals.availability.since.elapsed().as_secs(),
    }
}

fn told(row: &impl Serialize, with_clients: bool) -> Value {
    let mut row = serde_json::to_value(row).unwrap_or_default();
    if let (false, Some(members)) = (with_clients, row.as_object_mut()) {
        members.remove("client");
    }
    row
}
