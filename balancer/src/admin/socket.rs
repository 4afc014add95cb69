//! The Unix socket: owner only, replaced by rename, and limits for whoever talks to it.
//!
//! A hot restart passes the listening socket itself on: the file stays, and no operator meets a gap.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use nix::unistd::{getegid, geteuid};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::Desk;
use super::crowd::{Crowd, Seat};
use super::tables::load::Load;
use crate::config::Owner;
use crate::instance::Instance;
use crate::log::{Complaint, reason};
use crate::takeover::successor;

/// Longest line of commands: room for hundreds of them.
pub(super) const LONGEST_LINE: usize = 16 * 1024;

/// Operators and their scripts; more would be a script gone wrong.
const MOST_CONNECTIONS: usize = 64;

/// Somebody silent for so long may have to go when there are too many.
const GRACE: Duration = Duration::from_secs(1);

/// For a line to arrive, and for each piece of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

/// At most, for the next line of somebody who has asked for a prompt.
const LONGEST_PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Answers go out in pieces of this size, each with its own patience: a large table may take long as a whole.
const PIECE: usize = 64 * 1024;

/// The bound socket; removed on drop.
#[derive(Debug)]
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
    inode: (u64, u64),
    /// No other process listens on it: the file is removed when this is dropped.
    is_sole: bool,
}

/// Who may use the socket.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Permissions of its file.
    pub mode: u32,
    /// Whose the file is, if not ours.
    pub owner: Option<&'a Owner>,
}

impl Access<'_> {
    fn grant(self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))?;
        match self.owner {
            Some(owner) => lchown(path, Some(owner.uid), Some(owner.gid)),
            None => lchown(path, Some(geteuid().as_raw()), Some(getegid().as_raw())),
        }
    }

    fn is_granted(self, there: &fs::Metadata) -> bool {
        let is_owners = match self.owner {
            Some(owner) => (there.uid(), there.gid()) == (owner.uid, owner.gid),
            None => (there.uid(), there.gid()) == (geteuid().as_raw(), getegid().as_raw()),
        };
        is_owners && there.mode() & 0o777 == self.mode
    }
}

impl Socket {
    /// Puts the socket at `path`. The instance's lock is what keeps two of the same name from doing this at once.
    ///
    /// # Errors
    /// Something else is there, or the folder cannot be written.
    pub fn bind(path: &Path, access: Access<'_>, _claimed: &Instance) -> anyhow::Result<Self> {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                bail!(
                    "--admin {shown}: a file that is not a socket is there; remove it or choose another path"
                )
            }
            Ok(_) if StdStream::connect(path).is_ok() => {
                bail!("--admin {shown}: another process answers there; stop it or choose another path")
            }
            _ => {}
        }
        Self::place(path, access).map_err(|error| anyhow!("--admin {shown}: {}", reason(&error)))
    }

    /// Listens on the socket of a predecessor, who still serves it.
    ///
    /// # Errors
    /// It is no longer where the predecessor has put it.
    pub fn share(path: &Path, access: Access<'_>, listener: StdListener) -> anyhow::Result<Self> {
        let shared = || {
            let there = fs::symlink_metadata(path)?;
            if !access.is_granted(&there) {
                access.grant(path)?;
            }
            Ok((there.dev(), there.ino()))
        };
        let inode =
            shared().map_err(|error: io::Error| anyhow!("--admin {}: {}", path.display(), reason(&error)))?;
        Ok(Self { listener, path: path.to_owned(), inode, is_sole: false })
    }

    /// The predecessor has let go.
    pub fn inherit(&mut self) {
        self.is_sole = true;
    }

    /// A successor has it: the file stays.
    pub fn give_up(mut self) {
        self.is_sole = false;
    }

    /// Another descriptor of it, to pass on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<StdListener> {
        self.listener.try_clone()
    }

    fn place(path: &Path, access: Access<'_>) -> io::Result<Self> {
        // Bound beside its place and moved there when it is complete: whoever connects meets the old socket or the
        // new one, never a missing one and never one with other permissions.
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _ = fs::remove_file(&beside);
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&beside)?)?;
        let placed: io::Result<_> = (|| {
            access.grant(&beside)?;
            socket.listen(MOST_CONNECTIONS as i32)?;
            let there = fs::symlink_metadata(&beside)?;
            fs::rename(&beside, path)?;
            Ok((there.dev(), there.ino()))
        })();
        if placed.is_err() {
            let _ = fs::remove_file(&beside);
        }
        Ok(Self { listener: socket.into(), path: path.to_owned(), inode: placed?, is_sole: true })
    }

    /// Serves for ever. To be called, and to run, inside a `LocalSet`.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub fn serve(&self, desk: Rc<Desk>) -> io::Result<impl Future<Output = ()> + use<>> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        Ok(accept(listener, desk))
    }
}

