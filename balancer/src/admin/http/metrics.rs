//! The figures of a moment as OpenMetrics, by the official library.
//!
//! Labels are bounded: servers, methods and tables are as many as the flags name, classes, verdicts and outcomes as
//! many as there are. Nothing that a client sends is in one. Servers have one histogram each, the service four.

use std::collections::BTreeMap;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::super::Desk;
use super::super::report::{Info, ServerRow};
use super::super::tables::{Census, TableSummary};
use crate::clock;
use crate::datapath::view::FastTraffic;
use crate::persist::trace::Verdict;
use crate::stats::{BOUNDS, BackTotals, FrontTotals, Since, Times, Verdicts};

/// What the answer is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What all names begin with.
const PREFIX: &str = "balancer";

/// The states of a server.
const STATES: [&str; 4] = ["up", "drain", "down", "maint"];

/// Names and values of labels.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// The figures of a moment.
#[derive(Debug)]
struct Figures {
    info: Info,
    ready: bool,
    /// Unix time of the start, in seconds.
    started: u64,
    front: FrontTotals,
    service: BackTotals,
    servers: Vec<(ServerRow, BackTotals)>,
    /// Of the same, in the same order; empty: there is no fast path.
    fast: Vec<FastTraffic>,
    methods: Vec<String>,
    verdicts: Verdicts,
    tables: Vec<TableSummary>,
    /// Lines of the access log that were dropped; `None`: there is no log.
    lines_dropped: Option<u64>,
    outcomes: BTreeMap<&'static str, u64>,
}

/// The answer to `/metrics`.
pub(super) fn text(desk: &Desk, census: &Census) -> String {
    let info = Info::of(desk);
    let rows = ServerRow::all(desk, false).into_iter();
    let (places, totals): (Vec<_>, Vec<_>) = desk.stats.servers(Since::Start).into_iter().unzip();
    let ids = places.into_iter().map(|place| desk.service.servers[place].identity.id);
    let figures = Figures {
        ready: desk.is_ready(),
        started: (clock::unix_millis() / 1000).saturating_sub(info.uptime_seconds),
        front: desk.stats.front(Since::Start),
        service: desk.stats.service(Since::Start),
        servers: rows.zip(totals).collect(),
        fast: desk.view.as_ref().map(|_| desk.fast_traffic(&ids.collect::<Vec<_>>())).unwrap_or_default(),
        methods: desk.service.config.persist.labels().iter().map(ToString::to_string).collect(),
        verdicts: desk.stats.verdicts(),
        tables: census.tables.clone(),
        lines_dropped: desk.log.as_ref().map(crate::access_log::Sender::dropped),
        outcomes: info.datapath.as_ref().map(|datapath| datapath.counters.clone()).unwrap_or_default(),
        info,
    };
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(figures));
    let mut answer = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut answer, &registry);
    answer
}

/// Writes families, one after the other.
struct Book<'a>(DescriptorEncoder<'a>);

impl Book<'_> {
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            } else {
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<'a, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (Labels<'a>, V)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn times<'a>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'a>, &'a Times)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, times) in rows {
            let seconds = |micros: u64| micros as f64 / 1e6;
            let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(times.buckets).collect();
            let (sum, count) = (seconds(times.sum_micros), times.count());
            if labels.is_empty() {
                family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            } else {
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

/// The one row of a family without labels.
fn only<'a, V>(value: V) -> [(Labels<'a>, V); 1] {
    [(Vec::new(), value)]
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut book = Book(encoder);
        self.process(&mut book)?;
        self.clients(&mut book)?;
        self.requests(&mut book)?;
        self.servers(&mut book)?;
        self.persistence(&mut book)?;
        self.fast_path(&mut book)
    }
}

