//! Which core a process is kept on: the proxy that is measured alone on one, everything else on the other, so that no
//! proxy is faster because the scheduler happened to give it more.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::Child;

/// Load and origin.
pub(super) const OTHERS: u32 = 0;
/// Who is measured.
pub(super) const MEASURED: u32 = 1;

/// Makes sure that there are two cores for us.
pub(super) fn check() -> Result<()> {
    let ours = sched_getaffinity(Pid::from_raw(0))?;
    for core in [OTHERS, MEASURED] {
        ensure!(
            ours.is_set(core as usize)?,
            "core {core} is not ours to use: proxies are measured on a core of their own"
        );
    }
    Ok(())
}

/// Keeps all threads of `child` on `core`, and those that they will start.
pub(super) fn pin(child: &Child, core: u32) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core as usize)?;
    let tasks = format!("/proc/{}/task", child.pid());
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        let thread = task?.file_name().to_string_lossy().parse()?;
        sched_setaffinity(Pid::from_raw(thread), &set)
            .with_context(|| format!("cannot keep process {} on core {core}", child.pid()))?;
    }
    Ok(())
}

/// A command line as it would be typed to the same effect.
pub(super) fn line(core: u32, line: &str) -> String {
    format!("taskset -c {core} {line}")
}
