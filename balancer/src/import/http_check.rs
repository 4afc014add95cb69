//! `option httpchk`, `http-check` and `tcp-check`: what a check asks, and what it takes for an answer.

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::sheet::Sheet;

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

/// What all these lines say together.
#[derive(Default)]
pub(super) struct Check<'a> {
    pub(super) is_http: bool,
    pub(super) request: Request<'a>,
    pub(super) drains: bool,
    pub(super) lines: Vec<&'a Directive>,
    pub(super) left: Vec<Left<'a>>,
    /// It does not ask where the server serves.
    pub(super) elsewhere: Option<&'a Directive>,
}

/// One request and the answer to it.
#[derive(Default)]
pub(super) struct Request<'a> {
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) expect: Option<String>,
    /// The method, unless it is GET.
    pub(super) method: Option<(&'a Directive, String)>,
    /// Where another protocol is asked for, or expected to be.
    pub(super) upgrades: Option<&'a Directive>,
    lines: Vec<&'a Directive>,
}

/// What cannot be said here.
pub(super) struct Left<'a> {
    pub(super) line: &'a Directive,
    pub(super) part: String,
    pub(super) why: &'static str,
    /// A server is kept from clients by it.
    pub(super) is_access: bool,
}

impl<'a> Check<'a> {
    pub(super) fn read(pair: &Pair<'a>, sheet: &mut Sheet) -> Self {
        let mut check = Self::default();
        let httpchk = pair.on(Side::Back, &["option", "httpchk"]);
        let tcp = pair.on(Side::Back, &["option", "tcp-check"]);
        let own = PROTOCOLS.iter().filter_map(|name| pair.on(Side::Back, &["option", name]));
        let all: Vec<&Directive> = httpchk.into_iter().chain(tcp).chain(own).collect();
        let last = all.iter().max_by_key(|line| line.place).copied();
        for line in all.iter().filter(|line| !last.is_some_and(|last| std::ptr::eq(last, **line))) {
            sheet.moot(line, "another kind of check is asked for after it");
        }
        let is_setting = |line: &Directive| matches!(line.word(1), "disable-on-404" | "send-state");
        let settings: Vec<_> =
            pair.all(Side::Back, &["http-check"]).into_iter().filter(|line| is_setting(line)).collect();
        // Rules of a section take the place of all that it inherits.
        let rules = pair.innermost(Side::Back, &["http-check"], |line| !is_setting(line));
        let tcp_rules = pair.innermost(Side::Back, &["tcp-check"], |_| true);
        let Some(last) = last else {
            for line in settings.iter().chain(&rules).chain(&tcp_rules) {
                sheet.moot(line, "HAProxy ignores it too, without an option that asks for such checks");
            }
            return check;
        };
        check.lines.push(last);
        match last.word(1) {
            "httpchk" => {
                check.is_http = true;
                check.http(in_order(pair, sheet, last, rules));
                settings.into_iter().for_each(|line| check.setting(line));
                tcp_rules.iter().for_each(|line| sheet.moot(line, "checks are HTTP"));
            }
            "tcp-check" => {
                for line in settings.iter().chain(&rules) {
                    sheet.moot(line, "checks are not HTTP");
                }
                tcp_rules.into_iter().for_each(|line| check.tcp(line));
            }
            _ => {
                for line in settings.iter().chain(&rules).chain(&tcp_rules) {
                    sheet.moot(line, "checks are of another kind");
                }
                let part = last.after(1).join(" ");
                check.leave(last, part, "checks do not speak that protocol; they connect");
            }
        }
        check
    }

    fn leave(&mut self, line: &'a Directive, part: String, why: &'static str) {
        self.left.push(Left { line, part, why, is_access: false });
    }

    /// `disable-on-404` and `send-state`
    fn setting(&mut self, line: &'a Directive) {
        self.lines.push(line);
        if line.word(1) == "disable-on-404" {
            self.drains = !line.is_no;
        } else if !line.is_no {
            self.leave(line, "send-state".into(), "a check does not say what is thought of the server");
        }
    }

    fn tcp(&mut self, line: &'a Directive) {
        self.lines.push(line);
        let (part, why) = (line.after(1).join(" "), "a check connects, and no more");
        match line.word(1) {
            "connect" => self.connect(line),
            "comment" => {}
            // Who is the master, say.
            "expect" => self.left.push(Left { line, part, why, is_access: true }),
            _ => self.leave(line, part, why),
        }
    }

