//! What people have for HAProxy, unmodified, on the admin socket of the balancer; and HAProxy itself beside it, so that the
//! same load leaves the same numbers.

mod beside;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::nginx::Nginx;
use xtask::lab::wait::wait_for_port;
use xtask::lab::wrk::Load;
use xtask::lab::{Daemon, Lab, http, wait_until};
use xtask::privilege::find_program;

use crate::site::{BALANCER, PATIENCE, start_servers, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hatop_shows_every_server_and_obeys", hatop),
        trial("the_prometheus_exporter_for_haproxy_reads_us", exporter),
        trial("socat_one_liners_work", socat),
        trial("the_official_parser_reads_our_metrics_while_there_is_load", parsed_under_load),
        trial("what_is_switched_off_and_on_is_so_in_haproxy_too", beside::same_switches),
        trial("the_same_load_leaves_the_numbers_that_haproxy_has", beside::same_numbers),
    ]
}

/// Two servers and a balancer that checks them, all of it known to be well.
struct Service {
    daemon: Daemon,
    _servers: Vec<Nginx>,
    lab: Lab,
}

impl Service {
    fn start() -> Result<Self> {
        let lab = Lab::star().servers(2).build()?;
        let servers = start_servers(&lab)?;
        let listen = lab.client().gateway_at(80).to_string();
        let named = [1, 2].map(|n| format!("s{n}={}", lab.server(n).at(8080)));
        let flags = ["--listen", &listen, "--server", &named[0], "--server", &named[1], "--workers", "1"];
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
        wait_until(PATIENCE, "the first checks", || {
            ["s1", "s2"].iter().all(|name| daemon.server(name).is_ok_and(|row| row["health"] == "up"))
        })?;
        Ok(Self { daemon, _servers: servers, lab })
    }

    fn ask(&self, count: usize) -> Result<()> {
        let front = self.lab.client().gateway_at(80);
        for _ in 0..count {
            let answer = http::get(&self.lab.client().ns, None, front, "/", &[])?;
            ensure!(answer.status == 200, "{}", answer.status);
        }
        Ok(())
    }
}

fn needed(program: &str) -> Result<std::path::PathBuf> {
    find_program(program).with_context(|| format!("{program} is missing: cargo xtask setup"))
}

fn hatop() -> Result<()> {
    let service = Service::start()?;
    service.ask(4)?;
    let line = format!("{} -i 1 -s {}", needed("hatop")?.display(), service.daemon.admin().display());
    let mut screen = Screen::start(&line)?;
    screen.wait_for("s1")?;
    screen.wait_for("s2")?;
    for name in ["web", "FRONTEND", "BACKEND", "UP"] {
        ensure!(screen.text().contains(name), "{name} is not on the screen: {}", screen.text());
    }
    // Through its modes: traffic, HTTP, errors, and the command line.
    for mode in ["TRAFFIC", "HTTP", "ERRORS", "CLI"] {
        screen.forget();
        screen.press("\t")?;
        screen.wait_for(mode)?;
    }
    screen.press("disable server web/s2\r")?;
    wait_until(PATIENCE, "s2 in maint", || {
        service.daemon.server("s2").is_ok_and(|row| row["state"] == "maint")
    })?;
    screen.forget();
    // Back to the first mode, which shows what has come of it.
    screen.press("\u{1b}1")?;
    screen.wait_for("MAINT")?;
    screen.press("q")?;
    screen.ended()
}

/// A terminal, and a program on it.
struct Screen {
    child: std::process::Child,
    shown: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Screen {
    fn start(line: &str) -> Result<Self> {
        let mut command = Command::new(needed("script")?);
        // `script` has no terminal to take a size from.
        command.args(["-qefc", &format!("stty rows 40 cols 132; exec {line}"), "/dev/null"]);
        command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let shown = std::sync::Arc::<std::sync::Mutex<Vec<u8>>>::default();
        let (mut output, there) = (child.stdout.take().context("piped")?, shown.clone());
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                there.lock().expect("nobody panics holding it").extend_from_slice(&piece[..count]);
            }
        });
        Ok(Self { child, shown })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("nobody panics holding it")).into_owned()
    }

    fn forget(&self) {
        self.shown.lock().expect("nobody panics holding it").clear();
    }

    fn wait_for(&self, part: &str) -> Result<()> {
        wait_until(PATIENCE, part, || self.text().contains(part))
            .with_context(|| format!("on the screen is {:?}", self.text()))
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        use std::io::Write;
        let input = self.child.stdin.as_mut().context("piped")?;
        input.write_all(keys.as_bytes())?;
        Ok(input.flush()?)
    }

    fn ended(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{status}: {}", self.text());
                return Ok(());
            }
            ensure!(Instant::now() < end, "it has not ended: {:?}", self.text());
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exporter() -> Result<()> {
    let service = Service::start()?;
    service.ask(4)?;
    let (lab, at) = (&service.lab, service.lab.client().gateway_at(9101));
    let scrape = format!("--haproxy.scrape-uri=unix:{}", service.daemon.admin().display());
    let listen = format!("--web.listen-address={at}");
    let exporter =
        lab.balancer.command(needed("prometheus-haproxy-exporter")?).args([&scrape, &listen]).spawn()?;
    wait_for_port(&lab.balancer, at, PATIENCE).with_context(|| exporter.stderr())?;
    service.daemon.set_server("s2", "maint")?;
    let text = http::get(&lab.client().ns, None, at, "/metrics", &[])?.text();
    for line in [
        "haproxy_up 1",
        "haproxy_exporter_csv_parse_failures_total 0",
        "haproxy_frontend_http_requests_total{frontend=\"web\"} 4",
        "haproxy_frontend_connections_total{frontend=\"web\"} 4",
        "haproxy_backend_http_responses_total{backend=\"web\",code=\"2xx\"} 4",
        "haproxy_backend_up{backend=\"web\"} 1",
        "haproxy_server_up{backend=\"web\",server=\"s1\"} 1",
        "haproxy_server_up{backend=\"web\",server=\"s2\"} 0",
        "haproxy_server_sessions_total{backend=\"web\",server=\"s1\"} 2",
        "haproxy_server_http_responses_total{backend=\"web\",code=\"2xx\",server=\"s2\"} 2",
        "haproxy_server_check_failures_total{backend=\"web\",server=\"s1\"} 0",
    ] {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let found: Vec<_> = text.lines().filter(|found| found.starts_with(name)).collect();
        ensure!(found.contains(&line), "{line}: {found:?} {}", exporter.stderr());
    }
    Ok(())
}

