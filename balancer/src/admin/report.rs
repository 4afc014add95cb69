//! What the admin socket shows. The same structs make the text and the JSON; their fields are a contract.

use std::fmt::Write;

use serde::Serialize;

use super::Desk;
use super::tables::Census;
use super::text::Columns;
use crate::config::Mode;
use crate::datapath::view::{DatapathInfo, FastTraffic, FlowRow};
use crate::proxy::descriptors::Seats;
use crate::server::{Servers, WHOLE};
use crate::stats::{Since, Snapshot};

/// `show process`.
#[derive(Debug, Serialize)]
pub struct Info {
    /// `--name`.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
    /// `--mode`: `http` or `tcp`.
    pub mode: &'static str,
    /// Of the process.
    pub pid: u32,
    /// Since the service became ready.
    pub uptime_seconds: u64,
    /// Told to stop, and finishing what it has.
    pub draining: bool,
    /// Threads that serve clients.
    pub workers: usize,
    /// Client connections at one time, at most.
    pub max_connections: u64,
    /// Addresses and ports that clients connect to.
    pub listen: Vec<String>,
    /// Where learned tables are: `kernel`, `memory`, or `none` when no method learns.
    pub tables: &'static str,
    /// New keys that were not learned, as their source had brought too many in that minute.
    pub new_keys_refused: u64,
    /// The counters of the proxy, of all workers.
    #[serde(flatten)]
    pub proxy: Snapshot,
    /// What was warned of at start.
    pub warnings: Vec<String>,
    /// The fast path; null without one.
    pub datapath: Option<DatapathInfo>,
}

impl Info {
    pub(super) fn of(desk: &Desk) -> Self {
        let config = &desk.service.config;
        Self {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            mode: match config.mode {
                Mode::Http => "http",
                Mode::Tcp => "tcp",
            },
            pid: std::process::id(),
            uptime_seconds: desk.started.elapsed().as_secs(),
            draining: desk.draining.get(),
            workers: config.workers,
            max_connections: Seats::new(config).limit,
            listen: desk.listen.iter().map(ToString::to_string).collect(),
            tables: desk.books.tables.kind().unwrap_or("none"),
            new_keys_refused: desk.books.tables.refused_keys(),
            proxy: desk.stats.front(Since::Start).counters.into(),
            warnings: desk.warnings.clone(),
            datapath: desk.view.as_ref().map(|view| view.info()),
        }
    }

    /// One line per fact.
    pub(super) fn text(&self) -> String {
        let mut facts = vec![
            ("name", self.name.clone()),
            ("version", self.version.to_owned()),
            ("mode", self.mode.to_owned()),
            ("pid", self.pid.to_string()),
            ("uptime_seconds", self.uptime_seconds.to_string()),
            ("draining", if self.draining { "yes" } else { "no" }.to_owned()),
            ("workers", self.workers.to_string()),
            ("max_connections", self.max_connections.to_string()),
            ("listen", self.listen.join(" ")),
            ("tables", self.tables.to_owned()),
            ("new_keys_refused", self.new_keys_refused.to_string()),
        ];
        // By their names in the JSON, so that there is one list of counters.
        let counters = serde_json::to_value(self.proxy).unwrap_or_default();
        let counters = counters.as_object().into_iter().flatten();
        let counters: Vec<_> = counters.map(|(name, value)| (name.as_str(), value.to_string())).collect();
        facts.extend(counters.iter().cloned());
        facts.extend(self.warnings.iter().map(|warning| ("warning", warning.clone())));
        match &self.datapath {
            None => facts.push(("fast_path", "none".to_owned())),
            Some(datapath) => {
                facts.push(("fast_path", datapath.fast_path.to_owned()));
                facts.push(("forward", datapath.forward.to_owned()));
                let interface =
                    |at: &crate::datapath::view::InterfaceInfo| ("xdp", format!("{} {}", at.name, at.mode));
                facts.extend(datapath.interfaces.iter().map(interface));
                facts.extend(datapath.counters.iter().map(|(name, count)| (*name, count.to_string())));
                // Of the host only what other services have had a part in.
                let of_others =
                    datapath.host.iter().filter(|(name, count)| datapath.counters[*name] != **count);
                facts.extend(of_others.map(|(name, count)| ("host", format!("{name} {count}"))));
            }
        }
        lines(facts.into_iter())
    }
}

