//! What a service manager sees and does: the notify socket, the watchdog, socket activation, reload; and what packages bring
//! along. The manager is played by the test, as there is none here, but for its own program that activates sockets.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::collections::VecDeque;
use std::fs::{Permissions, set_permissions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Arguments;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use site::{BALANCER, PATIENCE, trial};
use tempfile::TempDir;
use xtask::lab::http::{self, Connection};
use xtask::lab::nginx::Nginx;
use xtask::lab::{Child, Lab, wait_for, wait_for_port, wait_until};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("ready_is_said_when_servers_have_been_checked", ready),
        trial("a_worker_that_hangs_ends_the_signs_of_life", hanging_worker),
        trial("a_manager_that_does_not_listen_holds_nobody_up", deaf_manager),
        trial("reload_ends_when_the_successor_serves", reload),
        trial("a_reload_that_fails_leaves_everything_as_it_was", failing_reload),
        trial("who_reads_what_reload_says_comes_to_its_end_and_the_log_goes_on_where_it_was", piped_reload),
        trial("a_restart_by_signal_names_the_new_main_process", by_signal),
        trial("a_socket_of_the_managers_is_served_with_who_waits_there", activation),
        trial("a_socket_that_nobody_asked_for_is_refused_with_both_names", foreign_socket),
        trial("the_man_page_is_clean_and_whole", manual),
        trial("a_shell_completes_our_words", completions),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The notify socket's other end.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
    /// Said and not yet asked for.
    heard: VecDeque<String>,
}

impl Manager {
    fn new() -> Result<Self> {
        // Open to everybody, as the manager's is.
        let folder = tempfile::tempdir()?;
        set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let path = folder.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        set_permissions(&path, Permissions::from_mode(0o777))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { socket, path, _folder: folder, heard: VecDeque::new() })
    }

    fn listen(&mut self) {
        let mut message = [0; 1024];
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }

    /// Waits for a line that begins so; what came before it is forgotten. Returns the rest of the line.
    fn expect(&mut self, start: &str) -> Result<String> {
        wait_for(PATIENCE, start, || {
            self.listen();
            while let Some(line) = self.heard.pop_front() {
                if let Some(rest) = line.strip_prefix(start) {
                    return Ok(Some(rest.to_owned()));
                }
            }
            Ok(None)
        })
    }

    /// Whether a line that begins so comes within that time.
    fn hears(&mut self, start: &str, within: Duration) -> bool {
        let begun = Instant::now();
        self.heard.clear();
        while begun.elapsed() < within {
            self.listen();
            if self.heard.iter().any(|line| line.starts_with(start)) {
                return true;
            }
        }
        false
    }
}

/// A daemon under a manager, with a server.
struct Unit {
    manager: Manager,
    child: Child,
    flags: PathBuf,
    admin: PathBuf,
    lab: Lab,
}

impl Unit {
    fn start(lab: Lab, more: &str) -> Result<Self> {
        let manager = Manager::new()?;
        let (flags, admin) =
            (lab.balancer.fresh_path("balancer.conf"), lab.balancer.fresh_path("admin.sock"));
        let text = format!(
            "# As a package has it\n--listen {}\n--server s1={}\n--admin {}\n--check-interval 100ms\n{more}\n",
            lab.client().gateway_at(80),
            lab.server(1).at(8080),
            admin.display()
        );
        std::fs::write(&flags, text)?;
        let child = command(&lab, &manager, "run", &flags).spawn()?;
        Ok(Self { manager, child, flags, admin, lab })
    }

    fn front(&self) -> SocketAddr {
        self.lab.client().gateway_at(80)
    }

    fn reload(&self) -> Result<xtask::lab::process::Output> {
        command(&self.lab, &self.manager, "reload", &self.flags).output(Duration::from_secs(30))
    }

    fn serving(&self) -> Result<i32> {
        let output =
            self.lab.balancer.command(BALANCER).args(["show", "info", "--json", "--admin"]).arg(&self.admin);
        let answer: serde_json::Value = serde_json::from_str(&output.output(PATIENCE)?.stdout)?;
        Ok(answer["pid"].as_i64().context("a pid")? as i32)
    }
}

