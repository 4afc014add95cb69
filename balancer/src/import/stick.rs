//! `stick-table`, `stick …` and `appsession`: what is learned.

use std::time::Duration;

use super::pair::{Pair, Side};
use super::sections::{Configuration, Directive, Kind};
use super::sheet::{Sheet, Verdict};
use super::trial::trial;
use super::values::{Bare, LONGEST, ours, seconds, size, time};
use crate::persist::MAX_METHODS;

/// HAProxy learns from whatever a server answers.
const ANY_ANSWER: &str = "learn-status=2xx+3xx+4xx+5xx";

/// More than a table can have here.
const MOST_ENTRIES: u64 = 16_000_000;

/// A method of the list, as text, and the lines it comes from.
pub(super) struct Learned<'a> {
    pub(super) text: String,
    pub(super) lines: Vec<&'a Directive>,
}

/// What a rule looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Key {
    /// With bits of IPv4 and IPv6 that count.
    Source(Option<String>, Option<String>),
    /// A cookie, or a parameter of path or query: the application's id, by its name.
    Id(String, &'static str),
    Header(String),
}

impl Key {
    /// Rules of one key make one table.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Source(..), Self::Source(..)) => true,
            // Names of cookies compare exactly, and those in paths and queries without case.
            (Self::Id(one, "cookie"), Self::Id(other, "cookie")) => one == other,
            (Self::Id(one, _), Self::Id(other, _)) | (Self::Header(one), Self::Header(other)) => {
                one.eq_ignore_ascii_case(other)
            }
            _ => false,
        }
    }
}

/// Rules about one key.
struct Group<'a> {
    key: Key,
    /// Where an id is looked for, in the order of the rules.
    places: Vec<&'static str>,
    lines: Vec<&'a Directive>,
    matches: bool,
    stores: bool,
    learns_from_answers: bool,
    table: String,
}

/// The tables of the rules, in their order.
pub(super) fn read<'a>(pair: &Pair<'a>, sheet: &mut Sheet, is_http: bool) -> Vec<Learned<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for line in pair.all(Side::Back, &["stick"]) {
        rule(pair, sheet, &mut groups, line, is_http);
    }
    let own = pair.last(Side::Back, &["stick-table"]);
    if let Some(table) = pair.last(Side::Front, &["stick-table"])
        && own.is_none_or(|own| own.place != table.place)
    {
        sheet.left(table, "counters of clients are not kept, and nothing sticks by a frontend's table", "");
    }
    let mut used = false;
    let mut learned = Vec::new();
    for group in groups {
        if !group.matches {
            for line in &group.lines {
                sheet.left(line, "no rule looks that up again in this backend", "--persist METHOD does both");
            }
            continue;
        }
        if !group.stores && !group.learns_from_answers {
            for line in &group.lines {
                let why =
                    "no rule of this backend writes that table; here a table learns where it is looked up";
                sheet.left(line, why, "--persist METHOD");
            }
            continue;
        }
        let table = if group.table == pair.back_name() || group.table.is_empty() {
            used = true;
            own.map(|table| (table, false))
        } else {
            foreign(pair.configuration, &group.table).map(|table| (table, true))
        };
        let Some((table, is_foreign)) = table else {
            group
                .lines
                .iter()
                .for_each(|line| sheet.left(line, "its stick-table is not there", "--persist METHOD"));
            continue;
        };
        if is_foreign {
            let why = format!("the table is one of this service alone, not shared with {}", group.table);
            sheet.differs(group.lines[0], why, "");
        }
        let text = group.text() + &options(sheet, table, &group.key);
        if matches!(group.key, Key::Header(_)) || text.starts_with("query=") {
            let why = "it is learned from answers 2xx, 3xx and 401, and in HAProxy from any";
            sheet.differs(group.lines[0], why, "--persist session=NAME,learn-status=STATUSES, for ids");
        }
        match trial(&[("--persist", &text)]) {
            Ok(_) => {
                let mut lines = group.lines;
                lines.push(table);
                learned.push(Learned { text, lines });
            }
            Err(why) => group.lines.iter().for_each(|line| sheet.left(line, why.clone(), "--persist METHOD")),
        }
    }
    if learned.len() > 1 {
        sheet.notes.push(
            "Each key that stick rules look at has a table of its own here; in HAProxy they share one, and its size.".into(),
        );
    }
    if let (Some(own), false) = (own, used) {
        let why =
            "no rule of this backend that could be carried over uses it; counters of clients are not kept";
        sheet.left(own, why, "--persist source,timeout=T,size=N");
    }
    learned
}

