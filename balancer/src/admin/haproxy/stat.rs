//! `show stat`: a row for the clients' side, for each server, and for all of them.
//!
//! # What differs from HAProxy
//!
//! | column | here |
//! |---|---|
//! | `stot`, `scur`, `bin`, `bout` (and `slim` counts against them) | fast connections count, too; in nothing else, since nobody sees their requests |
//! | `bin`, `bout` | bytes on the client's connection, as HAProxy's `h1_bytes_in` and `h1_bytes_out`; its `bin` and `bout` count its own form of the same messages, and its error pages are longer |
//! | `slim` of the backend | what the frontend has; HAProxy's is its `fullconn` |
//! | `smax` of the backend | the sum of what each worker has had at one time, so with several of them it may be more than there ever was |
//! | `hrsp_1xx` | 101 alone; interim responses are not counted |
//! | `qtime` … `ttime` and their maxima | from the first byte of a request; HAProxy's from the end of the one before, unless it was idle |
//! | `rate_max`, `req_rate_max`, `conn_rate_max` | looked at four times a second; HAProxy looks at every event |
//! | `last_chk` | says more |
//! | `check_duration` | is another measurement |
//! | `lastchg`, `downtime` | exact to a quarter of a second |
//! | `idle_conn_cur`, `safe_conn_cur`, `srv_icur` | kept connections are all safe; looked at ten times a second |
//! | `need_conn_est` | empty: nothing is estimated |
//! | `agent_*`, `tracked`, `rate_lim` other than 0, `comp_*`, `cache_*`, `ssl_*`, `h2_*` | there is no such thing here: empty or 0 as in an HAProxy without |
//! | `h1_*` of the backend, `h1_spliced_*` | empty: connections to servers are not counted by bytes |

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::columns::{COLUMNS, LAST_FIXED};
use super::value::{Cell, Form, Value, csv};
use super::{BACKEND_ID, Desk, FRONTEND_ID, is_ours, no_such_backend};
use crate::config::{Balance, CheckConfig, Mode};
use crate::datapath::view::FastTraffic;
use crate::proxy::descriptors::Seats;
use crate::server::{CheckState, Operator, Server, State, WHOLE};
use crate::stats::{Back, BackTotals, Since};

/// Where a column is.
static POSITIONS: LazyLock<HashMap<&str, usize>> =
    LazyLock::new(|| COLUMNS.iter().enumerate().map(|(position, (name, _))| (*name, position)).collect());

/// What a row is about; its number is what it has in the column `type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Frontend = 0,
    Backend = 1,
    Server = 2,
}

/// Which rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Which {
    form: Form,
    /// `up`, and `no-maint`
    up_only: bool,
    no_maint: bool,
    /// Bits 1 for frontends, 2 for backends, 4 for servers.
    kinds: i64,
    iid: i64,
    sid: i64,
}

struct Row {
    kind: Kind,
    iid: u64,
    sid: u64,
    cells: Vec<Option<Value>>,
}

pub(super) fn show(desk: &Desk, words: &[&str]) -> Result<String, String> {
    let which = Which::parse(desk, words)?;
    let rows = rows(desk).into_iter().filter(|row| which.wants(row));
    Ok(match which.form {
        Form::Plain => rows.fold(header(), |text, row| text + &row.csv()),
        Form::Typed => rows.fold(String::new(), |text, row| text + &row.typed()),
        Form::Json => format!("{}\n", serde_json::Value::from_iter(rows.map(|row| row.json()))),
    })
}

impl Which {
    fn parse(desk: &Desk, words: &[&str]) -> Result<Self, String> {
        let wrong = || {
            "write show stat [NAME|IID TYPE SID] [up|no-maint] [typed|json]; -1 is any IID, TYPE or SID, TYPE a sum \
             of 1 for frontends, 2 for backends and 4 for servers"
                .to_owned()
        };
        let mut which =
            Self { form: Form::Plain, up_only: false, no_maint: false, kinds: -1, iid: -1, sid: -1 };
        let words = match *words {
            [proxy, kinds, sid, ref rest @ ..] if kinds.parse::<i64>().is_ok() => {
                let number = |word: &str| word.parse().map_err(|_| wrong());
                (which.kinds, which.sid) = (number(kinds)?, number(sid)?);
                which.iid = match proxy.parse() {
                    Ok(iid) => iid,
                    // The name is that of both.
                    Err(_) if is_ours(desk, proxy) => -1,
                    Err(_) => return Err(no_such_backend(desk, proxy)),
                };
                rest
            }
            ref all => all,
        };
        for word in words {
            match *word {
                "typed" => which.form = Form::Typed,
                "json" => which.form = Form::Json,
                "up" => which.up_only = true,
                "no-maint" => which.no_maint = true,
                "desc" => {}
                _ => return Err(wrong()),
            }
        }
        Ok(which)
    }

