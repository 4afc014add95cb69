//! The new process's side of a hot restart. It is starting and has nothing else to do, so it waits for each answer.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context as _, anyhow, bail, ensure};
use balancer_ebpf::affinity::Affinity;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use socket2::SockRef;
use tokio::io::AsyncReadExt;

use super::streams::Streams;
use super::wire::{CONSENT, Descriptor, Entries, Frame, Inventory, Note, Ready, ServerState, request};
use super::{ANSWER_LIMIT, descriptors};
use crate::clock;
use crate::config::Config;
use crate::datapath::Known;
use crate::intent::Intents;
use crate::intent::ledger::Ledger;
use crate::listen::Passed;
use crate::log::{self, reason};
use crate::server::{Identity, Server, Servers};
use crate::service::Shared;
use crate::stats::Sample;
use crate::table::{Found, HashKey, Tables};

/// Longest first line: a refusal.
const LONGEST_LINE: usize = 16 * 1024;

/// The process that serves still.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// Received and not yet looked at.
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// What it has.
    pub inventory: Inventory,
}

/// What it has passed on.
#[derive(Debug, Default)]
pub struct Heritage {
    /// The lock of the instance.
    pub instance: Option<File>,
    /// The lock of the service in this network namespace.
    pub role: Option<File>,
    /// The admin socket.
    pub admin: Option<UnixListener>,
    /// The listening sockets.
    pub listeners: Vec<Passed>,
}