impl Group<'_> {
    /// The method without the options of its table.
    fn text(&self) -> String {
        match &self.key {
            Key::Source(mask4, mask6) => {
                let mut text = "source".to_owned();
                text.extend(mask4.iter().map(|bits| format!(",mask4={bits}")));
                text.extend(mask6.iter().map(|bits| format!(",mask6={bits}")));
                text
            }
            Key::Header(name) => format!("header={name}"),
            Key::Id(name, _) if self.places == ["query"] && !self.learns_from_answers => {
                format!("query={name}")
            }
            Key::Id(name, _) => {
                let places = if self.places.is_empty() { "cookie".to_owned() } else { self.places.join("+") };
                let learn = if self.stores { "" } else { ",no-request-learn" };
                format!("session={name},in={places}{learn},{ANY_ANSWER}")
            }
        }
    }
}

fn rule<'a>(
    pair: &Pair<'a>,
    sheet: &mut Sheet,
    groups: &mut Vec<Group<'a>>,
    line: &'a Directive,
    is_http: bool,
) {
    let nearest = if is_http {
        "--persist session=NAME, route=NAME, header=NAME, query=NAME or source"
    } else {
        "--persist source"
    };
    let mut words = line.after(3).iter().map(String::as_str);
    let mut table = String::new();
    while let Some(word) = words.next() {
        match word {
            "table" => words.next().unwrap_or_default().clone_into(&mut table),
            "if" | "unless" => {
                let near = if is_http { "--persist-ignore PATHPREFIX" } else { nearest };
                return sheet.left(line, "a method has no condition", near);
            }
            _ => return sheet.left(line, format!("{word:?} is not understood"), nearest),
        }
    }
    let is_response = line.word(1) == "store-response";
    let key = match key(line.word(2), is_response) {
        Ok(key) => key,
        // All clients at one server, of which the others are spares.
        Err((why, _)) if line.word(2).split(',').next() == Some("dst") => {
            return sheet.access_part(line, line.word(2), why, "backup, for all servers but one");
        }
        Err((why, near)) => return sheet.left(line, why, if near.is_empty() { nearest } else { near }),
    };
    if !is_http && !matches!(key, Key::Source(..)) {
        return sheet.left(line, "mode tcp reads no HTTP", "--persist source");
    }
    let is_known = groups.iter().any(|group| group.key.is_like(&key));
    if !is_known && groups.len() == MAX_METHODS {
        return sheet.left(line, format!("{MAX_METHODS} methods are the most"), "");
    }
    let index = groups.iter().position(|group| group.key.is_like(&key)).unwrap_or_else(|| {
        let table = table.clone();
        groups.push(Group {
            key: key.clone(),
            places: vec![],
            lines: vec![],
            matches: false,
            stores: false,
            learns_from_answers: false,
            table,
        });
        groups.len() - 1
    });
    let group = &mut groups[index];
    if matches!(key, Key::Id(_, "cookie")) {
        group.key.clone_from(&key);
    }
    if let (Key::Id(_, place), false) = (&key, is_response)
        && !group.places.contains(place)
    {
        group.places.push(place);
    }
    if group.table != table && !(group.table.is_empty() && table == pair.back_name()) {
        sheet.differs(line, "rules of one key have one table here, that of the first of them", "");
    }
    match line.word(1) {
        "on" => (group.matches, group.stores) = (true, true),
        "match" => group.matches = true,
        "store-request" => group.stores = true,
        "store-response" => group.learns_from_answers = true,
        other => return sheet.left(line, format!("{other:?} is not understood"), nearest),
    }
    if line.word(2).starts_with("hdr(") || line.word(2).starts_with("req.hdr(") {
        let why = "HAProxy takes what stands behind the last comma of the header, and here all of it counts";
        sheet.part(Verdict::Differs, line, line.word(2), why, "a header with one value");
    }
    group.lines.push(line);
}

