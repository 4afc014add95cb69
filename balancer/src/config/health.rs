//! `--observe KINDS[,limit=N]`, `--slow-start`, `--on-marked-down`: what is made of real traffic, and what follows from
//! a verdict.

use super::options::Value;
use super::{CheckConfig, HealthConfig, Mode, ObserveConfig, OnMarkedDown};
use crate::cli::Stop;
use crate::cli::flags::{CheckArgs, OnMarkedDownArg};

const SUPPORTED: &str = "connect, 5xx or connect+5xx, then ,limit=N if need be";

/// HAProxy's `error-limit`.
const LIMIT: u32 = 10;

const LARGEST_LIMIT: u32 = 1_000_000;

pub(super) fn health(args: &CheckArgs, check: Option<CheckConfig>, mode: Mode) -> Result<HealthConfig, Stop> {
    let observe = args.observe.as_deref().map(|text| observe(text, check.is_some(), mode)).transpose()?;
    let on_marked_down = match args.on_marked_down {
        OnMarkedDownArg::Keep => OnMarkedDown::Keep,
        OnMarkedDownArg::Reset => OnMarkedDown::Reset,
    };
    Ok(HealthConfig { check, observe, slow_start: args.slow_start, on_marked_down })
}

fn observe(text: &str, is_checked: bool, mode: Mode) -> Result<ObserveConfig, Stop> {
    let value = Value { flag: "--observe", text };
    let (kinds, options) = value.split();
    let mut config = ObserveConfig { connect: false, answers: false, limit: LIMIT };
    for kind in kinds.split('+') {
        let wanted = match kind {
            "connect" => &mut config.connect,
            "5xx" => &mut config.answers,
            _ => return Err(value.wrong(format_args!("observes {kind:?}; write {SUPPORTED}"))),
        };
        if std::mem::replace(wanted, true) {
            return Err(value.wrong(format_args!("has {kind} twice; give it once")));
        }
    }
    let mut limit = None;
    for option in options {
        match option.split_once('=') {
            Some(("limit", text)) => value.set_once(&mut limit, "limit", limit_of(value, text)?)?,
            _ => return Err(value.unsupported(option, SUPPORTED, &[])),
        }
    }
    config.limit = limit.unwrap_or(LIMIT);
    if config.answers && mode == Mode::Tcp {
        return Err(value.wrong("needs to read answers, which --mode tcp does not; write connect alone"));
    }
    if !is_checked {
        return Err(value.wrong(
            "needs checks to bring a server up again, and there are none with --check none; write --check tcp or \
             http=PATH, or leave --observe out",
        ));
    }
    Ok(config)
}

fn limit_of(value: Value<'_>, text: &str) -> Result<u32, Stop> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|limit| is_number && (1..=LARGEST_LIMIT).contains(limit)).ok_or_else(|| {
        value.wrong(format_args!("has the limit {text:?}; write a number from 1 to {LARGEST_LIMIT}"))
    })
}
