//! The two ways to an eBPF object.
//!
//! Debian ships a core library that is already compiled for BPF; it needs no nightly compiler. Everyone else
//! has rustup's nightly with the sources of core, which cargo then compiles. The build script of the daemon
//! makes the same choice by the same facts: the linked toolchain first, nightly otherwise.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{apt, by_hand};
use crate::privilege::{as_user, find_program, home};

/// The name under which Debian's compiler is known to rustup, unless `BALANCER_BPF_TOOLCHAIN` names another.
const DEBIAN_TOOLCHAIN: &str = "debian-bpf";
const TOOLCHAIN_VARIABLE: &str = "BALANCER_BPF_TOOLCHAIN";

/// The linker's release that both compilers are known to work with, and the LLVM that Debian has for it.
const LINKER_VERSION: &str = "0.13.0";
const DEBIAN_LLVM: u32 = 22;
/// Releases of LLVM that this linker can be built with, newest first.
const LINKER_LLVMS: &[u32] = &[23, 22, 21];

const DEBIAN_CORE: &str = "libstd-rust-web-dev-bpf";
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "cargo-web", DEBIAN_CORE];
const DEBIAN_LLVM_PACKAGE: &str = "llvm-22-dev";

/// A toolchain that can compile for BPF.
pub(super) struct Toolchain {
    name: String,
    how: &'static str,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.how)
    }
}

/// The toolchain that the daemon's build script will use, if it is complete.
pub(super) fn toolchain() -> Option<Toolchain> {
    let installed = installed_toolchains();
    [linked_name().as_str(), "nightly"].into_iter().find_map(|name| {
        let root = &installed.iter().find(|(full, _)| is_called(full, name))?.1;
        Some(Toolchain { name: name.to_owned(), how: way_to_core(root)? })
    })
}

/// The linker that works, and where it is.
pub(super) fn linker() -> Option<String> {
    let path = find_program("bpf-linker").or_else(|| Some(cargo_bin()?.join("bpf-linker")))?;
    // It may be there and still not start: its LLVM is a shared library.
    let said = Command::new(&path).arg("--version").stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    said.status.success().then(|| format!("{} ({version})", path.display()))
}

/// PATH with cargo's folder of binaries in front, where that is what it takes to find the linker.
pub(super) fn path_with_linker() -> Option<String> {
    if find_program("bpf-linker").is_some() {
        return None;
    }
    let bin = cargo_bin()?;
    bin.join("bpf-linker").exists().then(|| path_starting_with(&bin).to_string_lossy().into_owned())
}

/// How the missing parts of the toolchain are had here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Debian's precompiled core.
    Debian,
    /// Nightly and the sources of core.
    Nightly,
}

/// Keeps to the way whose compiler is already there; otherwise Debian's packages where they exist.
///
/// # Errors
/// When there is no rustup, which both ways need.
pub(super) fn choose_way() -> Result<Way> {
    if find_program("rustup").is_none() {
        return Err(by_hand::ask("rustup is missing; the Rust project's own installer brings it"));
    }
    match toolchain() {
        Some(found) if found.name == "nightly" => return Ok(Way::Nightly),
        Some(_) => return Ok(Way::Debian),
        None => {}
    }
    Ok(if apt::has_package(DEBIAN_CORE) { Way::Debian } else { Way::Nightly })
}

impl Way {
    /// Debian's packages that it needs and that are not yet in use.
    pub(super) fn packages(&self) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if *self == Way::Debian {
            if way_to_core(Path::new("/usr")).is_none() {
                packages.extend(DEBIAN_COMPILER);
            }
            if linker().is_none() && llvm_bin(DEBIAN_LLVM).is_none() {
                packages.push(DEBIAN_LLVM_PACKAGE);
            }
        }
        packages
    }

    /// Does what is left after the packages, as the user.
    ///
    /// # Errors
    /// When a step fails.
    pub(super) fn install(self) -> Result<()> {
        if toolchain().is_none() {
            match self {
                Way::Debian => link_debian_compiler()?,
                Way::Nightly => install_nightly()?,
            }
        }
        if linker().is_none() {
            install_linker()?;
        }
        Ok(())
    }
}

fn link_debian_compiler() -> Result<()> {
    let name = linked_name();
    let why = "rustup then knows Debian's compiler, whose core library is ready for BPF";
    step(as_user("rustup").args(["toolchain", "link", &name, "/usr"]), why)
}

