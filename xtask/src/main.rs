//! `cargo xtask`: the one door to set-up, demo, tests and benchmarks.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, demo, dist, fuzz, kernels, lab, run, setup, test};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo, tests and benchmarks of the balancer workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs what the build, the tests and the demo need
    Setup {
        /// Only report: exit 0 when everything is there, 1 when something is missing
        #[arg(long)]
        check: bool,
    },
    /// Builds the daemon and runs it with these flags
    Run {
        /// Passed on as they are: `cargo xtask run -- --listen 127.0.0.1:8080 --server …`
        #[arg(last = true)]
        flags: Vec<String>,
    },
    /// Runs every test; those that need privileges run as root
    Test(test::Options),
    /// Runs the fixtures of the XDP program in the oldest kernel that it is promised for, under qemu
    Kernels(kernels::Options),
    /// Looks for inputs that break the parsers
    Fuzz(fuzz::Options),
    /// Walks through the story of a known client in namespaces of its own
    Demo(demo::Options),
    /// Measures the paths side by side
    Bench(bench::Options),
    /// Packs the daemon: a .deb and a .tar.gz
    Dist(dist::Options),
}

fn main() -> ExitCode {
    lab::origin::play_if_asked();
    let outcome = match Cli::parse().task {
        Task::Setup { check } => setup::command(check),
        Task::Run { flags } => run::command(&flags),
        Task::Test(options) => test::command(&options),
        Task::Kernels(options) => kernels::command(&options),
        Task::Fuzz(options) => fuzz::command(&options),
        Task::Demo(options) => demo::command(&options),
        Task::Bench(options) => bench::command(&options),
        Task::Dist(options) => dist::command(&options),
    };
    outcome.unwrap_or_else(|error| explain(&error))
}

/// One line for the person, and an exit code for the script: 2 where a person has to install something,
/// 130 after Ctrl-C, 1 for everything else.
fn explain(error: &anyhow::Error) -> ExitCode {
    if error.is::<lab::interrupt::Interrupted>() {
        eprintln!("xtask: {error}; everything has been cleaned up");
        return ExitCode::from(130);
    }
    eprintln!("xtask: {error:#}");
    ExitCode::from(if error.is::<setup::ByHand>() { 2 } else { 1 })
}
