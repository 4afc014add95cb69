//! Asking the instance, on a thread of its own, so that keys are never held up.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use super::clean::Clean;
use super::model::{Answer, Status};
use super::state::Wants;
use crate::admin::client;
use crate::clock;

/// Fast connections that are asked for: more than anybody reads, few enough to be written at once.
pub(super) const MOST_FLOWS: usize = 1000;

/// An answer that took a second is not asked for each second: at most a tenth of the time is spent on us…
const SHARE: u32 = 10;

/// …but an instance that was held up once is soon asked again, since what is seen would be taken for what is.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Which instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its admin socket.
    pub admin: PathBuf,
}

/// What became of a round of questions.
#[derive(Debug)]
pub(super) struct Report {
    /// The answers, or why there are none.
    pub(super) outcome: Result<Box<Answer>, String>,
    /// When the next round begins.
    pub(super) pause: Duration,
}

impl Instance {
    /// The object as it is sent.
    pub(super) fn status_text(&self) -> anyhow::Result<String> {
        match client::ask(&self.name, &self.admin, "show status json") {
            Err(error) if error.to_string().starts_with("unknown command") => bail!(
                "the balancer named \"{}\" is of a version that `top` does not know; reload it with this one",
                self.name
            ),
            answer => answer,
        }
    }

    /// A round of questions.
    pub(super) fn ask(&self, wants: &Wants) -> anyhow::Result<Answer> {
        let status: Status = understood(&self.status_text()?)?;
        let flows = wants.flows.then(|| {
            let flows = self.about(&format!("show flows limit {MOST_FLOWS} json"));
            flows.map_err(|error| Clean::new(&error.to_string()))
        });
        let server = wants.server.as_ref().filter(|name| is_word(name)).and_then(|name| {
            // It may have been deleted meanwhile, which the status tells.
            Some((name.clone(), self.about(&format!("show server {name} json")).ok()?))
        });
        Ok(Answer { status, flows, server, at: clock::unix_millis() })
    }

    fn about<T: DeserializeOwned>(&self, line: &str) -> anyhow::Result<T> {
        understood(&client::ask(&self.name, &self.admin, line)?)
    }
}

/// How long nobody asks after an answer that took so long.
fn pause_after(interval: Duration, elapsed: Duration) -> Duration {
    interval.max((elapsed * SHARE).min(LONGEST_PAUSE))
}

fn understood<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).context("its answer is not understood; is it of another version?")
}

/// Whether it can stand in a command: it has come from the instance, and a cleaned name may be nobody's.
fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != ';' && c != '\\')
}

/// Asks until nobody wants to know any more: after each interval, and when something else is wanted.
pub(super) fn keep_asking(
    instance: Instance,
    interval: Duration,
    wants: Receiver<Wants>,
    mut tell: impl FnMut(Report) + Send + 'static,
) {
    thread::spawn(move || {
        let mut wanted = Wants::default();
        let mut pause = interval;
        loop {
            match wants.recv_timeout(pause) {
                Ok(news) => wanted = wants.try_iter().last().unwrap_or(news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let started = Instant::now();
            let outcome = instance.ask(&wanted).map(Box::new).map_err(|error| format!("{error:#}"));
            pause = match outcome {
                Ok(_) => pause_after(interval, started.elapsed()),
                Err(_) => interval,
            };
            tell(Report { outcome, pause });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_asked_for_less_often_and_never_long_after() {
        let (second, millis) = (Duration::from_secs(1), Duration::from_millis);
        assert_eq!(pause_after(second, millis(20)), second);
        assert_eq!(pause_after(second, millis(200)), millis(2000));
        assert_eq!(pause_after(second, millis(10_000)), LONGEST_PAUSE);
        assert_eq!(pause_after(60 * second, millis(10_000)), 60 * second);
    }

    #[test]
    fn nothing_that_was_sent_becomes_a_command() {
        for name in ["", "s1;set server s1 maint", "a b", "a\nb", "\u{e9}", "a\\"] {
            assert!(!is_word(name), "{name:?}");
        }
        assert!(is_word("s-1.x_2"));
    }
}
