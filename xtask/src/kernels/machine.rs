//! The emulated machine: its console is read line by line, and it ends when its tests do, or when it must.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::guest;
use crate::lab::interrupt;
use crate::privilege::find_program;
use crate::test::{Tally, failed_test};

/// What the machine is emulated by.
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// From power-on to the end: some minutes on two quiet cores.
const LIMIT: Duration = Duration::from_secs(1800);
/// The same, once more, should nobody be left to keep to it.
const OWN_LIMIT: &str = "1860s";
const PAUSE: Duration = Duration::from_millis(100);
const MEMORY: &str = "1G";

/// Boots `kernel` with `image`, prints what its console says, and adds up the results in it. A guest that does not come to
/// its end counts as one failure.
///
/// # Errors
/// When qemu cannot be started, or when interrupted.
pub(super) fn run(kernel: &Path, image: &Path, filter: Option<&str>) -> Result<Tally> {
    let mut machine = Machine::start(kernel, image, filter)?;
    let console = machine.0.stdout.take().context("the console was not captured")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(console).split(b'\n').map_while(Result::ok);
        lines.take_while(|line| sender.send(clean(line)).is_ok()).for_each(drop);
    });
    let deadline = Instant::now() + LIMIT;
    let (mut tally, mut has_results, mut has_ended) = (Tally::default(), false, false);
    loop {
        interrupt::check()?;
        match lines.recv_timeout(PAUSE) {
            Ok(line) => {
                println!("{line}");
                has_ended |= line.contains(guest::LAST_WORD);
                tally += failed_test(&line).map(Tally::of_failure).unwrap_or_default();
                if let Some(results) = Tally::parse(&line) {
                    has_results = true;
                    tally += results;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
            Err(RecvTimeoutError::Timeout) => {
                println!("kernels: FAILED: the guest has not ended within {LIMIT:?}");
                break;
            }
        }
    }
    if !has_ended || !has_results {
        println!("kernels: FAILED: the guest ended without results; what it said is above");
        tally.failed += 1;
    }
    Ok(tally)
}

/// Killed and reaped when dropped, whatever happens.
struct Machine(Child);

impl Machine {
    fn start(kernel: &Path, image: &Path, filter: Option<&str>) -> Result<Self> {
        let qemu = find_program(QEMU).with_context(|| format!("{QEMU} is missing: cargo xtask setup"))?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5s", OWN_LIMIT]).arg(qemu);
        command.args(arguments(kernel, image, filter));
        // A group of its own: the terminal's Ctrl-C is ours alone, and a kill reaches qemu behind `timeout`.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.spawn().with_context(|| format!("cannot start {QEMU}"))?))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Only while it has not been reaped does the number certainly belong to it.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

fn arguments(kernel: &Path, image: &Path, filter: Option<&str>) -> Vec<OsString> {
    // One that panics begins anew at once, which is the machine's end. Nobody attacks it. What comes after the dashes is the tests' own.
    let line = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off {}=1 -- --color never --test-threads 2 {}",
        guest::ASKED,
        filter.unwrap_or("")
    );
    let mut words: Vec<OsString> = ["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", MEMORY, "-nodefaults"]
        .into_iter()
        .chain(["-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-append", &line])
        .map(OsString::from)
        .collect();
    words.extend(["-kernel".into(), kernel.into(), "-initrd".into(), image.into()]);
    words
}

/// A console ends lines with CR LF, and firmware clears the screen.
fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut said = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // A sequence ends with its first letter.
            '\x1b' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            other if other.is_control() => {}
            other => said.push(other),
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn what_a_terminal_would_act_on_is_left_out() {
        assert_eq!(clean(b"\x1bc\x1b[?7l\x1b[2Jtest arp ... ok\r"), "test arp ... ok");
    }
}
