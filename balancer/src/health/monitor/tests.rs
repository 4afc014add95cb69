//! Stories over simulated time.
//!
//! A script is words: `+` `-` `d` `~` the next check, when it is due, finds the server well, ill, draining, or could not be
//! made; `x3` three errors of real traffic, `ok` traffic that goes well; `f2` `u2` two connections of the fast path that were
//! refused or not answered; `ready` `drain` `maint` the operator; `5s` nothing happens for so long. What comes of it is told
//! with the time: `3s:down` and how many checks or errors it took.

use super::*;
use crate::config::{CheckConfig, ObserveConfig, OnMarkedDown, Probe};
use crate::server::Marks;

/// In the middle of what jitter can be.
const NO_JITTER: u64 = 100;

const FRESH: Start =
    Start { health: Health::Unknown, is_on_record: false, operator: Operator::Ready, is_new: false };

/// rise 2, fall 3, every 2 s; 4 errors in a row; 16 s of slow start.
fn config() -> HealthConfig {
    HealthConfig {
        check: Some(CheckConfig {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }),
        observe: Some(ObserveConfig { connect: true, answers: true, limit: 4 }),
        slow_start: Some(Duration::from_secs(16)),
        on_marked_down: OnMarkedDown::Keep,
    }
}

/// Every hour, and one check is a verdict.
fn other() -> HealthConfig {
    let check = config().check.map(|check| CheckConfig {
        interval: Duration::from_secs(3600),
        rise: 1,
        fall: 1,
        ..check
    });
    HealthConfig { check, slow_start: None, ..config() }
}

struct Story {
    monitor: Monitor,
    start: Instant,
    now: Instant,
    next_check: Instant,
    errors: u32,
    fast: FastCounts,
    told: Vec<String>,
}

impl Story {
    fn from(start: Start) -> Self {
        let now = Instant::now();
        let mut monitor = Monitor::new(&config(), start);
        monitor.told(now, start.operator);
        monitor.fast(now, FastCounts::default());
        Self {
            monitor,
            start: now,
            now,
            next_check: now,
            errors: 0,
            fast: FastCounts::default(),
            told: Vec::new(),
        }
    }

    fn play(mut self, script: &str) -> Self {
        script.split_whitespace().for_each(|word| self.word(word));
        self
    }

    fn word(&mut self, word: &str) {
        let (kind, count) = word.split_at(1);
        let count = || count.parse::<u32>().expect("a number");
        let change = match (kind, word) {
            ("+", _) => self.check(&Finding::Well),
            ("-", _) => self.check(&Finding::Ill("broken".into())),
            ("d", "d") => self.check(&Finding::Draining),
            ("~", _) => self.check(&Finding::NotChecked("no descriptors".into())),
            ("x", _) => {
                self.errors += count();
                let streak = Streak { count: self.errors, last: Mark::Silent };
                let change = self.monitor.marked(self.now, streak);
                self.errors = if change.is_some() { 0 } else { self.errors };
                change
            }
            ("f", _) => {
                self.fast.refused += u64::from(count());
                self.monitor.fast(self.now, self.fast)
            }
            ("u", _) => {
                self.fast.unanswered += u64::from(count());
                self.monitor.fast(self.now, self.fast)
            }
            (_, "ok") => {
                self.errors = 0;
                None
            }
            (_, time) if time.ends_with('s') => {
                self.now += Duration::from_secs(time[..time.len() - 1].parse().expect("seconds"));
                None
            }
            (_, wish) => {
                self.monitor.told(self.now, Operator::from_word(wish).expect(wish));
                None
            }
        };
        if let Some(change) = change {
            let count = match change.why {
                Reason::Well(count) | Reason::Ill(count, _) => count.to_string(),
                Reason::Itself => "itself".into(),
                Reason::Observed(streak) => format!("{} observed", streak.count),
            };
            self.told.push(format!("{}:{}({count})", self.time(), change.to.as_str()));
        }
    }

    fn check(&mut self, finding: &Finding) -> Option<Change> {
        self.now = self.now.max(self.next_check);
        let change = self.monitor.checked(self.now, finding);
        self.next_check = self.now + self.monitor.until_next_check(NO_JITTER);
        change
    }

