//! Decisions in sentences: traces and letters are for logs.

use super::clean::Clean;
use super::model::{Answer, Decision, Server, ServerDetail};
use super::sheet::{Tone, address_of, tone_of_state};
use super::units;

/// A line of a text: what it is about, if that stands before it, and what is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fact {
    /// May be empty.
    pub label: String,
    /// May be long.
    pub text: String,
    /// How it is shown.
    pub tone: Tone,
}

fn fact(label: &str, text: impl Into<String>) -> Fact {
    Fact { label: label.to_owned(), text: text.into(), tone: Tone::Plain }
}

fn toned(label: &str, text: impl Into<String>, tone: Tone) -> Fact {
    Fact { tone, ..fact(label, text) }
}

/// A request, and why it went where it went.
pub fn of_decision(decision: &Decision) -> Vec<Fact> {
    let or = |text: Option<&Clean>, none: &str| text.map_or_else(|| none.to_owned(), ToString::to_string);
    let status = decision.status.map_or_else(|| "no status".to_owned(), |status| status.to_string());
    let mut facts = vec![
        fact("ended at", decision.time.as_str()),
        fact("client", or(decision.client.as_ref(), "not shown")),
        fact("answered with", status),
        fact("served by", or(decision.server.as_ref(), "no server")),
        Fact::default(),
        fact("how it was decided", ""),
    ];
    let steps = steps(decision.persist.as_str());
    facts.extend(
        steps.iter().enumerate().map(|(number, step)| fact(&format!("{}.", number + 1), step.clone())),
    );
    if steps.is_empty() {
        facts.push(fact("", "It did not come to a decision."));
    }
    facts.push(Fact::default());
    facts.extend(letters(decision.letters.as_str()));
    facts.extend([Fact::default(), fact("as in the log", decision.persist.as_str())]);
    facts
}

/// `cookie:miss,source:hit>s2,balance>s1`, a sentence each.
fn steps(trace: &str) -> Vec<String> {
    let chosen = trace.split(',').find_map(|step| {
        let (head, server) = step.split_once('>')?;
        (head.ends_with(":hit") || head.ends_with(":ambiguous")).then_some(server)
    });
    trace.split(',').filter(|part| !part.is_empty()).map(|part| step(part, chosen)).collect()
}

/// `chosen` is the server that a method has decided for.
fn step(step: &str, chosen: Option<&str>) -> String {
    if let Some(server) = step.strip_prefix("balance>") {
        return format!("No method decided, so --balance chose {server}.");
    }
    // Labels may have colons; verdicts and names of servers have none.
    let Some((label, rest)) = step.rsplit_once(':') else { return step.to_owned() };
    let (verdict, server) = match rest.split_once('>') {
        Some(("outvoted", server)) if chosen == Some(server) => {
            return format!("{label} named {server} as well: it agrees with what had decided.");
        }
        Some((verdict, server)) => (verdict, format!("named {server}, which ")),
        None => (rest, "named a server that ".to_owned()),
    };
    let what = match verdict {
        "hit" => format!("{server}can be used: it decided"),
        "miss" => "found nothing that names a server of today".to_owned(),
        "invalid" => "found something that names no server".to_owned(),
        "expired" => "found an entry that is past its life".to_owned(),
        "down" => format!("{server}is down, or refused the connection"),
        "maint" => format!("{server}is in maintenance"),
        "ambiguous" => format!("{server}can be used: it decided, though several users share the key"),
        "outvoted" => format!(
            "{server}can be used, but a method before it had decided, or the client was moved away from there"
        ),
        "backup" => format!("{server}is a backup, which its users are to leave"),
        other => format!("{server}was: {other}"),
    };
    format!("{label} {what}.")
}

