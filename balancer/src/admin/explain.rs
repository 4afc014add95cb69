//! `explain`: what would become of a request, and why. It goes the way that requests go, on the tables as they are, and
//! changes nothing.

use std::fmt::Write;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::Desk;
use crate::clock;
use crate::config::Limits;
use crate::http::fields::Slots;
use crate::http::request;
use crate::persist::decide::Hold;
use crate::persist::issue::SetCookie;
use crate::persist::trace::{self, Verdict};
use crate::table::hash::hex;
use crate::table::{Key, source_address};
use crate::visit::{Rehearsal, Visit};

/// Of the hash of what is somebody's secret.
const SHOWN_DIGITS: usize = 8;

/// What an operator asks about, its parts still percent-encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question<'a> {
    /// `src=`
    pub client: &'a str,
    /// `method=`; GET unless given.
    pub method: Option<&'a str>,
    /// `path=`; `/` unless given.
    pub path: Option<&'a str>,
    /// `header=`, each `NAME: VALUE`.
    pub headers: Vec<&'a str>,
}

impl<'a> Question<'a> {
    /// `src=ADDR [method=M] [path=P] [header=H]…`; `None`: something else stands there.
    pub fn parse(words: &[&'a str]) -> Option<Self> {
        let mut question = Self { client: "", method: None, path: None, headers: Vec::new() };
        for word in words {
            match word.split_once('=')? {
                ("src", text) if question.client.is_empty() => question.client = text,
                ("method", text) if question.method.is_none() => question.method = Some(text),
                ("path", text) if question.path.is_none() => question.path = Some(text),
                ("header", text) => question.headers.push(text),
                _ => return None,
            }
        }
        (!question.client.is_empty()).then_some(question)
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The client asked about.
    pub client: IpAddr,
    /// `--persist-ignore` names the path.
    pub ignored: bool,
    /// What every method of the list says, in order.
    pub methods: Vec<Step>,
    /// Who would be asked: one where a method or a hash decides, else the candidates of the balancing in today's order.
    pub servers: Vec<String>,
    /// In a word or two: the deciding method, `balance`, or why nobody is asked.
    pub decided_by: String,
    /// What an answer with status 200 that sets no cookie would write.
    pub writes: Vec<String>,
    /// The two letters of the log.
    pub letters: String,
    /// Whether a new connection of this client would be fast: `fast` or `slow`.
    pub path: &'static str,
    /// Why.
    pub path_reason: String,
}

/// What one method says.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The method, as in traces.
    pub method: String,
    /// What was found: a hash of it, where it is somebody's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// The server that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What comes of that.
    pub verdict: &'static str,
    /// A method before it had decided, for the same server.
    pub agrees: bool,
}

impl Explanation {
    /// Explains.
    ///
    /// # Errors
    /// What is wrong with the question.
    pub fn of(desk: &Desk, question: &Question<'_>) -> Result<Self, String> {
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let client = String::from_utf8_lossy(&decoded(question.client)).into_owned();
        let client: IpAddr = client
            .parse()
            .map_err(|_| format!("{client:?} is not an address; write for example src=192.0.2.7"))?;
        let (method, path) = (question.method.unwrap_or("GET"), question.path.unwrap_or("/"));
        let texts = [("method", method), ("path", path)].into_iter();
        for (what, text) in texts.chain(question.headers.iter().map(|header| ("header", *header))) {
            // It would be a request that nobody has asked about.
            if decoded(text).iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
                return Err(format!("the {what} has a line end in it; leave it out, a header is one line"));
            }
        }
        let mut head = decoded(method);
        head.push(b' ');
        head.extend(decoded(path));
        head.extend_from_slice(b" HTTP/1.1\r\n");
        let headers: Vec<Vec<u8>> = question.headers.iter().map(|header| decoded(header)).collect();
        let names_host = |header: &Vec<u8>| header.to_ascii_lowercase().starts_with(b"host:");
        if !headers.iter().any(names_host) {
            head.extend_from_slice(b"Host: explain\r\n");
        }
        for header in &headers {
            head.extend_from_slice(header);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let mut slots = Slots::default();
        let limits: &Limits = &desk.service.config.limits;
        let request = match request::parse(&head, &mut slots, limits) {
            Ok(Some(request)) if request.head_length == head.len() => request,
            Ok(_) => return Err("a request ends at its first empty line; leave line ends out".into()),
            Err(fault) => {
                return Err(format!(
                    "such a request is refused: {fault}; a method is a word as GET, a path begins with /, a header is NAME: \
                     VALUE, and one Host at most"
                ));
            }
        };
        let mut visit = Visit::new(&desk.books, &request, client.to_canonical());
        let rehearsal = visit.rehearse();
        Ok(Self::told(desk, client.to_canonical(), &visit, &rehearsal))
    }

