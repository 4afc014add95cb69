//! The programs in the middle: the balancer, and the two proxies that people trust. Each runs as a process of its own
//! in front of one origin, needs no privileges, and ends when dropped.
//!
//! The balancer says which port the kernel gave it; the others listen on a Unix socket, so no port has to be guessed.

use std::io::{Read, Write};
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
use crate::daemon::Daemon;

/// For a program to be ready.
const START_LIMIT: Duration = Duration::from_secs(60);

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
pub enum Subject {
    Balancer(Daemon),
    Oracle(Oracle),
}

/// Another proxy; gone on drop.
#[derive(Debug)]
pub struct Oracle {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl Subject {
    /// Starts it in front of the server at `origin` and waits until it takes clients.
    pub fn start(kind: Kind, origin: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a folder");
        match kind {
            Kind::Balancer => {
                let name = format!("exchange-{}-{}", std::process::id(), origin.port());
                let flags = ["--workers", "1", "--timeout-request", "1s"];
                Self::Balancer(Daemon::start(&name, origin, &flags))
            }
            Kind::Haproxy => {
                let configuration = folder.path().join("haproxy.cfg");
                std::fs::write(&configuration, haproxy(folder.path(), origin)).expect("written");
                let mut command = program(kind);
                command.args(["-db", "-f"]).arg(configuration);
                Self::Oracle(Oracle::start(folder, command))
            }
            Kind::Nginx => {
                let configuration = folder.path().join("nginx.conf");
                std::fs::write(&configuration, nginx(folder.path(), origin)).expect("written");
                let mut command = program(kind);
                command.arg("-e").arg(folder.path().join("error.log"));
                command.arg("-p").arg(folder.path()).arg("-c").arg(configuration);
                Self::Oracle(Oracle::start(folder, command))
            }
        }
    }

    pub fn connect(&self) -> Box<dyn Stream> {
        match self {
            Self::Balancer(daemon) => {
                let stream = TcpStream::connect(daemon.address).expect("connect");
                stream.set_nodelay(true).expect("nodelay");
                // The table is played thousands of times: none of its connections is to keep its port for a minute.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
                stream.set_nonblocking(true).expect("nonblocking");
                Box::new(stream)
            }
            Self::Oracle(oracle) => {
                let stream = UnixStream::connect(&oracle.socket).expect("connect");
                stream.set_nonblocking(true).expect("nonblocking");
                Box::new(stream)
            }
        }
    }

    /// What [`super::row::LISTEN`] stands for.
    pub fn listen(&self) -> String {
        match self {
            Self::Balancer(daemon) => daemon.address.to_string(),
            Self::Oracle(_) => String::new(),
        }
    }
}

impl Oracle {
    fn start(folder: TempDir, mut command: Command) -> Self {
        let socket = folder.path().join("front.sock");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().expect("started");
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(start.elapsed() < START_LIMIT, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket, _folder: folder }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
