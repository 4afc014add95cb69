use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::balance::Balance;
use crate::cli;
use crate::config::{Host, Plan};
use crate::intent::{Intent, Intents, record};
use crate::server::Operator;
use crate::server::tests::{named, servers};
use crate::service::{Service, Shared};

const LIST: &str = "--persist session=JS,timeout=1000s,size=100 --persist source,timeout=1600s,size=100";

fn maint() -> Intent {
    Intent { wish: Some(Operator::Maint), ..Intent::default() }
}

struct Stage {
    folder: tempfile::TempDir,
    service: Shared,
    tables: Tables,
}

impl Stage {
    /// Two servers; one session in use that has been moved away from s1, one on probation, two addresses.
    fn new() -> Self {
        let stage = Self::empty(LIST, servers(2));
        let now = clock::boot_seconds();
        let session = stage.tables.by_label("session=JS").expect("there");
        let used = Affinity::learned(2, now + 500).with_instead_of(Some(1));
        session.restore(&[1; 16], Found { entry: used, probation: false }).expect("room");
        let once = Found { entry: Affinity::learned(1, now + 900), probation: true };
        session.restore(&[2; 16], once).expect("room");
        let source = stage.tables.source().expect("there");
        let address = |text: &str| source.source_key(text.parse().expect("address"));
        source.put(&address("10.0.0.1"), Affinity::new(1, 7, now + 800)).expect("room");
        let shared = Affinity::new(2, 7, now + 800).with_ambiguity(now, 1600);
        source.put(&address("10.0.0.2"), shared).expect("room");
        source.put(&address("10.0.0.3"), Affinity::new(2, 7, now + 10).tentative()).expect("room");
        source.put(&address("10.0.0.4"), Affinity::new(9, 7, now + 800)).expect("room");
        source.put(&address("10.0.0.5"), Affinity::new(1, 7, now)).expect("room");
        stage
    }

    fn empty(list: &str, servers: Servers) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("web.state");
        Self::at(list, servers, folder, &path)
    }

    fn at(list: &str, servers: Servers, folder: tempfile::TempDir, path: &Path) -> Self {
        let line = format!(
            "balancer run --name web --listen 127.0.0.1:80 --server s1=10.0.0.1:80 --admin /x/y.sock {list} \
             --state-file {}",
            path.display()
        );
        let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split_whitespace().map(Into::into)) else {
            panic!("{line}");
        };
        let config = Plan::new(&run, settings, &Host::read()).expect("valid").config;
        let tables = Tables::in_memory(&config.persist, HashKey::random().expect("random bytes"));
        let balance = Balance::new(config.balance.clone(), &servers);
        Self { folder, service: Arc::new(Service { config, servers, balance }), tables }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.state")
    }

    fn save(&self) {
        let intent = vec![record::line("s2", &maint()), "s9 broken".to_owned()];
        keeper::save(&self.path(), &self.service, &self.tables, intent, Duration::ZERO, || true)
            .expect("saved");
    }

    /// What another process finds there.
    fn find(&self) -> Option<Kept> {
        Kept::find(&self.service.config).expect("no other thing is there")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("readable").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().expect("a name")).collect();
        names.sort();
        names
    }
}

fn all(tables: &Tables) -> Vec<(String, Key, Found)> {
    let mut found = Vec::new();
    for (label, table) in tables.iter() {
        table.for_each(|key, entry| found.push((label.to_owned(), key, entry)));
    }
    found.sort_unstable_by_key(|(label, key, _)| (label.clone(), *key));
    found
}

use crate::table::Key;

