//! How servers are checked, and what else is said per server there and for all of them here.

use std::collections::BTreeMap;

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::server_options::value;
use super::servers::Server;
use super::sheet::{Sheet, Verdict};
use super::trial::trial;
use super::values::{Bare, ours, seconds, time};

/// Checks that are written for a protocol of their own.
const PROTOCOLS: &[&str] = &[
    "mysql-check",
    "pgsql-check",
    "redis-check",
    "ldap-check",
    "smtpchk",
    "ssl-hello-chk",
    "spop-check",
    "external-check",
];

/// HAProxy's own, where nothing is said.
const INTERVAL: &str = "2s";

/// Everything about health.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, servers: &[Server<'_>]) {
    let http = HttpCheck::read(pair, sheet);
    let is_checked = checked(sheet, servers);
    let timeout = pair.last(Side::Back, &["timeout", "check"]);
    if is_checked {
        probe(sheet, &http);
        let interval = timing(sheet, servers);
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
        for line in http.lines.iter().chain(&timeout) {
            sheet.moot(line, "no server has check");
        }
    }
    observe(sheet, servers, is_checked);
    slow_start(sheet, servers);
    marked_down(sheet, servers, is_checked);
    send_proxy(sheet, servers);
}

/// All or none are checked here.
fn checked(sheet: &mut Sheet, servers: &[Server<'_>]) -> bool {
    let is_checked = |server: &&Server<'_>| server.options.contains_key("check");
    let some = servers.iter().any(|server| is_checked(&server));
    for server in servers.iter().filter(|server| some && !is_checked(server)) {
        let why = "HAProxy does not check it, and here all are checked or none";
        sheet.part(Verdict::Differs, server.line, "no check", why, "--check none");
    }
    some
}

/// What `option httpchk` and `http-check` say together.
#[derive(Default)]
struct HttpCheck<'a> {
    is_http: bool,
    path: String,
    host: Option<String>,
    expect: Option<String>,
    drains: bool,
    lines: Vec<&'a Directive>,
    /// What could not be said here: the line, the part, why.
    left: Vec<(&'a Directive, String, &'static str)>,
    /// The method, unless it is GET.
    method: Option<(&'a Directive, String)>,
}

impl<'a> HttpCheck<'a> {
    fn read(pair: &Pair<'a>, sheet: &mut Sheet) -> Self {
        let mut check = Self::default();
        let httpchk = pair.on(Side::Back, &["option", "httpchk"]);
        let tcp = pair.on(Side::Back, &["option", "tcp-check"]);
        let own = PROTOCOLS.iter().filter_map(|name| pair.on(Side::Back, &["option", name]));
        let all: Vec<&Directive> = httpchk.into_iter().chain(tcp).chain(own).collect();
        let order = |line: &&&Directive| pair.lines().position(|known| std::ptr::eq(known, **line));
        let last = all.iter().max_by_key(order).copied();
        for line in all.iter().filter(|line| !last.is_some_and(|last| std::ptr::eq(last, **line))) {
            sheet.moot(line, "another kind of check is asked for after it");
        }
        let rules = pair.all(Side::Back, &["http-check"]);
        let tcp_rules = pair.all(Side::Back, &["tcp-check"]);
        let Some(last) = last else {
            for line in rules.iter().chain(&tcp_rules) {
                sheet.moot(line, "HAProxy ignores it too, without an option that asks for such checks");
            }
            return check;
        };
        check.lines.push(last);
        match last.word(1) {
            "httpchk" => {
                check.is_http = true;
                check.option(last);
                rules.iter().for_each(|line| check.rule(line));
                tcp_rules.iter().for_each(|line| sheet.moot(line, "checks are HTTP"));
            }
            "tcp-check" => {
                rules.iter().for_each(|line| sheet.moot(line, "checks are not HTTP"));
                for line in tcp_rules {
                    check.lines.push(line);
                    if line.words.len() != 2 || line.word(1) != "connect" {
                        check.left.push((line, line.after(1).join(" "), "a check connects, and no more"));
                    }
                }
            }
            _ => {
                rules
                    .iter()
                    .chain(&tcp_rules)
                    .for_each(|line| sheet.moot(line, "checks are of another kind"));
                check.left.push((
                    last,
                    last.after(1).join(" "),
                    "checks do not speak that protocol; they connect",
                ));
            }
        }
        check
    }

    /// `option httpchk [METHOD] [URI [VERSION]]`
    fn option(&mut self, line: &'a Directive) {
        let words = line.after(2);
        let (method, path, version) = match words {
            [] => ("OPTIONS", "/", ""),
            [path] => ("OPTIONS", path.as_str(), ""),
            [method, path, version @ ..] => {
                (method.as_str(), path.as_str(), version.first().map_or("", String::as_str))
            }
        };
        self.path = path.into();
        self.with_method(line, method);
        // Of old, headers were written behind the version.
        for header in version.split("\r\n").skip(1).filter(|header| !header.is_empty()) {
            match header.split_once(':') {
                Some((name, host)) if name.eq_ignore_ascii_case("host") => {
                    self.host = Some(host.trim().into());
                }
                _ => self.left.push((line, header.to_owned(), "a check sends no other header than Host")),
            }
        }
    }

    fn with_method(&mut self, line: &'a Directive, method: &str) {
        self.method = (method != "GET").then(|| (line, method.to_owned()));
    }

    fn rule(&mut self, line: &'a Directive) {
        self.lines.push(line);
        match line.word(1) {
            "disable-on-404" => self.drains = !line.is_no,
            "expect" => self.expect(line),
            "send" => self.send(line),
            "connect" if line.words.len() == 2 => {}
            "comment" => {}
            "send-state" => self.left.push((
                line,
                "send-state".into(),
                "a check does not say what is thought of the server",
            )),
            _ => self.left.push((line, line.after(1).join(" "), "a check asks once, by GET")),
        }
    }

    fn expect(&mut self, line: &'a Directive) {
        const OTHER: &str = "a check looks at the status alone; write expect=200+3xx";
        let words: Vec<&str> = line.after(2).iter().map(String::as_str).collect();
        match words.as_slice() {
            ["status", statuses] if self.expect.is_none() => self.expect = Some(statuses.replace(',', "+")),
            ["rstatus", pattern] if self.expect.is_none() => match classes(pattern) {
                Some(classes) => self.expect = Some(classes),
                None => self.left.push((line, line.after(1).join(" "), OTHER)),
            },
            ["status" | "rstatus", _] => {
                self.left.push((line, line.after(1).join(" "), "statuses are expected once"));
            }
            _ => self.left.push((line, line.after(1).join(" "), OTHER)),
        }
    }

    fn send(&mut self, line: &'a Directive) {
        let mut words = line.after(2).iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            match word {
                "meth" => self.with_method(line, value),
                "uri" => self.path = value.into(),
                "ver" => {}
                "hdr" => {
                    let text = words.next().unwrap_or_default();
                    if value.eq_ignore_ascii_case("host") {
                        self.host = Some(text.into());
                    } else {
                        let header = format!("hdr {value} {text}");
                        self.left.push((line, header, "a check sends no other header than Host"));
                    }
                }
                _ => self.left.push((
                    line,
                    format!("{word} {value}"),
                    "a check has no body, and a path as it is",
                )),
            }
        }
    }
}