impl Drop for Unit {
    /// A successor is not our child.
    fn drop(&mut self) {
        if let Ok(pid) = self.serving() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn command(lab: &Lab, manager: &Manager, verb: &str, flags: &Path) -> xtask::lab::Command {
    let file = format!("@{}", flags.display());
    lab.balancer.command(BALANCER).args([verb, &file]).env("NOTIFY_SOCKET", &manager.path)
}

fn lab() -> Result<(Lab, Nginx)> {
    let lab = Lab::star().servers(1).build()?;
    let nginx = Nginx::start(&lab.server(1).ns, lab.server(1).at(8080), "s1")?;
    Ok((lab, nginx))
}

fn ready() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let server = lab.server(1).ns.run(|| TcpListener::bind("0.0.0.0:8080"))??;
    let flags = "--check http=/health\n--check-fall 1\n--check-timeout 20s\n--drain-timeout 90s";
    let mut unit = Unit::start(lab, flags)?;
    ensure!(unit.manager.expect("STATUS=")? == "waiting for the first checks of all servers");
    // The server has been asked and says nothing yet: clients are served, but nothing is known.
    let (mut asked, _) = server.accept()?;
    wait_for_port(&unit.lab.client().ns, unit.front(), PATIENCE)?;
    ensure!(!unit.manager.hears("READY=1", Duration::from_millis(300)), "ready before anything is known");
    asked.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    drop(asked);
    unit.manager.expect("READY=1")?;
    ensure!(unit.manager.expect("MAINPID=")? == unit.child.pid().to_string());
    ensure!(unit.manager.expect("STATUS=")? == "1 of 1 servers up");
    unit.manager.expect("WATCHDOG=1")?;
    unit.child.signal(Signal::SIGHUP)?;
    unit.manager.expect("RELOADING=1")?;
    ensure!(unit.manager.expect("MONOTONIC_USEC=")?.parse::<u64>()? > 0);
    unit.manager.expect("READY=1")?;
    drop(server);
    ensure!(unit.manager.expect("STATUS=")? == "0 of 1 servers up");
    unit.child.signal(Signal::SIGTERM)?;
    unit.manager.expect("STOPPING=1")?;
    // The unit may give less than --drain-timeout.
    let limit = Duration::from_micros(unit.manager.expect("EXTEND_TIMEOUT_USEC=")?.parse()?);
    ensure!((Duration::from_secs(90)..Duration::from_secs(160)).contains(&limit), "{limit:?}");
    ensure!(unit.child.wait(PATIENCE)?.success());
    ensure!(!unit.manager.hears("", Duration::from_millis(200)), "a word from the grave");
    Ok(())
}

/// One thread is stopped, as a loop without an end would.
fn hanging_worker() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let mut unit = Unit::start(lab, "--workers 2")?;
    unit.manager.expect("READY=1")?;
    unit.manager.expect("WATCHDOG=1")?;
    let worker = thread_named(unit.child.pid(), "worker-1")?;
    ptrace::seize(worker, ptrace::Options::empty())?;
    ptrace::interrupt(worker)?;
    waitpid(worker, Some(WaitPidFlag::__WALL))?;
    // One that was on its way.
    unit.manager.hears("WATCHDOG=1", Duration::from_millis(1100));
    ensure!(!unit.manager.hears("WATCHDOG=1", Duration::from_secs(3)), "it claims to live");
    wait_until(PATIENCE, "the log to say so", || {
        unit.child.stderr().contains("worker 1 has shown no sign of life")
    })?;
    ptrace::detach(worker, None)?;
    unit.manager.expect("WATCHDOG=1").map(drop)
}

fn thread_named(pid: u32, name: &str) -> Result<Pid> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        if std::fs::read_to_string(entry.path().join("comm"))?.trim() == name {
            return Ok(Pid::from_raw(entry.file_name().to_string_lossy().parse()?));
        }
    }
    bail!("no thread {name}")
}

fn deaf_manager() -> Result<()> {
    let (lab, _nginx) = lab()?;
    lab.balancer.sysctl("net.unix.max_dgram_qlen", "0")?;
    let path = lab.balancer.fresh_path("notify.sock");
    let socket = lab.balancer.run(|| UnixDatagram::bind(&path))??;
    let (listen, server) = (lab.client().gateway_at(80), format!("s1={}", lab.server(1).at(8080)));
    let flags = ["run", "--listen", &listen.to_string(), "--server", &server, "--admin"].map(str::to_owned);
    let command = lab.balancer.command(BALANCER).args(flags).arg(lab.balancer.fresh_path("admin.sock"));
    let mut child = command.env("NOTIFY_SOCKET", &path).spawn()?;
    wait_until(PATIENCE, "the start-up log", || child.stderr().contains("ready: "))?;
    // Its queue is full when a second thing is said.
    wait_until(PATIENCE, "a thread that waits for the manager", || {
        let waits = |entry: std::io::Result<std::fs::DirEntry>| {
            let place = entry.and_then(|entry| std::fs::read_to_string(entry.path().join("wchan")));
            place.is_ok_and(|place| place.contains("unix_wait_for_peer"))
        };
        std::fs::read_dir(format!("/proc/{}/task", child.pid()))
            .is_ok_and(|tasks| tasks.into_iter().any(waits))
    })?;
    ensure!(http::get(&lab.client().ns, None, listen, "/", &[])?.status == 200);
    child.signal(Signal::SIGTERM)?;
    ensure!(child.wait(PATIENCE)?.success(), "{}", child.stderr());
    drop(socket);
    Ok(())
}

