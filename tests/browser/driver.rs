//! Chromedriver and its one browser: processes of ours.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::lab::process::Group;
use xtask::lab::wait_for;
use xtask::privilege::find_program;

use super::wire;

/// For a browser to start, on a machine that is busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Nothing of the world, and nothing that takes time. With the pipe a browser ends when its driver does, however that was.
const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
];

/// Why there can be no browser.
pub fn missing() -> Option<String> {
    let missing = |name: &&str| find_program(name).is_none();
    let program = ["chromedriver", "chromium"].into_iter().find(missing)?;
    Some(format!("needs {program}: cargo xtask setup"))
}

/// A session. Dropped from top to bottom: the profile is left by its users before it goes.
pub struct Driver {
    processes: Processes,
    address: SocketAddr,
    session: String,
    _home: TempDir,
}

impl Driver {
    pub fn start() -> Self {
        let home = TempDir::new().expect("a folder");
        let output = home.path().join("chromedriver.log");
        let mut command = Command::new(find_program("chromedriver").expect("chromedriver"));
        command.arg("--port=0").stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(File::create(&output).expect("a file"));
        // Reports of crashes, caches and its own folders belong there, too, and no proxy stands between us.
        command.env("HOME", home.path()).env_remove("http_proxy").env_remove("HTTP_PROXY");
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR"] {
            command.env(name, home.path());
        }
        let processes = Processes::start(command);
        let port: u16 = wait_for(START_LIMIT, "chromedriver to listen", || {
            let text = std::fs::read_to_string(&output)?;
            Ok(text
                .split_once("successfully on port ")
                .and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok()))
        })
        .expect("it starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let answer = wire::post(address, "/session", &capabilities(&home)).expect("a session");
        let session = answer["sessionId"].as_str().expect("a name").to_owned();
        Self { processes, address, session, _home: home }
    }

    /// What a command of the session answers.
    pub fn post(&self, command: &str, parameters: &Value) -> Value {
        wire::post(self.address, &format!("/session/{}/{command}", self.session), parameters).unwrap_or_else(
            |error| panic!("{command} {parameters} (driver {}): {error}", self.processes.0.pid()),
        )
    }
}

fn capabilities(home: &TempDir) -> Value {
    let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
    flags.push(format!("--user-data-dir={}", home.path().join("profile").display()));
    // The sandbox of root would be none.
    flags.extend(Uid::effective().is_root().then(|| "--no-sandbox".to_owned()));
    let chrome = json!({ "binary": find_program("chromium").expect("chromium"), "args": flags });
    let logs = json!({ "browser": "ALL", "performance": "ALL" });
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome", "goog:chromeOptions": chrome, "goog:loggingPrefs": logs,
        "timeouts": { "script": 30_000, "pageLoad": 30_000 },
    } } })
}

/// The driver and all that it starts.
struct Processes(Group);

impl Processes {
    fn start(command: Command) -> Self {
        // What outlives its parent becomes our child: only so can it be waited for.
        set_child_subreaper(true).expect("a plain call");
        Self(Group::start(command).expect("chromedriver starts"))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.pid().cast_signed());
        self.0.kill();
        // All of them were killed; the folder can go when all of them have gone.
        while waitpid(Pid::from_raw(-group.as_raw()), None).is_ok() {}
    }
}
