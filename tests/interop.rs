//! Real peers: HAProxy in front and behind, nginx behind, and who they believe the client to be; and HAProxy beside us,
//! where it has the same feature. And the tools that people have for HAProxy, on our admin socket.
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a test is nobody's library")]

mod beside;
mod site;
mod tools;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use site::{BALANCER, PATIENCE, trial};
use xtask::lab::nginx::Nginx;
use xtask::lab::process::Child;
use xtask::lab::wait::{wait_for_port, wait_until};
use xtask::lab::{Daemon, Lab, Namespace, http};
use xtask::privilege::find_program;

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        trial("haproxy_in_front_and_nginx_behind_agree_on_the_client", between_haproxy_and_nginx),
        trial("haproxy_behind_believes_us", before_haproxy),
        trial("tcp_mode_between_haproxy_and_nginx", tcp_between_haproxy_and_nginx),
    ];
    trials.extend(beside::trials());
    trials.extend(tools::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

/// An HAProxy with these sections after its defaults.
fn haproxy(ns: &Namespace, listen: SocketAddr, sections: &str) -> Result<Child> {
    let program = find_program("haproxy").context("haproxy is missing: cargo xtask setup")?;
    let path = ns.fresh_path("haproxy.cfg");
    let defaults =
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n";
    fs::write(&path, format!("{defaults}{sections}"))?;
    let child = ns.command(program).args(["-db".as_ref(), "-f".as_ref(), path.as_os_str()]).spawn()?;
    wait_for_port(ns, listen, PATIENCE).with_context(|| format!("haproxy: {}", child.stderr()))?;
    Ok(child)
}

/// An nginx that says who it was told the client is.
fn nginx(lab: &Lab) -> Result<Nginx> {
    let host = lab.server(1);
    let listen = host.at(8080);
    Nginx::start_with(&host.ns, listen, "s1", |folder| {
        format!(
            "access_log off; client_body_temp_path {f}/tmp; proxy_temp_path {f}/tmp; server {{ listen {listen} \
             proxy_protocol; location / {{ return 200 'proxy=$proxy_protocol_addr \
             xff=$http_x_forwarded_for|$http_x_forwarded_proto|$http_x_forwarded_host|$http_x_forwarded_port'; }} }}\n",
            f = folder.display()
        )
    })
}

/// HAProxy on the client's side of the balancer's host, and us behind it.
fn chain(lab: &Lab, sent: &str, flags: &[&str]) -> Result<(Child, Daemon)> {
    let (front, ours) = (lab.client().gateway_at(80), lab.client().gateway_at(8001));
    let listen = ours.to_string();
    let server = format!("s1={}", lab.server(1).at(8080));
    let trusted = ours.ip().to_string();
    let mut all =
        vec!["--listen", &listen, "--server", &server, "--accept-proxy", &trusted, "--check", "none"];
    all.extend(flags);
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &all)?;
    let sections = format!("listen front\n  bind {front}\n  server us {ours} {sent}\n");
    Ok((haproxy(&lab.balancer, front, &sections)?, daemon))
}

fn between_haproxy_and_nginx() -> Result<()> {
    for (sent, flag) in
        [("send-proxy", "v2"), ("send-proxy-v2", "v1"), ("send-proxy-v2 proxy-v2-options crc32c", "v2")]
    {
        let lab = Lab::star().servers(1).build()?;
        let _origin = nginx(&lab)?;
        let flags = ["--send-proxy", flag, "--forwarded", "x-forwarded-for"];
        let (_haproxy, daemon) = chain(&lab, sent, &flags)?;
        let (client, front) = (lab.client(), lab.client().gateway_at(80));
        let answer = http::get(&client.ns, None, front, "/", &[("X-Forwarded-Proto", "https")])?.text();
        let address = client.address();
        ensure!(answer.starts_with(&format!("proxy={address} xff={address}|http|")), "{sent}: {answer}");
        ensure!(answer.trim_end().ends_with("|80"), "the port that the client connected to: {answer}");
        // From the client itself, who is trusted by nobody, a header is no request.
        let mut direct = http::Connection::open(&client.ns, None, client.gateway_at(8001))?;
        direct.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        ensure!(direct.receive()?.status == 400);
        ensure!(daemon.show(&["info"])?["bad_proxy_headers"] == 0);
    }
    Ok(())
}

fn before_haproxy() -> Result<()> {
    for flag in ["v1", "v2"] {
        let lab = Lab::star().servers(1).build()?;
        let (client, host) = (lab.client(), lab.server(1));
        let at = host.at(8080);
        let sections = format!(
            "frontend origin\n  bind {at} accept-proxy\n  http-request return status 200 content-type text/plain \
             lf-string \"client=%ci\"\n"
        );
        let _origin = haproxy(&host.ns, at, &sections)?;
        let (listen, server) = (client.gateway_at(80).to_string(), format!("s1={at}"));
        let flags = ["--listen", &listen, "--server", &server, "--send-proxy", flag, "--check", "http=/"];
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
        wait_until(PATIENCE, "a check that has a PROXY header too", || {
            daemon.server("s1").is_ok_and(|row| row["health"] == "up")
        })?;
        let answer = http::get(&client.ns, None, client.gateway_at(80), "/", &[])?.text();
        ensure!(answer.trim_end() == format!("client={}", client.address()), "{flag}: {answer}");
    }
    Ok(())
}

fn tcp_between_haproxy_and_nginx() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let _origin = nginx(&lab)?;
    let (_haproxy, daemon) =
        chain(&lab, "send-proxy", &["--mode", "tcp", "--persist", "source", "--send-proxy", "v2"])?;
    let client = lab.client();
    let answer = http::get(&client.ns, None, client.gateway_at(80), "/", &[])?.text();
    ensure!(answer.starts_with(&format!("proxy={} ", client.address())), "{answer}");
    ensure!(daemon.affinity("source", &client.address().to_string())?.as_deref() == Some("s1"));
    Ok(())
}
