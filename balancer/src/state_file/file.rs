//! The state file in its folder: others may have laid something there, and a power cut may come at any moment.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::kill;
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};

use crate::config::Owner;
use crate::log::reason;

/// Files that were set aside; after so many somebody should have looked.
const MOST_ASIDE: u32 = 100;

/// Why what is there is not read.
#[derive(Debug)]
pub enum Unusable {
    /// It may be a forgery, or cannot be opened.
    Refused(String),
    /// A folder, a device: nobody has saved that.
    NotAFile,
}

/// The file at `path`, to be read; `None`: there is none. It has to belong to one of `owners`, and nobody else may write
/// to it.
///
/// # Errors
/// See [`Unusable`].
pub fn open(path: &Path, owners: &[Option<u32>]) -> Result<Option<File>, Unusable> {
    let mut options = OpenOptions::new();
    // A link could lead anywhere, and a pipe could keep us waiting.
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Unusable::Refused("it is a link, which is not followed".into()));
        }
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(Unusable::NotAFile),
        Err(error) => return Err(Unusable::Refused(format!("it cannot be opened: {}", reason(&error)))),
    };
    let there = file.metadata().map_err(|error| Unusable::Refused(reason(&error)))?;
    if !there.is_file() {
        return Err(Unusable::NotAFile);
    }
    if !owners.contains(&Some(there.uid())) {
        return Err(Unusable::Refused(format!("it belongs to user {}", there.uid())));
    }
    if there.mode() & 0o022 != 0 {
        return Err(Unusable::Refused(format!(
            "others can write to it, its mode is {:04o}",
            there.mode() & 0o7777
        )));
    }
    Ok(Some(file))
}

/// Gives what is at `path` another name, `.broken` or that with a number. Nothing is overwritten.
///
/// # Errors
/// When the folder cannot be written, or all such names are taken.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 0..MOST_ASIDE {
        let aside = match number {
            0 => beside(path, ".broken"),
            _ => beside(path, &format!(".broken-{number}")),
        };
        match renameat2(AT_FDCWD, path, AT_FDCWD, &aside, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(aside),
            Err(Errno::EEXIST) => {}
            // A file system that cannot promise it.
            Err(Errno::EINVAL) if fs::symlink_metadata(&aside).is_err() => {
                fs::rename(path, &aside)?;
                return Ok(aside);
            }
            Err(Errno::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Puts a file at `path` that has what `write` writes: all of it or nothing, whatever happens. `is_wanted` is asked when
/// it is complete.
///
/// # Errors
/// What `write` or the disk says; what was there is as it was.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    is_wanted: impl FnOnce() -> bool,
) -> io::Result<()> {
    let (file, new) = create(path)?;
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 18, file);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        if is_wanted() { fs::rename(&new, path) } else { fs::remove_file(&new) }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    // So that the name survives a power cut, too. A file system that cannot do that for folders need not.
    let _ = path.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
    Ok(())
}

/// Whether `owner`, or else the process as it is, can make a file beside `path`.
///
/// # Errors
/// It cannot.
pub fn try_folder(path: &Path, owner: Option<&Owner>) -> io::Result<()> {
    let _guise = owner.map(Guise::of);
    let (mut file, new) = create(path)?;
    let tried = file.write_all(b"\n");
    fs::remove_file(new)?;
    tried
}

/// This thread opens files as another user would, up to what other groups that user is in; itself again on drop.
struct Guise {
    user: Uid,
    group: Gid,
}

impl Guise {
    fn of(owner: &Owner) -> Self {
        // Groups first: the user may not change them.
        let group = setfsgid(Gid::from_raw(owner.gid));
        Self { group, user: setfsuid(Uid::from_raw(owner.uid)) }
    }
}

impl Drop for Guise {
    fn drop(&mut self) {
        setfsuid(self.user);
        setfsgid(self.group);
    }
}

/// Removes what processes have left behind that were killed while they saved.
pub fn sweep(path: &Path) {
    let Some(folder) = path.parent() else { return };
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(NEW);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let pid = rest.and_then(|rest| std::str::from_utf8(rest).ok()?.parse().ok());
        if pid.is_some_and(|pid: i32| pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Followed by the process, so that predecessor and successor do not write to the same.
const NEW: &str = ".new-";

fn create(path: &Path) -> io::Result<(File, PathBuf)> {
    let new = beside(path, &format!("{NEW}{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    match options.open(&new) {
        // Of a process long gone that had our number.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(&new)?;
            options.open(&new)
        }
        made => made,
    }
    .map(|file| (file, new))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    PathBuf::from(name)
}
