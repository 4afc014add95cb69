//! What operators see of the learned tables, and change in them.
//!
//! | module | what it does |
//! |---|---|
//! | `command` | a line → what is asked (pure) |
//! | `rows` | what is answered |
//! | [`load`] | many entries at one time |
//! | `census` | how many entries there are, of each table and of each server |

mod census;
mod command;
pub mod load;
mod rows;

use std::io;

use balancer_ebpf::affinity::Affinity;

use super::{Desk, json_line, text};
use crate::clock;
use crate::log;
use crate::persist::Method;
use crate::persist::method::SessionMethod;
use crate::server::{Identity, Servers};
use crate::service::{Service, Shared};
use crate::table::{Found, Key, Table, Tables};
pub use census::Census;
use command::{Ask, Comparison, Condition, Form, Server, Verb, Which};
pub use rows::{TableRow, TableSummary};

/// As many entries are shown as an operator's tools can be expected to take: the answer is built in memory.
const MOST_ENTRIES: usize = 1_000_000;

/// The answer to a command about tables; `None`: it is about something else.
///
/// A large table takes a second to walk over: that is done on a thread of its own, and by one command at a time, so that
/// impatient operators do not add up to gigabytes of answers.
pub(super) async fn answer(desk: &Desk, text: &str) -> Option<String> {
    let (form, outcome) = match Ask::parse(text)? {
        Ok(ask) => {
            let _turn = desk.table_turn.lock().await;
            let archive = Archive { service: desk.service.clone(), tables: desk.books.tables.handle() };
            let form = ask.form;
            let outcome = tokio::task::spawn_blocking(move || archive.perform(&ask)).await;
            (form, outcome.unwrap_or_else(|_| Err("the command has failed".to_owned())))
        }
        Err((form, error)) => (form, Err(error)),
    };
    Some(match outcome {
        Ok(answer) => answer,
        Err(refusal) if form == Form::HaProxy => format!("{refusal}\n"),
        Err(refusal) => format!("error: {refusal}\n"),
    })
}

/// The answer may be as large as a table.
pub(super) fn is_bulky(text: &str) -> bool {
    matches!(Ask::parse(text), Some(Ok(Ask { verb: Verb::Show, table: Some(_), which: Which::All(_), .. })))
}

/// What commands are about.
struct Archive {
    service: Shared,
    tables: Tables,
}

impl Archive {
    fn perform(&self, ask: &Ask) -> Result<String, String> {
        let Some(name) = &ask.table else { return Ok(summaries(&self.tables, ask.form)) };
        let subject = self.subject(name)?;
        match &ask.verb {
            Verb::Show => subject.show(ask),
            Verb::Set(server) => subject.set(ask, server),
            Verb::Clear => subject.clear(ask),
        }
    }

    /// The table of that name.
    fn subject(&self, name: &str) -> Result<Subject<'_>, String> {
        let found = self.tables.iter().find(|(label, _)| label.eq_ignore_ascii_case(name));
        let (name, table) = found.ok_or_else(|| no_such_table(&self.tables))?;
        let Service { config, servers, .. } = &*self.service;
        let methods = config.persist.methods().iter();
        let prefixed = methods.filter(|method| method.label() == name).find_map(|method| match method {
            Method::Session(session) if session.is_prefix => Some(session),
            _ => None,
        });
        Ok(Subject { name, table, servers, prefixed })
    }
}

fn summaries(tables: &Tables, form: Form) -> String {
    match form {
        Form::Json => json_line(&TableSummary::all(tables)),
        Form::Text => text::table(&TableSummary::all(tables)),
        Form::HaProxy => {
            tables.iter().map(|(name, table)| TableSummary::of(name, table).line(table)).collect()
        }
    }
}

fn no_such_table(tables: &Tables) -> String {
    let names: Vec<_> = tables.iter().map(|(name, _)| name).collect();
    match names.as_slice() {
        [] => "No such table; there is none, as no --persist method learns".to_owned(),
        names => format!("No such table; there are: {}", names.join(", ")),
    }
}

/// A table, and what is needed to understand it.
struct Subject<'a> {
    name: &'a str,
    table: &'a Table,
    servers: &'a Servers,
    /// Its method, if only the beginning of a cookie's name is given there.
    prefixed: Option<&'a SessionMethod>,
}

