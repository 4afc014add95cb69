//! The balancer as a process of its own, on a port that the kernel gives it; gone on drop, with all it leaves behind.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

/// A running balancer.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    /// Where clients connect.
    pub address: SocketAddr,
    /// What it says of clients: the most that it takes.
    pub most_clients: u64,
    _folder: TempDir,
}

impl Daemon {
    /// Starts one called `name` in front of `origin`, and waits until it takes clients.
    pub fn start(name: &str, origin: SocketAddr, flags: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.args(["run", "--listen", "127.0.0.1:0", "--check", "none", "--name", name]);
        command.arg("--admin").arg(folder.path().join("admin.sock"));
        command.arg("--server").arg(format!("s1={origin}"));
        let mut child =
            command.args(flags).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut line_with = |part: &str| {
            log.by_ref().map_while(Result::ok).find(|line| line.contains(part)).expect("the balancer starts")
        };
        let most = line_with("clients: at most ");
        let most_clients = most.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
        let ready = line_with("ready: ");
        let address = ready.split_whitespace().find_map(|word| word.parse().ok()).expect("an address");
        // Somebody has to go on reading, or a talkative daemon would stop.
        thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { child, name: name.to_owned(), address, most_clients, _folder: folder }
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
        let _ = Command::new(env!("CARGO_BIN_EXE_balancer")).args(["detach", "--name", &self.name]).output();
    }
}
