//! Plays a row: the test is client and server at once, in one thread, with the program in the middle.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::row::{End, LISTEN, Meaning, OK, PROBE, Row};
use super::subject::{Kind, Stream, Subject};
use super::wire::{self, AnswerTo};

/// For everything that a row waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// After that long without a byte another proxy is taken to wait for more of the request.
const QUIET: Duration = Duration::from_millis(500);

/// A program with a server behind it.
pub struct Stage {
    subject: Subject,
    listener: TcpListener,
    is_known: bool,
}

/// More does not come all at once, whatever the client does: it is the balancer's buffer.
const ONE_READ: usize = 16 * 1024;

/// What has arrived so far.
#[derive(Debug)]
struct Seen {
    at_server: Vec<u8>,
    at_client: Vec<u8>,
    end: Option<End>,
    answer_to: AnswerTo,
    /// Answers the server has given.
    answered: usize,
}

impl Seen {
    fn finals(&self) -> usize {
        let ended = self.end.is_some();
        let responses = wire::responses(&self.at_client, self.answer_to, ended);
        responses.iter().filter(|response| response.status() >= 200).count()
    }
}

impl Stage {
    pub fn new(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let subject = Subject::start(kind, listener.local_addr().expect("address"));
        Self { subject, listener, is_known: kind.is_known_release() }
    }

    /// The balancer does to the byte what the row says, whatever pieces the client's bytes come in.
    pub fn expect(&self, row: &Row, pieces: &[&[u8]]) {
        let mut play = self.begin(row, pieces);
        if row.end == End::Open {
            let finals = row.finals();
            play.until("the answers", |seen| seen.finals() >= finals);
            if play.seen.end.is_none() {
                play.send(&[PROBE.as_bytes()]);
                play.until("the answer to the probe", |seen| seen.finals() > finals);
            }
        } else {
            play.until("the end of the connection", |seen| seen.end.is_some());
        }
        let (at_server, at_client, end) = play.finish();
        let listen = self.subject.listen();
        let mut expected_at_server = text(&row.at_server).replace(LISTEN, &listen);
        let mut expected_at_client = text(&row.at_client);
        if row.end == End::Open {
            expected_at_server += PROBE;
            expected_at_client += OK;
        }
        let is_at_once = pieces.len() == 1 && row.client.len() < ONE_READ;
        if row.may_begin && !is_at_once {
            let is_part = row.client.starts_with(&at_server) && wire::request(&at_server).is_none();
            assert!(is_part, "more than a beginning at the server:\n{}", shown(&text(&at_server)));
        } else {
            similar(&text(&at_server), &expected_at_server, "at the server");
        }
        similar(&text(&at_client), &expected_at_client, "at the client");
        assert_eq!(end, row.end, "the end of the connection");
    }

    /// Another proxy means the same; or not, if there is a reason.
    pub fn compare(&self, row: &Row, reason: Option<&str>) {
        let mut play = self.begin(row, &[&row.client]);
        let finals = row.finals();
        play.until_quiet(|seen| seen.finals() >= finals);
        play.client.end_sending();
        // Some wait for ever.
        play.until_quiet(|_| false);
        let (at_server, at_client, _) = play.finish();
        let (theirs, ours) = (Meaning::of(&at_server, &at_client, row.answer_to()), row.meaning());
        match reason {
            None => assert_eq!(theirs, ours, "theirs, ours"),
            Some(reason) if theirs == ours && !reason.starts_with("sometimes ") => {
                assert!(!self.is_known, "it does the same, so this is wrong: {reason}");
            }
            Some(_) => {}
        }
    }

    fn begin<'s>(&'s self, row: &'s Row, pieces: &[&[u8]]) -> Play<'s> {
        let mut play = Play {
            row,
            listener: &self.listener,
            client: self.subject.connect(),
            upstreams: Vec::new(),
            seen: Seen {
                at_server: Vec::new(),
                at_client: Vec::new(),
                end: None,
                answer_to: row.answer_to(),
                answered: 0,
            },
            start: Instant::now(),
        };
        play.send(pieces);
        if row.half_closes {
            play.client.end_sending();
        }
        play
    }
}

/// A row being played.
struct Play<'s> {
    row: &'s Row,
    listener: &'s TcpListener,
    client: Box<dyn Stream>,
    upstreams: Vec<Upstream>,
    seen: Seen,
    start: Instant,
}

/// A connection from the program to the server.
struct Upstream {
    stream: TcpStream,
    /// Of a request that is not whole.
    held: Vec<u8>,
    is_over: bool,
}