    fn wants(&self, row: &Row) -> bool {
        let bit = match row.kind {
            Kind::Frontend => 1,
            Kind::Backend => 2,
            Kind::Server => 4,
        };
        let status = match row.get("status") {
            Some(Value::Str(status)) => status.as_str(),
            _ => "",
        };
        let is_number = |asked: i64, number: u64| asked < 0 || asked.unsigned_abs() == number;
        let is_hidden = row.kind == Kind::Server
            && (self.up_only && !status.starts_with("UP") && status != "no check"
                || self.no_maint && status.starts_with("MAINT"));
        (self.kinds < 0 || self.kinds & bit != 0)
            && is_number(self.iid, row.iid)
            && (row.kind != Kind::Server || is_number(self.sid, row.sid))
            && !is_hidden
    }
}

fn header() -> String {
    let mut text = "# ".to_owned();
    for (name, _) in COLUMNS {
        text = text + name + ",";
        if *name == LAST_FIXED {
            text += "-,";
        }
    }
    text + "\n"
}

impl Row {
    fn new(kind: Kind, desk: &Desk, name: &str, sid: u64) -> Self {
        let iid = if kind == Kind::Frontend { FRONTEND_ID } else { BACKEND_ID };
        let mut row = Self { kind, iid, sid, cells: vec![None; COLUMNS.len()] };
        let config = &desk.service.config;
        row.text("pxname", &config.name);
        row.text("svname", name);
        row.text("mode", if config.mode == Mode::Tcp { "tcp" } else { "http" });
        row.small("pid", 1);
        row.small("iid", iid);
        row.small("sid", sid);
        row.small("type", kind as u64);
        row
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.cells[*POSITIONS.get(name)?].as_ref()
    }

    fn set(&mut self, name: &str, value: Value) {
        // Names are written out in this file, and a test sets them all.
        let position = POSITIONS.get(name).unwrap_or_else(|| unreachable!("there is no column {name}"));
        self.cells[*position] = Some(value);
    }

    fn text(&mut self, name: &str, text: &str) {
        self.set(name, text.into());
    }

    fn small(&mut self, name: &str, number: u64) {
        self.set(name, Value::U32(number));
    }

    fn count(&mut self, name: &str, number: u64) {
        self.set(name, Value::U64(number));
    }

