//! A real nginx as the origin, in one process, with a configuration of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/13`, `/1k`, `/100k`, `/1m` | a file of that size |
//! | `/quiet` | 13 bytes, not logged: for load |
//! | `/slow` | 1 MiB at 64 KiB a second |
//! | `PUT /upload/NAME` | stored: [`Nginx::uploaded`] |
//! | `POST /upload` | `received=N`, the length of the body |
//! | `/echo` | a WebSocket to whatever listens at [`Nginx::echo_socket`] |
//! | any other | `server=s1 peer=IP:PORT cookie=…` |

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Child, Namespace, wait};
use crate::privilege::find_program;

const START_LIMIT: Duration = Duration::from_secs(60);
const FILES: &[(&str, usize)] = &[("13", 13), ("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20)];

/// A running nginx; it ends when dropped.
#[derive(Debug)]
pub struct Nginx {
    /// Its process, to be stopped and killed.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it calls itself.
    pub name: String,
    folder: PathBuf,
}

/// One line of its access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who connected.
    pub peer: SocketAddr,
    /// The request line.
    pub line: String,
    /// The Cookie header, empty when there was none.
    pub cookie: String,
}

impl Nginx {
    /// Starts an origin inside `ns` and waits until it accepts.
    ///
    /// # Errors
    /// When there is no nginx, or it does not start within 5 s; its own words are in the message.
    pub fn start(ns: &Namespace, address: SocketAddr, name: &str) -> Result<Self> {
        Self::start_with(ns, address, name, |folder| origin(folder, address, name))
    }

    /// Starts nginx with any `http` block: `http` is given the folder in which the logs and `www` are.
    ///
    /// # Errors
    /// As [`Nginx::start`].
    pub fn start_with(
        ns: &Namespace,
        address: SocketAddr,
        name: &str,
        http: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        let program = find_program("nginx").context("nginx is missing: cargo xtask setup")?;
        let folder = ns.fresh_path(&format!("nginx-{name}"));
        fs::create_dir_all(folder.join("www/upload"))?;
        fs::create_dir(folder.join("tmp"))?;
        for (file, size) in FILES {
            fs::write(folder.join("www").join(file), vec![b'x'; *size])?;
        }
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, format!("{}http {{\n{}}}\n", process(&folder), http(&folder)))?;
        let child = ns
            .command(program)
            // The first errors come before the configuration has said where to write them.
            .args(["-e".as_ref(), folder.join("error.log").as_os_str()])
            .args(["-p".as_ref(), folder.as_os_str(), "-c".as_ref(), configuration.as_os_str()])
            .spawn()?;
        let server = Self { child, address, name: name.to_owned(), folder };
        wait::wait_for_port(ns, address, START_LIMIT)
            .with_context(|| format!("nginx {name}: {} {}", server.child.stderr(), server.error_log()))?;
        Ok(server)
    }

    /// The requests it has answered until now. It logs after the answer: tests wait for a line.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        let log = fs::read(self.folder.join("access.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter_map(parse).collect()
    }

    /// Its access log, as it is.
    #[must_use]
    pub fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    /// Where a test may listen for what goes to `/echo`, upgrades included.
    #[must_use]
    pub fn echo_socket(&self) -> PathBuf {
        self.folder.join("echo.sock")
    }

    /// What it complained of.
    #[must_use]
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }

    /// A body that was PUT to `/upload/NAME`.
    ///
    /// # Errors
    /// When nothing was stored under that name.
    pub fn uploaded(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join("www/upload").join(name);
        fs::read(&path).with_context(|| format!("nothing was uploaded as {name}"))
    }
}

/// One process without a master, so that killing it kills all of it.
fn process(folder: &Path) -> String {
    let f = folder.display();
    format!(
        "daemon off; master_process off; pid {f}/pid; error_log {f}/error.log warn;
events {{ worker_connections 4096; }}
"
    )
}

fn origin(folder: &Path, address: SocketAddr, name: &str) -> String {
    let f = folder.display();
    let peer = if address.is_ipv6() { "[$remote_addr]:$remote_port" } else { "$remote_addr:$remote_port" };
    format!(
        "    log_format lab '$remote_addr\t$remote_port\t$request\t$http_cookie';
    access_log {f}/access.log lab;
    client_body_temp_path {f}/tmp; proxy_temp_path {f}/tmp;
    keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 0;
    tcp_nodelay on; default_type text/plain;
    add_header X-Server {name} always;
    server {{
        listen {address} backlog=4096;
        root {f}/www;
        location / {{ return 200 \"server={name} peer={peer} cookie=$http_cookie\\n\"; }}
        location ~ ^/(13|1k|100k|1m)$ {{ }}
        location = /quiet {{ access_log off; return 200 'Hello, world!'; }}
        location = /slow {{ alias {f}/www/1m; limit_rate 64k; }}
        location /upload/ {{ dav_methods PUT; }}
        location = /echo {{ proxy_pass http://unix:{f}/echo.sock; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}
        location = /upload {{ proxy_pass http://unix:{f}/sink.sock; }}
    }}
    server {{
        listen unix:{f}/sink.sock;
        access_log off;
        location / {{ return 200 \"received=$content_length\\n\"; }}
    }}
"
    )
}

fn parse(line: &str) -> Option<Request> {
    let mut fields = line.split('\t');
    let peer = SocketAddr::new(fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let line = fields.next()?.to_owned();
    let cookie = fields.next().filter(|cookie| *cookie != "-").unwrap_or_default().to_owned();
    Some(Request { peer, line, cookie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_understood() {
        let request = parse("10.20.1.1\t40000\tGET /a b HTTP/1.1\tSRV=s1; x=y").unwrap();
        assert_eq!(request.peer.port(), 40_000);
        assert_eq!((request.line.as_str(), request.cookie.as_str()), ("GET /a b HTTP/1.1", "SRV=s1; x=y"));
        assert_eq!(parse("10.20.1.1\t1\tGET / HTTP/1.1\t-").unwrap().cookie, "");
        assert_eq!(parse("half a li"), None);
    }
}