/// As they stand in people's scripts.
fn socat() -> Result<()> {
    let service = Service::start()?;
    let socket = service.daemon.admin().display();
    needed("socat")?;
    let table = [
        ("echo 'show stat' | socat stdio S | cut -d, -f1,2,18 | grep -c UP", "3\n"),
        (
            "echo 'disable server web/s1' | socat S stdio >/dev/null; echo 'show stat' | socat S stdio | awk -F, '$2==\"s1\" {print $18}'",
            "MAINT\n",
        ),
        (
            "echo 'set server web/s1 state ready; get weight web/s1' | socat - S | tail -n 2 | head -n 1",
            "1 (initial 1)\n",
        ),
        ("echo 'show info' | socat - S | grep -c '^Maxconn: [0-9]'", "1\n"),
        ("printf 'prompt\\nshow backend\\nquit\\n' | socat - S | tr -d '\\n'", "> # nameweb> "),
        ("echo 'show servers state web' | socat - S | awk 'NR>2 && NF {print $4, $6}'", "s1 2\ns2 2\n"),
        (
            "echo 'no such thing' | socat - S | head -n 1 | cut -d: -f1,2",
            "error: unknown command \"no such thing\"; the commands are\n",
        ),
    ];
    for (line, expected) in table {
        let line = line.replace(" S ", &format!(" {socket} ")).replace(" S>", &format!(" {socket}>"));
        let line =
            if line.ends_with(" S") { line[..line.len() - 1].to_owned() + &socket.to_string() } else { line };
        let output = Command::new("sh").args(["-c", &line]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said == expected, "{line}: {said:?} {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Scrapes a URL so many times, each read by the reference parser of OpenMetrics, and sees that no counter goes back. Prints
/// the families and the requests.
const SCRAPER: &str = r#"
import sys, urllib.request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
before, families = {}, 0
for _ in range(int(sys.argv[2])):
    text = urllib.request.urlopen(sys.argv[1], timeout=10).read().decode()
    found = list(parse(text))
    families, now = len(found), {}
    for family in found:
        for sample in family.samples:
            if family.type == 'counter' or sample.name.endswith(('_bucket', '_count', '_sum')):
                now[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    for key, value in before.items():
        assert now[key] >= value, (key, value, now[key])
    before = now
print(families, int(sum(v for (name, _), v in before.items() if name == 'balancer_requests_total')))
"#;

fn parsed_under_load() -> Result<()> {
    let lab = Lab::star().servers(2).build()?;
    let _servers = start_servers(&lab)?;
    let (front, scraped) = (lab.client().gateway_at(80), lab.client().gateway_at(9100));
    let named = [1, 2].map(|n| format!("s{n}={}", lab.server(n).at(8080)));
    let (listen, admin) = (front.to_string(), scraped.to_string());
    let flags = [
        &["--listen", &listen, "--http-admin", &admin, "--server", &named[0], "--server", &named[1]][..],
        &["--persist", "source", "--persist", "cookie=SRV,insert,indirect", "--workers", "1"],
    ];
    let _daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags.concat())?;
    let load =
        Load { url: format!("http://{front}/"), headers: Vec::new(), connections: 8, seconds: 4, core: None };
    let ns = lab.client().ns.clone();
    let load = thread::spawn(move || load.run(&ns));
    let url = format!("http://{scraped}/metrics");
    // Debian's own, whatever other is before it in PATH: the package is for that one.
    let scraper = lab.client().ns.command("/usr/bin/python3").args(["-c", SCRAPER, &url, "40"]);
    let scraper = scraper.output(3 * PATIENCE)?;
    ensure!(scraper.status.success(), "cargo xtask setup brings the parser: {}", scraper.stderr);
    let mut words = scraper.stdout.split_whitespace().map(str::parse::<u64>);
    let mut number = || words.next().context("a number")?.context(scraper.stdout.clone());
    let (families, requests) = (number()?, number()?);
    ensure!(families > 40 && requests > 0, "{families} families, {requests} requests");
    let figures = load.join().expect("the thread")?;
    ensure!(figures.refused == 0 && figures.broken == 0, "{figures:?}");
    Ok(())
}
