//! The serving process's side of a hot restart: a conversation on the control thread, beside everything else. Until the
//! last word nothing changes here; and if that is never said, nothing has changed.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::attempt::Attempt;
use super::lessons::{Lessons, Untold};
use super::wire::{
    self, CONSENT, Descriptor, Entries, Frame, Inventory, Note, REQUEST, Ready, ServerState, Yielded,
};
use super::{HAND_OVER_LIMIT, descriptors};
use crate::admin::Desk;
use crate::clock;
use crate::datapath::Datapath;
use crate::intent::ledger::Ledger;
use crate::log;
use crate::server::Server;
use crate::service::Shared;
use crate::table::learned::TableWalk;
use crate::table::{Found, Tables};

/// The other side has closed its socket where it was to say something.
#[derive(Debug)]
struct Ended;

impl Display for Ended {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("it has ended")
    }
}

impl Error for Ended {}

/// What a successor can have.
pub struct Estate {
    service: Shared,
    ledger: Rc<Ledger>,
    datapath: Option<Rc<Datapath>>,
    /// Second descriptors; none once this process is ending.
    descriptors: RefCell<Vec<(Descriptor, OwnedFd)>>,
    is_busy: Cell<bool>,
    /// The last word is being said: whether it is heard will be known in a moment.
    is_yielding: Cell<bool>,
    heirs: mpsc::UnboundedSender<Ready>,
    attempt: Rc<Attempt>,
    untold: Untold,
}

impl Estate {
    /// To be offered at the admin socket. Who has taken everything over is told to `heirs`, what fails of one that this process
    /// has started itself to `attempt`, and other failures to the log.
    pub fn new(
        service: Shared,
        ledger: Rc<Ledger>,
        datapath: Option<Rc<Datapath>>,
        descriptors: Vec<(Descriptor, OwnedFd)>,
        heirs: mpsc::UnboundedSender<Ready>,
        attempt: Rc<Attempt>,
    ) -> Rc<Self> {
        let descriptors = RefCell::new(descriptors);
        let (is_busy, is_yielding) = (Cell::new(false), Cell::new(false));
        let untold = Untold::default();
        Rc::new(Self { service, ledger, datapath, descriptors, is_busy, is_yielding, heirs, attempt, untold })
    }

