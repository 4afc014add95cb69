//! The socket, its limits, and who is told what.
//!
//! Everything is on the control thread and answers at once, so a slow client holds up nobody but itself. Each connection
//! has one request: scrapers come every few seconds.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::super::Desk;
use super::super::tables::TableSummary;
use super::request::{LONGEST_HEAD, Page, Refusal, Request, parse};
use super::{metrics, status};
use crate::listen::{Passed, explain};
use crate::log::{Complaint, reason};
use crate::server::{Health, Operator};

/// At one time: a few scrapers and people. More would be somebody who wants to do harm.
const MOST_CONNECTIONS: usize = 32;

/// For a head to arrive, and for each piece of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers go out in pieces of this size, each with its own patience.
const PIECE: usize = 64 * 1024;

/// How old the count of a table's entries may be: it takes a walk over the table.
const TABLES_LIFE: Duration = Duration::from_secs(10);

/// The bound socket.
#[derive(Debug)]
pub struct Listener(StdListener);

impl Listener {
    /// Listens there, on the socket of a predecessor if that is among the `passed` ones.
    ///
    /// # Errors
    /// The address cannot be had: one line that names it.
    pub fn bind(address: SocketAddr, passed: &mut Vec<Passed>) -> anyhow::Result<Self> {
        let is_it = |passed: &mut Passed| passed.listener.local_addr().is_ok_and(|at| at == address);
        if let Some(found) = passed.extract_if(.., is_it).next() {
            return Ok(Self(found.listener));
        }
        let bound = || -> io::Result<StdListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            socket.listen(MOST_CONNECTIONS as i32)?;
            Ok(socket.into())
        };
        bound().map(Self).map_err(|error| anyhow!("--http-admin {address}: {}", explain(&error)))
    }

    /// Where it listens; a port 0 has become a real one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Another descriptor of it, to pass on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<StdListener> {
        self.0.try_clone()
    }

    /// Serves for ever. To be called, and to run, inside a `LocalSet`.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub fn serve(&self, desk: Rc<Desk>) -> io::Result<impl Future<Output = ()> + use<>> {
        let is_private = self.address()?.ip().to_canonical().is_loopback();
        let listener = TcpListener::from_std(self.0.try_clone()?)?;
        let own_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let office = Office {
            desk,
            own_name: own_name.trim().to_owned(),
            is_private,
            tables: RefCell::default(),
            open: Cell::default(),
        };
        Ok(accept(listener, Rc::new(office)))
    }
}

/// What the connections share.
struct Office {
    desk: Rc<Desk>,
    own_name: String,
    /// Only this host can connect.
    is_private: bool,
    /// The last count of the tables' entries.
    tables: RefCell<Option<(Instant, Vec<TableSummary>)>>,
    open: Cell<usize>,
}

