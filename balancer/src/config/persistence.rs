//! `--persist METHOD[,OPTION…]`.

use super::options::Value;
use crate::cli::{Stop, parse_count, parse_duration};
use crate::http::fields::is_tchar;
use crate::persist::{CookieMethod, List, Method, SourceMethod};

const COOKIE_FORM: &str = "cookie=NAME[,insert][,indirect]";
const COOKIE_MODES: [&str; 4] = ["insert", "rewrite", "prefix", "passive"];
const COOKIE_PLANNED: [&str; 17] = [
    "rewrite",
    "prefix",
    "passive",
    "nocache",
    "postonly",
    "preserve",
    "httponly",
    "secure",
    "samesite",
    "domain",
    "path",
    "max-age",
    "maxidle",
    "maxlife",
    "dynamic-key",
    "sign-key",
    "attr",
];

const SOURCE_FORM: &str = "source[,timeout=T][,size=N]";
const SOURCE_PLANNED: [&str; 3] = ["mask4", "mask6", "nopurge"];
const SOURCE_TIMEOUT_SECONDS: u32 = 30 * 60;
/// As many as the flow table holds by default.
const SOURCE_SIZE: u32 = 256_000;
const LARGEST_SOURCE_SIZE: u32 = 16_000_000;

pub(super) fn list(texts: &[String]) -> Result<List, Stop> {
    let mut methods: Vec<Method> = Vec::new();
    for text in texts {
        let value = Value { flag: "--persist", text };
        let method = method(value)?;
        if methods.iter().any(|earlier| earlier.as_str() == method.as_str()) {
            return Err(value.wrong(format_args!(
                "is the second {} method; there can be one, give it once",
                method.as_str()
            )));
        }
        methods.push(method);
    }
    // One of each kind at most, so they fit.
    Ok(List::new(methods))
}

fn method(value: Value<'_>) -> Result<Method, Stop> {
    let (head, options) = value.split();
    let (kind, argument) = head.split_once('=').map_or((head, None), |(kind, name)| (kind, Some(name)));
    match (kind, argument) {
        ("cookie", Some(name)) => cookie(value, name, options).map(Method::Cookie),
        ("cookie", None) => Err(value.wrong(format_args!("does not name the cookie; write {COOKIE_FORM}"))),
        ("source", None) => source(value, options).map(Method::Source),
        ("source", Some(_)) => Err(value.wrong(format_args!("gives source a name; write {SOURCE_FORM}"))),
        ("session" | "route" | "header" | "query", _) => Err(value.wrong(format_args!(
            "uses the method {kind:?}, which is not supported yet; write {COOKIE_FORM} or {SOURCE_FORM}"
        ))),
        _ => Err(value.wrong(format_args!("is not a known method; write {COOKIE_FORM} or {SOURCE_FORM}"))),
    }
}

fn cookie<'a>(
    value: Value<'a>,
    name: &str,
    options: impl Iterator<Item = &'a str> + Clone,
) -> Result<CookieMethod, Stop> {
    // RFC 6265 §4.1.1.
    if name.is_empty() || !name.bytes().all(is_tchar) {
        return Err(value.wrong(
            "has a cookie name that is not allowed; write letters, digits and any of ! # $ % & ' * + - . ^ _ ` | ~",
        ));
    }
    // RFC 2965 put attributes among the cookies under such names, and they are still skipped when cookies are read.
    if name.starts_with('$') {
        return Err(value
            .wrong("has a cookie name that begins with $, which would never be recognised; take another"));
    }
    let mut modes = options.clone().filter(|option| COOKIE_MODES.contains(option));
    if let (Some(first), Some(second)) = (modes.next(), modes.next()) {
        return Err(value.wrong(format_args!("has two modes, {first} and {second}; give one of them")));
    }
    let mut indirect = None;
    for option in options {
        match option {
            "insert" => {}
            "indirect" => value.set_once(&mut indirect, "indirect", ())?,
            _ => return Err(value.unsupported(option, COOKIE_FORM, &COOKIE_PLANNED)),
        }
    }
    Ok(CookieMethod { name: name.to_owned(), indirect: indirect.is_some() })
}

fn source<'a>(value: Value<'a>, options: impl Iterator<Item = &'a str>) -> Result<SourceMethod, Stop> {
    let (mut timeout, mut size) = (None, None);
    for option in options {
        match option.split_once('=') {
            Some(("timeout", text)) => {
                let duration = parse_duration(text)
                    .map_err(|rest| value.wrong(format_args!("has a timeout that {rest}")))?;
                if duration.subsec_millis() != 0 {
                    return Err(
                        value.wrong("has a timeout with a part of a second; write whole seconds, as in 30m")
                    );
                }
                // A duration is a year at most.
                value.set_once(&mut timeout, "timeout", duration.as_secs() as u32)?;
            }
            Some(("size", text)) => {
                let count = parse_count(1..=LARGEST_SOURCE_SIZE)(text)
                    .map_err(|rest| value.wrong(format_args!("has a size that {rest}")))?;
                value.set_once(&mut size, "size", count)?;
            }
            _ => return Err(value.unsupported(option, SOURCE_FORM, &SOURCE_PLANNED)),
        }
    }
    Ok(SourceMethod { timeout: timeout.unwrap_or(SOURCE_TIMEOUT_SECONDS), size: size.unwrap_or(SOURCE_SIZE) })
}
