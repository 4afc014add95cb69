//! The proxies: ours, HAProxy and nginx, each as somebody would set it up who wants to see it win on one core.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::contender::{self, Contender, ORIGIN_NAME, ORIGIN_PORT, Process, SOON};
use super::pin::{self, MEASURED, OTHERS};
use crate::lab::nginx::Nginx;
use crate::lab::{Lab, wait_for_port};
use crate::privilege::find_program;

pub(super) const HAPROXY: &str = "HAProxy";
pub(super) const NGINX: &str = "nginx";
pub(super) const BALANCER: &str = "balancer";

const COOKIE: &[&str] = &["--persist", "cookie=SRV,insert,indirect"];

/// The server behind all of them, which logs nothing and answers the large file from the page cache.
pub(super) fn origin(lab: &Lab) -> Result<Nginx> {
    let server = lab.server(1);
    let address = server.at(ORIGIN_PORT);
    let nginx = Nginx::start_with(&server.ns, address, ORIGIN_NAME, |folder| {
        format!(
            "    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; open_file_cache max=8;
    keepalive_requests 1000000000; keepalive_timeout 300s; default_type text/plain;
    add_header X-Server {ORIGIN_NAME} always;
    server {{
        listen {address} backlog=4096;
        location = /quiet {{ return 200 'Hello, world!'; }}
        location = /quiet100k {{ alias {}/www/100k; }}
    }}
",
            folder.display()
        )
    })?;
    pin::pin(&nginx.child, OTHERS)?;
    Ok(nginx)
}

/// Our own proxy, without and with an access log.
pub(super) fn balancers(lab: &Lab, executable: &Path) -> Result<Vec<Contender>> {
    let mut rows = Vec::new();
    let logs = [(BALANCER, 8001, None), ("balancer, text log", 8002, Some("text"))];
    for (name, port, format) in logs.into_iter().chain([("balancer, JSON log", 8003, Some("json"))]) {
        let listen = lab.client().gateway_at(port);
        let log = lab.balancer.fresh_path("access.log");
        let path = log.to_string_lossy().into_owned();
        let logging = format.map(|format| ["--access-log", &path, "--log-format", format]);
        let flags = [COOKIE, logging.as_ref().map_or(&[], |words| &words[..])].concat();
        let daemon = contender::balancer(
            lab,
            executable,
            &format!("bench-{}", format.unwrap_or("proxy")),
            listen,
            &flags,
        )?;
        pin::pin(&daemon.child, MEASURED)?;
        let line = pin::line(MEASURED, &daemon.line());
        let row = Contender::new(name, lab, listen, vec![line], Process::Balancer { daemon, fast: false });
        rows.push(if logging.is_some() { row.with_log(log) } else { row });
    }
    Ok(rows)
}

/// One thread, connections to the server shared by all clients, buffers of 16 KiB (its default, and ours).
pub(super) fn haproxy(lab: &Lab) -> Result<Contender> {
    let program = find_program("haproxy").context("haproxy is missing: cargo xtask setup")?;
    let listen = lab.client().gateway_at(8004);
    let server = lab.server(1).at(ORIGIN_PORT);
    let path = lab.balancer.fresh_path("haproxy.cfg");
    let configuration = format!(
        "global
    nbthread 1
    maxconn 4096
    tune.bufsize 16384
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 60s
    http-reuse always
frontend bench
    bind {listen} backlog 4096
    default_backend bench
backend bench
    cookie SRV insert indirect
    server s1 {server} cookie s1 check inter 2s
"
    );
    fs::write(&path, &configuration)?;
    let command = lab.balancer.command(program).args(["-db".as_ref(), "-f".as_ref(), path.as_os_str()]);
    let lines = lines(&command.line(), &configuration);
    let child = command.spawn()?;
    wait_for_port(&lab.balancer, listen, SOON).with_context(|| format!("haproxy: {}", child.stderr()))?;
    pin::pin(&child, MEASURED)?;
    Ok(Contender::new(HAPROXY, lab, listen, lines, Process::Haproxy { _child: child }))
}

/// One process, connections to the server kept. `proxy_buffering` stays on, with room for all of the large body, so
/// that none of it goes to a file. It has no persistence by cookie; that work it is spared.
pub(super) fn nginx(lab: &Lab) -> Result<Contender> {
    let listen = lab.client().gateway_at(8005);
    let origin = lab.server(1).at(ORIGIN_PORT);
    let mut configuration = String::new();
    let server = Nginx::start_with(&lab.balancer, listen, "proxy", |folder| {
        configuration = format!(
            "    access_log off; proxy_temp_path {}/tmp; tcp_nodelay on;
    keepalive_requests 1000000000; keepalive_timeout 60s;
    proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_max_temp_file_size 0;
    upstream bench {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {listen} backlog=4096;
        location / {{ proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection ''; }}
    }}
",
            folder.display()
        );
        configuration.clone()
    })?;
    pin::pin(&server.child, MEASURED)?;
    let start = "nginx -g 'daemon off; master_process off;'   # one process, worker_connections 4096";
    let lines = lines(start, &configuration);
    Ok(Contender::new(NGINX, lab, listen, lines, Process::Nginx { _server: server }))
}

/// How it is started, and its configuration as comments, since the file is gone when somebody wants to read it.
fn lines(command: &str, configuration: &str) -> Vec<String> {
    let configuration = configuration.lines().map(|line| format!("#   {line}"));
    std::iter::once(pin::line(MEASURED, command)).chain(configuration).collect()
}
