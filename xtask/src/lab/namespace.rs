//! One network namespace: runs closures and programs inside, and takes everything with it when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::{fs, panic, process, thread};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{Command, Process};
use super::scratch::Scratch;
use super::{bpffs, scratch, syscall};
use crate::privilege::find_program;

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "bal-";
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A handle on a network namespace of our own; the last handle removes the namespace, the processes in it and
/// what the balancer pinned for it.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: Arc<File>,
    cookie: u64,
    scratch: Arc<Scratch>,
    processes: Mutex<Vec<Weak<Process>>>,
}

impl Namespace {
    pub(super) fn create(name: String, scratch: Arc<Scratch>) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        // From here on the name must not outlive a failure.
        let made = open(&name).and_then(|file| Ok((cookie_of(&file)?, file)));
        match made {
            Ok((cookie, file)) => {
                let file = Arc::new(file);
                Ok(Self(Arc::new(Inner { name, file, cookie, scratch, processes: Mutex::default() })))
            }
            Err(error) => {
                let _ = ip(&["netns", "delete", &name]);
                Err(error)
            }
        }
    }

    /// The name `ip netns` knows it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kernel's number for it, by which the balancer names its pins.
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.0.cookie
    }

    /// Runs `work` inside the namespace, in a thread of its own; sockets opened there stay in the namespace
    /// wherever they go. A panic inside is a panic of the caller.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        inside(&self.0.file, work).with_context(|| format!("cannot enter {}", self.0.name))
    }

    /// A program that will run inside the namespace. It is also looked for in the system folders that PATH
    /// may leave out.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        let found = program.to_str().filter(|name| !name.contains('/')).and_then(find_program);
        Command::new(self.clone(), found.as_ref().map_or(program, |path| path.as_os_str()))
    }

    /// Runs a program inside to its end and returns what it wrote to stdout.
    ///
    /// # Errors
    /// When it cannot be run, fails, or takes longer than 20 s.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output(COMMAND_LIMIT)?;
        if !output.status.success() {
            bail!("{program} {}: {} {}", arguments.join(" "), output.status, output.stderr.trim());
        }
        Ok(output.stdout)
    }

    /// Writes a network setting, e.g. `net.ipv4.ip_forward`. Dots in interface names are not supported.
    ///
    /// # Errors
    /// When there is no such setting or it cannot be written.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        // The kernel shows each thread the settings of the namespace it is in.
        self.run(|| fs::write(&path, value))?.with_context(|| format!("cannot set {name} to {value}"))
    }

    /// A path for a new file or folder that is removed with the laboratory.
    #[must_use]
    pub fn fresh_path(&self, stem: &str) -> PathBuf {
        self.0.scratch.fresh(stem)
    }

    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.0.file)
    }

    pub(super) fn adopt(&self, process: &Arc<Process>) {
        let mut processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|known| known.strong_count() > 0);
        processes.push(Arc::downgrade(process));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for process in self.processes.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(process) = process.upgrade() {
                process.kill();
            }
        }
        remove(&self.name, self.cookie);
    }
}

/// Removes namespaces and files whose makers are gone: a process that was killed could not do it itself.
pub(super) fn sweep() {
    scratch::sweep(is_abandoned);
    let Ok(entries) = fs::read_dir(FOLDER) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_abandoned(&name) {
            let cookie = open(&name).and_then(|file| cookie_of(&file)).unwrap_or(0);
            remove(&name, cookie);
        }
    }
}

/// `bal-<pid>-<n>-<role>`: unique among all that run at the same time, and says whose it is.
pub(super) fn name(serial: u32, role: &str) -> String {
    format!("{PREFIX}{}-{serial}-{role}", process::id())
}

fn is_abandoned(name: &str) -> bool {
    maker_of(name).is_some_and(|maker| !Path::new("/proc").join(maker.to_string()).exists())
}

fn maker_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Processes first, since a process keeps a namespace alive, then pins, then the name.
fn remove(name: &str, cookie: u64) {
    kill_everyone_in(name);
    bpffs::remove_pins(cookie);
    if let Err(error) = ip(&["netns", "delete", name]) {
        eprintln!("lab: {error:#}");
    }
}

/// What our programs started themselves is not among our children; it is found by the namespace it is in.
fn kill_everyone_in(name: &str) {
    let Ok(wanted) = fs::metadata(Path::new(FOLDER).join(name)) else { return };
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let here = fs::metadata(entry.path().join("ns/net"))
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
        if here && pid != process::id() {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

fn open(name: &str) -> Result<File> {
    let path = Path::new(FOLDER).join(name);
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

fn cookie_of(netns: &File) -> Result<u64> {
    // Any socket will do, and a bound one is the only kind std makes.
    let socket = inside(netns, || UdpSocket::bind("0.0.0.0:0"))??;
    Ok(syscall::netns_cookie(socket.as_fd())?)
}

/// setns moves one thread only, so the caller's own namespace is never touched.
fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// `ip`, outside of any namespace.
pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    let output = process::Command::new(find_program("ip").context("ip is missing: cargo xtask setup")?)
        .args(arguments)
        .output()
        .context("cannot run ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_maker() {
        assert_eq!(maker_of(&name(3, "client")), Some(process::id()));
        assert_eq!(maker_of("bal-x"), None);
        assert_eq!(maker_of("someone-elses"), None);
    }
}
