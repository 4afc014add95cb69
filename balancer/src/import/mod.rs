//! `balancer import`: a HAProxy configuration to flags.
//!
//! ```text
//! files ─▶ lexer ─▶ sections ─▶ pair (one frontend, one backend) ─▶ a theme each ─▶ sheet ─▶ output
//! ```
//!
//! A line of the pair is carried over as a flag, or there is a remark that says what has become of it: it was left out,
//! it means something else here, or nothing is lost without it. Whatever no theme has asked for is left out and said, so
//! nothing disappears. A flag that may be refused is tried by the balancer's own parser before it is written, and the
//! whole is at the end.
//!
//! | module | what it does |
//! |---|---|
//! | `lexer`, `sections` | the words of a line; sections and whom they inherit from |
//! | `choice`, `pair` | which frontend and backend; the lines that count for them |
//! | `bind`, `cookie`, `stick`, `servers`, `checks`, `http_check`, `balance`, `timeouts`, `options`, `global` | a theme each |
//! | `rules` | rules with conditions, and what nobody has asked for |
//! | `values`, `server_options` | times and sizes; the words behind a server's address |
//! | `sheet`, `output` | the result, and how it is written |
//! | `trial` | whether the balancer takes a flag |

mod balance;
mod bind;
mod checks;
mod choice;
mod cookie;
mod global;
mod http_check;
mod lexer;
mod options;
mod output;
mod pair;
mod rules;
mod sections;
mod server_options;
mod servers;
mod sheet;
mod stick;
#[cfg(test)]
mod tests;
mod timeouts;
mod trial;
mod values;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use xxhash_rust::xxh64::xxh64;

use crate::cli::Stop;
use crate::config::resolver;
use cookie::Cookie;
use pair::{Pair, Side};
use sections::{Configuration, Kind};
use sheet::{Sheet, Verdict};
use stick::Learned;

/// All files together: ten thousand servers are half of it.
const LARGEST: u64 = 8 * 1024 * 1024;

/// A name of a service has no more characters.
const LONGEST_NAME: usize = 32;

/// What is imported.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct ImportArgs {
    /// A configuration, or a directory of *.cfg; - is stdin. Several are read one after the other, as with several -f
    #[arg(value_name = "FILE", required = true)]
    pub file: Vec<PathBuf>,
    /// The frontend or listen section to carry over, where there are several
    #[arg(long, value_name = "NAME")]
    pub frontend: Option<String>,
    /// The backend to carry over, where there are several
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// What the service is to be called instead of as the backend: a trial beside the real one has a name of its own
    #[arg(id = crate::cli::OTHER_NAME, long = "name", value_name = "NAME")]
    pub name: Option<String>,
    /// Where clients are to connect instead of what bind says: to try beside a running HAProxy; repeatable
    #[arg(id = crate::cli::OTHER_LISTEN, long = "listen", value_name = "ADDR:PORT")]
    pub listen: Vec<String>,
    /// Print JSON: flags, remarks, notes, and the text of the file
    #[arg(long)]
    pub json: bool,
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// For stdout.
    pub text: String,
    /// For stderr: what has to be looked at, a line each; empty with `--json`.
    pub list: String,
    /// What was left out or differs, in a sentence; `None`: the flags mean what the file meant.
    pub incomplete: Option<String>,
}