    fn counts(&mut self, counts: &[(&str, u64)]) {
        counts.iter().for_each(|(name, number)| self.count(name, *number));
    }

    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let cells = COLUMNS.iter().zip(&self.cells).enumerate();
        cells.filter_map(|(position, ((name, tags), value))| {
            // What is counted for a server is looked at for all of them together.
            let tags = match (self.kind, *name) {
                (Kind::Backend, "act" | "bck" | "rate" | "rate_max") => "MGP",
                _ => tags,
            };
            Some(Cell { position, name, tags, value: value.as_ref()? })
        })
    }

    fn csv(&self) -> String {
        let mut line = String::new();
        for ((name, _), value) in COLUMNS.iter().zip(&self.cells) {
            line += &value.as_ref().map(csv).unwrap_or_default();
            line.push(',');
            if *name == LAST_FIXED {
                line += "-,";
            }
        }
        line + "\n"
    }

    fn typed(&self) -> String {
        let letter = match self.kind {
            Kind::Frontend => 'F',
            Kind::Backend => 'B',
            Kind::Server => 'S',
        };
        let prefix = format!("{letter}.{}.{}.", self.iid, self.sid);
        self.cells().fold(String::new(), |mut text, cell| {
            cell.typed(&mut text, &prefix);
            text
        })
    }

    fn json(&self) -> serde_json::Value {
        let kind = match self.kind {
            Kind::Frontend => "Frontend",
            Kind::Backend => "Backend",
            Kind::Server => "Server",
        };
        let named = |cell: Cell<'_>| {
            let mut json = cell.json();
            json["objType"] = kind.into();
            json["proxyId"] = self.iid.into();
            json["id"] = self.sid.into();
            json
        };
        self.cells().map(named).collect()
    }

    /// What servers and all of them have in common.
    fn back(&mut self, totals: &BackTotals, fast: &FastTraffic, is_http: bool, now: Instant) {
        let BackTotals { counters, latencies, in_flight, waiting, rate, last_session, availability, .. } =
            totals;
        let now_open = in_flight.0 + fast.active;
        self.small("qcur", waiting.0);
        self.small("qmax", waiting.1);
        self.small("scur", now_open);
        self.small("smax", in_flight.1.max(now_open));
        self.small("rate", rate.0);
        self.small("rate_max", rate.1);
        self.small("lastchg", now.saturating_duration_since(availability.since).as_secs());
        self.small("downtime", availability.down().as_secs());
        let Back { responses_1xx, responses_2xx, responses_3xx, responses_4xx, responses_5xx, .. } =
            *counters;
        self.counts(&[
            ("bin", counters.bytes_in + fast.bytes_in),
            ("bout", counters.bytes_out + fast.bytes_out),
            ("dresp", 0),
            ("econ", counters.connect_failures),
            ("eresp", counters.response_failures),
            ("wretr", counters.retries),
            ("wredis", counters.redispatches),
            ("cli_abrt", counters.client_aborts),
            ("srv_abrt", counters.server_aborts),
            ("chkdown", availability.downs),
            ("lbtot", counters.balanced),
            ("connect", counters.connects),
            ("reuse", counters.reuses),
            ("wrew", 0),
            ("eint", 0),
            ("ssl_sess", 0),
            ("ssl_reused_sess", 0),
            ("ssl_failed_handshake", 0),
        ]);
        if is_http {
            self.counts(&[
                ("hrsp_1xx", responses_1xx),
                ("hrsp_2xx", responses_2xx),
                ("hrsp_3xx", responses_3xx),
                ("hrsp_4xx", responses_4xx),
                ("hrsp_5xx", responses_5xx),
                ("hrsp_other", counters.responses_none),
            ]);
        }
        let ago = last_session.map(|last| now.saturating_duration_since(last).as_secs());
        self.set(
            "lastsess",
            Value::S32(ago.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX))),
        );
        for (mean, most, times) in [
            ("qtime", "qtime_max", &latencies.queue),
            ("ctime", "ctime_max", &latencies.connect),
            ("rtime", "rtime_max", &latencies.response),
            ("ttime", "ttime_max", &latencies.total),
        ] {
            self.small(mean, times.mean_millis());
            self.small(most, times.longest_micros / 1000);
        }
    }
}

fn rows(desk: &Desk) -> Vec<Row> {
    let (servers, now) = (&desk.service.servers, Instant::now());
    let totals = desk.stats.servers(Since::Clearing);
    let ids: Vec<_> = totals.iter().map(|(place, _)| servers[*place].identity.id).collect();
    let traffic = desk.fast_traffic(&ids);
    let sum = traffic.iter().fold(FastTraffic::default(), |a, b| FastTraffic {
        opened: a.opened + b.opened,
        active: a.active + b.active,
        bytes_in: a.bytes_in + b.bytes_in,
        bytes_out: a.bytes_out + b.bytes_out,
        ..a
    });
    let rows = totals.iter().zip(&traffic);
    let rows = rows.map(|((place, totals), fast)| server(desk, &servers[*place], totals, fast, now));
    std::iter::once(frontend(desk, &sum)).chain(rows).chain([backend(desk, &sum, now)]).collect()
}

