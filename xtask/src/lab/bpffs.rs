//! The file system that keeps pinned programs and maps.
//!
//! It is one for all namespaces. The balancer keeps what belongs to a namespace in
//! `balancer/v<schema>/<netns cookie>/`, so a namespace's traces can be found after its processes are gone.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

const BPFFS: &str = "/sys/fs/bpf";

pub(super) fn mount_if_needed() -> Result<()> {
    if statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs on {BPFFS}"))
}

/// Removes whatever the balancer pinned for the namespace with this cookie, of any schema.
///
/// The folders above stay, although empty: another daemon may be about to create its own in them.
pub(super) fn remove_pins(cookie: u64) {
    let Ok(schemas) = fs::read_dir(Path::new(BPFFS).join("balancer")) else { return };
    for schema in schemas.flatten() {
        let _ = fs::remove_dir_all(schema.path().join(cookie.to_string()));
    }
}
