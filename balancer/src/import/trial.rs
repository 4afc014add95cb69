//! Whether the balancer takes a flag: it is asked, by its own parser, so that what it refuses is never printed.

use std::path::PathBuf;

use super::sheet::Flag;
use crate::cli::{self, Stop};
use crate::config::{Host, Plan};

/// Stands where a result that is not whole yet has no listener or server.
const LISTEN: (&str, &str) = ("--listen", "192.0.2.1:1");
const SERVER: (&str, &str) = ("--server", "trial=192.0.2.1:2");

/// What all these flags together come to.
///
/// # Errors
/// What the balancer says of them.
pub(super) fn trial(flags: &[(&str, &str)]) -> Result<Plan, String> {
    let mut text = String::new();
    for (flag, value) in flags {
        text += &line(flag, Some(value));
        text.push('\n');
    }
    for (flag, value) in [LISTEN, SERVER] {
        if flags.iter().all(|(known, _)| *known != flag) {
            text += &format!("{flag} {value}\n");
        }
    }
    read(&text)
}

/// What the text of an `@FILE` comes to, whatever the environment says.
///
/// # Errors
/// What `check` would say.
pub(super) fn read(text: &str) -> Result<Plan, String> {
    let (args, settings) = cli::reread(text).map_err(Stop::into_message)?;
    let mut host = Host::read();
    // Where the admin socket goes is for the host that runs it.
    host.runtime_directory.get_or_insert_with(|| PathBuf::from("/run"));
    Plan::new(&args, settings, &host).map_err(Stop::into_message)
}

/// One line of an `@FILE`.
pub(super) fn line(flag: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{flag} {}", crate::config::quoted(value)),
        None => flag.to_owned(),
    }
}

/// The flags so far, as [`trial`] wants them.
pub(super) fn so_far(flags: &[Flag]) -> Vec<(&str, &str)> {
    flags.iter().filter_map(|flag| Some((flag.flag, flag.value.as_deref()?))).collect()
}
