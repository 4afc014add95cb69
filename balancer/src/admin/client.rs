//! `balancer show …` and `balancer set …`: asks the running instance.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};

use crate::log::reason;

/// A live instance answers at once; a large table takes a moment to be written out.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends `line` to the instance called `name` at `admin`: its answer.
///
/// # Errors
/// Nobody answers, or the answer is that it cannot be done.
pub fn ask(name: &str, admin: &Path, line: &str) -> anyhow::Result<String> {
    let answer = exchange(admin, line).map_err(|error| explain(&error, name, admin))?;
    if let Some(refusal) = answer.strip_prefix("error: ") {
        bail!("{}", refusal.lines().next().unwrap_or_default());
    }
    Ok(answer)
}

fn exchange(admin: &Path, line: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

fn explain(error: &io::Error, name: &str, admin: &Path) -> anyhow::Error {
    let shown = admin.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            anyhow!("no permission for {shown}; be root or the user that \"{name}\" runs as")
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow!("no balancer named \"{name}\" answers at {shown}; is it running?")
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow!("the balancer named \"{name}\" has not answered at {shown} within 15s; is it stopped?")
        }
        _ => anyhow!("the balancer named \"{name}\" gave no answer at {shown}: {}", reason(error)),
    }
}