    /// Until it is certain whether somebody has taken over: a process that is told to stop just then must neither take
    /// anything away from its successor nor leave anything behind.
    pub async fn certainty(&self) {
        while self.is_yielding.get() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Until the successor has been told everything that was learned here.
    pub async fn all_is_told(&self) {
        self.untold.none().await;
    }

    /// This process is ending: its sockets are not to be kept open by what is offered here.
    pub fn close(&self) {
        self.descriptors.borrow_mut().clear();
    }

    fn is_closed(&self) -> bool {
        self.descriptors.borrow().is_empty()
    }

    fn inventory(&self, tables: &Tables) -> Inventory {
        Inventory {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            descriptors: self.descriptors.borrow().iter().map(|(kind, _)| *kind).collect(),
            servers: self.servers(),
            intents: self.ledger.intents(),
            tables: tables.iter().map(|(label, _)| label.to_owned()).collect(),
            kind: tables.kind().map(ToOwned::to_owned),
            hash_key: tables.key(),
            offers_streams: true,
        }
    }

    fn servers(&self) -> Vec<ServerState> {
        let state = |server: &Server| ServerState {
            name: server.name.clone(),
            address: server.address,
            host: server.host.clone(),
            id: server.identity.id,
            operator: server.operator(),
            health: server.health(),
        };
        self.service.servers.iter().map(state).collect()
    }
}

/// Whether a line of the admin socket is a successor's.
pub fn is_asking(line: &str) -> bool {
    line.split_whitespace().next() == Some(REQUEST)
}

/// Holds the conversation that begins with `line`; gives the stream back with what is to be said when there is none.
pub async fn serve(mut stream: UnixStream, desk: &Desk, line: &str) -> Option<(UnixStream, String)> {
    let (estate, pid) = match begin(&stream, desk, line) {
        Ok(begun) => begun,
        Err(refusal) => return Some((stream, refusal)),
    };
    let is_own = estate.attempt.talks(pid);
    estate.is_busy.set(true);
    estate.ledger.freeze(true);
    let conversation = converse(&mut stream, &estate, desk);
    let outcome = match timeout(HAND_OVER_LIMIT, conversation).await {
        Ok(outcome) => outcome,
        Err(_) => Err(anyhow!("it was not ready within {HAND_OVER_LIMIT:?}")),
    };
    let lessons = match outcome {
        Ok((ready, lessons)) => {
            // Nobody listens: the process has come to its end by itself.
            let _ = estate.heirs.send(ready);
            lessons
        }
        Err(error) => {
            let why = log::chain(&error);
            match is_own {
                // What a process has ended with, whoever watches it knows.
                true if is_its_end(&error) => {}
                true => estate.attempt.is_lost(why),
                false => log::warn(format_args!("pid {pid} has not taken over: {why}; this process goes on")),
            }
            if let Some(datapath) = &estate.datapath {
                datapath.speak_again();
            }
            estate.service.servers.publish_all();
            estate.ledger.freeze(false);
            estate.is_busy.set(false);
            None
        }
    };
    estate.is_yielding.set(false);
    if is_own {
        estate.attempt.has_talked();
    }
    if let Some(lessons) = lessons {
        lessons.pass_on(&mut stream).await;
    }
    None
}

fn begin(stream: &UnixStream, desk: &Desk, line: &str) -> Result<(Rc<Estate>, i32), String> {
    let peer = stream.peer_cred().map_err(|error| log::reason(&error))?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        log::warn(format_args!(
            "user {} wanted to take over, and was refused: only root and the user of this process may",
            peer.uid()
        ));
        return Err("only root and the user that the running balancer has may take over from it".to_owned());
    }
    wire::check_request(line, &desk.service.config.name)?;
    match desk.estate.borrow().as_ref() {
        Some(estate) if estate.is_busy.get() => {
            Err("another process is taking over just now; wait until it has, or has failed to".to_owned())
        }
        Some(estate) if !estate.is_closed() => Ok((Rc::clone(estate), peer.pid().unwrap_or(0))),
        _ => Err("the running balancer is just ending; start the new one without --takeover".to_owned()),
    }
}

/// Until the successor has everything that there is. What is learned later it may want as well.
async fn converse(
    stream: &mut UnixStream,
    estate: &Estate,
    desk: &Desk,
) -> anyhow::Result<(Ready, Option<Lessons>)> {
    let tables = &desk.books.tables;
    let begun = clock::boot_seconds();
    stream.write_all(CONSENT).await?;
    say(stream, Note::Inventory(estate.inventory(tables))).await?;
    pass_descriptors(stream, estate).await?;
    let mut bytes = Vec::new();
    let ready = loop {
        match hear(stream, &mut bytes).await? {
            Note::WantEntries => {
                send_entries(stream, tables, None).await?;
                say(stream, Note::NoMoreEntries).await?;
            }
            Note::WantStreams => {
                say(stream, Note::Streams { is_journal: log::is_journal() }).await?;
                pass_streams(stream).await?;
            }
            Note::Ready(ready) => break ready,
            _ => bail!("it says something that was not asked for, so it is of another build"),
        }
    };
    // First of all, so that nothing is missed between these entries and what follows them.
    let lessons = ready.wants_entries.then(|| Lessons::hear(tables, &estate.untold));
    if ready.wants_entries {
        send_entries(stream, tables, Some(begun)).await?;
    }
    if estate.is_closed() {
        bail!("this process has been told to end meanwhile");
    }
    estate.is_yielding.set(true);
    if let Some(datapath) = &estate.datapath {
        datapath.fall_silent();
    }
    // Once this is written the successor serves, whatever becomes of us. Should it die before it does, it is still us
    // who accept.
    let last = Yielded { servers: estate.servers(), history: desk.stats.history() };
    say(stream, Note::Yielded(last)).await?;
    match hear(stream, &mut bytes).await? {
        Note::Serving => Ok((ready, lessons)),
        _ => bail!("it says something that was not asked for, so it is of another build"),
    }
}

