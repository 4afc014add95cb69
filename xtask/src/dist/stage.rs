//! A folder in which what is packed lies as it will be unpacked.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::output;

/// The folder of all that is packed. Gone when dropped.
pub(super) struct Stage(PathBuf);

impl Stage {
    /// Anew.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path.to_path_buf()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn folder(&self, name: &str) -> Result<Folder> {
        let folder = Folder(self.0.join(name));
        folder.make(&folder.0)?;
        Ok(folder)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One of them: everybody may read it, whatever the umask.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self, name: &str, text: &str) -> Result<()> {
        self.write(name, text.as_bytes(), 0o644)
    }

    pub(super) fn script(&self, name: &str, text: &str) -> Result<()> {
        self.write(name, text.as_bytes(), 0o755)
    }

    /// Without what only a debugger reads.
    pub(super) fn program(&self, name: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(name, &bytes, 0o755)?;
        output(Command::new("strip").arg("--strip-unneeded").arg(self.0.join(name))).map(drop)
    }

    /// As manuals are.
    pub(super) fn compressed(&self, name: &str, text: &str) -> Result<()> {
        self.file(name, text)?;
        output(Command::new("gzip").arg("-9n").arg(self.0.join(name))).map(drop)
    }

    /// What it takes on a disk.
    pub(super) fn kibibytes(&self) -> Result<u64> {
        let said = output(Command::new("du").args(["-k", "-s", "--apparent-size"]).arg(&self.0))?;
        said.split_whitespace().next().and_then(|size| size.parse().ok()).context("du tells no size")
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            self.make(parent)?;
        }
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(())
    }

    fn make(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(&self.0)) {
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}