impl Figures {
    fn process(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let build = [(vec![("version", self.info.version), ("service", &*self.info.name)], 1)];
        book.gauges("build_info", "What runs here.", None, build)?;
        book.gauges("start_time", "Unix time of the start.", Some(&Unit::Seconds), only(self.started))?;
        book.gauges("ready", "Clients are to be sent here.", None, only(u32::from(self.ready)))?;
        let draining = u32::from(self.info.draining);
        book.gauges("draining", "Told to stop, and finishing what it has.", None, only(draining))?;
        let dropped = self.lines_dropped.map(|count| (Vec::new(), count));
        book.counters("log_lines_dropped", "Lines of the access log that found no room.", None, dropped)
    }

    fn clients(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let front = &self.front.counters;
        book.gauges("connections_open", "Client connections now.", None, only(self.front.connections.0))?;
        let limit = self.info.max_connections;
        book.gauges("connections_limit", "Client connections at one time, at most.", None, only(limit))?;
        book.counters(
            "connections",
            "Client connections that were accepted.",
            None,
            only(front.connections),
        )?;
        book.counters("connections_denied", "Connections closed by --deny.", None, only(front.denied))?;
        let bad = front.bad_proxy_headers;
        book.counters("bad_proxy_headers", "Connections without the PROXY header due.", None, only(bad))?;
        book.counters("received", "Read from clients.", Some(&Unit::Bytes), only(front.bytes_in))?;
        book.counters("sent", "Written to clients.", Some(&Unit::Bytes), only(front.bytes_out))
    }

    fn requests(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let (front, service) = (&self.front.counters, &self.service);
        let rows = front.by_class().map(|(class, count)| (vec![("code_class", class)], count));
        book.counters("requests", "Requests that are over, by the class of their answer.", None, rows)?;
        let invalid = front.invalid_requests;
        book.counters("requests_invalid", "Of these, no well-formed requests.", None, only(invalid))?;
        book.counters("errors", "Answers that the balancer made itself.", None, only(front.errors))?;
        book.counters("aborted", "Requests without a complete answer.", None, only(front.aborted))?;
        book.counters("retries", "Attempts to connect after the first.", None, only(front.retries))?;
        let moved = front.redispatches;
        book.counters("redispatches", "Requests that were moved to another server.", None, only(moved))?;
        book.gauges("in_flight", "Requests that are being served now.", None, only(service.in_flight.0))?;
        let waiting = front.queued.saturating_sub(front.dequeued);
        book.gauges("queue_waiting", "Requests that wait for a server now.", None, only(waiting))?;
        book.counters("queue_entered", "Requests that had to wait.", None, only(front.queued))?;
        book.counters("queue_timeouts", "Those that have waited in vain.", None, only(front.queue_timeouts))?;
        let latencies = &service.latencies;
        book.times("queue_duration", "The wait for a server to have room.", only(&latencies.queue))?;
        book.times("connect_duration", "From there to a connection.", only(&latencies.connect))?;
        book.times("response_duration", "From there to the answer's head.", only(&latencies.response))?;
        book.times("request_duration", "From first byte to last.", only(&latencies.total))
    }

    /// For each server one row.
    fn each<V>(&self, value: impl Fn(&ServerRow, &BackTotals) -> V) -> impl Iterator<Item = (Labels<'_>, V)> {
        self.servers.iter().map(move |(row, totals)| (vec![("server", &*row.name)], value(row, totals)))
    }