/// Reads the files and carries over what can be.
///
/// # Errors
/// Files that cannot be read or understood, a service that has to be named, and one of which nothing is left.
pub fn import(args: &ImportArgs) -> Result<Imported, Stop> {
    let files = read(&args.file)?;
    let environment = |name: &str| std::env::var(name).ok();
    let configuration = Configuration::read(&files, &environment).map_err(Stop::Usage)?;
    let (front, back) = choice::choose(&configuration, args.frontend.as_deref(), args.backend.as_deref())
        .map_err(Stop::Usage)?;
    let pair = Pair::new(&configuration, front, back);
    let sheet = carry(&pair, &args.listen, args.name.as_deref())?;
    let title = title(&pair);
    let file = output::file(&configuration, &sheet, &title);
    // What cannot be read again must not be written.
    trial::read(&file).map_err(|why| {
        Stop::Failed(format!(
            "internal error: the flags for {} are refused: {why}; please report it with the configuration",
            pair.back_name()
        ))
    })?;
    let (left, differs) = (sheet.count(Verdict::Left), sheet.count(Verdict::Differs));
    let access = sheet.remarks.iter().filter(|remark| remark.is_access).count();
    let access = match access {
        0 => String::new(),
        count => format!(" ({count} of them decide who gets in or where they go)"),
    };
    let incomplete = (left + differs > 0).then(|| {
        format!(
            "{left} left out{access}, {differs} not the same, {} flags; look at each before you switch",
            sheet.flags.len()
        )
    });
    let names = (pair.front_name(), pair.back_name());
    Ok(if args.json {
        let object = output::json(&configuration, &sheet, &file, names);
        Imported { text: format!("{object:#}"), list: String::new(), incomplete }
    } else {
        Imported { text: file, list: output::list(&configuration, &sheet), incomplete }
    })
}

/// The files, no more than fits.
fn read(paths: &[PathBuf]) -> Result<Vec<(String, Vec<u8>)>, Stop> {
    let mut left = LARGEST;
    let mut files = Vec::new();
    for path in &spread(paths)? {
        let shown = path.display().to_string();
        let mut bytes = Vec::new();
        let outcome = if shown == "-" {
            io::stdin().lock().take(left + 1).read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(left + 1).read_to_end(&mut bytes))
        };
        outcome.map_err(|error| {
            let why = crate::log::reason(&error);
            Stop::Usage(format!("{shown} cannot be read: {why}; name a HAProxy configuration"))
        })?;
        left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
            Stop::Usage(format!(
                "{shown} is larger than 8m, with those before it; name a HAProxy configuration"
            ))
        })?;
        files.push((if shown == "-" { "stdin".into() } else { shown }, bytes));
    }
    Ok(files)
}

/// In the place of a directory what HAProxy reads of it: the files whose names end in `.cfg`, in the order of their names.
fn spread(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Stop> {
    let mut files = Vec::new();
    for path in paths {
        let Ok(entries) = fs::read_dir(path) else {
            files.push(path.clone());
            continue;
        };
        let is_one = |file: &PathBuf| {
            let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            file.extension().is_some_and(|end| end == "cfg") && !is_hidden
        };
        let mut own: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_one).collect();
        own.sort();
        if own.is_empty() {
            return Err(Stop::Usage(format!(
                "{} has no file that ends in .cfg; name a file",
                path.display()
            )));
        }
        files.extend(own);
    }
    Ok(files)
}

fn title(pair: &Pair<'_>) -> String {
    let files = pair.configuration.files.join(", ");
    let what = if pair.front == pair.back {
        format!("listen {}", pair.front_name())
    } else {
        format!("frontend {} and backend {}", pair.front_name(), pair.back_name())
    };
    format!("From {files}: {what}. An @FILE: balancer check @THIS, balancer run @THIS")
}

