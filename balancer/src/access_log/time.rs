//! RFC 3339, and the two ways to write a time that HAProxy and syslog have.

const MILLIS_OF_DAY: u64 = 86_400_000;

/// Appends a time in UTC.
pub(crate) fn write(line: &mut Vec<u8>, unix_millis: u64) {
    let (days, millis) = (unix_millis / MILLIS_OF_DAY, unix_millis % MILLIS_OF_DAY);
    let (year, month, day) = civil_date(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |from: usize, to: usize, mut value: u64| {
        for digit in text[from..to].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 7, month);
    put(8, 10, day);
    put(11, 13, millis / 3_600_000);
    put(14, 16, millis / 60_000 % 60);
    put(17, 19, millis / 1000 % 60);
    put(20, 23, millis % 1000);
    line.extend_from_slice(&text);
}

/// Appends a time in UTC as HAProxy writes it into its lines: `22/Nov/2026:10:11:12.345`.
pub(super) fn write_clf(line: &mut Vec<u8>, unix_millis: u64) {
    let (days, millis) = (unix_millis / MILLIS_OF_DAY, unix_millis % MILLIS_OF_DAY);
    let (year, month, day) = civil_date(days);
    digits(line, day, 2);
    line.push(b'/');
    line.extend_from_slice(name(month));
    line.push(b'/');
    digits(line, year, 4);
    line.push(b':');
    clock(line, millis);
    line.push(b'.');
    digits(line, millis % 1000, 3);
}

/// Appends a time in UTC as syslog does (RFC 3164): `Nov 22 10:11:12`, the day of two places.
pub(super) fn write_syslog(line: &mut Vec<u8>, unix_millis: u64) {
    let (_, month, day) = civil_date(unix_millis / MILLIS_OF_DAY);
    line.extend_from_slice(name(month));
    line.push(b' ');
    if day < 10 {
        line.push(b' ');
        digits(line, day, 1);
    } else {
        digits(line, day, 2);
    }
    line.push(b' ');
    clock(line, unix_millis % MILLIS_OF_DAY);
}

fn name(month: u64) -> &'static [u8] {
    const NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let start = (month as usize).clamp(1, 12) * 3 - 3;
    &NAMES[start..start + 3]
}

fn clock(line: &mut Vec<u8>, millis: u64) {
    digits(line, millis / 3_600_000, 2);
    line.push(b':');
    digits(line, millis / 60_000 % 60, 2);
    line.push(b':');
    digits(line, millis / 1000 % 60, 2);
}

/// The last so many digits of a number.
fn digits(line: &mut Vec<u8>, mut value: u64, count: usize) {
    let start = line.len();
    line.resize(start + count, b'0');
    for digit in line[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a count of days since 1970: the Gregorian calendar repeats every 146 097 days, and a year
/// that starts in March has its leap day last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_centuries() {
        let dates =
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (11_017, (2000, 3, 1)), (20_513, (2026, 3, 1))];
        for (days, date) in dates {
            assert_eq!(civil_date(days), date);
        }
    }

    #[test]
    fn every_digit_has_its_place() {
        let mut line = Vec::new();
        write(&mut line, 951_868_799_007);
        write(&mut line, 0);
        assert_eq!(line, b"2000-02-29T23:59:59.007Z1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn haproxy_and_syslog_name_the_month() {
        let (mut line, mut prefix) = (Vec::new(), Vec::new());
        for millis in [951_868_799_007, 0] {
            write_clf(&mut line, millis);
            write_syslog(&mut prefix, millis);
        }
        assert_eq!(line, b"29/Feb/2000:23:59:59.00701/Jan/1970:00:00:00.000");
        assert_eq!(prefix, b"Feb 29 23:59:59Jan  1 00:00:00");
    }
}
