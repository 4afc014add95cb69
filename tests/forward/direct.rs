//! `--forward dsr`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Daemon, Lab, Namespace, wait_until};

use crate::site::{BALANCER, Forward, PATIENCE, SOURCE_FIRST, Site, Visit, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("direct_answers_do_not_pass_the_balancer", past_us),
        trial("direct_answers_do_not_pass_the_balancer_over_ipv6", past_us6),
        trial("a_half_closed_request_that_is_answered_directly_gets_its_answer", half_closed),
        trial("dsr_is_refused_where_it_cannot_work", refused),
    ]
}

/// Bytes that an interface has received.
fn received(ns: &Namespace, interface: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/rx_bytes");
    // The files of /sys are those of the namespace in which it was mounted.
    let text =
        ns.output("unshare", &["--mount", "sh", "-c", &format!("mount -t sysfs sysfs /sys && cat {path}")])?;
    text.trim().parse().context("a number")
}

const LENGTH: u64 = 1 << 20;

fn past_us() -> Result<()> {
    let site = Site::open_by(Forward::Dsr, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    expect_past_us(&site.lab, &site.daemon, &home, || site.connect(0))?;
    let mut connection = site.connect(0)?;
    let visit = Visit::of(&connection.get("/", &[])?)?;
    ensure!(visit.fast && visit.peer == connection.local_addr()?, "{visit:?}");
    let log = site.nginx(&home).requests();
    ensure!(log.iter().any(|request| request.peer.ip() == site.address(0)), "{log:?}");
    ensure!(site.daemon.show(&["info"])?["datapath"]["forward"] == "dsr");
    Ok(())
}

fn past_us6() -> Result<()> {
    let lab = Lab::star().servers(1).direct_answers().build()?;
    let any = SocketAddr::from(([0_u16; 8], 80));
    let _nginx = Nginx::start(&lab.server(1).ns, any, "s1")?;
    let front = lab.client().gateway6_at(80);
    let flags = format!(
        "--listen {front} --server s1={} --xdp c1 --xdp s1 --forward dsr --check none --workers 1 --flow-table 32k",
        lab.server(1).at6(80)
    );
    let flags: Vec<&str> = flags.split(' ').chain(SOURCE_FIRST.iter().copied()).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    http::get(&lab.client().ns, None, front, "/", &[])?;
    wait_until(PATIENCE, "the client to be known", || {
        daemon.affinity("source", "2001:db8:10:1::").is_ok_and(|found| found.is_some())
    })?;
    expect_past_us(&lab, &daemon, "s1", || Connection::open(&lab.client().ns, None, front))
}

/// A download is whole at the client, has come by the server's own link, and not by ours.
fn expect_past_us(
    lab: &Lab,
    daemon: &Daemon,
    home: &str,
    connect: impl Fn() -> Result<Connection>,
) -> Result<()> {
    let (ours, theirs) = (home.to_owned(), home.replace('s', "d"));
    let before = (received(&lab.balancer, &ours)?, received(&lab.client().ns, &theirs)?);
    let answer = connect()?.get("/1m", &[])?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let body = answer.body;
    ensure!(body.len() as u64 == LENGTH && body.iter().all(|byte| *byte == b'x'), "{} bytes", body.len());
    let after = (received(&lab.balancer, &ours)?, received(&lab.client().ns, &theirs)?);
    ensure!(after.1 - before.1 >= LENGTH, "{} bytes came by {theirs}", after.1 - before.1);
    ensure!(after.0 - before.0 < LENGTH / 10, "{} bytes came by {ours}", after.0 - before.0);
    ensure!(daemon.counter("syn_forwarded")? >= 1 && daemon.counter("to_client")? == 0);
    Ok(())
}

/// nginx gives up on a client that has closed its half, so this server is our own: it thinks for longer than a flow may idle
/// whose ends have both closed theirs.
fn half_closed() -> Result<()> {
    let lab = Lab::star().servers(1).direct_answers().build()?;
    let listener = lab.server(1).ns.run(|| TcpListener::bind(("0.0.0.0", 80)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || think_and_answer(stream));
        }
    });
    let (client, front) = (&lab.client().ns, lab.client().gateway_at(80));
    let flags = format!(
        "--listen {front} --server s1={} --xdp c1 --xdp s1 --forward dsr --check none --workers 1 --flow-table 32k",
        lab.server(1).at(80)
    );
    let flags: Vec<&str> = flags.split(' ').chain(SOURCE_FIRST.iter().copied()).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    http::get(client, None, front, "/", &[])?;
    wait_until(PATIENCE, "the client to be known", || {
        daemon.affinity("source", &lab.client().address().to_string()).is_ok_and(|found| found.is_some())
    })?;
    let mut connection = Connection::open(client, None, front)?;
    connection.stream().set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.send(b"GET /think HTTP/1.1\r\nHost: x\r\n\r\n")?;
    connection.stream().shutdown(std::net::Shutdown::Write)?;
    let answer = connection.receive()?.body;
    ensure!(answer.len() == THOUGHT && answer.iter().all(|byte| *byte == b't'), "{} bytes", answer.len());
    ensure!(daemon.counter("syn_forwarded")? == 1, "this connection was to be a fast one");
    Ok(())
}

/// More than is sent before anything of it is acknowledged.
const THOUGHT: usize = 8 << 20;

fn think_and_answer(mut stream: TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut request = [0; 1024];
    let length = stream.read(&mut request).unwrap_or(0);
    if request[..length].starts_with(b"GET /think") {
        // The point of the test is that time passes: nothing else could be waited for.
        std::thread::sleep(Duration::from_secs(12));
    }
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {THOUGHT}\r\n\r\n");
    let _ = stream.write_all(&vec![b't'; THOUGHT]);
    // The client acknowledges it while the socket is there.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut request);
}

fn refused() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let (front, server) = (lab.client().gateway_at(80), lab.server(1));
    let run = |at: SocketAddr| -> Result<(Option<i32>, String)> {
        let flags =
            format!("--listen {front} --server s1={at} --xdp c1 --xdp s1 --persist source --forward dsr");
        let admin = lab.balancer.fresh_path("admin.sock");
        let command = lab.balancer.command(BALANCER).args(["run", "--admin"]).arg(&admin);
        let output = command.args(flags.split(' ')).output(PATIENCE)?;
        Ok((output.status.code(), output.stderr))
    };
    let (code, said) = run(server.at(8080))?;
    ensure!(code == Some(2) && said.contains("--forward dsr") && said.contains("--server s1"), "{said}");
    server.ns.output("ip", &["addr", "add", "10.77.0.1/32", "dev", "lo"])?;
    lab.balancer.output("ip", &["route", "add", "10.77.0.1/32", "via", &server.address().to_string()])?;
    let (code, said) = run("10.77.0.1:80".parse()?)?;
    ensure!(
        code == Some(1) && said.contains("--forward dsr") && said.contains("behind the router"),
        "{said}"
    );
    Ok(())
}
