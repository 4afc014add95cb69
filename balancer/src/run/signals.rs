//! The signals that mean something.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signal {
    /// TERM, INT.
    Stop,
    /// HUP.
    Reopen,
    /// USR2.
    Restart,
}

/// Caught from the moment this is made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
    user_2: unix::Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hang_up: unix::signal(SignalKind::hangup())?,
            user_2: unix::signal(SignalKind::user_defined2())?,
        })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reopen,
            _ = self.user_2.recv() => Signal::Restart,
        }
    }

    pub(super) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
