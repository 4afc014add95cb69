//! Numbers as people read them: three digits that count, and a unit.

use crate::access_log::time;

/// A count: as it is up to 9999, then in thousands, millions and so on.
pub(super) fn count(n: u64) -> String {
    if n < 10_000 { n.to_string() } else { scaled(n as f64, &["", "k", "M", "G", "T", "P", "E"]) }
}

/// Something a second.
pub(super) fn rate(n: f64) -> String {
    if n < 0.05 { "0".to_owned() } else { scaled(n, &["", "k", "M", "G", "T"]) }
}

/// Bytes, in powers of a thousand.
pub(super) fn bytes(n: u64) -> String {
    if n < 1000 {
        format!("{n} B")
    } else {
        scaled(n as f64, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"])
    }
}

/// A time that something took.
pub(super) fn millis(n: f64) -> String {
    match n {
        n if n < 0.05 => "0 ms".to_owned(),
        n if n < 999.5 => scaled(n, &[" ms"]),
        n if n < 99_950.0 => scaled(n / 1000.0, &[" s"]),
        n => span((n / 1000.0) as u64),
    }
}

/// A time that has passed: its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, ..) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

/// A part of one.
pub(super) fn percent(part: f64) -> String {
    let percent = (part * 100.0).clamp(0.0, 100.0);
    // Almost nothing is not nothing, and almost all is not all.
    match percent {
        p if p > 0.0 && p < 1.0 => "<1%".to_owned(),
        p if p > 99.0 && p < 100.0 => ">99%".to_owned(),
        p => format!("{p:.0}%"),
    }
}

/// The time of day, in UTC like the log's.
pub(super) fn clock(unix_millis: u64) -> String {
    let mut text = Vec::new();
    time::write(&mut text, unix_millis);
    String::from_utf8_lossy(&text).chars().skip("2026-11-22T".len()).take("10:11:12".len()).collect()
}

fn scaled(mut n: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be written as 1000 of a unit is one of the next.
    while n >= 999.5 && unit + 1 < units.len() {
        n /= 1000.0;
        unit += 1;
    }
    let decimals = match n {
        n if n >= 99.95 => 0,
        n if n >= 9.995 || unit == 0 => 1,
        _ => 2,
    };
    let text = format!("{n:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (n, expected) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10k"),
            (12_345, "12.3k"),
            (999_499, "999k"),
            (999_500, "1M"),
            (1_234_567, "1.23M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(n), expected, "{n}");
        }
        for (n, expected) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.2, "0.2"),
            (9.97, "10"),
            (12.34, "12.3"),
            (123.4, "123"),
            (4321.0, "4.32k"),
        ] {
            assert_eq!(rate(n), expected, "{n}");
        }
        for (n, expected) in [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (20_971_520, "21 MB")] {
            assert_eq!(bytes(n), expected, "{n}");
        }
        for (n, expected) in [
            (0.0, "0 ms"),
            (1.25, "1.2 ms"),
            (14.0, "14 ms"),
            (999.0, "999 ms"),
            (999.7, "1 s"),
            (61_500.0, "61.5 s"),
            (200_000.0, "3m 20s"),
        ] {
            assert_eq!(millis(n), expected, "{n}");
        }
    }

    #[test]
    fn times_and_shares() {
        for (n, expected) in [
            (0, "0s"),
            (59, "59s"),
            (65, "1m 05s"),
            (3600, "1h 00m"),
            (90_000, "1d 01h"),
            (864_000, "10d 00h"),
        ] {
            assert_eq!(span(n), expected, "{n}");
        }
        for (n, expected) in
            [(0.0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.999, ">99%"), (1.0, "100%"), (f64::NAN, "NaN%")]
        {
            assert_eq!(percent(n), expected, "{n}");
        }
        assert_eq!(clock(1_795_342_272_345), "10:11:12");
    }
}
