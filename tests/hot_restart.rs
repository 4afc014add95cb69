//! Hot restart end to end: real processes, real XDP, and clients that must not notice.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

mod load;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use load::{From, Load};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, all_flags, start_servers, trial};
use tempfile::TempDir;
use xtask::lab::process::{Output, copy_program};
use xtask::lab::{Child, Lab, http, wait_for, wait_until};

/// What a successor begins with.
const TAKEOVER: &[u8] = b"takeover 2 web\n";

/// `nobody` and its group, on every Linux.
const NOBODY: u32 = 65_534;

/// For a take-over, of a debug build, beside a load that leaves no core alone: half of what the product allows.
const HAND_OVER: Duration = Duration::from_secs(30);

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("ten_restarts_under_load_are_not_noticed", ten_restarts),
        trial("a_successor_that_fails_leaves_everything_as_it_was", failing_successors),
        trial("a_successor_that_is_killed_at_any_moment_is_not_missed", killed_successors),
        trial("only_root_and_the_same_user_may_take_over", strangers),
        trial("after_a_takeover_there_is_one_instance_and_it_can_be_stopped", one_instance),
        trial("what_is_in_memory_goes_along", memory_goes_along),
        trial("addresses_come_and_go_with_a_takeover", addresses),
        trial("with_user_root_is_given_up_and_the_fast_path_goes_on", user),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn ten_restarts() -> Result<()> {
    let patient = ["--drain-timeout", "5m"];
    let mut site = Site::open(&[SOURCE_FIRST, &patient].concat())?;
    for server in &site.servers {
        load::echo(UnixListener::bind(server.echo_socket())?);
    }
    site.introduce(0)?;
    let front = site.lab.client().gateway_at(80);
    // From the balancer's own host no packet passes XDP: these are the proxy's.
    let slow = From { ns: site.lab.balancer.clone(), source: None, to: front };
    let fast = From { ns: site.lab.client().ns.clone(), source: Some(site.address(0)), to: front };
    let mut load = Load::default();
    load.upload(slow.clone(), "/upload/long");
    load.websocket(slow.clone(), "/echo");
    load.download("a long answer by the proxy", slow.clone(), "/slow", 1 << 20);
    load.download("a long answer by XDP", fast.clone(), "/slow", 1 << 20);
    for _ in 0..2 {
        load.new_connections(slow.clone(), Duration::from_millis(10));
        load.keep_alive(slow.clone(), Duration::from_millis(1));
    }
    // Idle while a restart or two pass by.
    load.keep_alive(slow, Duration::from_millis(1500));
    load.known_client(fast, Duration::from_millis(10));
    wait_until(PATIENCE, "the download to run by XDP", || {
        site.daemon.show(&["flows"]).is_ok_and(|rows| rows.to_string().contains("established"))
    })?;

    let another_build = Public::folder()?.with_program()?;
    let mut by_hand = Vec::new();
    for round in 0..10 {
        let flags = [&patient[..], &["--workers", ["1", "3", "2"][round % 3]]].concat();
        match round % 4 {
            3 => by_hand.push(take_over(&site, &another_build.program(), &flags)?),
            1 => by_hand.push(take_over(&site, Path::new(BALANCER), &flags)?),
            _ => restart(site.daemon.admin())?,
        }
        if round == 3 {
            another_build.upgrade()?;
        }
        if round == 4 {
            let program = fs::read_link(format!("/proc/{}/exe", pid_at(site.daemon.admin())?))?;
            ensure!(program == another_build.program(), "after the upgrade {} runs", program.display());
        }
    }
    ensure!(site.daemon.child.is_running(), "the first one has not waited for the upload");
    let tallies = load.end();
    let log = format!("{}\n{}", site.daemon.log(), site.daemon.client(&["show", "info"])?.stdout);
    // The client may come back to the port of its first visit, which the stack still remembers, or to one whose flow is ending.
    let mut excused = site.daemon.counter("pass_socket_exists")? + site.daemon.counter("pass_flow_ending")?;
    for (name, mut tally) in tallies {
        tally.errors.retain(|error| {
            let is_excused = error.starts_with("it went through the proxy") && excused > 0;
            excused -= u64::from(is_excused);
            !is_excused
        });
        ensure!(tally.errors.is_empty(), "{name}, {} done: {:?}\n{log}", tally.done, tally.errors);
        ensure!(tally.done > 0, "{name}: nothing was tried");
        if name == "an upload" {
            let stored = site.servers.iter().find_map(|server| server.uploaded("long").ok());
            ensure!(stored.is_some_and(|body| body.len() as u64 == tally.done), "the upload is not whole");
        }
    }
    ensure!(site.daemon.child.wait(PATIENCE)?.success(), "{log}");
    Ok(())
}

