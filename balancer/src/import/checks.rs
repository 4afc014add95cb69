//! How servers are checked, and what else is said per server there and for all of them here.

use std::collections::BTreeMap;

use super::http_check::{Check, Left};
use super::pair::{Pair, Side};
use super::sections::Directive;
use super::server_options::value;
use super::servers::Server;
use super::sheet::{Sheet, Verdict};
use super::trial::trial;
use super::values::{Bare, ours, seconds, time};

/// That `--check-rise` and `--check-fall` take.
const MOST_CHECKS: u32 = 100;

/// HAProxy's own, where nothing is said.
const INTERVAL: &str = "2s";

/// Everything about health.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, servers: &[Server<'_>]) {
    let check = Check::read(pair, sheet);
    let (checked, unchecked): (Vec<_>, Vec<_>) =
        servers.iter().partition(|server| server.options.contains_key("check"));
    let timeout = pair.last(Side::Back, &["timeout", "check"]);
    let is_checked = !checked.is_empty();
    if is_checked {
        for server in unchecked {
            let why = "HAProxy does not check it, and here all are checked or none";
            sheet.part(Verdict::Differs, server.line, "no check", why, "--check none");
        }
        let is_elsewhere = elsewhere(sheet, &checked, &check);
        probe(sheet, &check, is_elsewhere);
        let interval = timing(sheet, &checked);
        match timeout.map(|line| (line, time(line.word(2), Bare::Millis))) {
            Some((line, Ok(time))) if !time.is_zero() => sheet.flag("--check-timeout", ours(time), &[line]),
            Some((line, _)) => sheet.left(line, "is no time that a check may take", "--check-timeout T"),
            None => {
                sheet.implied(
                    "--check-timeout",
                    interval,
                    "without timeout check a check may take its interval",
                );
            }
        }
    } else {
        sheet.implied("--check", "none", "no server has check");
        for line in check.lines.iter().chain(&timeout) {
            sheet.moot(line, "no server has check");
        }
    }
    let all: Vec<_> = servers.iter().collect();
    let voters = if is_checked { &checked } else { &all };
    observe(sheet, voters, is_checked);
    slow_start(sheet, voters);
    marked_down(sheet, voters, is_checked);
    send_proxy(sheet, &all);
}

/// Servers whose check asks another port or address than clients do, a proxy's for who is the master, say.
fn elsewhere(sheet: &mut Sheet, servers: &[&Server<'_>], check: &Check<'_>) -> bool {
    const WHY: &str = "asks elsewhere, and here it is the server's own port that is connected to: whoever listens there is \
                       given clients, whatever is answered elsewhere";
    const NEAREST: &str = "balancer set server NAME drain|ready, by a script that asks there";
    let mut parts: Vec<_> = check.elsewhere.iter().map(|line| (*line, line.after(2).join(" "))).collect();
    for server in servers {
        let address = server.line.word(if server.line.word(0) == "server" { 2 } else { 3 });
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        for (option, own) in [("addr", host), ("port", port)] {
            let given = value(&server.options, option);
            let part = format!("{option} {given}");
            if given == own && !own.is_empty() {
                sheet.part(Verdict::Moot, server.line, &part, "is its own", "");
            } else if !given.is_empty() {
                parts.push((server.line, part));
            }
        }
    }
    for (line, part) in &parts {
        if check.is_http {
            sheet.access_part(line, part, WHY, NEAREST);
        } else {
            sheet.left_part(line, part, "the server's own address and port are checked", "");
        }
    }
    if let Some(line) = check.request.upgrades {
        let why = "a check asks for no other protocol, so it is never answered so; it connects";
        sheet.access_part(line, &line.after(1).join(" "), why, "expect=STATUSES of a plain GET");
    }
    // Told as an option of the server.
    let is_tls = servers.iter().any(|server| server.options.contains_key("check-ssl"));
    is_tls || !parts.is_empty() || check.request.upgrades.is_some()
}

fn probe(sheet: &mut Sheet, check: &Check<'_>, is_elsewhere: bool) {
    const HTTP: &str = "--check http=PATH[,host=H][,expect=STATUSES]";
    for Left { line, part, why, is_access } in &check.left {
        let nearest = if check.is_http { HTTP } else { "--check tcp" };
        if *is_access {
            sheet.access_part(line, part, *why, nearest);
        } else {
            sheet.left_part(line, part, *why, nearest);
        }
    }
    if !check.is_http || is_elsewhere {
        sheet.flag("--check", "tcp", &check.lines);
        if check.lines.is_empty() {
            sheet.because("servers have check");
        }
        return;
    }
    let request = &check.request;
    if let Some((line, method)) = &request.method {
        let why = "a check asks by GET; the server must answer that as it answers HAProxy";
        sheet.part(Verdict::Differs, line, method, why, "");
    }
    let path = request.path.as_deref().unwrap_or("/");
    let mut text = format!("http={path}");
    let options = [
        request.host.as_ref().map(|host| format!("host={host}")),
        request.expect.as_ref().map(|expect| format!("expect={expect}")),
        check.drains.then(|| "drain-on=404".to_owned()),
    ];
    let Some(first) = check.lines.first() else { return };
    if let Err(why) = tried(&text) {
        sheet.left_part(first, path, why, "--check http=/PATH");
        text = "http=/".into();
    }
    for option in options.into_iter().flatten() {
        match tried(&format!("{text},{option}")) {
            Ok(longer) => text = longer,
            Err(why) => sheet.left_part(first, &option, why, ""),
        }
    }
    sheet.flag("--check", text, &check.lines);
    if request.host.is_none() {
        sheet.because("by HTTP/1.1, with the server's address as Host; host=H says another one");
    }
}

fn tried(text: &str) -> Result<String, String> {
    trial(&[("--check", text)]).map(|_| text.to_owned())
}

/// The value that most servers have; the others are told that theirs does not count. `None`: nobody says anything.
fn common<'s, 'a>(
    sheet: &mut Sheet,
    servers: &[&'s Server<'a>],
    part: &str,
    of: impl Fn(&Server<'_>) -> String,
) -> Option<(String, &'s Server<'a>)> {
    let mut votes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (index, server) in servers.iter().enumerate() {
        votes.entry(of(server)).or_insert((0, index)).0 += 1;
    }
    // Of as many the one that comes first in the file.
    let (winner, (_, index)) =
        votes.into_iter().max_by_key(|(_, (count, index))| (*count, usize::MAX - index))?;
    for server in servers {
        let own = of(server);
        if own != winner {
            let own = if own.is_empty() { format!("no {part}") } else { format!("{part} {own}") };
            let most = if winner.is_empty() { "without it".into() } else { winner.clone() };
            let why = format!("it is one for all servers here, that of most: {most}");
            sheet.part(Verdict::Differs, server.line, &own, why, "");
        }
    }
    (!winner.is_empty()).then(|| (winner, servers[index]))
}

/// The line on which the server's option stands.
fn line_of<'a>(server: &Server<'a>, option: &str) -> &'a Directive {
    server.options.get(option).map_or(server.line, |given| given.line)
}

