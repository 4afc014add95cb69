//! HAProxy in front of the same servers: what it does is what people expect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use xtask::privilege::find_program;

use super::PATIENCE;
use super::balancer::wait_for;

/// What lines of its log begin with that are about requests.
const OF_REQUESTS: &str = "letters=";

/// A process of its own; gone on drop.
pub struct Haproxy {
    pub address: SocketAddr,
    child: Child,
    stats: PathBuf,
    log: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    /// With these lines in its section, `web`. `None`: it is not installed, which CI does not forgive.
    pub fn start(lines: &[String]) -> Option<Self> {
        Self::start_logging(lines, &format!("log-format {OF_REQUESTS}%tsc"))
    }

    /// The same with another log.
    pub fn start_logging(lines: &[String], log_format: &str) -> Option<Self> {
        let program = find_program("haproxy");
        assert!(program.is_some() || std::env::var_os("CI").is_none(), "haproxy is missing");
        let program = program?;
        let folder = tempfile::tempdir().expect("folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        // It inherits the socket, so that no port has to be guessed.
        fcntl(listener.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).expect("option");
        let [file, stats, log] =
            ["haproxy.cfg", "stats.sock", "log.sock"].map(|name| folder.path().join(name));
        let text = format!(
            "global\n  nbthread 1\n  stats socket {} level admin\n  log {} format raw local0\ndefaults\n  mode http\n  \
             timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  log global\n  {log_format}\nlisten web\n  bind fd@{}\n  {}\n",
            stats.display(),
            log.display(),
            listener.as_raw_fd(),
            lines.join("\n  "),
        );
        std::fs::write(&file, text).expect("written");
        let log = UnixDatagram::bind(log).expect("bind");
        log.set_read_timeout(Some(PATIENCE)).expect("option");
        let mut command = Command::new(program);
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn().expect("started");
        let address = listener.local_addr().expect("address");
        let haproxy = Self { address, child, stats, log, _folder: folder };
        wait_for("haproxy", || UnixStream::connect(&haproxy.stats).ok());
        Some(haproxy)
    }

    /// What it answers to a command.
    pub fn say(&self, command: &str) -> String {
        let mut stats = UnixStream::connect(&self.stats).expect("connect");
        stats.write_all(format!("{command}\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stats.read_to_string(&mut answer).expect("read");
        answer
    }

    /// The next line of its log, whatever it is about.
    pub fn log_line(&self) -> String {
        let mut line = [0; 4096];
        let length = self.log.recv(&mut line).expect("a line of the log");
        String::from_utf8_lossy(&line[..length]).into_owned()
    }

    /// The two letters of persistence in the next line of its log that is about a request.
    pub fn letters(&self) -> String {
        loop {
            let text = self.log_line();
            if let Some((_, state)) = text.split_once(OF_REQUESTS) {
                return state.trim().chars().skip(2).take(2).collect();
            }
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
