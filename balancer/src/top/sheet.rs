//! The lists: rows under columns, sorted and filtered. What stands in them is made here, where it goes is `draw`'s.

use std::cmp::Ordering;

use super::clean::Clean;
use super::model::{Answer, Decision, Flow, Server, Table};
use super::units;

/// A column.
#[derive(Debug)]
pub struct Column {
    /// What stands over it.
    pub title: &'static str,
    /// Numbers stand to the right, and are sorted from the largest on.
    pub is_number: bool,
    /// The lower, the later it goes when there is no room; 0 stays.
    pub luxury: u8,
}

const fn text(title: &'static str, luxury: u8) -> Column {
    Column { title, is_number: false, luxury }
}

const fn number(title: &'static str, luxury: u8) -> Column {
    Column { title, is_number: true, luxury }
}

/// How a cell is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// In order.
    Good,
    /// On purpose, and yet to be seen.
    Notable,
    /// Wrong.
    Bad,
    /// Nothing to look at.
    Faint,
}

/// What a row or a cell is sorted by.
#[derive(Clone, PartialEq, Debug)]
enum Order {
    Number(f64),
    Text(String),
}

/// A cell.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// What stands there.
    pub text: String,
    /// How.
    pub tone: Tone,
    order: Order,
}

impl Cell {
    fn text(text: &Clean) -> Self {
        let text = text.as_str();
        Self { text: text.to_owned(), tone: Tone::Plain, order: Order::Text(text.to_lowercase()) }
    }

    fn optional(text: Option<&Clean>) -> Self {
        text.map_or_else(Self::none, Self::text)
    }

    fn number(n: f64, text: String) -> Self {
        Self { tone: if n == 0.0 { Tone::Faint } else { Tone::Plain }, text, order: Order::Number(n) }
    }

    fn count(n: u64) -> Self {
        Self::number(n as f64, units::count(n))
    }

    fn seconds(n: u64) -> Self {
        Self::number(n as f64, units::span(n))
    }

    fn bytes(n: u64) -> Self {
        Self::number(n as f64, units::bytes(n))
    }

    /// Nothing is known, or it does not apply.
    fn none() -> Self {
        Self { text: "-".to_owned(), tone: Tone::Faint, order: Order::Number(f64::NEG_INFINITY) }
    }

    fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    fn bad_unless_zero(self) -> Self {
        let tone = if self.order == Order::Number(0.0) { Tone::Faint } else { Tone::Bad };
        self.toned(tone)
    }
}

/// A row.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// What it is known by from one answer to the next.
    pub key: String,
    /// For a symbol before it: the state of what it is about.
    pub state: Option<String>,
    /// One per column.
    pub cells: Vec<Cell>,
}

/// A list.
#[derive(Debug)]
pub struct Sheet {
    /// What stands where.
    pub columns: &'static [Column],
    /// The rows that are shown.
    pub rows: Vec<Row>,
    /// How many there were before some were filtered out.
    pub total: usize,
}

/// By which column a list is sorted, and which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sorting {
    /// Its index.
    pub column: usize,
    /// From the largest on.
    pub is_descending: bool,
}

const SERVERS: &[Column] = &[
    text("server", 0),
    text("state", 0),
    number("for", 3),
    text("address", 5),
    number("weight", 8),
    number("req/s", 1),
    number("requests", 6),
    number("in flight", 1),
    number("queue", 4),
    number("fast", 2),
    number("stuck", 2),
    number("mean", 2),
    number("5xx", 3),
    number("failed", 2),
    number("was down", 7),
    text("cookie", 9),
];

const TABLES: &[Column] = &[
    text("table", 0),
    number("entries", 0),
    number("size", 1),
    number("full", 0),
    number("probation", 2),
    number("timeout", 2),
    text("kept in", 3),
];

const FLOWS: &[Column] = &[
    text("client", 0),
    text("server", 0),
    text("phase", 0),
    number("age", 0),
    number("idle", 1),
    number("from client", 2),
    number("to client", 1),
    number("packets", 3),
    text("seen by server as", 5),
    text("address", 4),
];

const DECISIONS: &[Column] = &[
    text("time (UTC)", 0),
    text("client", 3),
    number("status", 0),
    text("server", 0),
    text("letters", 2),
    text("decision", 0),
];

impl Sheet {
    /// The servers.
    pub fn servers(answer: &Answer) -> Self {
        Self::new(SERVERS, answer.status.servers.iter().map(server).collect())
    }

