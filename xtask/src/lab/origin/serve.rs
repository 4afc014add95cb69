//! Sockets: one loop for short exchanges, a thread for each connection that asks for more.
//!
//! A thread for every connection would be simpler, and much slower under load: then the origin would be what
//! a comparison of paths measures.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::exchange::{Head, answer};

const LARGEST_HEAD: usize = 64 << 10;
const LARGEST_CHUNK: usize = 16 << 20;
const IDLE_LIMIT: Duration = Duration::from_secs(600);
const EVENTS: usize = 64;
/// The listener's token; connections have their descriptors.
const LISTENER: u64 = u64::MAX;

/// A connection in the loop, between requests.
struct Resting {
    stream: TcpStream,
    peer: SocketAddr,
    /// The last request and its answer. Load repeats itself, and on one connection the same request has the
    /// same answer; without this an unoptimized build would be what a comparison of paths measures.
    last: (Vec<u8>, Vec<u8>),
}

/// What the loop does with a connection after a look at it.
enum Next {
    Rest,
    Close,
    /// Goes on in a thread of its own, with the bytes already read.
    Move(Vec<u8>),
}

/// Serves until something breaks that is not a connection.
pub(super) fn serve(listen: &str, name: &'static str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut connections: HashMap<u64, Resting> = HashMap::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; 16 << 10];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(&listener, &epoll, &mut connections);
                continue;
            }
            let Some(connection) = connections.get_mut(&event.data()) else { continue };
            let next = exchange(connection, name, &mut buffer).unwrap_or(Next::Close);
            if matches!(next, Next::Rest) {
                continue;
            }
            let Some(connection) = connections.remove(&event.data()) else { continue };
            let _ = epoll.delete(connection.stream.as_fd());
            if let Next::Move(input) = next {
                let talk = move || drop(converse(&connection.stream, name, input));
                let _ = thread::Builder::new().stack_size(256 << 10).spawn(talk);
            }
        }
    }
}

/// A connection that is gone before it is accepted, or one too many, is not the end of the server.
fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut HashMap<u64, Resting>) {
    while let Ok((stream, peer)) = listener.accept() {
        let token = u64::from(stream.as_raw_fd().cast_unsigned());
        let settled = stream.set_nodelay(true).is_ok() && stream.set_nonblocking(true).is_ok();
        if settled && epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token)).is_ok() {
            connections.insert(token, Resting { stream, peer, last: Default::default() });
        }
    }
}

/// Answers one short request that arrived whole; everything else moves.
fn exchange(connection: &mut Resting, name: &str, buffer: &mut [u8]) -> io::Result<Next> {
    let mut stream = &connection.stream;
    let read = match stream.read(buffer) {
        Ok(0) => return Ok(Next::Close),
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Next::Rest),
        Err(error) => return Err(error),
    };
    let input = &buffer[..read];
    if input == connection.last.0 {
        stream.write_all(&connection.last.1)?;
        return Ok(Next::Rest);
    }
    let whole = str::from_utf8(input).ok().filter(|text| text.find("\r\n\r\n") == Some(text.len() - 4));
    let Some(head) = whole.map(Head::parse).filter(Head::is_short) else {
        return Ok(Next::Move(input.to_vec()));
    };
    // A short answer fits into the socket's buffer, since the client has read the one before.
    let bytes = answer(&head, name, connection.peer, 0);
    stream.write_all(&bytes)?;
    if head.close {
        return Ok(Next::Close);
    }
    connection.last = (input.to_vec(), bytes);
    Ok(Next::Rest)
}

/// Answers requests until either side has enough.
fn converse(mut stream: &TcpStream, name: &str, mut input: Vec<u8>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    let peer = stream.peer_addr()?;
    loop {
        let Some(head_length) = read_head(stream, &mut input)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&input[..head_length]).into_owned();
        let head = Head::parse(&text);
        input.drain(..head_length);
        let received = read_body(stream, &mut input, &head)?;
        stream.write_all(&answer(&head, name, peer, received))?;
        if head.close {
            return Ok(());
        }
    }
}

/// The length of a complete head at the start of `input`, or nothing when the client has left.
fn read_head(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        if input.len() > LARGEST_HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
        match read_more(stream, input) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
    }
}

/// Takes the body off `input` and says how long it was; chunks are counted with their framing removed.
fn read_body(stream: &TcpStream, input: &mut Vec<u8>, head: &Head<'_>) -> io::Result<usize> {
    if head.chunked {
        return read_chunks(stream, input);
    }
    let mut missing = head.length;
    loop {
        let here = missing.min(input.len());
        input.drain(..here);
        missing -= here;
        if missing == 0 {
            return Ok(head.length);
        }
        read_more(stream, input)?;
    }
}

fn read_chunks(stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut received = 0;
    loop {
        let Some(end) = input.windows(2).position(|two| two == b"\r\n") else {
            read_more(stream, input)?;
            continue;
        };
        let size = str::from_utf8(&input[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.filter(|size| *size <= LARGEST_CHUNK).ok_or(ErrorKind::InvalidData)?;
        while input.len() < end + 2 + size + 2 {
            read_more(stream, input)?;
        }
        input.drain(..end + 2 + size + 2);
        received += size;
        if size == 0 {
            return Ok(received);
        }
    }
}

fn read_more(mut stream: &TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => {
            input.extend_from_slice(&buffer[..read]);
            Ok(())
        }
    }
}
