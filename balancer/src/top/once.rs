//! `--once`: the overview and the servers as plain text.

use std::fmt::Write;

use super::clean::{fit, width};
use super::draw::standing;
use super::model::{Answer, Sample};
use super::sheet::{Row, Sheet, Sorting};
use super::{units, words};

/// The text; its lines are cut at so many columns, if there is such a number.
pub fn text(answer: &Answer, most: Option<usize>) -> String {
    let mut text = String::new();
    for line in overview(answer).into_iter().chain([String::new()]).chain(servers(answer)) {
        let line = most.map_or_else(|| line.clone(), |most| fit(&line, most, '~'));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn overview(answer: &Answer) -> Vec<String> {
    let status = &answer.status;
    let (info, clients) = (&status.info, &status.clients);
    let mut facts = vec![
        ("service", format!("{}: {}", info.name, standing(status).0)),
        (
            "process",
            format!(
                "balancer {}, pid {}, since {}",
                info.version,
                info.pid,
                units::span(info.uptime_seconds)
            ),
        ),
        ("clients", format!("{} of {}", units::count(clients.now), units::count(clients.limit))),
        ("requests/s", units::count(clients.requests_per_second)),
        ("connections/s", units::count(clients.connections_per_second)),
    ];
    if let Some(last) = status.history.samples.last() {
        facts.extend(means(last));
    }
    facts.extend([
        ("waiting", units::count(status.waiting)),
        ("answers", words::answers(&status.responses)),
        ("fast path", fast_path(answer)),
    ]);
    facts.into_iter().map(|(label, fact)| format!("{label:14} {fact}")).collect()
}

fn means(last: &Sample) -> Vec<(&'static str, String)> {
    let millis = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), units::millis);
    vec![
        ("failures/s", units::rate(last.failures_per_second)),
        ("time", format!("p50 {}, p99 {}", millis(last.p50_millis), millis(last.p99_millis))),
    ]
}

fn fast_path(answer: &Answer) -> String {
    let status = &answer.status;
    let Some(fast) = status.fast_path else { return "none".to_owned() };
    let rate = status.history.samples.last().map_or(0.0, |last| last.fast_per_second);
    let share = fast
        .share
        .map_or_else(String::new, |share| format!(", {} of the last minute's", units::percent(share)));
    format!("{} connections now, {} new a second{share}", units::count(fast.connections), units::rate(rate))
}

fn servers(answer: &Answer) -> Vec<String> {
    let sheet = Sheet::servers(answer).sorted(Sorting { column: 0, is_descending: false });
    let widths: Vec<usize> = (0..sheet.columns.len())
        .map(|index| {
            let cells = sheet.rows.iter().map(|row| width(&row.cells[index].text));
            cells.max().unwrap_or(0).max(sheet.columns[index].title.len())
        })
        .collect();
    let titles = sheet.columns.iter().map(|column| column.title);
    let head = line(&sheet, &widths, titles);
    let row = |row: &Row| line(&sheet, &widths, row.cells.iter().map(|cell| cell.text.as_str()));
    std::iter::once(head).chain(sheet.rows.iter().map(row)).collect()
}

fn line<'a>(sheet: &Sheet, widths: &[usize], cells: impl Iterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for ((cell, columns), column) in cells.zip(widths).zip(sheet.columns) {
        let space = " ".repeat(columns.saturating_sub(width(cell)));
        line += &if column.is_number { format!("{space}{cell}  ") } else { format!("{cell}{space}  ") };
    }
    line
}
