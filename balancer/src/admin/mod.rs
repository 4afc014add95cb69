//! The operator's socket: one command per line, several joined by `;`, each answer ended by an empty line.
//!
//! | module | what it does |
//! |---|---|
//! | [`socket`] | the Unix socket: its place, its permissions, its limits |
//! | [`command`] | a line → what is asked |
//! | `operate` | what is done to servers |
//! | [`report`] | what is answered: structs that make the tables and the JSON |
//! | [`client`] | the other end, for `balancer show`, `set` and so on |
//!
//! Everything runs on the control thread and only reads what the workers write, so an operator never holds up a
//! request; what takes long is counted on a thread of its own.

pub mod client;
pub mod command;
mod operate;
pub mod report;
pub mod socket;
mod text;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::datapath::view::View;
use crate::intent::ledger::Ledger;
use crate::names::follow::Names;
use crate::proxy::Stats;
use crate::service::Shared;
use crate::table::Table;
use crate::takeover::successor::Estate;
use command::{Command, HELP};
use report::{Info, ServerDetail, ServerRow, TableRow, TableSummary};
pub use socket::{Access, Socket};
use text::Columns;

/// The name of the one learned table there is today, as in its flag.
const SOURCE: &str = "source";

/// What the socket can show and change.
pub struct Desk {
    /// Settings and servers.
    pub service: Shared,
    /// What the operator wants of the servers.
    pub ledger: Rc<Ledger>,
    /// Looks after the names of their hosts.
    pub names: Rc<Names>,
    /// The `source` table, if there is one.
    pub source: Option<Table>,
    /// The fast path, if there is one.
    pub view: Option<Rc<dyn View>>,
    /// The counters of each worker.
    pub stats: Vec<Arc<Stats>>,
    /// Where clients connect, ports resolved.
    pub listen: Vec<SocketAddr>,
    /// What was warned of at start.
    pub warnings: Vec<String>,
    /// When the service became ready.
    pub started: Instant,
    /// It has been told to stop and is finishing what it has.
    pub draining: Cell<bool>,
    /// What a successor can have; `None` once this process is ending.
    pub estate: RefCell<Option<Rc<Estate>>>,
}

impl Desk {
    /// Answers a line of commands.
    pub async fn answer(&self, line: &str) -> String {
        let mut answers = String::new();
        for command in line.split(';').map(str::trim).filter(|command| !command.is_empty()) {
            let answer = match Command::parse(command) {
                Some(command) => {
                    self.perform(&command).await.unwrap_or_else(|refusal| format!("error: {refusal}\n"))
                }
                None => format!("error: unknown command {command:?}; the commands are:\n{HELP}"),
            };
            answers.push_str(&answer);
            answers.push('\n');
        }
        if answers.is_empty() { format!("{HELP}\n") } else { answers }
    }

    async fn perform(&self, command: &Command<'_>) -> Result<String, String> {
        match *command {
            Command::Help => Ok(HELP.to_owned()),
            Command::ShowInfo { json } => {
                let info = Info::of(self);
                Ok(if json { json_line(&info) } else { info.text() })
            }
            Command::ShowServers { json } => Ok(rows(&ServerRow::all(&self.service.servers), json)),
            Command::ShowServer { name, json } => {
                let detail = ServerDetail::of(self, self.place(name)?).await;
                Ok(if json { json_line(&detail) } else { detail.text() })
            }
            Command::ShowTables { json } => Ok(rows(&TableSummary::all(self), json)),
            Command::ShowTable { name, json } => {
                let table = self
                    .source
                    .as_ref()
                    .filter(|_| name == SOURCE)
                    .ok_or_else(|| self.no_such_table(name))?;
                Ok(rows(&TableRow::all(table, &self.service.servers), json))
            }
            Command::ShowFlows { json } => {
                let flows = self.view.as_ref().map_or_else(Vec::new, |view| view.flows());
                Ok(rows(&flows, json))
            }
            Command::SetServer { name, state } => self.set_server(name, state).await,
            Command::SetWeight { name, weight } => self.set_weight(name, weight),
            Command::GetWeight { name } => self.get_weight(name),
            Command::AddServer { ref words } => self.add_server(words),
            Command::DelServer { name, force } => self.del_server(name, force),
            Command::ShutdownSessions { name } => self.shutdown_sessions(name),
        }
    }

    fn no_such_table(&self, name: &str) -> String {
        let there_are = if self.source.is_some() { SOURCE } else { "none, as no --persist method learns" };
        format!("there is no table {name:?}; there are: {there_are}")
    }
}

fn rows<R: Serialize + Columns>(rows: &[R], json: bool) -> String {
    if json { json_line(rows) } else { text::table(rows) }
}

fn json_line<T: Serialize + ?Sized>(value: &T) -> String {
    match serde_json::to_string(value) {
        Ok(json) => json + "\n",
        // None of the structs can fail: they have no maps with odd keys and no serializers of their own.
        Err(error) => format!("error: {error}\n"),
    }
}

#[cfg(test)]
mod tests;
