//! `show info`: HAProxy's keys, those of them that have a meaning here.

use nix::sys::resource::{Resource, getrlimit};

use super::Desk;
use super::value::{Cell, Form, Value};
use crate::clock;
use crate::proxy::descriptors::Seats;
use crate::stats::Since;

/// A key: its number in HAProxy, its name, origin, nature and scope, its value.
type Fact = (usize, &'static str, &'static str, Value);

pub(super) fn show(desk: &Desk, form: Form) -> String {
    let facts = facts(desk);
    let cells =
        facts.iter().map(|(position, name, tags, value)| Cell { position: *position, name, tags, value });
    match form {
        Form::Plain => cells.map(|cell| format!("{}: {}\n", cell.name, cell.value)).collect(),
        Form::Typed => cells.fold(String::new(), |mut text, cell| {
            cell.typed(&mut text, "");
            text
        }),
        Form::Json => format!("{}\n", serde_json::Value::from_iter(cells.map(|cell| cell.json()))),
    }
}

fn facts(desk: &Desk) -> Vec<Fact> {
    use Value::{U32, U64};
    let config = &desk.service.config;
    let front = desk.stats.front(Since::Start);
    let host = desk.stats.load();
    let uptime = desk.started.elapsed().as_secs();
    let limit = Seats::new(config).limit;
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let (connections, listeners) = (front.connections.0, (desk.listen.len() * config.workers) as u64);
    let is_draining = u64::from(desk.draining.get());
    let version = || Value::from(env!("CARGO_PKG_VERSION"));
    vec![
        (0, "Name", "POS", "balancer".into()),
        (1, "Version", "POS", version()),
        // Nobody has written it down.
        (2, "Release_date", "POS", "unknown".into()),
        (3, "Nbthread", "CGS", U32(config.workers as u64)),
        (4, "Nbproc", "CGS", U32(1)),
        (5, "Process_num", "KGP", U32(1)),
        (6, "Pid", "SGP", U32(std::process::id().into())),
        (7, "Uptime", "MDP", Value::Str(days(uptime))),
        (8, "Uptime_sec", "MDP", U32(uptime)),
        (9, "Memmax_MB", "CLP", U32(0)),
        (14, "Maxsock", "CLP", U32(files)),
        (13, "Ulimit-n", "CLP", U32(files)),
        (15, "Maxconn", "CLP", U32(limit)),
        (16, "Hard_maxconn", "CLP", U32(limit)),
        (17, "CurrConns", "MGP", U32(connections)),
        (18, "CumConns", "MCP", U32(front.counters.connections + front.counters.denied)),
        (19, "CumReq", "MCP", U32(front.counters.requests)),
        (20, "MaxSslConns", "MMP", U32(0)),
        (21, "CurrSslConns", "MGP", U32(0)),
        (22, "CumSslConns", "MCP", U32(0)),
        (23, "Maxpipes", "CLP", U32(0)),
        (24, "PipesUsed", "MGP", U32(0)),
        (25, "PipesFree", "MGP", U32(0)),
        (26, "ConnRate", "MRP", U32(front.connection_rate.0)),
        (27, "ConnRateLimit", "CLP", U32(0)),
        (28, "MaxConnRate", "MMP", U32(front.connection_rate.1)),
        (29, "SessRate", "MRP", U32(front.connection_rate.0)),
        (30, "SessRateLimit", "CLP", U32(0)),
        (31, "MaxSessRate", "MRP", U32(front.connection_rate.1)),
        (32, "SslRate", "MRP", U32(0)),
        (33, "SslRateLimit", "CLP", U32(0)),
        (34, "MaxSslRate", "MMP", U32(0)),
        (42, "CompressBpsIn", "MRP", U32(0)),
        (43, "CompressBpsOut", "MRP", U32(0)),
        (44, "CompressBpsRateLim", "CLP", U32(0)),
        // A task for each client.
        (47, "Tasks", "MGP", U32(connections)),
        (48, "Run_queue", "MGP", U32(0)),
        (49, "Idle_pct", "MaP", U32(host.idle_percent)),
        (50, "node", "COS", Value::Str(node())),
        (52, "Stopping", "MGP", U32(is_draining)),
        (53, "Jobs", "MGP", U32(connections + listeners)),
        (54, "Unstoppable Jobs", "MGP", U32(0)),
        (55, "Listeners", "MGP", U32(listeners)),
        (56, "ActivePeers", "MGP", U32(0)),
        (57, "ConnectedPeers", "MGP", U32(0)),
        (61, "TotalBytesOut", "MGP", U64(front.counters.bytes_out)),
        (63, "BytesOutRate", "MRP", U64(host.bytes_out)),
        (66, "Build info", "POS", version()),
        (67, "Memmax_bytes", "CLP", U32(0)),
        (70, "Start_time_sec", "MDP", U32(clock::unix_seconds().saturating_sub(uptime))),
        (71, "Tainted", "SGP", "0".into()),
    ]
}

/// `1d 2h03m04s`
fn days(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    format!("{}d {}h{:02}m{:02}s", hours / 24, hours % 24, minutes % 60, seconds % 60)
}

fn node() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
