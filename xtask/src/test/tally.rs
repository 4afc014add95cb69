//! Results added up from the lines that test harnesses end with.
//!
//! Many tests are about time: time-outs, floods, what happens during a reload. On a host that others keep busy one of
//! thousands may come too late. So what has failed is run once more, by itself, and has failed if it fails again; what
//! passes then is told at the end as unsteady, for someone to look at.

use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;

/// If more tests of a program have failed it is not the host.
const MOST_AGAIN: usize = 5;

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

    /// Runs what has failed once more: a test at a time, by its name.
    ///
    /// # Errors
    /// Those of `run`.
    pub(crate) fn once_more(mut self, mut run: impl FnMut(&str) -> Result<Self>) -> Result<Self> {
        let are_all_known = self.failed == self.failures.len() as u64;
        if !are_all_known || self.failures.len() > MOST_AGAIN {
            return Ok(self);
        }
        for name in std::mem::take(&mut self.failures) {
            println!("\ntest: {name} has failed, and is run once more, by itself");
            let again = run(&name)?;
            if again.failed == 0 && again.passed > 0 {
                self.failed -= 1;
                self.passed += 1;
                self.unsteady.push(name);
            } else {
                self.failures.push(name);
            }
        }
        Ok(self)
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
    fn only_what_passes_by_itself_is_forgiven() {
        let name = str::to_owned;
        let result = |passed, failed| Tally { passed, failed, ..Tally::default() };
        let first = Tally { failures: vec![name("broken"), name("late"), name("gone")], ..result(7, 3) };
        let run = |name: &str| {
            Ok(if name == "late" { result(1, 0) } else { result(0, u64::from(name == "broken")) })
        };
        let told = first.once_more(run).expect("run");
        assert_eq!((told.passed, told.failed), (8, 2), "a test that is not there has not passed");
        assert_eq!((told.failures, told.unsteady), (vec![name("broken"), name("gone")], vec![name("late")]));
        // One that nobody has named, as its program has crashed; and more than any host is to blame for.
        let crashed = Tally { failures: vec![name("late")], ..result(7, 2) };
        let many = Tally { failures: (0..6).map(|n| format!("late{n}")).collect(), ..result(7, 6) };
        for tally in [crashed, many] {
            let told = tally.clone().once_more(|_| panic!("not run")).expect("nothing to run");
            assert_eq!(told, tally);
        }
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