impl Subject<'_> {
    fn show(&self, ask: &Ask) -> Result<String, String> {
        let Self { name, table, servers, .. } = *self;
        let now = clock::boot_seconds();
        let entries = self.entries(&ask.which, now)?;
        if entries.is_empty() && !matches!(ask.which, Which::All(_)) {
            return match ask.form {
                Form::HaProxy => Ok(String::new()),
                Form::Text | Form::Json => Err(format!("there is no such key in {name}")),
            };
        }
        let row = |entry| TableRow::of(table, servers, entry, now);
        Ok(match ask.form {
            Form::Json => json_line(&entries.iter().map(row).collect::<Vec<_>>()),
            Form::Text => text::table(&entries.iter().map(row).collect::<Vec<_>>()),
            Form::HaProxy => {
                let mut text = TableSummary::of(name, table).line(table);
                entries.iter().for_each(|entry| rows::push_line(&mut text, table, servers, entry));
                text
            }
        })
    }

    /// The operator's word: the next request goes there, whatever was known.
    fn set(&self, ask: &Ask, server: &Server) -> Result<String, String> {
        let Self { name, table, servers, .. } = *self;
        let place = match server {
            Server::Name(name) => servers.by_name(name),
            Server::Id(id) => servers.by_id(*id),
        };
        let place = place.ok_or_else(|| {
            format!(
                "No such server; there are: {}",
                log::first_few(servers.iter().map(|server| &*server.name))
            )
        })?;
        let (key, now) = (self.key(&ask.which)?, clock::boot_seconds());
        let entry = self.entry(place, table.get(&key), now.saturating_add(table.timeout), now);
        table
            .put(&key, entry)
            .map_err(|error| format!("Unable to allocate a new entry: {}", refusal(&error)))?;
        let server = &servers[place].name;
        log::info(format_args!("an entry of table {name} is set to {server} by the operator"));
        Ok(said(ask.form, format_args!("{name}: the entry names {server} now")))
    }

    /// One that names the server at `place`, where there was `known`.
    fn entry(&self, place: usize, known: Option<Affinity>, expiry: u32, now: u32) -> Affinity {
        let Identity { id, generation } = self.servers[place].identity;
        if !self.table.is_of_sources() {
            return Affinity::learned(id, expiry);
        }
        let entry = Affinity::new(id, generation, expiry);
        // Where several users are behind an address, that does not change by sending them elsewhere.
        known.map_or(entry, |known| entry.inherit_ambiguity(known, now, self.table.timeout))
    }

    fn clear(&self, ask: &Ask) -> Result<String, String> {
        let Self { name, table, .. } = *self;
        match &ask.which {
            Which::All(conditions) if conditions.is_empty() => {
                table.clear();
                log::info(format_args!("table {name} is cleared by the operator"));
                Ok(said(ask.form, format_args!("{name}: all entries are forgotten")))
            }
            which => {
                let entries = self.entries(which, clock::boot_seconds())?;
                entries.iter().for_each(|(key, _)| table.forget(key));
                log::info(format_args!(
                    "{} entries of table {name} are cleared by the operator",
                    entries.len()
                ));
                Ok(said(ask.form, format_args!("{name}: {} entries are forgotten", entries.len())))
            }
        }
    }

    /// The live entries that are meant, by key.
    fn entries(&self, which: &Which, now: u32) -> Result<Vec<(Key, Found)>, String> {
        let Self { table, servers, .. } = *self;
        let Which::All(conditions) = which else {
            let key = self.key(which)?;
            let found = table.find(&key).filter(|found| found.entry.is_live(now));
            return Ok(found.map(|found| (key, found)).into_iter().collect());
        };
        let meets = |found: &Found, condition: &Condition| is_met(condition, found.entry.server(), servers);
        let mut entries = Vec::new();
        table.for_each(|key, found| {
            let is_meant =
                found.entry.is_live(now) && conditions.iter().all(|condition| meets(&found, condition));
            if is_meant && entries.len() < MOST_ENTRIES {
                entries.push((key, found));
            }
        });
        entries.sort_unstable_by_key(|(key, _)| *key);
        // Seen twice while it was moving.
        entries.dedup_by_key(|(key, _)| *key);
        Ok(entries)
    }

    fn key(&self, which: &Which) -> Result<Key, String> {
        match which {
            Which::Pointer(key) => Ok(*key),
            Which::All(_) => Err("Key value expected".into()),
            Which::Key(text) => self.key_of(text.as_bytes()),
        }
    }

    /// As clients send it.
    fn key_of(&self, text: &[u8]) -> Result<Key, String> {
        let table = self.table;
        if table.is_of_sources() {
            let address = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            let address = address.ok_or("Invalid key; the keys of this table are addresses")?;
            return Ok(table.source_key(address));
        }
        let id = self.prefixed.map_or(Ok(text), |method| id_of_cookie(text, method))?;
        table.key(id).ok_or_else(|| "An empty key is never stored".into())
    }
}

/// The kernel's word for a full map is about something else.
fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => "the table is full".to_owned(),
        _ => log::reason(error),
    }
}

/// HAProxy says nothing when all is well.
fn said(form: Form, message: std::fmt::Arguments<'_>) -> String {
    if form == Form::HaProxy { String::new() } else { format!("{message}\n") }
}

fn is_met(condition: &Condition, id: u16, servers: &Servers) -> bool {
    let order = match &condition.server {
        Server::Id(asked) => id.cmp(asked),
        Server::Name(asked) => servers.by_id(id).map_or("", |index| &servers[index].name).cmp(asked),
    };
    match condition.operator {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

/// What the table knows a cookie by of which only the beginning of the name is given: the rest of it, `=`, and the value.
fn id_of_cookie<'a>(text: &'a [u8], method: &SessionMethod) -> Result<&'a [u8], String> {
    match text.strip_prefix(method.name.as_bytes()) {
        Some(rest) if rest.contains(&b'=') => Ok(rest.strip_prefix(b"=").unwrap_or(rest)),
        _ => Err(format!("Invalid key; write the cookie as clients send it, {}REST=VALUE", method.name)),
    }
}