fn failing_successors() -> Result<()> {
    let logs = TempDir::new()?;
    let access_log = logs.path().join("folder/access.log");
    let folder = access_log.parent().context("a folder")?;
    fs::create_dir(folder)?;
    let site =
        Site::open(&[SOURCE_FIRST, &["--access-log", access_log.to_str().context("UTF-8")?]].concat())?;
    let home = site.introduce(0)?;
    let (admin, pid) = (site.daemon.admin(), pid_at(site.daemon.admin())?);
    let squatter = site.lab.balancer.run(|| std::net::TcpListener::bind("127.0.0.1:0"))??;
    let taken = squatter.local_addr()?.to_string();
    let goes_on = |after: &str| -> Result<()> {
        ensure!(pid_at(admin)? == pid, "after {after}");
        let visit = site.visit(0, &[])?;
        ensure!(visit.fast && visit.server == home, "after {after}: {visit:?}");
        ensure!(
            http::get(&site.lab.balancer, None, site.lab.client().gateway_at(80), "/", &[])?.status == 200
        );
        let third = attempt(&site, &[])?;
        ensure!(third.stderr.contains("already running"), "after {after}: {third:?}");
        Ok(())
    };
    let table: [(&[&str], i32, &str); 5] = [
        (&["--takeover", "--retries", "many"], 2, "--retries"),
        (&["--takeover", "--xdp", "nonsense0"], 1, "nonsense0"),
        (&["--takeover", "--listen", &taken], 1, "address in use"),
        (&["--takeover", "--access-log", "/no/such/folder/log"], 1, "--access-log"),
        (&["--takeover", "--server", "s9=10.20.1.2:8081", "--xdp", "nonsense0"], 1, "nonsense0"),
    ];
    for (flags, code, complaint) in table {
        let output = attempt(&site, flags)?;
        ensure!(
            output.status.code() == Some(code) && output.stderr.contains(complaint),
            "{flags:?}: {output:?}"
        );
        goes_on(complaint)?;
    }
    // Killed at one point and at another.
    let failures = || site.daemon.log().matches("has not taken over").count();
    for stage in ["", "\0\0\0\x0d\0\"WantEntries\"", "\0\0"] {
        let mut killed = UnixStream::connect(admin)?;
        killed.write_all(TAKEOVER)?;
        ensure!(killed.read(&mut [0; 9])? == 9);
        killed.write_all(stage.as_bytes())?;
        let before = failures();
        // While it is at it, nobody else is.
        let second = attempt(&site, &["--takeover"])?;
        let complaint = "another process is taking over just now";
        ensure!(second.stderr.lines().count() == 1 && second.stderr.contains(complaint), "{second:?}");
        drop(killed);
        wait_until(PATIENCE, "its end to be noticed", || failures() > before)?;
        goes_on("a successor that was killed")?;
    }
    // And by signal, while somebody else is at it: it is refused before anything is said.
    let mut other = UnixStream::connect(admin)?;
    other.write_all(TAKEOVER)?;
    ensure!(other.read(&mut [0; 9])? == 9);
    failing_child(&site, pid, "another process is taking over just now")?;
    let before = failures();
    drop(other);
    wait_until(PATIENCE, "the end of the other one to be noticed", || failures() > before)?;
    goes_on("a child that was refused")?;
    // By signal, with the conversation begun: both who watch it and who talk to it notice.
    fs::remove_dir_all(folder)?;
    failing_child(&site, pid, "balancer: --access-log")?;
    goes_on("a child that failed")?;
    fs::create_dir(folder)?;
    // Nothing stands in the way of one that succeeds.
    wait_until(PATIENCE, "the way to be free", || restart(admin).is_ok())
}

