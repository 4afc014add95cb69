//! The laboratory itself: what it promises to tests, and that it leaves nothing behind.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::origin::Origin;
use xtask::lab::wrk::Load;
use xtask::lab::{self, Lab, wait_until};

const SOON: Duration = Duration::from_secs(5);

type Story = fn() -> Result<()>;

const STORIES: &[(&str, Story)] = &[
    ("an_origin_tells_who_asked", an_origin_tells_who_asked),
    ("a_connection_is_kept_and_closed_as_asked", a_connection_is_kept_and_closed_as_asked),
    ("an_origin_reads_bodies", an_origin_reads_bodies),
    ("nginx_serves_logs_and_stores", nginx_serves_logs_and_stores),
    ("each_client_host_has_its_own_link", each_client_host_has_its_own_link),
    ("load_is_measured", load_is_measured),
    ("nothing_is_left", nothing_is_left),
    ("a_panic_leaves_nothing_either", a_panic_leaves_nothing_either),
];

fn main() -> ExitCode {
    lab::origin::play_if_asked();
    let arguments = Arguments::from_args();
    let unavailable = lab::unavailable();
    if let Some(reason) = &unavailable {
        eprintln!("ignored: {reason}");
    }
    let trial = |&(name, story): &(&str, Story)| {
        let run = move || story().map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, run).with_ignored_flag(unavailable.is_some())
    };
    libtest_mimic::run(&arguments, STORIES.iter().map(trial).collect()).exit_code()
}

fn an_origin_tells_who_asked() -> Result<()> {
    let lab = Lab::star().client_addresses(2).servers(1).build()?;
    let server = lab.server(1);
    let origin = Origin::start(&server.ns, server.at(8080), "s1")?;
    let second = lab.client().addresses[1];
    let answer = http::get(&lab.client().ns, Some(second), origin.address, "/", &[("Cookie", "SRV=x")])?;
    ensure!(answer.header("x-server") == Some("s1"), "{answer:?}");
    ensure!(answer.peer().is_some_and(|peer| peer.ip() == second), "{}", answer.text());
    ensure!(answer.word("cookie").as_deref() == Some("SRV=x"), "{}", answer.text());

    origin.child.kill();
    ensure!(
        http::get(&lab.client().ns, None, origin.address, "/", &[]).is_err(),
        "killed, and still answers"
    );
    Ok(())
}

fn a_connection_is_kept_and_closed_as_asked() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let origin = Origin::start(&lab.server(1).ns, lab.server(1).at(8080), "s1")?;
    let mut connection = Connection::open(&lab.client().ns, None, origin.address)?;
    let first = connection.get("/bytes/70000", &[])?;
    let second = connection.get("/chunked/70000", &[])?;
    ensure!(first.body.len() == 70_000 && second.body == first.body, "bodies differ");
    ensure!(connection.request("HEAD", "/", &[], b"")?.body.is_empty(), "HEAD has a body");
    ensure!(connection.get("/status/503", &[])?.status == 503, "not the status asked for");
    let cookie = connection.get("/set-cookie?JS=1", &[])?;
    ensure!(cookie.header("Set-Cookie") == Some("JS=1; Path=/"), "{cookie:?}");
    connection.get("/", &[("Connection", "close")])?;
    ensure!(connection.is_closed_by_peer(), "still open");
    Ok(())
}

fn an_origin_reads_bodies() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let origin = Origin::start(&lab.server(1).ns, lab.server(1).at(8080), "s1")?;
    let mut connection = Connection::open(&lab.client().ns, None, origin.address)?;
    let answer = connection.request("POST", "/", &[], &[b'x'; 100_000])?;
    ensure!(answer.word("received").as_deref() == Some("100000"), "{}", answer.text());
    connection.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
    connection.send(b"a\r\n0123456789\r\n0\r\n\r\n")?;
    let answer = connection.receive()?;
    ensure!(answer.word("received").as_deref() == Some("13"), "{}", answer.text());
    Ok(())
}

