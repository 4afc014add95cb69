//! The operator's socket: one command per line, several joined by `;`, each answer ended by an empty line.
//!
//! | module | what it does |
//! |---|---|
//! | [`socket`] | the Unix socket: its place, its permissions, its limits |
//! | `crowd` | who may stay when there are too many |
//! | [`command`] | a line → what is asked |
//! | `operate`, [`reload`] | what is done to servers, by the operator and by flags that are read again |
//! | `flows` | fast connections: showing and ending them |
//! | [`tables`] | commands about learned tables and their answers |
//! | [`explain`], `decisions` | why requests go where they go |
//! | `haproxy` | HAProxy's own answers: `show stat`, `show info` and so on |
//! | [`report`] | what is answered: structs that make the tables and the JSON |
//! | `status` | everything at a glance, in one object |
//! | [`http`] | what programs ask over HTTP (`--http-admin`) |
//! | [`client`] | the other end, for `balancer show`, `set` and so on |
//! | [`load`] | the other end of `load table`: what HAProxy or another instance shows, into a table |
//!
//! Everything runs on the control thread and only reads what the workers write, so an operator never holds up a
//! request; what takes long is counted on a thread of its own.

pub mod client;
pub mod command;
mod crowd;
mod decisions;
pub mod explain;
mod flows;
mod haproxy;
pub mod http;
pub mod load;
mod operate;
pub mod reload;
pub mod report;
pub mod socket;
mod status;
pub mod tables;
mod text;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use crate::access_log::Sender;
use crate::datapath::view::View;
use crate::intent::ledger::Ledger;
use crate::names::follow::Names;
use crate::server::{Health, Operator};
use crate::service::Shared;
use crate::stats::Statistics;
use crate::takeover::successor::Estate;
use crate::visit::{Books, Decided};
use command::{Command, HELP};
use explain::{Explanation, Question};
pub use haproxy::Walked;
use report::{Info, ServerDetail, ServerRow};
pub use socket::{Access, Socket};
use status::Status;
pub use tables::Census;
use text::Columns;

/// What the socket can show and change.
pub struct Desk {
    /// Settings and servers.
    pub service: Shared,
    /// What the operator wants of the servers.
    pub ledger: Rc<Ledger>,
    /// Looks after the names of their hosts.
    pub names: Rc<Names>,
    /// What persistence is made of, with handles of its own to the learned tables.
    pub books: Rc<Books>,
    /// The last decisions, as far as they were asked for; workers have the latest.
    pub decisions: RefCell<VecDeque<Decided>>,
    /// Whose turn it is to walk over the tables.
    pub table_turn: Mutex<()>,
    /// What the tables had in them, when it was asked last.
    pub census: RefCell<Option<Rc<Census>>>,
    /// How many large answers there may be at one time, until they have been taken.
    pub bulk: Arc<Semaphore>,
    /// The fast path, if there is one.
    pub view: Option<Rc<dyn View>>,
    /// What the fast path has carried, when it was asked last.
    pub walked: RefCell<Option<Walked>>,
    /// What is counted and timed.
    pub stats: Rc<Statistics>,
    /// Where clients connect, ports resolved.
    pub listen: Vec<SocketAddr>,
    /// What was warned of at start.
    pub warnings: Vec<String>,
    /// When the service became ready.
    pub started: Instant,
    /// It has been told to stop and is finishing what it has.
    pub draining: Cell<bool>,
    /// The first round of checks was complete at some time.
    pub was_ready: Cell<bool>,
    /// An end of the access log, which knows what was dropped.
    pub log: Option<Sender>,
    /// What a successor can have; `None` once this process is ending.
    pub estate: RefCell<Option<Rc<Estate>>>,
}

/// Large answers that are being taken at one time: each may have a hundred megabytes.
pub const MOST_BULKY: usize = 4;

/// What a line of commands is answered with.
pub struct Answer {
    /// All answers, each ended by an empty line.
    pub text: String,
    bulk: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// It has one of the places for large answers, until it is dropped.
    fn is_bulky(&self) -> bool {
        self.bulk.is_some()
    }
}

