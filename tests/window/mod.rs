//! A window into a namespace: a port here, behind which is one of there, so that a browser need not go there itself.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use xtask::lab::Namespace;

/// Longest wait of either side for the other. Browsers open more connections than they use.
const PATIENCE: Duration = Duration::from_secs(60);

/// Closed on drop.
pub struct Window {
    /// Where it is open.
    pub address: SocketAddr,
    is_closed: Arc<AtomicBool>,
    /// Has a handle on the namespace until it ends.
    thread: Option<JoinHandle<()>>,
}

impl Window {
    pub fn into(ns: &Namespace, there: SocketAddr) -> Result<Self> {
        // A socket belongs to where it was made, and a thread's connections to where the thread is.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, is_closed) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let (ns, closed) = (ns.clone(), Arc::clone(&is_closed));
        let serve = move || {
            while let Ok((client, _)) = listener.accept()
                && !closed.load(Ordering::Relaxed)
            {
                thread::spawn(move || hand_over(client, there));
            }
        };
        let thread = thread::spawn(move || ns.run(serve).expect("it can be entered"));
        Ok(Self { address, is_closed, thread: Some(thread) })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A question and all that is answered; who is there closes afterwards.
fn hand_over(mut client: TcpStream, there: SocketAddr) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut question = Vec::new();
    let mut lines = BufReader::new(client.try_clone()?);
    while !question.ends_with(b"\r\n\r\n") {
        if lines.read_until(b'\n', &mut question)? == 0 {
            return Ok(());
        }
    }
    let mut server = TcpStream::connect_timeout(&there, PATIENCE)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server.write_all(&question)?;
    io::copy(&mut server, &mut client)?;
    Ok(())
}