fn reload() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let mut unit = Unit::start(lab, "--user nobody")?;
    unit.manager.expect("READY=1")?;
    let mut kept = Connection::open(&unit.lab.client().ns, None, unit.front())?;
    ensure!(kept.get("/", &[])?.status == 200);
    let first = unit.child.pid().to_string();
    let output = unit.reload()?;
    ensure!(output.status.success(), "{output:?}");
    let second = unit.serving()?.to_string();
    let said = format!("pid {second} has taken over from pid {first}");
    ensure!(second != first && output.stdout.contains(&said), "{output:?}");
    unit.manager.expect("READY=1")?;
    ensure!(unit.manager.expect("MAINPID=")? == second);
    ensure!(kept.get("/", &[])?.status == 200, "the connection that there was");
    ensure!(unit.child.wait(PATIENCE)?.success());
    // Now from the second one alone.
    unit.manager.hears("WATCHDOG=1", Duration::from_millis(100));
    unit.manager.expect("WATCHDOG=1")?;
    ensure!(http::get(&unit.lab.client().ns, None, unit.front(), "/", &[])?.status == 200);
    Ok(())
}

fn failing_reload() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let mut unit = Unit::start(lab, "")?;
    unit.manager.expect("READY=1")?;
    let (first, good) = (unit.serving()?, std::fs::read_to_string(&unit.flags)?);
    let squatter = unit.lab.balancer.run(|| TcpListener::bind("127.0.0.1:0"))??;
    for (flags, code, words) in [
        ("--lisen 1.2.3.4:80".to_owned(), 2, "--lisen"),
        (format!("--listen {}", squatter.local_addr()?), 1, "goes on"),
    ] {
        std::fs::write(&unit.flags, format!("{good}{flags}\n"))?;
        let output = unit.reload()?;
        ensure!(output.status.code() == Some(code) && output.stderr.contains(words), "{flags}: {output:?}");
        ensure!(unit.serving()? == first, "after {flags}");
    }
    ensure!(
        !unit.manager.hears("MAINPID=", Duration::from_millis(200)),
        "who has failed is not the main process"
    );
    std::fs::write(&unit.flags, &good)?;
    unit.child.signal(Signal::SIGTERM)?;
    unit.child.wait(PATIENCE)?;
    let output = unit.reload()?;
    ensure!(
        output.status.code() == Some(1) && output.stderr.contains("start it with balancer run"),
        "{output:?}"
    );
    Ok(())
}

/// A pipe ends when nobody has it any more.
fn piped_reload() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let mut unit = Unit::start(lab, "--access-log -\n--user nobody")?;
    unit.manager.expect("READY=1")?;
    let (file, good) = (format!("@{}", unit.flags.display()), std::fs::read_to_string(&unit.flags)?);
    let piped = || {
        let script = "\"$0\" reload \"$1\" 2>&1 | cat";
        unit.lab.balancer.command("sh").args(["-c", script, BALANCER, &*file]).output(PATIENCE)
    };
    let said = piped()?.stdout;
    let second = unit.serving()?;
    ensure!(said.contains(&format!("pid {second} has taken over")) && !said.contains("ready: "), "{said}");
    // By one that was not started by the first.
    let said = piped()?.stdout;
    let third = unit.serving()?;
    ensure!(second != third && said.contains(&format!("pid {third} has taken over")), "{said}");
    http::get(&unit.lab.client().ns, None, unit.front(), "/seen-by-the-third", &[])?;
    wait_until(PATIENCE, "the access log", || unit.child.stdout().contains("/seen-by-the-third"))?;
    kill(Pid::from_raw(third), Signal::SIGHUP)?;
    wait_until(PATIENCE, "the log", || unit.child.stderr().contains(": HUP: "))
        .with_context(|| unit.child.stderr())?;
    ensure!(unit.child.stderr().matches("ready: ").count() == 3, "{}", unit.child.stderr());

    std::fs::write(&unit.flags, format!("{good}--server s1=10.0.0.1:80\n"))?;
    let said = piped()?.stdout;
    ensure!(said.contains("s1") && unit.serving()? == third, "{said}");
    Ok(())
}

fn by_signal() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let mut unit = Unit::start(lab, "")?;
    unit.manager.expect("READY=1")?;
    unit.child.signal(Signal::SIGUSR2)?;
    let first = unit.child.pid().to_string();
    let second = loop {
        let pid = unit.manager.expect("MAINPID=")?;
        if pid != first {
            break pid;
        }
    };
    // By both: what the new one says may be heard after the old one has ended.
    ensure!(unit.manager.expect("MAINPID=")? == second);
    unit.child.wait(PATIENCE)?;
    unit.manager.expect("WATCHDOG=1")?;
    ensure!(unit.serving()?.to_string() == second);
    Ok(())
}