/// USR2, and the child fails with that complaint. The process says so in one line, and has reaped it.
fn failing_child(site: &Site, pid: Pid, complaint: &str) -> Result<()> {
    let before = site.daemon.log().len();
    let said = || site.daemon.log().get(before..).unwrap_or_default().to_owned();
    kill(pid, Signal::SIGUSR2)?;
    wait_until(PATIENCE, "the child's failure", || said().contains("this process goes on\n"))?;
    let log = said();
    let child = log.split("USR2: pid ").nth(1).and_then(|rest| rest.split(' ').next()).context("a pid")?;
    ensure!(log.contains(complaint), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.starts_with("warn: ")).collect();
    let expected = format!(
        "warn: USR2: pid {child} has not taken over: it has ended (exit status: 1); its own last line says why; this \
         process goes on"
    );
    ensure!(warnings == [&expected], "{log}");
    ensure!(!Path::new("/proc").join(child).exists(), "the child was not reaped");
    Ok(())
}

fn killed_successors() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let pid = pid_at(site.daemon.admin())?;
    let mut kept = http::Connection::open(&site.lab.balancer, None, site.lab.client().gateway_at(80))?;
    let is_handed_over = || site.daemon.log().contains("handed over");
    let mut goes_on = || -> Result<()> {
        ensure!(pid_at(site.daemon.admin())? == pid);
        let visit = site.visit(0, &[])?;
        ensure!(visit.fast && visit.server == home, "{visit:?}");
        let response = kept.get("/", &[])?;
        ensure!(response.status == 200 && response.header("Connection").is_none(), "{response:?}");
        Ok(())
    };
    let mut killed = 0;
    for moment in (0..).map(|n| Duration::from_millis(n * 15)) {
        let successor = command(&site, Path::new(BALANCER), &["--takeover"]).spawn()?;
        // The point of the test is that it may be any moment.
        std::thread::sleep(moment);
        successor.kill();
        if is_handed_over() {
            break;
        }
        if let Err(missed) = goes_on() {
            // It may have got the last word out before it was killed: then there is nobody left, and that is said.
            wait_until(PATIENCE, "a word of it", is_handed_over)
                .with_context(|| format!("after {moment:?}: {missed:#}\n{}", site.daemon.log()))?;
            break;
        }
        killed += 1;
    }
    ensure!(killed > 3, "it was never killed in time");
    Ok(())
}

fn strangers() -> Result<()> {
    let lab = Lab::star().build()?;
    let _servers = start_servers(&lab)?;
    let folder = Public::folder()?.with_program()?;
    let daemon = folder.start(&lab, &["--admin-mode", "0666"], None)?;
    let pid = pid_at(&folder.admin())?;
    let output = folder.command(&lab, &["--takeover"], Some(NOBODY)).output(PATIENCE)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(output.stderr.contains("only root and the user"), "{output:?}");
    ensure!(daemon.stderr().contains(&format!("user {NOBODY} wanted to take over")), "{}", daemon.stderr());
    ensure!(pid_at(&folder.admin())? == pid);
    Ok(())
}