/// A row of `show servers`.
#[derive(Debug, Serialize)]
pub struct ServerRow {
    /// Its name.
    pub name: String,
    /// Where it listens; null while its host has never been resolved.
    pub address: Option<String>,
    /// The name of its host, if that is how its address is found.
    pub host: Option<String>,
    /// What it may be used for now: `up`, `drain`, `down` or `maint`.
    pub state: &'static str,
    /// The operator's wish: `ready`, `drain` or `maint`.
    pub operator: &'static str,
    /// What the checks say: `up`, `down` or `unknown`.
    pub health: &'static str,
    /// Its share of what is balanced.
    pub weight: u32,
    /// As much of that as counts now: less while it is just coming up.
    pub effective_weight: f64,
    /// Serves only when no primary can.
    pub backup: bool,
    /// Its persistence cookie, if it has one.
    pub cookie: Option<String>,
    /// Its id in tables.
    pub id: u16,
    /// Counts the addresses this name has had.
    pub generation: u8,
    /// Requests being served now.
    pub in_flight: u32,
    /// The most that it serves at one time; null: no limit.
    pub maxconn: Option<u32>,
    /// Requests that wait for it and no other.
    pub queue: usize,
    /// Requests since start.
    pub requests: u64,
    /// Fast connections now.
    pub fast: u32,
    /// What they have carried; null without a fast path, and where it is not asked for.
    pub fast_traffic: Option<FastTraffic>,
}

impl ServerRow {
    /// `is_complete`: with what takes a walk over all flows.
    pub(super) fn all(desk: &Desk, is_complete: bool) -> Vec<Self> {
        let servers = &desk.service.servers;
        let mut rows: Vec<_> = servers.places().into_iter().map(|place| Self::of(servers, place)).collect();
        if let (true, Some(view)) = (is_complete, &desk.view) {
            Self::add_traffic(&mut rows, |ids| view.traffic(ids));
        }
        rows
    }

    /// With what the fast path has carried, as it was counted a moment ago.
    pub(super) fn with_traffic(desk: &Desk) -> Vec<Self> {
        let mut rows = Self::all(desk, false);
        if desk.view.is_some() {
            Self::add_traffic(&mut rows, |ids| desk.fast_traffic(ids));
        }
        rows
    }

    fn add_traffic(rows: &mut [Self], traffic: impl FnOnce(&[u16]) -> Vec<FastTraffic>) {
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        for (row, traffic) in rows.iter_mut().zip(traffic(&ids)) {
            row.fast_traffic = Some(traffic);
        }
    }

    fn of(servers: &Servers, place: usize) -> Self {
        use std::sync::atomic::Ordering::Relaxed;
        let server = &servers[place];
        Self {
            fast: servers.fast_connections(place),
            name: server.name.clone(),
            address: (!server.is_unresolved()).then(|| server.address.to_string()),
            host: server.host.clone(),
            state: server.state().as_str(),
            operator: server.operator().as_str(),
            health: server.health().as_str(),
            weight: server.weight(),
            effective_weight: f64::from(server.effective_weight()) / f64::from(WHOLE),
            backup: server.backup,
            cookie: server.cookie.clone(),
            id: server.identity.id,
            generation: server.identity.generation,
            in_flight: server.in_flight.load(Relaxed),
            maxconn: server.maxconn(),
            queue: servers.waiting_for(place),
            requests: server.requests.load(Relaxed),
            fast_traffic: None,
        }
    }

    fn shown_weight(&self) -> String {
        let whole = f64::from(self.weight);
        if self.effective_weight < whole {
            format!("{:.2} of {whole}", self.effective_weight)
        } else {
            whole.to_string()
        }
    }
}