/// What a sample expression looks at; or why that cannot be, and what is near.
fn key(text: &str, is_response: bool) -> Result<Key, (String, &'static str)> {
    let end = match (text.find(','), text.find('('), text.find(')')) {
        // A comma may stand within the parentheses.
        (comma, Some(open), Some(close)) if open < close && comma.is_none_or(|comma| comma > open) => {
            close + 1
        }
        (Some(comma), ..) => comma,
        _ => text.len(),
    };
    let (fetch, converters) = text.split_at(end);
    let (name, argument) = fetch.split_once('(').unwrap_or((fetch, ""));
    let argument = argument.strip_suffix(')').unwrap_or(argument);
    let converters = converters.strip_prefix(',').unwrap_or(converters);
    let id = |place: &'static str| Ok(Key::Id(argument.to_owned(), place));
    if argument.is_empty() && name != "src" {
        let near = match name {
            "path" | "url" | "base" | "uri" | "base32" | "url32" => "--balance uri",
            _ => "",
        };
        return Err((format!("{text:?} is no key of a table here"), near));
    }
    let found = match (name, is_response) {
        ("src", false) => return source(converters, text),
        ("cook" | "req.cook" | "cookie" | "req_cook", false)
        | ("res.cook" | "set-cookie" | "scook" | "res.scook" | "cookie", true) => id("cookie"),
        ("url_param" | "urlp" | "url_param_exp", false) => match argument.split_once(',') {
            None => id("query"),
            Some((name, ";")) => Ok(Key::Id(name.to_owned(), "path")),
            Some(_) => Err((format!("{text:?} is no key of a table here"), "query=NAME")),
        },
        ("hdr" | "req.hdr" | "req.fhdr", false) if !argument.contains(',') => {
            Ok(Key::Header(argument.to_owned()))
        }
        ("hdr_ip" | "req.hdr_ip", false) => Err((
            format!("{text:?}: an address that a header tells of is no key"),
            "--accept-proxy CIDR for the proxy in front, and --persist source; or --persist header=NAME by its text",
        )),
        _ => Err((format!("{text:?} is no key of a table here"), "")),
    };
    match (found, converters) {
        (found, "") => found,
        (Ok(Key::Id(..)), converter) if converter.starts_with("word(") || converter.starts_with("field(") => {
            Err((
                format!("{text:?}: a part of an id is no key"),
                "--persist route=NAME, if that is the server's id behind the last dot",
            ))
        }
        (Ok(_), _) => Err((format!("{text:?}: values are compared as they are"), "")),
        (found, _) => found,
    }
}

fn source(converters: &str, text: &str) -> Result<Key, (String, &'static str)> {
    let mask = converters.strip_prefix("ipmask(").and_then(|rest| rest.strip_suffix(')'));
    let Some(mask) = mask else {
        return if converters.is_empty() {
            Ok(Key::Source(None, None))
        } else {
            Err((
                format!("{text:?}: an address counts as it is, or by its first bits"),
                "--persist source,mask4=N,mask6=N",
            ))
        };
    };
    let bits = |text: &str| text.parse::<u8>().is_ok().then(|| text.to_owned());
    let (mask4, mask6) = mask.split_once(',').map_or((mask, None), |(four, six)| (four, Some(six)));
    // Of old a mask was written as an address.
    let mask4 = match mask4.parse::<std::net::Ipv4Addr>() {
        Ok(address) if u32::from(address).leading_ones() == u32::from(address).count_ones() => {
            Some(u32::from(address).leading_ones().to_string())
        }
        _ => bits(mask4),
    };
    match (mask4, mask6.map(bits)) {
        (Some(mask4), None) => Ok(Key::Source(Some(mask4), None)),
        (Some(mask4), Some(Some(mask6))) => Ok(Key::Source(Some(mask4), Some(mask6))),
        _ => Err((format!("{text:?} has a mask that is none"), "--persist source,mask4=N,mask6=N")),
    }
}

/// A table of another section: `backend`, `listen`, `frontend`, or `peers`, where it is called `PEERS/TABLE`.
fn foreign<'a>(configuration: &'a Configuration, name: &str) -> Option<&'a Directive> {
    if let Some((peers, table)) = name.split_once('/') {
        let section =
            configuration.sections.iter().find(|section| section.word == "peers" && section.name == peers)?;
        return section.directives.iter().find(|line| line.word(0) == "table" && line.word(1) == table);
    }
    let is_it = |kind| matches!(kind, Kind::Backend | Kind::Listen | Kind::Frontend);
    let section =
        configuration.sections.iter().find(|section| is_it(section.kind) && section.name == name)?;
    section.directives.iter().rev().find(|line| line.word(0) == "stick-table")
}

