//! The live view: waits for keys, answers and signals, and draws when one of them has changed something.
//!
//! Each of the three has a thread that sleeps until there is something; nothing here looks again by itself.

use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};
use std::{io, iter};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, Event as Input};

use super::ask::{Instance, Report, keep_asking};
use super::draw::{draw, look::Look};
use super::key::Key;
use super::state::{State, Wants, Wish};
use super::terminal::Screen;

/// How late an answer may be before it is said that there is none.
const LATE: Duration = Duration::from_secs(3);

/// What can happen.
enum Event {
    Key(Key),
    Report(Report),
    Signal(Signal),
    /// The terminal is gone.
    Gone,
}

/// Shows the instance until somebody quits.
///
/// # Errors
/// Nobody answers at first, or the terminal cannot be used.
pub(super) fn show(instance: &Instance, interval: Duration, look: Look) -> anyhow::Result<()> {
    let first = instance.ask(&Wants::default())?;
    let (events, happened) = mpsc::channel();
    let (wants, wanted) = mpsc::channel();
    let signals = blocked_signals()?;
    let mut screen = Screen::take().context("this terminal cannot be used; write --once")?;
    wait_for_signals(signals, events.clone());
    wait_for_keys(events.clone());
    keep_asking(instance.clone(), interval, wanted, move |report| drop(events.send(Event::Report(report))));
    let mut view = Live { state: State::new(first), wants, wanted: Wants::default(), late_at: None };
    view.expect_after(interval);
    loop {
        if let Err(error) = screen.terminal().draw(|frame| draw(frame, &mut view.state, look)) {
            // It was hung up, which we have not been told yet.
            let is_gone = error.raw_os_error() == Some(Errno::EIO as i32);
            return if is_gone { Ok(()) } else { Err(error.into()) };
        }
        let first = match view.late_at {
            None => happened.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(late_at) => happened.recv_timeout(late_at.saturating_duration_since(Instant::now())),
        };
        let first = match first {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                view.late_at = None;
                view.state.failed("it is there, and says nothing");
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // What has come together is drawn once.
        for event in iter::once(first).chain(happened.try_iter()) {
            match view.take(event) {
                Wish::Go => {}
                Wish::Quit => return Ok(()),
                Wish::Suspend => {
                    screen.suspend()?;
                    // Nobody has asked meanwhile.
                    view.expect_after(Duration::ZERO);
                }
                Wish::Redraw => screen.draw_anew()?,
            }
        }
    }
}

struct Live {
    state: State,
    wants: Sender<Wants>,
    wanted: Wants,
    /// When the next answer is late.
    late_at: Option<Instant>,
}

impl Live {
    fn take(&mut self, event: Event) -> Wish {
        match event {
            Event::Key(key) => {
                let wish = self.state.press(key);
                self.ask_for_what_is_looked_at();
                wish
            }
            Event::Report(Report { outcome, pause }) => {
                match outcome {
                    Ok(answer) => self.state.answered(*answer),
                    Err(why) => self.state.failed(&why),
                }
                self.expect_after(pause);
                Wish::Go
            }
            Event::Signal(Signal::SIGTSTP) => Wish::Suspend,
            // Drawing asks for the size. Who has come back from the shell finds another text there. USR1 and USR2 are for
            // the service, and whoever sends them by its program's name reaches us as well.
            Event::Signal(Signal::SIGWINCH | Signal::SIGUSR1 | Signal::SIGUSR2) => Wish::Go,
            Event::Signal(_) | Event::Gone => Wish::Quit,
        }
    }

    fn expect_after(&mut self, pause: Duration) {
        self.late_at = Some(Instant::now() + pause + LATE);
    }

    fn ask_for_what_is_looked_at(&mut self) {
        let wants = self.state.wants();
        if wants != self.wanted {
            self.wanted = wants.clone();
            let _ = self.wants.send(wants);
        }
    }
}

/// Blocked for every thread that comes after, so that they are waited for and interrupt nothing.
fn blocked_signals() -> anyhow::Result<SigSet> {
    let signals: SigSet = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
        Signal::SIGWINCH,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect();
    signals.thread_block()?;
    Ok(signals)
}

fn wait_for_signals(signals: SigSet, events: Sender<Event>) {
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

fn wait_for_keys(events: Sender<Event>) {
    thread::spawn(move || {
        while let Ok(keys) = next_keys() {
            if keys.into_iter().any(|key| events.send(Event::Key(key)).is_err()) {
                return;
            }
        }
        let _ = events.send(Event::Gone);
    });
}

/// Waits for some.
fn next_keys() -> io::Result<Vec<Key>> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut terminal, PollTimeout::NONE)?;
    // Reading from a terminal that was hung up would never end.
    if terminal[0]
        .revents()
        .is_none_or(|ready| !ready.contains(PollFlags::POLLIN) || ready.contains(PollFlags::POLLHUP))
    {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut keys = Vec::new();
    while event::poll(Duration::ZERO)? {
        if let Input::Key(event) = event::read()? {
            keys.extend(Key::of(&event));
        }
    }
    Ok(keys)
}
