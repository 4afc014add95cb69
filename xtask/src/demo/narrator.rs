//! Prints the story as it goes, and stops it where it stops being true.

use std::fmt::Display;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::lab::{Daemon, interrupt};

/// Lines of the daemon's log that are shown after a failure.
const LAST_LINES: usize = 30;

pub(super) struct Narrator {
    chapter: u32,
    began: Instant,
}

impl Narrator {
    pub(super) fn new() -> Self {
        Self { chapter: 0, began: Instant::now() }
    }

    /// Something that is done before the story begins.
    pub(super) fn prepare(&self, what: impl Display) {
        println!("demo: {what}");
    }

    /// The next step of the story.
    pub(super) fn chapter(&mut self, title: impl Display) -> Result<()> {
        interrupt::check()?;
        self.chapter += 1;
        println!("\n{}. {title}   [{:.1} s]", self.chapter, self.began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Something that happens.
    pub(super) fn tell(&self, what: impl Display) {
        println!("     {what}");
    }

    /// An observation and what it rests on.
    ///
    /// # Errors
    /// When it differs from the story.
    pub(super) fn expect(&self, holds: bool, story: &str, seen: impl Display) -> Result<()> {
        println!("  {} {story:<58} {seen}", if holds { "ok" } else { "NO" });
        if !holds {
            bail!("step {}: not so: {story}; seen: {seen}", self.chapter);
        }
        Ok(())
    }

    pub(super) fn last_words_of(&self, daemon: &Daemon) {
        let log = daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("\nThe daemon's log ends:");
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            eprintln!("  {line}");
        }
    }
}