    /// The learned tables.
    pub fn tables(answer: &Answer) -> Self {
        Self::new(TABLES, answer.status.tables.iter().map(table).collect())
    }

    /// The fast connections that were asked for.
    pub fn flows(answer: &Answer) -> Self {
        let flows = answer.flows.iter().flatten().flatten();
        Self::new(FLOWS, flows.map(flow).collect())
    }

    /// The last requests.
    pub fn decisions(answer: &Answer) -> Self {
        Self::new(DECISIONS, answer.status.decisions.iter().map(decision).collect())
    }

    fn new(columns: &'static [Column], rows: Vec<Row>) -> Self {
        Self { columns, total: rows.len(), rows }
    }

    /// Only those that have this in one of their cells, in whatever case.
    #[must_use]
    pub fn filtered(mut self, part: &str) -> Self {
        let part = part.to_lowercase();
        self.rows.retain(|row| row.cells.iter().any(|cell| cell.text.to_lowercase().contains(&part)));
        self
    }

    /// In that order; what is equal by its key.
    #[must_use]
    pub fn sorted(mut self, by: Sorting) -> Self {
        self.rows.sort_by(|a, b| {
            let order = match (a.cells.get(by.column), b.cells.get(by.column)) {
                (Some(a), Some(b)) => compare(&a.order, &b.order),
                _ => Ordering::Equal,
            };
            let order = if by.is_descending { order.reverse() } else { order };
            order.then_with(|| natural(&a.key, &b.key))
        });
        self
    }
}

fn compare(a: &Order, b: &Order) -> Ordering {
    match (a, b) {
        (Order::Number(a), Order::Number(b)) => a.total_cmp(b),
        (Order::Text(a), Order::Text(b)) => natural(a, b),
        (Order::Number(_), Order::Text(_)) => Ordering::Less,
        (Order::Text(_), Order::Number(_)) => Ordering::Greater,
    }
}

/// With the numbers in them as numbers: s2 before s10.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (left, right) = (digits(a), digits(b));
        let order = if left.is_empty() || right.is_empty() {
            match (a.split_first(), b.split_first()) {
                (Some((x, rest_of_a)), Some((y, rest_of_b))) => {
                    (a, b) = (rest_of_a, rest_of_b);
                    x.cmp(y)
                }
                _ => return a.len().cmp(&b.len()),
            }
        } else {
            (a, b) = (&a[left.len()..], &b[right.len()..]);
            let (x, y) = (without_zeros(left), without_zeros(right));
            x.len().cmp(&y.len()).then(x.cmp(y)).then(left.len().cmp(&right.len()))
        };
        if order.is_ne() {
            return order;
        }
    }
}

fn digits(text: &[u8]) -> &[u8] {
    &text[..text.iter().take_while(|byte| byte.is_ascii_digit()).count()]
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|digit| **digit == b'0').count()..]
}

/// What a state is to whoever looks.
pub(super) fn tone_of_state(state: &str) -> Tone {
    match state {
        "up" => Tone::Good,
        "down" => Tone::Bad,
        _ => Tone::Notable,
    }
}

fn server(server: &Server) -> Row {
    let state = Clean::new(&state_in_words(server));
    let weight = f64::from(server.weight);
    let effective = server.effective_weight;
    let weight_text =
        if effective < weight { format!("{effective:.1} of {weight}") } else { weight.to_string() };
    let in_flight = match server.maxconn {
        Some(most) => format!("{} of {}", units::count(server.in_flight), units::count(most)),
        None => units::count(server.in_flight),
    };
    let cells = vec![
        Cell::text(&server.name),
        Cell::text(&state).toned(tone_of_state(server.state.as_str())),
        Cell::seconds(server.seconds_in_state).toned(Tone::Faint),
        Cell::text(&address_of(server)),
        Cell::number(effective, weight_text),
        Cell::count(server.sessions_per_second),
        Cell::count(server.requests),
        Cell::number(server.in_flight as f64, in_flight),
        Cell::count(server.queue),
        Cell::count(server.fast),
        server.entries.map_or_else(Cell::none, Cell::count),
        Cell::number(server.millis.total, units::millis(server.millis.total)),
        Cell::count(server.responses.server_error).bad_unless_zero(),
        Cell::count(server.failures.sum()).bad_unless_zero(),
        Cell::seconds(server.down_seconds),
        Cell::optional(server.cookie.as_ref()),
    ];
    Row { key: server.name.as_str().to_owned(), state: Some(server.state.to_string()), cells }
}

