//! Instructions per request head: the benchmark itself is the daemon's, `benches/head`.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use super::write_json;
use crate::build;

/// Runs it as the user: nothing here needs privileges.
pub(super) fn run(json: Option<&Path>) -> Result<ExitCode> {
    let mut cargo = build::cargo();
    cargo.args(["bench", "-p", "balancer", "--bench", "head"]).stdin(Stdio::null());
    let Some(path) = json else {
        let status = cargo.status().context("cannot run cargo")?;
        return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let output =
        cargo.args(["--", "--json"]).stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo bench: {}", output.status);
    }
    let counts = serde_json::from_slice(&output.stdout).context("the benchmark has not written JSON")?;
    write_json(path, &counts)?;
    Ok(ExitCode::SUCCESS)
}