/// The program of the service manager that is made for trying this.
const ACTIVATE: &str = "systemd-socket-activate";

fn activation() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let (front, admin) = (lab.client().gateway_at(80), lab.balancer.fresh_path("admin.sock"));
    let (listen, server) = (front.to_string(), format!("s1={}", lab.server(1).at(8080)));
    let flags =
        ["run", "--workers", "2", "--listen", &listen, "--server", &server, "--check", "none", "--admin"];
    let activate = lab.balancer.command(ACTIVATE).args(["-l", &listen, BALANCER]).args(flags).arg(&admin);
    let child = activate.spawn()?;
    wait_until(PATIENCE, "the manager to listen", || {
        lab.balancer.output("ss", &["-Hltn"]).is_ok_and(|table| table.contains(&listen))
    })?;
    ensure!(!admin.exists(), "it runs although nobody has come");
    // It is this one that starts it.
    for _ in 0..9 {
        let answer = http::get(&lab.client().ns, None, front, "/", &[])?;
        ensure!(answer.status == 200, "{}: {}", answer.status, child.stderr());
    }
    wait_until(PATIENCE, "the start-up log", || child.stderr().contains("ready: "))
}

fn foreign_socket() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let (front, admin) = (lab.client().gateway_at(80), lab.balancer.fresh_path("admin.sock"));
    let (passed, server) =
        (lab.client().gateway_at(81).to_string(), format!("s1={}", lab.server(1).at(8080)));
    let flags = ["run", "--listen", &front.to_string(), "--server", &server, "--admin"].map(str::to_owned);
    let activate = lab.balancer.command(ACTIVATE).args(["-l", &passed, BALANCER]).args(flags).arg(&admin);
    let mut child = activate.spawn()?;
    wait_for_port(&lab.client().ns, lab.client().gateway_at(81), PATIENCE)?;
    ensure!(child.wait(PATIENCE)?.code() == Some(1), "{}", child.stderr());
    let said = child.stderr();
    ensure!(
        said.contains(&passed) && said.contains(&front.to_string()) && said.contains("ListenStream="),
        "{said}"
    );
    Ok(())
}

fn manual() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let page = lab.balancer.fresh_path("balancer.8");
    let output = lab.balancer.command(BALANCER).args(["man"]).output(PATIENCE)?;
    ensure!(output.status.success(), "{output:?}");
    std::fs::write(&page, &output.stdout)?;
    let troff =
        lab.balancer.command("groff").args(["-man", "-Tutf8", "-ww", "-b"]).arg(&page).output(PATIENCE)?;
    ensure!(troff.status.success() && troff.stderr.is_empty(), "{}", troff.stderr);
    let flags = lab.balancer.command(BALANCER).args(["run", "--help"]).output(PATIENCE)?.stdout;
    let flags: Vec<_> =
        flags.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3).collect();
    ensure!(flags.len() > 60, "{flags:?}");
    let escaped = output.stdout.replace("\\-", "-");
    for flag in flags.iter().map(|flag| flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric())) {
        ensure!(escaped.contains(flag), "{flag} is missing");
    }
    for title in ["SIGNALS", "EXIT STATUS", "FILES", "EXAMPLES"] {
        ensure!(
            escaped.contains(&format!(".SH \"{title}\"")) || escaped.contains(&format!(".SH {title}")),
            "{title}"
        );
    }
    Ok(())
}

fn completions() -> Result<()> {
    let (lab, _nginx) = lab()?;
    let script = lab.balancer.fresh_path("completions");
    let output = lab.balancer.command(BALANCER).args(["completions", "bash"]).output(PATIENCE)?;
    std::fs::write(&script, &output.stdout)?;
    for (words, expected) in [("balancer sh", "show"), ("balancer run --fast-path-e", "--fast-path-exclude")]
    {
        let count = words.split(' ').count() - 1;
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={count}; _balancer balancer '{}' ''; echo ${{COMPREPLY[@]}}",
            script.display(),
            words.rsplit(' ').next().unwrap_or_default()
        );
        let answer = lab.balancer.command("bash").args(["-c", &ask]).output(PATIENCE)?;
        ensure!(answer.stdout.split_whitespace().any(|word| word == expected), "{words}: {answer:?}");
    }
    let unknown = lab.balancer.command(BALANCER).args(["completions", "cmd"]).output(PATIENCE)?;
    ensure!(unknown.status.code() == Some(2) && unknown.stderr.contains("bash"), "{unknown:?}");
    Ok(())
}
