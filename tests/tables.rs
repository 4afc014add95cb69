//! Learned tables in the kernel, in a state file, and on their way from one process to the next.
#![allow(unreachable_pub, missing_docs, dead_code, reason = "a test is nobody's library")]

mod site;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use balancer::datapath::kernel_table::{KernelTable, Shape};
use balancer::table::{Found, HashKey, Key, Store, Table};
use balancer_ebpf::affinity::Affinity;
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;
use serde_json::Value;
use site::{BALANCER, PATIENCE, trial};
use xtask::lab::process::copy_program;
use xtask::lab::{Child, Daemon, Lab, wait_until};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("a_pinned_table_is_found_again_and_copied_when_it_is_to_be_another", pinned_table),
        trial("a_table_in_the_kernel_is_full_at_its_size", full_table),
        trial("a_flood_in_the_kernel_pushes_no_user_out", flood),
        trial("kill_9_forgets_no_table_whatever_the_flags_are_then", kill_and_other_flags),
        trial("ids_of_servers_are_kept_while_any_table_names_them", ids_stay),
        trial("a_successor_uses_the_same_maps", hot_restart_in_the_kernel),
        trial("tables_in_memory_go_along_with_the_key_of_their_hashes", hot_restart_in_memory),
        trial("a_reboot_forgets_nothing_with_a_state_file", reboot),
        trial("a_state_file_has_to_be_where_the_user_can_write", user_of_the_file),
        trial("expired_entries_are_collected", collected),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A folder for pins, gone on drop.
struct Pins(PathBuf);

