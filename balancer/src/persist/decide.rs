//! Which server a request goes to: the first method of the list that names a usable one.

use std::time::Duration;

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
    /// An entry or a cookie past its life.
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

/// `--on-down`: what becomes of a client whose server is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDown {
    /// The next method is asked, then the balancing; everything is pointed at the new server.
    #[default]
    Move,
    /// It is waited for, so long at most; then as [`Self::Move`].
    Wait(Duration),
    /// The request fails, and the client stays bound.
    Fail,
}

/// What is decided beside the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// `--on-down`.
    pub on_down: OnDown,
    /// `--leave-backup`: who is bound to a backup goes back as soon as a primary can serve.
    pub leave_backup: bool,
}

/// Why nobody is asked although the list or the balancing would name somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// The server at that place is waited for, so long at most.
    Wait(usize, Duration),
    /// The request fails.
    Fail,
}

/// The outcome: a server, or "ask the balancing algorithm".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The server named by the deciding method; `None`: no method decided.
    pub server: Option<usize>,
    /// Nobody may be asked, or not yet: `server` is `None`, and balancing is out of the question.
    pub hold: Option<Hold>,
    /// What every method said.
    pub trace: Trace,
    /// A method that was heard names a server that is down: it alone is what `--on-down` is about.
    is_moved: bool,
    /// Cookies that nobody but the application can change count for nothing when they name this server: their client was
    /// moved away from it.
    left: Option<usize>,
}

impl Default for Decision {
    /// Nothing heard yet.
    fn default() -> Self {
        Self { server: None, hold: None, trace: Trace::new(), is_moved: false, left: None }
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

/// What decisions are made by, beside the findings.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// Who there is, and who is usable.
    pub servers: &'a Servers,
    /// Servers that failed this very request: they count as down, so a redispatch is the same decision with them taken
    /// out.
    pub refused: &'a Refused,
    /// What the flags say.
    pub policy: Policy,
}

impl Scene<'_> {
    /// A user bound to the server at `index` may be sent there.
    pub fn is_usable(&self, index: usize) -> bool {
        self.servers[index].state().keeps_users() && !self.refused.contains(index) && !self.is_left(index)
    }

    /// It is a backup, which its users are to leave now.
    fn is_left(&self, index: usize) -> bool {
        self.policy.leave_backup
            && self.servers[index].backup
            && self.servers.places().into_iter().any(|place| {
                let server = &self.servers[place];
                !server.backup
                    && server.state() == State::Up
                    && server.weight() > 0
                    && !self.refused.contains(place)
            })
    }
}

impl Decision {
    /// Before any method is heard: a learned session was moved away from the server at `index`, so cookies that cannot be
    /// issued anew do not lead back there.
    #[must_use]
    pub fn away_from(self, index: Option<usize>) -> Self {
        Self { left: index, ..self }
    }

    /// Hears the next method of the list. The first usable server that is named stays the decision. `is_fixed`: only the
    /// application can change what the client says by this method.
    pub fn weigh(&mut self, finding: Finding, is_fixed: bool, scene: &Scene<'_>) {
        let step = self.judge(finding, is_fixed, scene);
        if matches!(step.verdict, Verdict::Hit | Verdict::Ambiguous) {
            self.server = step.server;
        }
        if let (Verdict::Down, Some(index), None, false) =
            (step.verdict, step.server, self.server, self.is_moved)
        {
            // A server that refused this request is looked for elsewhere, which is what `--redispatch` says.
            let is_down = scene.servers[index].state() == State::Down;
            self.is_moved = is_down;
            self.hold = match scene.policy.on_down {
                OnDown::Wait(limit) if is_down => Some(Hold::Wait(index, limit)),
                OnDown::Fail if is_down => Some(Hold::Fail),
                OnDown::Move | OnDown::Wait(_) | OnDown::Fail => None,
            };
        }
        self.trace.push(step);
    }

