//! Values with units: durations, sizes, counts. A bare number is refused where it could mean anything.

use std::ops::RangeInclusive;
use std::time::Duration;

/// No timeout needs more; it keeps every sum of times far from overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// `250ms 2s 30m 3h 7d`, more than nothing.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be more than nothing; write for example 2s".into()),
        duration => Ok(duration),
    }
}

/// `250ms 2s 30m 3h 7d`, or `0s`.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write a whole number and a unit, as in 250ms, 2s, 30m or 3h";
    let (number, unit) = split(text).ok_or_else(|| format!("is not a duration; {EXAMPLES}"))?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => return Ok(Duration::ZERO),
        "" => return Err(format!("has no unit; write {number}s for seconds or {number}ms for milliseconds")),
        _ => return Err(format!("is not a whole number with a unit that is known; {EXAMPLES}")),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "is longer than a year; write at most 365d".into())
}

/// Bytes: `16384`, `64k`, `1m`; k is 1024.
pub(crate) fn size(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let bytes = scaled(text, 1024, "a size", "64k or 1m")?;
        within(bytes, &range, 1024).map(|bytes| bytes as usize)
    }
}

/// Things: `5000`, `100k`, `1m`; k is 1000.
pub(crate) fn count(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    let range = u64::from(*range.start())..=u64::from(*range.end());
    move |text| {
        let things = scaled(text, 1000, "a count", "5000, 100k or 1m")?;
        // The range ends within u32.
        within(things, &range, 1000).map(|things| things as u32)
    }
}

/// A plain whole number.
pub(crate) fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> + Clone {
    let (low, high) = (*range.start(), *range.end());
    move |text| {
        let wrong = || format!("is not a whole number from {low} to {high}; write one");
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wrong)
    }
}

/// `on` or `off`.
pub(crate) fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("is neither on nor off; write on or off".into()),
    }
}

/// What the environment says for a flag without value.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "on" | "yes" | "true" => Ok(true),
        "" | "0" | "off" | "no" | "false" => Ok(false),
        _ => Err("is neither on nor off; write on or off".into()),
    }
}

/// Permissions of a file as `chmod` takes them. The owner's are needed by the balancer's own client commands.
pub(crate) fn permissions(text: &str) -> Result<u32, String> {
    let digits = text.len() <= 4 && text.bytes().all(|digit| digit.is_ascii_digit());
    let mode = if digits { u32::from_str_radix(text, 8).ok() } else { None };
    match mode {
        Some(mode) if mode & !0o666 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        _ => Err("is not a mode for a socket; write 0600, 0660 or 0666".into()),
    }
}

fn scaled(text: &str, kilo: u64, kind: &str, examples: &str) -> Result<u64, String> {
    let wrong = || format!("is not {kind}; write for example {examples}");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" => 1,
        "k" => kilo,
        "m" => kilo * kilo,
        "g" => kilo * kilo * kilo,
        _ => return Err(wrong()),
    };
    // What does not fit is larger than any range.
    Ok(number.saturating_mul(factor))
}

fn within(value: u64, range: &RangeInclusive<u64>, kilo: u64) -> Result<u64, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (short(*range.start(), kilo), short(*range.end(), kilo));
    Err(format!("is out of range; write one from {low} to {high}"))
}

/// The shortest spelling: `16k` for 16384.
fn short(value: u64, kilo: u64) -> String {
    match value {
        0 => "0".into(),
        _ if value.is_multiple_of(kilo * kilo) => format!("{}m", value / kilo / kilo),
        _ if value.is_multiple_of(kilo) => format!("{}k", value / kilo),
        _ => value.to_string(),
    }
}

/// Digits and what follows them; `None` without digits or with more of them than a number can have.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let table = [
            ("250ms", Ok(250)),
            ("2s", Ok(2_000)),
            ("30m", Ok(1_800_000)),
            ("3h", Ok(10_800_000)),
            ("7d", Ok(604_800_000)),
            ("5", Err("write 5s for seconds")),
            ("0s", Err("more than nothing")),
            ("1.5s", Err("with a unit that is known")),
            ("s", Err("not a duration")),
            ("", Err("not a duration")),
            ("-1s", Err("not a duration")),
            ("2 s", Err("with a unit that is known")),
            ("366d", Err("longer than a year")),
            ("99999999999999999d", Err("longer than a year")),
            ("99999999999999999999s", Err("not a duration")),
        ];
        for (text, expected) in table {
            match (duration(text), expected) {
                (Ok(found), Ok(millis)) => assert_eq!(found, Duration::from_millis(millis), "{text}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{text}: {found}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn permissions_are_octal_and_leave_the_owner_in() {
        assert_eq!((permissions("0600"), permissions("660")), (Ok(0o600), Ok(0o660)));
        for text in ["", "0", "0700", "060", "1666", "0o600", "-600", "999", "00600"] {
            assert!(permissions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_and_counts_decimal() {
        assert_eq!(size(1..=u64::MAX)("64k"), Ok(65_536));
        assert_eq!(size(1..=u64::MAX)("1m"), Ok(1 << 20));
        assert_eq!(count(1..=u32::MAX)("100k"), Ok(100_000));
        assert_eq!(count(1..=u32::MAX)("5000"), Ok(5_000));
        for text in ["", "k", "64K", "64kb", "1.5m", "-1"] {
            assert!(size(1..=u64::MAX)(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_told_the_range_in_short() {
        let refused = |text| count(1_000..=16_000_000)(text).expect_err(text);
        assert_eq!(refused("999"), "is out of range; write one from 1k to 16m");
        assert_eq!(refused("17m"), "is out of range; write one from 1k to 16m");
        assert_eq!(refused("99999999999999g"), "is out of range; write one from 1k to 16m");
    }
}
