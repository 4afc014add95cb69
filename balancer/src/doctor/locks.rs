//! Who holds a lock of the kind that the daemon uses (flock): it belongs to an open file, which may have been passed on.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::occupant::having;

/// A lock that is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Held {
    /// The processes that have the open file; empty: none that can be looked at.
    pub(super) by: Vec<u32>,
}

/// The lock on that file or folder, if it is held.
pub(super) fn on(path: &Path) -> Option<Held> {
    let file = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let id = format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino());
    is_listed(&locks, &id).then(|| Held { by: openers(&file) })
}

/// `1: FLOCK  ADVISORY  WRITE 708 08:02:1234 0 EOF`. The process named there is the one that took the lock, and may have
/// passed it on and ended.
fn is_listed(locks: &str, id: &str) -> bool {
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // One that waits for the lock has "->" in front.
        words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&id)
    })
}

/// Processes that have the file open, besides this one.
fn openers(file: &Metadata) -> Vec<u32> {
    let is_it =
        |path: PathBuf| fs::metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (file.dev(), file.ino()));
    having(is_it).into_iter().filter(|pid| *pid != std::process::id()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_lock_is_known_by_its_file_and_a_waiter_is_none() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 08:02:12 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 08:02:13 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:02:14 0 EOF\n";
        assert!(is_listed(locks, "08:02:13"));
        assert!(!is_listed(locks, "08:02:12"), "of another kind");
        assert!(!is_listed(locks, "08:02:14"), "somebody waits there, says the line");
    }

    #[test]
    fn a_real_lock_is_found_while_it_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let file = File::create(&path).expect("a file");
        assert_eq!(on(&path), None);
        file.try_lock().expect("free");
        assert_eq!(on(&path), Some(Held { by: Vec::new() }), "by nobody but us");
        drop(file);
        assert_eq!(on(&path), None);
    }
}
