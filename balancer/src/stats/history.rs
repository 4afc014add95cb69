//! The last ten minutes, one sample every five seconds: what a page or a terminal has to draw before it has seen anything
//! itself.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::latency::Times;
use super::rates::LOOK;

/// From one sample to the next.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Looks of the onlooker from one sample to the next.
pub(super) const LOOKS: u32 = (INTERVAL.as_millis() / LOOK.as_millis()) as u32;

/// Samples that are kept: ten minutes.
const MOST: usize = 120;

/// The share of fast connections is that of so many samples: a minute.
const SHARE_OF: usize = 12;

/// What has been counted up to now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Totals {
    /// Unix time, in seconds.
    pub at: u64,
    pub requests: u64,
    /// Connections of clients to the proxy.
    pub connections: u64,
    /// Connections that were opened on the fast path.
    pub fast_opened: u64,
    /// Requests that the service has failed: 5xx, and answers that a server broke off.
    pub failures: u64,
    pub total: Times,
    /// Requests now.
    pub in_flight: u64,
    /// Fast connections now.
    pub fast: u64,
}

/// Five seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Unix time of their end, in seconds.
    pub at: u64,
    /// Requests that came.
    pub requests_per_second: f64,
    /// Client connections that came to the proxy.
    pub connections_per_second: f64,
    /// Connections that were opened on the fast path.
    pub fast_per_second: f64,
    /// 5xx, and answers that a server broke off.
    pub failures_per_second: f64,
    /// Half of the requests took no longer; `None`: there were none.
    pub p50_millis: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99_millis: Option<f64>,
    /// Requests at their end.
    pub in_flight: u64,
    /// Fast connections at their end.
    pub fast: u64,
}

/// The samples.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// What the last sample ended with.
    last: Totals,
}

impl History {
    /// So much it is, [`INTERVAL`] after the last time.
    pub(super) fn note(&mut self, totals: Totals) {
        // A server that has gone takes its fast connections out of the sum.
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / INTERVAL.as_secs_f64();
        let (last, times) = (&self.last, totals.total.since(&self.last.total));
        let millis = |quantile| times.quantile_micros(quantile).map(|micros| micros / 1e3);
        let sample = Sample {
            at: totals.at,
            requests_per_second: per_second(totals.requests, last.requests),
            connections_per_second: per_second(totals.connections, last.connections),
            fast_per_second: per_second(totals.fast_opened, last.fast_opened),
            failures_per_second: per_second(totals.failures, last.failures),
            p50_millis: millis(0.5),
            p99_millis: millis(0.99),
            in_flight: totals.in_flight,
            fast: totals.fast,
        };
        self.samples.push_back(sample);
        self.trim();
        self.last = totals;
    }

    /// Goes on with these, the oldest first.
    pub(super) fn resume(&mut self, samples: Vec<Sample>) {
        self.samples = samples.into();
        self.trim();
    }

    fn trim(&mut self) {
        let superfluous = self.samples.len().saturating_sub(MOST);
        self.samples.drain(..superfluous);
    }

    /// It begins here: what was counted before is not of the first five seconds.
    pub(super) fn begin(&mut self, totals: Totals) {
        self.last = totals;
    }

    /// The oldest first.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }

    /// Of the connections that came in the last minute, how many were fast, from 0 to 1; `None`: there were none.
    pub(super) fn fast_share(&self) -> Option<f64> {
        let recent = self.samples.iter().rev().take(SHARE_OF);
        let (fast, slow) = recent.fold((0.0, 0.0), |(fast, slow), sample| {
            (fast + sample.fast_per_second, slow + sample.connections_per_second)
        });
        (fast + slow > 0.0).then(|| fast / (fast + slow))
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::*;

    #[test]
    fn a_sample_is_what_has_come_since_the_last_one() {
        let (mut history, latency) = (History::default(), Latency::default());
        latency.note(Duration::from_millis(900));
        let mut totals =
            Totals { requests: 1000, fast_opened: 70, total: latency.read(), ..Totals::default() };
        history.begin(totals);
        (0..100).for_each(|_| latency.note(Duration::from_micros(750)));
        totals = Totals { at: 5, requests: 1100, connections: 30, fast_opened: 80, ..totals };
        totals.total = latency.read();
        history.note(totals);
        let sample = history.samples()[0];
        assert_eq!((sample.at, sample.requests_per_second, sample.connections_per_second), (5, 20.0, 6.0));
        assert_eq!((sample.fast_per_second, history.fast_share()), (2.0, Some(0.25)));
        assert!((0.5..1.0).contains(&sample.p99_millis.expect("requests")), "{sample:?}");
        // A server is gone with its 80 fast connections, and nothing has come.
        history.note(Totals { at: 10, fast_opened: 0, ..totals });
        let sample = history.samples()[1];
        assert_eq!((sample.fast_per_second, sample.p50_millis), (0.0, None));
    }

    #[test]
    fn ten_minutes_are_kept_and_the_share_is_that_of_the_last() {
        let mut history = History::default();
        assert_eq!(history.fast_share(), None, "of nothing");
        for at in 1..=500 {
            // All were fast until a minute ago.
            let fast_opened = at.min(488) * 10;
            history.note(Totals { at, fast_opened, connections: at.max(488) - 488, ..Totals::default() });
        }
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0].at, samples[119].at), (120, 381, 500));
        assert_eq!(history.fast_share(), Some(0.0));
        // Another process goes on.
        let mut heir = History::default();
        heir.resume(samples.clone());
        heir.begin(Totals { fast_opened: 10_000, ..Totals::default() });
        heir.note(Totals { at: 501, requests: 50, fast_opened: 10_000, ..Totals::default() });
        let resumed = heir.samples();
        assert_eq!((resumed.len(), &resumed[..119]), (120, &samples[1..]));
        assert_eq!((resumed[119].requests_per_second, resumed[119].fast_per_second), (10.0, 0.0));
    }
}