/// Theme by theme.
fn carry(pair: &Pair<'_>, listen: &[String], wanted: Option<&str>) -> Result<Sheet, Stop> {
    let mut sheet = Sheet::default();
    if let Some(name) = wanted {
        trial::trial(&[("--name", name)]).map_err(Stop::Usage)?;
    }
    for address in listen {
        trial::trial(&[("--listen", address)]).map_err(Stop::Usage)?;
    }
    name(pair, &mut sheet, wanted);
    let is_http = mode(pair, &mut sheet)?;
    bind::carry(pair, &mut sheet, listen);
    let ports = bind::ports(pair);
    if sheet.values("--listen").next().is_none() {
        let why = reasons(pair, &sheet, "bind");
        return Err(Stop::Failed(format!(
            "no bind of {} can be carried over; give the address with --listen ADDR:PORT{why}",
            pair.front_name()
        )));
    }
    let (cookie, inserted) = cookie::read(pair, &mut sheet, is_http);
    let servers = servers::carry(pair, &mut sheet, cookie, ports);
    if servers.is_empty() {
        let why = reasons(pair, &sheet, "server");
        if why.is_empty() {
            let offered = choice::offered(pair.configuration);
            return Err(Stop::Usage(format!("{} has no server; {offered}", pair.back_name())));
        }
        return Err(Stop::Failed(format!("no server of {} can be carried over{why}", pair.back_name())));
    }
    resolvers(pair, &mut sheet, &servers);
    persist(pair, &mut sheet, cookie, inserted, is_http);
    rules::ignored(pair, &mut sheet, is_http);
    balance::carry(pair, &mut sheet, is_http);
    balance::first(&mut sheet, &servers);
    checks::carry(pair, &mut sheet, &servers);
    timeouts::carry(pair, &mut sheet, is_http);
    let can_wait = sheet.values("--server").any(|server| server.contains(",maxconn="));
    timeouts::carry_queue(pair, &mut sheet, can_wait);
    options::carry(pair, &mut sheet, &servers, is_http);
    options::max_connections(pair, &mut sheet);
    global::carry(pair, &mut sheet);
    rules::routes(pair, &mut sheet);
    rules::rest(pair, &mut sheet, is_http);
    rules::without_effect(pair, &mut sheet);
    rules::variables(pair, &mut sheet);
    rules::others(pair.configuration, pair, &mut sheet);
    sheet.tidy();
    Ok(sheet)
}

/// What was said of lines that begin with `word`, for an error.
fn reasons(pair: &Pair<'_>, sheet: &Sheet, word: &str) -> String {
    let remarks = sheet.remarks.iter().filter(|remark| remark.directive.starts_with(word)).take(3);
    let told: Vec<String> =
        remarks.map(|remark| format!("{}: {}", pair.configuration.at(remark.place), remark.why)).collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join("; ")) }
}