/// `^2[0-9][0-9]`, `^(2|3)[0-9][0-9]`, `[23]..`: the ways in which people write classes of statuses.
fn classes(pattern: &str) -> Option<String> {
    let bare = pattern.strip_prefix('^').unwrap_or(pattern);
    let bare = bare.strip_suffix('$').unwrap_or(bare);
    let tails = ["[0-9][0-9]", "[0-9]{2}", "..", r"\d\d", r"\d{2}"];
    let head = tails.iter().find_map(|tail| bare.strip_suffix(tail))?;
    let digits: Vec<char> = match head.chars().collect::<Vec<_>>().as_slice() {
        [digit] => vec![*digit],
        ['(', inner @ .., ')']
            if inner.len() % 2 == 1 && inner.iter().skip(1).step_by(2).all(|c| *c == '|') =>
        {
            inner.iter().step_by(2).copied().collect()
        }
        ['[', inner @ .., ']'] if !inner.is_empty() => inner.to_vec(),
        _ => return None,
    };
    let is_class = |digit: &char| ('1'..='5').contains(digit);
    digits
        .iter()
        .all(is_class)
        .then(|| digits.iter().map(|digit| format!("{digit}xx")).collect::<Vec<_>>().join("+"))
}

fn probe(sheet: &mut Sheet, check: &HttpCheck<'_>) {
    for (line, part, why) in &check.left {
        sheet.left_part(
            line,
            part,
            *why,
            if check.is_http { "--check http=PATH[,host=H][,expect=STATUSES]" } else { "--check tcp" },
        );
    }
    if !check.is_http {
        sheet.flag("--check", "tcp", &check.lines);
        if check.lines.is_empty() {
            sheet.because("servers have check");
        }
        return;
    }
    if let Some((line, method)) = &check.method {
        let why = "a check asks by GET; the server must answer that as it answers HAProxy";
        sheet.part(Verdict::Differs, line, method, why, "");
    }
    let mut text = format!("http={}", check.path);
    let options = [
        check.host.as_ref().map(|host| format!("host={host}")),
        check.expect.as_ref().map(|expect| format!("expect={expect}")),
        check.drains.then(|| "drain-on=404".to_owned()),
    ];
    let Some(first) = check.lines.first() else { return };
    if let Err(why) = tried(&text) {
        sheet.left_part(first, &check.path, why, "--check http=/PATH");
        text = "http=/".into();
    }
    for option in options.into_iter().flatten() {
        match tried(&format!("{text},{option}")) {
            Ok(longer) => text = longer,
            Err(why) => sheet.left_part(first, &option, why, ""),
        }
    }
    sheet.flag("--check", text, &check.lines);
}

