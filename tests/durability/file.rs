//! `--state-file` of a process that may not use BPF: all that is left of its sessions once it has ended.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use balancer::clock;
use balancer::state_file::format::{self, Entry, Header};
use balancer::table::{HashKey, Key};
use nix::sys::signal::Signal;
use xtask::lab::{Child, Lab};

use crate::crash::{id, is_on_probation, life, save};
use crate::reload::{NOBODY, World};
use crate::site::PATIENCE;

const SESSIONS: u32 = 1000;
const KEY: HashKey = HashKey::from_bytes([5; 16]);

/// A state file of nobody's.
fn saved(world: &World) -> Result<PathBuf> {
    let path = world.folder.path().join("web.state");
    save(&path, KEY, SESSIONS)?;
    chown(&path, Some(NOBODY), Some(NOBODY))?;
    Ok(path)
}

fn start(world: &World, path: &Path) -> Result<Child> {
    let child = world.start(&["--state-file", path.to_str().context("a path")?])?;
    ensure!(world.ask("show process json")?["tables"] == "memory", "{}", child.stderr());
    Ok(child)
}

fn stop(mut child: Child) -> Result<()> {
    child.signal(Signal::SIGTERM)?;
    ensure!(child.wait(PATIENCE)?.success(), "{}", child.stderr());
    Ok(())
}

fn read(path: &Path) -> Result<(Header, BTreeMap<Key, Entry>)> {
    let mut entries = BTreeMap::new();
    let header = format::read(BufReader::new(File::open(path)?), &mut |table, entry| {
        assert_eq!(table, "session=JS");
        entries.insert(entry.key, entry);
    })?;
    Ok((header, entries))
}

pub fn as_they_were() -> Result<()> {
    let lab = Lab::star().build()?;
    let world = World::open(&lab.balancer, NOBODY)?;
    let path = saved(&world)?;
    let begun = clock::boot_seconds();
    // Once more, so that what is restored is what was saved by the process itself.
    for run in 0..2 {
        let child = start(&world, &path)?;
        let log = child.stderr();
        ensure!(log.contains(&format!("state file: {SESSIONS} entries restored")), "run {run}: {log}");
        for n in (0..SESSIONS).step_by(101) {
            let rows = world.ask(&format!("show table session=JS key {} json", id(n)))?;
            ensure!(rows[0]["server"] == ["s1", "s2"][(n % 2) as usize], "run {run}, {}: {rows}", id(n));
        }
        stop(child)?;
    }
    let there = fs::metadata(&path)?;
    ensure!((there.uid(), there.mode() & 0o7777) == (NOBODY, 0o600));
    let (header, entries) = read(&path)?;
    ensure!(header.key == KEY && header.servers == ["s1", "s2"] && entries.len() == SESSIONS as usize);
    // Each saving and each start may round by a second.
    let spent = clock::boot_seconds() - begun + 4;
    for n in 0..SESSIONS {
        let entry = entries.get(&KEY.hash(id(n).as_bytes())).with_context(|| id(n))?;
        let is_it = u32::from(entry.server) == n % 2 && entry.probation == is_on_probation(n);
        ensure!(is_it && (life(n) - spent..=life(n)).contains(&entry.life), "{}: {entry:?}", id(n));
    }
    Ok(())
}

pub fn of_others() -> Result<()> {
    let lab = Lab::star().build()?;
    let world = World::open(&lab.balancer, NOBODY)?;
    let path = saved(&world)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620))?;
    let forged = fs::read(&path)?;
    let child = start(&world, &path)?;
    let (log, aside) = (child.stderr(), path.with_extension("state.broken"));
    ensure!(log.contains("web.state: others can write to it") && !log.contains("entries restored"), "{log}");
    ensure!(fs::read(&aside)? == forged && !path.exists(), "it is kept for whoever wants to know");
    ensure!(world.ask("show table session=JS json")?.as_array().is_some_and(Vec::is_empty));
    stop(child)?;
    let (header, entries) = read(&path)?;
    ensure!(header.key != KEY && entries.is_empty(), "its key is nobody else's");
    Ok(())
}
