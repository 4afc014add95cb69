//! The values of a map in our own memory: read and changed without a system call while the kernel does the same.
#![allow(unsafe_code, reason = "the mapping, and words in it that others change")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The values of an array map that was made with `BPF_F_MMAPABLE`, as words.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the memory is the process's, not a thread's, and only atomics are handed out.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// The first `count` words of the map's values, which must lie without gaps: their size is a multiple of 8.
    ///
    /// # Errors
    /// What the kernel refuses: a map of another kind, or one with fewer words.
    pub fn of(map: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at a place that the kernel chooses touches nothing that is there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, count })
    }

    /// All of them.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping starts at a page, is this long and lives as long as `self`; any bit pattern is a value, and
        // the program changes these words by atomic instructions alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping that `of` has made, whose words nobody can hold any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}
