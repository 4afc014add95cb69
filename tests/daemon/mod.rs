//! The balancer as a process of its own, on a port that the kernel gives it; gone on drop, with all it leaves behind.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

const BALANCER: &str = env!("CARGO_BIN_EXE_balancer");
/// In a folder of its own.
const SOCKET: &str = "admin.sock";
/// The last line of a start.
const READY: &str = "ready: ";

/// A running balancer.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    /// Where clients connect.
    pub address: SocketAddr,
    /// What it says of clients: the most that it takes.
    pub most_clients: u64,
    /// Where `--http-admin` listens.
    pub http_admin: Option<SocketAddr>,
    folder: TempDir,
}

impl Daemon {
    /// Starts one called `name` in front of `origin`, and waits until it takes clients.
    pub fn start(name: &str, origin: SocketAddr, flags: &[&str]) -> Self {
        Self::start_with(name, &[&["--check", "none", "--server", &format!("s1={origin}")], flags].concat())
    }

    /// The same with the servers among the flags.
    pub fn start_with(name: &str, flags: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut command = Command::new(BALANCER);
        command.args(["run", "--listen", "127.0.0.1:0", "--name", name]);
        command.arg("--admin").arg(folder.path().join(SOCKET));
        let mut child =
            command.args(flags).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(READY)) {
            lines.push(log.next().unwrap_or_else(|| panic!("the balancer starts: {lines:?}")));
        }
        // Somebody has to go on reading, or a talkative daemon would stop.
        thread::spawn(move || log.for_each(drop));
        let words =
            |part: &str| lines.iter().find(|line| line.contains(part)).map(|line| line.split_whitespace());
        let address = |part: &str| words(part)?.find_map(|word| word.parse().ok());
        let most = words("clients: at most ").and_then(|mut words| words.find_map(|word| word.parse().ok()));
        Self {
            name: name.to_owned(),
            address: address(READY).expect("an address"),
            most_clients: most.expect("a number"),
            http_admin: address("http admin "),
            child,
            folder,
        }
    }

    /// Where it answers operators.
    pub fn admin(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// What a client command prints: `balancer WORDS --admin SOCKET`.
    pub fn command(&self, words: &str) -> String {
        let mut command = Command::new(BALANCER);
        command.args(words.split(' ')).arg("--admin").arg(self.admin());
        let output = command.output().expect("started");
        assert!(output.status.success(), "balancer {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Where the tests run with privileges its servers are on record in the kernel.
        let _ = Command::new(BALANCER).args(["detach", "--name", &self.name]).output();
    }
}