fn one_instance() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let admin = site.daemon.admin().to_owned();
    let first = pid_at(&admin)?;
    let mut second = take_over(&site, Path::new(BALANCER), &[])?;
    let log = second.stderr();
    ensure!(log.contains(&format!("took over from pid {first}")), "{log}");
    ensure!(site.daemon.child.wait(PATIENCE)?.success());
    ensure!(site.daemon.log().contains(&format!("handed over to pid {}", second.pid())));
    let third = attempt(&site, &[])?;
    ensure!(third.stderr.contains(&format!("already running (pid {}", second.pid())), "{third:?}");
    // The operator's word goes to the new one, and the next one hears of it.
    let said = site.daemon.client(&["set", "server", "s2", "drain", "--name", "web"])?;
    ensure!(said.status.success(), "{said:?}");
    restart(&admin)?;
    ensure!(site.daemon.server("s2")?["state"] == "drain");
    // The last one takes everything along that has a name.
    let last = pid_at(&admin)?;
    ensure!(second.wait(PATIENCE)?.success(), "{}", second.stderr());
    kill(last, Signal::SIGTERM)?;
    wait_until(PATIENCE, "the end of the last one", || !admin.exists())?;
    wait_until(PATIENCE, "its lock to be gone", || !admin.with_file_name("web.lock").exists())?;
    let mut fourth = take_over(&site, Path::new(BALANCER), &[])?;
    ensure!(fourth.stderr().contains("there is nothing to take over"), "{}", fourth.stderr());
    // A successor that is not ready yet does not keep it from stopping.
    let mut unready = UnixStream::connect(&admin)?;
    unready.write_all(TAKEOVER)?;
    ensure!(unready.read(&mut [0; 9])? == 9);
    fourth.signal(Signal::SIGTERM)?;
    ensure!(fourth.wait(PATIENCE)?.success() && !admin.exists(), "{}", fourth.stderr());
    drop(unready);
    // Nor does one that has only been started serve after all.
    let mut fifth = take_over(&site, Path::new(BALANCER), &[])?;
    fifth.signal(Signal::SIGUSR2)?;
    wait_until(PATIENCE, "a child", || fifth.stderr().contains("is to take over"))?;
    fifth.signal(Signal::SIGTERM)?;
    ensure!(fifth.wait(PATIENCE)?.success(), "{}", fifth.stderr());
    let child =
        fifth.stderr().split("USR2: pid ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let child = Pid::from_raw(child.context("a pid")?);
    wait_until(PATIENCE, "the child's end", || !is_alive(child))?;
    ensure!(!admin.exists() && !admin.with_file_name("web.lock").exists(), "{}", fifth.stderr());
    Ok(())
}

fn memory_goes_along() -> Result<()> {
    let lab = Lab::star().build()?;
    let _servers = start_servers(&lab)?;
    let folder = Public::folder()?.with_program()?;
    chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
    let mut first = folder.start(&lab, &["--persist", "source"], Some(NOBODY))?;
    let admin = folder.admin();
    ensure!(show(&admin, "process")?["tables"] == "memory");
    let visit = || http::get(&lab.client().ns, None, lab.client().gateway_at(8080), "/", &[]);
    let home = visit()?.header("X-Server").context("a name")?.to_owned();
    let table = || show(&admin, "table source");
    wait_until(PATIENCE, "the entry", || table().is_ok_and(|rows| rows[0]["server"] == *home))?;
    let other = if home == "s1" { "s2" } else { "s1" };
    say(&admin, &format!("set server {other} drain; set server {home} weight 7"))?;
    say(&admin, "add server late 10.99.0.1:80,disabled")?;
    wait_until(PATIENCE, "checks", || show(&admin, "servers").is_ok_and(|rows| rows[0]["health"] == "up"))?;
    let first_sample = || Ok(show(&admin, "status")?["history"]["samples"].get(0).cloned());
    let sample = wait_for(PATIENCE, "the first five seconds in the charts", first_sample)?;
    // Servers in another order, so that their ids in memory differ, and checks that are not made soon.
    let swapped = &["--persist", "source", "--takeover", "--check-interval", "1h"];
    let second = folder.command_with(&lab, swapped, Some(NOBODY), true).spawn()?;
    wait_for_successor(&admin, first.pid())?;
    let servers = show(&admin, "servers")?;
    let row = |name: &str| servers.as_array().into_iter().flatten().find(|row| row["name"] == *name).cloned();
    ensure!(row(other).is_some_and(|row| row["operator"] == "drain"), "{servers}");
    ensure!(row(&home).is_some_and(|row| row["health"] == "up" && row["weight"] == 7), "{servers}");
    ensure!(row("late").is_some_and(|row| row["state"] == "maint"), "{servers}");
    let rows = table()?;
    ensure!(rows[0]["server"] == *home && rows[0]["key"] == lab.client().address().to_string(), "{rows}");
    ensure!(rows[0]["expires_in"].as_u64().is_some_and(|left| left > 60), "{rows}");
    ensure!(first_sample()? == Some(sample), "the charts begin anew");
    ensure!(first.wait(PATIENCE)?.success() && second.is_running());
    ensure!(visit()?.header("X-Server") == Some(home.as_str()));
    Ok(())
}

