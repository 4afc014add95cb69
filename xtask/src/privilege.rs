//! Who is asking, and how one step is done as root or as that user.
//!
//! The rule: cargo and rustup always run as the person who typed the command, so that nothing in their home
//! or target folder belongs to root; only the step that needs privileges gets them.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Error, Result, bail};
use nix::unistd::{Uid, User};

/// What privileged children should still see after `sudo` has emptied the environment.
const KEPT: &[&str] = &["CI", "RUST_BACKTRACE", "TERM", "NO_COLOR", "LIBTEST_THREADS", "RUST_TEST_THREADS"];
const KEPT_PREFIX: &str = "BALANCER_";

/// True when this process is root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// True when a privileged step can be done: as root, or through `sudo` that either needs no password or has a
/// terminal to ask for one.
#[must_use]
pub fn can_be_root() -> bool {
    is_root()
        || (find_program("sudo").is_some() && (std::io::stdin().is_terminal() || sudo_without_password()))
}

/// A command that runs as root, through `sudo` when this process is not.
///
/// # Errors
/// When neither is possible.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    if !can_be_root() {
        bail!("this step needs root; run it as root, or as a user for whom `sudo -n true` works");
    }
    let mut command = Command::new("sudo");
    // `env` on the far side, because a policy may refuse --preserve-env.
    command.arg("env");
    command
        .args(env::vars().filter(|(name, _)| is_kept(name)).map(|(name, value)| format!("{name}={value}")));
    command.arg(program.as_ref());
    Ok(command)
}

/// Replaces this process with the same program as root, with other arguments. Returns only when that fails.
#[must_use]
pub fn again_as_root(arguments: &[OsString]) -> Error {
    let again = env::current_exe().map_err(Error::from).and_then(as_root);
    match again {
        Ok(mut command) => Error::from(command.args(arguments).exec()).context("cannot start again as root"),
        Err(error) => error,
    }
}

/// A command that runs as the person who typed the command: under `sudo cargo xtask …` that is not root.
#[must_use]
pub fn as_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = behind_sudo() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    }
    command
}

/// The home folder of the person who typed the command.
#[must_use]
pub fn home() -> Option<PathBuf> {
    behind_sudo().map(|user| user.dir).or_else(|| env::var_os("HOME").map(PathBuf::from))
}

/// Finds a program as a shell would, and in the system folders that an ordinary user's PATH leaves out.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The user behind `sudo`, when this process is root only because of it.
fn behind_sudo() -> Option<User> {
    if !is_root() {
        return None;
    }
    let uid: u32 = env::var("SUDO_UID").ok()?.parse().ok()?;
    (uid != 0).then(|| User::from_uid(Uid::from_raw(uid)).ok().flatten()).flatten()
}

fn sudo_without_password() -> bool {
    let quiet =
        Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name.starts_with(KEPT_PREFIX)
}
