//! What the checks of a server have found, in HAProxy's terms: for those who look at it from there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One check that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// HAProxy's word: `L4OK`, `L4CON`, `L4TOUT`, `L7OK`, `L7OKC`, `L7STS`, `L7RSP` or `L7TOUT`.
    pub word: &'static str,
    /// The status that was answered.
    pub code: Option<u16>,
    /// How long it took.
    pub duration: Duration,
    /// What the host or the server has said.
    pub said: String,
}

impl Checked {
    /// The word in words, HAProxy's too.
    pub fn description(&self) -> &'static str {
        match self.word {
            "L4OK" => "Layer4 check passed",
            "L4CON" => "Layer4 connection problem",
            "L4TOUT" => "Layer4 timeout",
            "L7OK" => "Layer7 check passed",
            "L7OKC" => "Layer7 check conditionally passed",
            "L7STS" => "Layer7 wrong status",
            "L7TOUT" => "Layer7 timeout",
            _ => "Layer7 invalid response",
        }
    }

    /// The number of the word in a state file.
    pub fn number(&self) -> u8 {
        match self.word {
            "L4OK" => 6,
            "L4TOUT" => 7,
            "L4CON" => 8,
            "L7OK" => 15,
            "L7OKC" => 16,
            "L7TOUT" => 17,
            "L7STS" => 19,
            _ => 18,
        }
    }
}

/// What is known of a server's checks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckState {
    /// The last one.
    pub last: Option<Checked>,
    /// Those that have failed while the server was up.
    pub failures: u64,
    /// From 0 to `rise + fall - 1`; the server is up from `rise` on.
    pub health: u32,
}

/// Written by whoever watches over the server.
#[derive(Debug, Default)]
pub struct Checks {
    state: Mutex<CheckState>,
    /// The operator wants none of this server, until he says otherwise or the process ends.
    are_off: AtomicBool,
    switched: Notify,
}

impl Checks {
    /// The server may be checked, if servers are.
    pub fn are_on(&self) -> bool {
        !self.are_off.load(Ordering::Relaxed)
    }

    /// Checks it, or leaves it alone.
    pub fn switch(&self, on: bool) {
        self.are_off.store(!on, Ordering::Relaxed);
        self.switched.notify_waiters();
    }

    /// Until that has been said anew. What happens from this call on counts, awaited or not.
    pub fn switched(&self) -> Notified<'_> {
        self.switched.notified()
    }

    /// A check has ended; `failed`: of a server that is up.
    pub fn note(&self, checked: Checked, health: u32, failed: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures += u64::from(failed);
        (state.last, state.health) = (Some(checked), health);
    }

    /// What is known now.
    pub fn read(&self) -> CheckState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
