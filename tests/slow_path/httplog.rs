//! `--log-format haproxy` beside `option httplog`: what both say of the same requests.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use balancer::config::LogFormat;
use balancer::server::Operator;
use xtask::privilege::find_program;

use super::balancer::{Balancer, Builder, cookie};
use super::client::Client;
use super::haproxy::Haproxy;
use super::origin::{Origin, refusing};

const SHORT: Duration = Duration::from_secs(2);
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What both must agree on: addresses, dates and the exact time are nobody's fault.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    frontend: String,
    server: String,
    /// Of head, queue, connection, answer and all: none, short or long.
    times: Vec<&'static str>,
    status: String,
    cookies: String,
    ending: String,
    /// Retries, and the places in the queues. Other tests of this process have clients too.
    retries: String,
    queues: String,
    request: String,
}

/// Of a line without what syslog puts before it.
fn parse(line: &str) -> Line {
    let (fields, request) = line.trim_end().split_once('"').unwrap_or_else(|| panic!("no request: {line:?}"));
    let fields: Vec<_> = fields.split_whitespace().collect();
    let [
        client,
        date,
        frontend,
        server,
        times,
        status,
        bytes,
        request_cookie,
        answer_cookie,
        ending,
        load,
        queues,
    ] = fields[..]
    else {
        panic!("{} fields: {line:?}", fields.len());
    };
    assert!(client.starts_with("127.0.0.1:"), "{line}");
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let month = date.get(4..7).unwrap_or_default();
    assert_eq!(shape, format!("[00/{month}/0000:00:00:00.000]"), "{line}");
    let load: Vec<_> = load.split('/').collect();
    assert_eq!(load.len(), 5, "{line}");
    assert!(load[..4].iter().all(|count| count.parse::<u64>().is_ok()), "{line}");
    // On the wire here; as it keeps them there, and none of the answers that it makes of nonsense.
    assert!(bytes.parse::<u64>().is_ok(), "{line}");
    Line {
        frontend: frontend.into(),
        server: server.into(),
        times: times.split('/').map(length).collect(),
        status: status.into(),
        cookies: format!("{request_cookie}{answer_cookie}"),
        ending: ending.into(),
        retries: load[4].into(),
        queues: queues.into(),
        request: request.into(),
    }
}

fn length(time: &str) -> &'static str {
    match time.parse::<i64>().expect("milliseconds") {
        -1 => "none",
        0..800 => "short",
        _ => "long",
    }
}

/// How a client is served.
type Story = fn(&mut Client);

/// What makes the two services of a story.
struct Setting {
    origins: Vec<Origin>,
    is_refusing: bool,
    is_in_maintenance: bool,
    with_cookie: bool,
}

impl Setting {
    fn answering(head: &'static str) -> Self {
        Self::of(Origin::answering(move |_| head.into()))
    }

    fn of(origin: Origin) -> Self {
        Self { origins: vec![origin], is_refusing: false, is_in_maintenance: false, with_cookie: true }
    }

    fn ours(&self) -> Balancer {
        let methods = if self.with_cookie { vec![cookie()] } else { Vec::new() };
        let address = if self.is_refusing { refusing() } else { self.origins[0].address };
        let balancer = Builder::new(methods)
            .server(address)
            .retries(1)
            .log_format(LogFormat::Haproxy)
            .timeouts(|timeouts| {
                (timeouts.server, timeouts.client, timeouts.request) = (SHORT, SHORT, SHORT);
            })
            .start();
        if self.is_in_maintenance {
            balancer.service.servers.set_operator(0, Operator::Maint);
        }
        balancer
    }

    fn haproxys(&self) -> Option<Haproxy> {
        let address = if self.is_refusing { refusing() } else { self.origins[0].address };
        let mut lines = vec![
            "option redispatch".to_owned(),
            "retries 1".to_owned(),
            "timeout server 2s".to_owned(),
            "timeout client 2s".to_owned(),
            "timeout http-request 2s".to_owned(),
            format!("server s1 {address} cookie s1 {}", if self.is_in_maintenance { "disabled" } else { "" }),
        ];
        if self.with_cookie {
            lines.push("cookie SRV insert indirect".to_owned());
        }
        Haproxy::start_logging(&lines, "option httplog")
    }
}

/// The lines that a story leaves with both, `count` of them each. Nothing of HAProxy's where it is not installed.
fn tell(setting: &Setting, count: usize, story: Story) -> Vec<(Line, Option<Line>)> {
    let balancer = setting.ours();
    story(&mut balancer.client());
    let haproxy = setting.haproxys();
    if let Some(haproxy) = &haproxy {
        story(&mut Client::connect(haproxy.address));
    }
    (0..count)
        .map(|number| {
            let line = balancer.log_line(number);
            let (prefix, ours) = line.split_once("]: ").expect("a sender");
            assert!(prefix.contains(&format!(" balancer[{}", std::process::id())), "{line}");
            assert_eq!(prefix.split_whitespace().count(), 5, "halog counts the words: {line}");
            let theirs = haproxy.as_ref().map(|haproxy| {
                let mut line = haproxy.log_line();
                // It says when it starts, too.
                while !line.contains('"') {
                    line = haproxy.log_line();
                }
                parse(&line)
            });
            let ours = parse(ours);
            (ours, theirs)
        })
        .collect()
}

/// Both say the same.
fn agree(setting: &Setting, count: usize, story: Story) -> Vec<Line> {
    let told = tell(setting, count, story);
    for (ours, theirs) in &told {
        if let Some(theirs) = theirs {
            let mut ours = ours.clone();
            ours.frontend.clone_from(&theirs.frontend);
            assert_eq!(ours, *theirs, "ours, HAProxy's");
        }
    }
    told.into_iter().map(|(ours, _)| ours).collect()
}