/// The options of a table, said or meant.
fn options(sheet: &mut Sheet, line: &Directive, key: &Key) -> String {
    let mut words = line.after(1).iter().map(String::as_str);
    let (mut text, mut expire, mut kind, mut len) = (String::new(), None, "", None);
    while let Some(word) = words.next() {
        match word {
            "type" => kind = words.next().unwrap_or_default(),
            "len" => len = words.next(),
            "srvkey" => {
                words.next();
            }
            "size" => text += &entries(sheet, line, words.next().unwrap_or_default()),
            "expire" => expire = words.next(),
            "nopurge" => text.push_str(",nopurge"),
            "store" => stores(sheet, line, words.next().unwrap_or_default()),
            "peers" => {
                let peers = words.next().unwrap_or_default();
                let why = "tables do not travel to other hosts yet";
                sheet.left_part(
                    line,
                    &format!("peers {peers}"),
                    why,
                    "--persist cookie=, which both hosts understand",
                );
            }
            "write-to" | "brates-factor" => {
                let value = words.next().unwrap_or_default();
                sheet.left_part(line, &format!("{word} {value}"), "is about peers and counters", "");
            }
            "recv-only" => sheet.left_part(line, word, "is about peers", ""),
            // A table of a peers section has its name there.
            _ if line.word(0) == "table" && word == line.word(1) => {}
            _ if word.parse::<u64>().is_ok() => {}
            _ => sheet.left_part(line, word, "no table has such an option", ""),
        }
    }
    text += &life(sheet, line, expire);
    if !matches!(key, Key::Source(..)) {
        keys(sheet, line, kind, len);
    }
    if let Key::Source(_, None) = key {
        if !matches!(kind, "ip" | "") {
            text += ",mask6=128";
            if kind != "ipv6" {
                let why = "an address is a key as it is";
                sheet.part(Verdict::Differs, line, &format!("type {kind}"), why, "");
            }
        } else {
            sheet.notes.push(
                "stick-table type ip: HAProxy 2.6 has no IPv6 clients in such a table; here they are in it, by their /64 \
                 (mask6=N)."
                    .into(),
            );
        }
    }
    text
}

/// What HAProxy makes of an id before it is a key, which nobody does here.
fn keys(sheet: &mut Sheet, line: &Directive, kind: &str, len: Option<&str>) {
    let part = len.map_or_else(|| format!("type {kind}"), |len| format!("type {kind} len {len}"));
    match kind {
        "string" | "binary" => {
            // HAProxy's defaults; one byte of a string is its end.
            let usual = if kind == "string" { "31" } else { "32" };
            let len = len.unwrap_or(usual);
            let why = format!(
                "HAProxy keeps the first {len} bytes of an id, and here all of it counts: longer ones are told apart, and \
                 entries of theirs that are taken along name nobody"
            );
            let nearest = format!("balancer table load --len {len}, which counts such entries");
            sheet.part(Verdict::Differs, line, &part, why, nearest);
        }
        "integer" => {
            let why = "ids are compared as they are written, and not as numbers: 042 is not 42";
            sheet.part(Verdict::Differs, line, &part, why, "");
        }
        _ => {}
    }
}

fn entries(sheet: &mut Sheet, line: &Directive, text: &str) -> String {
    match size(text) {
        Some(entries @ 1..=MOST_ENTRIES) => format!(",size={entries}"),
        Some(entries) if entries > 0 => {
            sheet.part(Verdict::Differs, line, &format!("size {text}"), "16m entries are the most", "");
            ",size=16m".into()
        }
        _ => {
            sheet.left_part(line, &format!("size {text}"), "is no size", "size=N");
            String::new()
        }
    }
}

fn life(sheet: &mut Sheet, line: &Directive, expire: Option<&str>) -> String {
    match expire.map(|text| (text, time(text, Bare::Millis))) {
        Some((_, Ok(time))) if !time.is_zero() => {
            let whole = seconds(time).min(LONGEST);
            format!(",timeout={}", ours(whole))
        }
        Some((text, Err(why))) => {
            sheet.left_part(line, &format!("expire {text}"), why, "timeout=T");
            String::new()
        }
        _ => {
            let why = "entries live for ever in HAProxy, and here until they have not been used for a year";
            sheet.part(Verdict::Differs, line, "no expire", why, "timeout=T, as long as a user may be away");
            format!(",timeout={}", ours(Duration::MAX))
        }
    }
}