fn install_nightly() -> Result<()> {
    let mut rustup = as_user("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    step(&mut rustup, "the nightly compiler builds core for BPF from its sources")
        .map_err(|error| by_hand::ask(&format!("nightly with rust-src could not be installed ({error:#})")))
}

fn install_linker() -> Result<()> {
    let mut cargo = as_user("cargo");
    let why = "links BPF objects; compiled once, about a minute";
    if let Some((llvm, bin)) = LINKER_LLVMS.iter().find_map(|&llvm| Some((llvm, llvm_bin(llvm)?))) {
        cargo.env("PATH", path_starting_with(&bin));
        cargo.args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION]);
        cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    } else if find_program("cargo-binstall").is_some() {
        cargo.args(["binstall", "--no-confirm", &format!("bpf-linker@{LINKER_VERSION}")]);
    } else {
        return Err(by_hand::ask(
            "bpf-linker needs the development files of LLVM 21 to 23, which are not here",
        ));
    }
    step(&mut cargo, why)
}

/// Adds components to the toolchain that this workspace is built with.
///
/// # Errors
/// When rustup cannot get them.
pub(super) fn add_components(components: &[&str]) -> Result<()> {
    step(as_user("rustup").args(["component", "add"]).args(components), "a minimal toolchain comes without")
}

/// Says what and why in one line, then does it.
fn step(command: &mut Command, why: &str) -> Result<()> {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.join(&OsString::from(" ")).to_string_lossy().into_owned();
    println!("setup: {line}   ({why})");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Names and folders of rustup's toolchains.
fn installed_toolchains() -> Vec<(String, PathBuf)> {
    let Ok(said) = as_user("rustup").args(["toolchain", "list", "-v"]).stderr(Stdio::null()).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&said.stdout).lines().filter_map(parse_toolchain).collect()
}

/// `stable-x86_64-unknown-linux-gnu (active, default) /home/me/.rustup/toolchains/…`
fn parse_toolchain(line: &str) -> Option<(String, PathBuf)> {
    let (name, rest) = line.split_once(char::is_whitespace)?;
    Some((name.to_owned(), rest[rest.find('/')?..].trim_end().into()))
}

/// rustup lists its own toolchains with the host behind the name, linked ones as they were called.
fn is_called(full: &str, name: &str) -> bool {
    full == name || full.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') && name == "nightly")
}

/// How the toolchain in `root` comes to a core library for BPF. A toolchain can be listed without its
/// sources.
fn way_to_core(root: &Path) -> Option<&'static str> {
    let compiled = root.join("lib/rustlib/bpfel-unknown-none/lib");
    let is_core = |name: OsString| name.to_string_lossy().starts_with("libcore-");
    if compiled.read_dir().is_ok_and(|mut files| files.any(|file| file.is_ok_and(|f| is_core(f.file_name()))))
    {
        return Some("core precompiled for BPF");
    }
    root.join("lib/rustlib/src/rust/library/core").is_dir().then_some("with the sources of core")
}

fn linked_name() -> String {
    std::env::var(TOOLCHAIN_VARIABLE).unwrap_or_else(|_| DEBIAN_TOOLCHAIN.to_owned())
}

/// Where this release of LLVM keeps its `llvm-config`.
fn llvm_bin(version: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{version}/bin"));
    if debian.join("llvm-config").exists() {
        return Some(debian);
    }
    // Other distributions have one release, whose version only it can tell.
    let config = find_program("llvm-config")?;
    let said = Command::new(&config).arg("--version").output().ok()?;
    let same = String::from_utf8_lossy(&said.stdout).starts_with(&format!("{version}."));
    same.then(|| config.parent().map(Path::to_path_buf)).flatten()
}

fn cargo_bin() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    Some(cargo_home.or_else(|| Some(home()?.join(".cargo")))?.join("bin"))
}

fn path_starting_with(folder: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&rest));
    // A folder with a colon in its name cannot be put into PATH; then the PATH is left as it is.
    std::env::join_paths(folders).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolchain_lines_are_understood() {
        let line = "stable-x86_64-unknown-linux-gnu (active, default) /home/me/.rustup/toolchains/stable";
        assert_eq!(
            parse_toolchain(line),
            Some(("stable-x86_64-unknown-linux-gnu".into(), "/home/me/.rustup/toolchains/stable".into()))
        );
        assert_eq!(parse_toolchain("debian-bpf /usr"), Some(("debian-bpf".into(), "/usr".into())));
        assert_eq!(parse_toolchain("no toolchains"), None);
    }

    #[test]
    fn a_dated_nightly_is_a_nightly_but_no_other_name_is_a_prefix() {
        assert!(is_called("nightly-x86_64-unknown-linux-gnu", "nightly"));
        assert!(is_called("debian-bpf", "debian-bpf"));
        assert!(!is_called("debian-bpf-old", "debian-bpf"));
    }
}