    fn told(desk: &Desk, client: IpAddr, visit: &Visit, rehearsal: &Rehearsal) -> Self {
        let service = &desk.service;
        let name = |place: usize| service.servers[place].name.clone();
        let labels = service.config.persist.labels();
        let steps = visit.trace().steps().iter().zip(labels).zip(&rehearsal.keys);
        let trace = visit.trace();
        let deciding =
            trace.steps().iter().find(|step| matches!(step.verdict, Verdict::Hit | Verdict::Ambiguous));
        let decided = deciding.and_then(|step| step.server);
        let agrees = |step: &trace::Step| {
            step.verdict == Verdict::Outvoted && step.server.is_some() && step.server == decided
        };
        let methods: Vec<Step> = (0..)
            .zip(steps)
            .map(|(place, ((step, label), key))| Step {
                method: label.clone(),
                found: key.map(|key| shown(desk, place, &key)),
                server: step.server.map(name),
                verdict: step.verdict.as_str(),
                agrees: agrees(step),
            })
            .collect();
        let deciding = methods.iter().find(|step| matches!(step.verdict, "hit" | "ambiguous"));
        let decided_by = match (rehearsal.hold, deciding) {
            (Some(Hold::Fail), _) => "nobody: --on-down fail".to_owned(),
            (Some(Hold::Wait(server, limit)), _) => {
                format!("{} is waited for, {limit:?} at most: --on-down wait", name(server))
            }
            (None, Some(step)) => step.method.clone(),
            (None, None) if rehearsal.candidates.is_empty() => "nobody: no server is available".to_owned(),
            (None, None) => format!("balance {}", service.config.balance),
        };
        let (path, path_reason) = match &desk.view {
            Some(view) => {
                let source = desk.books.tables.source();
                let entry = source.and_then(|source| source.get(&source.source_key(client)));
                let (is_fast, reason) = view.foresee(client, entry);
                (if is_fast { "fast" } else { "slow" }, reason)
            }
            None => ("slow", "there is no --xdp".to_owned()),
        };
        Self {
            client,
            ignored: visit.is_ignored(),
            methods,
            servers: rehearsal.candidates.iter().map(|&place| name(place)).collect(),
            decided_by,
            writes: writes(desk, visit, rehearsal),
            letters: format!("{}{}", rehearsal.letters.request, rehearsal.letters.response),
            path,
            path_reason,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if self.ignored {
            let _ = writeln!(text, "ignored      --persist-ignore names the path");
        }
        for step in &self.methods {
            let found = step.found.as_deref().map_or(String::new(), |found| format!(" {found}"));
            let server = step.server.as_deref().map_or(String::new(), |server| format!(" > {server}"));
            let agrees = if step.agrees { ", agrees" } else { "" };
            let _ = writeln!(text, "{:<12} {}{found}{server}{agrees}", step.method, step.verdict);
        }
        let servers = if self.servers.is_empty() { String::new() } else { self.servers.join(", ") + ", by " };
        let _ = writeln!(text, "{:<12} {servers}{}", "decision", self.decided_by);
        for write in &self.writes {
            let _ = writeln!(text, "{:<12} {write}", "would write");
        }
        let _ = writeln!(text, "{:<12} {}", "letters", self.letters);
        let _ = writeln!(text, "{:<12} {}: {}", "connection", self.path, self.path_reason);
        text
    }
}

/// An address as it is; of the hash of somebody's id as much as tells two apart.
fn shown(desk: &Desk, place: usize, key: &Key) -> String {
    match desk.books.tables.get(place) {
        Some(table) if table.is_of_sources() => source_address(key).to_string(),
        _ => format!("#{}", &hex(key)[..SHOWN_DIGITS]),
    }
}

fn writes(desk: &Desk, visit: &Visit, rehearsal: &Rehearsal) -> Vec<String> {
    let service = &desk.service;
    let now = clock::boot_seconds();
    let labels = service.config.persist.labels();
    let entry = |(place, key, server, expiry): &(usize, _, u16, u32)| {
        let server = service
            .servers
            .by_id(*server)
            .map_or_else(|| format!("#{server}"), |place| service.servers[place].name.clone());
        let label = &labels[*place];
        format!("{label} {} > {server}, for {} s", shown(desk, *place, key), expiry.saturating_sub(now))
    };
    let mut writes: Vec<String> = rehearsal.writes.iter().map(entry).collect();
    if let Some(cookie) = service.config.persist.cookie() {
        let what = match rehearsal.cookie {
            SetCookie::Insert => "is set",
            SetCookie::Update => "is set with a new date",
            SetCookie::Delete => "is taken back",
            SetCookie::Nothing | SetCookie::Leave | SetCookie::Rewrite => return writes,
        };
        let server = visit.chosen().map_or("", |place| service.servers[place].name.as_str());
        writes.push(format!("cookie {} {what}, for {server}", cookie.name));
    }
    writes
}