/// `--name`: what HAProxy's tools call the backend.
fn name(pair: &Pair<'_>, sheet: &mut Sheet, wanted: Option<&str>) {
    if let Some(name) = wanted {
        return sheet.implied("--name", name, "as you said: for the admin socket, logs and metrics");
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let whole = pair.back_name().to_lowercase();
    let mut name: String = whole.chars().map(|c| if fits(c) { c } else { '-' }).take(LONGEST_NAME).collect();
    // What begins with a dash would be taken for a flag.
    if name.starts_with('-') {
        name.replace_range(..1, "_");
    }
    if name == pair.back_name() {
        let why = "as the backend is called: for the admin socket, logs and metrics";
        return sheet.implied("--name", name, why);
    }
    // Two backends of one host must not come to one name because of where they differ.
    if whole.chars().nth(LONGEST_NAME).is_some() {
        name.truncate(LONGEST_NAME - 9);
        name += &format!("-{:08x}", xxh64(pair.back_name().as_bytes(), 0) >> 32);
    }
    let why = format!(
        "as near to {} as a name here can be: for the admin socket, logs and metrics",
        pair.back_name()
    );
    sheet.implied("--name", name, &sections::short(&why));
}

/// Whether it is HTTP.
fn mode(pair: &Pair<'_>, sheet: &mut Sheet) -> Result<bool, Stop> {
    let (front, back) = (pair.last(Side::Front, &["mode"]), pair.last(Side::Back, &["mode"]));
    let word = |line: Option<&sections::Directive>| line.map_or("tcp", |line| line.word(1)).to_owned();
    let (of_front, of_back) = (word(front), word(back));
    match (of_front.as_str(), of_back.as_str()) {
        // It reads requests once it knows where they go.
        ("tcp", "http") => {
            if let Some(line) = front {
                sheet.differs(line, "the backend reads requests, so they are read from the beginning", "");
            }
        }
        (front, back) if front != back => {
            return Err(Stop::Usage(format!(
                "frontend {} has mode {} and backend {} mode {}, which HAProxy refuses too; make them agree",
                pair.front_name(),
                sections::short(front),
                pair.back_name(),
                sections::short(back)
            )));
        }
        _ => {}
    }
    let mut lines: Vec<_> = back.into_iter().chain(front.filter(|_| of_front == of_back)).collect();
    lines.dedup_by_key(|line| line.place);
    match (of_back.as_str(), lines.as_slice()) {
        (mode @ ("http" | "tcp"), [_, ..]) => sheet.flag("--mode", mode, &lines),
        ("tcp", []) => sheet.implied("--mode", "tcp", "what HAProxy does without mode"),
        (other, _) => {
            return Err(Stop::Failed(format!(
                "{} has mode {}, and there are http and tcp here",
                pair.back_name(),
                sections::short(other)
            )));
        }
    }
    Ok(of_back == "http")
}

/// `--persist`, in the order in which HAProxy would have decided.
fn persist<'a>(
    pair: &Pair<'a>,
    sheet: &mut Sheet,
    cookie: Cookie,
    inserted: Option<(String, &'a sections::Directive)>,
    is_http: bool,
) {
    let session = stick::appsession(pair, sheet, is_http);
    let learned = stick::read(pair, sheet, is_http);
    if session.is_some() && cookie.is_there {
        sheet.notes.push(
            "appsession and cookie: HAProxy 1.5 looked at the cookie first and then let appsession override it whenever its \
             table named a server that was up (1.4: whichever of the two cookies the browser sent last). So session= stands \
             first here, which gives the same answer; the first method that names a usable server decides, and the others are \
             pointed at it. Move --persist cookie= up if the cookie is to decide."
                .into(),
        );
    }
    let is_learned = session.is_some() || !learned.is_empty();
    if cookie.is_inserted && is_learned {
        sheet.notes.push(
            "A client whose server a table names gets the cookie as well; HAProxy sends none to such a client.".into(),
        );
    }
    let cookie = inserted.map(|(text, line)| Learned { text, lines: vec![line] });
    let mut all: Vec<(&'static str, String)> = Vec::new();
    for Learned { text, lines } in session.into_iter().chain(cookie).chain(learned) {
        all.push(("--persist", text.clone()));
        let flags: Vec<(&str, &str)> = all.iter().map(|(flag, text)| (*flag, text.as_str())).collect();
        match trial::trial(&flags) {
            Ok(_) => sheet.flag("--persist", text, &lines),
            Err(why) => {
                all.pop();
                sheet.left(lines[0], why, "--persist METHOD");
            }
        }
    }
}

/// Who is asked for names, where servers say so.
fn resolvers(pair: &Pair<'_>, sheet: &mut Sheet, servers: &[servers::Server<'_>]) {
    let named = servers.iter().find_map(|server| server.options.get("resolvers"));
    let Some(wanted) = named.and_then(|given| given.arguments.first()) else { return };
    let is_it = |section: &&sections::Section| section.kind == Kind::Resolvers && section.name == *wanted;
    let Some(section) = pair.configuration.sections.iter().find(is_it) else { return };
    let mut known = HashSet::new();
    for line in section.directives.iter().filter(|line| !line.is_conditional) {
        let address = line.word(2).trim_start_matches("udp@");
        match line.word(0) {
            "nameserver" if known.len() >= resolver::MOST => {
                sheet.left(line, format!("the first {} are asked", resolver::MOST), "");
            }
            "nameserver" if !known.insert(address) => sheet.moot(line, "is asked already"),
            "nameserver" => match trial::trial(&[("--resolver", address)]) {
                Ok(_) => sheet.flag("--resolver", address, &[line]),
                Err(why) => sheet.left(line, why, "--resolver ADDR[:PORT]"),
            },
            "parse-resolv-conf" if section.directives.iter().any(|line| line.word(0) == "nameserver") => {
                sheet.left(line, "those of /etc/resolv.conf are asked only when no --resolver is given", "");
            }
            "parse-resolv-conf" => sheet.moot(line, "without --resolver that is who is asked"),
            _ => sheet.left(line, "names are asked for again when their answers are no longer valid", ""),
        }
    }
}
