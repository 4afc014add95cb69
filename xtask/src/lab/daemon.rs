//! The balancer itself, as people run it, and its client commands.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::process::Output;
use super::{Child, Namespace, wait};

const START_LIMIT: Duration = Duration::from_secs(60);
const CLIENT_LIMIT: Duration = Duration::from_secs(60);

/// A running balancer; it ends when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// Its process, to be stopped and killed.
    pub child: Child,
    ns: Namespace,
    executable: PathBuf,
    flags: Vec<OsString>,
    admin: PathBuf,
}

impl Daemon {
    /// Runs `balancer run --name NAME --admin SOCKET FLAGS` inside `ns` and waits until its socket answers.
    ///
    /// # Errors
    /// When it ends or does not answer within 15 s; its own words are in the message.
    pub fn start(ns: &Namespace, executable: &Path, name: &str, flags: &[&str]) -> Result<Self> {
        let admin = ns.fresh_path(&format!("{name}.sock"));
        let mut all: Vec<OsString> = ["run", "--name", name, "--admin"].map(OsString::from).into();
        all.push(admin.clone().into());
        all.extend(flags.iter().map(OsString::from));
        let child = ns.command(executable).args(&all).spawn()?;
        let mut daemon =
            Self { child, ns: ns.clone(), executable: executable.to_path_buf(), flags: all, admin };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// Starts it again with the same flags, after it has ended or been killed.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.child.kill();
        self.child = self.ns.command(&self.executable).args(&self.flags).spawn()?;
        self.wait_until_ready()
    }

    /// Its command line.
    #[must_use]
    pub fn line(&self) -> String {
        self.ns.command(&self.executable).args(&self.flags).line()
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// What it has logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        self.child.stderr()
    }

    /// Runs a client command against it: `balancer WORDS --admin SOCKET`.
    ///
    /// # Errors
    /// When it cannot be run or does not end. Its own failure is in the output.
    pub fn client(&self, words: &[&str]) -> Result<Output> {
        let command = self.ns.command(&self.executable).args(words);
        command.args(["--admin".as_ref(), self.admin.as_os_str()]).output(CLIENT_LIMIT)
    }

    /// `show WORDS --json`.
    ///
    /// # Errors
    /// When the daemon does not answer, or not with JSON.
    pub fn show(&self, words: &[&str]) -> Result<Value> {
        let words = [&["show"], words, &["--json"]].concat();
        let text = self.successful(&words)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON, from {}: {text}", words.join(" ")))
    }

    /// What its admin socket answers to a line, as it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn say(&self, line: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(CLIENT_LIMIT))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// A counter of the data path, from `show info`.
    ///
    /// # Errors
    /// When there is no data path, or no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let info = self.show(&["info"])?;
        info["datapath"]["counters"][name].as_u64().with_context(|| format!("no counter {name} in {info}"))
    }

    /// The entry of `key` in a learned table.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn entry(&self, table: &str, key: &str) -> Result<Option<Value>> {
        let rows = self.show(&["table", table])?;
        let rows = rows.as_array().with_context(|| format!("not a table: {rows}"))?;
        Ok(rows.iter().find(|row| row["key"] == key).cloned())
    }

    /// The server that `key` is bound to in a learned table.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn affinity(&self, table: &str, key: &str) -> Result<Option<String>> {
        Ok(self.entry(table, key)?.and_then(|entry| entry["server"].as_str().map(str::to_owned)))
    }

    /// What `show servers` says of one server.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn server(&self, name: &str) -> Result<Value> {
        let rows = self.show(&["servers"])?;
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name)).cloned();
        row.with_context(|| format!("no server {name} in {rows}"))
    }

    /// `set server NAME STATE`.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn set_server(&self, name: &str, state: &str) -> Result<()> {
        self.successful(&["set", "server", name, state]).map(drop)
    }

    fn successful(&self, words: &[&str]) -> Result<String> {
        let output = self.client(words)?;
        if !output.status.success() {
            bail!("balancer {}: {} {}", words.join(" "), output.status, output.stderr.trim());
        }
        Ok(output.stdout)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let what = format!("the admin socket {}", self.admin.display());
        let ready = wait::wait_for(START_LIMIT, &what, || {
            // A daemon that refuses to start has said why; there is nothing to wait for.
            if !self.child.is_running() {
                return Ok(Some(false));
            }
            // An old socket may still lie there after a kill: the answer has to come from this process.
            let info = self.show(&["info"])?;
            Ok((info["pid"] == self.child.pid()).then_some(true))
        });
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{} ended at once: {}", self.line(), self.log().trim()),
            Err(error) => Err(error.context(format!("{}: {}", self.line(), self.log().trim()))),
        }
    }
}