fn frontend(desk: &Desk, fast: &FastTraffic) -> Row {
    let front = desk.stats.front(Since::Clearing);
    let (config, counters) = (&desk.service.config, &front.counters);
    let mut row = Row::new(Kind::Frontend, desk, "FRONTEND", 0);
    let now_open = front.connections.0 + fast.active;
    row.small("scur", now_open);
    row.small("smax", front.connections.1.max(now_open));
    row.small("slim", Seats::new(config).limit);
    row.text("status", if desk.draining.get() { "STOP" } else { "OPEN" });
    row.small("rate", front.connection_rate.0);
    row.small("rate_lim", 0);
    row.small("rate_max", front.connection_rate.1);
    row.small("conn_rate", front.connection_rate.0);
    row.small("conn_rate_max", front.connection_rate.1);
    row.counts(&[
        ("stot", counters.connections + fast.opened),
        ("bin", counters.bytes_in + fast.bytes_in),
        ("bout", counters.bytes_out + fast.bytes_out),
        ("dreq", 0),
        ("dresp", 0),
        ("ereq", counters.invalid_requests),
        ("conn_tot", counters.connections + counters.denied + fast.opened),
        ("dcon", counters.denied),
        ("dses", 0),
        ("wrew", 0),
        ("eint", 0),
        ("ssl_sess", 0),
        ("ssl_reused_sess", 0),
        ("ssl_failed_handshake", 0),
    ]);
    if config.mode == Mode::Http {
        row.small("req_rate", front.request_rate.0);
        row.small("req_rate_max", front.request_rate.1);
        row.counts(&[
            ("hrsp_1xx", counters.responses_1xx),
            ("hrsp_2xx", counters.responses_2xx),
            ("hrsp_3xx", counters.responses_3xx),
            ("hrsp_4xx", counters.responses_4xx),
            ("hrsp_5xx", counters.responses_5xx),
            ("hrsp_other", counters.responses_none),
            ("req_tot", counters.requests),
            ("intercepted", 0),
            ("h1_open_connections", front.connections.0),
            ("h1_open_streams", counters.visits.saturating_sub(counters.visits_ended)),
            ("h1_total_connections", counters.connections),
            ("h1_total_streams", counters.requests),
            ("h1_bytes_in", counters.bytes_in),
            ("h1_bytes_out", counters.bytes_out),
        ]);
    }
    row.absent_here();
    row
}

impl Row {
    /// As in an HAProxy that has it and does not use it.
    fn absent_here(&mut self) {
        for name in ["comp_in", "comp_out", "comp_byp", "comp_rsp", "cache_lookups", "cache_hits"] {
            self.count(name, 0);
        }
        for (name, _) in COLUMNS.iter().filter(|(name, _)| name.starts_with("h2_")) {
            self.count(name, 0);
        }
    }
}

fn server(desk: &Desk, server: &Server, totals: &BackTotals, fast: &FastTraffic, now: Instant) -> Row {
    let config = &desk.service.config;
    let health = config.health.look();
    let check = health.check.as_ref().filter(|_| server.checks.are_on());
    let is_http = config.mode == Mode::Http;
    let mut row = Row::new(Kind::Server, desk, &server.name, server.identity.id.into());
    row.back(totals, fast, is_http, now);
    row.count("stot", totals.counters.sessions + fast.opened);
    if is_http {
        let Back { responses_1xx, responses_2xx, responses_3xx, responses_4xx, responses_5xx, .. } =
            totals.counters;
        row.count("req_tot", responses_1xx + responses_2xx + responses_3xx + responses_4xx + responses_5xx);
    }
    if let Some(limit) = server.maxconn() {
        row.small("slim", limit.into());
    }
    if let Some(limit) = server.maxqueue() {
        row.small("qlimit", limit.into());
    }
    let checks = server.checks.read();
    row.text("status", &status(server, check, &checks));
    row.small("weight", effective_weight(server));
    row.small("uweight", server.weight().into());
    row.small("act", u64::from(!server.backup));
    row.small("bck", u64::from(server.backup));
    if server.share() < WHOLE && server.state() == State::Up {
        row.small("throttle", u64::from(server.share() * 100 / WHOLE));
    }
    if !server.is_unresolved() {
        row.text("addr", &server.address.to_string());
    }
    if let Some(cookie) = &server.cookie
        && config.persist.cookie().is_some()
    {
        row.text("cookie", cookie);
    }
    row.small("srv_icur", totals.counters.idle);
    row.small("idle_conn_cur", 0);
    row.small("safe_conn_cur", totals.counters.idle);
    row.small("used_conn_cur", totals.in_flight.0);
    if let Some(check) = check {
        row.checks(check, &checks, totals.check_failures);
    } else {
        // No check, no verdict: HAProxy has nothing to show for such a server.
        for name in ["chkdown", "downtime"] {
            row.cells[POSITIONS[name]] = None;
        }
    }
    row
}

impl Row {
    fn checks(&mut self, config: &CheckConfig, checks: &CheckState, failures: u64) {
        self.count("chkfail", failures);
        self.count("hanafail", 0);
        self.small("check_rise", config.rise.into());
        self.small("check_fall", config.fall.into());
        let Some(last) = &checks.last else { return };
        self.small("check_health", checks.health.into());
        self.text("check_status", last.word);
        if let Some(code) = last.code {
            self.small("check_code", code.into());
        }
        self.count("check_duration", last.duration.as_millis() as u64);
        let mut said = last.said.chars();
        let first = said.next().map(|first| first.to_ascii_uppercase());
        self.text("last_chk", &first.into_iter().chain(said).collect::<String>());
        self.text("check_desc", last.description());
    }
}

