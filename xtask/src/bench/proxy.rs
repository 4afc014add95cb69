//! The proxy beside HAProxy and nginx: each alone on one core, load and origin on another.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::contender::{self, Contender};
use super::measure::{Body, Series, Workload, measure};
use super::rivals::{self, BALANCER, HAPROXY, NGINX};
use super::{Options, pin, report, write_json};
use crate::lab::Forward;
use crate::lab::wrk::Figures;

pub(super) fn run(options: &Options, balancer: &Path) -> Result<()> {
    pin::check()?;
    let lab = contender::network(Forward::Nat)?;
    let origin = rivals::origin(&lab)?;
    let mut contenders = rivals::balancers(&lab, balancer)?;
    contenders.push(rivals::haproxy(&lab)?);
    contenders.push(rivals::nginx(&lab)?);
    contenders.iter().try_for_each(|contender| contender.prove(&[Body::Small, Body::Large]))?;
    let conditions = [
        format!(
            "{}; the proxy on core {}, wrk and origin on core {}",
            report::machine(),
            pin::MEASURED,
            pin::OTHERS
        ),
        format!("{}; {}", report::version("haproxy", "-v"), report::version("nginx", "-v")),
        report::load(options),
        format!("offloads: {}", report::offloads(&lab)?),
    ];
    for condition in &conditions {
        println!("- {condition}");
    }
    println!();
    let all = measure(&contenders, Workload::ALL, options)?;
    let rows = rows(&contenders, &all)?;
    tables(&rows);
    let commands = report::commands(&contenders, Workload::ALL, options)?;
    println!("\n### Commands\n\n```text\n{}\n```", commands.join("\n"));
    if let Some(path) = &options.json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        write_json(path, &json!({ "conditions": conditions, "rows": rows, "commands": commands }))?;
    }
    // Until here it had to live.
    drop(origin);
    Ok(())
}

/// One contender under one workload, compared.
struct Row<'a> {
    name: &'static str,
    series: &'a Series,
    rate: Compared,
    p99: Compared,
    /// Of ours with a log: the rate, to that of ours without.
    without_log: Option<f64>,
}

/// Medians: of what was measured, and of the ratios, round by round, to the better of HAProxy and nginx.
struct Compared {
    median: f64,
    to_better: f64,
    better: &'static str,
}

fn rows<'a>(contenders: &[Contender], all: &'a [Series]) -> Result<Vec<Row<'a>>> {
    all.iter().map(|series| row(contenders, all, series)).collect()
}

fn row<'a>(contenders: &[Contender], all: &'a [Series], series: &'a Series) -> Result<Row<'a>> {
    let beside = |name: &str| {
        let is_it =
            |other: &&Series| other.workload == series.workload && contenders[other.contender].name == name;
        all.iter().find(is_it).map(|series| &series.figures[..]).with_context(|| format!("{name} has no row"))
    };
    let (haproxy, nginx) = (beside(HAPROXY)?, beside(NGINX)?);
    let name = contenders[series.contender].name;
    let plain = beside(BALANCER)?;
    let logs = name.starts_with(BALANCER) && name != BALANCER;
    Ok(Row {
        name,
        series,
        rate: Compared::new(&series.figures, haproxy, nginx, rate, true),
        p99: Compared::new(&series.figures, haproxy, nginx, p99, false),
        without_log: logs.then(|| report::ratio(&series.figures, plain, rate)),
    })
}

impl Compared {
    /// The better one is who has the better median, not whoever was luckier in a round.
    fn new(
        ours: &[Figures],
        haproxy: &[Figures],
        nginx: &[Figures],
        of: fn(&Figures) -> f64,
        more_is_better: bool,
    ) -> Self {
        let haproxy_leads = report::median(haproxy, of) > report::median(nginx, of);
        let (figures, better) =
            if haproxy_leads == more_is_better { (haproxy, HAPROXY) } else { (nginx, NGINX) };
        Self { median: report::median(ours, of), to_better: report::ratio(ours, figures, of), better }
    }
}

fn rate(figures: &Figures) -> f64 {
    figures.rate
}

fn p50(figures: &Figures) -> f64 {
    figures.p50.as_secs_f64()
}

fn p99(figures: &Figures) -> f64 {
    figures.p99.as_secs_f64()
}