/// `show server NAME`: its row, and what points there.
#[derive(Debug, Serialize)]
pub struct ServerDetail {
    /// As in `show servers`.
    #[serde(flatten)]
    pub row: ServerRow,
    /// Connections that it has now, by the proxy and on the fast path, at all addresses it has had.
    pub connections: u64,
    /// Live learned entries that name it; null where nothing is learned.
    pub entries: Option<u64>,
}

impl ServerDetail {
    /// The entries are counted on a thread of their own: there may be a million.
    pub(super) async fn of(desk: &Desk, place: usize) -> Self {
        let servers = &desk.service.servers;
        let id = servers[place].identity.id;
        let tables = desk.books.tables.handle();
        let counted = tokio::task::spawn_blocking(move || Census::take(&tables).entries(id)).await;
        // It fails with the end of the process only.
        let entries = counted.ok().flatten();
        let mut row = ServerRow::of(servers, place);
        if let Some(view) = &desk.view {
            ServerRow::add_traffic(std::slice::from_mut(&mut row), |ids| view.traffic(ids));
        }
        Self { connections: servers.connections(&row.name), row, entries }
    }

    /// One line per fact, like `show process`.
    pub(super) fn text(&self) -> String {
        let cells = ServerRow::NAMES.iter().copied().zip(self.row.cells());
        let counts = [
            ("connections", self.connections.to_string()),
            ("entries", self.entries.map_or_else(|| "-".into(), |entries| entries.to_string())),
        ];
        // By their names in the JSON, so that there is one list of them.
        let traffic = serde_json::to_value(self.row.fast_traffic).unwrap_or_default();
        let traffic = traffic.as_object().into_iter().flatten();
        let traffic: Vec<_> =
            traffic.map(|(name, count)| (format!("fast_{name}"), count.to_string())).collect();
        let traffic = traffic.iter().map(|(name, count)| (name.as_str(), count.clone()));
        lines(cells.chain(counts).chain(traffic))
    }

    /// What is left of a server that takes nobody new.
    pub(super) fn what_points_there(&self) -> String {
        let entries =
            self.entries.map_or_else(String::new, |entries| format!(" and {entries} learned entries"));
        format!("{} connections{entries} still point there\n", self.connections)
    }
}

fn lines<'a>(facts: impl Iterator<Item = (&'a str, String)>) -> String {
    facts.fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {value}");
        text
    })
}

impl Columns for ServerRow {
    const NAMES: &'static [&'static str] = &[
        "name",
        "address",
        "state",
        "operator",
        "health",
        "weight",
        "cookie",
        "id",
        "generation",
        "in_flight",
        "maxconn",
        "queue",
        "requests",
        "fast",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            match (&self.address, &self.host) {
                (Some(address), None) => address.clone(),
                (address, host) => {
                    let address = address.as_deref().unwrap_or("unresolved");
                    format!("{address} ({})", host.as_deref().unwrap_or_default())
                }
            },
            self.state.into(),
            self.operator.into(),
            self.health.into(),
            format!("{}{}", self.shown_weight(), if self.backup { " backup" } else { "" }),
            self.cookie.clone().unwrap_or_else(|| "-".into()),
            self.id.to_string(),
            self.generation.to_string(),
            self.in_flight.to_string(),
            self.maxconn.map_or_else(|| "-".into(), |maxconn| maxconn.to_string()),
            self.queue.to_string(),
            self.requests.to_string(),
            self.fast.to_string(),
        ]
    }
}

impl Columns for FlowRow {
    const NAMES: &'static [&'static str] = &[
        "client",
        "server",
        "address",
        "snat",
        "phase",
        "age_seconds",
        "idle_seconds",
        "packets_in",
        "packets_out",
        "bytes_in",
        "bytes_out",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.client.clone(),
            self.server.clone(),
            self.address.clone(),
            self.snat.clone(),
            self.phase.into(),
            self.age_seconds.to_string(),
            self.idle_seconds.to_string(),
            self.packets_in.to_string(),
            self.packets_out.to_string(),
            self.bytes_in.to_string(),
            self.bytes_out.to_string(),
        ]
    }
}
