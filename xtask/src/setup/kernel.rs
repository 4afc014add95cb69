//! The oldest kernel that the XDP program is promised for, as Debian packages it for virtual machines: downloaded and
//! unpacked into the target folder, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::apt;
use crate::build;
use crate::privilege::as_user;

/// The release that the README promises.
const OLDEST: &str = "6.1";
/// Modules that the fixtures need, and that this kernel has not built in.
const MODULES: &[&str] = &["veth"];

/// A kernel, unpacked.
pub(crate) struct Kernel {
    /// As `uname -r` would say.
    pub(crate) release: String,
    /// To be booted.
    pub(crate) image: PathBuf,
    /// To be loaded, in this order.
    pub(crate) modules: Vec<PathBuf>,
}

/// True where there is such a kernel, or can be.
#[must_use]
pub(crate) fn is_possible() -> bool {
    cfg!(target_arch = "x86_64") && (found().is_some() || package().is_some())
}

/// The one that has been unpacked.
///
/// # Errors
/// When none has been.
pub(crate) fn oldest() -> Result<Kernel> {
    found().context("there is no kernel to boot: cargo xtask setup")
}

/// The newest of the oldest.
pub(super) fn found() -> Option<Kernel> {
    let folders = fs::read_dir(folder()).ok()?.flatten();
    folders
        .filter_map(|entry| Kernel::in_folder(&entry.path()).ok())
        .max_by_key(|kernel| revision(&kernel.release))
}

/// Downloads and unpacks it, as the user.
///
/// # Errors
/// When there is no such package, or a step fails.
pub(super) fn fetch() -> Result<()> {
    let package = package().with_context(|| format!("no package of a Linux {OLDEST} is offered here"))?;
    let download = folder().join("download");
    make(&download)?;
    println!("setup: apt-get download {package}   (booted under qemu; not installed)");
    let mut apt = as_user("apt-get");
    // As root it would hand the download to another user, who may not write here.
    apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", &package]).current_dir(&download);
    run(&mut apt, "apt-get download")?;
    let file = fs::read_dir(&download)?.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
    });
    let unpacked = unpack(&file.context("apt-get has downloaded nothing")?, &folder().join(&package));
    run(as_user("rm").arg("-r").arg(&download), "rm")?;
    unpacked.map(drop)
}

/// Takes what a guest needs out of a package.
///
/// # Errors
/// When it is not the package of a kernel, or its modules are not there.
pub(crate) fn unpack(package: &Path, to: &Path) -> Result<Kernel> {
    make(to)?;
    let mut archive = as_user("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let content = archive.stdout.take().context("the archive was not captured")?;
    let mut tar = as_user("tar");
    tar.arg("-x").arg("-C").arg(to).args(["--wildcards", "*/vmlinuz-*"]);
    tar.args(MODULES.iter().map(|name| format!("*/{name}.ko*"))).stdin(content);
    let unpacked = run(&mut tar, "tar");
    ensure!(archive.wait()?.success(), "dpkg-deb cannot read {}", package.display());
    unpacked?;
    for packed in files(to).iter().filter(|path| path.extension().is_some_and(|end| end == "xz")) {
        run(as_user("xz").arg("-d").arg(packed), "xz")?;
    }
    Kernel::in_folder(to)
}

impl Kernel {
    fn in_folder(folder: &Path) -> Result<Self> {
        let files = files(folder);
        let named = |wanted: &str| files.iter().find(|path| name(path).starts_with(wanted)).cloned();
        let Some(image) = named("vmlinuz-") else { bail!("there is no kernel in {}", folder.display()) };
        let module =
            |name: &&str| named(&format!("{name}.ko")).with_context(|| format!("there is no module {name}"));
        let modules = MODULES.iter().map(module).collect::<Result<_>>()?;
        Ok(Self { release: name(&image).replacen("vmlinuz-", "", 1), image, modules })
    }
}

/// Debian's name for the newest revision.
fn package() -> Option<String> {
    let pattern = format!("^linux-image-{}\\.0-[0-9]+-cloud-amd64$", OLDEST.replace('.', "\\."));
    let search = || {
        let said = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.split(' ').next())
            .max_by_key(|name| revision(name))
            .map(str::to_owned)
    };
    apt::find(search)
}

/// `6.1.0-56-cloud-amd64` → 56.
fn revision(release: &str) -> u32 {
    release.split('-').rev().find_map(|part| part.parse().ok()).unwrap_or(0)
}

fn folder() -> PathBuf {
    build::workspace().join("target/kernels")
}

/// As the user, like everything in the target folder.
fn make(folder: &Path) -> Result<()> {
    run(as_user("mkdir").arg("-p").arg(folder), "mkdir")
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// All files below, in no order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::revision;

    #[test]
    fn the_newest_revision_is_the_largest_number() {
        assert_eq!(revision("linux-image-6.1.0-9-cloud-amd64"), 9);
        assert!(revision("6.1.0-56-cloud-amd64") > revision("6.1.0-9-cloud-amd64"));
    }
}
