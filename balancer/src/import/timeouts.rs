//! `timeout …` and `retries`.

use std::time::Duration;

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::sheet::Sheet;
use super::values::{Bare, LONGEST, ours, time};

/// A time that was given. HAProxy waits for ever with 0.
fn given(sheet: &mut Sheet, line: &Directive) -> Option<Duration> {
    match time(line.word(2), Bare::Millis) {
        Ok(Duration::ZERO) => {
            sheet.differs(
                line,
                "0 is for ever in HAProxy, and nothing waits for ever here: it is a year",
                "",
            );
            Some(LONGEST)
        }
        Ok(time) => Some(time),
        Err(why) => {
            sheet.left(line, why, "the default holds; balancer run --help shows it");
            None
        }
    }
}

/// All of them.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, is_http: bool) {
    let mut read = |side, name| {
        let line = pair.last(side, &["timeout", name])?;
        given(sheet, line).map(|time| (line, time))
    };
    let client = read(Side::Front, "client");
    let server = read(Side::Back, "server");
    let connect = read(Side::Back, "connect");
    let request = read(Side::Front, "http-request");
    let keep_alive = read(Side::Front, "http-keep-alive");
    let tunnel = read(Side::Back, "tunnel");
    let mut flag = |flag, found: Option<(&Directive, Duration)>| {
        if let Some((line, time)) = found {
            sheet.flag(flag, ours(time), &[line]);
        }
    };
    flag("--timeout-connect", connect);
    if is_http {
        flag("--timeout-client", client);
        flag("--timeout-server", server);
        flag("--timeout-request", request.or(client));
        if request.is_none() && client.is_some() {
            sheet.because("there is no timeout http-request");
        }
        if let Some((line, time)) = keep_alive.or(request).or(client) {
            sheet.flag("--timeout-keepalive", ours(time), &[line]);
            if keep_alive.is_none() {
                sheet.because("there is no timeout http-keep-alive");
            }
        }
    }
    carry_tunnel(sheet, is_http, tunnel, client, server);
    let missing: Vec<&str> = [
        ("timeout client", client.is_none() && is_http),
        ("timeout server", server.is_none() && is_http),
        ("timeout connect", connect.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, is_missing)| is_missing.then_some(name))
    .collect();
    if !missing.is_empty() {
        sheet.notes.push(format!(
            "Without {} HAProxy waits for ever, of which it warns; here the defaults hold, see balancer run --help.",
            missing.join(", ")
        ));
    }
    retries(pair, sheet);
}

/// Without a time of its own a tunnel has those of its two sides.
fn carry_tunnel(
    sheet: &mut Sheet,
    is_http: bool,
    tunnel: Option<(&Directive, Duration)>,
    client: Option<(&Directive, Duration)>,
    server: Option<(&Directive, Duration)>,
) {
    if let Some((line, time)) = tunnel {
        sheet.flag("--timeout-tunnel", ours(time), &[line]);
        return;
    }
    let lines: Vec<_> = [client, server].into_iter().flatten().collect();
    let Some(least) = lines.iter().map(|(_, time)| *time).min() else { return };
    let from: Vec<&Directive> = lines.iter().map(|(line, _)| *line).collect();
    sheet.flag("--timeout-tunnel", ours(least), &from);
    sheet.because(if is_http {
        "there is no timeout tunnel, so it is the shorter of the two for WebSockets"
    } else {
        "of a connection on which neither side says anything: the shorter of the two"
    });
}

/// Only where somebody can wait.
pub(super) fn carry_queue(pair: &Pair<'_>, sheet: &mut Sheet, can_wait: bool) {
    let Some(line) = pair.last(Side::Back, &["timeout", "queue"]) else { return };
    if !can_wait {
        sheet.moot(line, "no server that is carried over has maxconn, so nobody waits");
    } else if let Some(time) = given(sheet, line) {
        sheet.flag("--timeout-queue", ours(time), &[line]);
    }
}

fn retries(pair: &Pair<'_>, sheet: &mut Sheet) {
    const MOST: u32 = 10;
    let Some(line) = pair.last(Side::Back, &["retries"]) else { return };
    match line.word(1).parse::<u32>() {
        Ok(number) => {
            if number > MOST {
                sheet.differs(line, format!("{MOST} attempts more than the first are the most"), "");
            }
            sheet.flag("--retries", number.min(MOST).to_string(), &[line]);
        }
        Err(_) => sheet.left(line, "is no number", "--retries N; 3 unless given"),
    }
}
