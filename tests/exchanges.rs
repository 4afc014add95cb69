//! A table of raw exchanges: the bytes a client sends, the bytes its server answers, and the bytes that must arrive on
//! either side. It is played to the balancer, where every byte counts, and to HAProxy and nginx, which must take the
//! messages to mean the same; where they do not, the row says why.
//!
//! A row whose connection stays open is followed by one more request, so that a byte too many or too few anywhere
//! shows.
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what its modules share")]

#[expect(dead_code, reason = "only the test of idle clients asks how many there may be")]
mod daemon;
mod exchange;

use std::sync::{Arc, Mutex, PoisonError};

use exchange::row::Row;
use exchange::stage::Stage;
use exchange::subject::Kind;
use exchange::{clients, rows};
use libtest_mimic::{Arguments, Trial};

/// Rows up to this many bytes are also played once for every place in which they can be cut in two.
const SHORT: usize = 64;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = clients::trials();
    let mut casts = Vec::new();
    for kind in Kind::ALL {
        let cast = Arc::new(Cast::new(kind));
        trials.extend(rows::all().map(|(group, row)| cast.trial(group, row)));
        trials.push(Trial::test(format!("{}::every_difference_is_of_a_row", kind.name()), move || {
            let mut named = kind.differences().iter().flat_map(|(_, names)| *names);
            let missing = named.find(|named| !rows::all().any(|(group, row)| **named == full(group, &row)));
            missing.map_or(Ok(()), |name| Err(format!("there is no row {name:?}").into()))
        }));
        casts.push(cast);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Here, since `exit` would leave the programs running.
    drop(casts);
    conclusion.exit();
}

/// The running programs of one kind: as many as there are tests at the same time.
struct Cast {
    kind: Kind,
    free: Mutex<Vec<Stage>>,
}

impl Cast {
    fn new(kind: Kind) -> Self {
        Self { kind, free: Mutex::default() }
    }

    /// Ignored, visibly, where the program is not installed, and failed in CI.
    fn trial(self: &Arc<Self>, group: &str, row: Row) -> Trial {
        let cast = Arc::clone(self);
        let name = full(group, &row);
        let differences = self.kind.differences().iter();
        let reason = differences.filter(|(_, names)| names.contains(&&*name)).map(|(why, _)| *why).next();
        let name = format!("{}::{}", self.kind.name(), name.replace(' ', "_"));
        let is_ignored = !self.kind.is_here() && std::env::var_os("CI").is_none();
        let trial = Trial::test(name, move || {
            cast.play(&row, reason);
            Ok(())
        });
        trial.with_ignored_flag(is_ignored)
    }

    fn play(&self, row: &Row, reason: Option<&str>) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let stage = free.unwrap_or_else(|| Stage::new(self.kind));
        if self.kind == Kind::Balancer {
            stage.expect(row, &[&row.client]);
            if !row.at_once {
                in_pieces(&stage, row);
            }
        } else {
            stage.compare(row, reason);
        }
        // Not reached by a row that fails: what its program is in the middle of is not for the next one.
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
    }
}

/// The name of a row, with its group.
fn full(group: &str, row: &Row) -> String {
    format!("{group}::{}", row.name)
}

/// The balancer does the same however the client's bytes arrive.
fn in_pieces(stage: &Stage, row: &Row) {
    let bytes = &row.client;
    let cuts = 1..if bytes.len() <= SHORT { bytes.len() } else { 1 };
    for cut in cuts {
        let (first, rest) = bytes.split_at(cut);
        stage.expect(row, &[first, rest]);
    }
    stage.expect(row, &bytes.chunks(1 + bytes.len() / 40).collect::<Vec<_>>());
}
