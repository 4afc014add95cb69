//! `balance` and `hash-type`: who gets a client that nothing binds.

use super::pair::{Pair, Side};
use super::server_options::value;
use super::servers::Server;
use super::sheet::{Sheet, Verdict};
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
        let found = ours(word, argument).filter(|(flag, _)| trial(&[("--balance", flag)]).is_ok());
        match found {
            Some((flag, _)) if !is_http && (flag.starts_with("uri") || flag.contains('=')) => {
                rest = &[];
                sheet.flag("--balance", "roundrobin", &[line]);
                sheet.because("what HAProxy does with it in mode tcp, too");
            }
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
            let why = match rest[0].as_str() {
                "len" | "depth" | "whole" => "the whole path without its query is the key, always",
                _ => "no --balance has such an option",
            };
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

/// HAProxy fills servers in the order of their ids, which is that of the file unless they say so.
pub(super) fn first(sheet: &mut Sheet, servers: &[Server<'_>]) {
    if sheet.values("--balance").all(|algorithm| algorithm != "first") {
        return;
    }
    for server in servers.iter().filter(|server| server.options.contains_key("id")) {
        let part = format!("id {}", value(&server.options, "id"));
        let why = "the servers are filled in the order of the flags, and in HAProxy in that of their ids";
        sheet.part(Verdict::Differs, server.line, &part, why, "the --server lines in that order");
    }
}
