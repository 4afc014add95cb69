//! `show errors`: the last request and the last response of each worker that were not understood.

use std::fmt::Write;

use super::{Desk, is_ours, no_such_backend};
use crate::access_log::time;
use crate::clock;
use crate::stats::capture::{Captured, Side};

/// Bytes of a message in one line.
const LINE: usize = 60;

pub(super) fn show(desk: &Desk, words: &[&str]) -> Result<String, String> {
    let sides: &[Side] = match words {
        [.., "request"] => &[Side::Request],
        [.., "response"] => &[Side::Response],
        _ => &[Side::Request, Side::Response],
    };
    let proxy = words.iter().find(|word| !matches!(**word, "request" | "response"));
    if let Some(proxy) = proxy
        && !is_ours(desk, proxy)
        && *proxy != "-1"
    {
        return Err(no_such_backend(desk, proxy));
    }
    let mut captured: Vec<_> = sides.iter().flat_map(|side| desk.stats.captured(*side)).collect();
    captured.sort_by_key(|captured| captured.unix_millis);
    let now = haproxy_time(clock::unix_millis());
    let mut text = format!("Total events captured on [{now}] : {}\n", captured.len());
    for (number, captured) in captured.iter().enumerate() {
        write_one(&mut text, desk, number, captured);
    }
    Ok(text)
}

/// `22/Nov/2026:19:44:46.809`, in UTC.
fn haproxy_time(unix_millis: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut written = Vec::new();
    time::write(&mut written, unix_millis);
    let text = String::from_utf8_lossy(&written);
    let month = text[5..7].parse::<usize>().ok().and_then(|month| MONTHS.get(month - 1)).unwrap_or(&"Jan");
    format!("{}/{month}/{}:{}", &text[8..10], &text[..4], &text[11..23])
}

fn write_one(text: &mut String, desk: &Desk, number: usize, captured: &Captured) {
    let Captured { side, unix_millis, client, server, fault, bytes, length } = captured;
    let name = &desk.service.config.name;
    let (time, what) =
        (haproxy_time(*unix_millis), if *side == Side::Request { "request" } else { "response" });
    let server = server.map_or("<NONE>", |place| desk.service.servers[place].name.as_str());
    let side = if *side == Side::Request { "frontend" } else { "backend" };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n[{time}] {side} {name} (#2): invalid {what}: {fault}\n  backend {name} (#3), server {server}, event #{number}, \
         src {client}\n  {} of {length} bytes, what may be secret as asterisks:\n\n",
        bytes.len()
    );
    let mut start = 0;
    while start < bytes.len() {
        let rest = &bytes[start..];
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1).min(LINE);
        let is_continued = start > 0 && bytes[start - 1] != b'\n';
        let mark = if is_continued { '+' } else { ' ' };
        let _ = writeln!(text, "  {start:05}{mark} {}", rest[..end].escape_ascii());
        start += end;
    }
}
