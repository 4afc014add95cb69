//! Ten thousand clients that say nothing: what they cost.

#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what its modules share")]

#[expect(dead_code, reason = "only the tests of the page are operators")]
mod daemon;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use daemon::Daemon;
use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const CLIENTS: u64 = 10_000;
/// With fewer the rest of the process would hide what each costs.
const FEWEST: u64 = 2000;
/// Memory of the whole process without what is mapped from its file, in bytes: the code of an unoptimised build is
/// several times that of the one that is used.
const MOST_MEMORY: u64 = 60 * 1000 * 1000;
/// Descriptors that are not for clients, here and in the balancer. It keeps some for servers, too, and says how many
/// clients it takes.
const OTHERS: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let clients = most_clients();
    let name = "ten_thousand_idle_clients_take_less_than_60_MB";
    let is_missing = clients < FEWEST;
    // Where results count and root could have raised the limit, a test that did not run has failed.
    let must_run = std::env::var_os("CI").is_some() && nix::unistd::Uid::effective().is_root();
    if is_missing {
        eprintln!("{name}: the limit of descriptors allows {clients} only");
    }
    let trial = Trial::test(name, move || if is_missing { Err("too few".into()) } else { idle(clients) });
    let trial = trial.with_ignored_flag(is_missing && !must_run);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

/// How many clients this host allows, after the limit has been raised as far as it goes. The children inherit it.
fn most_clients() -> u64 {
    let wanted = 2 * CLIENTS + OTHERS;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // Only a privileged process may raise the hard limit.
    if setrlimit(Resource::RLIMIT_NOFILE, hard.max(wanted), hard.max(wanted)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    soft.saturating_sub(OTHERS).min(CLIENTS)
}

fn idle(count: u64) -> Result<(), libtest_mimic::Failed> {
    let daemon = Daemon::start(&format!("idle-{}", std::process::id()), origin(), &[]);
    let count = count.min(daemon.most_clients);
    let at_rest = resident(daemon.pid());
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(daemon.address)?;
        client.set_read_timeout(Some(PATIENCE))?;
        ask(&mut client)?;
        clients.push(client);
    }
    let resident = resident(daemon.pid());
    let each = resident.saturating_sub(at_rest) / count;
    let all = at_rest + each * CLIENTS;
    let words = format!(
        "{} kB resident, {} kB with {count} idle clients: {each} bytes each, {} kB with {CLIENTS}",
        at_rest / 1000,
        resident / 1000,
        all / 1000
    );
    println!("{words}");
    // They are idle, not forgotten.
    for client in clients.iter_mut().step_by(100) {
        ask(client)?;
    }
    if all > MOST_MEMORY { Err(words.into()) } else { Ok(()) }
}

/// One request and its answer.
fn ask(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = [0; ANSWER.len()];
    client.read_exact(&mut answer)?;
    assert_eq!(String::from_utf8_lossy(&answer), ANSWER);
    Ok(())
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that answers with [`ANSWER`] and keeps its connections; it lives as long as this program.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut request = [0; 1024];
                while stream.read(&mut request).is_ok_and(|count| request[..count].ends_with(b"\r\n\r\n")) {
                    if stream.write_all(ANSWER.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The smallest figure within a second: what is freed is not given back at once.
fn resident(process: u32) -> u64 {
    let start = Instant::now();
    let mut least = u64::MAX;
    while start.elapsed() < Duration::from_secs(1) {
        least = least.min(resident_now(process));
        thread::sleep(Duration::from_millis(50));
    }
    least
}

fn resident_now(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("running");
    let kilobytes = |name: &str| {
        let figure = status.lines().find_map(|line| line.strip_prefix(name)).expect("a figure");
        figure.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    (kilobytes("RssAnon:") + kilobytes("RssShmem:")) * 1024
}
