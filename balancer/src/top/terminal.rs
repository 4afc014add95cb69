//! The terminal: taken over, and given back as it was however this ends.

use std::io::{self, Stdout, stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};

/// It is ours.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, until it is dropped.
#[derive(Debug)]
pub struct Screen {
    /// Its own drop would complain on stderr where the terminal was hung up, which panics as that is gone too; `give_back`
    /// does what it does.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    /// Takes it over.
    ///
    /// # Errors
    /// It is none, or does not let itself be changed.
    pub fn take() -> io::Result<Self> {
        // Before anything can panic with the terminal taken. A release ends there, without a drop.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout())).inspect_err(|_| give_back())?;
        Ok(Self { terminal: ManuallyDrop::new(terminal) })
    }

    /// To draw on.
    pub(super) fn terminal(&mut self) -> &mut Terminal<CrosstermBackend<Stdout>> {
        &mut self.terminal
    }

    /// Gives it back and stops, until somebody lets this process go on in the foreground.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // TSTP itself is waited for by a thread of ours, and would be that thread's.
        kill(Pid::this(), Signal::SIGSTOP)?;
        take()?;
        self.draw_anew()
    }

    /// Has the next frame drawn as a whole: somebody else may have written here.
    pub(super) fn draw_anew(&mut self) -> io::Result<()> {
        // Not `clear`, which asks the terminal where its cursor is, and another thread would read the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    IS_TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen).inspect_err(|_| give_back())
}

/// As it was. The terminal may be gone, and then nobody minds.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}
