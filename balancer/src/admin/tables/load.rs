//! `load table NAME [dry]`: many entries at one time, as somebody brings them along from elsewhere.
//!
//! Lines of entries follow, `NUMBER KEY SERVER LIFE` joined by `;`, each word percent-encoded, and `end` in a line of its
//! own. The number is what an entry is called by in the answer; the life is in milliseconds, `-` for all that the table
//! gives. Only after `end` there is an answer, and one line in the log; whatever ends before it is broken off, and said so.

use std::collections::{BTreeMap, HashSet};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{Archive, Desk, Subject, json_line, refusal};
use crate::clock;
use crate::log;
use crate::table::learned::TableWalk;
use crate::table::{Key, Table};

/// As many examples of each reason are told.
const EXAMPLES: usize = 3;

/// Why an entry was not loaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The line is none of a table.
    NotUnderstood,
    /// It names no server.
    NoServer,
    /// Its life is over.
    Expired,
    /// Its key is a hash, and the id that it was made of is not known.
    Hashed,
    /// The table has no such keys.
    UnfitKey,
    /// There is no server of that name.
    UnknownServer,
    /// The table is full.
    Full,
}

impl Reason {
    /// As the end of "5 entries …".
    pub fn words(self) -> &'static str {
        match self {
            Self::NotUnderstood => "are not understood",
            Self::NoServer => "name no server",
            Self::Expired => "had expired",
            Self::Hashed => "have hashes for keys, and ids cannot be made of those",
            Self::UnfitKey => "have keys that the table cannot have",
            Self::UnknownServer => "name servers that are not there",
            Self::Full => "found the table full",
        }
    }
}

/// How many entries there is one reason for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub count: u64,
    /// Some of them: their numbers, and what is wrong there.
    pub examples: Vec<(u64, String)>,
}

/// What has become of entries.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// They are in the table now.
    pub loaded: u64,
    /// They have the key of another one that is loaded and expires later: addresses of one block.
    pub merged: u64,
    /// The others.
    pub skipped: BTreeMap<Reason, Tally>,
    /// What the table holds now, live.
    pub entries: u64,
    /// And what it can hold.
    pub size: u64,
}

impl Outcome {
    /// One that is not loaded.
    pub fn skip(&mut self, reason: Reason, number: u64, what: impl Into<String>) {
        let tally = self.skipped.entry(reason).or_default();
        tally.count += 1;
        if tally.examples.len() < EXAMPLES {
            tally.examples.push((number, what.into()));
        }
    }

    /// How many are not loaded.
    pub fn skipped(&self) -> u64 {
        self.skipped.values().map(|tally| tally.count).sum()
    }

    /// `2 name no server, 1 found the table full`.
    pub fn reasons(&self) -> String {
        let reasons =
            self.skipped.iter().map(|(reason, tally)| format!("{} {}", tally.count, reason.words()));
        reasons.collect::<Vec<_>>().join(", ")
    }
}

/// A load that is going on.
#[derive(Debug)]
pub(in crate::admin) struct Load {
    table: String,
    /// Nothing is written.
    is_rehearsal: bool,
    /// How many more keys fit; not known before the first entries have come.
    room: Option<u64>,
    /// What has been written.
    keys: HashSet<Key>,
    outcome: Outcome,
}

impl Load {
    /// Whether the line asks for one.
    pub(in crate::admin) fn asked(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (table, is_rehearsal) = match *words {
            ["load", "table", table] => (table, false),
            ["load", "table", table, "dry"] => (table, true),
            _ => return None,
        };
        Some(Self {
            table: table.to_owned(),
            is_rehearsal,
            room: None,
            keys: HashSet::new(),
            outcome: Outcome::default(),
        })
    }

    /// Takes the entries of a line.
    pub(in crate::admin) async fn take(self, desk: &Desk, line: String) -> Result<Self, String> {
        self.work(desk, move |load, subject| line.split(';').try_for_each(|entry| load.entry(subject, entry)))
            .await
    }

    /// All have come: the answer.
    pub(in crate::admin) async fn end(self, desk: &Desk) -> Result<String, String> {
        let load = self.work(desk, |load, subject| {
            load.settle(count(subject.table));
            Ok(())
        });
        let load = load.await?;
        if !load.is_rehearsal {
            load.tell("");
        }
        Ok(json_line(&load.outcome))
    }

    /// Whoever was bringing them has gone.
    pub(in crate::admin) fn break_off(&self) {
        if !self.is_rehearsal {
            self.tell("; then whoever brought them broke off, so there may be more of them");
        }
    }

