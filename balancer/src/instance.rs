//! One process per name: a lock beside the admin socket, held for as long as the process lives, and passed on by a hot
//! restart.
//!
//! A lock of this kind belongs to the open file, which several descriptors in several processes can stand for; it is free
//! when the last of them is closed. So a successor is given the descriptor, and there is no moment without the lock. For
//! the same reason nothing here ever unlocks: that would take the lock from the other process, too.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::unistd::{getegid, geteuid};

use crate::config::Owner;
use crate::log::reason;

/// The right to be the instance of a name. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Instance {
    path: PathBuf,
    lock: File,
    /// No other process shares the lock: the file is removed when this is dropped.
    is_sole: bool,
}

/// Where the socket and the lock can be.
const GIVE: &str = "write --admin PATH, in a folder that can be written to";

impl Instance {
    /// Claims `name`; the lock is `NAME.lock` beside the admin socket, whose folder is made if it is not there.
    ///
    /// # Errors
    /// A live instance has the name, or the folder cannot be written.
    pub fn claim(name: &str, admin: &Path) -> anyhow::Result<Self> {
        let path = lock_path(name, admin);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let cannot = |error: io::Error| {
            anyhow::anyhow!("--admin: cannot create {}: {}; {GIVE}", folder.display(), reason(&error))
        };
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(cannot)?;
        loop {
            let file = open(&path).map_err(|error| {
                anyhow::anyhow!("--admin: cannot open {}: {}; {GIVE}", path.display(), reason(&error))
            })?;
            let mut lock = file;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "an instance named \"{name}\" is already running ({}); stop it or choose another --name",
                    holder(&mut lock, admin)
                ),
                Err(TryLockError::Error(error)) => {
                    bail!("cannot lock {}: {}", path.display(), reason(&error))
                }
            }
            // Whoever had it may have removed the file between our opening and our locking it.
            if is_still_at(&lock, &path) {
                write_holder(&mut lock, admin).with_context(|| format!("cannot write {}", path.display()))?;
                return Ok(Self { path, lock, is_sole: true });
            }
        }
    }

    /// Takes part in the claim of a predecessor, who has passed `lock` on and still serves.
    ///
    /// # Errors
    /// As for [`Self::claim`], which is what happens when somebody has removed the predecessor's file.
    pub fn share(name: &str, admin: &Path, lock: File) -> anyhow::Result<Self> {
        let path = lock_path(name, admin);
        if is_still_at(&lock, &path) && lock.try_lock().is_ok() {
            // It may have been another user's. Who is not root cannot change that, and need not.
            let _ = fchown(&lock, Some(geteuid().as_raw()), Some(getegid().as_raw()));
            return Ok(Self { path, lock, is_sole: false });
        }
        Self::claim(name, admin)
    }

    /// The predecessor has let go.
    pub fn inherit(&mut self, admin: &Path) {
        self.is_sole = true;
        // Only shown to whoever tries to start another one.
        let _ = write_holder(&mut self.lock, admin);
    }

    /// A successor has it: the file stays.
    pub fn give_up(mut self) {
        self.is_sole = false;
    }

    /// Another descriptor of the lock, to pass on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    /// The file is to be that user's.
    ///
    /// # Errors
    /// When the process may not do that.
    pub fn give_to(&self, owner: &Owner) -> io::Result<()> {
        fchown(&self.lock, Some(owner.uid), Some(owner.gid))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // While it is still locked, so that nobody else's is removed.
        if self.is_sole {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock_path(name: &str, admin: &Path) -> PathBuf {
    admin.with_file_name(format!("{name}.lock"))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // The folder may be one that others can write to: no links are followed, and nothing is cut off before it is ours.
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    // Whoever can read the file can lock it, and so keep us from starting.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn write_holder(file: &mut File, admin: &Path) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "pid {}, admin socket {}", std::process::id(), admin.display())
}

/// What the holder has written about itself; it may be about to write it.
fn holder(file: &mut File, admin: &Path) -> String {
    let mut text = String::new();
    let read = file.take(4096).read_to_string(&mut text);
    match text.lines().next() {
        Some(line) if read.is_ok() && line.starts_with("pid ") => line.to_owned(),
        _ => format!("admin socket {}", admin.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_and_free_again_afterwards() {
        let directory = tempfile::tempdir().expect("directory");
        let admin = directory.path().join("deep/er/web.sock");
        let first = Instance::claim("web", &admin).expect("free");
        let refused = Instance::claim("web", &admin).expect_err("taken").to_string();
        let pid = std::process::id();
        assert_eq!(
            refused,
            format!(
                "an instance named \"web\" is already running (pid {pid}, admin socket {}); stop it or choose \
                 another --name",
                admin.display()
            )
        );
        let _other = Instance::claim("other", &admin).expect("another name");
        drop(first);
        assert!(!directory.path().join("deep/er/web.lock").exists());
        let _again = Instance::claim("web", &admin).expect("free again");
    }

    #[test]
    fn a_shared_claim_is_held_until_both_have_let_go_and_removed_by_the_heir_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let admin = directory.path().join("web.sock");
        let first = Instance::claim("web", &admin).expect("free");
        let share = || Instance::share("web", &admin, first.descriptor().expect("one more")).expect("shared");
        drop(share());
        assert!(
            Instance::claim("web", &admin).is_err(),
            "a successor that failed has left the lock as it was"
        );
        let mut second = share();
        first.give_up();
        assert!(Instance::claim("web", &admin).is_err(), "the successor holds it");
        second.inherit(&admin);
        drop(second);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let directory = tempfile::tempdir().expect("directory");
        let (admin, victim) = (directory.path().join("web.sock"), directory.path().join("victim"));
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, directory.path().join("web.lock")).expect("linked");
        assert!(Instance::claim("web", &admin).is_err());
        assert_eq!(fs::read_to_string(&victim).expect("there"), "precious");
    }
}
