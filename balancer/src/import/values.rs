//! Times and sizes: HAProxy's words to ours.

use std::time::Duration;

/// The longest that a flag takes.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a number without a unit means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bare {
    Millis,
    Seconds,
}

/// What is wrong is the rest of a sentence.
pub(super) fn time(text: &str, bare: Bare) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let micros = match (unit, bare) {
        ("us", _) => 1,
        ("ms", _) | ("", Bare::Millis) => 1_000,
        ("s", _) | ("", Bare::Seconds) => 1_000_000,
        ("m", _) => 60_000_000,
        ("h", _) => 3_600_000_000,
        ("d", _) => 86_400_000_000,
        _ => return Err(format!("has the time {text:?}, which is none")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("has the time {text:?}, which is none"))?;
    let micros = number.saturating_mul(micros);
    // A flag counts milliseconds, and less than one of them is not nothing.
    Ok(Duration::from_millis(micros.div_ceil(1_000)))
}

/// As a flag has it: the largest unit that is exact.
pub(super) fn ours(time: Duration) -> String {
    let millis = time.min(LONGEST).as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(size, _)| millis > 0 && millis.is_multiple_of(*size));
    let (size, unit) = unit.unwrap_or((1, "ms"));
    format!("{}{unit}", millis / size)
}

/// Where only whole seconds count.
pub(super) fn seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// `k`, `m` and `g` are powers of 1024 there.
pub(super) fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_haproxy() {
        let table = [
            ("5000", "5s"),
            ("250", "250ms"),
            ("90s", "90s"),
            ("60s", "1m"),
            ("100us", "1ms"),
            ("2500us", "3ms"),
            ("1m", "1m"),
            ("24h", "1d"),
            ("999d", "365d"),
            ("99999999999999999999", ""),
            ("1.5s", ""),
            ("s", ""),
            ("5x", ""),
        ];
        for (text, expected) in table {
            let found = time(text, Bare::Millis).map(ours).unwrap_or_default();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(time("30", Bare::Seconds).map(ours), Ok("30s".into()));
        assert_eq!(seconds(Duration::from_millis(1_001)), Duration::from_secs(2));
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!((size("200k"), size("1m"), size("7")), (Some(204_800), Some(1_048_576), Some(7)));
        assert_eq!((size("x"), size("1kb"), size("99999999999g")), (None, None, None));
    }
}