async fn accept(listener: TcpListener, office: Rc<Office>) {
    let mut complaint = Complaint::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let seat = Seat::take(&office);
                spawn_local(converse(stream, peer, seat));
            }
            Err(error) => {
                complaint.make(format_args!("--http-admin: {}", reason(&error)));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One of the connections that may be open at one time, or one too many.
struct Seat {
    office: Rc<Office>,
    is_too_many: bool,
}

impl Seat {
    fn take(office: &Rc<Office>) -> Self {
        let open = office.open.get();
        office.open.set(open + 1);
        Self { office: Rc::clone(office), is_too_many: open >= MOST_CONNECTIONS }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.office.open.set(self.office.open.get() - 1);
    }
}

async fn converse(mut stream: TcpStream, peer: SocketAddr, seat: Seat) {
    if seat.is_too_many {
        // What fits into the socket's buffer, and no wait.
        let _ = stream.try_write(&refusal(Refusal::Busy));
        return;
    }
    let answer = match timeout(PATIENCE, read_request(&mut stream, &seat.office.own_name)).await {
        Ok(Ok(Some(request))) => seat.office.answer(request, peer).await,
        Ok(Err(why)) => refusal(why),
        Err(_) => refusal(Refusal::TooSlow),
        Ok(Ok(None)) => return,
    };
    for piece in answer.chunks(PIECE) {
        if !matches!(timeout(PATIENCE, stream.write_all(piece)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = stream.shutdown().await;
    // Closing on unread input would throw away the answer with it; but not for longer than is decent.
    let _ = timeout(Duration::from_secs(1), drain(&mut stream)).await;
}

/// `None`: the client has left.
async fn read_request(stream: &mut TcpStream, own_name: &str) -> Result<Option<Request>, Refusal> {
    let mut head = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let room = piece.len().min(LONGEST_HEAD - head.len());
        match stream.read(&mut piece[..room]).await {
            Ok(count @ 1..) => head.extend_from_slice(&piece[..count]),
            Ok(0) | Err(_) => return Ok(None),
        }
        if let Some(request) = parse(&head, own_name)? {
            return Ok(Some(request));
        }
    }
}

async fn drain(stream: &mut TcpStream) {
    let (mut piece, mut left) = ([0; 4096], LONGEST_HEAD);
    while let Ok(count @ 1..) = stream.read(&mut piece).await
        && count <= left
    {
        left -= count;
    }
}

impl Office {
    async fn answer(&self, request: Request, peer: SocketAddr) -> Vec<u8> {
        let desk = &self.desk;
        let (status, kind, body) = match request.page {
            Page::Health => (200, "text/plain; charset=utf-8", "ok\n".to_owned()),
            Page::Ready => match (is_ready(desk), desk.draining.get()) {
                (true, _) => (200, "text/plain; charset=utf-8", "ready\n".to_owned()),
                (false, true) => (503, "text/plain; charset=utf-8", "draining\n".to_owned()),
                (false, false) => (
                    503,
                    "text/plain; charset=utf-8",
                    "the first round of checks is not complete\n".to_owned(),
                ),
            },
            Page::Metrics => (200, metrics::CONTENT_TYPE, metrics::text(desk, self.count_tables().await)),
            Page::Status => {
                let with_clients = self.is_private && peer.ip().to_canonical().is_loopback();
                let status = status::Status::of(desk, with_clients);
                (200, "application/json", super::super::json_line(&status))
            }
        };
        response(status, kind, &body, request.is_head)
    }

    /// A walk over all tables takes a second where they are large, so it is done on a thread of its own, by one at a
    /// time, and its result is kept for a while.
    async fn count_tables(&self) -> Vec<TableSummary> {
        let _turn = self.desk.table_turn.lock().await;
        if let Some((counted, tables)) = &*self.tables.borrow()
            && counted.elapsed() < TABLES_LIFE
        {
            return tables.clone();
        }
        let tables = self.desk.books.tables.handle();
        let counted =
            tokio::task::spawn_blocking(move || TableSummary::all(&tables)).await.unwrap_or_default();
        *self.tables.borrow_mut() = Some((Instant::now(), counted.clone()));
        counted
    }
}

/// Clients are to be sent here: every server that may serve has been looked at once, and the process is to stay.
pub(super) fn is_ready(desk: &Desk) -> bool {
    if desk.draining.get() {
        return false;
    }
    if !desk.was_ready.get() {
        let servers = &desk.service.servers;
        let is_known = |place: usize| {
            let server = &servers[place];
            let is_out = server.operator() == Operator::Maint || server.is_unresolved();
            is_out || server.health() != Health::Unknown
        };
        let is_checked = desk.service.config.health.look().check.is_some();
        desk.was_ready.set(!is_checked || servers.places().into_iter().all(is_known));
    }
    desk.was_ready.get()
}

fn refusal(why: Refusal) -> Vec<u8> {
    response(why.status(), "text/plain; charset=utf-8", why.text(), false)
}

fn response(status: u16, kind: &str, body: &str, is_head: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut response = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !is_head {
        response.push_str(body);
    }
    response.into_bytes()
}
