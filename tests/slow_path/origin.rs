//! Servers, most of them with a fault.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::balancer::wait_for;
use super::{Message, PATIENCE, Reader};

const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A server that runs until dropped.
pub struct Origin {
    pub address: SocketAddr,
    requests: Receiver<Message>,
    stopped: Arc<AtomicBool>,
}

/// How a server feels.
#[derive(Clone, Copy, Debug)]
pub enum Mood {
    Well,
    /// These bytes, then the end.
    Says(&'static str),
    /// The same, except to checks.
    WellWhenChecked(&'static str),
    /// Takes the request and says nothing.
    Hangs,
    Resets,
}

/// What decides how a [`Origin::moody`] feels.
#[derive(Clone, Debug)]
pub struct Moods(Arc<Mutex<Mood>>);

impl Moods {
    pub fn set(&self, mood: Mood) {
        *self.0.lock().expect("lock") = mood;
    }
}

/// What a server does with a connection.
trait Behaviour: Fn(Reader, &Sender<Message>) + Send + Sync + 'static {}
impl<F: Fn(Reader, &Sender<Message>) + Send + Sync + 'static> Behaviour for F {}

impl Origin {
    fn start(behaviour: impl Behaviour) -> Self {
        Self::start_at(ANYWHERE, behaviour)
    }

    fn start_at(address: SocketAddr, behaviour: impl Behaviour) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("address");
        let (sender, requests) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let (behaviour, has_stopped) = (Arc::new(behaviour), Arc::clone(&stopped));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if has_stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Short of descriptors, which some tests are about.
                let Ok(stream) = stream else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                let (behaviour, sender) = (Arc::clone(&behaviour), sender.clone());
                thread::spawn(move || behaviour(Reader::new(stream), &sender));
            }
        });
        Self { address, requests, stopped }
    }

    /// Answers every request with `200` and its own name; keeps connections.
    pub fn named(name: &'static str) -> Self {
        Self::named_at(name, ANYWHERE)
    }

    /// The same at an address that was free a moment ago.
    pub fn named_at(name: &'static str, address: SocketAddr) -> Self {
        Self::start_at(
            address,
            Self::saying(move |_| {
                format!("HTTP/1.1 200 OK\r\nX-Server: {name}\r\nContent-Length: {}\r\n\r\n{name}", name.len())
            }),
        )
    }

    /// Answers every request with what `answer` says; keeps connections.
    pub fn answering(answer: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        Self::start(Self::saying(answer))
    }

    fn saying(answer: impl Fn(&Message) -> String + Send + Sync + 'static) -> impl Behaviour {
        move |mut connection: Reader, requests: &Sender<Message>| {
            while let Ok(Some(request)) = connection.message(true) {
                let answer = answer(&request);
                if requests.send(request).is_err() || connection.stream.write_all(answer.as_bytes()).is_err()
                {
                    return;
                }
            }
        }
    }

    /// Answers with these bytes whatever it is asked, and closes.
    pub fn saying_and_closing(bytes: &'static str) -> Self {
        Self::start(move |mut connection, requests| {
            if let Ok(Some(request)) = connection.message(true) {
                let _ = requests.send(request);
                let _ = connection.stream.write_all(bytes.as_bytes());
            }
        })
    }

    /// Answers once per connection, promising to keep it, then closes it.
    pub fn closing_idle_connections(name: &'static str) -> (Self, Receiver<()>) {
        let (sender, closed) = channel();
        let sender = Mutex::new(sender);
        let origin = Self::start(move |mut connection, requests| {
            if let Ok(Some(request)) = connection.message(true) {
                let _ = requests.send(request);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                let _ = connection.stream.write_all(answer.as_bytes());
                drop(connection);
                let _ = sender.lock().expect("lock").send(());
            }
        });
        (origin, closed)
    }

    /// Keeps a connection for one answer; takes the next request on it and closes without answering.
    pub fn closing_on_the_second_request(name: &'static str) -> Self {
        Self::start(move |mut connection, requests| {
            if let Ok(Some(request)) = connection.message(true) {
                let _ = requests.send(request);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                let _ = connection.stream.write_all(answer.as_bytes());
                let _ = connection.head();
            }
        })
    }

    /// Reads and never answers.
    pub fn silent() -> Self {
        Self::start(|mut connection, requests| {
            while let Ok(Some(request)) = connection.message(true) {
                let _ = requests.send(request);
            }
        })
    }

    /// Takes the head of a request and nothing more.
    pub fn taking_heads_only() -> Self {
        Self::start(|mut connection, requests| {
            if let Ok(Some(request)) = connection.head() {
                let _ = requests.send(request);
                // Keeps the connection without reading, until it is reset or nobody can be interested any more.
                let patience = PollTimeout::try_from(PATIENCE).expect("a short time");
                let _ = poll(&mut [PollFd::new(connection.stream.as_fd(), PollFlags::empty())], patience);
            }
        })
    }

    /// Says `start`, then `more` again and again for as long as it is listened to; how many bytes it has got rid of is
    /// in the counter.
    pub fn saying_without_end(start: &'static str, more: &'static str) -> (Self, Arc<AtomicU64>) {
        let said = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&said);
        let origin = Self::start(move |mut connection, requests| {
            let Ok(Some(request)) = connection.message(true) else { return };
            let _ = requests.send(request);
            let mut next = start;
            while connection.stream.write_all(next.as_bytes()).is_ok() {
                counter.fetch_add(next.len() as u64, Ordering::Relaxed);
                next = more;
            }
        });
        (origin, said)
    }

    /// Resets the connection after these bytes.
    pub fn saying_and_resetting(bytes: &'static str) -> Self {
        Self::start(move |mut connection, requests| {
            if let Ok(Some(request)) = connection.message(true) {
                let _ = requests.send(request);
                let _ = connection.stream.write_all(bytes.as_bytes());
                // What was said has to arrive before it: a reset overtakes what is still in a queue.
                thread::sleep(Duration::from_millis(50));
                let _ = socket2::SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO));
            }
        })
    }

    /// Answers as it feels, which the test may change; keeps connections only while it is well.
    pub fn moody(name: &'static str) -> (Self, Moods) {
        let moods = Moods(Arc::new(Mutex::new(Mood::Well)));
        let mine = moods.clone();
        let origin = Self::start(move |mut connection, requests| {
            while let Ok(Some(request)) = connection.message(true) {
                let is_check = request.start.contains(" /health ");
                let _ = requests.send(request);
                let well = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                let mood = *mine.0.lock().expect("lock");
                let answer = match mood {
                    Mood::WellWhenChecked(_) if is_check => &*well,
                    Mood::Well => &*well,
                    Mood::Says(bytes) | Mood::WellWhenChecked(bytes) => bytes,
                    Mood::Hangs => {
                        let _ = connection.head();
                        return;
                    }
                    Mood::Resets => return connection.reset(),
                };
                let _ = connection.stream.write_all(answer.as_bytes());
                if answer != well {
                    return;
                }
            }
        });
        (origin, moods)
    }

    /// Hands its connections to the test.
    pub fn by_hand() -> (Self, Receiver<Reader>) {
        let (sender, connections) = channel();
        let sender = Mutex::new(sender);
        let origin = Self::start(move |connection, _| {
            let _ = sender.lock().expect("lock").send(connection);
        });
        (origin, connections)
    }

    /// The next request that it has read.
    pub fn request(&self) -> Message {
        self.requests.recv_timeout(PATIENCE).expect("the origin is asked")
    }

    /// Listens no more; who is connected stays so.
    pub fn stop(self) {
        let address = self.address;
        drop(self);
        wait_for("the listener's end", || TcpStream::connect(address).is_err().then_some(()));
    }

    /// How many requests it has read that were not looked at; they count as looked at now.
    pub fn asked(&self) -> usize {
        self.requests.try_iter().count()
    }

    /// It has been asked nothing that was not looked at.
    pub fn expect_no_request(&self) {
        let asked = self.requests.try_recv();
        assert!(asked.is_err(), "the origin was asked {asked:?}");
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the accept loop, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

/// An address where nobody listens: it was free a moment ago.
pub fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("address")
}