impl Predecessor {
    /// Asks whoever holds the admin socket; `None`: nobody does.
    ///
    /// # Errors
    /// It refuses, or is not to be trusted, or breaks off.
    pub fn find(config: &Config) -> anyhow::Result<Option<Self>> {
        let shown = config.admin.display();
        let stream = match UnixStream::connect(&config.admin) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => bail!("--takeover: cannot ask at {shown}: {}", reason(&error)),
        };
        Self::ask(stream, config)
            .map(Some)
            .with_context(|| format!("--takeover: from the instance at {shown}"))
    }

    fn ask(stream: UnixStream, config: &Config) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        // Whoever made the socket: the predecessor, or one before it. Root may take over from anybody.
        let (maker, we) = (getsockopt(&stream, sockopt::PeerCredentials)?.uid(), geteuid());
        let is_trusted = we.is_root() || [0, we.as_raw()].contains(&maker);
        ensure!(
            is_trusted,
            "its process is of user {maker}, who is neither root nor the user of this one, and is not trusted"
        );
        let inventory = Inventory {
            pid: 0,
            version: String::new(),
            descriptors: Vec::new(),
            servers: Vec::new(),
            intents: Intents::new(),
            tables: Vec::new(),
            kind: None,
            hash_key: HashKey::default(),
            offers_streams: false,
        };
        let mut found = Self { stream, bytes: Vec::new(), descriptors: Vec::new(), inventory };
        found.stream.write_all(request(&config.name).as_bytes())?;
        found.await_consent()?;
        found.inventory = match found.answer()? {
            Frame::Note(Note::Inventory(inventory)) => inventory,
            other => return Err(unexpected(&other)),
        };
        while found.descriptors.len() < found.inventory.descriptors.len() {
            found.receive()?;
        }
        Ok(found)
    }

    /// What was passed on, once.
    ///
    /// # Errors
    /// A descriptor is not what it is said to be.
    pub fn heritage(&mut self) -> anyhow::Result<Heritage> {
        let mut heritage = Heritage::default();
        let received = VecDeque::from(std::mem::take(&mut self.descriptors));
        for (kind, descriptor) in self.inventory.descriptors.iter().zip(received) {
            match *kind {
                Descriptor::Instance => heritage.instance = Some(File::from(descriptor)),
                Descriptor::Role => heritage.role = Some(File::from(descriptor)),
                Descriptor::Admin => heritage.admin = Some(UnixListener::from(descriptor)),
                Descriptor::Listener(asked) => {
                    let is_listening = SockRef::from(&descriptor).is_listener().unwrap_or(false);
                    ensure!(is_listening, "--takeover: what was passed on for {asked} does not listen");
                    heritage.listeners.push(Passed { asked, listener: descriptor.into() });
                }
            }
        }
        Ok(heritage)
    }

    /// What it knows of the servers: what the operator wants of them, and where those with names of hosts are.
    pub fn tell(&self, known: &mut Known) {
        known.intents = Some(self.inventory.intents.clone());
        let named = self.inventory.servers.iter().filter(|server| !server.address.ip().is_unspecified());
        known.last = named
            .filter_map(|server| Some(((server.name.clone(), server.host.clone()?), server.address)))
            .collect();
    }

    /// `server` as the predecessor knows it: its health goes with name and address.
    pub fn resume(&self, server: Server) -> Server {
        let is_it = |known: &&ServerState| known.name == server.name && known.address == server.address;
        match self.inventory.servers.iter().find(is_it) {
            Some(known) => server.with_health(known.health),
            None => server,
        }
    }

    /// Copies the learned entries, unless both processes use the same maps in the kernel. True: there may be later ones.
    ///
    /// # Errors
    /// When the predecessor breaks off.
    pub fn copy_entries(&mut self, tables: &Tables, servers: &Servers) -> anyhow::Result<bool> {
        let Some(theirs) = &self.inventory.kind else { return Ok(false) };
        // A version with other maps may have left us nothing.
        let is_shared = !tables.iter().any(|(label, table)| table.is_new && self.has_table(label));
        if theirs == "kernel" && tables.kind() == Some("kernel") && is_shared {
            return Ok(false);
        }
        let names = self.identities(servers);
        self.say(Note::WantEntries)?;
        loop {
            match self.answer()? {
                Frame::Entries(entries) => self.put(tables, &entries, &names),
                Frame::Note(Note::NoMoreEntries) => return Ok(true),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Its stdout and stderr; `None`: it is of a build that keeps them to itself.
    ///
    /// # Errors
    /// When it breaks off.
    pub fn streams(&mut self) -> anyhow::Result<Option<Streams>> {
        if !self.inventory.offers_streams {
            return Ok(None);
        }
        self.say(Note::WantStreams)?;
        let is_journal = match self.answer()? {
            Frame::Note(Note::Streams { is_journal }) => is_journal,
            other => return Err(unexpected(&other)),
        };
        loop {
            if let [_, _] = *self.descriptors
                && let (Some(stderr), Some(stdout)) = (self.descriptors.pop(), self.descriptors.pop())
            {
                return Ok(Some(Streams { stdout, stderr, is_journal }));
            }
            self.receive()?;
        }
    }

    /// Whether entries of that table have come, or are there anyway.
    pub fn has_table(&self, label: &str) -> bool {
        self.inventory.tables.iter().any(|theirs| theirs.eq_ignore_ascii_case(label))
    }

    /// Tells it to let go; when this returns without an error it has fallen silent, and waits for [`Self::serving`]. With
    /// the last news of servers and entries; returns what its charts show.
    ///
    /// # Errors
    /// It goes on itself, as far as can be known.
    pub fn succeed(
        &mut self,
        ready: Ready,
        tables: &Tables,
        servers: &Servers,
        ledger: &Ledger,
    ) -> anyhow::Result<Vec<Sample>> {
        let names = self.identities(servers);
        self.say(Note::Ready(ready))?;
        loop {
            match self.answer()? {
                Frame::Entries(entries) => self.put(tables, &entries, &names),
                Frame::Note(Note::Yielded(yielded)) => {
                    yielded.servers.iter().for_each(|server| update(servers, ledger, server));
                    return Ok(yielded.history);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Entries of a table that is not wanted here, or whose hashes are of another key, are left out.
    fn put(&self, tables: &Tables, entries: &Entries, names: &HashMap<u16, Identity>) {
        let label = self.inventory.tables.get(usize::from(entries.table));
        let Some(table) = label.and_then(|label| tables.by_label(label)) else { return };
        if !table.is_of_sources() && self.inventory.hash_key != tables.key() {
            return;
        }
        let now = clock::boot_seconds();
        for (key, entry) in &entries.list {
            let is_news = table.get(key).is_none_or(|known| known.expiry() <= entry.expiry());
            if !entry.is_live(now) || !is_news {
                continue;
            }
            if let Some(entry) = renamed(*entry, table.is_of_sources(), names) {
                // A table that refuses costs this client a new choice.
                let _ = table.restore(key, Found { entry, probation: entries.probation });
            }
        }
    }

    /// Tells it that clients are served here.
    ///
    /// # Errors
    /// It has given up waiting and goes on itself.
    pub fn serving(&mut self) -> anyhow::Result<()> {
        self.say(Note::Serving)
    }

    /// Hears what it learns from its last answers, until it ends.
    pub async fn follow(mut self, tables: Tables, service: Shared) {
        let names = self.identities(&service.servers);
        let stream = self.stream.set_nonblocking(true).and_then(|()| self.stream.try_clone());
        let Ok(mut stream) = stream.and_then(tokio::net::UnixStream::from_std) else { return };
        loop {
            match Frame::take(&mut self.bytes) {
                Ok(Some(Frame::Entries(entries))) => self.put(&tables, &entries, &names),
                Ok(None) => match stream.read_buf(&mut self.bytes).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                },
                Ok(Some(_)) | Err(_) => return,
            }
        }
    }

    /// Its ids of servers → ours.
    fn identities(&self, servers: &Servers) -> HashMap<u16, Identity> {
        let ours = |theirs: &ServerState| Some((theirs.id, servers[servers.by_name(&theirs.name)?].identity));
        self.inventory.servers.iter().filter_map(ours).collect()
    }

    fn await_consent(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                if line == CONSENT {
                    return Ok(());
                }
                let line = String::from_utf8_lossy(&line);
                bail!("{}", line.trim_end().trim_start_matches("error: "));
            }
            ensure!(
                self.bytes.len() <= LONGEST_LINE,
                "it has answered with something that is no answer; is it a balancer?"
            );
            self.receive()?;
        }
    }

    fn say(&mut self, note: Note) -> anyhow::Result<()> {
        self.stream.write_all(&Frame::Note(note).encode()).map_err(|error| broken_off(&error))
    }

    fn answer(&mut self) -> anyhow::Result<Frame> {
        loop {
            match Frame::take(&mut self.bytes)? {
                Some(Frame::Descriptors) => {}
                Some(frame) => return Ok(frame),
                None => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; 64 * 1024];
        match descriptors::receive(&self.stream, &mut piece, &mut self.descriptors) {
            Ok(0) => Err(broken_off(&ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.bytes.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(broken_off(&error)),
        }
    }
}

/// The entry with our ids in it; `None`: its server is not there any more.
fn renamed(entry: Affinity, is_of_source: bool, names: &HashMap<u16, Identity>) -> Option<Affinity> {
    let Identity { id, generation } = names.get(&entry.server())?;
    if is_of_source {
        return Some(entry.renamed(*id, *generation));
    }
    let left = entry.instead_of().and_then(|left| names.get(&left)).map(|left| left.id);
    Some(Affinity::learned(*id, entry.expiry()).with_instead_of(left))
}

/// An operator may have spoken since the inventory was taken.
fn update(servers: &Servers, ledger: &Ledger, known: &ServerState) {
    let Some(index) = servers.by_name(&known.name) else { return };
    if servers[index].operator() != known.operator {
        servers.set_operator(index, known.operator);
        if let Err(error) = ledger.wish(&known.name, known.operator) {
            log::warn(format_args!("server {}: what was changed {}", known.name, log::chain(&error)));
        }
    }
    if servers[index].address == known.address {
        servers.set_health(index, known.health);
    }
}

fn broken_off(error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            anyhow!("it has broken off the hand-over")
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => anyhow!("it has not answered within {ANSWER_LIMIT:?}"),
        _ => anyhow!("{}", reason(error)),
    }
}

fn unexpected(frame: &Frame) -> anyhow::Error {
    let what = match frame {
        Frame::Note(note) => format!("{note:?}"),
        Frame::Entries(_) => "entries".to_owned(),
        Frame::Descriptors => "descriptors".to_owned(),
    };
    anyhow!(
        "it has answered with something else than was asked for, so it is of another build; stop it and \
         start this one without --takeover: {what:.60}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_other_ids_here() {
        let ours = |id| Identity { id, generation: 4 };
        let names = HashMap::from([(1, ours(21)), (2, ours(22))]);
        let source = Affinity::new(1, 9, 500).with_ambiguity(100, 1600);
        let expected = Affinity::new(21, 4, 500).with_ambiguity(100, 1600);
        assert_eq!(renamed(source, true, &names), Some(expected));
        let session = Affinity::learned(2, 500).with_instead_of(Some(1));
        let expected = Affinity::learned(22, 500).with_instead_of(Some(21));
        assert_eq!(renamed(session, false, &names), Some(expected));
        let left = Affinity::learned(2, 500).with_instead_of(Some(3));
        assert_eq!(renamed(left, false, &names), Some(Affinity::learned(22, 500)), "nobody leads back there");
        assert_eq!(renamed(Affinity::learned(3, 500), false, &names), None);
    }
}