fn addresses() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let (ns, admin) = (&site.lab.balancer, site.daemon.admin());
    let ask = |port: u16| http::get(ns, None, ([127, 0, 0, 1], port).into(), "/", &[]).map(|it| it.status);
    let _second = take_over(&site, Path::new(BALANCER), &["--listen", "127.0.0.1:8001"])?;
    ensure!(ask(8001)? == 200);
    let _third = take_over(&site, Path::new(BALANCER), &["--listen", "127.0.0.1:8002"])?;
    ensure!(ask(8002)? == 200);
    wait_until(PATIENCE, "the address to be closed", || ask(8001).is_err())?;
    ensure!(show(admin, "process")?["listen"].as_array().is_some_and(|all| all.len() == 2));
    Ok(())
}

fn user() -> Result<()> {
    let flags = [SOURCE_FIRST, &["--user", "nobody", "--datapath-hold", "2s"]].concat();
    let site = Site::open(&flags)?;
    let admin = site.daemon.admin();
    let pid = pid_at(admin)?;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let has = |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split(' ')));
        let uids = format!("Uid: {NOBODY} {NOBODY} {NOBODY} {NOBODY}");
        ensure!(has(&uids) && has("CapEff: 0000000000000000") && has("CapPrm: 0000000000000000"), "{status}");
        ensure!(has("NoNewPrivs: 1"), "{status}");
    }
    ensure!(fs::metadata(admin)?.uid() == NOBODY);
    let home = site.introduce(0)?;
    // Heartbeats: without them the program would stop after the hold, so some time has to pass.
    std::thread::sleep(Duration::from_millis(2500));
    ensure!(site.visit(0, &[])?.fast, "no heartbeats: {}", site.daemon.log());
    // States of servers are published.
    site.daemon.set_server(&home, "drain")?;
    ensure!(!site.visit(0, &[])?.fast);
    site.daemon.set_server(&home, "ready")?;
    ensure!(site.visit(0, &[])?.fast);
    // So is what the operator wants, and the registry takes another server.
    for line in ["set server s1 weight 9", "add server late 10.99.0.1:80", "del server late force"] {
        let answer = say(admin, line)?;
        ensure!(!answer.contains("error") && !answer.contains("warning"), "{line}: {answer}");
    }
    // What is over is collected: soon where the client closes first.
    let mut connection = site.connect(0)?;
    connection.get("/", &[])?;
    let entries = flow_entries(&site);
    drop(connection);
    wait_until(Duration::from_secs(30), "a flow to be collected", || flow_entries(&site) < entries)?;
    // This process cannot start one like itself, and says so; root can, and takes over.
    kill(pid, Signal::SIGUSR2)?;
    wait_until(PATIENCE, "who must do it", || site.daemon.log().contains("start one as root"))?;
    ensure!(pid_at(admin)? == pid);
    let second = take_over(&site, Path::new(BALANCER), &[])?;
    ensure!(site.visit(0, &[])?.fast, "{}", second.stderr());
    ensure!(site.daemon.server("s1")?["weight"] == 9);
    let status = fs::read_to_string(format!("/proc/{}/status", second.pid()))?;
    ensure!(status.contains(&format!("Uid:\t{NOBODY}")), "{status}");
    let refused = attempt(&site, &["--user", "no-such-user"])?;
    ensure!(refused.status.code() == Some(2) && refused.stderr.contains("--user"), "{refused:?}");
    Ok(())
}

fn flow_entries(site: &Site) -> usize {
    let map = aya::maps::MapData::from_pin(site.pins().join("FLOWS")).expect("the flow table");
    let map: aya::maps::HashMap<_, balancer_ebpf::abi::FlowKey, balancer_ebpf::abi::Flow> =
        aya::maps::Map::HashMap(map).try_into().expect("its shape");
    map.keys().count()
}

