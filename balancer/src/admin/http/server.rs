//! The socket, its limits, and who is told what.
//!
//! Everything is on the control thread and answers at once, so a slow client holds up nobody but itself. Each connection
//! has one request: scrapers come every few seconds.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use anyhow::anyhow;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::super::crowd::{Crowd, Seat};
use super::super::status::Status;
use super::super::{Desk, json_line};
use super::request::{LONGEST_HEAD, Page, Refusal, Request, parse};
use super::{explain, metrics, page, status};
use crate::listen::{self, Passed};
use crate::log::{Complaint, reason};

/// Of what people may read in a terminal.
const TEXT: &str = "text/plain; charset=utf-8";

/// At one time: a few scrapers and people. Whoever comes then waits for a place, so that whoever watches whether we live is not
/// told otherwise because somebody else holds places.
const MOST_CONNECTIONS: usize = 32;

/// Who wait for one, in the kernel.
const MOST_WAITING: i32 = 128;

/// Somebody silent for so long loses the place when it is needed.
const GRACE: Duration = Duration::from_millis(250);

/// For a head to arrive, and for each piece of an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers go out in pieces of this size, each with its own patience.
const PIECE: usize = 64 * 1024;

/// The bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: StdListener,
    closing: Rc<Notify>,
}

impl Listener {
    /// Listens there, on the socket of a predecessor if that is among the `passed` ones.
    ///
    /// # Errors
    /// The address cannot be had: one line that names it.
    pub fn bind(address: SocketAddr, passed: &mut Vec<Passed>) -> anyhow::Result<Self> {
        let is_it = |passed: &mut Passed| passed.listener.local_addr().is_ok_and(|at| at == address);
        if let Some(found) = passed.extract_if(.., is_it).next() {
            return Ok(Self::new(found.listener));
        }
        let bound = || -> io::Result<StdListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            socket.listen(MOST_WAITING)?;
            Ok(socket.into())
        };
        bound()
            .map(Self::new)
            .map_err(|error| anyhow!("--http-admin {address}: {}", listen::explain(&error, address)))
    }

    fn new(socket: StdListener) -> Self {
        Self { socket, closing: Rc::default() }
    }

    /// Where it listens; a port 0 has become a real one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Another descriptor of it, to pass on.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn descriptor(&self) -> io::Result<StdListener> {
        self.socket.try_clone()
    }

    /// Takes nobody new; what [`Self::serve`] has made ends when all who are there are answered.
    pub fn close(self) {
        self.closing.notify_one();
    }

    /// Serves until it is closed. To be called, and to run, inside a `LocalSet`.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub fn serve(&self, desk: Rc<Desk>) -> io::Result<impl Future<Output = ()> + use<>> {
        let is_private = self.address()?.ip().to_canonical().is_loopback();
        let listener = TcpListener::from_std(self.socket.try_clone()?)?;
        let own_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let office = Office { desk, own_name: own_name.trim().to_owned(), is_private };
        Ok(accept(listener, Rc::new(office), Rc::clone(&self.closing)))
    }
}

/// What the connections share.
struct Office {
    desk: Rc<Desk>,
    own_name: String,
    /// Only this host can connect.
    is_private: bool,
}

async fn accept(listener: TcpListener, office: Rc<Office>, closing: Rc<Notify>) {
    let (open, leaving) = (Crowd::new(MOST_CONNECTIONS, GRACE), Crowd::new(MOST_CONNECTIONS, GRACE));
    let mut complaint = Complaint::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let seat = open.next_seat().await;
                let (office, leaving) = (Rc::clone(&office), Rc::clone(&leaving));
                spawn_local(async move {
                    let answered = converse(stream, peer, &office, seat).await;
                    if let (Some(stream), Some(_seat)) = (answered, leaving.seat()) {
                        drain(stream).await;
                    }
                });
            }
            Err(error) => {
                complaint.make(format_args!("--http-admin: {}", reason(&error)));
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    open.all_gone().await;
}

/// Whoever was answered is given back.
async fn converse(mut stream: TcpStream, peer: SocketAddr, office: &Office, seat: Seat) -> Option<TcpStream> {
    let answer = match seat.patiently(PATIENCE, read_request(&mut stream, &office.own_name)).await {
        Some(Ok(Some(request))) => office.answer(request, peer).await,
        Some(Ok(None)) => return None,
        Some(Err(why)) => refusal(why),
        None => {
            // What fits into the socket's buffer, and no wait.
            let _ = stream.try_write(&refusal(Refusal::TooSlow));
            return None;
        }
    };
    for piece in answer.chunks(PIECE) {
        seat.patiently(PATIENCE, stream.write_all(piece)).await?.ok()?;
    }
    stream.shutdown().await.ok()?;
    Some(stream)
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

/// Closing on unread input would throw away the answer with it.
async fn drain(mut stream: TcpStream) {
    let (mut piece, mut left) = ([0; 4096], LONGEST_HEAD);
    let read = async {
        while let Ok(count @ 1..) = stream.read(&mut piece).await
            && count <= left
        {
            left -= count;
        }
    };
    // But not for longer than is decent.
    let _ = timeout(Duration::from_secs(1), read).await;
}

impl Office {
    async fn answer(&self, request: Request, peer: SocketAddr) -> Vec<u8> {
        let desk = &self.desk;
        let text = |status, text: &str| response(status, TEXT, text, request.is_head);
        let json = |status, body: &str| response(status, "application/json", body, request.is_head);
        let is_private = self.is_private && peer.ip().to_canonical().is_loopback();
        match request.page {
            Page::Health => text(200, "ok\n"),
            Page::Ready => match (desk.is_ready(), desk.draining.get()) {
                (true, _) => text(200, "ready\n"),
                (false, true) => text(503, "draining\n"),
                (false, false) => text(503, "the first round of checks is not complete\n"),
            },
            Page::Metrics => {
                let body = metrics::text(desk, &*desk.census().await);
                response(200, metrics::CONTENT_TYPE, &body, request.is_head)
            }
            Page::Status => match status::decisions(&request.query) {
                Ok(decisions) => json(200, &json_line(&Status::of(desk, is_private, decisions).await)),
                Err(why) => text(400, &why),
            },
            Page::Explain => {
                let (status, body) = explain::answer(desk, &request.query, is_private);
                json(status, &body)
            }
            Page::Overview => {
                let kind = format!("text/html; charset=utf-8\r\nContent-Security-Policy: {}", *page::POLICY);
                response(200, &kind, &page::PAGE, request.is_head)
            }
            Page::Front => {
                response(302, &format!("{TEXT}\r\nLocation: /status"), "see /status\n", request.is_head)
            }
        }
    }
}

fn refusal(why: Refusal) -> Vec<u8> {
    response(why.status(), TEXT, why.text(), false)
}

/// `kind`: the value of Content-Type; other header lines may follow it.
fn response(status: u16, kind: &str, body: &str, is_head: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
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
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !is_head {
        response.push_str(body);
    }
    response.into_bytes()
}
