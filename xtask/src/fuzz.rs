//! `cargo xtask fuzz`: libFuzzer on every target, on the compiler that builds everything else.
//!
//! The flags are cargo-fuzz's, without a sanitizer: the code under test has no `unsafe`, and only sanitizers need a
//! nightly compiler. New inputs stay in the target folder; those that break something are shown, with the line that
//! repeats it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, Artifact};
use crate::lab::interrupt;
use crate::setup::Needs;
use crate::{privilege, setup};

/// What makes the compiler count which edges an input takes, and which values it is compared with.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// One input may take that long, in seconds.
const SLOW: u32 = 5;

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only this target
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run the target on this one input instead
    #[arg(long, value_name = "PATH", requires = "target")]
    input: Option<PathBuf>,
}

/// Builds the targets and runs them; exit 1 when one finds something.
///
/// # Errors
/// When something is missing, the build fails, or there is no such target.
pub fn command(options: &Options) -> Result<ExitCode> {
    interrupt::install()?;
    // The targets are pure: neither eBPF nor a laboratory.
    setup::ensure(Needs { fuzz: true, ..Needs::NOTHING })?;
    let targets = build_targets()?;
    let names = || targets.iter().map(|made| made.name.as_str()).collect::<Vec<_>>().join(", ");
    let wanted = |made: &&Artifact| options.target.as_ref().is_none_or(|name| *name == made.name);
    let chosen: Vec<_> = targets.iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "there is no such target; there are: {}", names());
    let mut broken = Vec::new();
    for made in chosen {
        let holds = match &options.input {
            Some(input) => run(Command::new(&made.executable).arg(input))?,
            None => fuzz(made, options.seconds)?,
        };
        interrupt::check()?;
        if !holds {
            broken.push(made.name.as_str());
        }
    }
    if broken.is_empty() {
        println!("\nfuzz: nothing was found");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nfuzz: broken: {}", broken.join(", "));
    Ok(ExitCode::FAILURE)
}

fn folder() -> PathBuf {
    build::workspace().join("tests/fuzz")
}

fn output() -> PathBuf {
    build::workspace().join("target/fuzz")
}

fn build_targets() -> Result<Vec<Artifact>> {
    println!("fuzz: cargo build --release, in tests/fuzz");
    let host = host()?;
    let manifest = folder().join("Cargo.toml");
    let (manifest, output) = (manifest.to_string_lossy(), output().join("build"));
    let mut cargo = build::cargo();
    cargo.env("RUSTFLAGS", COVERAGE);
    // With a target named, the flags are for it alone: build scripts and macros are not what is tested.
    cargo.args(["build", "--release", "--manifest-path", &manifest, "--target", &host]);
    cargo.arg("--target-dir").arg(output);
    let mut made = build::artifacts_of(cargo)?;
    made.retain(|made| made.kind == "bin");
    Ok(made)
}

/// The compiler's own target.
fn host() -> Result<String> {
    let said = privilege::as_user("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what its target is")
}

/// False when an input was found that breaks the target.
fn fuzz(made: &Artifact, seconds: u32) -> Result<bool> {
    let seeds = folder().join("corpus").join(&made.name);
    let found = output().join("corpus").join(&made.name);
    let breaking = output().join("breaking").join(&made.name);
    for path in [&found, &breaking] {
        create(path)?;
    }
    println!("\nfuzz: {} for {seconds} s", made.name);
    let before = files(&breaking)?;
    let mut fuzzer = privilege::as_user(&made.executable);
    fuzzer.args([&found, &seeds]);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={SLOW}"));
    fuzzer.args(["-max_len=20000", "-print_final_stats=1", "-verbosity=0"]);
    fuzzer.arg(format!("-artifact_prefix={}/", breaking.display()));
    let holds = run(&mut fuzzer)?;
    for input in files(&breaking)?.into_iter().filter(|path| !before.contains(path)) {
        println!("fuzz: {} breaks on {}", made.name, input.display());
        println!("fuzz: to repeat it: cargo xtask fuzz {} --input {}", made.name, input.display());
        println!("fuzz: once mended, keep it: cp {} {}/", input.display(), seeds.display());
    }
    Ok(holds)
}

/// As the user, like everything in the target folder.
fn create(path: &Path) -> Result<()> {
    let made = privilege::as_user("mkdir").arg("-p").arg(path).status();
    if !made.is_ok_and(|status| status.success()) {
        bail!("cannot create {}", path.display());
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn run(command: &mut Command) -> Result<bool> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {name}"))?;
    Ok(status.success())
}
