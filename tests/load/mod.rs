//! Clients that count what they get, for as long as they are let: for tests in which nothing may go wrong.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use xtask::lab::Namespace;
use xtask::lab::http::{Connection, Response, get};

use crate::site::Visit;

/// Where the clients are and whom they ask.
#[derive(Clone)]
pub struct From {
    pub ns: Namespace,
    pub source: Option<Ipv4Addr>,
    pub to: SocketAddr,
}

/// What one client has got.
#[derive(Debug, Default)]
pub struct Tally {
    pub done: u64,
    pub errors: Vec<String>,
}

impl Tally {
    fn count(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.done += 1,
            Err(error) => self.errors.push(format!("{error:#}")),
        }
    }
}

/// All clients of a test.
#[derive(Default)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, JoinHandle<Tally>)>,
}

impl Load {
    /// Adds a client that does `work` until it is told to stop.
    fn add(&mut self, name: &'static str, work: impl FnOnce(&AtomicBool) -> Tally + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.clients.push((name, thread::spawn(move || work(&stop))));
    }

    /// A new connection every `pause`, whether or not the earlier ones were quick.
    pub fn new_connections(&mut self, from: From, pause: Duration) {
        self.add("new connections", move |stop| {
            let (mut tally, mut next) = (Tally::default(), Instant::now());
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                next += pause;
                tally.count(
                    get(&from.ns, from.source, from.to, "/", &[]).and_then(|response| check(&response)),
                );
            }
            tally
        });
    }

    /// New connections of a client whose server is known: each must go past the proxy.
    pub fn known_client(&mut self, from: From, pause: Duration) {
        self.add("a known client", move |stop| {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let visit = get(&from.ns, from.source, from.to, "/", &[]).and_then(|it| Visit::of(&it));
                tally.count(visit.and_then(|visit| {
                    ensure!(visit.fast, "it went through the proxy: {visit:?}");
                    Ok(())
                }));
                thread::sleep(pause);
            }
            tally
        });
    }

    /// One request after the other on one connection, until an answer announces its end.
    pub fn keep_alive(&mut self, from: From, pause: Duration) {
        self.add("keep-alive", move |stop| {
            let (mut tally, mut connection) = (Tally::default(), None);
            while !stop.load(Ordering::Relaxed) {
                let outcome = request(&from, &mut connection);
                if outcome.is_err() {
                    connection = None;
                }
                tally.count(outcome);
                thread::sleep(pause);
            }
            tally
        });
    }

    /// One body that ends when the load does.
    pub fn upload(&mut self, from: From, path: &'static str) {
        self.add("an upload", move |stop| {
            let mut tally = Tally::default();
            match upload(&from, path, stop) {
                Ok(bytes) => tally.done = bytes,
                Err(error) => tally.errors.push(format!("{error:#}")),
            }
            tally
        });
    }

    /// One long answer.
    pub fn download(&mut self, name: &'static str, from: From, path: &'static str, length: usize) {
        self.add(name, move |_| {
            let mut tally = Tally::default();
            let response =
                Connection::open(&from.ns, from.source, from.to).and_then(|mut it| it.get(path, &[]));
            tally.count(response.and_then(|response| {
                ensure!(response.body.len() == length, "{} bytes", response.body.len());
                check(&response)
            }));
            tally
        });
    }

    /// A WebSocket that is answered by an echo.
    pub fn websocket(&mut self, from: From, path: &'static str) {
        self.add("a WebSocket", move |stop| {
            let mut tally = Tally::default();
            let outcome = converse(&from, path, stop, &mut tally.done);
            tally.errors.extend(outcome.err().map(|error| format!("{error:#}")));
            tally
        });
    }

    /// Ends the load; what each client has got.
    pub fn end(mut self) -> Vec<(&'static str, Tally)> {
        self.stop.store(true, Ordering::Relaxed);
        let join = |client: JoinHandle<Tally>| client.join().expect("a client that does not panic");
        self.clients.drain(..).map(|(name, client)| (name, join(client))).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn check(response: &Response) -> Result<()> {
    ensure!(response.status == 200, "status {}: {}", response.status, response.text());
    Ok(())
}

fn request(from: &From, connection: &mut Option<Connection>) -> Result<()> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(&from.ns, from.source, from.to)?),
    };
    let response = open.get("/", &[])?;
    if response.header("Connection") == Some("close") {
        *connection = None;
    }
    check(&response)
}

fn converse(from: &From, path: &str, stop: &AtomicBool, done: &mut u64) -> Result<()> {
    let mut connection = Connection::open(&from.ns, from.source, from.to)?;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let response = connection.get(path, &upgrade)?;
    ensure!(response.status == 101, "status {}: {}", response.status, response.text());
    while !stop.load(Ordering::Relaxed) {
        let said = done.to_be_bytes();
        connection.send(&said)?;
        let mut heard = [0; 8];
        connection.stream().read_exact(&mut heard)?;
        ensure!(heard == said, "the echo of {said:?} is {heard:?}");
        *done += 1;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Says yes to every upgrade at `listener`, and then everything that it hears.
pub fn echo(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || repeat(stream));
        }
    });
}

fn repeat(mut stream: UnixStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    let mut piece = [0; 1024];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => stream.write_all(&piece[..count])?,
        }
    }
}

fn upload(from: &From, path: &str, stop: &AtomicBool) -> Result<u64> {
    const PIECE: u64 = 1000;
    let mut connection = Connection::open(&from.ns, from.source, from.to)?;
    connection
        .send(format!("PUT {path} HTTP/1.1\r\nHost: lab\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    let chunk = format!("{PIECE:x}\r\n{}\r\n", "u".repeat(PIECE as usize));
    let mut bytes = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.send(chunk.as_bytes())?;
        bytes += PIECE;
        thread::sleep(Duration::from_millis(10));
    }
    connection.send(b"0\r\n\r\n")?;
    let response = connection.receive()?;
    if !matches!(response.status, 200..=299) {
        bail!("status {}: {}", response.status, response.text());
    }
    Ok(bytes)
}
