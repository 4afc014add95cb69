//! `option …` and the lines that are one setting each.

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::servers::Server;
use super::sheet::{Sheet, Verdict};
use super::trial::trial;

const ACCESS_LOG: &str = "--access-log -|PATH --log-format haproxy";

/// Options that become no flag: who has a say, what there is to say when they are on.
const OPTIONS: &[(&str, Verdict, &str, &str)] = &[
    (
        "abortonclose",
        Verdict::Left,
        "a client that closes while it waits keeps its place; one that resets gives it up",
        "",
    ),
    ("accept-invalid-http-request", Verdict::Left, "what is malformed is refused", ""),
    ("accept-invalid-http-response", Verdict::Left, "what is malformed is refused", ""),
    ("checkcache", Verdict::Left, "answers are not looked at for that", "--persist cookie=…,nocache"),
    ("clitcpka", Verdict::Left, "there are no TCP keep-alives", "--timeout-tunnel T"),
    ("srvtcpka", Verdict::Left, "there are no TCP keep-alives", "--timeout-tunnel T"),
    ("tcpka", Verdict::Left, "there are no TCP keep-alives", "--timeout-tunnel T"),
    ("contstats", Verdict::Moot, "bytes count as they go", ""),
    ("disable-h2-upgrade", Verdict::Moot, "there is HTTP/1 alone", ""),
    ("dontlog-normal", Verdict::Left, "every request has a line", ACCESS_LOG),
    ("log-separate-errors", Verdict::Left, "lines have no level", ACCESS_LOG),
    ("logasap", Verdict::Left, "a line is written when the request is over", ACCESS_LOG),
    ("log-health-checks", Verdict::Moot, "every change of a server's state is in the log", ""),
    ("h1-case-adjust-bogus-client", Verdict::Moot, "names of headers pass as they are written", ""),
    ("h1-case-adjust-bogus-server", Verdict::Moot, "names of headers pass as they are written", ""),
    ("http-buffer-request", Verdict::Left, "a request goes to its server as it comes", ""),
    (
        "http-ignore-probes",
        Verdict::Moot,
        "a connection without a request is neither answered nor logged",
        "",
    ),
    ("http-keep-alive", Verdict::Moot, "connections are kept on both sides", ""),
    ("http-no-delay", Verdict::Moot, "nothing is held back", ""),
    ("http-pretend-keepalive", Verdict::Moot, "servers are not told to close", ""),
    ("http-restrict-req-hdr-names", Verdict::Left, "names of headers are not restricted further", ""),
    ("http-server-close", Verdict::Differs, "connections to servers are kept and used again", ""),
    ("http-tunnel", Verdict::Left, "every request is looked at", "--mode tcp"),
    ("http-use-htx", Verdict::Moot, "is about HAProxy's inside", ""),
    ("http-use-proxy-header", Verdict::Left, "Proxy-Connection is not looked at", ""),
    ("http_proxy", Verdict::Left, "this is no forward proxy", ""),
    ("httpclose", Verdict::Differs, "connections are kept on both sides and used again", ""),
    ("httpslog", Verdict::Left, "there is no TLS to log", ACCESS_LOG),
    ("idle-close-on-response", Verdict::Moot, "a drain waits for idle connections' next answer", ""),
    ("independent-streams", Verdict::Left, "either side's bytes count as life", ""),
    ("nolinger", Verdict::Left, "connections end in order", ""),
    (
        "originalto",
        Verdict::Left,
        "servers are not told where a client connected",
        "--send-proxy v2, which does",
    ),
    ("persist", Verdict::Left, "a server that is known to be down is not tried", "--on-down wait=T or fail"),
    (
        "prefer-last-server",
        Verdict::Left,
        "each request that nothing binds is balanced anew, unless it is one of NTLM or Negotiate",
        "--persist cookie=NAME,insert",
    ),
    ("socket-stats", Verdict::Left, "listeners are not counted one by one", "balancer show stat"),
    ("splice-auto", Verdict::Moot, "known clients go by the kernel with --persist source and --xdp", ""),
    ("splice-request", Verdict::Moot, "known clients go by the kernel with --persist source and --xdp", ""),
    ("splice-response", Verdict::Moot, "known clients go by the kernel with --persist source and --xdp", ""),
    ("tcp-smart-accept", Verdict::Moot, "is about the kernel of old", ""),
    ("tcp-smart-connect", Verdict::Moot, "is about the kernel of old", ""),
    ("transparent", Verdict::Left, "a client's own destination is not used", ""),
];

