//! clap's errors in one line: what is wrong with which flag; what would be right.

use std::error::Error;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::argument_file::{Argument, placed};
use super::{Stop, settings};

/// The error as this program reports it. `args` are what was parsed, `@FILE`s expanded.
pub(crate) fn condense(error: &clap::Error, command: &clap::Command, args: &[Argument]) -> Stop {
    let place = Place::find(command, args);
    let subject = || subject(error, args);
    let message = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Stop::Shown(error.to_string()),
        ErrorKind::UnknownArgument => unknown_argument(error, &place, args),
        ErrorKind::InvalidSubcommand => unknown_command(error, &place),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            match &*place.verbs {
                "" => "no command is given; write balancer run, balancer check or balancer show, see --help"
                    .into(),
                verbs => format!("{} needs to know what; see balancer {verbs}--help", verbs.trim_end()),
            }
        }
        ErrorKind::ValueValidation => {
            format!("{} {}", subject(), error.source().map(ToString::to_string).unwrap_or_default())
        }
        ErrorKind::InvalidValue => match (text(error, ContextKind::InvalidValue), list(error)) {
            (None, _) => {
                let form = text(error, ContextKind::InvalidArg).unwrap_or_default();
                let example = if form.ends_with(" <T>") { ", as in 250ms, 2s, 30m or 3h" } else { "" };
                format!("{} has no value; write {}{example}", flag(error), form.replace(['<', '>'], ""))
            }
            (Some(_), allowed) => format!("{} is not known; write {allowed}", subject()),
        },
        ErrorKind::ArgumentConflict => format!("{} is given twice; give it once", flag(error)),
        ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues => {
            format!("{} takes no value; write {0} alone", flag(error))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = flag(error);
            format!("{missing} is missing; see balancer {}--help", place.verbs)
        }
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8 text; write it in UTF-8".into(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Stop::Usage(message)
}

/// How far the command line was understood.
struct Place<'a> {
    command: &'a clap::Command,
    /// The subcommands given, each with a space after it.
    verbs: String,
}

impl<'a> Place<'a> {
    fn find(root: &'a clap::Command, args: &[Argument]) -> Self {
        let mut place = Self { command: root, verbs: String::new() };
        for verb in args.iter().skip(1).map_while(|arg| arg.word.to_str()) {
            let Some(next) = place.command.find_subcommand(verb) else { break };
            place.command = next;
            place.verbs += &format!("{verb} ");
        }
        place
    }
}

fn unknown_argument(error: &clap::Error, place: &Place<'_>, args: &[Argument]) -> String {
    let given = flag(error);
    let is_it = |arg: &&Argument| arg.word.to_str().is_some_and(|word| first_word(word) == given);
    let file = args.iter().find(is_it).and_then(|arg| arg.place.as_ref());
    let file = file.map_or_else(String::new, |place| format!(" in {place}"));
    let flags = place.command.get_arguments().filter_map(clap::Arg::get_long);
    if !given.starts_with('-') {
        return match nearest(&given, flags).filter(|_| !place.verbs.is_empty()) {
            Some(flag) => format!("{given:?}{file} is not expected here; did you mean --{flag}?"),
            None if file.is_empty() && Path::new(&given).is_file() => {
                format!("{given:?} is not expected here; if it is a file of flags, write @{given}")
            }
            None => format!("{given:?}{file} is not expected here; flags begin with --, see --help"),
        };
    }
    if place.verbs.is_empty() {
        return format!("{given} without a command; write for example balancer run {given}, see --help");
    }
    match nearest(given.trim_start_matches('-'), flags) {
        Some(flag) => format!("unknown flag {given}{file}; did you mean --{flag}?"),
        None => {
            format!("unknown flag {given}{file}; see balancer {}--help for the flags there are", place.verbs)
        }
    }
}

fn unknown_command(error: &clap::Error, place: &Place<'_>) -> String {
    let given = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    let verbs = &place.verbs;
    match nearest(&given, place.command.get_subcommands().map(clap::Command::get_name)) {
        Some(verb) => format!("unknown command {given:?}; did you mean {verbs}{verb}?"),
        None => format!("unknown command {given:?}; see balancer {verbs}--help for the commands there are"),
    }
}

/// The candidate that takes the fewest slips of the finger, if they are few for a word of that length. clap's own
/// measure finds nothing for short words.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST_NAME: usize = 32;
    if given.len() > LONGEST_NAME {
        return None;
    }
    let slips = candidates.map(|candidate| (distance(given, candidate), candidate));
    slips.min().filter(|(slips, _)| *slips <= 1.max(given.len() / 3)).map(|(_, candidate)| candidate)
}

/// Letters left out, added, changed or swapped with their neighbour (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let first: Vec<usize> = (0..=other.len()).collect();
    let mut rows = vec![first];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let changed = usize::from(one[i - 1] != other[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// `--flag "value"`, and where the value came from if that was not the command line.
fn subject(error: &clap::Error, args: &[Argument]) -> String {
    let (flag, value) = (flag(error), text(error, ContextKind::InvalidValue).unwrap_or_default());
    let typed = args
        .iter()
        .filter_map(|arg| arg.word.to_str())
        .any(|arg| arg.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')));
    let long = flag.strip_prefix("--");
    let in_file = placed(args).into_iter().rfind(|it| Some(it.flag.as_str()) == long && it.value == value);
    match long {
        _ if in_file.is_some() => {
            format!("{flag} {value:?} from {}", in_file.map_or_else(String::new, |it| it.place))
        }
        Some(long) if !typed => format!("{flag} {value:?} from {}", settings::variable(long)),
        _ => format!("{flag} {value:?}"),
    }
}

fn flag(error: &clap::Error) -> String {
    text(error, ContextKind::InvalidArg)
        .map_or_else(String::new, |arg| first_word(&arg).replace(['<', '>'], ""))
}

/// `--name` of `--name <NAME>`, `--name=x` or `--name[=<NAME>]`.
fn first_word(text: &str) -> &str {
    let end = if text.starts_with("--") { &[' ', '=', '['][..] } else { &[' ', '='] };
    text.split(end).next().unwrap_or(text)
}

fn list(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => match values.as_slice() {
            [] => "another value".into(),
            [one] => one.clone(),
            [init @ .., last] => format!("{} or {last}", init.join(", ")),
        },
        _ => "another value".into(),
    }
}

/// The first piece of context of that kind, unless it is empty.
fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    let text = match error.get(kind)? {
        ContextValue::String(text) => text.clone(),
        ContextValue::Strings(texts) => texts.first()?.clone(),
        ContextValue::StyledStr(text) => text.to_string(),
        ContextValue::StyledStrs(texts) => texts.first()?.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
