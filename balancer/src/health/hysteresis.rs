//! When single results of checks become a verdict: pure, no clock.

/// What the checks of one server have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    verdict: Option<bool>,
    /// Results in a row that contradict the verdict.
    against: u32,
}

impl Hysteresis {
    /// `rise` successes in a row bring a server up, `fall` failures in a row take it down.
    pub fn new(rise: u32, fall: u32) -> Self {
        Self { rise, fall, verdict: None, against: 0 }
    }

    /// HAProxy's count of the same: it is up from `rise` on, which one result more or less in a row changes by one; at the
    /// most `rise + fall - 1`.
    pub fn level(&self) -> u32 {
        match self.verdict {
            Some(false) => self.against,
            Some(true) | None => (self.rise + self.fall - 1).saturating_sub(self.against),
        }
    }

    /// The last results contradict the verdict, without having changed it yet.
    pub fn is_in_doubt(&self) -> bool {
        self.against > 0
    }

    /// Goes on from an earlier process's verdict, if it had one.
    #[must_use]
    pub fn with_verdict(self, verdict: Option<bool>) -> Self {
        Self { verdict, ..self }
    }

    /// Something else has decided: `rise` or `fall` results in a row are needed to change that.
    pub fn decide(&mut self, verdict: bool) {
        (self.verdict, self.against) = (Some(verdict), 0);
    }

    /// What the results have come to so far.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// How many results in a row the next verdict takes.
    pub fn needed(&self) -> u32 {
        match self.verdict {
            None => 1,
            Some(true) => self.fall,
            Some(false) => self.rise,
        }
    }

    /// Takes the result of a check; `Some(up)` when the verdict has changed. The very first result is a verdict: at
    /// start there is nothing to be steady about, and a server known to refuse connections must not be given any.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        if self.verdict == Some(success) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < self.needed() {
            return None;
        }
        self.decide(success);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a success, `-` a failure → after each `U` or `D` for a new verdict, `.` for none.
    fn story(rise: u32, fall: u32, results: &str) -> String {
        let mut state = Hysteresis::new(rise, fall);
        let outcome = |result: char| match state.observe(result == '+') {
            Some(true) => 'U',
            Some(false) => 'D',
            None => '.',
        };
        results.chars().map(outcome).collect()
    }

    #[test]
    fn a_verdict_is_in_doubt_until_it_falls_or_is_confirmed() {
        let mut state = Hysteresis::new(2, 3);
        let doubts: Vec<_> = [true, false, false, true, false, false, false, true, true]
            .map(|result| {
                state.observe(result);
                state.is_in_doubt()
            })
            .into();
        assert_eq!(doubts, [false, true, true, false, true, true, false, true, false]);
    }

    #[test]
    fn the_level_is_haproxys() {
        let mut state = Hysteresis::new(2, 3);
        let levels = [true, false, false, false, true, true].map(|result| {
            state.observe(result);
            state.level()
        });
        assert_eq!(levels, [4, 3, 2, 0, 1, 4]);
    }

    #[test]
    fn an_earlier_verdict_is_changed_by_as_many_results_as_any() {
        let mut state = Hysteresis::new(2, 3).with_verdict(Some(false));
        assert_eq!((state.observe(true), state.observe(true)), (None, Some(true)));
    }

    #[test]
    fn stories() {
        let table = [
            // rise, fall, results, verdicts
            (2, 3, "+", "U"),
            (2, 3, "-", "D"),
            (2, 3, "+---", "U..D"),
            (2, 3, "+--+--+---", "U........D"),
            (2, 3, "-++", "D.U"),
            (2, 3, "-+-+-++", "D.....U"),
            (2, 3, "++++----++", "U.....D..U"),
            (1, 1, "+-+-", "UDUD"),
        ];
        for (rise, fall, results, expected) in table {
            assert_eq!(story(rise, fall, results), expected, "rise {rise} fall {fall}: {results}");
        }
    }
}