    fn judge(&self, finding: Finding, is_fixed: bool, scene: &Scene<'_>) -> Step {
        let (index, ambiguous) = match finding {
            Finding::Missing => return Step { verdict: Verdict::Miss, server: None },
            Finding::Invalid => return Step { verdict: Verdict::Invalid, server: None },
            Finding::Expired => return Step { verdict: Verdict::Expired, server: None },
            Finding::Server { index, ambiguous } => (index, ambiguous),
        };
        let decided = self.server.is_some() || self.hold.is_some();
        let verdict = match scene.servers[index].state() {
            State::Maint => Verdict::Maint,
            State::Down => Verdict::Down,
            State::Up | State::Drain if scene.refused.contains(index) => Verdict::Down,
            State::Up | State::Drain if decided => Verdict::Outvoted,
            State::Up | State::Drain if is_fixed && self.left == Some(index) => Verdict::Outvoted,
            State::Up | State::Drain if scene.is_left(index) => Verdict::Backup,
            State::Up | State::Drain if ambiguous => Verdict::Ambiguous,
            State::Up | State::Drain => Verdict::Hit,
        };
        Step { verdict, server: Some(index) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::{servers, weighted};
    use crate::server::{Health, Operator};

    fn refusing(index: usize) -> Refused {
        let mut refused = Refused::default();
        refused.insert(index);
        refused
    }

    fn decide_with(findings: &[Finding], servers: &Servers, refused: &Refused, policy: Policy) -> Decision {
        let mut decision = Decision::default();
        for finding in findings {
            decision.weigh(*finding, false, &Scene { servers, refused, policy });
        }
        decision
    }

    fn decide(findings: &[Finding], servers: &Servers, refused: &Refused) -> Decision {
        decide_with(findings, servers, refused, Policy::default())
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
        let decision = decide(&[Finding::server(1)], &set, &refusing(1));
        assert_eq!((decision.server, verdicts(&decision)), (None, vec![Verdict::Down]));
    }

    #[test]
    fn all_of_many_servers_can_refuse() {
        let set = servers(80);
        assert_eq!(decide(&[Finding::server(70)], &set, &refusing(70)).server, None);
        assert_eq!(decide(&[Finding::server(70)], &set, &refusing(6)).server, Some(70));
        let mut refused = refusing(1023);
        (0..100).chain([1023]).for_each(|index| refused.insert(index));
        assert!(refused.contains(1023) && refused.contains(18) && !refused.contains(19));
    }

    #[test]
    fn what_names_no_server_is_told_apart() {
        let set = servers(2);
        let findings = [Finding::Missing, Finding::Invalid, Finding::Expired];
        let decision = decide(&findings, &set, &Refused::default());
        assert_eq!(decision.server, None);
        assert_eq!(verdicts(&decision), [Verdict::Miss, Verdict::Invalid, Verdict::Expired]);
    }

    #[test]
    fn an_ambiguous_entry_still_decides() {
        let set = servers(2);
        let finding = Finding::Server { index: 1, ambiguous: true };
        let decision = decide(&[finding], &set, &Refused::default());
        assert_eq!((decision.server, verdicts(&decision)), (Some(1), vec![Verdict::Ambiguous]));
    }

    #[test]
    fn the_first_server_that_is_down_is_failed_or_waited_for() {
        let set = servers(3);
        set.set_health(1, Health::Down);
        let findings = [Finding::Missing, Finding::server(1), Finding::server(0)];
        let told = |on_down| {
            let policy = Policy { on_down, ..Policy::default() };
            let decision = decide_with(&findings, &set, &Refused::default(), policy);
            (decision.server, decision.hold, verdicts(&decision)[2])
        };
        let second = Duration::from_secs(1);
        assert_eq!(told(OnDown::Move), (Some(0), None, Verdict::Hit));
        assert_eq!(told(OnDown::Fail), (None, Some(Hold::Fail), Verdict::Outvoted));
        assert_eq!(told(OnDown::Wait(second)), (None, Some(Hold::Wait(1, second)), Verdict::Outvoted));
    }

    #[test]
    fn nobody_waits_for_maintenance_for_a_later_method_or_for_who_has_refused() {
        let set = servers(3);
        set.set_health(1, Health::Down);
        set.set_operator(2, Operator::Maint);
        let policy = Policy { on_down: OnDown::Fail, ..Policy::default() };
        let decide = |findings: &[Finding], refused: &Refused| decide_with(findings, &set, refused, policy);
        assert_eq!(decide(&[Finding::server(2)], &Refused::default()).hold, None);
        let decision = decide(&[Finding::server(0), Finding::server(1)], &Refused::default());
        assert_eq!((decision.server, decision.hold), (Some(0), None));
        assert_eq!(decide(&[Finding::server(0)], &refusing(0)).hold, None);
    }

    #[test]
    fn a_backup_is_left_when_that_is_asked_for_and_a_primary_can_serve() {
        let set = weighted(&[(1, false), (1, true)]);
        let told = |leave_backup| {
            let policy = Policy { leave_backup, ..Policy::default() };
            let decision = decide_with(&[Finding::server(1)], &set, &Refused::default(), policy);
            (decision.server, verdicts(&decision)[0])
        };
        assert_eq!(told(false), (Some(1), Verdict::Hit));
        assert_eq!(told(true), (None, Verdict::Backup));
        set.set_health(0, Health::Down);
        assert_eq!(told(true), (Some(1), Verdict::Hit));
    }

    #[test]
    fn a_cookie_that_cannot_be_changed_is_outvoted_by_the_session_that_was_moved() {
        let set = servers(2);
        let (refused, policy) = (Refused::default(), Policy::default());
        let scene = Scene { servers: &set, refused: &refused, policy };
        let told = |left, is_fixed| {
            let mut decision = Decision::default().away_from(left);
            decision.weigh(Finding::server(1), is_fixed, &scene);
            decision.weigh(Finding::server(0), false, &scene);
            (decision.server, verdicts(&decision))
        };
        assert_eq!(told(Some(1), true), (Some(0), vec![Verdict::Outvoted, Verdict::Hit]));
        assert_eq!(told(Some(1), false), (Some(1), vec![Verdict::Hit, Verdict::Outvoted]));
        assert_eq!(told(None, true), (Some(1), vec![Verdict::Hit, Verdict::Outvoted]));
    }
}
