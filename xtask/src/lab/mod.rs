//! A network laboratory: namespaces joined by veth pairs, real programs in them, and nothing left afterwards.
//!
//! ```no_run
//! use xtask::lab::{self, Lab, http, origin::Origin};
//! # fn main() -> anyhow::Result<()> {
//! # lab::origin::play_if_asked();
//! let lab = Lab::star().client_addresses(2).servers(2).build()?;
//! let server = lab.server(1);
//! let origin = Origin::start(&server.ns, server.at(8080), "s1")?;
//! let answer = http::get(&lab.client().ns, None, origin.address, "/", &[])?;
//! assert_eq!(answer.header("X-Server"), Some("s1"));
//! # Ok(()) }
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`star`] | the topology: clients and servers around the balancer's namespace |
//! | [`namespace`] | one namespace: runs closures and programs inside, and takes everything with it |
//! | [`process`] | a program in a namespace, killed and reaped when dropped |
//! | [`daemon`] | the balancer itself and its client commands |
//! | [`origin`], [`nginx`] | servers to balance |
//! | [`http`], [`wrk`] | clients: one connection at a time, and load |
//! | [`wait`] | bounded waiting |
//! | [`interrupt`] | Ctrl-C as an error, so that ownership does the cleaning up |

mod bpffs;
pub mod daemon;
pub mod http;
pub mod interrupt;
pub mod namespace;
pub mod nginx;
pub mod origin;
pub mod process;
pub(crate) mod scratch;
pub mod star;
mod syscall;
pub mod wait;
pub mod wrk;

pub use daemon::Daemon;
pub use namespace::Namespace;
pub use process::{Child, Command};
pub use star::{Forward, Host, Lab, Star};
pub use wait::{wait_for, wait_for_port, wait_until};

use crate::privilege;

/// Set by the test runner when privileges must not be used although they are there.
pub const UNPRIVILEGED: &str = "BALANCER_TEST_UNPRIVILEGED";

/// Runs `work` as nobody, in a thread of its own: with the descriptors that there are, and no privileges.
///
/// # Errors
/// When root cannot be given up.
pub fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let thread = || syscall::give_up_root_in_this_thread().map(|()| work());
    let done = std::thread::scope(|scope| scope.spawn(thread).join());
    Ok(done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
}

/// Why no laboratory can be built here, or nothing when one can: tests report themselves as ignored with
/// this.
#[must_use]
pub fn unavailable() -> Option<String> {
    if std::env::var_os(UNPRIVILEGED).is_some() {
        return Some("privileged tests were not asked for".to_owned());
    }
    if !privilege::is_root() {
        return Some("needs root for network namespaces".to_owned());
    }
    if let Some(program) = ["ip", "ethtool"].into_iter().find(|name| privilege::find_program(name).is_none())
    {
        return Some(format!("needs {program}: cargo xtask setup"));
    }
    // Root of a container may not be allowed to. Tried in a thread, which takes the new namespace away with
    // it.
    let tried = std::thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)).join();
    match tried {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("network namespaces cannot be made here: {error}")),
        Err(_) => Some("network namespaces cannot be made here".to_owned()),
    }
}
