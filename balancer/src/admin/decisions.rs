//! `show decisions`: the last few hundred requests, and why they went where they went.

use serde::Serialize;

use super::Desk;
use super::text::Columns;
use crate::access_log::time;
use crate::visit::Decided;

/// Decisions that are kept once they were shown.
pub(super) const MOST: usize = 1000;

/// A row: a request.
#[derive(Debug, Serialize)]
pub(super) struct DecisionRow {
    /// When it was over, in UTC.
    time: String,
    /// Whose it was.
    client: String,
    /// The status of the answer.
    status: Option<u16>,
    /// Who served it.
    server: Option<String>,
    /// As in the log.
    letters: String,
    /// What every method said.
    persist: String,
}

/// The answer to `show decisions [json]`.
pub(super) fn show(desk: &Desk, json: bool) -> String {
    super::rows(&rows(desk, MOST), json)
}

/// The rows of it, the oldest first, as many of the last ones as `most`.
pub(super) fn rows(desk: &Desk, most: usize) -> Vec<DecisionRow> {
    let mut kept = desk.decisions.borrow_mut();
    for stats in &desk.stats.workers {
        kept.extend(stats.recent.take());
    }
    // By worker they are in order already.
    kept.make_contiguous().sort_by_key(|decided| decided.unix_millis);
    let superfluous = kept.len().saturating_sub(MOST);
    kept.drain(..superfluous);
    let unwanted = kept.len().saturating_sub(most);
    kept.iter().skip(unwanted).map(|decided| row(desk, decided)).collect()
}

fn row(desk: &Desk, decided: &Decided) -> DecisionRow {
    let service = &desk.service;
    let trace = decided.trace.display(&service.config.persist, &service.servers, decided.server);
    let mut at = Vec::new();
    time::write(&mut at, decided.unix_millis);
    DecisionRow {
        time: String::from_utf8_lossy(&at).into_owned(),
        client: decided.client.to_canonical().to_string(),
        status: decided.status,
        server: decided.server.map(|place| service.servers[place].name.clone()),
        letters: format!("{}{}", decided.letters.request, decided.letters.response),
        persist: trace.to_string(),
    }
}

impl Columns for DecisionRow {
    const NAMES: &'static [&'static str] = &["time", "client", "status", "server", "letters", "persist"];

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        vec![
            self.time.clone(),
            self.client.clone(),
            self.status.map_or("-".into(), |status| status.to_string()),
            or_dash(self.server.as_deref().unwrap_or_default()),
            self.letters.clone(),
            or_dash(&self.persist),
        ]
    }
}
