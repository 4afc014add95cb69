//! A small server of our own that tells who talked to it, with keep-alive.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes |
//! | `/chunked/N` | N bytes in chunks |
//! | `/status/N` | that status |
//! | `/slow?ms=N` | the usual answer, N milliseconds later |
//! | `/set-cookie?NAME=VALUE` | the usual answer with that cookie |
//! | any other | `server=s1 peer=IP:PORT cookie=…` |
//!
//! Every answer names the server in `X-Server`. Request bodies are read; the usual answer then ends in
//! `received=N`.

mod exchange;
mod serve;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Child, Namespace, wait};

const COMMAND: &str = "origin";
const START_LIMIT: Duration = Duration::from_secs(60);

/// Whether this program would play the origin when started as one.
static PLAYS: AtomicBool = AtomicBool::new(false);

/// A running origin; it ends when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Its process, to be stopped and killed.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it calls itself.
    pub name: String,
}

impl Origin {
    /// Starts this very program once more, as an origin inside `ns`. Its `main` must call [`play_if_asked`]
    /// first.
    ///
    /// # Errors
    /// When it does not, or when the origin is not there within 5 s.
    pub fn start(ns: &Namespace, address: SocketAddr, name: &str) -> Result<Self> {
        // Otherwise the new process would start an origin, and so on.
        ensure!(PLAYS.load(Ordering::Relaxed), "main must begin with xtask::lab::origin::play_if_asked()");
        let program = std::env::current_exe().context("cannot find this program")?;
        let listen = address.to_string();
        let child = ns.command(program).args([COMMAND, "--listen", &listen, "--name", name]).spawn()?;
        wait::wait_for_port(ns, address, START_LIMIT)
            .with_context(|| format!("origin {name}: {}", child.stderr()))?;
        Ok(Self { child, address, name: name.to_owned() })
    }
}

/// Becomes an origin and never returns when the program was started as `PROGRAM origin --listen ADDR:PORT
/// --name NAME`. To be called first in `main`.
pub fn play_if_asked() {
    PLAYS.store(true, Ordering::Relaxed);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let &[COMMAND, "--listen", listen, "--name", name] = words.as_slice() else { return };
    let name: &'static str = name.to_owned().leak();
    let error = serve::serve(listen, name).err();
    eprintln!("origin {name} on {listen}: {}", error.map_or("ended".into(), |error| error.to_string()));
    std::process::exit(1);
}