    fn time(&self) -> String {
        format!("{:?}", self.now - self.start)
    }

    fn share(&self) -> u32 {
        self.monitor.share(self.now)
    }
}

#[test]
fn stories() {
    let up = Start { health: Health::Up, ..FRESH };
    let table = [
        // The first check is a verdict; failures are looked into in haste, successes of a server that is down as well.
        (FRESH, "+", "0ns:up(1)"),
        (FRESH, "-", "0ns:down(1)"),
        (FRESH, "+ - - -", "0ns:up(1) 3s:down(3)"),
        (FRESH, "- + +", "0ns:down(1) 2.5s:up(2)"),
        // Flapping: neither verdict comes of results that do not last.
        (FRESH, "+ - - + - - + - + -", "0ns:up(1)"),
        (FRESH, "- + - + - + -", "0ns:down(1)"),
        (FRESH, "+ - - - - + - + + -", "0ns:up(1) 3s:down(3) 10s:up(2)"),
        // What this host lacks says nothing, and takes nothing back.
        (FRESH, "~ ~ + - ~ - ~ -", "4s:up(1) 8s:down(3)"),
        // An earlier process's verdict takes as much as any; one on record holds until somebody has looked.
        (up, "- - -", "1s:down(3)"),
        (Start { health: Health::Down, ..FRESH }, "+ +", "500ms:up(2)"),
        (Start { health: Health::Down, is_on_record: true, ..FRESH }, "+", "0ns:up(1)"),
        (Start { health: Health::Down, is_on_record: true, ..FRESH }, "- - + +", "4.5s:up(2)"),
        (Start { is_on_record: true, ..up }, "-", "0ns:down(1)"),
        (Start { health: Health::Draining, is_on_record: true, ..FRESH }, "d +", "2s:up(3)"),
        // A server's own wish counts at once, both ways, but does not bring it up.
        (up, "d + d", "0ns:draining(itself) 2s:up(3) 4s:draining(itself)"),
        (up, "d - - -", "0ns:draining(itself) 3s:down(3)"),
        (up, "- - - d d", "1s:down(3) 3.5s:draining(itself)"),
        // Errors of real traffic: so many in a row, and then only checks help.
        (up, "+ x3 ok x3 x1", "0ns:down(4 observed)"),
        (up, "x9 ok ok + +", "0ns:down(9 observed) 500ms:up(2)"),
        (up, "x4 x4 x4", "0ns:down(4 observed)"),
        (up, "+ - - x4 - + +", "2.5s:down(4 observed) 5.5s:up(2)"),
        (up, "- - x3 + x1", "1s:down(4 observed)"),
        (FRESH, "x4 - + +", "0ns:down(4 observed) 2.5s:up(2)"),
        (FRESH, "+ d x4 d d", "0ns:up(1) 2s:draining(itself) 2s:down(4 observed) 4.5s:draining(itself)"),
        // Of the fast path likewise, where a check that goes well stands for traffic that does.
        (up, "f2 u1 f1", "0ns:down(4 observed)"),
        (up, "f3 + f3 - f1", "2s:down(4 observed)"),
        (up, "u3 f0 u0 d u3", "0ns:draining(itself)"),
        // The operator's wish is another matter.
        (up, "maint - - - ready + +", "1s:down(3) 3.5s:up(2)"),
    ];
    for (start, script, expected) in table {
        assert_eq!(Story::from(start).play(script).told.join(" "), expected, "{script}");
    }
}

