//! Results added up from the lines that test harnesses end with.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Those of the failed whose names are known.
    pub(crate) failures: Vec<String>,
    /// Those of the passed that have failed at first.
    pub(crate) unsteady: Vec<String>,
}

/// Of one line of a test's: `test tables::a_full_one ... FAILED`, with as many blanks as its harness likes.
pub(crate) fn failed_test(line: &str) -> Option<&str> {
    let name = line.trim().strip_prefix("test ")?.strip_suffix("... FAILED")?.trim_end();
    (!name.is_empty() && !name.contains(' ')).then_some(name)
}

impl Tally {
    /// The name of a test that has failed; the closing line counts it.
    pub(crate) fn of_failure(name: &str) -> Self {
        Self { failures: vec![name.to_owned()], ..Self::default() }
    }

    /// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (_verdict, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let number = words.next().and_then(|word| word.parse().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => tally.passed = number,
                (Some(number), Some("failed")) => tally.failed = number,
                (Some(number), Some("ignored")) => tally.skipped = number,
                _ => {}
            }
        }
        Some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.unsteady.extend(other.unsteady);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.failures {
            writeln!(f, "failed: {name}")?;
        }
        for name in &self.unsteady {
            writeln!(f, "unsteady, has failed at first and passed by itself: {name}")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, failed_test};

    #[test]
    fn the_closing_line_is_understood() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.01s";
        assert_eq!(Tally::parse(line), Some(Tally { passed: 5, failed: 2, skipped: 1, ..Tally::default() }));
        assert_eq!(Tally::parse("test http::keep_alive ... ok"), None);
    }

    #[test]
    fn what_failed_is_known_by_name() {
        assert_eq!(failed_test("test http::keep_alive ... FAILED"), Some("http::keep_alive"));
        assert_eq!(
            failed_test("test a_changed_address_is_followed    ... FAILED\r"),
            Some("a_changed_address_is_followed")
        );
        for other in
            ["test http::keep_alive ... ok", "test result: FAILED. 5 passed; 2 failed", "test  ... FAILED"]
        {
            assert_eq!(failed_test(other), None, "{other}");
        }
    }
}
