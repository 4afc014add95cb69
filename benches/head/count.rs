//! Counting: this program again under callgrind, twice, so that what happens once falls out of the difference.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Case;

/// The first word of a run inside valgrind.
pub(super) const INSIDE: &str = "--inside";

/// Repetitions of the shorter run, after which buffers have grown and processor features have been looked up; and how
/// many more the longer one has.
const SHORT: u32 = 16;
const MORE: u32 = 256;

/// Repetitions of a profile: enough to drown the start of the program.
const PROFILED: u32 = 20_000;

pub(super) struct Counter {
    program: PathBuf,
}

impl Counter {
    pub(super) fn new() -> Result<Self, String> {
        let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
        match found {
            Ok(status) if status.success() => {
                let program = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
                Ok(Self { program })
            }
            _ => Err("valgrind is missing, which counts the instructions; \
                      install it (Debian: apt-get install valgrind) or run cargo xtask bench head"
                .into()),
        }
    }

    /// Instructions of one repetition.
    pub(super) fn instructions(&self, case: &Case) -> Result<u64, String> {
        let (short, long) = (self.total(case, SHORT)?, self.total(case, SHORT + MORE)?);
        Ok(long.saturating_sub(short) / u64::from(MORE))
    }

    /// Leaves a profile in `file`.
    pub(super) fn profile(&self, case: &Case, file: &str) -> Result<(), String> {
        self.run(case, PROFILED, file)?;
        println!("callgrind_annotate {file}   # {PROFILED} repetitions of {:?}", case.name);
        Ok(())
    }

    fn total(&self, case: &Case, times: u32) -> Result<u64, String> {
        let said = self.run(case, times, "/dev/null")?;
        // ==1234== Collected : 123456
        let count = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
        count.ok_or_else(|| format!("valgrind has not said how many instructions it saw: {said}"))
    }

    fn run(&self, case: &Case, times: u32, file: &str) -> Result<String, String> {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={file}")).arg(&self.program);
        valgrind.args([INSIDE, case.name, &times.to_string()]).stdin(Stdio::null());
        let output = valgrind.output().map_err(|error| format!("cannot run valgrind: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!("{}: {}: {said}", case.name, output.status))
        }
    }
}