#[test]
fn entries_come_back_with_what_is_left_of_their_lives_and_follow_the_names() {
    let stage = Stage::new();
    stage.save();
    let mode = fs::metadata(stage.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(stage.names(), ["web.state"]);
    let kept = stage.find().expect("whole");
    assert_eq!(
        (kept.key(), kept.intents()),
        (stage.tables.key(), Intents::from([("s2".to_owned(), maint())]))
    );
    // The other way round, and with other ids.
    let renamed = Servers::new(vec![server_named("s2", 5), server_named("s1", 6)]);
    let tables = Tables::in_memory(&stage.service.config.persist, kept.key());
    let note = kept.restore(&tables, &renamed, |_| false);
    assert!(note.starts_with("state file: 4 entries restored, saved "), "{note}");
    let now = clock::boot_seconds();
    let entries = all(&tables);
    let told: Vec<_> = entries
        .iter()
        .map(|(label, _, found)| {
            (label.as_str(), found.entry.server(), found.probation, (found.entry.expiry() + 5 - now) / 100)
        })
        .collect();
    let expected = [
        ("session=JS", 5, false, 5),
        ("session=JS", 6, true, 9),
        ("source", 6, false, 8),
        ("source", 5, false, 8),
    ];
    assert_eq!(told, expected);
    assert_eq!(entries[0].2.entry.instead_of(), Some(6));
    assert_eq!(entries[2].2.entry.generation(), 1, "the one of the server as it is now");
    assert_eq!(
        entries.iter().filter(|(label, _, found)| label == "source" && found.entry.is_ambiguous()).count(),
        1
    );
}

fn server_named(name: &str, id: u16) -> crate::server::Server {
    let identity = crate::server::Identity { id, generation: 1 };
    crate::server::Server::new(name.into(), None, named(1).address, identity)
}

#[test]
fn what_does_not_belong_here_is_left_out_and_counted() {
    let stage = Stage::new();
    stage.save();
    let restore = |list: &str, key: HashKey, servers: &Servers, is_known: &dyn Fn(&str) -> bool| {
        let other = Stage::empty(list, self::servers(1));
        let tables = Tables::in_memory(&other.service.config.persist, key);
        let note = stage.find().expect("whole").restore(&tables, servers, is_known);
        (all(&tables).len(), note)
    };
    let (key, two, one) = (stage.tables.key(), servers(2), servers(1));
    let (count, note) = restore(LIST, key, &one, &|_| false);
    assert_eq!(count, 2);
    assert!(note.contains("2 name servers that are not there"), "{note}");
    let (count, note) = restore("--persist session=OTHER --persist source", key, &two, &|_| false);
    assert_eq!(count, 2);
    assert!(note.contains("2 are of tables that need none, or are not there"), "{note}");
    let other_key = HashKey::from_bytes([1; 16]);
    assert_eq!(restore(LIST, other_key, &two, &|_| false).0, 2, "hashes of another key match nothing");
    assert_eq!(restore(LIST, key, &two, &|label| label == "source").0, 2, "a predecessor has it");
    let (_, note) = restore("--persist session=JS,size=1,nopurge", key, &two, &|_| false);
    assert!(note.starts_with("state file: 2 entries restored, 2 are of tables"), "{note}");
    // Longer than the tables of today keep anything.
    let short = Stage::empty("--persist session=JS,timeout=100s", servers(2));
    let tables = Tables::in_memory(&short.service.config.persist, key);
    stage.find().expect("whole").restore(&tables, &two, |_| false);
    let latest = all(&tables).iter().map(|(_, _, found)| found.entry.expiry()).max().expect("some");
    assert!(latest <= clock::boot_seconds() + 100);
}

#[test]
fn what_nobody_has_used_meanwhile_is_older() {
    let stage = Stage::new();
    stage.save();
    let mut kept = stage.find().expect("whole");
    kept.header.saved -= 850;
    let tables = Tables::in_memory(&stage.service.config.persist, kept.key());
    let note = kept.restore(&tables, &servers(2), |_| false);
    assert!(note.contains("1 entry restored, 3 have expired"), "{note}");
    let left = all(&tables)[0].2.entry.expiry() - clock::boot_seconds();
    assert!((40..=50).contains(&left), "{left}");
}

#[test]
fn what_is_broken_or_foreign_is_set_aside_and_nothing_is_overwritten() {
    let stage = Stage::new();
    assert!(stage.find().is_none(), "there is none");
    stage.save();
    let whole = fs::read(stage.path()).expect("there");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let header = Header { service: "shop".into(), ..stage.find().expect("whole").header };
    let foreign =
        format::Writer::begin(Vec::new(), &header).and_then(format::Writer::finish).expect("memory");
    let contents = [&whole[..whole.len() - 30], &flipped, &foreign, b"", b"#!/bin/sh\n"];
    for content in contents {
        fs::write(stage.path(), content).expect("written");
        assert!(stage.find().is_none());
        assert!(!stage.path().exists());
    }
    let aside = |number: usize| match number {
        0 => "web.state.broken".to_owned(),
        n => format!("web.state.broken-{n}"),
    };
    assert_eq!(stage.names(), (0..contents.len()).map(aside).collect::<Vec<_>>());
    for (number, content) in contents.iter().enumerate() {
        assert_eq!(fs::read(stage.folder.path().join(aside(number))).expect("there"), *content);
    }
}

#[test]
fn what_others_could_have_written_is_refused() {
    let stage = Stage::new();
    for mode in [0o620, 0o602, 0o666] {
        stage.save();
        fs::set_permissions(stage.path(), Permissions::from_mode(mode)).expect("set");
        assert!(stage.find().is_none(), "{mode:o}");
    }
    stage.save();
    let elsewhere = stage.folder.path().join("elsewhere");
    fs::rename(stage.path(), &elsewhere).expect("renamed");
    symlink(&elsewhere, stage.path()).expect("linked");
    assert!(stage.find().is_none(), "a link");
    assert!(elsewhere.exists());
    if geteuid().is_root() {
        stage.save();
        std::os::unix::fs::chown(stage.path(), Some(65534), None).expect("given away");
        assert!(stage.find().is_none(), "somebody else's");
    }
    stage.save();
    assert!(stage.find().is_some());
    fs::remove_file(stage.path()).expect("removed");
    fs::create_dir(stage.path()).expect("made");
    let refused = Kept::find(&stage.service.config).expect_err("a folder").to_string();
    assert!(refused.contains("something that is not a file is there"), "{refused}");
}

#[test]
fn saving_replaces_all_or_nothing_and_leaves_nothing_behind() {
    let stage = Stage::new();
    stage.save();
    let before = fs::read(stage.path()).expect("there");
    let failed = file::replace(&stage.path(), |_| Err(io::ErrorKind::StorageFull.into()), || true);
    assert!(failed.is_err());
    file::replace(&stage.path(), |_| Ok(()), || false).expect("not wanted");
    assert_eq!((fs::read(stage.path()).expect("there"), stage.names().len()), (before, 1));
    // Of a process that was killed: no process has the largest number there can be.
    fs::write(stage.folder.path().join("web.state.new-2147483647"), "half").expect("written");
    fs::write(stage.folder.path().join("web.state.newer"), "not ours").expect("written");
    stage.find().expect("whole");
    assert_eq!(stage.names(), ["web.state", "web.state.newer"]);
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    let stage =
        Stage::at(LIST, servers(1), tempfile::tempdir().expect("folder"), Path::new("/proc/none/web.state"));
    let refused = check(&stage.service.config).expect_err("no such folder").to_string();
    assert!(
        refused.starts_with("--state-file /proc/none/web.state: cannot write to /proc/none: "),
        "{refused}"
    );
    check(&Stage::new().service.config).expect("it can be written");
}

#[test]
fn the_keeper_saves_when_it_is_told_to_end_and_not_when_somebody_else_has_the_file() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let stage = Stage::new();
    let start = || {
        let (service, tables) = (Arc::clone(&stage.service), stage.tables.handle());
        Keeper::start(stage.path(), service, tables, Box::new(Vec::new)).expect("a thread")
    };
    start().abandon();
    drop(start());
    runtime.block_on(start().finish());
    assert!(stage.find().is_some());
    assert_eq!(stage.names(), ["web.state"]);
}