/// HAProxy's two letters: the cookie of the request, the cookie of the response.
fn letters(letters: &str) -> Vec<Fact> {
    let mut letters = letters.chars();
    let request = letters.next().map(|letter| {
        let text = match letter {
            'N' => "there was none",
            'V' => "it named a server that can be used",
            'I' => "it named no server",
            'D' => "it named a server that is down",
            'E' => "it was not used for too long",
            'O' => "it is too old",
            'U' => "it was not used for the decision",
            _ => "there is no cookie method",
        };
        fact("cookie of the request", text)
    });
    let response = letters.next().map(|letter| {
        let text = match letter {
            'N' => "none, and nothing was changed",
            'I' => "one was inserted",
            'U' => "one was issued anew",
            'D' => "the server's was deleted",
            'P' => "passed as the server set it",
            'R' => "the server's was rewritten or prefixed",
            _ => "there is no cookie method",
        };
        fact("cookie of the answer", text)
    });
    request.into_iter().chain(response).collect()
}

/// A server, and all that is known of it.
pub fn of_server(answer: &Answer, name: &str) -> Vec<Fact> {
    let Some(server) = answer.status.servers.iter().find(|server| server.name.as_str() == name) else {
        return vec![fact("", format!("There is no server {name} any more."))];
    };
    let more = answer.server.as_ref().filter(|(of, _)| of == name).map(|(_, detail)| detail);
    let mut facts = place_and_state(server);
    facts.push(Fact::default());
    facts.extend(load(server, more));
    facts.push(Fact::default());
    facts.extend(quality(server));
    if let Some(traffic) = more.and_then(|more| more.fast_traffic).or(server.fast_traffic) {
        let both = |packets, bytes| format!("{} in {} packets", units::bytes(bytes), units::count(packets));
        facts.extend([
            Fact::default(),
            fact(
                "fast connections",
                format!(
                    "{} now, {} opened, {} closed",
                    units::count(traffic.active),
                    units::count(traffic.opened),
                    units::count(traffic.closed)
                ),
            ),
            fact("fast, from clients", both(traffic.packets_in, traffic.bytes_in)),
            fact("fast, to clients", both(traffic.packets_out, traffic.bytes_out)),
        ]);
    }
    facts
}

fn place_and_state(server: &Server) -> Vec<Fact> {
    let address = address_of(server);
    let address = match &server.host {
        Some(host) => format!("{address}, of the name {host}"),
        None => address.to_string(),
    };
    let state = match server.state.as_str() {
        "up" => "up: it serves",
        "drain" => "drain: who is there stays, nobody new comes",
        "down" => "down: its checks fail",
        "maint" => "maint: nobody is sent there",
        other => other,
    };
    let share = if server.effective_weight < f64::from(server.weight) {
        format!("{}, of which {:.2} count now", server.weight, server.effective_weight)
    } else {
        server.weight.to_string()
    };
    let role = if server.backup { "backup: serves only when no primary can" } else { "primary" };
    let cookie = server.cookie.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    vec![
        fact("address", address),
        toned(
            "state",
            format!("{state} (for {})", units::span(server.seconds_in_state)),
            tone_of_state(server.state.as_str()),
        ),
        fact("the operator says", server.operator.as_str()),
        toned("the checks say", server.health.as_str(), tone_of_health(server.health.as_str())),
        fact(
            "was down",
            if server.down_seconds > 0 {
                format!("for {}", units::span(server.down_seconds))
            } else {
                "not at all".to_owned()
            },
        ),
        fact("weight", share),
        fact("role", role),
        fact("id in cookies", cookie),
    ]
}

fn tone_of_health(health: &str) -> Tone {
    if health == "down" { Tone::Bad } else { Tone::Plain }
}

fn load(server: &Server, more: Option<&ServerDetail>) -> Vec<Fact> {
    let limit = server.maxconn.map_or_else(String::new, |most| format!(" of {} at most", units::count(most)));
    let entries = more.map_or(server.entries, |more| more.entries);
    let connections = more.map_or_else(|| "...".to_owned(), |more| units::count(more.connections));
    vec![
        fact(
            "requests",
            format!(
                "{} in all, {} a second, {}{limit} in flight, {} waiting",
                units::count(server.requests),
                units::count(server.sessions_per_second),
                units::count(server.in_flight),
                units::count(server.queue)
            ),
        ),
        fact("connections", format!("{connections} now, proxy and fast path together")),
        fact(
            "stuck to it",
            entries.map_or_else(
                || "- (no table learns)".to_owned(),
                |entries| format!("{} learned entries name it", units::count(entries)),
            ),
        ),
    ]
}

