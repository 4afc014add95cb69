//! `kill -9`.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use balancer::clock;
use balancer::state_file::format::{Entry, Header, Writer};
use balancer::table::{HashKey, Key};
use tempfile::TempDir;
use xtask::lab::http::{Connection, Response};
use xtask::lab::{Namespace, wait_until};

use crate::stand::{FRONT, Seen, Stand};

const CLIENTS: u8 = 8;

/// Of each client: together a thousand requests a second, if the host is fast enough.
const PAUSE: Duration = Duration::from_millis(8);

/// Requests of an address: one may bring a few hundred new keys a minute.
const VISITS: usize = 40;

/// Sessions that have been answered when the process is killed.
const ENOUGH: u32 = 3000;

/// A session that a server has given.
struct Taught {
    id: String,
    server: String,
    at: Instant,
}

pub fn under_load() -> Result<()> {
    let flags = ["--persist", "session=JS,timeout=1000s,size=200k"];
    let mut stand = Stand::open(&flags)?;
    let (count, is_killed) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let load = Load {
                ns: stand.lab.balancer.clone(),
                number,
                count: Arc::clone(&count),
                is_killed: Arc::clone(&is_killed),
            };
            thread::spawn(move || load.run())
        })
        .collect();
    let begun = Instant::now();
    let limit = Duration::from_secs(60);
    let enough = wait_until(limit, "sessions", || {
        count.load(Ordering::Relaxed) >= ENOUGH || clients.iter().any(thread::JoinHandle::is_finished)
    });
    let seconds = begun.elapsed().as_secs_f64();
    is_killed.store(true, Ordering::SeqCst);
    let killed = Instant::now();
    stand.daemon.kill();
    let taught: Result<Vec<_>> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    let taught: Vec<_> = taught?.into_iter().flatten().collect();
    enough?;
    println!("{} sessions, {:.0} a second", taught.len(), taught.len() as f64 / seconds);

    stand.crash(&flags)?;
    let shown = stand.agrees_with_the_kernel()?;
    ensure!(shown >= taught.len(), "{shown} entries, {} sessions", taught.len());
    // What is promised is everything older than 100 ms. Tables are written before the answer goes on, so nothing at all
    // is missing that a client has heard of.
    let mut connection = stand.connect(Ipv4Addr::LOCALHOST)?;
    for Taught { id, server, at } in &taught {
        let age = killed.saturating_duration_since(*at);
        let found = stand.server_of(id).with_context(|| format!("{id}, {age:?} before the end"))?;
        ensure!(found == *server, "{id}, {age:?} before the end: {found} instead of {server}");
        let answered = ask(&mut connection, id)?;
        ensure!(answered == *server, "{id}: {answered} answers instead of {server}");
    }
    Ok(())
}

struct Load {
    ns: Namespace,
    number: u8,
    count: Arc<AtomicU32>,
    is_killed: Arc<AtomicBool>,
}

impl Load {
    /// Until the process is killed; an error before that is one.
    fn run(&self) -> Result<Vec<Taught>> {
        let (mut taught, mut next) = (Vec::new(), Instant::now());
        loop {
            if let Err(error) = self.visits(&mut taught, &mut next) {
                return if self.is_killed.load(Ordering::SeqCst) { Ok(taught) } else { Err(error) };
            }
        }
    }

    /// Those of one address.
    fn visits(&self, taught: &mut Vec<Taught>, next: &mut Instant) -> Result<()> {
        let place = u8::try_from(taught.len() / VISITS % 250)?;
        let source = Ipv4Addr::new(127, 1, self.number, place + 1);
        let mut connection = Connection::open(&self.ns, Some(source), FRONT)?;
        for visit in 0..VISITS {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            *next += PAUSE;
            let response = connection.get("/", &[])?;
            let server = server(&response)?;
            let cookie = response.header("Set-Cookie").context("a session")?;
            let id = cookie
                .strip_prefix("JS=")
                .and_then(|rest| rest.split(';').next())
                .context("an id")?
                .to_owned();
            taught.push(Taught { id, server, at: Instant::now() });
            self.count.fetch_add(1, Ordering::Relaxed);
            // Some leave their probation.
            if visit % 4 == 0 {
                let Taught { id, server, .. } = taught.last().context("just pushed")?;
                let answered = ask(&mut connection, id)?;
                ensure!(answered == *server, "{id}: {answered} answers instead of {server}");
            }
        }
        Ok(())
    }
}

