//! A DNS server that says what it is told to say.
#![allow(unreachable_pub, dead_code, reason = "shared by tests that need different parts of it")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What it does with a question.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses, for so many seconds.
    Are(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// It has failed.
    Failure,
    /// Bytes that are no answer.
    Garbage,
    /// A name that points to itself, and lengths that lie.
    Lies,
    /// Nothing.
    Silence,
}

/// Runs until dropped. Whatever the name is, the answer is the same.
pub struct Dns {
    pub address: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// `addresses`, for a second.
pub fn are(addresses: &[&str]) -> Says {
    Says::Are(addresses.iter().map(|text| text.parse().expect("address")).collect(), 1)
}

impl Dns {
    pub fn start(says: Says) -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").expect("bound"), says)
    }

    /// At a socket that may be in another network namespace.
    pub fn on(socket: UdpSocket, says: Says) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        let address = socket.local_addr().expect("address");
        let (says, asked, is_over) =
            (Arc::new(Mutex::new(says)), Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (says, asked, is_over) = (Arc::clone(&says), Arc::clone(&asked), Arc::clone(&is_over));
            thread::spawn(move || {
                let mut question = [0; 1500];
                while !is_over.load(Ordering::SeqCst) {
                    let Ok((count, peer)) = socket.recv_from(&mut question) else { continue };
                    let says = says.lock().expect("no panic").clone();
                    if let Some(answer) = answer(&question[..count], &says) {
                        let _ = socket.send_to(&answer, peer);
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        Self { address, says, asked, is_over, thread: Some(thread) }
    }

    pub fn say_from_now_on(&self, says: Says) {
        *self.says.lock().expect("no panic") = says;
    }

    /// Questions that were answered until now.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(question: &[u8], says: &Says) -> Option<Vec<u8>> {
    let mut name_end = 12;
    while *question.get(name_end)? != 0 {
        name_end += usize::from(question[name_end]) + 1;
    }
    let end = name_end + 5;
    let kind = u16::from_be_bytes([question[name_end + 1], question[name_end + 2]]);
    let head = |code: u8, answers: u16| {
        let mut message = question.get(..2).expect("an id").to_vec();
        message.extend([0x81, 0x80 | code, 0, 1]);
        message.extend(answers.to_be_bytes());
        message.extend([0; 4]);
        message.extend(&question[12..end]);
        message
    };
    match says {
        Says::Silence => None,
        Says::Garbage => Some([&question[..2], &[0xff; 200]].concat()),
        Says::NoSuchName => Some(head(3, 0)),
        Says::Failure => Some(head(2, 0)),
        Says::Lies => {
            let mut message = head(0, 50);
            let here = u16::try_from(message.len()).expect("short") | 0xc000;
            message.extend(here.to_be_bytes());
            message.extend([0, 1, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 1]);
            Some(message)
        }
        Says::Are(addresses, life) => {
            let of_kind: Vec<_> = addresses
                .iter()
                .filter(|address| if address.is_ipv4() { kind == 1 } else { kind == 28 })
                .collect();
            let mut message = head(0, of_kind.len() as u16);
            for address in of_kind {
                let octets = match address {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                message.extend([0xc0, 12]);
                message.extend(kind.to_be_bytes());
                message.extend([0, 1]);
                message.extend(life.to_be_bytes());
                message.extend((octets.len() as u16).to_be_bytes());
                message.extend(octets);
            }
            Some(message)
        }
    }
}
