//! A program in a namespace: its output kept in files, itself killed and reaped when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::{Namespace, syscall, wait};

/// A program that has not been started yet.
pub struct Command {
    namespace: Namespace,
    inner: process::Command,
    name: String,
}

/// What a program did, from start to end.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote.
    pub stderr: String,
}

/// Copies a program to where it is to be started from.
///
/// By a child: while this process has the copy open for writing, a child of another thread has it, too, for a moment, and
/// what somebody may write to cannot be run.
///
/// # Errors
/// What `cp` says.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let copied = process::Command::new("cp").arg(from).arg(to).output().context("cannot run cp")?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    Ok(())
}

impl Command {
    pub(super) fn new(namespace: Namespace, program: &OsStr) -> Self {
        let name = PathBuf::from(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut inner = process::Command::new(program);
        // A group of its own: the terminal's Ctrl-C is ours alone, and a kill reaches what it started.
        inner.stdin(Stdio::null()).process_group(0);
        syscall::start_in_namespace(&mut inner, namespace.file());
        Self { namespace, inner, name }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// The command line, as a person would type it inside the namespace.
    #[must_use]
    pub fn line(&self) -> String {
        let words: Vec<OsString> =
            std::iter::once(self.inner.get_program()).chain(self.inner.get_args()).map(quoted).collect();
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Child> {
        let stdout = self.namespace.fresh_path(&format!("{}.out", self.name));
        let stderr = self.namespace.fresh_path(&format!("{}.err", self.name));
        self.inner.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let line = self.line();
        let child = spawn_from_lasting_thread(self.inner).with_context(|| format!("cannot start {line}"))?;
        let process = Arc::new(Process { child: Mutex::new(child) });
        self.namespace.adopt(&process);
        Ok(Child { process, name: self.name, stdout, stderr })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or has not ended within `limit`; it is killed then.
    pub fn output(self, limit: Duration) -> Result<Output> {
        let mut child = self.spawn()?;
        let status = child.wait(limit)?;
        Ok(Output { status, stdout: child.stdout(), stderr: child.stderr() })
    }
}

/// A started program. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Child {
    process: Arc<Process>,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.lock().id()
    }

    /// What it wrote to stdout until now.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it wrote to stderr until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends it a signal, e.g. SIGSTOP.
    ///
    /// # Errors
    /// When it has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.process.lock();
        kill(pid_of(&child), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Ends it with SIGKILL and reaps it; also when it has already ended.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// True until it ends.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.process.lock().try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `limit`, or when interrupted.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::wait_for(limit, &what, || Ok(self.process.lock().try_wait()?))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// The part of a child that its namespace knows too.
#[derive(Debug)]
pub(super) struct Process {
    child: Mutex<process::Child>,
}

impl Process {
    pub(super) fn kill(&self) {
        let mut child = self.lock();
        // Only while it has not been reaped does the number certainly belong to it.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = killpg(pid_of(&child), Signal::SIGKILL);
            let _ = child.wait();
        }
    }

    fn lock(&self) -> MutexGuard<'_, process::Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program outside of any laboratory, with everything it starts. Dropping it kills them; if this process dies before,
/// the program does, too.
#[derive(Debug)]
pub struct Group(Process);

impl Group {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: process::Command) -> Result<Self> {
        command.process_group(0);
        syscall::die_with_starter(&mut command);
        let child = spawn_from_lasting_thread(command)?;
        Ok(Self(Process { child: Mutex::new(child) }))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.lock().id()
    }

    /// Ends all of them and reaps the program; also when it has already ended.
    pub fn kill(&self) {
        self.0.kill();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

type Order = (process::Command, SyncSender<io::Result<process::Child>>);

/// "Die with your parent" means the thread that forked. Tests run in threads that end, so one thread that
/// lasts as long as this process does all the starting.
fn spawn_from_lasting_thread(command: process::Command) -> Result<process::Child> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = sync_channel(1);
    orders.send((command, answer)).ok().context("the thread that starts programs has ended")?;
    Ok(child.recv()??)
}

fn pid_of(child: &process::Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn read(path: &PathBuf) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn quoted(word: &OsStr) -> OsString {
    let text = word.to_string_lossy();
    if text.contains(char::is_whitespace) { format!("'{text}'").into() } else { word.to_owned() }
}
