//! Rules with conditions: `ignore-persist` where it is about the beginning of a path; for the others, what is near.

use std::collections::{HashMap, HashSet};

use super::pair::{Pair, Side};
use super::sections::{Configuration, Directive, Place, short};
use super::sheet::Sheet;

/// The first words of a line, why it is left, what is near.
type Rule = (&'static [&'static str], &'static str, &'static str);

/// Lines with these first words: what there is to say, and what is near.
const RULES: &[Rule] = &[
    (&["use-server"], "a server is named by a method of the list", "--persist"),
    (&["force-persist"], "a server that is known to be down is not tried", "--on-down wait=T or fail"),
    (&["persist", "rdp-cookie"], "RDP is not read", "--persist source"),
    (&["tcp-request", "connection"], "connections are turned away by address alone", "--deny CIDR|@FILE"),
    (&["tcp-request", "inspect-delay"], "nothing waits for a connection's first bytes", ""),
    (&["tcp-request", "content", "accept"], "bytes of connections are not looked at", ""),
    (&["tcp-request"], "bytes of connections are not looked at", "--deny CIDR|@FILE"),
    (&["tcp-response"], "bytes of connections are not looked at", ""),
    (&["http-request", "deny"], "requests are turned away by address alone", "--deny CIDR|@FILE"),
    (&["http-request", "tarpit"], "requests are turned away by address alone", "--deny CIDR|@FILE"),
    (&["http-request", "reject"], "requests are turned away by address alone", "--deny CIDR|@FILE"),
    (&["http-request", "silent-drop"], "requests are turned away by address alone", "--deny CIDR|@FILE"),
    (
        &["http-request", "auth"],
        "nobody is asked for a password, so everybody would be let in",
        "the servers can ask; --deny CIDR|@FILE turns away addresses",
    ),
    (&["http-request", "return"], "nobody is answered by a rule", "the servers can"),
    (&["block"], "requests are turned away by address alone", "--deny CIDR|@FILE"),
    (&["http-request", "redirect"], "nobody is redirected", "the servers can"),
    (&["redirect"], "nobody is redirected", "the servers can"),
    (&["http-request", "set-src"], "who the client is, a PROXY header says", "--accept-proxy CIDR"),
    (
        &["http-request", "set-header"],
        "headers are not written by rules",
        "--forwarded x-forwarded-for|forwarded, for those that tell of the client",
    ),
    (
        &["http-request", "add-header"],
        "headers are not written by rules",
        "--forwarded x-forwarded-for|forwarded, for those that tell of the client",
    ),
    (
        &["http-request", "track-sc0"],
        "counters of clients are not kept",
        "--deny CIDR, once somebody is known",
    ),
    (&["http-request"], "requests are not changed by rules", ""),
    (&["http-response"], "answers are not changed by rules", ""),
    (&["http-after-response"], "answers are not changed by rules", ""),
    (&["reqadd"], "headers are not written by rules", "--forwarded x-forwarded-for"),
    (&["rspadd"], "answers are not changed by rules", ""),
    (&["capture"], "nothing is captured for the log", "--log-format json, which has the decision"),
    (
        &["monitor-uri"],
        "clients' addresses answer clients alone",
        "--http-admin 127.0.0.1:PORT, which has /healthz and /readyz",
    ),
    (
        &["monitor-net"],
        "clients' addresses answer clients alone",
        "--http-admin 127.0.0.1:PORT, which has /healthz and /readyz",
    ),
    (
        &["monitor"],
        "clients' addresses answer clients alone",
        "--http-admin 127.0.0.1:PORT, which has /healthz and /readyz",
    ),
    (
        &["stats"],
        "there is no page of statistics among the clients' addresses",
        "--http-admin 127.0.0.1:PORT, which has a page at /status and figures at /metrics; balancer top",
    ),
    (&["errorfile"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["errorfiles"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["errorloc"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["errorloc302"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["errorloc303"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["http-error"], "errors are a line of text, or JSON for who asks for it", ""),
    (&["compression"], "answers pass as they are", "the servers can compress"),
    (&["filter"], "answers pass as they are", ""),
    (&["rate-limit"], "new connections are not limited", "--max-connections N, maxconn=N of the servers"),
    (&["retry-on"], "what may be repeated is, once, when its server dies under it", "--retries N"),
    (
        &["source"],
        "the kernel chooses the address that servers see",
        "--send-proxy v2, or --forwarded x-forwarded-for",
    ),
    (&["http-send-name-header"], "servers are not told what they are called", ""),
    (&["unique-id-format"], "requests have no id", ""),
    (&["unique-id-header"], "requests have no id", ""),
    (&["email-alert"], "nobody is written to", "the log of events, /metrics"),
    (&["external-check"], "checks run no programs", "--check tcp or http=PATH"),
    (&["timeout", "client-fin"], "a side that has closed has no time-out of its own", "--timeout-client T"),
    (&["timeout", "server-fin"], "a side that has closed has no time-out of its own", "--timeout-server T"),
    (&["timeout", "tarpit"], "nobody is held up", ""),
    (&["declare"], "nothing is captured for the log", ""),
    (&["use-fcgi-app"], "servers are spoken to in HTTP", ""),
];

/// What decides who gets in or where they go, by its first words: without it, somebody would be let in who was not, or meet
/// a server that was not for him.
const ACCESS: &[(&[&str], &[&str])] = &[
    (
        &["http-request"],
        &[
            "deny",
            "tarpit",
            "reject",
            "silent-drop",
            "auth",
            "redirect",
            "return",
            "set-dst",
            "set-dst-port",
            "use-service",
            "do-resolve",
        ],
    ),
    (&["http-response", "http-after-response"], &["deny", "return", "redirect", "silent-drop"]),
    (
        &["tcp-request", "tcp-response"],
        &["reject", "close", "silent-drop", "tarpit", "deny", "set-dst", "use-service"],
    ),
    (
        &[
            "use_backend",
            "default_backend",
            "use-server",
            "redirect",
            "block",
            "dispatch",
            "reqdeny",
            "reqideny",
            "reqtarpit",
            "reqitarpit",
            "rspdeny",
            "rspideny",
        ],
        &[],
    ),
];

/// Rules that mode tcp does not have.
const HTTP_RULES: &[&str] = &["http-request", "http-response", "http-after-response"];

/// Whether it is such a line.
pub(super) fn is_access(line: &Directive) -> bool {
    // `http-request deny`, and `tcp-request content reject`.
    let before_the_condition = if line.word(0).starts_with("tcp-") { 2 } else { 1 };
    let mut actions = line.words.iter().skip(1).take(before_the_condition).map(String::as_str);
    let is_one = |wanted: &[&str], word: &str| wanted.contains(&word) || word.starts_with("lua.");
    ACCESS.iter().any(|(firsts, wanted)| {
        firsts.contains(&line.word(0)) && (wanted.is_empty() || actions.any(|word| is_one(wanted, word)))
    })
}

/// `ignore-persist`, and the access lists that are about the beginning of a path. HAProxy looks at those of the backend alone.
pub(super) fn ignored(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    let mut by_name: HashMap<&str, Vec<&Directive>> = HashMap::new();
    for acl in pair.all(Side::Back, &["acl"]) {
        by_name.entry(acl.word(1)).or_default().push(acl);
    }
    let (mut used, mut known) = (HashSet::new(), HashSet::new());
    for line in pair.all(Side::Back, &["ignore-persist"]) {
        let nearest = "--persist-ignore PATHPREFIX";
        let condition = line.after(2);
        if line.word(1) != "if" || !is_http {
            sheet.left(line, "only the beginning of a path can be what is ignored", nearest);
            continue;
        }
        let lists: Vec<(&Directive, &[String])> = match condition {
            [open, inner @ .., close] if open == "{" && close == "}" => vec![(line, inner)],
            [name] => {
                let named = by_name.get(name.as_str()).into_iter().flatten();
                named.map(|acl| (*acl, acl.after(2))).collect()
            }
            _ => vec![],
        };
        if lists.is_empty() {
            sheet.left(line, "its condition is more than one access list", nearest);
        }
        for (from, test) in lists {
            match prefixes(test) {
                Some(prefixes) => {
                    for prefix in prefixes {
                        if !prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?') {
                            sheet.left_part(from, prefix, "is not how a path begins in a request", nearest);
                        } else if known.insert(prefix.as_str()) {
                            let lines = [line, from];
                            let count = if std::ptr::eq(from, line) { 1 } else { 2 };
                            sheet.flag("--persist-ignore", prefix, &lines[..count]);
                        }
                    }
                }
                None => {
                    let why = "only the beginning of a path can be what is ignored";
                    sheet.left(from, why, nearest);
                    if !std::ptr::eq(from, line) {
                        sheet.left(line, why, nearest);
                    }
                }
            }
            used.insert(from.place);
        }
        if sheet.flags.iter().any(|flag| flag.flag == "--persist-ignore")
            && sheet.values("--persist").any(|method| !method.starts_with("cookie="))
        {
            let why = "no table is looked at or written for such a request either; HAProxy ignores the cookie alone";
            sheet.differs(line, why, "");
        }
    }
    for acl in pair.all(Side::Any, &["acl"]).into_iter().filter(|acl| !used.contains(&acl.place)) {
        sheet.left(acl, "there are no access lists, and the rules that use it are left out", "");
    }
}

/// What a `path_beg` looks for.
fn prefixes(test: &[String]) -> Option<&[String]> {
    let (fetch, patterns) = test.split_first()?;
    let is_it = matches!(fetch.as_str(), "path_beg" | "path,beg");
    let patterns = if fetch == "path" {
        let rest = patterns.strip_prefix(&["-m".to_owned(), "beg".to_owned()])?;
        Some(rest)
    } else {
        is_it.then_some(patterns)
    }?;
    let are_plain = !patterns.is_empty() && patterns.iter().all(|pattern| pattern.starts_with('/'));
    are_plain.then_some(patterns)
}

/// `default_backend` and `use_backend`: what leads to the servers of this pair, and what leads elsewhere.
pub(super) fn routes(pair: &Pair<'_>, sheet: &mut Sheet) {
    const NEAREST: &str =
        "a service of its own per backend: import it with --backend, and --listen another address";
    let is_found = |line: &Directive| line.word(1) == pair.back_name();
    let mut always: Option<&Directive> = None;
    for line in pair.all(Side::Front, &["use_backend"]) {
        let is_always = line.words.len() == 2 && !line.word(1).contains("%[");
        if let Some(first) = always {
            sheet.moot(line, format!("{} comes before it, always", pair.configuration.at(first.place)));
        } else if is_always && is_found(line) {
            sheet.moot(line, "is how the pair was found");
        } else if is_found(line) {
            let why = "its condition is not looked at: whoever comes to this service comes to this backend";
            sheet.left(line, why, NEAREST);
        } else {
            sheet.left(line, "one service has one set of servers", NEAREST);
        }
        always = always.or(Some(line).filter(|_| is_always));
    }
    let Some(line) = pair.last(Side::Front, &["default_backend"]) else { return };
    match always {
        Some(first) => {
            sheet.moot(line, format!("{} comes before it, always", pair.configuration.at(first.place)));
        }
        None if is_found(line) => sheet.moot(line, "is how the pair was found"),
        None => sheet.left(
            line,
            "one service has one set of servers, and this is not the one that was named",
            NEAREST,
        ),
    }
}

/// Lines in whose place another one counts, and those that change nothing: so that each is accounted for.
pub(super) fn without_effect(pair: &Pair<'_>, sheet: &mut Sheet) {
    let flags = sheet.flags.iter().flat_map(|flag| flag.from.iter().map(|(place, _)| *place));
    let said: HashSet<Place> = flags.chain(sheet.remarks.iter().map(|remark| remark.place)).collect();
    let replacing = pair.replacing();
    for line in pair.lines().filter(|line| !said.contains(&line.place)) {
        match (pair.replacement(line), replacing.get(&line.place)) {
            (Some(place), _) => {
                sheet.moot(line, format!("{} counts in its place", pair.configuration.at(place)));
            }
            (None, Some(&place)) if line.is_no => {
                sheet.moot(line, format!("switches off what {} says", pair.configuration.at(place)));
            }
            (None, None) if line.is_no => sheet.moot(line, "nothing is on that it would switch off"),
            _ if pair.counts(line) => sheet.moot(line, "is in what is said of other lines"),
            _ => sheet.moot(line, "has no effect on this frontend and this backend, in HAProxy as well"),
        }
    }
}

/// What nobody has accounted for.
pub(super) fn rest(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    for (line, is_global) in pair.rest() {
        if line.is_conditional {
            sheet.left(
                line,
                "it stands between .if and .endif, and conditions are not looked at",
                "the flag itself, if it counts",
            );
        } else if is_global {
            super::global::rest(sheet, line);
        } else if !is_http && HTTP_RULES.contains(&line.word(0)) {
            sheet.moot(line, "HAProxy ignores it too: mode tcp reads no HTTP");
        } else if !line.is_no {
            let begins = |(words, ..): &&Rule| {
                words.len() <= line.words.len()
                    && words.iter().zip(&line.words).all(|(rule, word)| rule == word)
            };
            match RULES.iter().filter(begins).max_by_key(|(words, ..)| words.len()) {
                Some((_, why, nearest)) => sheet.left(line, *why, *nearest),
                None => sheet.left(line, "nothing like it is known here", ""),
            }
        }
    }
}

/// Lines with variables that nobody has set.
pub(super) fn variables(pair: &Pair<'_>, sheet: &mut Sheet) {
    for line in pair.lines().filter(|line| !line.unset.is_empty()) {
        let why = format!("{} is not set here, so it counts as empty, as it would in HAProxy", line.unset());
        sheet.differs(line, why, "set it as HAProxy has it, and import again");
    }
}

/// What else is in the file.
pub(super) fn others(configuration: &Configuration, pair: &Pair<'_>, sheet: &mut Sheet) {
    const MOST: usize = 12;
    use super::sections::Kind;
    let is_other = |(index, section): &(usize, &super::sections::Section)| {
        !matches!(section.kind, Kind::Global | Kind::Defaults) && *index != pair.front && *index != pair.back
    };
    let others: Vec<String> = configuration
        .sections
        .iter()
        .enumerate()
        .filter(is_other)
        .map(|(_, section)| {
            format!("{} {} ({})", section.word, short(&section.name), configuration.at(section.place))
        })
        .collect();
    if others.is_empty() {
        return;
    }
    let more = others.len().saturating_sub(MOST);
    let shown = others.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    sheet.notes.push(format!("Other sections have no part in this service: {shown}{more}."));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_who_gets_in_is_known() {
        let is_it = |text: &str| {
            let words = text.split(' ').map(ToOwned::to_owned).collect();
            let place = super::super::sections::Place { file: 0, line: 1 };
            is_access(&Directive { place, words, is_no: false, is_conditional: false, unset: vec![] })
        };
        for text in [
            "http-request deny if bad",
            "http-request auth realm x",
            "http-request lua.check",
            "tcp-request connection reject if bad",
            "tcp-request content silent-drop",
            "use_backend b if c",
            "use-server s if c",
            "redirect scheme https",
            "http-response deny",
            "block if bad",
        ] {
            assert!(is_it(text), "{text}");
        }
        for text in [
            "option dontlognull",
            "http-request set-header deny x",
            "tcp-request inspect-delay 5s",
            "acl deny src ::1",
        ] {
            assert!(!is_it(text), "{text}");
        }
    }

    #[test]
    fn beginnings_of_paths_are_known() {
        let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        for (text, expected) in [
            ("path_beg /static /img", Some(2)),
            ("path -m beg /static", Some(1)),
            ("path_beg -i /static", None),
            ("path_beg", None),
            ("path_end .css", None),
            ("path /x", None),
        ] {
            assert_eq!(prefixes(&words(text)).map(<[String]>::len), expected, "{text}");
        }
    }
}
