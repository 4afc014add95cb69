//! Servers, a balancer in front of them, and a browser that shows its page.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use xtask::lab::process::Group;
use xtask::lab::wait_for;

use crate::browser::{Browser, PATIENCE};
use crate::daemon::Daemon;

/// Checks that notice soon.
pub const CHECKED: &[&str] =
    &["--check", "tcp", "--check-interval", "200ms", "--check-rise", "1", "--check-fall", "1"];
pub const UNCHECKED: &[&str] = &["--check", "none"];

/// Dropped from top to bottom.
pub struct Stage {
    pub browser: Browser,
    pub daemon: Daemon,
    pub origins: Vec<Origin>,
}

impl Stage {
    /// Opens the page of a balancer with so many servers, called s1 and so on.
    pub fn open(servers: usize, flags: &[&str]) -> Self {
        let origins: Vec<Origin> = (1..=servers).map(|number| Origin::start(&format!("s{number}"))).collect();
        let daemon = Self::daemon(&origins, flags);
        let stage = Self { browser: Browser::start(), daemon, origins };
        stage.browser.open(&stage.url());
        stage.browser.until("document.getElementById('ready').textContent === 'ready'");
        stage
    }

    fn daemon(origins: &[Origin], flags: &[&str]) -> Daemon {
        let here: &[&str] =
            if flags.contains(&"--http-admin") { &[] } else { &["--http-admin", "127.0.0.1:0"] };
        start(origins, &[here, flags].concat())
    }

    pub fn admin(&self) -> SocketAddr {
        let admin = self.daemon.http_admin.expect("--http-admin");
        // Where it listens everywhere, it listens here.
        SocketAddr::from(([127, 0, 0, 1], admin.port()))
    }

    pub fn url(&self) -> String {
        format!("http://{}/status", self.admin())
    }

    /// A request through the balancer; header lines end in CR LF.
    pub fn visit(&self, path: &str, headers: &str) -> String {
        exchange(
            self.daemon.address,
            &format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}Connection: close\r\n\r\n"),
        )
    }

    /// Waits until the page has been brought up to date so many times.
    pub fn refreshes(&self, count: u64) {
        const ASKED: &str = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/status.json')).length";
        let before = self.browser.ask(ASKED).as_u64().expect("a number");
        self.browser.until(&format!("{ASKED} >= {}", before + count));
    }

    /// Nothing was asked of anybody else, nothing was forbidden, nothing went wrong. `expected` are parts of complaints.
    pub fn was_quiet(&self, expected: &[&str]) {
        let own = format!("http://{}/", self.admin());
        let requests = self.browser.requests();
        assert!(requests.iter().any(|url| url.ends_with("/status")), "the page itself is seen: {requests:?}");
        let foreign = requests.iter().find(|url| !url.starts_with(&own) && !url.starts_with("data:"));
        assert_eq!(foreign, None);
        let is_unexpected = |text: &String| !expected.iter().any(|part| text.contains(part));
        let complaints: Vec<String> = self.browser.complaints().into_iter().filter(is_unexpected).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }
}

/// A balancer in front of these.
pub fn start(origins: &[Origin], flags: &[&str]) -> Daemon {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("page-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let servers: Vec<String> =
        origins.iter().map(|origin| format!("{}={}", origin.name, origin.address)).collect();
    let servers = servers.iter().flat_map(|server| ["--server", server]);
    Daemon::start_with(&name, &servers.chain(flags.iter().copied()).collect::<Vec<_>>())
}

/// All that is answered to these bytes.
pub fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The laboratory's server, outside of it; killed on drop.
pub struct Origin {
    pub name: String,
    pub address: SocketAddr,
    _process: Group,
}

impl Origin {
    fn start(name: &str) -> Self {
        // It was free a moment ago, and the kernel gives out others first.
        let free = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("address");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["origin", "--listen", &free.to_string(), "--name", name]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Group::start(command).expect("started");
        let is_there = || Ok(Some(TcpStream::connect_timeout(&free, Duration::from_secs(1))?));
        wait_for(PATIENCE, name, is_there).expect("it listens");
        Self { name: name.to_owned(), address: free, _process: process }
    }
}
