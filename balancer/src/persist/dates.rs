//! When a cookie was last and first seen, in its value: HAProxy's `ID|LLLLL|FFFFF`, so that a mixed fleet agrees.
//!
//! A date is unix seconds divided by four, in 30 bits, big-endian, as five characters of the alphabet of RFC 4648 §4.

/// A year; a date can say 136.
pub const LONGEST_LIFE: u32 = 365 * 24 * 3600;

/// Seconds that a unit of a date stands for, which is how often a busy client's cookie is refreshed at most.
pub const UNIT: u64 = 4;

/// Dates further ahead than this count as past: somebody's clock is wrong by more than any clock should be.
const FUTURE: u64 = 24 * 3600;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const DIGITS: usize = 5;
const MASK: u64 = (1 << 30) - 1;

/// What a cookie's value says beside the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dates {
    /// Last seen, unix seconds.
    pub last: Option<u64>,
    /// First seen, unix seconds.
    pub first: Option<u64>,
}

/// What the dates of a cookie come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// Good.
    Good {
        /// The cookie is to be written again, with a later date or with one at all.
        refresh: bool,
    },
    /// Last seen too long ago.
    Idle,
    /// First seen too long ago.
    Old,
}

/// The id and the dates of a value. `None`: what stands behind the id is no date.
pub fn split(value: &[u8]) -> Option<(&[u8], Dates)> {
    let mut parts = value.split(|byte| *byte == b'|');
    let id = parts.next()?;
    let mut date = || parts.next().map(decode).map_or(Some(None), |date| date.map(Some));
    let dates = Dates { last: date()?, first: date()? };
    parts.next().is_none().then_some((id, dates))
}

/// Checks `dates` at `now`, unix seconds: first the life, then the idle time, as HAProxy does.
pub fn check(dates: Dates, max_idle: Option<u32>, max_life: Option<u32>, now: u64) -> Age {
    let is_over = |date: u64, most: u32| date > now + FUTURE || date + u64::from(most) < now;
    let mut refresh = false;
    if let Some(most) = max_life {
        match dates.first {
            Some(first) if is_over(first, most) => return Age::Old,
            Some(_) => {}
            None => refresh = true,
        }
    }
    match (dates.last, max_idle) {
        (Some(last), Some(most)) if is_over(last, most) => return Age::Idle,
        // Rounded up when it was written, so what was written just now is not past yet.
        (Some(last), _) => refresh |= last < now,
        (None, _) => refresh = true,
    }
    Age::Good { refresh }
}

/// Writes `|` and the date of `unix` seconds.
pub fn write(out: &mut Vec<u8>, unix: u64) {
    let units = unix.div_ceil(UNIT) & MASK;
    out.push(b'|');
    out.extend((0..DIGITS).rev().map(|digit| ALPHABET[(units >> (6 * digit) & 63) as usize]));
}

fn decode(text: &[u8]) -> Option<u64> {
    if text.len() != DIGITS {
        return None;
    }
    let digit = |byte: &u8| ALPHABET.iter().position(|known| known == byte);
    let units = text.iter().try_fold(0_u64, |units, byte| Some(units << 6 | digit(byte)? as u64))?;
    Some(units * UNIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000;
    const HOUR: u64 = 3600;

    fn written(unix: u64) -> Vec<u8> {
        let mut out = b"s1".to_vec();
        write(&mut out, unix);
        out
    }

    #[test]
    fn a_value_is_taken_apart() {
        let date = |unix| String::from_utf8(written(unix)).expect("ASCII")[2..].to_owned();
        let (last, first) = (date(NOW), date(NOW - HOUR));
        let both = format!("s1{last}{first}");
        let dates = Dates { last: Some(NOW), first: Some(NOW - HOUR) };
        assert_eq!(split(both.as_bytes()), Some((&b"s1"[..], dates)));
        assert_eq!(split(b"s1"), Some((&b"s1"[..], Dates::default())));
        for wrong in
            ["s1|", "s1|abc", "s1|abcdef", "s1|ab~de", "s1|AAAAA|", "s1|AAAAA|AAAAA|AAAAA", "s1||AAAAA"]
        {
            assert_eq!(split(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn ages() {
        let (idle, life) = (Some(1800), Some(8 * 3600));
        let dates = |last: u64, first: u64| Dates { last: Some(last), first: Some(first) };
        let table = [
            (dates(NOW - 60, NOW - HOUR), Age::Good { refresh: true }),
            (dates(NOW, NOW - HOUR), Age::Good { refresh: false }),
            (dates(NOW + 3, NOW), Age::Good { refresh: false }),
            (dates(NOW + HOUR, NOW), Age::Good { refresh: false }),
            (dates(NOW + 25 * HOUR, NOW), Age::Idle),
            (dates(NOW - HOUR, NOW - HOUR), Age::Idle),
            (dates(NOW - HOUR, NOW - 9 * HOUR), Age::Old),
            (dates(NOW, NOW + 25 * HOUR), Age::Old),
            (Dates::default(), Age::Good { refresh: true }),
            (Dates { last: Some(NOW), first: None }, Age::Good { refresh: true }),
        ];
        for (dates, expected) in table {
            assert_eq!(check(dates, idle, life, NOW), expected, "{dates:?}");
        }
        assert_eq!(check(dates(NOW - HOUR, NOW), None, life, NOW), Age::Good { refresh: true });
    }

    proptest! {
        #[test]
        fn a_date_comes_back_rounded_up(unix in 0_u64..4_000_000_000) {
            let value = written(unix);
            let (_, dates) = split(&value).expect("ours");
            prop_assert_eq!(dates.last, Some(unix.div_ceil(UNIT) * UNIT));
        }

        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..40), now in 0_u64..1 << 40) {
            if let Some((_, dates)) = split(&value) {
                check(dates, Some(1), Some(1), now);
            }
        }
    }
}
