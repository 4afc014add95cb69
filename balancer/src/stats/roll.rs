//! Who is connected to a worker, for `show sess`. Its thread alone writes, and waits for nobody who reads: each row has a
//! number of its own, which tells a reader whether it has seen one connection or parts of two.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The row of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present(usize);

/// As many rows as there have been clients at one time.
#[derive(Debug)]
pub struct Roll {
    started: Instant,
    rows: boxcar::Vec<Row>,
    /// Rows that nobody has. Only the worker takes it, so it never waits.
    free: Mutex<Vec<usize>>,
    came: AtomicU64,
}

#[derive(Debug, Default)]
struct Row {
    /// The number of the connection; 0: there is none.
    serial: AtomicU64,
    address: [AtomicU64; 2],
    port: AtomicU64,
    /// Milliseconds from the start of the statistics.
    since: AtomicU64,
    requests: AtomicU64,
    /// The place of the server that it is served by, plus one; 0: by none.
    server: AtomicU64,
}

/// A client that was connected a moment ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guest {
    /// Counts the clients of the worker.
    pub serial: u64,
    /// Who it is.
    pub client: SocketAddr,
    /// For how long it has been connected.
    pub age: Duration,
    /// Requests so far; with `--mode tcp` one.
    pub requests: u64,
    /// The place of the server that serves it.
    pub server: Option<usize>,
}

impl Default for Roll {
    fn default() -> Self {
        let (rows, free) = (boxcar::Vec::new(), Mutex::default());
        Self { started: Instant::now(), rows, free, came: AtomicU64::new(0) }
    }
}

impl Roll {
    /// `client` has connected.
    pub(crate) fn enter(&self, client: SocketAddr) -> Present {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = free.unwrap_or_else(|| self.rows.push(Row::default()));
        let row = &self.rows[place];
        row.name(client);
        let since = self.started.elapsed().as_millis() as u64;
        for (field, value) in [(&row.since, since), (&row.requests, 0), (&row.server, 0)] {
            field.store(value, Ordering::Relaxed);
        }
        let serial = self.came.load(Ordering::Relaxed) + 1;
        self.came.store(serial, Ordering::Relaxed);
        row.serial.store(serial, Ordering::Release);
        Present(place)
    }

    /// It has gone.
    pub(crate) fn leave(&self, present: Present) {
        self.rows[present.0].serial.store(0, Ordering::Relaxed);
        // Before anything of the next one is written.
        fence(Ordering::Release);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(present.0);
    }

    /// A PROXY header has said who it is.
    pub(crate) fn rename(&self, present: Present, client: SocketAddr) {
        let row = &self.rows[present.0];
        let serial = row.serial.swap(0, Ordering::Relaxed);
        fence(Ordering::Release);
        row.name(client);
        row.serial.store(serial, Ordering::Release);
    }

    /// It has a request.
    pub(crate) fn asks(&self, present: Present) {
        let requests = &self.rows[present.0].requests;
        requests.store(requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The server at this place serves it, or none.
    pub(crate) fn is_served(&self, present: Present, server: Option<usize>) {
        let server = server.map_or(0, |place| place as u64 + 1);
        self.rows[present.0].server.store(server, Ordering::Relaxed);
    }

    /// All who are connected.
    pub fn guests(&self) -> Vec<Guest> {
        self.rows.iter().filter_map(|(_, row)| row.read(self.started)).collect()
    }
}

impl Row {
    fn name(&self, client: SocketAddr) {
        let bits = match client.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        self.address[0].store((bits >> 64) as u64, Ordering::Relaxed);
        self.address[1].store(bits as u64, Ordering::Relaxed);
        self.port.store(client.port().into(), Ordering::Relaxed);
    }

    /// `None`: nobody, or somebody who came or went this moment.
    fn read(&self, started: Instant) -> Option<Guest> {
        let serial = self.serial.load(Ordering::Acquire);
        let get = |field: &AtomicU64| field.load(Ordering::Relaxed);
        let bits = u128::from(get(&self.address[0])) << 64 | u128::from(get(&self.address[1]));
        let port = get(&self.port) as u16;
        let since = started + Duration::from_millis(get(&self.since));
        let (requests, server) = (get(&self.requests), get(&self.server));
        fence(Ordering::Acquire);
        (serial != 0 && get(&self.serial) == serial).then(|| Guest {
            serial,
            client: SocketAddr::new(Ipv6Addr::from_bits(bits).to_canonical(), port),
            age: Instant::now().saturating_duration_since(since),
            requests,
            server: server.checked_sub(1).and_then(|place| usize::try_from(place).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn who_is_there_is_on_the_roll() {
        let roll = Roll::default();
        let (first, second) = (roll.enter(client(1)), roll.enter(client(2)));
        roll.asks(second);
        roll.is_served(second, Some(0));
        let row = |guest: &Guest| (guest.serial, guest.client, guest.requests, guest.server);
        let rows = || roll.guests().iter().map(row).collect::<Vec<_>>();
        assert_eq!(rows(), [(1, client(1), 0, None), (2, client(2), 1, Some(0))]);
        roll.leave(first);
        assert_eq!(rows(), [(2, client(2), 1, Some(0))]);
        roll.is_served(second, None);
        let named = "[2001:db8::1]:7".parse().expect("an address");
        let third = roll.enter(client(3));
        assert_eq!(first, third, "its row is used again");
        roll.rename(third, named);
        assert_eq!(rows(), [(3, named, 0, None), (2, client(2), 1, None)]);
    }

    #[test]
    fn a_reader_sees_nobody_who_was_never_there() {
        let roll = std::sync::Arc::new(Roll::default());
        let reader = {
            let roll = std::sync::Arc::clone(&roll);
            std::thread::spawn(move || {
                let mut seen = 0_u64;
                while seen < 100_000 {
                    for guest in roll.guests() {
                        // Its number is in all of its fields.
                        let number = guest.serial as u16;
                        assert_eq!(guest.client.port(), number);
                        let expected = [192, 0, (number >> 8) as u8, number as u8];
                        assert_eq!(guest.client.ip(), IpAddr::from(expected));
                        seen += 1;
                    }
                }
            })
        };
        for serial in 1_u64.. {
            let number = serial as u16;
            let ip = [192, 0, (number >> 8) as u8, number as u8];
            let present = roll.enter(SocketAddr::from((ip, number)));
            if serial % 7 == 0 {
                std::thread::yield_now();
            }
            roll.leave(present);
            if reader.is_finished() {
                break;
            }
        }
        reader.join().expect("nobody was made of two");
    }
}
