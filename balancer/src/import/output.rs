//! The result as people, programs and the balancer read it.

use std::fmt::Write;

use serde_json::{Value, json};

use super::sections::{Configuration, short};
use super::sheet::{Flag, Remark, Sheet, Verdict};
use super::trial;
use crate::log::plain;

/// Comments begin there, unless a value is longer.
const WIDEST: usize = 60;

/// The `@FILE`: flags with the lines they come from, then what is to be known.
pub(super) fn file(configuration: &Configuration, sheet: &Sheet, title: &str) -> String {
    let mut text = format!("{}\n", comment(title));
    let lines: Vec<String> =
        sheet.flags.iter().map(|flag| trial::line(flag.flag, flag.value.as_deref())).collect();
    let width = lines.iter().map(|line| line.chars().count()).filter(|width| *width <= WIDEST).max();
    let width = width.unwrap_or_default();
    for (line, flag) in lines.iter().zip(&sheet.flags) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line:width$}  # {}", origin(configuration, flag));
    }
    for note in &sheet.notes {
        let _ = write!(text, "\n{}", comment(note));
    }
    let sections = [
        (Verdict::Left, true, "Not carried over, and it decides who gets in or where they go:"),
        (Verdict::Left, false, "Not carried over:"),
        (Verdict::Differs, false, "Carried over, and not the same:"),
        (Verdict::Moot, false, "Needs nothing here:"),
    ];
    for (verdict, is_access, title) in sections {
        let is_it = |remark: &&Remark| remark.verdict == verdict && remark.is_access == is_access;
        let mut remarks = sheet.remarks.iter().filter(is_it).peekable();
        if remarks.peek().is_some() {
            let _ = writeln!(text, "\n# {title}");
        }
        for remark in remarks {
            let _ = write!(text, "{}", comment(&sentence(configuration, remark)));
        }
    }
    text
}

/// What has to be looked at, a line each, for stderr.
pub(super) fn list(configuration: &Configuration, sheet: &Sheet) -> String {
    let mut text = String::new();
    for remark in sheet.remarks.iter().filter(|remark| remark.verdict != Verdict::Moot) {
        let _ = writeln!(text, "{}", one_line(&sentence(configuration, remark)));
    }
    text
}

/// The same for programs.
pub(super) fn json(configuration: &Configuration, sheet: &Sheet, text: &str, names: (&str, &str)) -> Value {
    let file = |index: usize| configuration.files.get(index).map_or("", String::as_str);
    let flags: Vec<Value> = sheet
        .flags
        .iter()
        .map(|flag| {
            let from = flag.from.iter().map(|(place, directive)| {
                json!({ "file": file(place.file), "line": place.line, "directive": directive })
            });
            json!({ "flag": flag.flag, "value": flag.value, "from": from.collect::<Vec<_>>(), "why": flag.why })
        })
        .collect();
    let remarks: Vec<Value> = sheet
        .remarks
        .iter()
        .map(|remark| {
            json!({
                "verdict": remark.verdict.word(),
                "access": remark.is_access,
                "file": file(remark.place.file),
                "line": remark.place.line,
                "directive": remark.directive,
                "why": remark.why,
                "nearest": remark.nearest,
            })
        })
        .collect();
    json!({
        "frontend": names.0,
        "backend": names.1,
        "flags": flags,
        "remarks": remarks,
        "notes": sheet.notes,
        "text": text,
    })
}

fn origin(configuration: &Configuration, flag: &Flag) -> String {
    let lines = flag.from.iter().map(|(place, text)| format!("{} {}", configuration.at(*place), short(text)));
    let mut origin = lines.collect::<Vec<_>>().join("; ");
    if !flag.why.is_empty() {
        let sign = if origin.is_empty() { "" } else { ": " };
        origin += &format!("{sign}{}", flag.why);
    }
    one_line(&origin)
}

/// `FILE:LINE: left: DIRECTIVE: why; nearest: …`, with `left, access` for what decides who gets in or where they go.
fn sentence(configuration: &Configuration, remark: &Remark) -> String {
    let Remark { verdict, place, directive, why, nearest, is_access } = remark;
    let nearest = if nearest.is_empty() { String::new() } else { format!("; nearest: {nearest}") };
    let access = if *is_access { ", access" } else { "" };
    format!(
        "{}: {}{access}: {directive}: {}{nearest}",
        configuration.at(*place),
        verdict.word(),
        one_line(why)
    )
}

/// Values come from outside, and a line end would end the comment.
fn one_line(text: &str) -> String {
    text.chars().map(plain).collect()
}

fn comment(text: &str) -> String {
    format!("# {}\n", one_line(text))
}
