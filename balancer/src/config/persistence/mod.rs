//! `--persist METHOD[,OPTION…]`.

mod cookie;
mod learned;
pub(super) mod together;

use super::options::Value;
use crate::cli::Stop;
use crate::http::fields::is_tchar;
use crate::persist::{List, MAX_METHODS, Method};

const METHODS: &str = "cookie=NAME, session=NAME, route=NAME, header=NAME, query=NAME or source";

/// The list, for the service called `service`.
pub(super) fn list(texts: &[String], service: &str) -> Result<List, Stop> {
    let mut methods: Vec<Method> = Vec::new();
    for text in texts {
        let value = Value { flag: "--persist", text };
        let method = method(value, service)?;
        let is_second = |earlier: &Method| match method {
            Method::Cookie(_) => matches!(earlier, Method::Cookie(_)),
            _ => earlier.label().eq_ignore_ascii_case(&method.label()),
        };
        if let Some(earlier) = methods.iter().find(|earlier| is_second(earlier)) {
            let what =
                if earlier.label() == method.label() { method.label() } else { method.kind().to_owned() };
            return Err(
                value.wrong(format_args!("is the second {what} method; there can be one, give it once"))
            );
        }
        if methods.len() == MAX_METHODS {
            return Err(value.wrong(format_args!("is one method too many; {MAX_METHODS} are the most")));
        }
        methods.push(method);
    }
    Ok(List::new(methods))
}

fn method(value: Value<'_>, service: &str) -> Result<Method, Stop> {
    let (head, options) = value.split();
    let (kind, argument) = head.split_once('=').map_or((head, None), |(kind, name)| (kind, Some(name)));
    match (kind, argument) {
        ("cookie", Some(name)) => cookie::cookie(value, name, options, service).map(Method::Cookie),
        ("session", Some(name)) => learned::session(value, name, options).map(Method::Session),
        ("route", Some(name)) => learned::route(value, name, options).map(Method::Route),
        ("header", Some(name)) => learned::value(value, "header", name, options).map(Method::Header),
        ("query", Some(name)) => learned::value(value, "query", name, options).map(Method::Query),
        ("source", None) => learned::source(value, options).map(Method::Source),
        ("source", Some(_)) => {
            Err(value.wrong(format_args!("gives source a name; write {}", learned::SOURCE_FORM)))
        }
        ("cookie", None) => {
            Err(value.wrong(format_args!("does not name the cookie; write {}", cookie::FORM)))
        }
        ("session" | "route", None) => Err(value.wrong(format_args!(
            "does not name the application's session id; write {kind}=NAME, as in {kind}=JSESSIONID"
        ))),
        ("header" | "query", None) => {
            Err(value.wrong(format_args!("does not name the {kind}; write {kind}=NAME")))
        }
        _ => Err(value.wrong(format_args!("is not a known method; write {METHODS}"))),
    }
}

/// A name that a cookie or a header can have (RFC 6265 §4.1.1, RFC 9110 §5.1).
fn token<'a>(value: Value<'_>, what: &str, name: &'a str) -> Result<&'a str, Stop> {
    if name.is_empty() || !name.bytes().all(is_tchar) {
        return Err(value.wrong(format_args!(
            "has a {what} name that is not allowed; write letters, digits and any of ! # $ % & ' * + - . ^ _ ` | ~"
        )));
    }
    Ok(name)
}

/// A cookie's name.
fn cookie_name(value: Value<'_>, name: &str) -> Result<String, Stop> {
    // RFC 2965 put attributes among the cookies under such names, and they are still skipped when cookies are read.
    if token(value, "cookie", name)?.starts_with('$') {
        return Err(value
            .wrong("has a cookie name that begins with $, which would never be recognised; take another"));
    }
    Ok(name.to_owned())
}

/// A duration in whole seconds.
fn seconds(value: Value<'_>, what: &str, text: &str) -> Result<u32, Stop> {
    let duration = crate::cli::parse_duration(text)
        .map_err(|rest| value.wrong(format_args!("has a {what} that {rest}")))?;
    if duration.subsec_millis() != 0 {
        return Err(
            value.wrong(format_args!("has a {what} with a part of a second; write whole seconds, as in 30m"))
        );
    }
    // A duration is a year at most.
    Ok(duration.as_secs() as u32)
}
