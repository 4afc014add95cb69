//! The programs in the middle: the balancer, and the two proxies that people trust. Each runs as a process of its own
//! in front of one origin, needs no privileges, and ends when dropped.
//!
//! The balancer says which port the kernel gave it; the others listen on a Unix socket, so no port has to be guessed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tempfile::TempDir;
use xtask::privilege::find_program;

use super::differences::{self, Reason};

/// For a program to be ready.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Balancer,
    Haproxy,
    Nginx,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Balancer, Self::Haproxy, Self::Nginx];

    pub fn name(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    pub fn is_here(self) -> bool {
        self == Self::Balancer || find_program(self.name()).is_some()
    }

    /// Where it does not do what the table says, and why.
    pub fn differences(self) -> &'static [Reason] {
        match self {
            Self::Balancer => &[],
            Self::Haproxy => differences::HAPROXY,
            Self::Nginx => differences::NGINX,
        }
    }

    /// It is of the release that the differences were seen in. A later one may have become stricter.
    pub fn is_known_release(self) -> bool {
        let (flag, known) = match self {
            Self::Balancer => return true,
            Self::Haproxy => ("-v", "HAProxy version 2.6."),
            Self::Nginx => ("-v", "nginx/1.22."),
        };
        program(self).arg(flag).output().is_ok_and(|said| {
            [said.stdout, said.stderr].iter().any(|text| String::from_utf8_lossy(text).contains(known))
        })
    }
}

/// Where it takes clients.
#[derive(Debug)]
enum Front {
    Port(SocketAddr),
    Socket(PathBuf),
}

/// A client's connection.
pub trait Stream: Read + Write + std::os::fd::AsFd {
    fn end_sending(&self);
}

impl Stream for TcpStream {
    fn end_sending(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

impl Stream for UnixStream {
    fn end_sending(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

/// A running program.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    front: Front,
    /// The balancer's name for itself.
    service: Option<String>,
    _folder: TempDir,
}

impl Subject {
    /// Starts it in front of the server at `origin` and waits until it takes clients.
    pub fn start(kind: Kind, origin: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a folder");
        match kind {
            Kind::Balancer => Self::balancer(folder, origin),
            Kind::Haproxy => {
                let configuration = folder.path().join("haproxy.cfg");
                std::fs::write(&configuration, haproxy(folder.path(), origin)).expect("written");
                let mut command = program(kind);
                command.args(["-db", "-f"]).arg(configuration);
                Self::behind_socket(folder, command)
            }
            Kind::Nginx => {
                let configuration = folder.path().join("nginx.conf");
                std::fs::write(&configuration, nginx(folder.path(), origin)).expect("written");
                let mut command = program(kind);
                command.arg("-e").arg(folder.path().join("error.log"));
                command.arg("-p").arg(folder.path()).arg("-c").arg(configuration);
                Self::behind_socket(folder, command)
            }
        }
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        match &self.front {
            Front::Port(address) => {
                let stream = TcpStream::connect(address).expect("connect");
                stream.set_nodelay(true).expect("nodelay");
                // The table is played thousands of times: none of its connections is to keep its port for a minute.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
                stream.set_nonblocking(true).expect("nonblocking");
                Box::new(stream)
            }
            Front::Socket(path) => {
                let stream = UnixStream::connect(path).expect("connect");
                stream.set_nonblocking(true).expect("nonblocking");
                Box::new(stream)
            }
        }
    }

    /// What [`super::row::LISTEN`] stands for.
    pub fn listen(&self) -> String {
        match &self.front {
            Front::Port(address) => address.to_string(),
            Front::Socket(_) => String::new(),
        }
    }

    fn balancer(folder: TempDir, origin: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        let name = format!("exchange-{}-{}", std::process::id(), origin.port());
        command.args(["run", "--listen", "127.0.0.1:0", "--workers", "1", "--check", "none"]);
        command.args(["--timeout-request", "1s", "--name", &name]);
        command.arg("--admin").arg(folder.path().join("admin.sock"));
        command.arg("--server").arg(format!("s1={origin}"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = log.by_ref().map_while(Result::ok).find(|line| line.contains("ready: "));
        let ready = ready.expect("the balancer starts");
        let address = ready.split_whitespace().find_map(|word| word.parse().ok()).expect("an address");
        // Somebody has to go on reading, or a talkative daemon would stop.
        thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { child, front: Front::Port(address), service: Some(name), _folder: folder }
    }

    fn behind_socket(folder: TempDir, mut command: Command) -> Self {
        let path = folder.path().join("front.sock");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().expect("started");
        let start = Instant::now();
        while UnixStream::connect(&path).is_err() {
            assert!(start.elapsed() < START_LIMIT, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Self { child, front: Front::Socket(path), service: None, _folder: folder }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Where the tests run with privileges its servers are on record in the kernel.
        if let Some(name) = &self.service {
            let _ = Command::new(env!("CARGO_BIN_EXE_balancer")).args(["detach", "--name", name]).output();
        }
    }
}

fn program(kind: Kind) -> Command {
    Command::new(find_program(kind.name()).expect("looked for before"))
}

/// Connections to the server are not kept, and a request waits for its body, so that a row always ends the same way.
fn haproxy(folder: &Path, origin: SocketAddr) -> String {
    format!(
        "global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
    timeout http-request 1s
    retries 0
    option http-server-close
    option http-buffer-request
listen table
    bind unix@{}/front.sock
    server s1 {origin}
",
        folder.display()
    )
}

/// One process without a master, so that killing it kills all of it.
fn nginx(folder: &Path, origin: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ }}
http {{
    access_log off; client_header_timeout 1s; keepalive_timeout 10s; large_client_header_buffers 4 8k;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream origin {{ server {origin}; }}
    server {{
        listen unix:{folder}/front.sock;
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection '';
            proxy_set_header Host $http_host; proxy_ignore_client_abort on; proxy_next_upstream off;
        }}
    }}
}}
"
    )
}