fn nginx_serves_logs_and_stores() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let nginx = Nginx::start(&lab.server(1).ns, lab.server(1).at(80), "s1")?;
    let mut connection = Connection::open(&lab.client().ns, None, nginx.address)?;
    ensure!(connection.get("/13", &[("Cookie", "a=b")])?.body.len() == 13, "not 13 bytes");
    ensure!(connection.get("/100k", &[])?.body.len() == 100 << 10, "not 100 KiB");
    let answer = connection.get("/", &[])?;
    ensure!(answer.peer() == Some(connection.local_addr()?), "{}", answer.text());
    ensure!(answer.header("X-Server") == Some("s1"), "{answer:?}");
    wait_until(SOON, "three lines in the log", || nginx.requests().len() == 3)?;
    let first = &nginx.requests()[0];
    ensure!(first.line == "GET /13 HTTP/1.1" && first.cookie == "a=b", "{first:?}");

    let body = vec![b'u'; 200_000];
    ensure!(connection.request("PUT", "/upload/file", &[], &body)?.status == 201, "PUT refused");
    ensure!(nginx.uploaded("file")? == body, "stored something else");
    let answer = connection.request("POST", "/upload", &[], &body)?;
    ensure!(answer.word("received").as_deref() == Some("200000"), "{}", answer.text());
    Ok(())
}

fn each_client_host_has_its_own_link() -> Result<()> {
    let lab = Lab::star().clients(2).servers(1).mtu(1400).build()?;
    ensure!(lab.clients[1].interface == "c2", "{}", lab.clients[1].interface);
    // A listener of the test itself, in the balancer's namespace.
    let listener = lab.balancer.run(|| TcpListener::bind("0.0.0.0:80"))??;
    let mut connection = Connection::open(&lab.clients[1].ns, None, lab.clients[1].gateway_at(80))?;
    let (mut accepted, from) = listener.accept()?;
    ensure!(from.ip() == lab.clients[1].address(), "{from}");
    accepted.write_all(b"HTTP/1.1 204 No\r\n\r\n")?;
    ensure!(connection.receive()?.status == 204, "not the answer sent");
    let features = lab.client().ns.output("ethtool", &["-k", "eth0"])?;
    ensure!(features.contains("tx-checksumming: off"), "{features}");
    ensure!(features.contains("generic-receive-offload: on"), "{features}");
    ensure!(
        lab.balancer.output("ip", &["link", "show", "c1"])?.contains("mtu 1400"),
        "not the MTU asked for"
    );
    Ok(())
}

fn load_is_measured() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let origin = Origin::start(&lab.server(1).ns, lab.server(1).at(8080), "s1")?;
    let url = format!("http://{}/bytes/13", origin.address);
    let load = Load { url, headers: vec!["Cookie: SRV=s1".into()], connections: 64, seconds: 1, core: None };
    let figures = load.run(&lab.client().ns)?;
    eprintln!("origin: {:.0} requests/s, p99 {:?}", figures.rate, figures.p99);
    ensure!(figures.requests > 1000 && figures.refused == 0 && figures.broken == 0, "{figures:?}");
    Ok(())
}

fn nothing_is_left() -> Result<()> {
    let lab = Lab::star().build()?;
    let names: Vec<String> = [&lab.client().ns, &lab.balancer].map(|ns| ns.name().to_owned()).into();
    let file = lab.balancer.fresh_path("file");
    fs::write(&file, "")?;
    // What is pinned for this namespace goes with it, of whatever schema.
    let pins = Path::new("/sys/fs/bpf/balancer/v999").join(lab.balancer.cookie().to_string());
    fs::create_dir_all(pins.join("demo"))?;
    // A shell that leaves a child behind which would outlive it, out of reach of its process group.
    let shell = lab.balancer.command("sh").args(["-c", "setsid sleep 100 & echo $!; sleep 100"]).spawn()?;
    wait_until(SOON, "the shell to start its child", || shell.stdout().ends_with('\n'))?;
    let orphan = shell.stdout().trim().to_owned();
    let pids = [shell.pid().to_string(), orphan];

    drop(lab);
    for name in &names {
        ensure!(!Path::new("/run/netns").join(name).exists(), "{name} is still there");
    }
    ensure!(!pins.exists() && !file.exists(), "pins or files are still there");
    for pid in &pids {
        wait_until(SOON, "its processes to be gone", || !is_alive(pid))?;
    }
    fs::remove_dir("/sys/fs/bpf/balancer/v999")?;
    Ok(())
}

fn a_panic_leaves_nothing_either() -> Result<()> {
    let (sender, names) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let lab = Lab::star().servers(0).build().map_err(|error| error.to_string());
        let name = lab.as_ref().map(|lab| lab.balancer.name().to_owned());
        let _ = sender.send(name.map_err(Clone::clone));
        panic!("on purpose");
    })
    .join();
    ensure!(panicked.is_err(), "did not panic");
    let name = names.recv()?.map_err(anyhow::Error::msg)?;
    ensure!(!Path::new("/run/netns").join(&name).exists(), "{name} is still there");
    Ok(())
}

/// A zombie has ended; it waits for a parent that may not care.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| state != 'Z')
}
