//! Calls cargo, as the user, and collects what it made.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{privilege, setup};

/// One executable that cargo built.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The target's name, e.g. `balancer`.
    pub name: String,
    /// The target's kind: `lib`, `bin`, `test` …
    pub kind: String,
    /// Built with a test harness, as opposed to a program that tests only use.
    pub is_test: bool,
    /// The executable.
    pub executable: PathBuf,
    /// The folder of the package it belongs to, in which cargo runs tests.
    pub package: PathBuf,
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    // Integration tests belong to another package of the same workspace: either way the root is one up.
    package.parent().map(Path::to_path_buf).unwrap_or(package)
}

/// `cargo` as the user in the workspace, with the environment that the eBPF build needs.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = privilege::as_user(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace()).envs(setup::ebpf_env());
    cargo
}

/// Builds the daemon as it is shipped and says where it is.
///
/// # Errors
/// When cargo cannot be run or the build fails; cargo has then said why.
pub fn release_daemon() -> Result<PathBuf> {
    println!("build: cargo build --release -p balancer");
    let built = artifacts(&["build", "--release", "-p", "balancer"])?;
    built
        .into_iter()
        .find(|made| made.name == "balancer" && made.kind == "bin")
        .map(|made| made.executable)
        .context("cargo built no binary called balancer")
}

/// Runs cargo with `arguments`; diagnostics go to the terminal, the executables it made are returned.
///
/// # Errors
/// When cargo cannot be run or fails.
pub fn artifacts(arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut cargo = cargo();
    cargo.args(arguments);
    artifacts_of(cargo)
}

/// The same for a command that is already composed.
///
/// # Errors
/// When cargo cannot be run or fails.
pub fn artifacts_of(mut cargo: Command) -> Result<Vec<Artifact>> {
    let arguments: Vec<_> = cargo.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut child = cargo
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo's output was not captured")?;
    let mut made = Vec::new();
    for line in BufReader::new(output).lines() {
        made.extend(artifact(&line?));
    }
    if !child.wait()?.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(made)
}

/// An executable in one line of cargo's JSON, if the line announces one.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Artifact {
        name: message["target"]["name"].as_str()?.to_owned(),
        kind: message["target"]["kind"][0].as_str()?.to_owned(),
        is_test: message["profile"]["test"] == true,
        executable: message["executable"].as_str()?.into(),
        package: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::artifact;

    #[test]
    fn only_executables_are_collected() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/w/balancer/Cargo.toml",
            "target":{"kind":["test"],"name":"http"},"profile":{"test":true},"executable":"/t/http-1"}"#;
        let made = artifact(&line.replace('\n', "")).unwrap();
        assert_eq!((made.name.as_str(), made.kind.as_str(), made.is_test), ("http", "test", true));
        assert_eq!(made.package.to_str(), Some("/w/balancer"));
        assert!(artifact(&line.replace("\"/t/http-1\"", "null")).is_none());
        assert!(artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
        assert!(artifact("not JSON").is_none());
    }
}
