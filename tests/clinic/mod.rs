//! A host to break and to mend: a laboratory, and `balancer doctor` in the balancer's namespace.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask::lab::process::Output;
use xtask::lab::{Child, Command, Daemon, Lab, Star, wait_for, wait_until};

use crate::site::{BALANCER, PATIENCE};

/// One command: the doctor's own look at things takes longest.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A laboratory, and the flags of a service in it.
pub struct Clinic {
    pub lab: Lab,
    pub flags: Vec<String>,
    /// A process whose mounts are its own, in which everything is done.
    mounts: Option<Child>,
}

/// What the doctor says of one check.
#[derive(Clone, Debug)]
pub struct Row {
    pub state: String,
    pub detail: String,
    pub mend: String,
}

impl Clinic {
    /// One client, one server, the program on both links.
    pub fn open() -> Result<Self> {
        Self::open_in(&Lab::star().servers(1))
    }

    pub fn open_in(star: &Star) -> Result<Self> {
        let lab = star.build()?;
        let (client, server) = (lab.client(), lab.server(1));
        let words = ["--listen", "", "--server", "", "--xdp", "c1", "--xdp", "s1", "--persist", "source"];
        let mut flags: Vec<String> = words.map(str::to_owned).into();
        flags[1] = client.gateway_at(80).to_string();
        flags[3] = format!("s1={}", server.at(8080));
        flags.extend(["--admin".to_owned(), lab.balancer.fresh_path("web.sock").display().to_string()]);
        flags.extend(["--name".to_owned(), "web".to_owned()]);
        Ok(Self { lab, flags, mounts: None })
    }

    /// The same flags, one of them with another value.
    pub fn flag(&mut self, flag: &str, value: &str) -> Result<()> {
        let at = self.flags.iter().position(|word| word == flag).with_context(|| format!("no {flag}"))?;
        value.clone_into(&mut self.flags[at + 1]);
        Ok(())
    }

    /// From now on everything happens among mounts of its own, which other tests do not notice.
    pub fn keep_mounts_apart(&mut self) -> Result<()> {
        let sleeper = ["--mount", "--propagation", "private", "sleep", "600"];
        let child = self.lab.balancer.command("unshare").args(sleeper).spawn()?;
        let ours = std::fs::read_link("/proc/self/ns/mnt")?;
        let theirs = format!("/proc/{}/ns/mnt", child.pid());
        wait_until(PATIENCE, "mounts of its own", || std::fs::read_link(&theirs).is_ok_and(|at| at != ours))?;
        self.mounts = Some(child);
        Ok(())
    }

    /// A program on the balancer's host.
    pub fn command(&self, words: &[&str]) -> Command {
        let (program, arguments) = words.split_first().expect("a program");
        match &self.mounts {
            None => self.lab.balancer.command(program).args(arguments),
            Some(child) => {
                let pid = child.pid().to_string();
                self.lab.balancer.command("nsenter").args(["--target", &pid, "--mount", "--"]).args(words)
            }
        }
    }

    pub fn run(&self, words: &[&str]) -> Result<Output> {
        self.command(words).output(COMMAND_LIMIT)
    }

    /// A line for the shell of the balancer's host, which is to succeed.
    pub fn shell(&self, line: &str) -> Result<()> {
        let output = self.run(&["sh", "-c", line])?;
        ensure!(output.status.success(), "{line}: {} {}", output.status, output.stderr.trim());
        Ok(())
    }

    /// All rows, whoever asks (`prefix`).
    pub fn examine(&self, prefix: &[&str]) -> Result<Vec<(String, Row)>> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let binary = if prefix.is_empty() { vec![BALANCER] } else { prefix.to_vec() };
        let output = self.run(&[&binary, &["doctor", "--json"][..], &flags].concat())?;
        rows(&output.stdout).with_context(|| format!("{} {}", output.status, output.stderr.trim()))
    }

    pub fn row(&self, check: &str) -> Result<Row> {
        pick(self.examine(&[])?, check)
    }

    /// It is ok now, `break_it` makes it `state`, what the doctor says to type is typed, and it is ok again.
    pub fn story(&self, check: &str, state: &str, break_it: impl FnOnce(&Self) -> Result<()>) -> Result<Row> {
        let before = self.row(check)?;
        ensure!(before.state == "ok", "{check} before: {before:?}");
        break_it(self)?;
        let broken = self.row(check)?;
        ensure!(broken.state == state, "{check} broken: {broken:?}");
        self.mend(check, &broken)?;
        Ok(broken)
    }

    /// Types what the doctor says, as it stands, and waits until the row is ok.
    pub fn mend(&self, check: &str, broken: &Row) -> Result<()> {
        self.shell(&broken.mend).with_context(|| format!("the mend of {check}"))?;
        self.wait_until_ok(check)
    }

    pub fn wait_until_ok(&self, check: &str) -> Result<()> {
        wait_for(
            PATIENCE,
            &format!("{check} to be ok"),
            || Ok((self.row(check)?.state == "ok").then_some(())),
        )
        .with_context(|| format!("{check} after the mend: {:?}", self.row(check)))
    }

    /// What `balancer run` says when it refuses to start.
    pub fn refusal(&self) -> Result<String> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let output = self.run(&[&[BALANCER, "run"][..], &flags].concat())?;
        ensure!(!output.status.success(), "it has started: {}", output.stderr);
        Ok(output.stderr)
    }

    /// The service, running.
    pub fn daemon(&self) -> Result<Daemon> {
        let skip = |flag: &str| self.flags.iter().position(|word| word == flag).map_or(0..0, |at| at..at + 2);
        let (name, admin) = (skip("--name"), skip("--admin"));
        let kept = self.flags.iter().enumerate().filter(|(at, _)| !name.contains(at) && !admin.contains(at));
        let flags: Vec<&str> = kept.map(|(_, word)| word.as_str()).collect();
        Daemon::start(&self.lab.balancer, Path::new(BALANCER), "web", &flags)
    }
}

/// What `doctor --json` has printed.
pub fn rows(json: &str) -> Result<Vec<(String, Row)>> {
    let rows: Value = serde_json::from_str(json).with_context(|| format!("not JSON: {json}"))?;
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| {
        let found = Row { state: text(row, "state"), detail: text(row, "detail"), mend: text(row, "mend") };
        (text(row, "check"), found)
    };
    Ok(rows.as_array().context("not an array")?.iter().map(row).collect())
}

pub fn pick(rows: Vec<(String, Row)>, check: &str) -> Result<Row> {
    let names: Vec<_> = rows.iter().map(|(name, _)| name.clone()).collect();
    match rows.into_iter().find(|(name, _)| name == check) {
        Some((_, row)) => Ok(row),
        None => bail!("no row {check} among {names:?}"),
    }
}