/// Whether the other side has closed its socket, as it does when it ends.
fn is_its_end(error: &anyhow::Error) -> bool {
    let is_closed = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    };
    error.is::<Ended>() || error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed))
}

async fn say(stream: &mut UnixStream, note: Note) -> anyhow::Result<()> {
    Ok(stream.write_all(&Frame::Note(note).encode()).await?)
}

async fn hear(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> anyhow::Result<Note> {
    loop {
        match Frame::take(bytes)? {
            Some(Frame::Note(note)) => return Ok(note),
            Some(_) => bail!("it says something that was not asked for, so it is of another build"),
            None => {}
        }
        if stream.read_buf(bytes).await.context("it is gone")? == 0 {
            bail!(Ended);
        }
    }
}

async fn pass_descriptors(stream: &UnixStream, estate: &Estate) -> anyhow::Result<()> {
    let announcement = Frame::Descriptors.encode();
    let mut sent = 0;
    loop {
        stream.writable().await?;
        let outcome = {
            let descriptors = estate.descriptors.borrow();
            let next = descriptors.iter().skip(sent).take(descriptors::MOST);
            let numbers: Vec<RawFd> = next.map(|(_, descriptor)| descriptor.as_raw_fd()).collect();
            if numbers.is_empty() {
                return Ok(());
            }
            let send = || descriptors::send(stream, &announcement, &numbers);
            stream.try_io(Interest::WRITABLE, send).map(|()| numbers.len())
        };
        match outcome {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot pass sockets on"),
        }
    }
}

async fn pass_streams(stream: &UnixStream) -> anyhow::Result<()> {
    let (announcement, numbers) =
        (Frame::Descriptors.encode(), [io::stdout().as_raw_fd(), io::stderr().as_raw_fd()]);
    let send = || descriptors::send(stream, &announcement, &numbers);
    stream.async_io(Interest::WRITABLE, send).await.context("cannot pass stdout and stderr on")
}

/// The live entries, or those that were used last at `since` or later.
async fn send_entries(stream: &mut UnixStream, tables: &Tables, since: Option<u32>) -> anyhow::Result<()> {
    let now = clock::boot_seconds();
    for (number, (_, table)) in (0..).zip(tables.iter()) {
        let expiry = since.map_or(0, |since| since.saturating_add(table.timeout));
        let mut walk = TableWalk::default();
        let mut is_end = false;
        while !is_end {
            // What one step visits is all on probation, or none of it.
            let mut entries = Entries { table: number, ..Entries::default() };
            is_end = table.walk(&mut walk, &mut |key, Found { entry, probation }| {
                entries.probation = probation;
                if entry.is_live(now) && !entry.is_tentative() && entry.expiry() >= expiry {
                    entries.list.push((key, entry));
                }
            });
            if !entries.list.is_empty() {
                stream.write_all(&Frame::Entries(entries).encode()).await?;
            }
            yield_now().await;
        }
    }
    Ok(())
}

/// What is offered of the listening sockets: for each what it was asked for.
pub fn listeners<'a>(
    sockets: impl IntoIterator<Item = &'a std::net::TcpListener>,
    asked: &[SocketAddr],
    actual: &[SocketAddr],
) -> io::Result<Vec<(Descriptor, OwnedFd)>> {
    let mut offered = Vec::new();
    for socket in sockets {
        let address = socket.local_addr()?;
        let place = actual.iter().position(|at| *at == address);
        let asked = place.and_then(|place| asked.get(place)).copied().unwrap_or(address);
        offered.push((Descriptor::Listener(asked), socket.try_clone()?.into()));
    }
    Ok(offered)
}
