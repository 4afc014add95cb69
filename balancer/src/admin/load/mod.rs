//! `balancer table load`: what HAProxy or another instance shows of a table, into one of ours.
//!
//! All of it is read before the first entry is sent, so a file that is none changes nothing, and whoever writes to our
//! stdin may take as long as he likes. What becomes of each entry is told: `dump` says which lines are none, the instance
//! says of the others.

mod dump;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;

use super::client::{PATIENCE, ask, explain};
use super::socket::LONGEST_LINE;
use super::tables::load::Outcome;
use crate::cli::{ClientArgs, Stop};
use crate::log::{counted, first_few, reason};
use dump::{Dump, Entry};

/// Some four million lines.
const LARGEST: u64 = 512 * 1024 * 1024;

/// How often a terminal is told how far it is.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// What is loaded, and into what.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// What HAProxy's `show table T` prints, what `balancer show table T` prints, also with --json, or lines of KEY SERVER
    /// [SECONDS]; - is stdin
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// The table, called as in its flag [default: source for addresses, for ids the only table of ids]
    #[arg(id = "loaded-table", long = "table", value_name = "T")]
    pub table: Option<String>,
    /// How many bytes HAProxy kept of a key, as `len` of its stick-table said: keys of that length are counted, as they may
    /// have been cut
    #[arg(long, value_name = "N", default_value_t = dump::USUAL_LEN)]
    pub len: usize,
    /// Only say what would become of the entries
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which instance.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Loads the file into a table of the instance at `admin`: what to print, and what was not loaded, if anything.
///
/// # Errors
/// The file cannot be read or has no entries; nobody answers; it has ended in the middle.
pub fn load(arguments: &LoadArgs, admin: &Path) -> Result<(String, Option<String>), Stop> {
    let name = &arguments.client.name;
    let shown = arguments.file.display().to_string();
    let text = read(&arguments.file).map_err(|why| Stop::Usage(format!("{shown} cannot be read: {why}")))?;
    let dump = dump::read(&text, arguments.len);
    drop(text);
    if dump.entries.is_empty() {
        return Err(nothing(&shown, &dump));
    }
    let tables: Value =
        serde_json::from_str(&ask(name, admin, "show table json")?).map_err(anyhow::Error::from)?;
    let tables: Vec<&str> =
        tables.as_array().into_iter().flatten().filter_map(|table| table["name"].as_str()).collect();
    let table = choose(arguments.table.as_deref(), &tables, &dump).map_err(Stop::Usage)?;
    let sent = send(admin, &table, arguments.dry_run, &dump.entries);
    let answer = sent.map_err(|error| explain(&error, name, admin))?;
    if let Some(refusal) = answer.strip_prefix("error: ") {
        return Err(anyhow!("{}", refusal.lines().next().unwrap_or_default()).into());
    }
    let mut outcome: Outcome = serde_json::from_str(&answer)
        .with_context(|| format!("the balancer named {name:?} broke off; load the same again"))?;
    outcome.skipped.extend(dump.outcome.skipped.clone());
    let text = if arguments.json {
        json(&table, &outcome, &dump)
    } else {
        report(&shown, &table, arguments, &outcome, &dump)
    };
    let skipped = outcome.skipped();
    let left = (skipped > 0).then(|| format!("not loaded: {}", outcome.reasons()));
    Ok((text, left))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let outcome = if path == Path::new("-") {
        io::stdin().lock().take(LARGEST + 1).read_to_end(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text))
    };
    outcome.map_err(|error| reason(&error))?;
    if text.len() as u64 > LARGEST {
        return Err("it is larger than 512m; name what show table has printed, or load it in parts".into());
    }
    Ok(text)
}

fn nothing(shown: &str, dump: &Dump) -> Stop {
    let why = if dump.outcome.skipped.is_empty() {
        "there are none".to_owned()
    } else {
        format!("{}{}", dump.outcome.reasons(), examples(&dump.outcome))
    };
    Stop::Failed(format!(
        "{shown} has no entries that could be loaded: {why}; name what show table TABLE has printed, with the table's name"
    ))
}

