//! What is known of one server, and what follows: pure, no clock, no socket.
//!
//! In go the results of checks, what real traffic has met with, and the operator's wish, each with the time; out come
//! changes of the verdict with their reason, when the next check is due, and the share of its weight that counts.

use std::time::{Duration, Instant};

use super::hysteresis::Hysteresis;
use super::probe::Finding;
use super::ramp::Ramp;
use crate::config::HealthConfig;
use crate::server::{Health, Mark, Operator, State, Streak};

/// While a verdict is in doubt, checks come this many times as often: the sooner it is known the better, and a busy
/// server is not asked more than it has to be.
const HASTE: u32 = 4;

/// Where a server stands when somebody begins to watch over it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) health: Health,
    /// The health is what somebody has left on record, who knows how long ago: the first check is a verdict.
    pub(super) is_on_record: bool,
    pub(super) operator: Operator,
    /// It was added while the service runs.
    pub(super) is_new: bool,
}

/// What is known of one server.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    interval: Duration,
    /// Errors of real traffic in a row that take it down.
    limit: u32,
    hysteresis: Hysteresis,
    health: Health,
    operator: Operator,
    ramp: Ramp,
    fast: FastErrors,
}

/// What the fast path has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FastCounts {
    pub(super) refused: u64,
    pub(super) unanswered: u64,
}

/// Errors of the fast path in a row. It does not tell of connections that go well; a check that does stands for them.
#[derive(Clone, Copy, Debug, Default)]
struct FastErrors {
    /// The counts when they were last looked at.
    seen: Option<FastCounts>,
    streak: u32,
}

/// A change of the verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) from: Health,
    pub(super) to: Health,
    pub(super) why: Reason,
}

/// Why a verdict has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// So many checks in a row went well.
    Well(u32),
    /// The server has said so itself.
    Itself,
    /// So many checks in a row failed, the last one for this reason.
    Ill(u32, String),
    /// Real traffic.
    Observed(Streak),
}

impl Monitor {
    pub(super) fn new(config: &HealthConfig, start: Start) -> Self {
        let verdict = verdict(start.health).filter(|_| !start.is_on_record);
        let keeps_users = State::of(start.operator, start.health).keeps_users();
        Self {
            interval: interval(config),
            limit: limit(config),
            hysteresis: hysteresis(config).with_verdict(verdict),
            health: start.health,
            operator: start.operator,
            ramp: Ramp::new(config.slow_start, start.is_new || !keeps_users),
            fast: FastErrors::default(),
        }
    }

    /// Flags were read again. The verdict stays, and where nobody checks any more there is none. True: it has gone.
    pub(super) fn reconfigure(&mut self, now: Instant, config: &HealthConfig) -> bool {
        let is_lost = config.check.is_none() && self.health != Health::Unknown;
        if is_lost {
            self.health = Health::Unknown;
            self.fast.streak = 0;
        }
        self.interval = interval(config);
        self.limit = limit(config);
        // The rows of results begin anew.
        self.hysteresis = hysteresis(config).with_verdict(self.hysteresis.verdict().filter(|_| !is_lost));
        self.ramp.stretch(config.slow_start);
        self.ramp.follow(now, self.state());
        is_lost
    }

    /// A check has come to an end. That a server wants nobody new needs no second opinion, nor that it does again.
    pub(super) fn checked(&mut self, now: Instant, finding: &Finding) -> Option<Change> {
        let needed = self.hysteresis.needed();
        let (to, why) = match finding {
            Finding::Well => (Health::Up, Reason::Well(needed)),
            Finding::Draining => (Health::Draining, Reason::Itself),
            Finding::Ill(why) => {
                self.hysteresis.observe(false)?;
                return self.change(now, Health::Down, Reason::Ill(needed, why.clone()));
            }
            Finding::NotChecked(_) => return None,
        };
        self.fast.streak = 0;
        if self.hysteresis.observe(true).is_none() && self.health == Health::Down {
            return None;
        }
        self.change(now, to, why)
    }

    /// Real traffic has met with as many errors in a row as are allowed. Only checks bring the server up again.
    pub(super) fn marked(&mut self, now: Instant, streak: Streak) -> Option<Change> {
        if streak.count < self.limit || self.health == Health::Down {
            return None;
        }
        self.hysteresis.decide(false);
        self.change(now, Health::Down, Reason::Observed(streak))
    }

    /// What the fast path has counted by now.
    pub(super) fn fast(&mut self, now: Instant, counts: FastCounts) -> Option<Change> {
        let seen = self.fast.seen.replace(counts)?;
        // Counts that have gone back are those of new maps.
        let more = |now: u64, before: u64| now.saturating_sub(before).try_into().unwrap_or(u32::MAX);
        let refused: u32 = more(counts.refused, seen.refused);
        let unanswered: u32 = more(counts.unanswered, seen.unanswered);
        if (refused, unanswered) == (0, 0) {
            return None;
        }
        self.fast.streak = self.fast.streak.saturating_add(refused).saturating_add(unanswered);
        let last = if refused > 0 { Mark::FastRefused } else { Mark::FastUnanswered };
        self.marked(now, Streak { count: self.fast.streak, last })
    }

    /// What the fast path counts says nothing for the time being.
    pub(super) fn forget_fast(&mut self) {
        self.fast = FastErrors::default();
    }

    /// Nobody has found it to be down.
    pub(super) fn is_up(&self) -> bool {
        self.health != Health::Down
    }

    /// As HAProxy counts it: see [`CheckState::health`](crate::server::CheckState::health).
    pub(super) fn haproxy_health(&self) -> u32 {
        self.hysteresis.level()
    }

    /// The operator's wish is this now.
    pub(super) fn told(&mut self, now: Instant, operator: Operator) {
        self.operator = operator;
        self.ramp.follow(now, self.state());
    }

    /// From one check to the next. `random`: a tenth more or less, so that the checks of many servers and many
    /// balancers do not fall together.
    pub(super) fn until_next_check(&self, random: u64) -> Duration {
        let haste = if self.hysteresis.is_in_doubt() { HASTE } else { 1 };
        let permille = 900 + (random % 201) as u32;
        self.interval / haste * permille / 1000
    }

    /// Sixteenths of the server's weight that count.
    pub(super) fn share(&self, now: Instant) -> u32 {
        self.ramp.share(now)
    }

    /// When that changes next, should nothing happen before.
    pub(super) fn next_share(&self, now: Instant) -> Option<Instant> {
        self.ramp.next(now)
    }

    fn state(&self) -> State {
        State::of(self.operator, self.health)
    }

    fn change(&mut self, now: Instant, to: Health, why: Reason) -> Option<Change> {
        if to == self.health {
            return None;
        }
        let from = std::mem::replace(&mut self.health, to);
        self.fast.streak = 0;
        self.ramp.follow(now, self.state());
        Some(Change { from, to, why })
    }
}

fn verdict(health: Health) -> Option<bool> {
    (health != Health::Unknown).then_some(health != Health::Down)
}

/// Without checks nobody asks for it.
fn interval(config: &HealthConfig) -> Duration {
    config.check.as_ref().map_or(Duration::ZERO, |check| check.interval)
}

fn limit(config: &HealthConfig) -> u32 {
    config.observe.as_ref().map_or(u32::MAX, |observe| observe.limit)
}

fn hysteresis(config: &HealthConfig) -> Hysteresis {
    let (rise, fall) = config.check.as_ref().map_or((1, 1), |check| (check.rise, check.fall));
    Hysteresis::new(rise, fall)
}

#[cfg(test)]
mod tests;
