//! How long something took: a histogram, the mean of the last ones, and the longest.

use std::time::Duration;

use super::counter::Counter;

/// Where the buckets of every histogram end, in microseconds; the last bucket is without end. What a server next door
/// answers at once is told from what a disk or a database adds, and that from what a user notices.
pub const BOUNDS: [u64; 15] = [
    100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// A bucket more than there are bounds.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The mean is that of this many, as in HAProxy.
const RECENT: u64 = 1024;

/// Times, as a worker notes them.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; BUCKETS],
    /// All of them, in microseconds.
    sum: Counter,
    /// Of the last 1024, more or less: each new one displaces the mean of those before.
    recent: Counter,
    longest: Counter,
    noted: Counter,
}

/// What a [`Latency`] says, or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// How many fell into each bucket, not into those below.
    pub buckets: [u64; BUCKETS],
    /// Of all, in microseconds.
    pub sum_micros: u64,
    /// Of the last ones, in microseconds, and how many those are.
    recent: (u64, u64),
    /// The longest, in microseconds.
    pub longest_micros: u64,
}

impl Latency {
    /// It took `time`.
    pub fn note(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].add(1);
        self.sum.add(micros);
        self.longest.raise(micros);
        let (recent, noted) = (self.recent.get(), self.noted.get());
        let displaced = if noted < RECENT { 0 } else { recent / RECENT };
        self.recent.set(recent - displaced + micros);
        self.noted.set(noted + 1);
    }

    /// What has been noted.
    pub fn read(&self) -> Times {
        Times {
            buckets: std::array::from_fn(|index| self.buckets[index].get()),
            sum_micros: self.sum.get(),
            recent: (self.recent.get(), self.noted.get().min(RECENT)),
            longest_micros: self.longest.get(),
        }
    }

    /// Begins to look for the longest anew.
    pub fn forget_longest(&self) {
        self.longest.set(0);
    }
}

impl Times {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was noted after `before`, but for the mean of the last ones and the longest, which are those of all.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|index| self.buckets[index].saturating_sub(before.buckets[index])),
            sum_micros: self.sum_micros.saturating_sub(before.sum_micros),
            ..*self
        }
    }

    /// What a `quantile` of them, from 0 to 1, took at most, in microseconds: as exact as the bounds of its bucket, between
    /// which they are taken to be spread evenly. Beyond the last bound, that bound. `None`: there were none.
    pub fn quantile_micros(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        let wanted = quantile * count as f64;
        let mut below = 0.0;
        for (index, &within) in self.buckets.iter().enumerate().filter(|(_, within)| **within > 0) {
            if below + within as f64 >= wanted {
                let from = index.checked_sub(1).map_or(0, |lower| BOUNDS[lower]) as f64;
                let to = BOUNDS.get(index).map_or(from, |bound| *bound as f64);
                return Some(from + (to - from) * (wanted - below) / within as f64);
            }
            below += within as f64;
        }
        None
    }

    /// The mean of the last ones, in whole milliseconds.
    pub fn mean_millis(&self) -> u64 {
        let (sum, count) = self.recent;
        if count == 0 { 0 } else { (sum + count * 500) / (count * 1000) }
    }
}

impl std::ops::Add for Times {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            buckets: std::array::from_fn(|index| self.buckets[index] + other.buckets[index]),
            sum_micros: self.sum_micros + other.sum_micros,
            recent: (self.recent.0 + other.recent.0, self.recent.1 + other.recent.1),
            longest_micros: self.longest_micros.max(other.longest_micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_ends_with_them() {
        let latency = Latency::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            latency.note(Duration::from_micros(micros));
        }
        let times = latency.read();
        let mut expected = [0; BUCKETS];
        (expected[0], expected[1], expected[14], expected[15]) = (2, 1, 1, 1);
        assert_eq!((times.buckets, times.count()), (expected, 5));
        assert_eq!((times.sum_micros, times.longest_micros), (20_000_202, 10_000_001));
        latency.forget_longest();
        assert_eq!(latency.read().longest_micros, 0);
    }

    #[test]
    fn a_quantile_is_in_the_bucket_where_it_falls() {
        let latency = Latency::default();
        assert_eq!(latency.read().quantile_micros(0.5), None, "of nothing");
        (0..99).for_each(|_| latency.note(Duration::from_micros(700)));
        latency.note(Duration::from_secs(60));
        let times = latency.read();
        let close = |quantile, expected: f64| {
            let found = times.quantile_micros(quantile).expect("some");
            assert!((found - expected).abs() < 1.0, "{quantile}: {found} for {expected}");
        };
        close(0.5, 500.0 + 500.0 * 50.0 / 99.0);
        close(0.99, 1000.0);
        close(0.999, 10_000_000.0);
        assert_eq!(times.since(&times).quantile_micros(0.5), None);
    }

    #[test]
    fn the_mean_is_that_of_the_last_ones() {
        let latency = Latency::default();
        let note = |count, millis| (0..count).for_each(|_| latency.note(Duration::from_millis(millis)));
        assert_eq!(latency.read().mean_millis(), 0, "of nothing");
        note(1024, 10);
        assert_eq!(latency.read().mean_millis(), 10);
        note(10 * 1024, 30);
        assert_eq!(latency.read().mean_millis(), 30, "nothing is left of the first ones");
        let other = Latency::default();
        other.note(Duration::from_millis(30));
        assert_eq!((latency.read() + other.read()).mean_millis(), 30, "each counts for as many as it has");
    }
}
