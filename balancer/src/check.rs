//! `balancer check`: what would happen, without doing it.

use std::fmt::Write;

use anyhow::bail;
use tokio::task::LocalSet;

use crate::config::fast_path::word;
use crate::config::{Config, Feature, Plan};
use crate::names::{Answers, Found};
use crate::persist::Method;
use crate::{datapath, log, state_file};

/// The report: `ok` and what the service would be, what should be known about it, and with `dump` every setting.
///
/// # Errors
/// What this host cannot do.
pub fn report(plan: &Plan, dump: bool) -> anyhow::Result<String> {
    let mut notes = names(&plan.config)?;
    notes.extend(datapath::check(&plan.config)?);
    state_file::check(&plan.config)?;
    let warnings = plan.warnings.iter().map(|warning| format!("warning: {warning}"));
    let remarks = std::iter::once(summary(&plan.config)).chain(fast_path(&plan.config)).chain(features(plan));
    let remarks = remarks.chain(warnings).chain(notes);
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
    let servers = log::counted(config.servers.len() as u64, "server");
    let methods = config.persist.labels();
    let then = if methods.is_empty() { String::new() } else { format!("{}, then ", methods.join(", ")) };
    format!(
        "ok: service {:?} on {}, {servers}, decided by {then}{}",
        config.name,
        listen.join(" "),
        config.balance
    )
}

/// What keeps a client on its server.
pub(crate) fn persistence(config: &Config) -> String {
    if config.persist.methods().is_empty() {
        let balance = &config.balance;
        return format!(
            "off: there is no --persist, so each request goes where --balance {balance} sends it"
        );
    }
    let methods: Vec<_> = config.persist.methods().iter().map(Method::label).collect();
    format!("{}, then {}", methods.join(", "), config.balance)
}

/// What the given flags mean to fast connections, a line each; none without `--xdp`.
fn features(plan: &Plan) -> Vec<String> {
    let features = plan.features();
    if plan.config.datapath.is_none() || features.is_empty() {
        return Vec::new();
    }
    let flag = features.iter().map(|feature| feature.flag.chars().count()).max().unwrap_or_default();
    let effect = features.iter().map(|feature| feature.effect.as_str().len()).max().unwrap_or_default();
    let line = |feature: &Feature| {
        let Feature { flag: name, effect: told, why } = feature;
        format!("  {name:flag$}  {:effect$}  {why}", told.as_str())
    };
    std::iter::once("on the fast path:".to_owned()).chain(features.iter().map(line)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::plan;

    #[test]
    fn what_flags_mean_to_fast_connections_is_a_table() {
        let flags = "--persist source --persist cookie=SRV,prefix --observe connect";
        assert!(features(&plan(flags)).is_empty(), "there are none without --xdp");
        assert!(features(&plan("--xdp eth0")).is_empty(), "nothing was asked for");
        let lines = features(&plan(&format!("--xdp eth0 {flags}")));
        assert_eq!(
            lines[..3],
            [
                "on the fast path:",
                "  --persist source      works         a client whose address is known goes to its server",
                "  --persist cookie=SRV  keeps it off  the server would see its id in front of the application's value",
            ]
        );
        assert!(lines[3].starts_with("  --observe             no effect     "), "{}", lines[3]);
    }
}
