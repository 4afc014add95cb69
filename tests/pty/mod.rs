//! A program on a terminal of its own, and what a person would see there.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::termios::{Termios, tcgetattr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// What begins the other screen.
const ALTERNATE: &[u8] = b"\x1b[?1049h";

/// A terminal, and who is on it; killed on drop.
pub struct Terminal {
    child: Child,
    keyboard: Option<File>,
    /// When this is closed, nobody reads the screen any more.
    line: Option<(UnixStream, JoinHandle<()>)>,
    output: Receiver<Vec<u8>>,
    seen: vt100::Parser,
    /// Kept open, so that it can be looked at when the program is gone.
    terminal: File,
    path: String,
    before: Termios,
    /// It was the other screen once, on which programs draw.
    pub was_taken: bool,
}

impl Terminal {
    /// Starts it on a terminal of that size (columns, rows), which is its controlling terminal.
    pub fn start(command: &[&str], environment: &[(&str, &str)], (columns, rows): (u16, u16)) -> Self {
        let (master, terminal, path) = pair();
        set_size(&path, (columns, rows));
        let end = || Stdio::from(terminal.try_clone().expect("another end"));
        let before = tcgetattr(&terminal).expect("its settings");
        let mut setsid = Command::new("setsid");
        setsid.arg("--ctty").args(command).envs([("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")]);
        setsid.env_remove("NO_COLOR").env_remove("COLUMNS").envs(environment.iter().copied());
        let child = setsid.stdin(end()).stdout(end()).stderr(end()).spawn().expect("started");
        let keyboard = master;
        let mut screen = keyboard.try_clone().expect("another end");
        let (told, output) = mpsc::channel();
        let (line, cut) = UnixStream::pair().expect("a pair");
        let reader = thread::spawn(move || {
            let mut piece = [0; 4096];
            while has_more(&screen, &cut)
                && let Ok(count @ 1..) = screen.read(&mut piece)
                && told.send(piece[..count].to_vec()).is_ok()
            {}
        });
        let line = Some((line, reader));
        let seen = vt100::Parser::new(sure(rows), sure(columns), 0);
        Self { child, keyboard: Some(keyboard), line, output, seen, terminal, path, before, was_taken: false }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().expect("not hung up");
        keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Makes it another size, as a window manager does.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        set_size(&self.path, (columns, rows));
        self.seen.screen_mut().set_size(sure(rows), sure(columns));
    }

    /// The signal goes to the program alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("there");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The screen, as soon as it has all of these on it.
    pub fn wait_for(&mut self, parts: &[&str]) -> String {
        self.wait_until(&format!("{parts:?}"), |screen| {
            parts.iter().all(|part| screen.contents().contains(part))
        })
    }

    /// The screen, as soon as it is like that.
    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&vt100::Screen) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.seen.screen()) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => {
                    self.was_taken |= piece.windows(ALTERNATE.len()).any(|part| part == ALTERNATE);
                    self.seen.process(&piece);
                }
                Err(_) => panic!("no {what} on the screen:\n{}", self.seen.screen().contents()),
            }
        }
        self.seen.screen().contents()
    }

    /// Whether it is as it was before the program came: settings, and no longer the other screen, with the cursor seen.
    pub fn wait_until_given_back(&mut self) {
        self.wait_until("screen of before", |screen| !screen.alternate_screen() && !screen.hide_cursor());
        assert!(tcgetattr(&self.terminal).expect("its settings") == self.before, "settings are as they were");
    }

    /// Until the program has stopped itself.
    pub fn wait_until_stopped(&self) {
        let status = self.wait_for_status(WaitPidFlag::WUNTRACED);
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// Until it has ended; the exit code.
    pub fn wait_until_ended(&self) -> i32 {
        match self.wait_for_status(WaitPidFlag::empty()) {
            WaitStatus::Exited(_, code) => code,
            status => panic!("{status:?}"),
        }
    }

    fn wait_for_status(&self, flags: WaitPidFlag) -> WaitStatus {
        let (pid, (told, status)) = (self.pid(), mpsc::channel());
        thread::spawn(move || told.send(waitpid(pid, Some(flags))));
        status.recv_timeout(PATIENCE).expect("it does something").expect("a child of ours")
    }

    /// Takes the terminal away.
    pub fn hang_up(&mut self) {
        if let Some((line, reader)) = self.line.take() {
            drop(line);
            reader.join().expect("ended");
        }
        self.keyboard = None;
    }
}

/// Both ends of a new terminal, and the name of the program's. Neither is inherited by who is started meanwhile, or it
/// could not be hung up.
fn pair() -> (File, File, String) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
    let path = ptsname_r(&master).expect("a name");
    let terminal = open(path.as_str(), flags, Mode::empty()).expect("its other end");
    (File::from(OwnedFd::from(master)), File::from(terminal), path)
}

fn set_size(path: &str, (columns, rows): (u16, u16)) {
    let size = [("cols", columns), ("rows", rows)].map(|(what, size)| [what.to_owned(), size.to_string()]);
    let status = Command::new("stty").args(["-F", path]).args(size.concat()).status();
    assert!(status.expect("started").success());
}

/// Waits until there is something to read, or nobody is to read any more.
fn has_more(screen: &File, cut: &UnixStream) -> bool {
    let mut both = [screen.as_fd(), cut.as_fd()].map(|end| PollFd::new(end, PollFlags::POLLIN));
    poll(&mut both, PollTimeout::NONE).is_ok() && both[1].revents().is_none_or(|events| events.is_empty())
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sure(size: u16) -> NonZero<u16> {
    NonZero::new(size).expect("a terminal has some")
}
