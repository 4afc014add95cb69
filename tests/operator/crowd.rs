//! Clients of the admin socket that mean no good, or whose pager is open: they cost little, and nobody else waits for them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Daemon, Origin, PATIENCE, eventually};

/// Larger than what the kernel holds for somebody who does not read.
const ENTRIES: usize = 16_000;

/// Half of the places.
const READERS: usize = 32;

/// For whoever behaves: what it takes here is milliseconds, and a second while a place is being made.
const PROMPT: Duration = Duration::from_secs(5);

fn dial(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.admin()).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream
}

fn say(daemon: &Daemon, line: &str) -> String {
    let mut stream = dial(daemon);
    writeln!(stream, "{line}").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Bytes that the process has in memory.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// An operator and a user, as if nothing were the matter; where a crowd has just come it takes a second to find out who of
/// them says nothing.
fn is_as_ever(daemon: &Daemon) {
    let start = Instant::now();
    let ask = || {
        let mut stream = dial(daemon);
        let mut answer = String::new();
        let told = writeln!(stream, "show servers").and_then(|()| stream.read_to_string(&mut answer));
        told.is_ok() && answer.contains("s1")
    };
    eventually("an answer", ask);
    assert!(daemon.get().starts_with("HTTP/1.1 200 "));
    assert!(start.elapsed() < PROMPT, "it has taken {:?}", start.elapsed());
}

#[test]
fn who_asks_for_tables_and_never_reads_takes_neither_memory_nor_anybodys_turn() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!("--check none --persist session=JS --server s1={}", origin.address));
    let keys: Vec<_> = (0..ENTRIES).collect();
    for some in keys.chunks(200) {
        let set = some.iter().map(|key| format!("set table session=JS key k{key} data.server_key s1"));
        assert!(!say(&daemon, &set.collect::<Vec<_>>().join(";")).contains("error"));
    }
    let table = say(&daemon, "show table session=JS");
    assert_eq!(table.lines().filter(|line| line.starts_with("0x")).count(), ENTRIES);
    let (size, at_rest) = (table.len() as u64, resident(&daemon));
    assert!(size > 1_000_000, "{size}");
    let readers = (0..READERS).map(|_| {
        let mut stream = dial(&daemon);
        writeln!(stream, "{}", ["show table session=JS"; 10].join(";")).expect("sent");
        stream
    });
    let readers: Vec<_> = readers.collect();
    let mut most = 0;
    for _ in 0..10 {
        is_as_ever(&daemon);
        most = most.max(resident(&daemon));
    }
    // Four at a time, which are being made or wait to be taken.
    let bound = at_rest + 8 * size + 8 * 1024 * 1024;
    assert!(most < bound, "{most} bytes, {at_rest} before; an answer has {size}");
    // Each of those before has a second.
    let start = Instant::now();
    let mut stream = dial(&daemon);
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    writeln!(stream, "show table session=JS").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer.len() as u64, size);
    assert!(start.elapsed() < Duration::from_secs(40), "it has taken {:?}", start.elapsed());
    let cut_off = readers.into_iter().filter(|mut reader| {
        let mut rest = Vec::new();
        // The end, or that it was cut off.
        let end = reader.read_to_end(&mut rest);
        assert!(!matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock), "it is still served");
        (rest.len() as u64) < size
    });
    // Nobody needed the places of the last ones.
    let cut_off = cut_off.count();
    assert!(cut_off >= READERS - 4, "{cut_off}");
}

#[test]
fn a_thousand_connections_and_an_endless_line_are_borne() {
    let origin = Origin::start();
    let daemon = Daemon::start(&format!("--check none --server s1={}", origin.address));
    is_as_ever(&daemon);
    let at_rest = resident(&daemon);
    let held: Vec<_> = (0..1000).map(|_| dial(&daemon)).collect();
    is_as_ever(&daemon);
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
    assert!(descriptors < 250, "{descriptors} descriptors");
    let endless = vec![b'x'; 64 * 1024];
    let mut stream = dial(&daemon);
    let start = Instant::now();
    // What is beyond the limit is thrown away, for a moment, and then the connection.
    let sent = (0..1000).map_while(|_| stream.write_all(&endless).ok()).count();
    assert!(start.elapsed() < PROMPT, "it was read for {:?}, {sent} pieces", start.elapsed());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("error: the line is longer than 16384 bytes"), "{answer}");
    // The same without an end, nor another byte.
    let mut halves: Vec<_> = (0..200).map(|_| dial(&daemon)).collect();
    halves.iter_mut().for_each(|stream| {
        let _ = stream.write_all(&endless[..16 * 1024]);
    });
    is_as_ever(&daemon);
    let most = resident(&daemon);
    assert!(most < at_rest + 16 * 1024 * 1024, "{most} bytes, {at_rest} before");
    drop((held, halves));
    eventually("all to be as before", || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count() < 80
    });
    is_as_ever(&daemon);
}
