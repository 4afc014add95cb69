//! What a request costs before and after the sockets: instructions, as callgrind counts them.
//!
//! Built with the profile and the allocator of the daemon, but for `panic`, which cargo keeps at `unwind` here. `cargo bench -p balancer --bench head` prints a table of all
//! cases; `cargo xtask bench head` installs valgrind first where it is missing. After `--`: part of a name selects the
//! cases that have it, `--json` prints an object instead, `--profile FILE` leaves one case's profile for
//! `callgrind_annotate`.
//!
//! Unlike times, the counts are the same on a busy machine and on an idle one, to a fraction of a percent, as long as
//! compiler and processor features are. They say nothing of cache misses or of the kernel, whose part is the larger.

mod cases;
mod count;
mod messages;

use std::process::ExitCode;

use count::Counter;

/// Of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One row of the table.
struct Case {
    name: &'static str,
    /// Sets up, then does the same this many times.
    run: fn(times: u32),
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        // From ourselves, inside valgrind.
        [count::INSIDE, name, times] => return inside(name, times),
        _ => outside(&words),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn inside(name: &str, times: &str) -> ExitCode {
    match (cases::ALL.iter().find(|case| case.name == name), times.parse()) {
        (Some(case), Ok(times)) => {
            (case.run)(times);
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

fn outside(words: &[&str]) -> Result<(), String> {
    // Cargo says that this is a benchmark.
    let mut words = words.iter().copied().filter(|&word| word != "--bench");
    let (mut json, mut profile, mut part) = (false, None, "");
    while let Some(word) = words.next() {
        match word {
            "--json" => json = true,
            "--profile" => profile = Some(words.next().ok_or("--profile has no file; write --profile FILE")?),
            _ if word.starts_with('-') => {
                return Err(format!(
                    "unknown flag {word}; there are --json, --profile FILE and part of a name"
                ));
            }
            _ => part = word,
        }
    }
    let chosen: Vec<&Case> = cases::ALL.iter().filter(|case| case.name.contains(part)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = cases::ALL.iter().map(|case| case.name).collect();
        return Err(format!("no case is called {part:?}; there are {}", names.join("; ")));
    }
    let counter = Counter::new()?;
    match (profile, chosen.as_slice()) {
        (Some(file), [case]) => counter.profile(case, file),
        (Some(_), _) => Err("--profile takes one case; name it in full".into()),
        (None, _) if json => print_json(&counter, &chosen),
        (None, _) => print_table(&counter, &chosen),
    }
}

fn print_table(counter: &Counter, cases: &[&Case]) -> Result<(), String> {
    println!("| case | instructions |\n|---|---:|");
    for case in cases {
        println!("| {} | {} |", case.name, counter.instructions(case)?);
    }
    Ok(())
}

fn print_json(counter: &Counter, cases: &[&Case]) -> Result<(), String> {
    let mut counts = serde_json::Map::new();
    for case in cases {
        counts.insert(case.name.to_owned(), counter.instructions(case)?.into());
    }
    println!("{}", serde_json::Value::Object(counts));
    Ok(())
}
