//! `balancer check`: what would happen, without doing it.

use std::fmt::Write;

use anyhow::bail;
use tokio::task::LocalSet;

use crate::config::fast_path::word;
use crate::config::{Config, Plan};
use crate::names::{Answers, Found};
use crate::{datapath, state_file};

/// The report: `ok` and what the service would be, what should be known about it, and with `dump` every setting.
///
/// # Errors
/// What this host cannot do.
pub fn report(plan: &Plan, dump: bool) -> anyhow::Result<String> {
    let mut notes = names(&plan.config)?;
    notes.extend(datapath::check(&plan.config)?);
    state_file::check(&plan.config)?;
    let warnings = plan.warnings.iter().map(|warning| format!("warning: {warning}"));
    let remarks =
        std::iter::once(summary(&plan.config)).chain(fast_path(&plan.config)).chain(warnings).chain(notes);
    let mut report = String::new();
    // A dump is an @FILE, so what is not a setting is a comment in it.
    let mark = if dump { "# " } else { "" };
    for remark in remarks {
        // Writing to a string cannot fail.
        let _ = writeln!(report, "{mark}{remark}");
    }
    if dump {
        report.push_str(&plan.dump());
    }
    Ok(report)
}

/// Who the hosts of the servers are.
fn names(config: &Config) -> anyhow::Result<Vec<String>> {
    if config.servers.iter().all(|server| server.host.is_none()) {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = LocalSet::new().block_on(&runtime, Answers::ask(config));
    let (mut notes, mut taken) = (Vec::new(), Vec::new());
    for mut server in config.servers.iter().cloned() {
        if let Found::Nowhere(why) = answers.find(&server, None, &taken) {
            bail!("--server {}: {} {why}", server.name, server.host.unwrap_or_default());
        }
        notes.extend(answers.place(&mut server, None, &taken).ok().flatten());
        taken.push(server.address);
    }
    Ok(notes)
}

fn summary(config: &Config) -> String {
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    let methods = config.persist.labels();
    let then = if methods.is_empty() { String::new() } else { format!("{}, then ", methods.join(", ")) };
    let servers = config.servers.len();
    format!(
        "ok: service {:?} on {}, {servers} server{}, decided by {then}{}",
        config.name,
        listen.join(" "),
        if servers == 1 { "" } else { "s" },
        config.balance
    )
}

/// What becomes of the fast path, in one line; `None` without `--xdp`.
pub(crate) fn fast_path(config: &Config) -> Option<String> {
    let datapath = config.datapath.as_ref()?;
    Some(
        datapath
            .fast_path_reason
            .clone()
            .unwrap_or_else(|| format!("fast path {}", word(datapath.fast_path))),
    )
}
