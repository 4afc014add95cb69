//! The calls that need `unsafe`, and nothing else.
#![expect(
    unsafe_code,
    reason = "bottom module: pre_exec, sigaction and a socket option have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Makes the program die with the thread that started it.
pub(super) fn die_with_starter(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl is a plain system call, and an error
    // is turned into an io::Error without allocating.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
}

/// Makes the program start inside the network namespace, and die with the thread that started it.
///
/// `ip netns exec` would do the former but mounts a fresh /sys, in which pinned maps cannot be seen.
pub(super) fn start_in_namespace(command: &mut Command, netns: Arc<File>) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; setns is a plain system call, and an error
    // is turned into an io::Error without allocating.
    unsafe { command.pre_exec(move || Ok(setns(&*netns, CloneFlags::CLONE_NEWNET)?)) };
    die_with_starter(command);
}

/// The number by which the kernel tells network namespaces apart, for the one that `socket` belongs to.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // Linux' SO_NETNS_COOKIE, which the libc crate does not name.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `cookie`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Takes root, and every capability with it, from the calling thread and from no other.
pub(super) fn give_up_root_in_this_thread() -> io::Result<()> {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: a plain system call; the C library's wrapper would do it to all threads.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `handler` for SIGINT and SIGTERM. Calls that block are not restarted, so that they notice.
///
/// `handler` must do nothing but store into atomics and call async-signal-safe functions.
pub(super) fn on_interrupt(handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(handler), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the one caller's handler stores into an atomic and calls write(2), both async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