/// HAProxy's word for what a server may be used for.
fn status(server: &Server, check: Option<&CheckConfig>, checks: &CheckState) -> String {
    let doubt = check.filter(|_| checks.last.is_some()).map(|check| (check, checks.health));
    let going_down = |word: &str| match doubt {
        Some((check, health)) if health >= check.rise && health < check.rise + check.fall - 1 => {
            format!("{word} {}/{}", health + 1 - check.rise, check.fall)
        }
        _ => word.to_owned(),
    };
    match server.state() {
        State::Maint => "MAINT".to_owned(),
        _ if server.is_unresolved() => "MAINT (resolution)".to_owned(),
        State::Down => match doubt {
            Some((check, health @ 1..)) if health < check.rise => format!("DOWN {health}/{}", check.rise),
            _ => "DOWN".to_owned(),
        },
        State::Drain if server.operator() == Operator::Drain => going_down("DRAIN"),
        // The server has asked for it itself.
        State::Drain => going_down("NOLB"),
        State::Up if check.is_none() => "no check".to_owned(),
        State::Up => going_down("UP"),
    }
}

/// As much of the weight as counts now.
fn effective_weight(server: &Server) -> u64 {
    if server.operator() == Operator::Drain { 0 } else { server.effective_weight().div_ceil(WHOLE).into() }
}

fn backend(desk: &Desk, fast: &FastTraffic, now: Instant) -> Row {
    let (config, servers) = (&desk.service.config, &desk.service.servers);
    let totals = desk.stats.service(Since::Clearing);
    let visits = desk.stats.front(Since::Clearing).counters.visits;
    let is_http = config.mode == Mode::Http;
    let mut row = Row::new(Kind::Backend, desk, "BACKEND", 0);
    row.back(&totals, fast, is_http, now);
    row.small("slim", Seats::new(config).limit);
    row.count("stot", visits + fast.opened);
    row.count("dreq", 0);
    if is_http {
        row.count("req_tot", visits);
    }
    let usable = |backup| servers.iter().filter(move |server| server.backup == backup && server.takes_new());
    let (active, backups) = (usable(false).count(), usable(true).count());
    let is_up = active + backups > 0;
    row.text("status", if is_up { "UP" } else { "DOWN" });
    row.small("weight", usable(active == 0).map(effective_weight).sum());
    row.small("uweight", usable(active == 0).map(|server| u64::from(server.weight())).sum());
    row.small("act", active as u64);
    row.small("bck", backups as u64);
    row.text("algo", algorithm(&config.balance));
    if let Some(method) = config.persist.cookie() {
        row.text("cookie", &method.name);
    }
    for name in ["agg_server_status", "agg_server_check_status", "agg_check_status"] {
        row.small(name, 0);
    }
    row.absent_here();
    row
}

/// By HAProxy's name.
fn algorithm(balance: &Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConn => "leastconn",
        Balance::Random => "random",
        Balance::First => "first",
        Balance::Source => "source",
        Balance::Uri => "uri",
        Balance::Header(_) => "hdr",
        Balance::Query(_) => "url_param",
    }
}

/// What the fast path has carried, and when that was asked.
#[derive(Clone, Debug)]
pub struct Walked {
    at: Instant,
    took: Duration,
    traffic: HashMap<u16, FastTraffic>,
}

/// What is asked for that often is not counted anew each time: looking may take a tenth of the control thread's time.
const SHARE: u32 = 10;

impl Desk {
    /// What the fast path has carried for the servers with these ids.
    pub(in crate::admin) fn fast_traffic(&self, ids: &[u16]) -> Vec<FastTraffic> {
        let Some(view) = &self.view else { return vec![FastTraffic::default(); ids.len()] };
        let mut walked = self.walked.borrow_mut();
        let is_fresh = walked.as_ref().is_some_and(|walked: &Walked| {
            walked.at.elapsed() < walked.took * SHARE && ids.iter().all(|id| walked.traffic.contains_key(id))
        });
        if !is_fresh {
            let started = Instant::now();
            let traffic = ids.iter().copied().zip(view.traffic(ids)).collect();
            *walked = Some(Walked { at: Instant::now(), took: started.elapsed(), traffic });
        }
        let traffic = walked.as_ref().map(|walked| &walked.traffic);
        ids.iter().map(|id| traffic.and_then(|all| all.get(id)).copied().unwrap_or_default()).collect()
    }
}
