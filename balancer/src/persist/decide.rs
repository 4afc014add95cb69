//! Which server a request goes to: the first method of the list that names a usable one.

use super::trace::{Step, Trace, Verdict};
use crate::server::{Servers, State};

/// What a method found in the request or in its table, before anyone asks whether it is usable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Finding {
    /// Nothing: no cookie, no entry, or an entry of a server that no longer exists.
    #[default]
    Missing,
    /// The client sent a value that names no server.
    Invalid,
    /// An entry past its life.
    Expired,
    /// A server of today.
    Server {
        /// Index into [`Servers`].
        index: usize,
        /// Several users share this key.
        ambiguous: bool,
    },
}

impl Finding {
    /// A clear naming of `index`.
    pub fn server(index: usize) -> Self {
        Self::Server { index, ambiguous: false }
    }
}

/// The outcome: a server, or "ask the balancing algorithm".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The server named by the deciding method; `None`: no method decided.
    pub server: Option<usize>,
    /// What every method said.
    pub trace: Trace,
}

impl Default for Decision {
    /// Nothing heard yet.
    fn default() -> Self {
        Self { server: None, trace: Trace::new() }
    }
}

/// Most servers that can fail one request: more than `--retries` allows, and a full queue for each method.
const MOST_REFUSED: usize = 20;

/// The servers that failed one request, by index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    list: [u16; MOST_REFUSED],
    len: u8,
}

impl Refused {
    /// None of them.
    pub const NONE: Self = Self { list: [0; MOST_REFUSED], len: 0 };

    /// Whether `index` has failed this request already.
    pub fn contains(&self, index: usize) -> bool {
        self.list[..usize::from(self.len)].iter().any(|&refused| usize::from(refused) == index)
    }

    /// Takes `index` out.
    pub fn insert(&mut self, index: usize) {
        let is_new = !self.contains(index);
        // Neither fails to fit: the most servers and the most retries that can be configured are below.
        if let (Ok(server), Some(place), true) =
            (u16::try_from(index), self.list.get_mut(usize::from(self.len)), is_new)
        {
            *place = server;
            self.len += 1;
        }
    }
}

impl Decision {
    /// Hears the next method of the list. The first usable server that is named stays the decision.
    pub fn weigh(&mut self, finding: Finding, servers: &Servers, refused: &Refused) {
        let step = judge(finding, servers, refused, self.server.is_some());
        if matches!(step.verdict, Verdict::Hit | Verdict::Ambiguous) {
            self.server = step.server;
        }
        self.trace.push(step);
    }
}

/// Decides. `findings` are in the order of the list; `refused` are servers that failed this very request: they count as
/// down, so a redispatch is the same decision with them taken out.
pub fn decide(findings: &[Finding], servers: &Servers, refused: &Refused) -> Decision {
    let mut decision = Decision::default();
    for finding in findings {
        decision.weigh(*finding, servers, refused);
    }
    decision
}

fn judge(finding: Finding, servers: &Servers, refused: &Refused, decided: bool) -> Step {
    let (index, ambiguous) = match finding {
        Finding::Missing => return Step { verdict: Verdict::Miss, server: None },
        Finding::Invalid => return Step { verdict: Verdict::Invalid, server: None },
        Finding::Expired => return Step { verdict: Verdict::Expired, server: None },
        Finding::Server { index, ambiguous } => (index, ambiguous),
    };
    let verdict = match servers[index].state() {
        State::Maint => Verdict::Maint,
        State::Down => Verdict::Down,
        State::Up | State::Drain if refused.contains(index) => Verdict::Down,
        State::Up | State::Drain if decided => Verdict::Outvoted,
        State::Up | State::Drain if ambiguous => Verdict::Ambiguous,
        State::Up | State::Drain => Verdict::Hit,
    };
    Step { verdict, server: Some(index) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::servers;
    use crate::server::{Health, Operator};

    fn refusing(index: usize) -> Refused {
        let mut refused = Refused::default();
        refused.insert(index);
        refused
    }

    fn verdicts(decision: &Decision) -> Vec<Verdict> {
        decision.trace.steps().iter().map(|step| step.verdict).collect()
    }

    #[test]
    fn the_first_method_that_names_a_usable_server_decides() {
        let set = servers(2);
        let decision = decide(&[Finding::server(1), Finding::server(0)], &set, &Refused::default());
        assert_eq!(decision.server, Some(1));
        assert_eq!(verdicts(&decision), [Verdict::Hit, Verdict::Outvoted]);
    }

    #[test]
    fn a_down_or_maintained_server_is_passed_over() {
        let set = servers(3);
        set.set_health(1, Health::Down);
        set.set_operator(2, Operator::Maint);
        let decision =
            decide(&[Finding::server(1), Finding::server(2), Finding::server(0)], &set, &Refused::default());
        assert_eq!(decision.server, Some(0));
        assert_eq!(verdicts(&decision), [Verdict::Down, Verdict::Maint, Verdict::Hit]);
    }

    #[test]
    fn a_draining_server_keeps_its_users() {
        let set = servers(2);
        set.set_operator(1, Operator::Drain);
        assert_eq!(decide(&[Finding::server(1)], &set, &Refused::default()).server, Some(1));
    }

    #[test]
    fn a_server_that_refused_this_request_counts_as_down() {
        let set = servers(2);
        let decision = decide(&[Finding::server(1), Finding::server(0)], &set, &refusing(1));
        assert_eq!(decision.server, Some(0));
        assert_eq!(verdicts(&decision), [Verdict::Down, Verdict::Hit]);
    }

    #[test]
    fn servers_of_any_index_can_refuse_and_only_so_many() {
        let set = servers(80);
        let decision = decide(&[Finding::server(70), Finding::server(79)], &set, &refusing(70));
        assert_eq!((decision.server, verdicts(&decision)), (Some(79), vec![Verdict::Down, Verdict::Hit]));
        let mut refused = refusing(1023);
        (0..100).chain([1023]).for_each(|index| refused.insert(index));
        assert!(refused.contains(1023) && refused.contains(18) && !refused.contains(19));
    }

    #[test]
    fn ambiguous_entries_still_decide_here() {
        let set = servers(2);
        let decision = decide(
            &[Finding::Invalid, Finding::Server { index: 1, ambiguous: true }],
            &set,
            &Refused::default(),
        );
        assert_eq!(decision.server, Some(1));
        assert_eq!(verdicts(&decision), [Verdict::Invalid, Verdict::Ambiguous]);
    }

    #[test]
    fn nothing_found_means_balancing() {
        let set = servers(2);
        assert_eq!(decide(&[Finding::Missing, Finding::Expired], &set, &Refused::default()).server, None);
        assert_eq!(decide(&[], &set, &Refused::default()).server, None);
    }
}