/// Whoever should reap it may take their time.
fn is_alive(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// USR2 to whoever serves, and until somebody else does.
fn restart(admin: &Path) -> Result<()> {
    let pid = pid_at(admin)?;
    kill(pid, Signal::SIGUSR2)?;
    wait_for_successor(admin, pid.as_raw().cast_unsigned())
}

fn wait_for_successor(admin: &Path, before: u32) -> Result<()> {
    let before = Pid::from_raw(before.cast_signed());
    wait_until(HAND_OVER, "a successor", || pid_at(admin).is_ok_and(|pid| pid != before))
}

/// A process with the flags of the site and `flags` is started by hand and takes over.
fn take_over(site: &Site, program: &Path, flags: &[&str]) -> Result<Child> {
    let child = command(site, program, &[&["--takeover"], flags].concat()).spawn()?;
    let what = format!("{} to take over", program.display());
    let took = wait_until(HAND_OVER, &what, || {
        pid_at(site.daemon.admin()).is_ok_and(|pid| pid.as_raw().cast_unsigned() == child.pid())
    });
    took.with_context(|| child.stderr())?;
    wait_until(PATIENCE, "its last line", || child.stderr().contains("ready: "))?;
    Ok(child)
}

/// The same for one that is to fail.
fn attempt(site: &Site, flags: &[&str]) -> Result<Output> {
    command(site, Path::new(BALANCER), flags).output(PATIENCE)
}

fn command(site: &Site, program: &Path, flags: &[&str]) -> xtask::lab::Command {
    let user = if site.daemon.line().contains("--user nobody") && !flags.contains(&"--user") {
        &["--user", "nobody"][..]
    } else {
        &[]
    };
    let mut all = all_flags(&site.lab, 80, &[SOURCE_FIRST, user].concat());
    if flags.contains(&"--workers") {
        let at = all.iter().position(|flag| flag == "--workers").expect("a flag of the site");
        all.drain(at..at + 2);
    }
    let command = site.lab.balancer.command(program).args(["run", "--name", "web", "--admin"]);
    command.arg(site.daemon.admin()).args(all).args(flags)
}

/// A folder that others can look into, for processes of another user.
struct Public(TempDir);

impl Public {
    fn folder() -> Result<Self> {
        let folder = TempDir::new()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self(folder))
    }

    fn with_program(self) -> Result<Self> {
        copy_program(Path::new(BALANCER), &self.program())?;
        Ok(self)
    }

    /// Another file in the place of the program, as a package manager does it.
    fn upgrade(&self) -> Result<()> {
        let new = self.path().join("balancer.new");
        copy_program(Path::new(BALANCER), &new)?;
        Ok(fs::rename(new, self.program())?)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self) -> PathBuf {
        self.path().join("balancer")
    }

    fn admin(&self) -> PathBuf {
        self.path().join("web.sock")
    }

    fn start(&self, lab: &Lab, flags: &[&str], user: Option<u32>) -> Result<Child> {
        let child = self.command(lab, flags, user).spawn()?;
        let ready = wait_until(PATIENCE, "it to be ready", || child.stderr().contains("ready: "));
        ready.with_context(|| child.stderr())?;
        Ok(child)
    }

    fn command(&self, lab: &Lab, flags: &[&str], user: Option<u32>) -> xtask::lab::Command {
        self.command_with(lab, flags, user, false)
    }

    fn command_with(&self, lab: &Lab, flags: &[&str], user: Option<u32>, swap: bool) -> xtask::lab::Command {
        let command = match user {
            Some(id) => {
                let ids = [format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".into()];
                lab.balancer.command("setpriv").args(ids).arg(self.program())
            }
            None => lab.balancer.command(self.program()),
        };
        let mut servers = [1, 2].map(|n| format!("s{n}={}", lab.server(n).at(8080)));
        if swap {
            servers.reverse();
        }
        let servers = servers.iter().flat_map(|server| ["--server", server]);
        let listen = lab.client().gateway_at(8080).to_string();
        command
            .args(["run", "--name", "web", "--listen", &listen, "--admin"])
            .arg(self.admin())
            .args(servers)
            .args(flags)
    }
}

fn pid_at(admin: &Path) -> Result<Pid> {
    let pid = show(admin, "process")?["pid"].as_i64().context("a pid")?;
    Ok(Pid::from_raw(pid.try_into()?))
}

fn show(admin: &Path, what: &str) -> Result<Value> {
    let answer = say(admin, &format!("show {what} json"))?;
    serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer}"))
}

fn say(admin: &Path, line: &str) -> Result<String> {
    let mut stream = UnixStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
