//! `balancer reload`: starts a process that takes over, and waits until it serves. For service managers, whose privileges it
//! has, and for whoever wants to know how it went: USR2 says so in the log alone.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;

use super::restart::{START_LIMIT, TAKEOVER, program};
use crate::admin::client;
use crate::config::{Config, LogTarget, Plan};
use crate::log;
use crate::takeover::HAND_OVER_LIMIT;
use crate::takeover::streams::RELOAD;

/// Between two looks at who serves.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Starts `run` with the flags that this process was given. Returns what is to be said when it serves.
///
/// # Errors
/// Nobody serves yet; the new process has failed, and the old one goes on.
pub fn start(plan: &Plan) -> anyhow::Result<String> {
    let config = &plan.config;
    let before = serving(config).with_context(|| {
        format!(
            "{:?} is not running, so there is nobody to take over from; start it with balancer run",
            config.name
        )
    })?;
    let mut child = begin(config)?;
    let began = Instant::now();
    loop {
        if serving(config).is_some_and(|pid| pid == u64::from(child.id())) {
            return Ok(format!("pid {} has taken over from pid {before}", child.id()));
        }
        if let Some(status) = child.try_wait()? {
            bail!("the new process has ended without taking over: {status}; pid {before} goes on");
        }
        if began.elapsed() > START_LIMIT + HAND_OVER_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("the new process has not taken over in time and was ended; pid {before} goes on");
        }
        sleep(LOOK_AGAIN);
    }
}

/// The process that answers at the admin socket.
fn serving(config: &Config) -> Option<u64> {
    let answer = client::ask(&config.name, &config.admin, "show process json").ok()?;
    serde_json::from_str::<Value>(&answer).ok()?["pid"].as_u64()
}

/// A process that outlives us, and whoever interrupts us.
fn begin(config: &Config) -> anyhow::Result<Child> {
    let mut words: Vec<_> = env::args_os().collect();
    let program = program(words.first().map(Path::new)).context("cannot find this program")?;
    words.drain(..words.len().min(1));
    let words = as_run(words).context("write balancer reload, and the flags after it")?;
    let mut command = Command::new(&program);
    command.args(&words).stdin(Stdio::null()).process_group(0);
    // What keeps it from serving is told here. When it serves its log goes on where that of the old one went, and whoever
    // reads what we say comes to an end; with an old one of a build that does not pass it on, of stdout at least.
    command.env(RELOAD, std::process::id().to_string());
    let writes = config.access_log.as_ref().is_some_and(|log| matches!(log.target, LogTarget::Stdout));
    command.stdout(if writes { Stdio::inherit() } else { Stdio::null() });
    command.spawn().map_err(|error| anyhow!("cannot start {}: {}", program.display(), log::reason(&error)))
}

/// The same words for `run`; `None` when none of them says `reload`, which may stand in a file.
fn as_run(mut words: Vec<OsString>) -> Option<Vec<OsString>> {
    let verb = words.iter_mut().find(|word| *word == "reload")?;
    *verb = "run".into();
    if !words.iter().any(|word| word == TAKEOVER) {
        words.push(TAKEOVER.into());
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_process_gets_the_same_words() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(as_run(words("reload @/etc/b.conf")), Some(words("run @/etc/b.conf --takeover")));
        assert_eq!(as_run(words("reload --takeover --mss 9")), Some(words("run --takeover --mss 9")));
        assert_eq!(as_run(words("@file")), None);
    }
}
