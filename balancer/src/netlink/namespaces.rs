//! The other network namespaces of this host, as far as they can be found: those with a name, and those of processes
//! that this one may look at.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{Attributes, attribute, integer, network};

const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Bytes of a `struct rtgenmsg`, aligned.
const RTGENMSG: usize = 4;
/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";

/// A file that stands for the namespace which this one knows by that number: one with a name if there is one.
pub fn find(number: u32) -> Option<PathBuf> {
    let named = entries(NAMED);
    let of_processes = entries("/proc").filter(|path| is_number(path)).map(|path| path.join("ns/net"));
    named.chain(of_processes).find(|path| number_of(path).is_ok_and(|found| found == Some(number)))
}

/// Runs `work` in the namespace that the file stands for.
///
/// # Errors
/// Nobody may go there.
pub fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(namespace)?;
    // A thread of its own, as it does not come back.
    let there = || -> io::Result<T> {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    thread::scope(|scope| scope.spawn(there).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread has failed")))
}

/// This namespace's number for the one that the file stands for; `None`: it has none.
fn number_of(namespace: &Path) -> io::Result<Option<u32>> {
    let file = File::open(namespace)?;
    let asked = Attributes::default().with(NETNSA_FD, &file.as_raw_fd().to_ne_bytes());
    let (_, attributes) = network(RTM_GETNSID, &[0; RTGENMSG], &asked, RTGENMSG)?;
    let number = attribute(&attributes, NETNSA_NSID).and_then(integer);
    Ok(number.filter(|number| number.cast_signed() >= 0))
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}
