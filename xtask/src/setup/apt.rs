//! Debian's package manager, as root, for one step.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

use super::by_hand;
use crate::privilege::{as_root, can_be_root, find_program};

/// Installs the packages named as arguments. nginx and haproxy would start their services at once: a policy
/// that says no stands in the way while they are installed, and is removed however the script ends.
const SCRIPT: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
mark='# written by cargo xtask setup, for the length of one installation'
if [ ! -e $policy ] || grep -qxF -- "$mark" $policy; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" > $policy
    chmod 755 $policy
fi
apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
"#;

/// True where packages are Debian's.
pub(super) fn is_here() -> bool {
    Path::new("/etc/debian_version").exists() && find_program("apt-get").is_some()
}

/// True when this release offers `package`.
pub(super) fn has_package(package: &str) -> bool {
    find(|| is_offered(package).then_some(())).is_some()
}

/// What `search` finds in the lists of packages. They may never have been read: then that comes first.
pub(super) fn find<T>(search: impl Fn() -> Option<T>) -> Option<T> {
    if !is_here() {
        return None;
    }
    search().or_else(|| (can_be_root() && update().is_ok()).then(&search).flatten())
}

/// Installs `packages` without starting any service.
///
/// # Errors
/// [`super::ByHand`] where this is not Debian or nobody can be root, else when apt fails.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !is_here() {
        return Err(by_hand::ask(&format!("missing here: {list} (by Debian's names)")));
    }
    if !can_be_root() {
        return Err(by_hand::ask(&format!(
            "missing: {list}; installing them needs root, and sudo cannot be used"
        )));
    }
    // Old lists may still do, so a failure here is not the end.
    if let Err(error) = update() {
        println!("setup: {error:#}; going on with the lists that are here");
    }
    println!("setup: apt-get install {list}   (as root; no service is started)");
    let mut shell = as_root("sh")?;
    shell.args(["-c", SCRIPT, "xtask-setup"]).args(packages);
    let status = shell.stdin(Stdio::null()).status().context("cannot run apt-get")?;
    if !status.success() {
        return Err(by_hand::ask(&format!("apt-get could not install {list} ({status})")));
    }
    Ok(())
}

/// Reads the lists of packages, once in the life of this process.
fn update() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    println!("setup: apt-get update   (as root; the lists of packages)");
    let mut apt = as_root("apt-get")?;
    let status = apt.args(["update", "-qq"]).stdin(Stdio::null()).status().context("cannot run apt-get")?;
    if !status.success() {
        bail!("apt-get update failed ({status})");
    }
    Ok(())
}

/// `apt-cache policy` prints a candidate for what can be installed, `(none)` or nothing for the rest.
fn is_offered(package: &str) -> bool {
    let said = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    said.is_ok_and(|said| {
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        text.lines().any(|line| line.trim().strip_prefix("Candidate:").is_some_and(|c| c.trim() != "(none)"))
    })
}
