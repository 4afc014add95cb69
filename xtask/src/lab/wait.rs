//! Bounded waiting: a condition, a limit, and a message that says what did not happen.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Namespace, interrupt};

const PAUSE: Duration = Duration::from_millis(10);

/// Polls until `condition` holds.
///
/// # Errors
/// After `limit`, naming `what`; or when interrupted.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(limit, what, || Ok(condition().then_some(())))
}

/// Polls until `attempt` returns something. An error of an attempt is a "not yet" that the message quotes
/// when time runs out.
///
/// # Errors
/// After `limit`, naming `what`; or when interrupted.
pub fn wait_for<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        interrupt::check()?;
        let last = match attempt() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(" (last: {error:#})"),
        };
        if Instant::now() >= deadline {
            bail!("timed out after {limit:?} waiting for {what}{last}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until something inside `namespace` accepts connections on `address`.
///
/// # Errors
/// After `limit`, or when interrupted.
pub fn wait_for_port(namespace: &Namespace, address: SocketAddr, limit: Duration) -> Result<()> {
    let patience = Duration::from_millis(500);
    let what = format!("{address} in {}", namespace.name());
    wait_for(limit, &what, || {
        namespace.run(|| TcpStream::connect_timeout(&address, patience))??;
        Ok(Some(()))
    })
}
