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
    // A client's silence counts between requests as well.
    let idle = keep_alive.or(request).or(client);
    let is_capped = client.zip(idle).is_some_and(|((_, client), (_, idle))| client < idle);
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
            sheet.because("there is no timeout http-request; here it is for the whole head");
        }
        if let Some((line, time)) = if is_capped { client } else { idle } {
            sheet.flag("--timeout-keepalive", ours(time), &[line]);
            if is_capped {
                sheet.because("it is shorter than timeout http-keep-alive, and counts there as well");
                if let Some((line, _)) = keep_alive {
                    sheet.moot(line, "timeout client is shorter, and counts there as well");
                }
            } else if keep_alive.is_none() {
                sheet.because("there is no timeout http-keep-alive");
            }
        }
    }
    carry_tunnel(sheet, is_http, tunnel, client, server);
    let given = |side, name| pair.last(side, &["timeout", name]).is_some();
    for (section, side, name, counts) in [
        (pair.front, Side::Front, "client", is_http),
        (pair.back, Side::Back, "server", is_http),
        (pair.back, Side::Back, "connect", true),
    ] {
        if counts && !given(side, name) {
            let why = "without it HAProxy waits for ever, of which it warns; here the default holds";
            let nearest = format!("--timeout-{name} T, see balancer run --help");
            sheet.missing(&pair.configuration.sections[section], &format!("timeout {name}"), why, nearest);
        }
    }
    retries(pair, sheet, connect.map(|(_, time)| time));
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

/// HAProxy waits a second before it tries the same server again, or `timeout connect` if that is less.
fn retries(pair: &Pair<'_>, sheet: &mut Sheet, connect: Option<Duration>) {
    const MOST: u32 = 10;
    const PAUSE: Duration = Duration::from_secs(1);
    let pause = connect.map_or(PAUSE, |connect| connect.min(PAUSE));
    sheet.implied("--retry-pause", ours(pause), "between two attempts at one server, as in HAProxy");
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
