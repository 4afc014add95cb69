//! The Unix socket: owner only, replaced by rename, and limits for whoever talks to it.
//!
//! A hot restart passes the listening socket itself on: the file stays, and no operator meets a gap.

use std::cell::Cell;
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
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::Desk;
use crate::config::Owner;
use crate::instance::Instance;
use crate::log::{Complaint, reason};
use crate::takeover::successor;

/// Longest line of commands: room for hundreds of them.
const LONGEST_LINE: usize = 16 * 1024;

/// Operators and their scripts; more would be a script gone wrong.
const MOST_CONNECTIONS: usize = 64;

/// For a line to arrive, and for each piece of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let (open, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let mut complaint = Complaint::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match (Seat::take(&open), Seat::take(&refused)) {
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

/// One of the connections that may be open at one time.
struct Seat(Rc<Cell<usize>>);

impl Seat {
    fn take(taken: &Rc<Cell<usize>>) -> Option<Self> {
        (taken.get() < MOST_CONNECTIONS).then(|| {
            taken.set(taken.get() + 1);
            Self(Rc::clone(taken))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn converse(mut stream: UnixStream, desk: Rc<Desk>, _seat: Seat) {
    let mut whole;
    let answer = match timeout(PATIENCE, read_line(&mut stream)).await {
        // Not one of the operator's commands: what follows is not lines.
        Ok(Ok(Some(line))) if successor::is_asking(&line) => {
            match successor::serve(stream, &desk, &line).await {
                Some((refused, refusal)) => {
                    stream = refused;
                    format!("error: {refusal}\n\n")
                }
                None => return,
            }
        }
        Ok(Ok(Some(line))) => {
            // Kept until it has been taken: it may be a large one.
            whole = desk.answer(&line).await;
            std::mem::take(&mut whole.text)
        }
        Ok(Ok(None)) => format!("error: the line is longer than {LONGEST_LINE} bytes\n\n"),
        Ok(Err(_)) | Err(_) => return,
    };
    reply(&mut stream, &answer).await;
}

async fn refuse(mut stream: UnixStream, _seat: Seat) {
    reply(&mut stream, "error: too many connections to the admin socket; try again\n\n").await;
}

async fn reply(stream: &mut UnixStream, answer: &str) {
    for piece in answer.as_bytes().chunks(PIECE) {
        if !matches!(timeout(PATIENCE, stream.write_all(piece)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = stream.shutdown().await;
    // Closing on unread input would throw away the answer with it; but not for longer than is decent.
    let _ = timeout(Duration::from_secs(1), drain(stream)).await;
}

/// A line without its end; the end of the stream ends a line too. `None`: it is too long.
async fn read_line(stream: &mut UnixStream) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await?;
        let end = piece[..count].iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&piece[..end.unwrap_or(count)]);
        if line.len() > LONGEST_LINE {
            return Ok(None);
        }
        if end.is_some() || count == 0 {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

async fn drain(stream: &mut UnixStream) {
    let mut piece = [0; 4096];
    while matches!(stream.read(&mut piece).await, Ok(count) if count > 0) {}
}
