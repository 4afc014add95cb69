//! Load: one run of wrk, and its figures.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Namespace;
use super::process::Command;
use crate::privilege::find_program;

/// What wrk needs beyond the seconds it was told to run.
const GRACE: Duration = Duration::from_secs(20);

/// One run: one thread, so that on a small machine the load does not crowd out what it measures.
#[derive(Debug, Clone)]
pub struct Load {
    /// What to GET.
    pub url: String,
    /// Header lines to send.
    pub headers: Vec<String>,
    /// Concurrent connections.
    pub connections: u32,
    /// How long.
    pub seconds: u32,
    /// The core wrk is kept on, if any.
    pub core: Option<u32>,
}

/// What one run measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    /// Half of the requests were answered within this.
    pub p50: Duration,
    /// 99 of 100 requests were answered within this.
    pub p99: Duration,
    /// All requests.
    pub requests: u64,
    /// Answers other than 2xx and 3xx.
    pub refused: u64,
    /// Connections that failed, broke or timed out.
    pub broken: u64,
}

impl Load {
    /// The command, as it will run inside `ns`.
    ///
    /// # Errors
    /// When there is no wrk.
    pub fn command(&self, ns: &Namespace) -> Result<Command> {
        let wrk = find_program("wrk").context("wrk is missing: cargo xtask setup")?;
        let wrk = match self.core {
            Some(core) => ns.command("taskset").args(["-c", &core.to_string()]).arg(wrk),
            None => ns.command(wrk),
        };
        let connections = format!("-c{}", self.connections);
        let seconds = format!("-d{}s", self.seconds);
        let wrk = wrk.args(["-t1", &connections, &seconds, "--latency"]);
        Ok(self.headers.iter().fold(wrk, |wrk, header| wrk.args(["-H", header])).arg(&self.url))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When wrk cannot be run, or fails.
    pub fn run(&self, ns: &Namespace) -> Result<Figures> {
        let limit = Duration::from_secs(self.seconds.into()) + GRACE;
        let output = self.command(ns)?.output(limit)?;
        if !output.status.success() {
            bail!("wrk {}: {} {}", self.url, output.status, output.stderr.trim());
        }
        parse(&output.stdout).with_context(|| format!("wrk said something else: {}", output.stdout))
    }
}

fn parse(report: &str) -> Option<Figures> {
    let mut figures = Figures::default();
    let mut complete = false;
    for line in report.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", value] => figures.p50 = duration(value)?,
            ["99%", value] => figures.p99 = duration(value)?,
            ["Requests/sec:", value] => {
                figures.rate = value.parse().ok()?;
                complete = true;
            }
            [count, "requests", "in", ..] => figures.requests = count.parse().ok()?,
            ["Non-2xx", .., count] => figures.refused = count.parse().ok()?,
            // Socket errors: connect 0, read 3, write 0, timeout 1
            ["Socket", "errors:", rest @ ..] => {
                figures.broken =
                    rest.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok()).sum();
            }
            _ => {}
        }
    }
    complete.then_some(figures)
}

fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood() {
        let report = "Running 3s test @ http://10.20.1.2:80/13
  1 threads and 64 connections
  Latency Distribution
     50%  393.00us
     75%  450.00us
     90%    1.02ms
     99%    2.51ms
  474311 requests in 3.10s, 110.82MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 17
Requests/sec: 153003.55
Transfer/sec:     35.75MB
";
        let figures = parse(report).unwrap();
        assert_eq!((figures.rate, figures.requests), (153_003.55, 474_311));
        assert_eq!((figures.p50, figures.p99), (Duration::from_micros(393), Duration::from_micros(2510)));
        assert_eq!((figures.broken, figures.refused), (4, 17));
        assert_eq!(parse("unable to connect"), None);
    }
}