/// The table that is meant.
fn choose(wanted: Option<&str>, tables: &[&str], dump: &Dump) -> Result<String, String> {
    let there = || match tables {
        [] => "there is none, as no --persist method of it learns".to_owned(),
        some => format!("there are: {}", first_few(some.iter().copied())),
    };
    if let Some(wanted) = wanted {
        let found = tables.iter().find(|name| name.eq_ignore_ascii_case(wanted));
        return found
            .map(ToString::to_string)
            .ok_or_else(|| format!("--table {wanted:?} is not there; {}", there()));
    }
    let is_of_addresses = match dump.kind.as_deref() {
        Some("ip" | "ipv6") => true,
        Some(_) => false,
        None => dump.entries.iter().all(|entry| {
            std::str::from_utf8(&entry.key).is_ok_and(|key| key.parse::<std::net::IpAddr>().is_ok())
        }),
    };
    let mut fitting = tables.iter().filter(|name| (**name == "source") == is_of_addresses);
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.to_string()),
        (None, _) => {
            let keys = if is_of_addresses { "addresses" } else { "ids" };
            Err(format!("no table has {keys} for keys, as these entries have; {}", there()))
        }
        _ => Err(format!("say which with --table T; {}", there())),
    }
}

/// Sends all of them: what the instance says.
fn send(admin: &Path, table: &str, is_rehearsal: bool, entries: &[Entry]) -> io::Result<String> {
    let mut stream = UnixStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let dry = if is_rehearsal { " dry" } else { "" };
    let sent = writeln!(stream, "load table {table}{dry}").and_then(|()| lines(&stream, entries));
    let mut answer = String::new();
    let heard = stream.read_to_string(&mut answer);
    // What it says, if anything, is the reason why it no longer listens.
    if answer.is_empty() {
        sent?;
        heard?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

fn lines(mut stream: &UnixStream, entries: &[Entry]) -> io::Result<()> {
    let mut progress = Progress::new(entries.len());
    let mut line = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let text = encoded(entry);
        if line.len() + text.len() + 1 >= LONGEST_LINE {
            line.push('\n');
            stream.write_all(line.as_bytes())?;
            progress.tell(index);
            line.clear();
        }
        if !line.is_empty() {
            line.push(';');
        }
        line += &text;
    }
    writeln!(stream, "{line}\nend")
}

fn encoded(entry: &Entry) -> String {
    let Entry { number, key, server, life } = entry;
    let (key, server) =
        (percent_encode(key, NON_ALPHANUMERIC), percent_encode(server.as_bytes(), NON_ALPHANUMERIC));
    let life = life.map_or_else(|| "-".to_owned(), |life| life.to_string());
    format!("{number} {key} {server} {life}")
}

/// How far it is, for a terminal.
struct Progress {
    all: usize,
    told: Instant,
    is_shown: bool,
    is_terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, told: Instant::now(), is_shown: false, is_terminal: io::stderr().is_terminal() }
    }

    fn tell(&mut self, done: usize) {
        if self.is_terminal && self.told.elapsed() >= TELL_AGAIN {
            (self.told, self.is_shown) = (Instant::now(), true);
            let _ = write!(io::stderr(), "\r{done} of {} entries ", self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn report(shown: &str, table: &str, arguments: &LoadArgs, outcome: &Outcome, dump: &Dump) -> String {
    let Outcome { loaded, merged, entries, size, .. } = outcome;
    let all = loaded + merged + outcome.skipped();
    let (verb, has) = if arguments.dry_run { ("would be", "would have") } else { ("are", "has") };
    let mut text = format!(
        "{loaded} of {all} entries of {shown} {verb} loaded into {table}, which {has} {entries} of {size} now\n"
    );
    // Writing to a string cannot fail.
    if *merged > 0 {
        let _ = writeln!(
            text,
            "{merged} of them have the key of another one, as addresses of one block; the one that \
                                expires last counts"
        );
    }
    for (reason, tally) in &outcome.skipped {
        let _ =
            writeln!(text, "{} {}{}", tally.count, reason.words(), examples_of(&tally.examples, tally.count));
    }
    if dump.perhaps_cut > 0 {
        let _ = writeln!(
            text,
            "{} of just {}: HAProxy may have cut those ids, and the table then knows nobody by them; \
             --len N if its stick-table says len N",
            counted(dump.perhaps_cut, "key"),
            counted(arguments.len as u64, "byte"),
        );
    }
    text
}

fn examples(outcome: &Outcome) -> String {
    let first = outcome.skipped.values().next();
    first.map_or_else(String::new, |tally| examples_of(&tally.examples, tally.count))
}

/// `: line 3 "a", line 9 "b", …`
fn examples_of(examples: &[(u64, String)], count: u64) -> String {
    let mut told: Vec<String> =
        examples.iter().map(|(number, what)| format!("line {number} {what:?}")).collect();
    if count > told.len() as u64 {
        told.push("…".to_owned());
    }
    if examples.is_empty() { String::new() } else { format!(": {}", told.join(", ")) }
}

fn json(table: &str, outcome: &Outcome, dump: &Dump) -> String {
    let mut value = serde_json::to_value(outcome).unwrap_or_default();
    value["table"] = table.into();
    value["perhaps_cut"] = dump.perhaps_cut.into();
    value.to_string()
}
