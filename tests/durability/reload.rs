//! One process takes over from another while a request is on its way that will teach it something.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
use balancer::admin::client;
use serde_json::Value;
use tempfile::TempDir;
use xtask::lab::http::{self, Connection, Response};
use xtask::lab::process::copy_program;
use xtask::lab::{Child, Lab, Namespace, wait_until};

use crate::site::{BALANCER, PATIENCE};
use crate::stand::FRONT;

/// Every Linux has this user, who may do nothing.
pub const NOBODY: u32 = 65_534;

pub fn in_the_kernel() -> Result<()> {
    story(0, "kernel")
}

pub fn in_memory() -> Result<()> {
    story(NOBODY, "memory")
}

fn story(user: u32, kind: &str) -> Result<()> {
    let lab = Lab::star().build()?;
    let world = World::open(&lab.balancer, user)?;
    let mut first = world.start(&[])?;
    ensure!(world.ask("show process json")?["tables"] == kind, "{}", first.stderr());
    // A user of s2, which takes nobody new.
    world.tell("set table session=JS key old data.server_key s2")?;
    world.tell("set server s2 drain")?;
    let mut login = Connection::open(&lab.balancer, None, FRONT)?;
    login.send(b"GET /login HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let is_there = world.logins.lock().expect("lock").recv_timeout(PATIENCE);
    is_there.context("no server has the request")?;

    let second = world.start(&["--takeover"])?;
    // New clients are the new one's from here on; the one who waits is still the old one's.
    wait_until(PATIENCE, "the old one to let go", || first.stderr().contains("handed over"))?;
    ensure!(
        world.ask("show process json")?["pid"] == second.pid() && first.is_running(),
        "{}",
        first.stderr()
    );
    ensure!(world.ask("show server s2 json")?["state"] == "drain");
    ensure!(who(&lab, "JS=old")? == "s2", "users stay");
    for n in 0..4 {
        let answered = who(&lab, "")?;
        ensure!(answered == "s1", "{answered} answers newcomer {n}");
    }

    world.go.send(()).context("the server waits")?;
    let answer = login.receive()?;
    ensure!(answer.header("Set-Cookie") == Some("JS=new") && server(&answer)? == "s1", "{answer:?}");
    world.tell("set server s2 ready")?;
    // At once: whoever has just got a session comes back with it.
    wait_until(PATIENCE, "the session to be known", || {
        let rows = world.ask("show table session=JS key new json");
        rows.is_ok_and(|rows| rows[0]["server"] == "s1")
    })?;
    for n in 0..4 {
        let answered = who(&lab, "JS=new")?;
        ensure!(answered == "s1", "request {n} of the new session is answered by {answered}");
    }
    ensure!(first.wait(PATIENCE)?.success() && second.is_running(), "{}", first.stderr());
    ensure!(who(&lab, "JS=new")? == "s1" && who(&lab, "JS=old")? == "s2");
    second.kill();
    Ok(())
}

/// Two servers, and processes in front of them of a user.
pub struct World {
    ns: Namespace,
    user: u32,
    pub folder: TempDir,
    servers: [SocketAddr; 2],
    /// A server has got a request for `/login`, and answers after `go`.
    logins: Mutex<Receiver<()>>,
    go: Sender<()>,
}

impl World {
    pub fn open(ns: &Namespace, user: u32) -> Result<Self> {
        let folder = TempDir::new()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        std::os::unix::fs::chown(folder.path(), Some(user), Some(user))?;
        copy_program(Path::new(BALANCER), &folder.path().join("balancer"))?;
        let ((login, logins), (go, gone)) = (channel(), channel());
        let gone = Arc::new(Mutex::new(gone));
        let listen = |name: &'static str| -> Result<SocketAddr> {
            let listener = ns.run(|| TcpListener::bind("127.0.0.1:0"))??;
            let address = listener.local_addr()?;
            let (login, gone) = (login.clone(), Arc::clone(&gone));
            // Ends with this process: there is nobody left to connect then.
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (login, gone) = (login.clone(), Arc::clone(&gone));
                    thread::spawn(move || serve(stream, name, &login, &gone));
                }
            });
            Ok(address)
        };
        let servers = [listen("s1")?, listen("s2")?];
        Ok(Self { ns: ns.clone(), user, folder, servers, logins: Mutex::new(logins), go })
    }

    fn admin(&self) -> PathBuf {
        self.folder.path().join("web.sock")
    }

    pub fn start(&self, flags: &[&str]) -> Result<Child> {
        let ids =
            [format!("--reuid={}", self.user), format!("--regid={}", self.user), "--clear-groups".into()];
        let command = self.ns.command("setpriv").args(if self.user == 0 { &ids[2..] } else { &ids });
        let command =
            command.arg(self.folder.path().join("balancer")).args(["run", "--name", "web", "--admin"]);
        let command = command.arg(self.admin()).args(["--listen", &FRONT.to_string(), "--check", "none"]);
        let [s1, s2] = self.servers;
        let command = command.args(["--server", &format!("s1={s1}"), "--server", &format!("s2={s2}")]);
        let child = command.args(["--persist", "session=JS"]).args(flags).spawn()?;
        wait_until(PATIENCE, "it to be ready", || child.stderr().contains("ready: "))
            .with_context(|| child.stderr())?;
        Ok(child)
    }

    pub fn ask(&self, line: &str) -> Result<Value> {
        let answer = client::ask("web", &self.admin(), line)?;
        serde_json::from_str(&answer).with_context(|| format!("{line}: {answer}"))
    }

    fn tell(&self, line: &str) -> Result<()> {
        client::ask("web", &self.admin(), line).map(drop).with_context(|| line.to_owned())
    }
}

/// Names itself; says to `login` that somebody wants to, and answers them when told.
fn serve(mut stream: TcpStream, name: &str, login: &Sender<()>, gone: &Mutex<Receiver<()>>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let mut session = "";
        if head.starts_with(b"GET /login ") {
            login.send(()).ok()?;
            gone.lock().ok()?.recv().ok()?;
            session = "Set-Cookie: JS=new\r\n";
        }
        let answer = format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\n{session}Content-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

/// Who answers a request with that cookie. On a connection of its own: the old process may have taken one that came
/// early, and closes it after its next answer.
fn who(lab: &Lab, cookie: &str) -> Result<String> {
    let cookie = [("Cookie", cookie)];
    let headers: &[(&str, &str)] = if cookie[0].1.is_empty() { &[] } else { &cookie };
    server(&http::get(&lab.balancer, None, FRONT, "/", headers)?)
}

fn server(response: &Response) -> Result<String> {
    ensure!(response.status == 200, "status {}", response.status);
    Ok(response.header("X-Server").context("a name")?.to_owned())
}
