//! A strict reader of OpenMetrics text: what Prometheus would complain about is an error here.

use std::collections::{BTreeMap, HashSet};

/// Samples by name and labels, as they stand there.
pub(super) struct Metrics {
    samples: BTreeMap<String, f64>,
    counters: HashSet<String>,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = Self { samples: BTreeMap::new(), counters: HashSet::new() };
        let body = text.strip_suffix("# EOF\n").expect("the last line is # EOF");
        let (mut family, mut kind, mut known) = (String::new(), String::new(), HashSet::new());
        for line in body.lines() {
            if let Some(about) = line.strip_prefix("# ") {
                let mut words = about.splitn(3, ' ');
                let [what, name, rest] = [(); 3].map(|()| words.next().unwrap_or_default());
                match what {
                    "HELP" => {
                        assert!(known.insert(name.to_owned()), "{name} is there twice");
                        assert!(name.starts_with("balancer_") && !rest.is_empty(), "{line}");
                        (family, kind) = (name.to_owned(), String::new());
                    }
                    "TYPE" => {
                        assert_eq!(name, family, "{line}");
                        kind = rest.to_owned();
                    }
                    "UNIT" => assert!(name == family && name.ends_with(&format!("_{rest}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            metrics.sample(line, &family, &kind);
        }
        metrics.check_histograms();
        metrics
    }

    fn sample(&mut self, line: &str, family: &str, kind: &str) {
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let name = sample.split('{').next().expect("a name");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        match kind {
            "counter" => assert_eq!(suffix, "_total", "{line}"),
            "gauge" => assert_eq!(suffix, "", "{line}"),
            "histogram" => assert!(matches!(suffix, "_bucket" | "_sum" | "_count"), "{line}"),
            _ => panic!("{line} has the type {kind:?}"),
        }
        if let Some((_, labels)) = sample.split_once('{') {
            let labels = labels.strip_suffix('}').expect("an end of the labels");
            for label in labels.split("\",") {
                let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                assert!(!value.trim_end_matches('"').contains('"'), "{line}");
            }
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value >= 0.0, "{line}");
        if kind != "gauge" {
            self.counters.insert(sample.to_owned());
        }
        assert_eq!(self.samples.insert(sample.to_owned(), value), None, "{line} is there twice");
    }

    /// Buckets only grow, and the last one has all.
    fn check_histograms(&self) {
        let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (sample, &value) in &self.samples {
            let Some((name, labels)) = sample.split_once("_bucket{") else { continue };
            let labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
            let (bounds, others): (Vec<&str>, Vec<&str>) =
                labels.into_iter().partition(|label| label.starts_with("le="));
            let bound = bounds[0].trim_start_matches("le=").trim_matches('"').replace("+Inf", "inf");
            let others = if others.is_empty() { String::new() } else { format!("{{{}}}", others.join(",")) };
            let bucket = (bound.parse().expect("a bound"), value);
            series.entry(format!("{name}_count{others}")).or_default().push(bucket);
        }
        for (count, mut buckets) in series {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.len() > 1 && buckets.is_sorted_by_key(|bucket| bucket.1), "{count}: {buckets:?}");
            let last = buckets.last().expect("buckets");
            assert_eq!((last.0, self.samples.get(&count)), (f64::INFINITY, Some(&last.1)), "{count}");
        }
    }

    pub(super) fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples.keys()))
    }

    pub(super) fn has_not_gone_back_since(&self, before: &Self) {
        for (sample, value) in before.samples.iter().filter(|(sample, _)| before.counters.contains(*sample)) {
            assert!(self.samples.get(sample).is_some_and(|now| now >= value), "{sample}");
        }
    }
}