impl Pins {
    fn new(name: &str) -> Result<Self> {
        let folder = PathBuf::from(format!("/sys/fs/bpf/balancer-test-{}-{name}", std::process::id()));
        fs::create_dir(&folder).context("bpffs is mounted by the laboratory")?;
        Ok(Self(folder))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn count(&self) -> usize {
        fs::read_dir(&self.0).map_or(0, Iterator::count)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(n: u32) -> Key {
    HashKey::from_bytes([7; 16]).hash(&n.to_be_bytes())
}

fn count(table: &KernelTable) -> usize {
    let mut count = 0;
    table.for_each(|_, _| count += 1);
    count
}

const FOR_LONG: u32 = u32::MAX;

fn pinned_table() -> Result<()> {
    // For its bpffs.
    let _lab = Lab::star().build()?;
    let pins = Pins::new("copies")?;
    let path = pins.at("session-JS");
    let open = |size: u32, evicts: bool| KernelTable::open(&path, Shape { size, evicts });
    let (first, is_new) = open(1000, true)?;
    ensure!(is_new);
    (0..100).try_for_each(|n| first.put(&key(n), Affinity::learned(1, FOR_LONG - n)))?;
    first.put(&key(500), Affinity::learned(1, 0))?;
    let same = open(1000, true)?;
    ensure!(!same.1 && same.0.get(&key(7)) == Some(Affinity::learned(1, FOR_LONG - 7)));
    for (size, evicts) in [(2000, true), (2000, false), (300, false), (300, true)] {
        let (table, is_new) = open(size, evicts)?;
        ensure!(!is_new && count(&table) == 100, "{size}, {evicts}: {}", count(&table));
        ensure!((0..100).all(|n| table.get(&key(n)) == Some(Affinity::learned(1, FOR_LONG - n))));
        ensure!(KernelTable::open_as_it_is(&path)?.1 == Shape { size, evicts });
        ensure!(pins.count() == 1, "what was on the way is left");
    }
    // Not all fit: those stay that were used last.
    let (small, _) = open(10, false)?;
    ensure!(count(&small) == 10 && (0..10).all(|n| small.get(&key(n)).is_some()));
    ensure!(count(&first) == 101, "whoever holds the old one still can read it");
    small.clear();
    ensure!(count(&small) == 0);
    Ok(())
}

fn full_table() -> Result<()> {
    let refusing = KernelTable::unpinned(Shape { size: 500, evicts: false })?;
    let refused =
        (0..800).filter(|n| refusing.put(&key(*n), Affinity::learned(1, FOR_LONG)).is_err()).count();
    ensure!(refused == 300 && count(&refusing) == 500, "{refused}");
    refusing.put(&key(3), Affinity::learned(2, FOR_LONG))?;
    refusing.remove(&key(3));
    refusing.put(&key(800), Affinity::learned(2, FOR_LONG))?;
    let forgetting = KernelTable::unpinned(Shape { size: 500, evicts: true })?;
    (0..800).try_for_each(|n| forgetting.put(&key(n), Affinity::learned(1, FOR_LONG)))?;
    ensure!(count(&forgetting) <= 500);
    ensure!(forgetting.get(&key(799)).is_some());
    Ok(())
}

fn flood() -> Result<()> {
    let options = balancer::persist::TableOptions { timeout: 1600, size: 1000, nopurge: false };
    let store = |size| {
        KernelTable::unpinned(Shape { size, evicts: true }).map(|table| Box::new(table) as Box<dyn Store>)
    };
    let table = Table::of_ids(store(1000)?, Some(store(250)?), HashKey::from_bytes([7; 16]), &options);
    let entry = Affinity::learned(1, 2_000_000_000);
    let serve = |n: u32| {
        let seen = table.find(&key(n));
        table.learn(&key(n), entry, seen)
    };
    // Some room is left: the kernel counts per CPU.
    for n in 0..500 {
        serve(n)?;
        serve(n)?;
    }
    for n in 1000..100_000 {
        serve(n)?;
    }
    let kept = (0..500).filter(|n| table.find(&key(*n)) == Some(Found { entry, probation: false })).count();
    ensure!(kept == 500, "{kept}");
    Ok(())
}

/// A laboratory with a daemon that has no XDP, in front of servers that nobody visits.
struct Desk {
    daemon: Daemon,
    lab: Lab,
}

const SERVERS: [&str; 4] = ["--server", "s1=10.20.1.2:8080", "--server", "s2=10.20.2.2:8080"];
const SWAPPED: [&str; 4] = ["--server", "s2=10.20.2.2:8080", "--server", "s1=10.20.1.2:8080"];
const BASE: [&str; 4] = ["--listen", "127.0.0.1:0", "--check", "none"];

fn flags<'a>(servers: &'a [&'a str], others: &'a [&'a str]) -> Vec<&'a str> {
    [&BASE, servers, others].concat()
}

impl Desk {
    fn open(flags: &[&str]) -> Result<Self> {
        let lab = Lab::star().build()?;
        let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", flags)?;
        Ok(Self { daemon, lab })
    }

    /// Kills it, and starts it with other flags.
    fn crash(&mut self, flags: &[&str]) -> Result<()> {
        self.daemon.kill();
        self.daemon.child.wait(PATIENCE)?;
        self.daemon = Daemon::start(&self.lab.balancer, Path::new(BALANCER), "web", flags)?;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.daemon.child.signal(Signal::SIGTERM)?;
        let status = self.daemon.child.wait(PATIENCE)?;
        ensure!(status.success(), "{}", self.daemon.log());
        Ok(())
    }

    fn set(&self, table: &str, key: &str, server: &str) -> Result<()> {
        let output = self.daemon.client(&["table", table, "set", key, server])?;
        ensure!(output.status.success(), "{}", output.stderr);
        Ok(())
    }

    fn get(&self, table: &str, key: &str) -> Result<Option<Value>> {
        entry(&self.daemon, table, key)
    }

    fn size(&self, table: &str) -> Result<u64> {
        let tables = self.daemon.show(&["tables"])?;
        let row = tables.as_array().into_iter().flatten().find(|row| row["name"] == table);
        row.and_then(|row| row["size"].as_u64()).with_context(|| format!("{table} in {tables}"))
    }
}

fn entry(daemon: &Daemon, table: &str, key: &str) -> Result<Option<Value>> {
    let output = daemon.client(&["table", table, "get", key, "--json"])?;
    if !output.status.success() {
        ensure!(output.stderr.contains("there is no such key"), "{}", output.stderr);
        return Ok(None);
    }
    let rows: Value = serde_json::from_str(&output.stdout)?;
    Ok(Some(rows[0].clone()))
}

/// Three tables with a key each, for `life` seconds.
const LEARNING: [&str; 6] = [
    "--persist",
    "session=JS,timeout=1000s,size=1000",
    "--persist",
    "header=X-User,timeout=1000s,size=1000",
    "--persist",
    "source,timeout=1000s,size=1000",
];
const KEYS: [(&str, &str, &str); 3] = [
    ("session=JS", "a.very;odd id~|", "s2"),
    ("header=X-User", "alice", "s1"),
    ("source", "192.0.2.1", "s2"),
];

fn learn(desk: &Desk) -> Result<()> {
    KEYS.iter().try_for_each(|(table, key, server)| desk.set(table, key, server))
}

fn is_all_there(desk: &Desk) -> Result<()> {
    for (table, key, server) in KEYS {
        let row = desk.get(table, key)?.with_context(|| format!("{table} {key}: {}", desk.daemon.log()))?;
        ensure!(row["server"] == server, "{table} {key}: {row}");
        ensure!(row["expires_in"].as_u64().is_some_and(|left| (900..=1000).contains(&left)), "{row}");
    }
    Ok(())
}

fn kill_and_other_flags() -> Result<()> {
    let mut desk = Desk::open(&flags(&SERVERS, &LEARNING))?;
    ensure!(desk.daemon.log().contains("tables: session=JS, header=X-User, source, in the kernel"));
    learn(&desk)?;
    is_all_there(&desk)?;
    desk.crash(&flags(&SERVERS, &LEARNING))?;
    is_all_there(&desk)?;
    // Servers and methods in another order, other sizes, one that refuses when it is full.
    let others = [
        "--persist",
        "source,timeout=1000s,size=5000",
        "--persist",
        "session=JS,timeout=1000s,size=70,nopurge",
        "--persist",
        "header=x-user,timeout=1000s",
    ];
    desk.crash(&flags(&SWAPPED, &others))?;
    is_all_there(&desk)?;
    ensure!((desk.size("source")?, desk.size("session=JS")?) == (5000, 70));
    // A table that is not in use waits.
    desk.crash(&flags(&SERVERS, &LEARNING[4..]))?;
    ensure!(
        desk.daemon
            .client(&["table", "session=JS", "get", "x"])?
            .stderr
            .contains("No such table; there are: source")
    );
    desk.crash(&flags(&SERVERS, &LEARNING))?;
    is_all_there(&desk)?;
    // The socket speaks as HAProxy's does.
    let text = desk.lab.balancer.run(|| -> Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(desk.daemon.admin())?;
        stream.write_all(b"show table source\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    ensure!(text.starts_with("# table: source, type: ip, size:1000, used:1\n0x"), "{text}");
    ensure!(text.contains(": key=192.0.2.1 use=0 exp=9") && text.ends_with(" server_key=s2\n\n"), "{text}");
    ensure!(desk.daemon.client(&["table", "header=X-User", "clear", "alice"])?.status.success());
    ensure!(desk.get("header=X-User", "alice")?.is_none());
    Ok(())
}

fn ids_stay() -> Result<()> {
    // Ids are only freed where a program could read them.
    let xdp = ["--xdp", "c1"];
    let with = |servers: &[&'static str]| -> Vec<&'static str> {
        [&["--listen", "10.10.1.1:80", "--check", "none"], servers, &LEARNING, &xdp].concat()
    };
    let mut desk = Desk::open(&with(&SERVERS))?;
    desk.set("session=JS", "abc", "s2")?;
    let id = |desk: &Desk, name: &str| -> Result<Value> { Ok(desk.daemon.server(name)?["id"].clone()) };
    let of_s2 = id(&desk, "s2")?;
    // Neither s2 nor the table is in the flags now.
    let source_alone = [
        "--listen",
        "10.10.1.1:80",
        "--check",
        "none",
        "--server",
        "s1=10.20.1.2:8080",
        "--persist",
        "source",
        "--xdp",
        "c1",
    ];
    desk.crash(&source_alone)?;
    desk.crash(&with(&[&SERVERS[..2], &["--server", "s3=10.20.2.2:8080"]].concat()))?;
    ensure!(id(&desk, "s3")? != of_s2, "an entry would lead there");
    desk.crash(&with(&SERVERS))?;
    ensure!(id(&desk, "s2")? == of_s2);
    ensure!(desk.get("session=JS", "abc")?.is_some_and(|row| row["server"] == "s2"));
    Ok(())
}

/// A second daemon with these flags, which takes over from the first.
fn take_over(desk: &Desk, flags: &[&str]) -> Result<Child> {
    let command = desk.lab.balancer.command(BALANCER).args(["run", "--name", "web", "--takeover", "--admin"]);
    let child = command.arg(desk.daemon.admin()).args(flags).spawn()?;
    wait_until(PATIENCE, "it to be ready", || child.stderr().contains("ready: "))
        .with_context(|| child.stderr())?;
    Ok(child)
}

fn hot_restart_in_the_kernel() -> Result<()> {
    let mut desk = Desk::open(&flags(&SERVERS, &LEARNING))?;
    learn(&desk)?;
    let second = take_over(&desk, &flags(&SWAPPED, &[&["--persist", "query=id"], &LEARNING[..]].concat()))?;
    desk.daemon.child.wait(PATIENCE)?;
    ensure!(second.is_running());
    is_all_there(&desk)?;
    desk.set("query=id", "7", "s1")?;
    // What another size asks for comes with the next stop, and is said.
    let other = ["--persist", "session=JS,timeout=1000s,size=77", "--persist", "source,size=1000,nopurge"];
    let third = take_over(&desk, &flags(&SERVERS, &other))?;
    let log = third.stderr();
    ensure!(
        log.contains("table session=JS holds 1000 entries, as it was made; size=77 counts after"),
        "{log}"
    );
    ensure!(
        log.contains("table source, full, forgets old entries, as it was made; nopurge counts after"),
        "{log}"
    );
    ensure!(desk.get("session=JS", KEYS[0].1)?.is_some());
    Ok(())
}

const NOBODY: u32 = 65534;

/// The daemon as a user who may not use BPF.
fn unprivileged(lab: &Lab, folder: &Path, flags: &[&str]) -> Result<Child> {
    let program = folder.join("balancer");
    if !program.exists() {
        copy_program(Path::new(BALANCER), &program)?;
    }
    let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()];
    let command = lab.balancer.command("setpriv").args(ids).arg(program);
    let command = command.args(["run", "--name", "web", "--admin"]).arg(folder.join("web.sock"));
    let child = command.args(flags).spawn()?;
    wait_until(PATIENCE, "it to be ready", || child.stderr().contains("ready: "))
        .with_context(|| child.stderr())?;
    Ok(child)
}

/// A folder that is theirs.
fn folder_of_nobody() -> Result<tempfile::TempDir> {
    let folder = tempfile::TempDir::new()?;
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
    Ok(folder)
}

fn ask(folder: &Path, line: &str) -> Result<String> {
    balancer::admin::client::ask("web", &folder.join("web.sock"), line)
}

fn server_of(folder: &Path, table: &str, key: &str) -> Result<String> {
    let escaped = key.replace(';', "\\;").replace(' ', "\\ ");
    let rows: Value = serde_json::from_str(&ask(folder, &format!("show table {table} key {escaped} json"))?)?;
    Ok(rows[0]["server"].as_str().with_context(|| rows.to_string())?.to_owned())
}

fn teach(folder: &Path) -> Result<()> {
    for (table, key, server) in KEYS {
        let escaped = key.replace(';', "\\;").replace(' ', "\\ ");
        let answer = ask(folder, &format!("set table {table} key {escaped} data.server_key {server}"))?;
        ensure!(answer == "\n", "{answer}");
    }
    Ok(())
}

fn knows_all(folder: &Path) -> Result<()> {
    KEYS.iter().try_for_each(|(table, key, server)| {
        let found = server_of(folder, table, key)?;
        ensure!(found == *server, "{table} {key}: {found}");
        Ok(())
    })
}

fn hot_restart_in_memory() -> Result<()> {
    let lab = Lab::star().build()?;
    let folder = folder_of_nobody()?;
    let mut first = unprivileged(&lab, folder.path(), &flags(&SERVERS, &LEARNING))?;
    ensure!(first.stderr().contains("will not survive a restart"), "{}", first.stderr());
    teach(folder.path())?;
    let second =
        unprivileged(&lab, folder.path(), &[&flags(&SWAPPED, &LEARNING)[..], &["--takeover"]].concat())?;
    first.wait(PATIENCE)?;
    knows_all(folder.path())?;
    let _third =
        unprivileged(&lab, folder.path(), &[&flags(&SERVERS, &LEARNING)[..], &["--takeover"]].concat())?;
    drop(second);
    knows_all(folder.path())
}

fn reboot() -> Result<()> {
    let lab = Lab::star().build()?;
    let folder = folder_of_nobody()?;
    let state = folder.path().join("web.state");
    let path = state.to_str().context("a path")?;
    let with = |servers: &[&'static str]| -> Vec<String> {
        let flags = [&flags(servers, &LEARNING)[..], &["--state-file", path]].concat();
        flags.into_iter().map(str::to_owned).collect()
    };
    let start = |servers: &[&'static str]| {
        let flags = with(servers);
        unprivileged(&lab, folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut first = start(&SERVERS)?;
    teach(folder.path())?;
    ask(folder.path(), "set server s2 drain")?;
    ask(folder.path(), "set server s2 weight 7")?;
    first.signal(Signal::SIGTERM)?;
    ensure!(first.wait(PATIENCE)?.success(), "{}", first.stderr());
    // In memory again, and the servers in another order.
    let mut second = start(&SWAPPED)?;
    ensure!(second.stderr().contains("state file: 3 entries restored"), "{}", second.stderr());
    knows_all(folder.path())?;
    // So does what the operator said.
    let s2 = ask(folder.path(), "show server s2")?;
    ensure!(s2.contains("operator: drain\n") && s2.contains("\nweight: 7"), "{s2}");
    // By now the file is damaged, which is noticed the next time.
    second.signal(Signal::SIGTERM)?;
    second.wait(PATIENCE)?;
    let saved = fs::read(&state)?;
    fs::write(&state, &saved[..saved.len() / 2])?;
    let mut third = start(&SERVERS)?;
    ensure!(third.stderr().contains("web.state: it is cut short"), "{}", third.stderr());
    ensure!(folder.path().join("web.state.broken").exists());
    ensure!(server_of(folder.path(), "header=X-User", "alice").is_err());
    third.signal(Signal::SIGTERM)?;
    third.wait(PATIENCE)?;
    fs::write(&state, saved)?;
    // From memory into the kernel, where the key of the hashes has to be the same; and root takes only root's.
    std::os::unix::fs::chown(&state, Some(0), None)?;
    let flags: Vec<_> = with(&SERVERS);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let mut desk = Desk { daemon, lab };
    ensure!(desk.daemon.log().contains("state file: 3 entries restored"), "{}", desk.daemon.log());
    is_all_there(&desk)?;
    // What is in the kernel is newer than any file.
    desk.set("header=X-User", "alice", "s2")?;
    desk.crash(&flags)?;
    ensure!(desk.get("header=X-User", "alice")?.is_some_and(|row| row["server"] == "s2"));
    desk.stop()?;
    // As after a reboot.
    let detached = desk.lab.balancer.command(BALANCER).args(["detach", "--name", "web"]).output(PATIENCE)?;
    ensure!(detached.status.success(), "{}", detached.stderr);
    desk.daemon = Daemon::start(&desk.lab.balancer, Path::new(BALANCER), "web", &flags)?;
    ensure!(desk.get("header=X-User", "alice")?.is_some_and(|row| row["server"] == "s2"));
    ensure!(desk.get("session=JS", KEYS[0].1)?.is_some_and(|row| row["server"] == "s2"));
    // A start that was broken off while it read the file: its tables have no names yet.
    desk.daemon.kill();
    desk.daemon.child.wait(PATIENCE)?;
    let pins = site::pins(&desk.lab).join("web");
    for table in ["session-JS", "header-x-user"] {
        fs::rename(pins.join(table), pins.join(format!("~filling~{table}")))?;
    }
    desk.daemon = Daemon::start(&desk.lab.balancer, Path::new(BALANCER), "web", &flags)?;
    ensure!(desk.daemon.log().contains("entries restored"), "{}", desk.daemon.log());
    ensure!(desk.get("header=X-User", "alice")?.is_some_and(|row| row["server"] == "s2"));
    ensure!(!pins.join("~filling~session-JS").exists() && pins.join("session-JS").exists());
    Ok(())
}

fn user_of_the_file() -> Result<()> {
    let lab = Lab::star().build()?;
    let (theirs, roots) = (folder_of_nobody()?, tempfile::TempDir::new()?);
    let flags_with = |folder: &Path| {
        let path = folder.join("web.state").to_string_lossy().into_owned();
        let flags = flags(&SERVERS, &LEARNING).into_iter().map(str::to_owned);
        flags.chain(["--user", "nobody", "--state-file", &path].map(str::to_owned)).collect::<Vec<_>>()
    };
    let admin = roots.path().join("web.sock");
    let command = lab.balancer.command(BALANCER).args(["run", "--name", "web", "--admin"]).arg(&admin);
    let output = command.args(flags_with(roots.path())).output(PATIENCE)?;
    ensure!(
        output.status.code() == Some(1) && output.stderr.contains("as nobody: permission denied"),
        "{output:?}"
    );
    ensure!(fs::read_dir(roots.path())?.count() == 0, "it leaves nothing behind");
    let flags = flags_with(theirs.path());
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let mut desk = Desk { daemon, lab };
    learn(&desk)?;
    desk.stop()?;
    use std::os::unix::fs::MetadataExt as _;
    let saved = fs::metadata(theirs.path().join("web.state"))?;
    ensure!((saved.uid(), saved.mode() & 0o7777) == (NOBODY, 0o600));
    Ok(())
}

fn collected() -> Result<()> {
    let flags = flags(&SERVERS, &["--persist", "session=JS,timeout=1s,size=1000"]);
    let desk = Desk::open(&flags)?;
    desk.set("session=JS", "abc", "s1")?;
    let cookie = desk.lab.balancer.run(|| -> Result<u64> {
        Ok(balancer::datapath::syscall::netns_cookie(std::net::UdpSocket::bind("127.0.0.1:0")?)?)
    })??;
    let root = balancer::datapath::pins::Pins::locate()?.root().with_file_name(cookie.to_string());
    let (table, _) = KernelTable::open_as_it_is(&root.join("web/session-JS"))?;
    ensure!(count(&table) == 1);
    wait_until(Duration::from_secs(20), "the entry to be collected", || count(&table) == 0)
}