#[test]
fn requests_that_go_well_have_the_line_of_haproxy() {
    let lines = agree(&Setting::answering(ANSWER), 3, |client| {
        client.get("/new?a=b");
        client.get_with("/known", "Cookie: SRV=s1\r\n");
        client.get_with("/unknown", "Cookie: SRV=s9\r\n");
    });
    let endings: Vec<_> = lines.iter().map(|line| line.ending.as_str()).collect();
    assert_eq!(endings, ["--NI", "--VN", "--II"]);
    assert_eq!(lines[0].request, "GET /new?a=b HTTP/1.1\"");
}

#[test]
fn a_slow_answer_is_the_servers_time() {
    let origin = Origin::answering(|_| {
        thread::sleep(Duration::from_millis(1200));
        ANSWER.into()
    });
    let lines = agree(&Setting { with_cookie: false, ..Setting::of(origin) }, 1, |client| {
        client.get("/");
    });
    assert_eq!(lines[0].times, ["short", "short", "short", "long", "long"]);
    assert_eq!((&*lines[0].ending, &*lines[0].cookies), ("----", "--"));
}

#[test]
fn whose_doing_a_failure_was_is_told_as_by_haproxy() {
    let get: Story = |client| {
        client.get("/");
    };
    let to_the_end: Story = |client| {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        client.rest_of_any_end();
    };
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello";
    let table: [(&str, Setting, Story, &str); 6] = [
        ("silent", Setting::of(Origin::silent()), get, "sHNN"),
        ("closing", Setting::of(Origin::saying_and_closing("")), get, "SHNN"),
        ("half a head", Setting::of(Origin::saying_and_closing("HTTP/1.1 200 OK\r\nCont")), get, "SHNN"),
        ("nonsense", Setting::of(Origin::saying_and_closing("NOT HTTP\r\n\r\n")), get, "PHNN"),
        ("cut", Setting::of(Origin::saying_and_closing(cut)), to_the_end, "SDNI"),
        ("stalling", Setting::answering(cut), to_the_end, "sDNI"),
    ];
    for (name, setting, story, ending) in table {
        let lines = agree(&setting, 1, story);
        assert_eq!(lines[0].ending, ending, "{name}");
    }
}

#[test]
fn what_is_no_request_has_no_server() {
    let table: [(Story, &str, &str); 3] = [
        (
            |client| {
                client.send("GET / HTTP/1.1\r\nHost: test\r\nBad Name: x\r\n\r\n");
                client.rest_of_any_end();
            },
            "400",
            "PR--",
        ),
        (
            |client| {
                client.send("GET / HTTP/1.1\r\nHo");
                client.rest_of_any_end();
            },
            "408",
            "cR--",
        ),
        (
            |client| {
                client.send("GET / HTTP/1.1\r\nHo");
                client.0.stream.shutdown(std::net::Shutdown::Write).expect("shut down");
                client.rest_of_any_end();
            },
            "400",
            "CR--",
        ),
    ];
    for (story, status, ending) in table {
        let lines = agree(&Setting::answering(ANSWER), 1, story);
        assert_eq!((&*lines[0].status, &*lines[0].ending), (status, ending));
        assert!(lines[0].server.ends_with("/<NOSRV>"), "{lines:?}");
        assert_eq!(lines[0].request, "<BADREQ>\"");
    }
}

#[test]
fn nobody_to_ask_is_told_as_by_haproxy() {
    let story: Story = |client| assert_eq!(client.get("/").status(), 503);
    let setting = Setting { is_in_maintenance: true, with_cookie: false, ..Setting::answering(ANSWER) };
    let lines = agree(&setting, 1, story);
    assert_eq!((&*lines[0].server, &*lines[0].ending), ("web/<NOSRV>", "SC--"));
    let setting = Setting { is_refusing: true, with_cookie: false, ..Setting::answering(ANSWER) };
    for (mut ours, theirs) in tell(&setting, 1, story) {
        assert_eq!((&*ours.ending, &*ours.retries), ("SC--", "1"));
        let Some(theirs) = theirs else { continue };
        // The pause between two attempts is a wait here and there; HAProxy's is longer.
        assert_eq!((ours.times[1], theirs.times[1]), ("short", "long"));
        ours.times.clone_from(&theirs.times);
        assert_eq!(ours, theirs);
    }
}

#[test]
fn halog_reads_it() {
    let Some(halog) = find_program("halog") else {
        assert!(std::env::var_os("CI").is_none(), "halog is missing: it comes with haproxy");
        return eprintln!("halog is not installed: nothing was read");
    };
    let setting = Setting::answering(ANSWER);
    let balancer = setting.ours();
    let mut client = balancer.client();
    (0..3).for_each(|_| drop(client.get("/\"x\"?y")));
    client.send("nonsense\r\n\r\n").rest_of_any_end();
    balancer.log_line(3);
    let log = fs::read(&balancer.log_path).expect("log");
    let read = |option: &str| {
        let mut child = Command::new(&halog)
            .args(["-H", option])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("halog");
        child.stdin.take().expect("piped").write_all(&log).expect("written");
        let output = child.wait_with_output().expect("halog");
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (statuses, said) = read("-st");
    assert!(statuses.contains("200 3") && statuses.contains("400 1"), "{statuses}{said}");
    let (servers, _) = read("-srv");
    assert!(servers.contains("web/s1"), "{servers}");
    let (endings, _) = read("-tc");
    assert!(endings.contains("-- 3") && endings.contains("PR 1"), "{endings}");
}