fn quality(server: &Server) -> Vec<Fact> {
    let (millis, failures, responses) = (&server.millis, &server.failures, &server.responses);
    let failed = format!(
        "{} to connect, {} without a usable answer, {} broken off",
        units::count(failures.connect),
        units::count(failures.response),
        units::count(failures.broken_off)
    );
    vec![
        fact(
            "mean times",
            format!(
                "queue {}, connect {}, answer {}, all {}",
                units::millis(millis.queue),
                units::millis(millis.connect),
                units::millis(millis.response),
                units::millis(millis.total)
            ),
        ),
        fact("answers", answers(responses)),
        toned("failures", failed, if failures.sum() > 0 { Tone::Bad } else { Tone::Plain }),
    ]
}

/// Answers by class, those there are.
pub(super) fn answers(responses: &super::model::Responses) -> String {
    let classes = [
        ("1xx", responses.informational),
        ("2xx", responses.success),
        ("3xx", responses.redirection),
        ("4xx", responses.client_error),
        ("5xx", responses.server_error),
        ("none", responses.none),
    ];
    let there_are = classes.iter().filter(|(class, n)| *n > 0 || matches!(*class, "2xx" | "5xx"));
    there_are.map(|(class, n)| format!("{class} {}", units::count(*n))).collect::<Vec<_>>().join("  ")
}

/// What the keys do, and what headings mean; short enough for 80 columns and 24 lines.
pub const HELP: &[(&str, &str)] = &[
    ("1 to 5, Tab", "pages: overview, servers, tables, flows, decisions"),
    ("Up, Down", "go through rows or text; also k j, PgUp PgDn, Home End, g G"),
    ("Enter", "more about this server or decision; Esc goes back"),
    ("s  <  S", "sort by the next column, the one before, the other way"),
    ("/", "show only rows with a text; Enter keeps it, Esc shows all"),
    ("Space, f", "freeze what is seen; once more: go on"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "to the shell; fg comes back"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("fast", "connections that XDP forwards now, without the proxy"),
    ("stuck", "learned entries that name a server: sessions that stay"),
    ("mean", "time of the last requests, queue and answer included"),
    ("failed", "connections refused, answers not understood or broken off"),
    ("p50, p99", "half of the requests, 99 of 100, took about so long or less"),
    ("full", "share of a table that is used, without what is on probation"),
    ("probation", "entries used once so far"),
    ("letters", "of the cookie in request and answer, as HAProxy has them"),
];

/// The help as a text.
pub fn help() -> Vec<Fact> {
    HELP.iter().map(|(key, what)| fact(key, *what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_told() {
        let table = [
            ("", vec![]),
            ("balance>s1", vec!["No method decided, so --balance chose s1."]),
            (
                "cookie:miss,session=a:b:hit>s2",
                vec![
                    "cookie found nothing that names a server of today.",
                    "session=a:b named s2, which can be used: it decided.",
                ],
            ),
            ("source:down>s3", vec!["source named s3, which is down, or refused the connection."]),
            (
                "cookie:hit>s1,source:outvoted>s1,header=X:outvoted>s2",
                vec![
                    "cookie named s1, which can be used: it decided.",
                    "source named s1 as well: it agrees with what had decided.",
                    "header=X named s2, which can be used, but a method before it had decided, or the client was moved away \
                     from there.",
                ],
            ),
            ("odd", vec!["odd"]),
            ("x:new>s1", vec!["x named s1, which was: new."]),
        ];
        for (trace, expected) in table {
            assert_eq!(steps(trace), expected, "{trace}");
        }
    }

    #[test]
    fn every_verdict_has_words() {
        for verdict in crate::persist::trace::Verdict::ALL {
            let told = step(&format!("source:{}>s1", verdict.as_str()), None);
            assert!(!told.contains("was:"), "{told}");
        }
    }
}