/// Who answers a request of that session.
fn ask(connection: &mut Connection, id: &str) -> Result<String> {
    server(&connection.get("/", &[("Cookie", &format!("JS={id}"))])?)
}

fn server(response: &Response) -> Result<String> {
    ensure!(response.status == 200, "status {}", response.status);
    Ok(response.header("X-Server").context("a name")?.to_owned())
}

const SESSIONS: u32 = 100_000;
const TIMEOUT: u32 = 10_000;

pub fn id(n: u32) -> String {
    format!("session-{n}")
}

/// Every life is another one.
pub fn life(n: u32) -> u32 {
    2000 + n % 7919
}

pub fn is_on_probation(n: u32) -> bool {
    n % 4 == 3
}

pub fn full_tables() -> Result<()> {
    let folder = TempDir::new()?;
    let (path, key) = (folder.path().join("web.state"), HashKey::from_bytes([9; 16]));
    // Saving takes its time as well, and lives are from there.
    let started = clock::boot_seconds();
    save(&path, key, SESSIONS)?;
    let methods = format!("session=JS,timeout={TIMEOUT}s,size=200k");
    let flags = ["--persist", &methods, "--state-file", path.to_str().context("a path")?];
    let mut stand = Stand::open(&flags)?;
    let log = stand.daemon.log();
    ensure!(log.contains(&format!("state file: {SESSIONS} entries restored")), "{log}");
    ensure!(stand.hash_key()? == key);
    let before = stand.dump()?;
    is_as_it_was_saved(&before, &stand.names()?, key, started)?;

    stand.crash(&flags)?;
    let log = stand.daemon.log();
    ensure!(!log.contains("restored"), "what is in the kernel is newer than any file: {log}");
    // To the bit, expiry included.
    ensure!(stand.dump()? == before, "entries have changed");
    ensure!(stand.agrees_with_the_kernel()? == SESSIONS as usize);
    let mut connection = stand.connect(Ipv4Addr::LOCALHOST)?;
    for n in (0..SESSIONS).step_by(997) {
        let (server, id) = (["s1", "s2"][(n % 2) as usize], id(n));
        ensure!(stand.server_of(&id)? == server, "{id}");
        ensure!(ask(&mut connection, &id)? == server, "{id}");
    }
    Ok(())
}

/// A state file with so many sessions, of s1 and s2 in turns.
pub fn save(path: &Path, key: HashKey, sessions: u32) -> Result<()> {
    let file = fs::File::create(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let servers = ["s1", "s2"].map(str::to_owned).into();
    let header =
        Header { service: "web".into(), saved: clock::unix_seconds(), key, intent: Vec::new(), servers };
    let mut writer = Writer::begin(BufWriter::new(file), &header)?;
    writer.table("session=JS")?;
    for n in 0..sessions {
        writer.entry(&Entry {
            key: key.hash(id(n).as_bytes()),
            server: (n % 2) as u16,
            life: life(n),
            probation: is_on_probation(n),
            ambiguous: false,
            left: None,
        })?;
    }
    writer.finish()?;
    Ok(())
}

fn is_as_it_was_saved(
    entries: &BTreeMap<Key, Seen>,
    names: &BTreeMap<u16, String>,
    key: HashKey,
    started: u32,
) -> Result<()> {
    ensure!(entries.len() == SESSIONS as usize, "{} entries", entries.len());
    for n in 0..SESSIONS {
        let Seen { entry, probation } = entries.get(&key.hash(id(n).as_bytes())).context("an entry")?;
        let server = names.get(&entry.server()).context("a server")?;
        ensure!(*server == ["s1", "s2"][(n % 2) as usize] && *probation == is_on_probation(n), "{}", id(n));
        // The seconds in which the process was started may or may not count.
        let end = started + life(n);
        ensure!(
            (end - 1..=end + 15).contains(&entry.expiry()),
            "{}: {} instead of {end}",
            id(n),
            entry.expiry()
        );
    }
    Ok(())
}