fn tried(text: &str) -> Result<String, String> {
    trial(&[("--check", text)]).map(|_| text.to_owned())
}

/// The value that most servers have; the others are told that theirs does not count. `None`: nobody says anything.
fn common<'s, 'a>(
    sheet: &mut Sheet,
    servers: &'s [Server<'a>],
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
    (!winner.is_empty()).then(|| (winner, &servers[index]))
}

/// The line on which the server's option stands.
fn line_of<'a>(server: &Server<'a>, option: &str) -> &'a Directive {
    server.options.get(option).map_or(server.line, |given| given.line)
}

/// The interval, as it is now.
fn timing(sheet: &mut Sheet, servers: &[Server<'_>]) -> String {
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
    for (option, flag, usual) in [("rise", "--check-rise", "2"), ("fall", "--check-fall", "3")] {
        let found = common(sheet, servers, option, |server| {
            let text = value(&server.options, option);
            if text.is_empty() { usual.into() } else { text.into() }
        });
        let Some((text, server)) = found else { continue };
        match trial(&[(flag, &text)]) {
            Ok(_) => timed(sheet, flag, &text, server, option),
            Err(why) => sheet.left_part(server.line, &format!("{option} {text}"), why, format!("{flag} N")),
        }
    }
    interval
}

/// A flag of an option that may not have been given.
fn timed(sheet: &mut Sheet, flag: &'static str, text: &str, server: &Server<'_>, option: &str) {
    match server.options.get(option) {
        Some(given) => sheet.flag(flag, text, &[given.line]),
        None => sheet.implied(flag, text, &format!("what HAProxy does without {option}")),
    }
}

fn observe(sheet: &mut Sheet, servers: &[Server<'_>], is_checked: bool) {
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
        "layer7" => "5xx",
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

fn slow_start(sheet: &mut Sheet, servers: &[Server<'_>]) {
    let found = common(sheet, servers, "slowstart", |server| value(&server.options, "slowstart").into());
    let Some((text, server)) = found else { return };
    match time(&text, Bare::Millis) {
        Ok(time) if !time.is_zero() => {
            sheet.flag("--slow-start", ours(seconds(time)), &[line_of(server, "slowstart")]);
        }
        _ => sheet.left_part(server.line, &format!("slowstart {text}"), "is no time", "--slow-start T"),
    }
}

fn marked_down(sheet: &mut Sheet, servers: &[Server<'_>], is_checked: bool) {
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

fn send_proxy(sheet: &mut Sheet, servers: &[Server<'_>]) {
    let version = |server: &Server<'_>| {
        let has = |name: &str| server.options.contains_key(name);
        let is_v2 = ["send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"].into_iter().any(has);
        match (is_v2, has("send-proxy")) {
            (true, _) => "v2".into(),
            (_, true) => "v1".into(),
            _ => String::new(),
        }
    };
    if let Some((text, server)) = common(sheet, servers, "send-proxy", version) {
        let line = ["send-proxy-v2", "send-proxy"].into_iter().find_map(|name| server.options.get(name));
        sheet.flag("--send-proxy", text, &[line.map_or(server.line, |given| given.line)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_statuses_are_known_by_how_people_write_them() {
        let table = [
            ("^2[0-9][0-9]", Some("2xx")),
            ("^(2|3)[0-9][0-9]", Some("2xx+3xx")),
            ("[23]..", Some("2xx+3xx")),
            (r"^[234]\d{2}$", Some("2xx+3xx+4xx")),
            ("^(200|301)", None),
            ("(2|)..", None),
            ("[2-3]..", None),
            ("", None),
        ];
        for (pattern, expected) in table {
            assert_eq!(classes(pattern).as_deref(), expected, "{pattern}");
        }
    }
}
