//! `balance` and `hash-type`: who gets a client that nothing binds.

use super::pair::{Pair, Side};
use super::sheet::Sheet;
use super::trial::trial;

const OTHER_SERVERS: &str =
    "keys are spread by Maglev hashing, so at the change most of them come to another server, once";

/// What an algorithm becomes, and the words of it that are understood.
fn ours(word: &str, argument: Option<&str>) -> Option<(String, &'static str)> {
    let named = |what: &str| argument.map(|name| (format!("{what}={name}"), OTHER_SERVERS));
    match word {
        "roundrobin" => Some(("roundrobin".into(), "")),
        "static-rr" => Some(("roundrobin".into(), "")),
        "leastconn" => Some(("leastconn".into(), "")),
        "first" => Some(("first".into(), "")),
        "random" if argument.is_none_or(|draws| draws == "2") => Some(("random".into(), "")),
        "random" => Some(("random".into(), "two are drawn here, whatever the argument")),
        "source" => Some(("source".into(), OTHER_SERVERS)),
        "uri" => Some(("uri".into(), OTHER_SERVERS)),
        "url_param" => named("query"),
        "hdr" => named("header"),
        _ => None,
    }
}

/// The flag, with what differs.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    let hash_type = pair.last(Side::Back, &["hash-type"]);
    let factor = pair.last(Side::Back, &["hash-balance-factor"]);
    let mut hashes = false;
    if let Some(line) = pair.last(Side::Back, &["balance"]) {
        let (word, inner) = line.word(1).split_once('(').unwrap_or((line.word(1), ""));
        let inner = inner.strip_suffix(')').filter(|inner| !inner.is_empty());
        let (argument, mut rest) = match (word, inner) {
            ("url_param", _) => (line.words.get(2).map(String::as_str), line.after(3)),
            _ => (inner, line.after(2)),
        };
        let found = ours(word, argument).filter(|(flag, _)| {
            let needs_http = flag.starts_with("uri") || flag.contains('=');
            (is_http || !needs_http) && trial(&[("--balance", flag)]).is_ok()
        });
        match found {
            Some((flag, what)) => {
                hashes = what == OTHER_SERVERS;
                sheet.flag("--balance", flag, &[line]);
                if !what.is_empty() {
                    sheet.differs(line, what, "");
                }
            }
            None => {
                rest = &[];
                sheet.left(
                    line,
                    "nothing is balanced like that here; it is roundrobin",
                    "--balance roundrobin, leastconn, random, first, source, uri, header=NAME or query=NAME",
                );
            }
        }
        if rest != ["path-only"] && !rest.is_empty() {
            let why = "the whole path without its query, header or parameter is the key, always";
            sheet.left_part(line, &rest.join(" "), why, "");
        }
    } else {
        sheet.implied("--balance", "roundrobin", "what HAProxy does without balance");
    }
    if let Some(line) = hash_type {
        if hashes {
            let why = "it is Maglev hashing, always: a server that leaves moves its own keys and few others";
            if line.word(1) == "consistent" {
                sheet.moot(line, why);
            } else {
                sheet.differs(line, why, "");
            }
        } else {
            sheet.moot(line, "nothing is balanced by a key");
        }
    }
    if let Some(line) = factor {
        if hashes {
            sheet.left(line, "keys are not moved away from a busy server", "maxconn=N of the servers");
        } else {
            sheet.moot(line, "nothing is balanced by a key");
        }
    }
}
