//! A folder for one laboratory's files.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A new folder under the system's temporary one, removed with its contents when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    serial: AtomicU32,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(name);
        let create = || DirBuilder::new().mode(0o700).create(&path);
        let mut created = create();
        // The name holds our process id: a folder already there was left by an earlier process of that id,
        // which did not live to remove it.
        if created.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            created = fs::remove_dir_all(&path).and_then(|()| create());
        }
        created.with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, serial: AtomicU32::new(0) })
    }

    /// A path for a new file or folder; no two calls give the same one.
    pub(crate) fn fresh(&self, stem: &str) -> PathBuf {
        self.path.join(format!("{}-{stem}", self.serial.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders whose makers are gone, as told by their names.
pub(super) fn sweep(is_abandoned: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&is_abandoned) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
