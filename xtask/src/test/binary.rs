//! One test program: started as the right person, bounded in time, its results read from what it prints.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tally::{Tally, failed_test};
use crate::build::{self, Artifact};
use crate::lab::{self, interrupt};
use crate::privilege;

/// For one program. Asked to end after that, and killed when it does not.
const LIMIT: &str = "1800s";
const KILL_AFTER: &str = "--kill-after=10s";
/// What `timeout` exits with when it had to end the program, nicely or not.
const TIMED_OUT: &[i32] = &[124, 137];
/// For the rest of the output after the program has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For a program to clean up after Ctrl-C.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// As whom a test program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    User,
    /// The user, with the word that privileged tests are not to run.
    UserWithout,
    Root,
}

/// A test program ready to run.
pub(super) struct Job {
    title: String,
    command: Result<Command>,
}

/// Runs a test program, and once more what has failed in it.
///
/// # Errors
/// When it cannot be started, or when interrupted.
pub(super) fn run(made: &Artifact, identity: As, filter: Option<&str>) -> Result<Tally> {
    let run = |arguments: &[&str]| Job::of(made, identity, arguments).run();
    run(filter.as_slice())?.once_more(|name| run(&["--exact", name]))
}

impl Job {
    fn of(made: &Artifact, identity: As, arguments: &[&str]) -> Self {
        let package = made.package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let title = format!("{package} {} {}", made.kind, made.name);
        let command = start(identity).map(|mut command| {
            // What cargo would set. `env` rather than our own environment, which sudo does not pass on.
            command.arg(format!("CARGO_MANIFEST_DIR={}", made.package.display()));
            if identity == As::UserWithout {
                command.arg(format!("{}=1", lab::UNPRIVILEGED));
            }
            command
                .args(["timeout", "--foreground", KILL_AFTER, LIMIT])
                .arg(&made.executable)
                .args(arguments);
            command.current_dir(&made.package);
            command
        });
        let title = if identity == As::Root { title + " (as root)" } else { title };
        Self { title, command }
    }

    /// The examples in the documentation.
    pub(super) fn documentation() -> Self {
        let mut cargo = build::cargo();
        cargo.args(["test", "--workspace", "--doc"]);
        Self { title: "documentation".into(), command: Ok(cargo) }
    }

    /// Runs it. A program that fails without saying what failed counts as one failure.
    pub(super) fn run(self) -> Result<Tally> {
        interrupt::check()?;
        println!("\ntest: {}", self.title);
        let mut child = self
            .command?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.title))?;
        let output = child.stdout.take().context("the output was not captured")?;
        let results = pass_on(BufReader::new(output));
        let status = wait(&mut child)?;
        let mut tally = Tally::default();
        // Ends when the output does, or when something else still holds it open.
        while let Ok(result) = results.recv_timeout(LAST_WORDS) {
            tally += result;
        }
        if !status.success() && tally.failed == 0 {
            tally.failed = 1;
            let why = if status.code().is_some_and(|code| TIMED_OUT.contains(&code)) {
                format!("did not end within {LIMIT}")
            } else {
                status.to_string()
            };
            println!("test: {} FAILED: {why}", self.title);
        }
        Ok(tally)
    }
}

fn start(identity: As) -> Result<Command> {
    match identity {
        As::Root => privilege::as_root("env"),
        As::User | As::UserWithout => Ok(privilege::as_user("env")),
    }
}

/// Prints each line as it comes and sends on the results in it, and the names of what has failed.
fn pass_on(output: impl BufRead + Send + 'static) -> Receiver<Tally> {
    let (sender, results) = channel();
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            println!("{line}");
            let failure = failed_test(&line).map(Tally::of_failure);
            if let Some(tally) = failure.or_else(|| Tally::parse(&line)) {
                let _ = sender.send(tally);
            }
        }
    });
    results
}

/// Waits for the end; after Ctrl-C asks for it, and gives the program time to clean up.
fn wait(child: &mut std::process::Child) -> Result<ExitStatus> {
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            interrupt::check()?;
            return Ok(status);
        }
        if interrupt::asked() && asked.is_none() {
            asked = Some(Instant::now());
            // The terminal has told everyone in the foreground; this is for a signal to us alone.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        }
        if asked.is_some_and(|since| since.elapsed() > CLEAN_UP) {
            let _ = child.kill();
        }
        thread::sleep(Duration::from_millis(10));
    }
}