/// Lines that become no flag.
const LINES: &[(&str, Verdict, &str, &str)] = &[
    ("fullconn", Verdict::Left, "limits do not move with the load", "maxconn=N of the servers"),
    (
        "load-server-state-from-file",
        Verdict::Moot,
        "what operators have said outlives restarts; --state-file keeps it over a reboot",
        "",
    ),
    (
        "server-state-file-name",
        Verdict::Moot,
        "what operators have said outlives restarts; --state-file keeps it over a reboot",
        "",
    ),
    ("description", Verdict::Moot, "is a comment", ""),
    ("id", Verdict::Moot, "services are known by their names", ""),
    ("guid", Verdict::Moot, "services are known by their names", ""),
    ("bind-process", Verdict::Moot, "there is one process", ""),
    ("enabled", Verdict::Moot, "it is", ""),
    ("disabled", Verdict::Differs, "HAProxy does not start that section, and here it is served", ""),
    ("log-tag", Verdict::Moot, "lines begin with the service's name", ""),
    ("max-keep-alive-queue", Verdict::Left, "a client goes where it belongs, also when it waits there", ""),
];

/// What becomes of them.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, servers: &[Server<'_>], is_http: bool) {
    redispatch(pair, sheet);
    forwarded(pair, sheet, is_http);
    log(pair, sheet, is_http);
    backups(pair, sheet, servers);
    reuse(pair, sheet);
    for (name, verdict, why, nearest) in OPTIONS {
        for line in pair.on_either(&["option", name]) {
            if !is_http && name.starts_with("http") {
                sheet.moot(line, "HAProxy ignores it too: mode tcp reads no HTTP");
                continue;
            }
            match verdict {
                Verdict::Left => sheet.left(line, *why, *nearest),
                Verdict::Differs => sheet.differs(line, *why, *nearest),
                Verdict::Moot => sheet.moot(line, *why),
            }
        }
    }
    for (name, verdict, why, nearest) in LINES {
        for line in pair.on_either(&[name]) {
            match verdict {
                Verdict::Left => sheet.left(line, *why, *nearest),
                Verdict::Differs => sheet.differs(line, *why, *nearest),
                Verdict::Moot => sheet.moot(line, *why),
            }
        }
    }
}

/// Off unless asked for, in HAProxy.
fn redispatch(pair: &Pair<'_>, sheet: &mut Sheet) {
    match pair.on(Side::Back, &["option", "redispatch"]) {
        None => sheet.implied("--redispatch", "off", "there is no option redispatch"),
        Some(line) => match line.word(2) {
            "0" => {
                sheet.flag("--redispatch", "off", &[line]);
                let why = "what nothing binds does not go elsewhere either";
                sheet.part(Verdict::Differs, line, "0", why, "--redispatch on");
            }
            "" | "-1" => sheet.flag("--redispatch", "on", &[line]),
            other => {
                sheet.flag("--redispatch", "on", &[line]);
                let why = "the last attempt goes elsewhere, and of what nothing binds every one";
                sheet.part(Verdict::Differs, line, other, why, "");
            }
        },
    }
}

fn forwarded(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    let Some(line) = pair.on(Side::Any, &["option", "forwardfor"]) else { return };
    if !is_http {
        return sheet.moot(line, "HAProxy ignores it too: mode tcp writes no headers");
    }
    let words: Vec<&str> = line.after(2).iter().map(String::as_str).collect();
    let header =
        words.iter().position(|word| *word == "header").map_or("", |at| words.get(at + 1).unwrap_or(&""));
    if !header.is_empty() && !header.eq_ignore_ascii_case("x-forwarded-for") {
        let why = "the header is X-Forwarded-For or Forwarded";
        return sheet.left_part(line, &format!("header {header}"), why, "--forwarded x-forwarded-for");
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word {
            "if-none" => {
                let why = "the client's address is added to what is there";
                sheet.part(Verdict::Differs, line, word, why, "");
            }
            "except" => {
                let block = words.next().unwrap_or_default();
                let why = "it is added for every client";
                sheet.part(
                    Verdict::Differs,
                    line,
                    &format!("except {block}"),
                    why,
                    "--accept-proxy CIDR for proxies in front",
                );
            }
            "header" => {
                words.next();
            }
            _ => sheet.left_part(line, word, "is not understood", ""),
        }
    }
    sheet.flag("--forwarded", "x-forwarded-for", &[line]);
    let why =
        "X-Forwarded-Proto, -Host and -Port are ours as well then: what the client sends of them is replaced";
    sheet.differs(line, why, "--forwarded none, where a TLS terminator in front says X-Forwarded-Proto");
}

fn reuse(pair: &Pair<'_>, sheet: &mut Sheet) {
    match pair.on(Side::Back, &["http-reuse"]) {
        Some(line) if line.word(1) == "never" => {
            let why = "connections to servers serve one client after the other when that is safe";
            sheet.differs(line, why, "--send-proxy, with which each serves one client");
        }
        Some(line) => sheet.moot(line, "connections to servers are used again when that is safe"),
        None => {}
    }
}

