//! What the service manager is told, as sd_notify(3) has it: when clients are served and servers known, how things are, that
//! the workers are alive, and that the end has begun. Without `NOTIFY_SOCKET` nobody is told anything.
//!
//! A successor says that it is the main process now, so the unit needs `NotifyAccess=all`. The interval of the watchdog is
//! known to the first process alone (`WATCHDOG_PID`), so every process says each second that it is alive.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::log;
use crate::server::{Health, Server, State};
use crate::service::Shared;
use crate::stats::Stats;

/// Between two signs of life.
const INTERVAL: Duration = Duration::from_secs(1);

/// For every server to be checked once. Who waits for this service to be ready does not wait for longer.
const FIRST_CHECKS: Duration = Duration::from_secs(30);

/// Between two looks at whether they are.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A worker that has shown no sign of life for this long is worth a line.
const LONG_SILENCE: Duration = Duration::from_secs(5);

/// For a manager that is slow to take what it is told.
const PATIENCE: Duration = Duration::from_millis(500);

/// Somebody is told, or nobody wants to know.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    task: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// To be started when clients are served.
    pub(super) fn start(service: &Shared, workers: Vec<Arc<Stats>>) -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::default();
        }
        Self { task: Some(spawn_local(tell(Arc::clone(service), workers))) }
    }

    /// This process is ending, and nobody has taken over. The manager is to wait for `limit` before it kills, however short a
    /// time its unit gives.
    pub(super) async fn stopping(&mut self, limit: Duration) {
        let Some(task) = self.task.take() else { return };
        task.abort();
        let limit = limit.as_micros();
        let what = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={limit}\nSTATUS=finishing what is being served");
        let _ = timeout(PATIENCE, say(what)).await;
    }

    /// Flags were read again, which took no time worth mentioning. A unit with `Type=notify-reload` waits for both words.
    pub(super) fn reloaded(&self) {
        if self.task.is_none() {
            return;
        }
        let begun = NotifyState::monotonic_usec_now();
        spawn_local(async move {
            if let Ok(NotifyState::MonotonicUsec(now)) = begun {
                say(format!("RELOADING=1\nMONOTONIC_USEC={now}")).await;
                say("READY=1".into()).await;
            }
        });
    }

    /// What there is to tell is the successor's from here on. It says itself that it is the main process now, but that may be
    /// heard after our end, which would be the end of the service.
    pub(super) async fn hand_over(&mut self, successor: u32) {
        let Some(task) = self.task.take() else { return };
        task.abort();
        let _ = timeout(PATIENCE, say(format!("MAINPID={successor}"))).await;
    }
}

async fn tell(service: Shared, workers: Vec<Arc<Stats>>) {
    let pid = std::process::id();
    say(format!("MAINPID={pid}\nSTATUS=waiting for the first checks of all servers")).await;
    let begun = Instant::now();
    while !is_known(&service) && begun.elapsed() < FIRST_CHECKS {
        sleep(LOOK_AGAIN).await;
    }
    let mut status = status_of(&service);
    say(format!("READY=1\nMAINPID={pid}\nSTATUS={status}")).await;
    let mut pulses: Vec<_> = workers.into_iter().map(Pulse::new).collect();
    loop {
        sleep(INTERVAL).await;
        let now = status_of(&service);
        if now != status {
            status = now;
            say(format!("STATUS={status}")).await;
        }
        let mut all_alive = true;
        for (number, pulse) in pulses.iter_mut().enumerate() {
            all_alive &= pulse.is_felt(number);
        }
        if all_alive {
            say("WATCHDOG=1".into()).await;
        }
    }
}

/// Whether what checks have to say of every server has been heard.
fn is_known(service: &Shared) -> bool {
    let is_open = |server: &Server| {
        server.health() == Health::Unknown && !server.is_unresolved() && server.state() != State::Maint
    };
    service.config.health.look().check.is_none() || !service.servers.iter().any(is_open)
}

fn status_of(service: &Shared) -> String {
    let (mut up, mut all) = (0, 0);
    for server in service.servers.iter() {
        all += 1;
        up += usize::from(server.state() == State::Up);
    }
    format!("{up} of {all} servers up")
}

/// On a thread of its own: a manager that does not read must not hold up anybody else.
async fn say(what: String) {
    let said = spawn_blocking(move || sd_notify::notify(&[NotifyState::Custom(&what)])).await;
    if let Ok(Err(error)) = said {
        log::warn(format_args!(
            "the service manager cannot be told at NOTIFY_SOCKET how things are: {}; clients are served all \
             the same",
            log::reason(&error)
        ));
    }
}

/// The signs of life of one worker.
struct Pulse {
    worker: Arc<Stats>,
    beats: u64,
    since: Instant,
    is_told: bool,
}

impl Pulse {
    fn new(worker: Arc<Stats>) -> Self {
        Self { beats: worker.beats(), worker, since: Instant::now(), is_told: false }
    }

    /// Whether there was one since the last time.
    fn is_felt(&mut self, number: usize) -> bool {
        let beats = self.worker.beats();
        if beats != self.beats {
            (self.beats, self.since, self.is_told) = (beats, Instant::now(), false);
            return true;
        }
        if self.since.elapsed() >= LONG_SILENCE && !self.is_told {
            self.is_told = true;
            log::warn(format_args!(
                "worker {number} has shown no sign of life for {LONG_SILENCE:?}, so its clients wait"
            ));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_lives_as_long_as_its_heart_beats() {
        let worker = Arc::<Stats>::default();
        let mut pulse = Pulse::new(Arc::clone(&worker));
        assert!(!pulse.is_felt(0));
        worker.beat();
        assert!(pulse.is_felt(0));
        assert!(!pulse.is_felt(0), "once is not for ever");
        pulse.since -= LONG_SILENCE;
        assert!(!pulse.is_felt(0) && pulse.is_told);
        worker.beat();
        assert!(pulse.is_felt(0) && !pulse.is_told);
    }
}