    /// `live` entries are in the table now.
    fn settle(&mut self, live: u64) {
        let (outcome, room) = (&mut self.outcome, self.room.unwrap_or_default());
        let expected = outcome.size.saturating_sub(room);
        outcome.entries = if self.is_rehearsal { expected } else { live };
        // The kernel makes room a little before the last place is taken. Elsewhere what is missing has expired meanwhile.
        let missing = expected.saturating_sub(outcome.entries).min(outcome.loaded);
        if missing > 0 && room.saturating_mul(10) < outcome.size {
            outcome.loaded -= missing;
            outcome.skipped.entry(Reason::Full).or_default().count += missing;
        }
    }

    fn tell(&self, end: &str) {
        let Self { table, outcome, .. } = self;
        let merged = if outcome.merged == 0 { String::new() } else { format!(", {} merged", outcome.merged) };
        let skipped =
            if outcome.skipped() == 0 { String::new() } else { format!("; skipped: {}", outcome.reasons()) };
        let loaded = outcome.loaded;
        log::info(format_args!(
            "{loaded} entries are loaded into table {table} by the operator{merged}{skipped}{end}"
        ));
    }

    /// Does it where it keeps nobody waiting.
    async fn work(
        mut self,
        desk: &Desk,
        act: impl FnOnce(&mut Self, &Subject<'_>) -> Result<(), String> + Send + 'static,
    ) -> Result<Self, String> {
        let _turn = desk.table_turn.lock().await;
        let archive = Archive { service: desk.service.clone(), tables: desk.books.tables.handle() };
        let worked = tokio::task::spawn_blocking(move || {
            let subject = archive.subject(&self.table)?;
            if self.room.is_none() {
                if !self.is_rehearsal {
                    // Or somebody alive would be forgotten for want of their places.
                    forget_the_dead(subject.table);
                }
                self.outcome.size = subject.table.size.into();
                self.room = Some(self.outcome.size.saturating_sub(count(subject.table)));
            }
            if let Err(refusal) = act(&mut self, &subject) {
                if !self.is_rehearsal {
                    self.tell(&format!("; then it failed: {refusal}"));
                }
                return Err(refusal);
            }
            Ok(self)
        });
        worked.await.unwrap_or_else(|_| Err("the command has failed".to_owned()))
    }

    fn entry(&mut self, subject: &Subject<'_>, text: &str) -> Result<(), String> {
        let wrong = || format!("{text:?} is no entry; write NUMBER KEY SERVER LIFE, percent-encoded");
        let words: Vec<&str> = text.split_whitespace().collect();
        let [number, key, server, life] = *words else { return Err(wrong()) };
        let number = number.parse().map_err(|_| wrong())?;
        let life = if life == "-" { None } else { Some(life.parse::<u64>().map_err(|_| wrong())?) };
        let decoded: Vec<u8> = percent_decode_str(key).collect();
        let server = percent_decode_str(server).decode_utf8_lossy();
        let Some(place) = subject.servers.by_name(&server) else {
            self.outcome.skip(Reason::UnknownServer, number, server);
            return Ok(());
        };
        let key = match subject.key_of(&decoded) {
            Ok(key) => key,
            Err(_) => {
                self.outcome.skip(Reason::UnfitKey, number, String::from_utf8_lossy(&decoded));
                return Ok(());
            }
        };
        let (table, now) = (subject.table, clock::boot_seconds());
        let left = life.map_or(table.timeout, |life| {
            u32::try_from(life.div_ceil(1000)).unwrap_or(u32::MAX).min(table.timeout)
        });
        let expiry = now.saturating_add(left);
        let known = table.get(&key).filter(|known| known.is_live(now));
        if self.keys.contains(&key) {
            self.outcome.merged += 1;
            if self.is_rehearsal || known.is_some_and(|known| known.expiry() >= expiry) {
                return Ok(());
            }
        } else if known.is_none() {
            match &mut self.room {
                // To make room would be to forget somebody.
                Some(0) => {
                    self.outcome.skip(Reason::Full, number, String::from_utf8_lossy(&decoded));
                    return Ok(());
                }
                room => *room = room.map(|room| room - 1),
            }
        }
        if !self.is_rehearsal
            && let Err(error) = table.put(&key, subject.entry(place, known, expiry, now))
        {
            return Err(format!("the entry of number {number} cannot be written: {}", refusal(&error)));
        }
        if self.keys.insert(key) {
            self.outcome.loaded += 1;
        }
        Ok(())
    }
}

fn forget_the_dead(table: &Table) {
    let (mut walk, now) = (TableWalk::default(), clock::boot_seconds());
    while !table.collect(&mut walk, now) {}
}

/// Live entries; those on probation have a place of their own.
fn count(table: &Table) -> u64 {
    let (now, mut count) = (clock::boot_seconds(), 0);
    table.for_each(|_, found| count += u64::from(found.entry.is_live(now) && !found.probation));
    count
}