    /// `connect [port N] [addr A] [ssl] …`
    fn connect(&mut self, line: &'a Directive) {
        let mut words = line.after(2).iter().map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "default" | "linger" | "send-proxy" => {}
                "comment" => drop(words.next()),
                "port" | "addr" | "ssl" => {
                    self.elsewhere = Some(line);
                    if word != "ssl" {
                        words.next();
                    }
                }
                _ => self.leave(line, word.to_owned(), "a check connects as clients' requests do"),
            }
        }
    }

    /// `option httpchk` and the rules, which are steps of a request each where HAProxy connects more than once.
    fn http(&mut self, lines: Vec<&'a Directive>) {
        let mut steps = vec![Request::default()];
        for line in lines {
            let last = steps.len() - 1;
            match line.word(1) {
                "httpchk" => self.option(&mut steps[0], line),
                "connect" if !steps[last].lines.is_empty() => {
                    steps.push(Request::default());
                    self.rule(&mut steps[last + 1], line);
                }
                _ => self.rule(&mut steps[last], line),
            }
        }
        // One that only connects asks nothing.
        let asks = |step: &Request<'_>| !step.lines.is_empty();
        let chosen = steps.iter().rposition(asks).unwrap_or_default();
        self.request = steps.swap_remove(chosen);
        for line in steps.into_iter().flat_map(|step| step.lines) {
            let why = "a check asks once, and here that is the last of its steps";
            self.leave(line, line.after(1).join(" "), why);
        }
    }

    /// `option httpchk [METHOD] [URI [VERSION]]`
    fn option(&mut self, step: &mut Request<'a>, line: &'a Directive) {
        let (method, path, version) = match line.after(2) {
            // Rules above it may have said more.
            [] if step.path.is_some() => return,
            [] => ("OPTIONS", "/", ""),
            [path] => ("OPTIONS", path.as_str(), ""),
            [method, path, version @ ..] => {
                (method.as_str(), path.as_str(), version.first().map_or("", String::as_str))
            }
        };
        step.path = Some(path.into());
        step.with_method(line, method);
        // Of old, headers were written behind the version.
        for header in version.split("\r\n").skip(1).filter(|header| !header.is_empty()) {
            match header.split_once(':') {
                Some((name, host)) if name.eq_ignore_ascii_case("host") => {
                    step.host = Some(host.trim().into());
                }
                _ => self.leave(line, header.to_owned(), "a check sends no other header than Host"),
            }
        }
    }

    fn rule(&mut self, step: &mut Request<'a>, line: &'a Directive) {
        self.lines.push(line);
        match line.word(1) {
            "expect" => self.expect(step, line),
            "send" => self.send(step, line),
            "connect" => return self.connect(line),
            "comment" => return,
            _ => self.leave(line, line.after(1).join(" "), "a check asks once, by GET"),
        }
        step.lines.push(line);
    }

    fn expect(&mut self, step: &mut Request<'a>, line: &'a Directive) {
        const OTHER: &str = "a check looks at the status alone; write expect=200+3xx";
        let words: Vec<&str> = line.after(2).iter().map(String::as_str).collect();
        match words.as_slice() {
            ["status", statuses] if step.expect.is_none() => {
                if statuses.split(',').all(|status| status.starts_with('1')) {
                    step.upgrades = Some(line);
                }
                step.expect = Some(statuses.replace(',', "+"));
            }
            ["rstatus", pattern] if step.expect.is_none() => match classes(pattern) {
                Some(classes) => step.expect = Some(classes),
                None => self.leave(line, line.after(1).join(" "), OTHER),
            },
            ["status" | "rstatus", _] => {
                self.leave(line, line.after(1).join(" "), "statuses are expected once");
            }
            _ => self.leave(line, line.after(1).join(" "), OTHER),
        }
    }

    fn send(&mut self, step: &mut Request<'a>, line: &'a Directive) {
        if step.path.is_none() {
            step.with_method(line, "OPTIONS");
        }
        let mut words = line.after(2).iter().map(String::as_str);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            match word {
                "meth" => step.with_method(line, value),
                "uri" => step.path = Some(value.into()),
                "ver" | "comment" => {}
                "hdr" => {
                    let text = words.next().unwrap_or_default();
                    if value.eq_ignore_ascii_case("host") {
                        step.host = Some(text.into());
                    } else {
                        let header = format!("hdr {value} {text}");
                        self.leave(line, header, "a check sends no other header than Host");
                    }
                }
                _ => self.leave(line, format!("{word} {value}"), "a check has no body, and a path as it is"),
            }
        }
    }
}

/// The option and the rules that count: what a section says takes the place of all that it inherits, either way.
fn in_order<'a>(
    pair: &Pair<'a>,
    sheet: &mut Sheet,
    option: &'a Directive,
    mut rules: Vec<&'a Directive>,
) -> Vec<&'a Directive> {
    let (of_option, of_rules) = (pair.section(option), rules.first().and_then(|rule| pair.section(rule)));
    if of_rules < of_option {
        pair.replace(&rules, option);
        return vec![option];
    }
    if of_rules == of_option {
        rules.push(option);
        rules.sort_by_key(|line| line.place);
    } else if !rules.iter().any(|line| line.word(1) == "send") {
        let why = "HAProxy 2.6 sends no request then, and the check fails; here it is that of the option";
        sheet.differs(rules[0], why, "");
        rules.insert(0, option);
    }
    rules
}

impl<'a> Request<'a> {
    fn with_method(&mut self, line: &'a Directive, method: &str) {
        self.method = (method != "GET").then(|| (line, method.to_owned()));
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
