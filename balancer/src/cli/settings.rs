//! Where each setting of `run` came from.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::Stop;
use super::argument_file::{Argument, Placed, placed};

/// Where a setting came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The command line, or an `@FILE` on it.
    Flag,
    /// `BALANCER_…`.
    Environment,
    /// Nobody said anything.
    Default,
}

/// One flag as it was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The flag's name without dashes.
    pub flag: String,
    /// Its values as text; several for a repeatable flag, none when it has no default.
    pub values: Vec<String>,
    /// Where they came from.
    pub origin: Origin,
    /// It is on or off and has no value.
    pub is_switch: bool,
}

/// All flags of `run`, in the order of `--help`, and where those stand that are in files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings(pub Vec<Setting>, Vec<Placed>);

impl Settings {
    /// Of the subcommand that was given; empty if it has none of `run`'s flags.
    pub(super) fn collect(command: &clap::Command, matches: &ArgMatches, args: &[Argument]) -> Self {
        let Some((verb, matches)) =
            matches.subcommand().filter(|(verb, _)| matches!(*verb, "run" | "check" | "doctor"))
        else {
            return Self::default();
        };
        let definition = command.find_subcommand(verb);
        let definitions = definition.into_iter().flat_map(clap::Command::get_arguments);
        let of = |arg: &clap::Arg| {
            let flag = arg.get_long().filter(|flag| {
                !matches!(*flag, "dump" | "help" | "version" | "interface" | "json" | "probe")
            })?;
            let id = arg.get_id().as_str();
            let origin = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ => Origin::Default,
            };
            let raw =
                matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
            let values =
                raw.filter(|value| origin != Origin::Environment || !value.trim().is_empty()).collect();
            Some(Setting {
                flag: flag.to_owned(),
                values,
                origin,
                is_switch: !arg.get_action().takes_values(),
            })
        };
        Self(definitions.filter_map(of).collect(), placed(args))
    }

    /// What is wrong with a value, and where that stands if it is not on the command line itself.
    pub(crate) fn with_place(&self, stop: Stop) -> Stop {
        let Stop::Usage(message) = &stop else { return stop };
        let named = |flag: &str, value: &str, place: &str| {
            let subject = format!("--{flag} {value:?} ");
            let rest = message.strip_prefix(&subject).filter(|rest| !rest.starts_with("from "))?;
            Some(Stop::Usage(format!("{subject}from {place} {rest}")))
        };
        let from_environment = |setting: &Setting| {
            let values = setting.values.iter().filter(|_| setting.origin == Origin::Environment);
            values
                .map(|value| value.trim())
                .find_map(|value| named(&setting.flag, value, &variable(&setting.flag)))
        };
        // What is given twice is wrong the second time.
        let from_file = |it: &Placed| named(&it.flag, &it.value, &it.place);
        let place = self.1.iter().rev().find_map(from_file);
        place.or_else(|| self.0.iter().find_map(from_environment)).unwrap_or(stop)
    }

    /// Where `flag` came from.
    pub fn origin(&self, flag: &str) -> Origin {
        self.0.iter().find(|setting| setting.flag == flag).map_or(Origin::Default, |setting| setting.origin)
    }
}

/// The environment variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("BALANCER_{}", flag.to_uppercase().replace('-', "_"))
}
