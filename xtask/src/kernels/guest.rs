//! Inside the guest, where the test program is the first process: it mounts what tests need, runs itself once more for
//! the tests, says how that ended, and ends the machine.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{getpid, sync};

/// The kernel gives the words of its command line that it does not know to the first process, as its environment.
pub(super) const ASKED: &str = "BALANCER_GUEST";
/// Where the image keeps the modules that tests need.
pub(super) const MODULES: &str = "modules";
/// What stands in front of the line that the guest ends with.
pub(super) const LAST_WORD: &str = "guest: the tests have ended: ";

const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
];

/// True in every process of a guest.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(ASKED).is_some()
}

/// Does all of this, if this is the first process of a guest. To be called first in the `main` of the tests.
pub fn play_if_asked() {
    if !is_inside() || getpid().as_raw() != 1 {
        return;
    }
    match play() {
        Ok(outcome) => println!("{LAST_WORD}{outcome}"),
        Err(error) => println!("{LAST_WORD}{error:#}"),
    }
    sync();
    // The machine is started with the order not to begin anew, so this is its end. If it were refused, then the end of the
    // first process would be that of the kernel.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn play() -> Result<String> {
    for (kind, place) in MOUNTS {
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir(format!("/{MODULES}"))?.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for path in modules {
        finit_module(&File::open(&path)?, c"", ModuleInitFlags::empty())
            .with_context(|| format!("cannot load {}", path.display()))?;
    }
    // Results count here: what cannot be tested has failed.
    let tests = Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
        .env("CI", "true")
        .status()
        .context("cannot start the tests")?;
    Ok(tests.to_string())
}
