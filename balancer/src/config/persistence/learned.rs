//! `--persist session=`, `route=`, `header=`, `query=` and `source`: what is learned, and the route.

use super::{cookie_name, seconds, token};
use crate::cli::{Stop, parse_count};
use crate::config::Statuses;
use crate::config::options::Value;
use crate::persist::method::{Place, RouteMethod, SessionMethod, SourceMethod, TableOptions, ValueMethod};

const SESSION_FORM: &str = "session=NAME[,in=cookie+path+query+header][,prefix-name][,request-learn|no-request-learn]\
    [,learn-status=2xx+3xx+401][,timeout=T][,size=N][,nopurge]";
const ROUTE_FORM: &str = "route=NAME[,in=cookie+path]";
pub(super) const SOURCE_FORM: &str = "source[,timeout=T][,size=N][,nopurge][,mask4=N][,mask6=N]";

/// As long as most applications keep theirs, and some.
const SESSION_TIMEOUT: u32 = 3 * 3600;
const SESSION_SIZE: u32 = 100_000;
const SOURCE_TIMEOUT: u32 = 30 * 60;
/// As many as the flow table holds by default.
const SOURCE_SIZE: u32 = 256_000;
const LARGEST_SIZE: u32 = 16_000_000;

const PLACES: [(&str, Place); 4] =
    [("cookie", Place::Cookie), ("path", Place::Path), ("query", Place::Query), ("header", Place::Header)];

/// The options that all tables have.
#[derive(Default)]
struct Table {
    timeout: Option<u32>,
    size: Option<u32>,
    nopurge: Option<()>,
}

impl Table {
    /// True: the option was one of these.
    fn take(&mut self, value: Value<'_>, option: &str) -> Result<bool, Stop> {
        match option.split_once('=') {
            Some(("timeout", text)) => {
                value.set_once(&mut self.timeout, "timeout", seconds(value, "timeout", text)?)?;
            }
            Some(("size", text)) => {
                let count = parse_count(1..=LARGEST_SIZE)(text)
                    .map_err(|rest| value.wrong(format_args!("has a size that {rest}")))?;
                value.set_once(&mut self.size, "size", count)?;
            }
            None if option == "nopurge" => value.set_once(&mut self.nopurge, "nopurge", ())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn options(&self, timeout: u32, size: u32) -> TableOptions {
        TableOptions {
            timeout: self.timeout.unwrap_or(timeout),
            size: self.size.unwrap_or(size),
            nopurge: self.nopurge.is_some(),
        }
    }
}

pub(super) fn session<'a>(
    value: Value<'a>,
    name: &str,
    options: impl Iterator<Item = &'a str>,
) -> Result<SessionMethod, Stop> {
    let name = cookie_name(value, name)?;
    let (mut places, mut is_prefix, mut request_learn, mut statuses) = (None, None, None, None);
    let mut table = Table::default();
    for option in options {
        match option.split_once('=') {
            Some(("in", text)) => value.set_once(&mut places, "in", list_of(value, text, &PLACES)?)?,
            Some(("learn-status", text)) => {
                let read = Statuses::parse(text).ok_or_else(|| {
                    value.wrong(format_args!(
                        "learns from {text:?}; write statuses from 100 to 599, as in 200, 200-299 or 2xx, joined by +"
                    ))
                })?;
                value.set_once(&mut statuses, "learn-status", read)?;
            }
            None if option == "prefix-name" => value.set_once(&mut is_prefix, option, ())?,
            None if option == "request-learn" => value.set_once(&mut request_learn, option, true)?,
            None if option == "no-request-learn" => {
                value.set_once(&mut request_learn, "request-learn", false)?;
            }
            _ if table.take(value, option)? => {}
            _ => return Err(value.unsupported(option, SESSION_FORM, &[])),
        }
    }
    Ok(SessionMethod {
        name,
        places: places.unwrap_or_else(|| vec![Place::Cookie, Place::Path]),
        is_prefix: is_prefix.is_some(),
        request_learn: request_learn.unwrap_or(true),
        learn_status: statuses.unwrap_or_else(Statuses::that_teach),
        table: table.options(SESSION_TIMEOUT, SESSION_SIZE),
    })
}

pub(super) fn route<'a>(
    value: Value<'a>,
    name: &str,
    options: impl Iterator<Item = &'a str>,
) -> Result<RouteMethod, Stop> {
    let name = cookie_name(value, name)?;
    let mut places = None;
    for option in options {
        match option.split_once('=') {
            Some(("in", text)) => value.set_once(&mut places, "in", list_of(value, text, &PLACES[..2])?)?,
            _ => return Err(value.unsupported(option, ROUTE_FORM, &[])),
        }
    }
    Ok(RouteMethod { name, places: places.unwrap_or_else(|| vec![Place::Cookie, Place::Path]) })
}

/// `header=` and `query=`; `kind` is the word.
pub(super) fn value<'a>(
    value: Value<'a>,
    kind: &str,
    name: &str,
    options: impl Iterator<Item = &'a str>,
) -> Result<ValueMethod, Stop> {
    let name = token(value, kind, name)?.to_owned();
    let mut table = Table::default();
    for option in options {
        if !table.take(value, option)? {
            let form = format!("{kind}=NAME[,timeout=T][,size=N][,nopurge]");
            return Err(value.unsupported(option, &form, &[]));
        }
    }
    Ok(ValueMethod { name, table: table.options(SESSION_TIMEOUT, SESSION_SIZE) })
}

pub(super) fn source<'a>(
    value: Value<'a>,
    options: impl Iterator<Item = &'a str>,
) -> Result<SourceMethod, Stop> {
    let (mut table, mut mask4, mut mask6) = (Table::default(), None, None);
    for option in options {
        match option.split_once('=') {
            Some(("mask4", text)) => value.set_once(&mut mask4, "mask4", mask(value, "mask4", text, 32)?)?,
            Some(("mask6", text)) => value.set_once(&mut mask6, "mask6", mask(value, "mask6", text, 128)?)?,
            _ if table.take(value, option)? => {}
            _ => return Err(value.unsupported(option, SOURCE_FORM, &[])),
        }
    }
    Ok(SourceMethod {
        table: table.options(SOURCE_TIMEOUT, SOURCE_SIZE),
        mask4: mask4.unwrap_or(32),
        mask6: mask6.unwrap_or(64),
    })
}

fn mask(value: Value<'_>, what: &str, text: &str, most: u8) -> Result<u8, Stop> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|bits| is_number && (1..=most).contains(bits)).ok_or_else(|| {
        value.wrong(format_args!("has the {what} {text:?}; write how many bits count, 1 to {most}"))
    })
}

/// Words joined by `+`, each once.
fn list_of(value: Value<'_>, text: &str, known: &[(&str, Place)]) -> Result<Vec<Place>, Stop> {
    let mut places = Vec::new();
    for word in text.split('+') {
        let place = known.iter().find(|(name, _)| *name == word).map(|(_, place)| *place);
        match place.filter(|place| !places.contains(place)) {
            Some(place) => places.push(place),
            None => {
                let words: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                return Err(value.wrong(format_args!(
                    "looks in {text:?}; write one or more of {} joined by +, each once",
                    words.join(", ")
                )));
            }
        }
    }
    Ok(places)
}