/// One table for each workload.
fn tables(rows: &[Row<'_>]) {
    for &workload in Workload::ALL {
        println!("\n### {}\n", workload.name());
        let rows: Vec<&Row<'_>> = rows.iter().filter(|row| row.series.workload == workload).collect();
        let better = rows.first().map_or(("", ""), |row| (row.rate.better, row.p99.better));
        println!(
            "| proxy | req/s | / better ({}) | p50 | p99 | / better ({}) | / without log | its core busy | errors | rounds |",
            better.0, better.1
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---|---|");
        rows.iter().for_each(|row| println!("{}", row.line()));
    }
}

impl Row<'_> {
    fn line(&self) -> String {
        let figures = &self.series.figures;
        let rounds: Vec<String> = figures.iter().map(|figures| format!("{:.0}", figures.rate)).collect();
        format!(
            "| {} | {:.0} | {:.2} | {} | {} | {:.2} | {} | {:.0} % | {} | {} |",
            self.name,
            self.rate.median,
            self.rate.to_better,
            report::time(report::median(figures, p50)),
            report::time(self.p99.median),
            self.p99.to_better,
            self.without_log.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
            100.0 * report::middle(self.series.busy.clone()),
            self.errors(),
            rounds.join(", ")
        )
    }

    /// A row with errors measures something else than the others: it says so where nobody can miss it.
    fn errors(&self) -> String {
        let sum = |of: fn(&Figures) -> u64| self.series.figures.iter().map(of).sum::<u64>();
        match (sum(|figures| figures.refused), sum(|figures| figures.broken)) {
            (0, 0) => "none".to_owned(),
            (refused, broken) => format!("**NOT VALID: {refused} not 2xx, {broken} broken connections**"),
        }
    }

    fn json(&self) -> Value {
        let figures = &self.series.figures;
        let micros = |seconds: f64| (seconds * 1e6).round();
        json!({
            "proxy": self.name,
            "workload": self.series.workload.name(),
            "requests_per_second": self.rate.median,
            "rate_to_better": self.rate.to_better,
            "better_by_rate": self.rate.better,
            "p50_us": micros(report::median(figures, p50)),
            "p99_us": micros(self.p99.median),
            "p99_to_better": self.p99.to_better,
            "better_by_p99": self.p99.better,
            "rate_to_without_log": self.without_log,
            "core_busy": report::middle(self.series.busy.clone()),
            "errors": self.series.errors(),
            "rounds": figures.iter().map(|one| json!({
                "requests_per_second": one.rate, "p50_us": micros(p50(one)), "p99_us": micros(p99(one)),
                "not_2xx": one.refused, "broken": one.broken,
            })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::measure::Reuse;

    fn figures(rates: [f64; 3], p99_us: u64) -> Vec<Figures> {
        let p99 = Duration::from_micros(p99_us);
        rates.map(|rate| Figures { rate, p99, ..Figures::default() }).into()
    }

    #[test]
    fn the_better_one_is_chosen_by_its_median_for_each_measure() {
        let ours = figures([110.0, 55.0, 210.0], 300);
        let (haproxy, nginx) = (figures([100.0, 50.0, 200.0], 600), figures([20.0, 900.0, 30.0], 200));
        let by_rate = Compared::new(&ours, &haproxy, &nginx, rate, true);
        assert_eq!((by_rate.better, format!("{:.2}", by_rate.to_better)), (HAPROXY, "1.10".to_owned()));
        let by_p99 = Compared::new(&ours, &haproxy, &nginx, p99, false);
        assert_eq!((by_p99.better, format!("{:.2}", by_p99.to_better)), (NGINX, "1.50".to_owned()));
    }

    #[test]
    fn a_row_with_errors_says_so() {
        let workload = Workload { reuse: Reuse::KeepAlive, body: Body::Small };
        let mut series = Series {
            contender: 0,
            workload,
            figures: figures([1.0, 2.0, 3.0], 1),
            busy: vec![1.0; 3],
            forwarded: 0,
        };
        let line = |series: &Series| {
            let compared = || Compared { median: 2.0, to_better: 1.0, better: NGINX };
            Row { name: BALANCER, series, rate: compared(), p99: compared(), without_log: None }.line()
        };
        assert!(line(&series).contains("| none |"));
        series.figures[1].broken = 7;
        assert!(line(&series).contains("NOT VALID: 0 not 2xx, 7 broken"));
    }
}