/// The state, and what qualifies it.
fn state_in_words(server: &Server) -> String {
    let (state, health) = (server.state.as_str(), server.health.as_str());
    let mut words = state.to_owned();
    if health == "down" && state != "down" {
        words += ", down";
    }
    if server.backup {
        words += ", backup";
    }
    words
}

/// Where it is, or that nobody knows.
pub(super) fn address_of(server: &Server) -> Clean {
    server.address.clone().unwrap_or_else(|| Clean::new("unresolved"))
}

fn table(table: &Table) -> Row {
    let share = table.entries.saturating_sub(table.probation) as f64 / table.size.max(1) as f64;
    let cells = vec![
        Cell::text(&table.name),
        Cell::count(table.entries),
        Cell::count(table.size),
        Cell::number(share, units::percent(share)).toned(if share >= 0.9 {
            Tone::Notable
        } else {
            Tone::Plain
        }),
        Cell::count(table.probation),
        Cell::seconds(table.timeout),
        Cell::text(&table.kind),
    ];
    Row { key: table.name.as_str().to_owned(), state: None, cells }
}

fn flow(flow: &Flow) -> Row {
    let tone = if flow.phase.as_str() == "established" { Tone::Plain } else { Tone::Faint };
    let cells = vec![
        Cell::text(&flow.client),
        Cell::text(&flow.server),
        Cell::text(&flow.phase).toned(tone),
        Cell::seconds(flow.age_seconds),
        Cell::seconds(flow.idle_seconds),
        Cell::bytes(flow.bytes_in),
        Cell::bytes(flow.bytes_out),
        Cell::count(flow.packets_in.saturating_add(flow.packets_out)),
        Cell::text(&flow.snat),
        Cell::text(&flow.address),
    ];
    Row { key: format!("{} {}", flow.client, flow.address), state: None, cells }
}

fn decision(decision: &Decision) -> Row {
    let status = decision.status.map_or_else(Cell::none, |status| {
        let tone = if status >= 500 { Tone::Bad } else { Tone::Plain };
        Cell::number(f64::from(status), status.to_string()).toned(tone)
    });
    let time = Cell {
        text: decision.time_of_day().to_owned(),
        tone: Tone::Plain,
        order: Order::Text(decision.time.as_str().to_owned()),
    };
    let cells = vec![
        time,
        Cell::optional(decision.client.as_ref()),
        status,
        Cell::optional(decision.server.as_ref()),
        Cell::text(&decision.letters),
        Cell::text(&decision.persist),
    ];
    Row { key: key_of(decision), state: None, cells }
}

/// Two requests that agree in all of this are told apart by nobody.
pub(super) fn key_of(decision: &Decision) -> String {
    let client = decision.client.as_ref().map_or("", Clean::as_str);
    format!("{} {client} {} {}", decision.time, decision.letters, decision.persist)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_numbers() {
        let mut names = vec!["s10", "s2", "s", "s02", "t1", "s2b", "s2a", "10.0.0.10:80", "10.0.0.9:80"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["10.0.0.9:80", "10.0.0.10:80", "s", "s2", "s2a", "s2b", "s02", "s10", "t1"]);
    }

    #[test]
    fn what_is_unknown_is_the_least() {
        let rows = [Some(3), None, Some(0)].map(|entries| Server {
            name: Clean::new(&format!("{entries:?}")),
            entries,
            ..Server::default()
        });
        let mut answer = Answer::default();
        answer.status.servers = rows.to_vec();
        let column = SERVERS.iter().position(|column| column.title == "stuck").expect("a column");
        let sorted = Sheet::servers(&answer).sorted(Sorting { column, is_descending: true });
        let keys: Vec<_> = sorted.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, ["Some(3)", "Some(0)", "None"]);
    }

    #[test]
    fn every_row_has_a_cell_for_every_column() {
        let count = |row: &Row, columns: &[Column]| assert_eq!(row.cells.len(), columns.len());
        count(&server(&Server::default()), SERVERS);
        count(&table(&Table::default()), TABLES);
        count(&flow(&Flow::default()), FLOWS);
        count(&decision(&Decision::default()), DECISIONS);
    }
}