impl Play<'_> {
    /// Sends the pieces one by one, attending to everything else between them.
    fn send(&mut self, pieces: &[&[u8]]) {
        for piece in pieces {
            let mut left = *piece;
            while !left.is_empty() {
                match self.client.write(left) {
                    Ok(count) => left = &left[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.turn(Duration::from_millis(10));
                    }
                    // It was refused before it was all sent, which is for the row to say.
                    Err(_) => return,
                }
            }
            if pieces.len() > 1 {
                // Time for the program to read the piece. Where that is not enough, the row is played in fewer pieces.
                self.turn(Duration::from_millis(1));
            }
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Seen) -> bool) {
        while !done(&self.seen) && self.seen.end.is_none() {
            let left = PATIENCE.saturating_sub(self.start.elapsed());
            assert!(!left.is_zero(), "no sign of {what}; {:#?}", Printed(&self.seen));
            self.turn(left);
        }
    }

    fn until_quiet(&mut self, done: impl Fn(&Seen) -> bool) {
        while !done(&self.seen) && self.seen.end.is_none() && self.turn(QUIET) {}
    }

    /// Waits for something to happen and deals with it; false when nothing has.
    fn turn(&mut self, patience: Duration) -> bool {
        let wait = PollTimeout::try_from(patience).expect("a short time");
        let mut watched = vec![
            PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let open = self.upstreams.iter().filter(|upstream| !upstream.is_over);
        watched.extend(open.map(|upstream| PollFd::new(upstream.stream.as_fd(), PollFlags::POLLIN)));
        if poll(&mut watched, wait).expect("poll") == 0 {
            return false;
        }
        drop(watched);
        self.attend();
        true
    }

    /// The server first: what the client hears was caused there.
    fn attend(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("nonblocking");
            stream.set_nodelay(true).expect("nodelay");
            self.upstreams.push(Upstream { stream, held: Vec::new(), is_over: false });
        }
        for upstream in self.upstreams.iter_mut().filter(|upstream| !upstream.is_over) {
            upstream.attend(self.row, &mut self.seen);
        }
        if self.seen.end.is_none() {
            self.seen.end = read(&mut self.client, &mut self.seen.at_client);
        }
    }

    /// All that has arrived. What was sent on loopback is there, so nothing has to be waited for.
    fn finish(mut self) -> (Vec<u8>, Vec<u8>, End) {
        self.attend();
        (self.seen.at_server, self.seen.at_client, self.seen.end.unwrap_or(End::Open))
    }
}

impl Upstream {
    fn attend(&mut self, row: &Row, seen: &mut Seen) {
        let before = self.held.len();
        self.is_over = read(&mut self.stream, &mut self.held).is_some();
        seen.at_server.extend_from_slice(&self.held[before..]);
        while let Some(request) = wire::request(&self.held) {
            self.held.drain(..request.length);
            let scripted = row.server.get(seen.answered);
            seen.answered += 1;
            let mut left = scripted.map_or(OK.as_bytes(), Vec::as_slice);
            while !left.is_empty() {
                match self.stream.write(left) {
                    Ok(count) => left = &left[count..],
                    // The answers of the table fit into a socket's buffer.
                    Err(error) => panic!("the server cannot answer: {error}"),
                }
            }
            if scripted.is_some() && row.server_closes {
                let _ = self.stream.shutdown(std::net::Shutdown::Both);
                self.is_over = true;
                return;
            }
        }
    }
}

impl Drop for Upstream {
    /// So that a connection that is kept is seen to be of no use to the next row.
    fn drop(&mut self) {
        if !self.is_over {
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Reads all there is; how the stream ended, if it did.
fn read(stream: &mut (impl Read + ?Sized), into: &mut Vec<u8>) -> Option<End> {
    let mut bytes = [0; 16 * 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Some(End::Closed),
            Ok(count) => into.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Some(End::Reset),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "\r\n")
}

fn similar(seen: &str, expected: &str, side: &str) {
    assert!(seen == expected, "{side}:\n{}\nexpected:\n{}", shown(seen), shown(expected));
}

fn shown(text: &str) -> String {
    text.replace("\r\n", "␍␊\n")
}

/// Shows bytes as text.
struct Printed<'s>(&'s Seen);

impl std::fmt::Debug for Printed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at the server:\n{}\n", shown(&text(&self.0.at_server)))?;
        write!(f, "at the client:\n{}\n{:?}", shown(&text(&self.0.at_client)), self.0.end)
    }
}