fn stores(sheet: &mut Sheet, line: &Directive, types: &str) {
    let mut depth = 0_usize;
    let split = |c: char| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        c == ',' && depth == 0
    };
    for kind in types.split(split).filter(|kind| !matches!(*kind, "server_id" | "server_key" | "server_name"))
    {
        let why = "a table says whose server it is and counts nothing";
        sheet.left_part(
            line,
            &format!("store {kind}"),
            why,
            "/metrics and balancer show stat count per service and server",
        );
    }
}

/// `appsession NAME len N timeout T [request-learn] [prefix] [mode path-parameters|query-string]`.
pub(super) fn appsession<'a>(pair: &Pair<'a>, sheet: &mut Sheet, is_http: bool) -> Option<Learned<'a>> {
    let line = pair.on(Side::Back, &["appsession"])?;
    if !is_http {
        sheet.moot(line, "HAProxy ignores it too: mode tcp reads no cookies");
        return None;
    }
    let (mut place, mut learns, mut is_prefix, mut life) = ("path", false, false, None);
    let mut words = line.after(2).iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "len" => {
                words.next();
            }
            "timeout" => life = words.next(),
            "request-learn" => learns = true,
            "prefix" => is_prefix = true,
            "mode" => {
                if words.next() == Some("query-string") {
                    place = "query";
                }
            }
            _ => sheet.left_part(line, word, "is not understood", "--persist session=NAME"),
        }
    }
    let mut text = format!("session={},in=cookie+{place}", line.word(1));
    if is_prefix {
        text.push_str(",prefix-name");
    }
    if !learns {
        text.push_str(",no-request-learn");
    }
    text.push(',');
    text.push_str(ANY_ANSWER);
    match life.map(|text| (text, time(text, Bare::Millis))) {
        Some((_, Ok(time))) if !time.is_zero() => {
            text += &format!(",timeout={}", ours(seconds(time).min(LONGEST)));
        }
        Some((given, _)) => {
            sheet.left_part(line, &format!("timeout {given}"), "is no time", "timeout=T; 3h unless given");
        }
        None => {}
    }
    match trial(&[("--persist", &text)]) {
        Ok(_) => {
            sheet.notes.push(
                "appsession: ids count as a whole (len does not cut them), and an entry follows its user to another server."
                    .into(),
            );
            Some(Learned { text, lines: vec![line] })
        }
        Err(why) => {
            sheet.left(line, why, "--persist session=NAME");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_tables_have() {
        let id = |name: &str, place| Ok(Key::Id(name.to_owned(), place));
        let source = |four: Option<&str>, six: Option<&str>| {
            Ok(Key::Source(four.map(ToOwned::to_owned), six.map(ToOwned::to_owned)))
        };
        let table = [
            ("src", false, source(None, None)),
            ("src,ipmask(24)", false, source(Some("24"), None)),
            ("src,ipmask(255.255.0.0,48)", false, source(Some("16"), Some("48"))),
            ("req.cook(JS)", false, id("JS", "cookie")),
            ("cookie(JS)", false, id("JS", "cookie")),
            ("res.cook(JS)", true, id("JS", "cookie")),
            ("set-cookie(JS)", true, id("JS", "cookie")),
            ("url_param(sid)", false, id("sid", "query")),
            ("urlp(jsessionid,;)", false, id("jsessionid", "path")),
            ("req.hdr(X-User)", false, Ok(Key::Header("X-User".into()))),
        ];
        for (text, is_response, expected) in table {
            assert_eq!(key(text, is_response), expected, "{text}");
        }
        let refused = [
            ("path", false, "--balance uri"),
            ("dst", false, ""),
            ("src,ipmask(x)", false, "mask4"),
            ("src,lower", false, "mask4"),
            ("req.cook(JS)", true, ""),
            ("res.cook(JS)", false, ""),
            ("req.cook(JS),word(2,.)", false, "route=NAME"),
            ("req.cook(JS),lower", false, ""),
            ("hdr_ip(x-forwarded-for)", false, "--accept-proxy"),
            ("hdr(x,1)", false, ""),
            ("rdp_cookie(mstshash)", false, ""),
            ("", false, ""),
            ("(((", false, ""),
            ("x)(", false, ""),
        ];
        for (text, is_response, near) in refused {
            let (_, found) = key(text, is_response).expect_err(text);
            assert!(found.contains(near), "{text}: {found}");
        }
    }
}
