//! Where maps are pinned: `/sys/fs/bpf/balancer/v<schema>/<network namespace>/`, and one folder in it per service.
//!
//! bpffs is one for all network namespaces of a host, hence the namespace's cookie in the path.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use balancer_ebpf::abi::SCHEMA;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::MsFlags;
use nix::sys::statfs::{FsType, statfs};

use super::syscall::netns_cookie;

/// The pin of the registry of servers.
pub(super) const REGISTRY: &str = "registry";
/// The pin of what operators want of servers.
pub(super) const INTENT: &str = "intent";
/// Where all pins are.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// linux/magic.h
pub(crate) const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The folder of this network namespace.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The folder of the network namespace that the caller is in, made if it is not there. Mounts bpffs if need be.
    ///
    /// # Errors
    /// No privilege, or no BPF file system: the message says which and how to mend it.
    pub fn open() -> anyhow::Result<Self> {
        mount_bpffs()?;
        let pins = Self::locate()?;
        fs::create_dir_all(&pins.root)
            .with_context(|| format!("cannot create {}; root or CAP_BPF is needed", pins.root.display()))?;
        Ok(pins)
    }

    /// The folder's path, without touching anything.
    ///
    /// # Errors
    /// Kernels before 5.14.
    pub fn locate() -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
        let cookie =
            netns_cookie(&socket).context("the kernel does not tell network namespaces apart (5.14 does)")?;
        Ok(Self { root: PathBuf::from(format!("{BPFFS}/balancer/v{SCHEMA}/{cookie}")) })
    }

    /// The folder of all services.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pin of a map that all services share.
    pub fn shared(&self, map: &str) -> PathBuf {
        self.root.join(map)
    }

    /// The pin of the link that keeps the program attached to an interface.
    pub fn link(&self, ifindex: u32) -> PathBuf {
        self.root.join(format!("link-{ifindex}"))
    }

    /// The folder of one service.
    pub fn service(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The folders of this network namespace that balancers of other versions have made, with maps of other schemas; the
    /// latest version first.
    pub fn of_other_schemas(&self) -> Vec<Self> {
        let (Some(namespace), Some(own)) = (self.root.file_name(), self.root.parent()) else {
            return Vec::new();
        };
        let schemas = own.parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten().flatten();
        let others = schemas.map(|schema| schema.path()).filter(|schema| schema != own);
        let others = others.map(|schema| Self { root: schema.join(namespace) });
        let mut others: Vec<_> = others.filter(|pins| pins.root.exists()).collect();
        others.sort_by_key(|pins| std::cmp::Reverse(pins.schema()));
        others
    }

    /// The schema of the maps in this folder, by its name.
    pub fn schema(&self) -> Option<u32> {
        self.root.parent()?.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
    }

    /// Interfaces that have a pinned link.
    pub fn linked_interfaces(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("link-")?.parse().ok()).collect()
    }

    /// Services that have a folder.
    pub fn services(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Waits for its turn: steps that concern all services are taken one at a time.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn lock_shared(&self) -> anyhow::Result<Flock<File>> {
        let folder =
            File::open(&self.root).with_context(|| format!("cannot open {}", self.root.display()))?;
        Flock::lock(folder, FlockArg::LockExclusive)
            .map_err(|(_, error)| anyhow!(error).context(format!("cannot lock {}", self.root.display())))
    }

    /// Takes the role of this service in this namespace, until the last descriptor of the folder that is returned is
    /// closed. Never unlocked otherwise: a successor may hold another.
    ///
    /// # Errors
    /// Another process has it.
    pub fn lock_service(&self, name: &str) -> anyhow::Result<File> {
        let path = self.service(name);
        let folder = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => bail!(
                "another balancer named \"{name}\" runs in this network namespace; stop it, or choose another --name"
            ),
            Err(TryLockError::Error(error)) => bail!("cannot lock {}: {error}", path.display()),
        }
    }

    /// Takes part in the role of a predecessor, who has passed on its descriptor and still serves. That of a version with
    /// another schema is another role: ours is free then.
    ///
    /// # Errors
    /// It is the role in another network namespace, or another process has it.
    pub fn share_service(&self, name: &str, role: File) -> anyhow::Result<File> {
        let path = self.service(name);
        let there = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let passed = role.metadata()?;
        let is_passed = |there: &fs::Metadata| (there.dev(), there.ino()) == (passed.dev(), passed.ino());
        let others = self.of_other_schemas();
        if others.iter().any(|pins| fs::metadata(pins.service(name)).is_ok_and(|at| is_passed(&at))) {
            return self.lock_service(name);
        }
        if !is_passed(&there) {
            bail!("the running instance serves another network namespace; start this one in the same");
        }
        match role.try_lock() {
            Ok(()) => Ok(role),
            Err(_) => bail!(
                "the running instance has passed on a lock that another process holds; stop both, and start \
                 this one without --takeover"
            ),
        }
    }

    /// Removes the folder if nothing is left in it, and the ones above it likewise.
    pub fn remove_if_empty(&self) {
        for folder in self.root.ancestors().take_while(|folder| *folder != Path::new(BPFFS)) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// Takes back what a start that failed has made: files and folders that were not there before.
#[derive(Debug, Default)]
pub struct Rollback(Vec<PathBuf>);

impl Rollback {
    /// Remembers `path` unless it exists already.
    pub fn note(&mut self, path: PathBuf) {
        if !path.exists() {
            self.0.push(path);
        }
    }

    /// The start succeeded: everything stays.
    pub fn commit(&mut self) {
        self.0.clear();
    }

    /// The start failed: nothing stays.
    pub fn undo(&mut self) {
        for path in std::mem::take(&mut self.0).iter().rev() {
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        self.undo();
    }
}

fn mount_bpffs() -> anyhow::Result<()> {
    let is_mounted = || statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if is_mounted() {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(io::Error::from)
        .with_context(|| format!("{BPFFS} is not a BPF file system; as root: mount -t bpf bpf {BPFFS}"))
}
