//! Figures as people read them.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Options;
use super::contender::Contender;
use super::measure::{CONNECTIONS, WARM_UP_SECONDS, Workload};
use crate::lab::Lab;
use crate::lab::wrk::Figures;
use crate::privilege::find_program;

/// The features that change what a packet costs.
const OFFLOADS: &[&str] =
    &["tx-checksumming", "tx-tcp-segmentation", "generic-segmentation-offload", "generic-receive-offload"];

/// The kernel and the processor it runs on.
pub(super) fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("kernel {}, {cores} cores, {model}", kernel.trim())
}

/// The load, in a line.
pub(super) fn load(options: &Options) -> String {
    format!(
        "wrk, {CONNECTIONS} connections, 1 thread on core 0; {} rounds of {} s, interleaved, after a warm-up of \
         {WARM_UP_SECONDS} s; medians",
        options.rounds, options.seconds
    )
}

/// What the links of a network do by themselves.
pub(super) fn offloads(lab: &Lab) -> Result<String> {
    let hosts = states(&lab.client().ns.output("ethtool", &["-k", "eth0"])?);
    let own = states(&lab.balancer.output("ethtool", &["-k", &lab.client().interface])?);
    Ok(if hosts == own { hosts } else { format!("hosts {hosts}; balancer {own}") })
}

/// What was run, word by word.
pub(super) fn commands(
    contenders: &[Contender],
    workloads: &[Workload],
    options: &Options,
) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for contender in contenders {
        lines.push(format!("# {}", contender.name));
        lines.extend(contender.lines.iter().cloned());
        for workload in workloads {
            lines.push(workload.load(contender, options.seconds).command(contender.client())?.line());
        }
    }
    Ok(lines)
}

pub(super) fn median(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    middle(figures.iter().map(of).collect())
}

/// Round by round, since what slows a round down slows its neighbours down too; then the median.
pub(super) fn ratio(one: &[Figures], other: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    middle(one.iter().zip(other).map(|(one, other)| of(one) / of(other)).collect())
}

pub(super) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

pub(super) fn time(seconds: f64) -> String {
    let time = Duration::from_secs_f64(seconds);
    if time < Duration::from_millis(1) {
        format!("{} µs", time.as_micros())
    } else {
        format!("{:.2} ms", seconds * 1e3)
    }
}

fn states(features: &str) -> String {
    let told = features.lines().filter_map(|line| line.trim().split_once(": "));
    let wanted = told.filter(|(name, _)| OFFLOADS.contains(name));
    let states = wanted.map(|(name, state)| format!("{name} {}", state.split(' ').next().unwrap_or(state)));
    states.collect::<Vec<_>>().join(", ")
}

/// The first line of what a program says of itself, wherever it says it.
pub(super) fn version(program: &str, flag: &str) -> String {
    let said = find_program(program).and_then(|path| Command::new(path).arg(flag).output().ok());
    let text = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or(program).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((middle(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((middle(vec![3.0, 1.0]) - 2.0).abs() < 1e-9);
        assert!(middle(Vec::new()).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_compares_rounds_and_not_their_medians() {
        let rounds = |rates: [f64; 3]| rates.map(|rate| Figures { rate, ..Figures::default() });
        let (one, other) = (rounds([10.0, 100.0, 20.0]), rounds([5.0, 200.0, 10.0]));
        assert!((ratio(&one, &other, |figures| figures.rate) - 2.0).abs() < 1e-9);
    }
}