impl Desk {
    /// Answers a line of commands.
    pub async fn answer(&self, line: &str) -> Answer {
        let mut answers = String::new();
        let mut bulk = None;
        for command in commands(line) {
            if bulk.is_none() && tables::is_bulky(command) {
                bulk = Arc::clone(&self.bulk).acquire_owned().await.ok();
            }
            let answer = match (haproxy::answer(self, command), Command::parse(command)) {
                (Some(answer), _) => answer,
                (None, Some(command)) => {
                    self.perform(&command).await.unwrap_or_else(|refusal| format!("error: {refusal}\n"))
                }
                (None, None) => match self.answer_about_decisions(command) {
                    Some(answer) => answer,
                    None => tables::answer(self, command).await.unwrap_or_else(|| {
                        format!("error: unknown command {command:?}; the commands are:\n{HELP}")
                    }),
                },
            };
            answers.push_str(&answer);
            answers.push('\n');
        }
        let text = if answers.is_empty() { format!("{HELP}\n") } else { answers };
        Answer { text, bulk }
    }

    async fn perform(&self, command: &Command<'_>) -> Result<String, String> {
        match *command {
            Command::Help => Ok(HELP.to_owned()),
            Command::ShowProcess { json } => {
                let info = Info::of(self);
                Ok(if json { json_line(&info) } else { info.text() })
            }
            Command::ShowStatus => Ok(json_line(&Status::of(self, true, decisions::MOST).await)),
            Command::ShowServers { json } => Ok(rows(&ServerRow::all(self, json), json)),
            Command::ShowServer { name, json } => {
                let detail = ServerDetail::of(self, self.place(name)?).await;
                Ok(if json { json_line(&detail) } else { detail.text() })
            }
            Command::ShowFlows { which, json } => self.show_flows(which, json),
            Command::ResetFlows { which } => self.reset_flows(which),
            Command::SetServer { name, state } => self.set_server(name, state).await,
            Command::SetWeight { name, weight } => self.set_weight(name, weight),
            Command::GetWeight { name } => self.get_weight(name),
            Command::AddServer { ref words } => self.add_server(words),
            Command::DelServer { name, force } => self.del_server(name, force),
            Command::ShutdownSessions { name } => self.shutdown_sessions(name),
        }
    }

    /// Clients are to be sent here: every server that may serve has been looked at once, and the process is to stay.
    fn is_ready(&self) -> bool {
        if self.draining.get() {
            return false;
        }
        if !self.was_ready.get() {
            let servers = &self.service.servers;
            let is_known = |place: usize| {
                let server = &servers[place];
                let is_out = server.operator() == Operator::Maint || server.is_unresolved();
                is_out || server.health() != Health::Unknown
            };
            let is_checked = self.service.config.health.look().check.is_some();
            self.was_ready.set(!is_checked || servers.places().into_iter().all(is_known));
        }
        self.was_ready.get()
    }

    /// `explain …` and `show decisions [json]`.
    fn answer_about_decisions(&self, command: &str) -> Option<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (words, json) = match words.as_slice() {
            [init @ .., "json"] => (init, true),
            all => (all, false),
        };
        match words {
            ["show", "decisions"] => Some(decisions::show(self, json)),
            ["explain", question @ ..] => {
                let explained = match Question::parse(question) {
                    Some(question) => Explanation::of(self, &question),
                    None => Err("write explain src=ADDR [method=M] [path=P] [header=NAME:VALUE]... [json], \
                                 percent-encoded"
                        .to_owned()),
                };
                Some(match explained {
                    Ok(explanation) if json => json_line(&explanation),
                    Ok(explanation) => explanation.text(),
                    Err(refusal) => format!("error: {refusal}\n"),
                })
            }
            _ => None,
        }
    }
}

/// The commands of a line, which `;` separates unless a backslash is before it.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    let commands = line.split(move |c| {
        let ends = c == ';' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    commands.map(str::trim).filter(|command| !command.is_empty())
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
