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

/// What the measured core has done since start, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    busy: u64,
    all: u64,
}

impl Work {
    /// Until now.
    pub(super) fn read() -> Result<Self> {
        let told = fs::read_to_string("/proc/stat")?;
        of_core(&told, MEASURED).with_context(|| format!("/proc/stat does not tell of core {MEASURED}"))
    }

    /// The share of the time since `earlier` that it was busy. A proxy that does not fill its core has been waiting for
    /// wrk or the origin, and its rate is theirs.
    pub(super) fn share_since(self, earlier: Self) -> f64 {
        let (busy, all) = (self.busy.saturating_sub(earlier.busy), self.all.saturating_sub(earlier.all));
        if all == 0 { 0.0 } else { busy as f64 / all as f64 }
    }
}

/// `cpu1 user nice system idle iowait irq softirq steal …`; guests are counted in `user` already.
fn of_core(stat: &str, core: u32) -> Option<Work> {
    let name = format!("cpu{core} ");
    let ticks = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let ticks: Vec<u64> = ticks.split_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(Work { busy: all - idle, all })
}

/// A command line as it would be typed to the same effect.
pub(super) fn line(core: u32, line: &str) -> String {
    format!("taskset -c {core} {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_busy_when_it_is_not_idle() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu1 10 0 20 60 5 0 5 0 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        let work = of_core(stat, 1).unwrap();
        assert_eq!((work.busy, work.all), (35, 100));
        assert!((work.share_since(Work { busy: 5, all: 50 }) - 0.6).abs() < 1e-9);
        assert!(of_core(stat, 2).is_none());
    }
}
