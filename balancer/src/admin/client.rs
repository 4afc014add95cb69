//! `balancer show …`, `balancer set …` and so on: asks the running instance.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use serde_json::Value;

use crate::cli::Wait;
use crate::log::{first_few, reason};

/// A live instance answers at once; a large table takes a moment to be written out.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

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

/// Between two looks at a server that is being left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks at a server until nothing leads there any more, and says on stderr each time what does. Waiting is the client's
/// business, so that the instance may be restarted meanwhile.
///
/// # Errors
/// Something still does when the time is over; nobody answers.
pub fn wait(name: &str, admin: &Path, wait: &Wait) -> anyhow::Result<String> {
    let (started, server) = (Instant::now(), &wait.server);
    loop {
        let answer = ask(name, admin, &format!("show server {server} json"))?;
        let row: Value = serde_json::from_str(&answer)?;
        let count = |field: &str| row[field].as_u64().unwrap_or(0);
        let (connections, entries) = (count("connections"), count("entries"));
        if connections == 0 && (entries == 0 || wait.connections_only) {
            let entries = if wait.connections_only { "" } else { " and no learned entries" };
            return Ok(format!("server {server}: no connections{entries} lead there any more"));
        }
        let left =
            format!("server {server}: {connections} connections and {entries} learned entries lead there");
        let over = wait.limit.map(|limit| limit.saturating_sub(started.elapsed()));
        if over == Some(Duration::ZERO) {
            bail!("{left} after {:?}", wait.limit.unwrap_or_default());
        }
        eprintln!("{left}");
        thread::sleep(over.map_or(LOOK_AGAIN, |over| over.min(LOOK_AGAIN)));
    }
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

/// How to name those whose sockets lie beside `admin`.
fn others(admin: &Path) -> String {
    let beside = admin.parent().into_iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let answers = |path: &Path| path != admin && UnixStream::connect(path).is_ok();
    let sockets = beside.map(|entry| entry.path());
    let sockets = sockets.filter(|path| path.extension().is_some_and(|end| end == "sock") && answers(path));
    let mut names: Vec<_> =
        sockets.filter_map(|path| Some(format!("--name {}", path.file_stem()?.to_str()?))).collect();
    names.sort_unstable();
    match names.as_slice() {
        [] => " by --name or --admin".to_owned(),
        some => format!(": {}", first_few(some.iter().map(String::as_str))),
    }
}

pub(super) fn explain(error: &io::Error, name: &str, admin: &Path) -> anyhow::Error {
    let shown = admin.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            anyhow!("no permission for {shown}; be root or the user that \"{name}\" runs as")
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow!(
                "no balancer named \"{name}\" answers at {shown}; start it, or name another one{}",
                others(admin)
            )
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow!(
                "the balancer named \"{name}\" has not answered at {shown} within {PATIENCE:?}; try again, \
                 or look whether its process hangs"
            )
        }
        _ => anyhow!("the balancer named \"{name}\" gave no answer at {shown}: {}", reason(error)),
    }
}