#[test]
fn a_server_that_comes_back_gets_its_weight_by_and_by() {
    let up = Start { health: Health::Up, ..FRESH };
    let table = [
        (FRESH, "+", 16),
        (FRESH, "-", 1),
        (FRESH, "- + +", 1),
        (FRESH, "- + + 4s", 5),
        (FRESH, "- + + 4s - - -", 1),
        (FRESH, "- + + 15s", 16),
        (up, "drain ready", 16),
        (up, "maint 60s", 1),
        (up, "maint 60s ready 8s", 9),
        (up, "x4 + + 8s", 9),
        (up, "d +", 16),
        // Up again while the operator keeps it: the clock starts when it may take somebody.
        (up, "maint - - - + + 60s", 1),
        (up, "maint - - - + + ready 1s", 2),
        (up, "maint - - - ready 60s", 1),
        (Start { is_new: true, ..FRESH }, "", 1),
        (Start { is_new: true, ..FRESH }, "+ 3s", 4),
        (Start { operator: Operator::Maint, ..up }, "60s", 1),
        (Start { operator: Operator::Drain, ..up }, "60s ready", 16),
        (Start { health: Health::Down, is_on_record: true, ..FRESH }, "+ 1s", 2),
    ];
    for (start, script, share) in table {
        assert_eq!(Story::from(start).play(script).share(), share, "{script}");
    }
}

#[test]
fn counts_of_new_maps_are_no_errors() {
    let mut story = Story::from(Start { health: Health::Up, ..FRESH });
    let now = story.now;
    let counts = |refused, unanswered| FastCounts { refused, unanswered };
    assert_eq!(story.monitor.fast(now, counts(3, 0)), None);
    assert_eq!(story.monitor.fast(now, counts(0, 0)), None);
    let change = story.monitor.fast(now, counts(0, 1)).expect("the fourth");
    assert_eq!(change.why, Reason::Observed(Streak { count: 4, last: Mark::FastUnanswered }));
}

#[test]
fn what_was_there_before_anybody_looked_is_no_error() {
    let mut monitor = Monitor::new(&config(), FRESH);
    let now = Instant::now();
    assert_eq!(monitor.fast(now, FastCounts { refused: 99, unanswered: 99 }), None);
    assert_eq!(monitor.fast(now, FastCounts { refused: 99, unanswered: 99 }), None);
}

#[test]
fn without_observation_nothing_is_observed() {
    let mut monitor = Monitor::new(&HealthConfig { observe: None, ..config() }, FRESH);
    let streak = Marks::default().streak().unwrap_or(Streak { count: 1_000_000, last: Mark::Silent });
    assert_eq!(monitor.marked(Instant::now(), streak), None);
}

#[test]
fn a_verdict_stays_when_checks_are_done_in_another_way_and_goes_with_them() {
    let mut story = Story::from(FRESH).play("- - +");
    let is_lost = story.monitor.reconfigure(story.now, &other());
    assert!(!is_lost && !story.monitor.is_up());
    assert_eq!(story.monitor.until_next_check(NO_JITTER), Duration::from_secs(3600), "no row is left");
    let story = story.play("60s + 4s");
    assert_eq!(story.told, ["0ns:down(1)", "64s:up(1)"]);
    assert_eq!(story.share(), 16, "there is no slow start any more");

    let mut story = story.play("-");
    assert!(story.monitor.reconfigure(story.now, &HealthConfig::default()));
    assert!(story.monitor.is_up());
    story.monitor.reconfigure(story.now, &config());
    assert_eq!(story.play("-").told.len(), 4, "the first one is a verdict again");
}

#[test]
fn a_slow_start_goes_on_at_another_pace() {
    let mut story = Story::from(FRESH).play("- + + 4s");
    assert_eq!(story.share(), 5);
    story
        .monitor
        .reconfigure(story.now, &HealthConfig { slow_start: Some(Duration::from_secs(8)), ..config() });
    assert_eq!(story.share(), 9);
}

#[test]
fn jitter_stays_within_a_tenth() {
    let monitor = Monitor::new(&config(), FRESH);
    for random in [0, 1, 100, 200, 201, u64::MAX] {
        let found = monitor.until_next_check(random);
        assert!((Duration::from_millis(1800)..=Duration::from_millis(2200)).contains(&found), "{found:?}");
    }
    let longest = Duration::from_secs(365 * 24 * 3600);
    let check = config().check.map(|check| CheckConfig { interval: longest, ..check });
    assert!(Monitor::new(&HealthConfig { check, ..config() }, FRESH).until_next_check(200) > longest);
}