/// The interval, as it is now.
fn timing(sheet: &mut Sheet, servers: &[&Server<'_>]) -> String {
    let mut interval = INTERVAL.to_owned();
    let found = common(sheet, servers, "inter", |server| {
        let text = value(&server.options, "inter");
        if text.is_empty() { INTERVAL.into() } else { text.into() }
    });
    if let Some((text, server)) = found {
        match time(&text, Bare::Millis) {
            Ok(time) if !time.is_zero() => {
                interval = ours(time);
                timed(sheet, "--check-interval", &interval, server, "inter");
            }
            _ => sheet.left_part(server.line, &format!("inter {text}"), "is no time", "--check-interval T"),
        }
    }
    let hasty = hasty(sheet, servers, &interval);
    for (option, flag, usual) in [("rise", "--check-rise", "2"), ("fall", "--check-fall", "3")] {
        let found = common(sheet, servers, option, |server| {
            let text = value(&server.options, option);
            if text.is_empty() { usual.into() } else { text.into() }
        });
        let Some((text, server)) = found else { continue };
        let part = format!("{option} {text}");
        let Some(count) = text.parse::<u32>().ok().filter(|count| *count > 0) else {
            sheet.left_part(server.line, &part, "is no number of checks", format!("{flag} N"));
            continue;
        };
        let more = f64::from(count - 1) * hasty;
        // Whole numbers far below what a float holds.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let ours = 1 + more.ceil().min(f64::from(MOST_CHECKS)) as u32;
        timed(sheet, flag, &ours.min(MOST_CHECKS).to_string(), server, option);
        if ours > MOST_CHECKS {
            let why = format!("{MOST_CHECKS} checks in a row are the most, and it takes less time");
            sheet.part(Verdict::Differs, server.line, &part, why, "--check-interval T");
        } else if ours != count {
            sheet.because(&format!("{part}, in the same time: checks come four times as often in doubt"));
        }
    }
    interval
}

/// How many of our checks take the time of one of HAProxy's while a verdict is in doubt: ours come four times as often
/// then, and HAProxy's at `fastinter`, if that is given.
fn hasty(sheet: &mut Sheet, servers: &[&Server<'_>], interval: &str) -> f64 {
    const HASTE: f64 = 4.0;
    let fast = common(sheet, servers, "fastinter", |server| value(&server.options, "fastinter").into());
    let Some((text, server)) = fast else { return HASTE };
    let times = time(&text, Bare::Millis).ok().zip(time(interval, Bare::Millis).ok());
    match times.filter(|(fast, slow)| !fast.is_zero() && !slow.is_zero()) {
        Some((fast, slow)) => HASTE * fast.as_secs_f64() / slow.as_secs_f64(),
        None => {
            sheet.left_part(server.line, &format!("fastinter {text}"), "is no time", "--check-interval T");
            HASTE
        }
    }
}

/// A flag of an option that may not have been given.
fn timed(sheet: &mut Sheet, flag: &'static str, text: &str, server: &Server<'_>, option: &str) {
    match server.options.get(option) {
        Some(given) => sheet.flag(flag, text, &[given.line]),
        None => sheet.implied(flag, text, &format!("what HAProxy does without {option}")),
    }
}

fn observe(sheet: &mut Sheet, servers: &[&Server<'_>], is_checked: bool) {
    let found = common(sheet, servers, "observe", |server| value(&server.options, "observe").into());
    let Some((layer, server)) = found else {
        for option in ["error-limit", "on-error"] {
            for server in servers.iter().filter(|server| server.options.contains_key(option)) {
                sheet.part(Verdict::Moot, server.line, option, "nothing is observed", "");
            }
        }
        return;
    };
    let line = line_of(server, "observe");
    let kind = match layer.as_str() {
        "layer4" => "connect",
        // Whoever cannot be connected to does not answer either.
        "layer7" => "connect+5xx",
        _ => {
            return sheet.left_part(
                line,
                &format!("observe {layer}"),
                "is not understood",
                "--observe connect+5xx",
            );
        }
    };
    if !is_checked {
        return sheet.left_part(
            line,
            &format!("observe {layer}"),
            "without checks nobody would bring a server up again",
            "--check tcp",
        );
    }
    let limit = common(sheet, servers, "error-limit", |server| value(&server.options, "error-limit").into());
    let mut text = kind.to_owned();
    if let Some((limit, _)) = &limit {
        text += &format!(",limit={limit}");
    }
    match trial(&[("--observe", &text)]) {
        Ok(_) => sheet.flag("--observe", text, &[line]),
        Err(why) => {
            return sheet.left_part(
                line,
                &format!("observe {layer}"),
                why,
                "--observe connect+5xx[,limit=N]",
            );
        }
    }
    let found = common(sheet, servers, "on-error", |server| value(&server.options, "on-error").into());
    let reaction = found.map_or("fail-check".to_owned(), |(text, _)| text);
    if reaction != "mark-down" {
        let why = "so many errors in a row take the server down, until checks bring it up";
        sheet.part(
            Verdict::Differs,
            line,
            &format!("on-error {reaction}"),
            why,
            "on-error mark-down is what it is",
        );
    }
}

fn slow_start(sheet: &mut Sheet, servers: &[&Server<'_>]) {
    let found = common(sheet, servers, "slowstart", |server| value(&server.options, "slowstart").into());
    let Some((text, server)) = found else { return };
    match time(&text, Bare::Millis) {
        Ok(time) if !time.is_zero() => {
            sheet.flag("--slow-start", ours(seconds(time)), &[line_of(server, "slowstart")]);
        }
        _ => sheet.left_part(server.line, &format!("slowstart {text}"), "is no time", "--slow-start T"),
    }
}

fn marked_down(sheet: &mut Sheet, servers: &[&Server<'_>], is_checked: bool) {
    let found =
        common(sheet, servers, "on-marked-down", |server| value(&server.options, "on-marked-down").into());
    let Some((text, server)) = found else { return };
    let line = line_of(server, "on-marked-down");
    if text != "shutdown-sessions" {
        sheet.left_part(
            line,
            &format!("on-marked-down {text}"),
            "is not understood",
            "--on-marked-down keep|reset",
        );
    } else if is_checked {
        sheet.flag("--on-marked-down", "reset", &[line]);
    } else {
        sheet.part(Verdict::Moot, line, "on-marked-down", "no server has check, so none is marked down", "");
    }
}

fn send_proxy(sheet: &mut Sheet, servers: &[&Server<'_>]) {
    let version = |server: &Server<'_>| {
        let has = |name: &str| server.options.contains_key(name);
        let is_v2 = ["send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"].into_iter().any(has);
        match (is_v2, has("send-proxy")) {
            (true, _) => "v2".into(),
            (_, true) => "v1".into(),
            _ => String::new(),
        }
    };
    let found = common(sheet, servers, "send-proxy", version);
    for server in servers.iter().filter(|server| server.options.contains_key("check-send-proxy")) {
        let (verdict, why) = match found {
            Some(_) => (Verdict::Moot, "checks have a PROXY header when connections have one"),
            None => (Verdict::Left, "checks have a PROXY header only when connections have one"),
        };
        sheet.part(verdict, server.line, "check-send-proxy", why, "");
    }
    if let Some((text, server)) = found {
        let line = ["send-proxy-v2", "send-proxy"].into_iter().find_map(|name| server.options.get(name));
        sheet.flag("--send-proxy", text, &[line.map_or(server.line, |given| given.line)]);
    }
}
