//! `--check none|tcp|http=PATH[,host=H][,expect=STATUSES][,drain-on=404]`.

use std::ops::RangeInclusive;

use super::options::Value;
use super::{CheckConfig, Probe};
use crate::cli::Stop;
use crate::cli::flags::CheckArgs;

const SUPPORTED: &str = "none, tcp or http=PATH[,host=H][,expect=STATUSES][,drain-on=STATUS]";

/// What a server that is well answers unless told otherwise, as HAProxy has it.
const WELL: RangeInclusive<u16> = 200..=399;

/// Statuses that mean that a server is well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![WELL])
    }
}

impl Statuses {
    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// What an application answers whose session id is worth learning: 401 is the first answer of many log-ins.
    pub(super) fn that_teach() -> Self {
        Self(vec![200..=299, 300..=399, 401..=401])
    }

    /// `200`, `200-299`, `2xx`, several joined by `+`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        text.split('+').map(range).collect::<Option<Vec<_>>>().map(Self)
    }
}

pub(super) fn check(args: &CheckArgs) -> Result<Option<CheckConfig>, Stop> {
    let value = Value { flag: "--check", text: &args.check };
    let probe = match value.text.split_once('=') {
        None if value.text == "none" => return Ok(None),
        None if value.text == "tcp" => Probe::Tcp,
        Some(("http", _)) => http(value)?,
        _ if value.text == "http" => return Err(value.wrong("has no path; write http=/PATH")),
        _ => return Err(value.wrong(format_args!("is not known; write {SUPPORTED}"))),
    };
    Ok(Some(CheckConfig {
        probe,
        interval: args.check_interval,
        timeout: args.check_timeout,
        rise: args.check_rise,
        fall: args.check_fall,
    }))
}

fn http(value: Value<'_>) -> Result<Probe, Stop> {
    let (head, options) = value.split();
    let path = head.split_once('=').map_or("", |(_, path)| path);
    let is_target = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_target {
        return Err(
            value.wrong("has a path that a request cannot carry; write http=/PATH, escaped where needed")
        );
    }
    let (mut host, mut expect, mut drain_on) = (None, None, None);
    for option in options {
        match option.split_once('=') {
            Some(("host", text)) => value.set_once(&mut host, "host", host_of(value, text)?)?,
            Some(("expect", text)) => {
                let statuses = Statuses::parse(text).ok_or_else(|| {
                    value.wrong(format_args!(
                        "expects {text:?}; write statuses from 100 to 599, as in 200, 200-299 or 2xx, joined by +"
                    ))
                })?;
                value.set_once(&mut expect, "expect", statuses)?;
            }
            Some(("drain-on", text)) => {
                let status = one_status(text).ok_or_else(|| {
                    value.wrong(format_args!("drains on {text:?}; write one status, as in 404"))
                })?;
                value.set_once(&mut drain_on, "drain-on", status)?;
            }
            _ => return Err(value.unsupported(option, SUPPORTED, &[])),
        }
    }
    let expect = expect.unwrap_or_default();
    if let Some(status) = drain_on.filter(|&status| expect.contains(status)) {
        return Err(value.wrong(format_args!("both expects {status} and drains on it; leave it out of one")));
    }
    Ok(Probe::Http { path: path.to_owned(), host, expect, drain_on })
}

fn host_of(value: Value<'_>, text: &str) -> Result<String, Stop> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(value.wrong(format_args!(
            "has the host {text:?}; write a host name or an address, with :PORT if need be"
        )))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    if let Some(class) = text.strip_suffix("xx") {
        let first = one_status(&format!("{class}00"))?;
        return Some(first..=first + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (one_status(first)?, one_status(last)?);
    (first <= last).then_some(first..=last)
}

fn one_status(text: &str) -> Option<u16> {
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_number && (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        let table = [
            ("200", vec![200], vec![199, 201]),
            ("200-202", vec![200, 202], vec![203]),
            ("2xx+404", vec![200, 299, 404], vec![300, 403]),
        ];
        for (text, well, ill) in table {
            let statuses = Statuses::parse(text).expect(text);
            assert!(well.into_iter().all(|status| statuses.contains(status)), "{text}");
            assert!(!ill.into_iter().any(|status| statuses.contains(status)), "{text}");
        }
        for text in [
            "", "+", "20", "2000", "600", "099", "xx", "2x", "22xx", "300-200", "200-", "-200", "200,201",
            "+200",
        ] {
            assert_eq!(Statuses::parse(text), None, "{text}");
        }
    }
}