/// Where lines go, and what they look like.
fn log(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    let lines = pair.all(Side::Front, &["log"]);
    let mut targets = Vec::new();
    for line in &lines {
        if line.is_no {
            pair.replace(&targets, line);
            targets.clear();
        } else {
            targets.push(*line);
        }
    }
    for line in pair.all(Side::Back, &["log"]).into_iter().filter(|line| !lines.contains(line) && !line.is_no)
    {
        sheet.moot(line, "requests are logged by the frontend, in HAProxy as well, and events go to stderr");
    }
    let globals = pair.all(Side::Global, &["log"]);
    let formats: Vec<_> =
        ["httplog", "tcplog"].iter().filter_map(|name| pair.on(Side::Front, &["option", name])).collect();
    let is_to_global = targets.iter().any(|line| line.word(1) == "global");
    let all: Vec<_> = targets
        .iter()
        .copied()
        .filter(|line| line.word(1) != "global")
        .chain(globals.iter().copied().filter(|_| is_to_global))
        .collect();
    for line in globals.iter().filter(|_| !is_to_global) {
        sheet.moot(line, "this service does not log there");
    }
    let own_format = pair.on(Side::Front, &["log-format"]);
    if let Some(line) = own_format {
        sheet.left(line, "a line has one of three layouts", "--log-format text|json|haproxy");
    }
    for name in ["log-format-sd", "error-log-format"] {
        if let Some(line) = pair.on(Side::Any, &[name]) {
            sheet.left(line, "a line has one of three layouts", "--log-format text|json|haproxy");
        }
    }
    let stdout = all.iter().find(|line| line.word(1) == "stdout" && has_requests(line)).copied();
    match stdout {
        Some(line) => {
            sheet.flag("--access-log", "-", &[line]);
            if let Some(format) = formats.last() {
                sheet.flag("--log-format", "haproxy", &[format]);
                if format.word(2) == "clf" {
                    let why = "it is HAProxy's own layout";
                    sheet.part(Verdict::Differs, format, "clf", why, "--log-format text|json|haproxy");
                }
            }
            // What is in `global` comes to flags with the line that refers to it.
        }
        None => {
            for line in &formats {
                sheet.left(line, "nothing is sent to syslog, so there is no log of requests yet", ACCESS_LOG);
            }
        }
    }
    for line in all.iter().filter(|line| stdout.is_none_or(|stdout| !std::ptr::eq(stdout, **line))) {
        if matches!(line.word(1), "stdout" | "stderr") && !has_requests(line) {
            sheet.moot(line, "at that level there are no requests in it, and events go to stderr");
        } else {
            sheet.left(line, "nothing is sent to syslog; events go to stderr", ACCESS_LOG);
        }
    }
    for line in targets.iter().filter(|line| line.word(1) == "global") {
        sheet.moot(
            line,
            if globals.is_empty() { "global has no log" } else { "stands for the logs of global" },
        );
    }
    if let Some(line) = pair.on(Side::Front, &["option", "dontlognull"]) {
        if is_http {
            sheet.moot(line, "a connection without a request has no line");
        } else {
            sheet.left(line, "every connection has a line", ACCESS_LOG);
        }
    }
}

/// `log TARGET [len N] [format F] [sample S] FACILITY [LEVEL [MINIMUM]]`: a line about a request is of level info.
fn has_requests(line: &Directive) -> bool {
    const GRAVER: [&str; 6] = ["emerg", "alert", "crit", "err", "warning", "notice"];
    let mut words = line.after(2);
    while let [option, _, rest @ ..] = words
        && matches!(option.as_str(), "len" | "format" | "sample" | "profile")
    {
        words = rest;
    }
    !words.get(1).is_some_and(|level| GRAVER.contains(&level.as_str()))
}

/// HAProxy uses the first of the backups alone, unless told otherwise; here all serve.
fn backups(pair: &Pair<'_>, sheet: &mut Sheet, servers: &[Server<'_>]) {
    let all = pair.on(Side::Back, &["option", "allbackups"]);
    let mut backups = servers.iter().filter(|server| server.options.contains_key("backup")).skip(1);
    match (all, backups.next()) {
        (Some(line), _) => sheet.moot(line, "backups are used together, always"),
        (None, Some(second)) => {
            let why = "all backups serve when no primary can; in HAProxy it would be the first of them";
            sheet.part(Verdict::Differs, second.line, "backup", why, "");
        }
        (None, None) => {}
    }
}

/// `maxconn`, of the frontend or of all, whichever is less.
pub(super) fn max_connections(pair: &Pair<'_>, sheet: &mut Sheet) {
    let lines = [pair.last(Side::Front, &["maxconn"]), pair.last(Side::Global, &["maxconn"])];
    let mut found = Vec::new();
    for line in lines.into_iter().flatten() {
        match line.word(1).parse::<u32>() {
            Ok(0) => sheet.moot(line, "0 is as many as there may be"),
            Ok(number) if trial(&[("--max-connections", &number.to_string())]).is_ok() => {
                found.push((number, line));
            }
            _ => sheet.left(line, "is no number of connections", "--max-connections N"),
        }
    }
    // Of as many that of the frontend.
    found.sort_by_key(|(number, _)| *number);
    if let [(number, line), others @ ..] = found.as_slice() {
        sheet.flag("--max-connections", number.to_string(), &[line]);
        others.iter().for_each(|(_, other)| pair.replace(&[other], line));
    }
}