async fn accept(listener: UnixListener, desk: Rc<Desk>) {
    let (open, refused) = (Crowd::new(MOST_CONNECTIONS, GRACE), Crowd::new(MOST_CONNECTIONS, GRACE));
    let mut complaint = Complaint::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match (open.seat_of_the_silent().await, refused.seat()) {
                (Some(seat), _) => drop(spawn_local(converse(stream, Rc::clone(&desk), seat))),
                (None, Some(seat)) => drop(spawn_local(refuse(stream, seat))),
                // Not even worth a word.
                (None, None) => {}
            },
            Err(error) => {
                complaint.make(format_args!("admin socket: {}", reason(&error)));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.inode);
        if self.is_sole && is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Somebody who gives commands.
struct Conversation {
    stream: UnixStream,
    seat: Seat,
    /// What has come beyond the last line.
    ahead: Vec<u8>,
    /// After `prompt`: one line after the other, each answer followed by `> `.
    is_interactive: bool,
    /// For a line to arrive.
    patience: Duration,
}

/// What comes after a line.
#[derive(PartialEq, Eq)]
enum Next {
    Line,
    End,
    /// Whoever was talking has gone.
    Gone,
}

async fn converse(stream: UnixStream, desk: Rc<Desk>, seat: Seat) {
    let mut conversation =
        Conversation { stream, seat, ahead: Vec::new(), is_interactive: false, patience: PATIENCE };
    loop {
        let read = conversation.read_line();
        let line = match read.await {
            // Not one of the operator's commands: what follows is not lines.
            Some(Line::Whole(line)) if successor::is_asking(&line) && !conversation.is_interactive => {
                let Conversation { stream, seat, .. } = conversation;
                if let Some((stream, refusal)) = successor::serve(stream, &desk, &line).await {
                    reply(stream, &seat, &format!("error: {refusal}\n\n")).await;
                }
                return;
            }
            Some(Line::Whole(line)) => line,
            Some(Line::TooLong) => {
                let Conversation { stream, seat, .. } = conversation;
                return reply(stream, &seat, &format!("error: {}\n\n", too_long())).await;
            }
            None => return,
        };
        // The lines after it are not commands.
        if let (Some(load), false) = (Load::asked(&line), conversation.is_interactive) {
            let answer = conversation.load(&desk, load).await;
            let Conversation { stream, seat, .. } = conversation;
            let answer = answer.unwrap_or_else(|refusal| format!("error: {refusal}\n"));
            return reply(stream, &seat, &(answer + "\n")).await;
        }
        match conversation.perform(&desk, &line).await {
            Next::Line => {}
            Next::End => return finish(conversation.stream).await,
            Next::Gone => return,
        }
    }
}

fn too_long() -> String {
    format!("the line is longer than {LONGEST_LINE} bytes")
}

async fn refuse(stream: UnixStream, seat: Seat) {
    reply(stream, &seat, "error: too many connections to the admin socket; try again\n\n").await;
}

/// A line as it was read.
enum Line {
    /// Without its end; the end of the stream ends a line too.
    Whole(String),
    TooLong,
}

impl Conversation {
    /// `None`: there is none, or it has taken too long.
    async fn read_line(&mut self) -> Option<Line> {
        let Self { stream, seat, ahead, patience, .. } = self;
        let is_first = !self.is_interactive;
        let read = async {
            let mut piece = [0; 1024];
            loop {
                if let Some(end) = ahead.iter().position(|byte| *byte == b'\n') {
                    let rest = ahead.split_off(end + 1);
                    let mut line = std::mem::replace(ahead, rest);
                    line.truncate(end);
                    return Some(line);
                }
                if ahead.len() > LONGEST_LINE {
                    return Some(std::mem::take(ahead));
                }
                let count = stream.read(&mut piece).await.ok()?;
                ahead.extend_from_slice(&piece[..count]);
                if count == 0 {
                    let line = std::mem::take(ahead);
                    return (is_first || !line.is_empty()).then_some(line);
                }
            }
        };
        let line = seat.patiently(*patience, read).await??;
        if line.len() > LONGEST_LINE {
            return Some(Line::TooLong);
        }
        Some(Line::Whole(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()))
    }

    /// Answers the commands of a line, each before the next is begun: an answer may be a large one.
    async fn perform(&mut self, desk: &Desk, line: &str) -> Next {
        let mut commands = super::commands(line).peekable();
        if commands.peek().is_none() {
            let was_taken =
                if self.is_interactive { self.send("\n").await } else { self.answer(desk, "help").await };
            if !was_taken {
                return Next::Gone;
            }
        }
        for command in commands {
            let words: Vec<&str> = command.split_whitespace().collect();
            let was_taken = match *words {
                ["quit"] => return Next::End,
                ["prompt"] => {
                    self.is_interactive = !self.is_interactive;
                    self.send("\n").await
                }
                ["set", "timeout", "cli", time] => {
                    let said = self.set_patience(time);
                    self.send(&said).await
                }
                _ => self.answer(desk, command).await,
            };
            if !was_taken {
                return Next::Gone;
            }
        }
        if !self.is_interactive {
            return Next::End;
        }
        if self.send("> ").await { Next::Line } else { Next::Gone }
    }

    /// Entries of a table, line by line; the answer comes when all have.
    async fn load(&mut self, desk: &Desk, mut load: Load) -> Result<String, String> {
        loop {
            match self.read_line().await {
                Some(Line::Whole(line)) if line == "end" => return load.end(desk).await,
                Some(Line::Whole(line)) if !line.is_empty() => load = load.take(desk, line).await?,
                Some(Line::TooLong) => {
                    load.break_off();
                    return Err(too_long());
                }
                Some(Line::Whole(_)) | None => {
                    load.break_off();
                    return Err("the entries ended without a line that says end".to_owned());
                }
            }
        }
    }

    async fn answer(&mut self, desk: &Desk, command: &str) -> bool {
        // Kept until it has been taken: it counts as one of the large ones until then.
        let answer = desk.answer(command).await;
        let crowd = answer.is_bulky().then_some(&*desk.bulk);
        send(&mut self.stream, &self.seat, &answer.text, crowd).await
    }

    /// As HAProxy's `set timeout cli`: seconds, unless a unit says something else.
    fn set_patience(&mut self, time: &str) -> String {
        let seconds = time.parse().map(Duration::from_secs).map_err(drop);
        match seconds.or_else(|()| crate::cli::units::duration(time).map_err(drop)) {
            Ok(time) => {
                self.patience = time.clamp(Duration::from_secs(1), LONGEST_PATIENCE);
                "\n".to_owned()
            }
            Err(()) => {
                format!("error: {time:?} is no time; write seconds, or a number with a unit as in 5m\n\n")
            }
        }
    }

    async fn send(&mut self, text: &str) -> bool {
        send(&mut self.stream, &self.seat, text, None).await
    }
}

/// Sends the last words.
async fn reply(mut stream: UnixStream, seat: &Seat, answer: &str) {
    if send(&mut stream, seat, answer, None).await {
        finish(stream).await;
    }
}

/// False: they are not taken. `crowd`: they are a large answer, of which there may be so many.
async fn send(stream: &mut UnixStream, seat: &Seat, text: &str, crowd: Option<&Semaphore>) -> bool {
    for piece in text.as_bytes().chunks(PIECE) {
        let is_taken = tokio::select! {
            biased;
            taken = seat.patiently(PATIENCE, stream.write_all(piece)) => matches!(taken, Some(Ok(()))),
            () = crowded_out(crowd) => false,
        };
        if !is_taken {
            return false;
        }
    }
    true
}

/// Until a large answer that nobody takes has to go, since others wait to be given theirs: a few who do not read would
/// keep everybody from reading.
async fn crowded_out(crowd: Option<&Semaphore>) {
    let Some(places) = crowd else { return std::future::pending().await };
    loop {
        sleep(GRACE).await;
        if places.available_permits() == 0 {
            return;
        }
    }
}

async fn finish(mut stream: UnixStream) {
    let _ = stream.shutdown().await;
    // Closing on unread input would throw away the answer with it; but not for longer than is decent.
    let _ = timeout(Duration::from_secs(1), drain(&mut stream)).await;
}

async fn drain(stream: &mut UnixStream) {
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece).await, Ok(count) if count > 0) {}
}