    fn servers(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let up = self.each(|row, _| u32::from(matches!(row.state, "up" | "drain")));
        book.gauges("server_up", "It serves, at least the users it has.", None, up)?;
        let states = self.servers.iter().flat_map(|(row, _)| {
            STATES
                .map(|state| (vec![("server", &*row.name), ("state", state)], u32::from(row.state == state)))
        });
        book.gauges("server_state", "1 for the state it is in.", None, states)?;
        let weight = self.each(|row, _| row.effective_weight);
        book.gauges("server_weight", "Its share of what is balanced, as it counts now.", None, weight)?;
        let sessions = self.each(|_, totals| totals.counters.sessions);
        book.counters("server_sessions", "Requests that it was asked.", None, sessions)?;
        let responses = self.servers.iter().flat_map(|(row, totals)| {
            let of_class = |(class, count)| (vec![("server", &*row.name), ("code_class", class)], count);
            totals.counters.by_class().map(of_class)
        });
        book.counters("server_responses", "Its answers, by class.", None, responses)?;
        let in_flight = self.each(|row, _| row.in_flight);
        book.gauges("server_in_flight", "Requests that it serves now.", None, in_flight)?;
        let waiting = self.each(|row, _| row.queue);
        book.gauges("server_waiting", "Requests that wait for it and no other.", None, waiting)?;
        let failures = self.servers.iter().flat_map(|(row, totals)| {
            let counters = &totals.counters;
            let by_kind = [
                ("connect", counters.connect_failures),
                ("response", counters.response_failures),
                ("broken_off", counters.server_aborts),
            ];
            by_kind.map(|(kind, count)| (vec![("server", &*row.name), ("kind", kind)], count))
        });
        book.counters("server_failures", "Requests that it failed.", None, failures)?;
        let retries = self.each(|_, totals| totals.counters.retries);
        book.counters("server_retries", "Attempts to connect to it after the first.", None, retries)?;
        let received = self.each(|_, totals| totals.counters.bytes_in);
        book.counters("server_received", "Read from clients for it.", Some(&Unit::Bytes), received)?;
        let sent = self.each(|_, totals| totals.counters.bytes_out);
        book.counters("server_sent", "Written to clients from it.", Some(&Unit::Bytes), sent)?;
        let down = self.each(|_, totals| totals.availability.down().as_secs());
        book.counters("server_down", "Time in which it was down.", Some(&Unit::Seconds), down)?;
        let response = self.servers.iter();
        let response =
            response.map(|(row, totals)| (vec![("server", &*row.name)], &totals.latencies.response));
        book.times("server_response_duration", "From a connection to its answer's head.", response)
    }

    fn persistence(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let verdicts = self.methods.iter().zip(&self.verdicts).flat_map(|(method, counts)| {
            let counts = Verdict::ALL.iter().zip(counts);
            counts.map(move |(verdict, count)| {
                (vec![("method", &**method), ("verdict", verdict.as_str())], *count)
            })
        });
        book.counters("persistence", "What each method of --persist came to.", None, verdicts)?;
        let tables = || self.tables.iter().map(|table| (vec![("table", &*table.name)], table));
        let entries = tables().map(|(labels, table)| (labels, table.entries));
        book.gauges("table_entries", "Live learned entries, counted every few seconds.", None, entries)?;
        let sizes = tables().map(|(labels, table)| (labels, table.size));
        book.gauges("table_size", "Most entries it holds.", None, sizes)?;
        let refused = self.info.new_keys_refused;
        book.counters("table_keys_refused", "New keys too many of one source.", None, only(refused))
    }

    fn fast_path(&self, book: &mut Book<'_>) -> Result<(), Error> {
        let fast = self.each(|row, _| row.fast);
        book.gauges("server_fast_connections", "Connections on the fast path now.", None, fast)?;
        let carried = |value: fn(&FastTraffic) -> u64| {
            let rows = self.servers.iter().zip(&self.fast);
            rows.map(move |((row, _), fast)| (vec![("server", &*row.name)], value(fast)))
        };
        let opened = carried(|fast| fast.opened);
        book.counters("server_fast_connections_opened", "Connections that became fast.", None, opened)?;
        let (received, sent) = (carried(|fast| fast.bytes_in), carried(|fast| fast.bytes_out));
        let bytes = Some(&Unit::Bytes);
        book.counters("server_fast_received", "Payload of clients that XDP carried to it.", bytes, received)?;
        book.counters("server_fast_sent", "Payload of it that XDP carried to clients.", bytes, sent)?;
        let outcomes = self.outcomes.iter().map(|(outcome, count)| (vec![("outcome", *outcome)], *count));
        book.counters("xdp_outcomes", "What XDP has done, by outcome: mostly packets.", None, outcomes)
    }
}
