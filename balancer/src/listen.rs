//! Listening sockets: one per address and worker, and nobody else's among them.
//!
//! `SO_REUSEPORT` lets every worker have a socket of its own on the same address, but it would also let a second
//! balancer join in unnoticed and take half of the connections. So the first socket of an address is bound and put
//! to listening without it, which fails if anybody listens there, whatever options they have set; only then is it
//! switched on for the others to join. That order is what makes the check free of races: the kernel looks for
//! conflicts again when a socket starts to listen.
//!
//! A successor gets the sockets of its predecessor as they are, with whoever waits in their queues. All of them are used,
//! whatever the number of workers: the kernel goes on sending connections to each.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::anyhow;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::log::reason;
use crate::occupant::Occupants;

/// Connections that wait to be accepted; the kernel cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The sockets of a service.
#[derive(Debug)]
pub struct Bound {
    /// Where they listen; a port 0 has become a real one.
    pub addresses: Vec<SocketAddr>,
    /// For each worker one socket per address, in their order.
    pub workers: Vec<Vec<TcpListener>>,
}

impl Bound {
    /// What clients are told of how large their segments may be. A predecessor may have said something else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit_segments(&self, mss: Option<u32>) -> io::Result<()> {
        let sockets = self.workers.iter().flatten();
        sockets.map(SockRef::from).try_for_each(|socket| socket.set_tcp_mss(mss.unwrap_or(0)))
    }
}

/// A socket that a predecessor has passed on.
#[derive(Debug)]
pub struct Passed {
    /// What it was asked for, perhaps with port 0.
    pub asked: SocketAddr,
    /// The socket.
    pub listener: TcpListener,
}

/// Listens on every address, once for each worker. What `passed` has of an address is used, all of it.
///
/// # Errors
/// An address is in use, is not this host's, or needs a privilege: one line that names it.
pub fn bind(addresses: &[SocketAddr], workers: usize, mut passed: Vec<Passed>) -> anyhow::Result<Bound> {
    let mut bound = Bound { addresses: Vec::new(), workers: (0..workers).map(|_| Vec::new()).collect() };
    for &address in addresses {
        let is_it = |passed: &mut Passed| {
            passed.asked == address || passed.listener.local_addr().is_ok_and(|at| at == address)
        };
        let known: Vec<_> = passed.extract_if(.., is_it).map(|passed| passed.listener).collect();
        let sockets = if known.is_empty() { bind_one(address, workers) } else { add_to(known, workers) };
        let sockets = sockets.map_err(|error| anyhow!("--listen {address}: {}", explain(&error, address)))?;
        bound.addresses.push(sockets[0].local_addr()?);
        for (number, socket) in sockets.into_iter().enumerate() {
            bound.workers[number % workers].push(socket);
        }
    }
    Ok(bound)
}

/// Raises the soft limit of open files to the hard one: a proxied connection takes two.
pub fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // What is refused leaves the limit as it was, and the service runs with that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn bind_one(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let first = TcpListener::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        let next = join(address)?;
        start(&next)?;
        sockets.push(next);
    }
    Ok(sockets)
}

/// One more socket beside ours, not listening yet.
fn join(address: SocketAddr) -> io::Result<TcpListener> {
    let next = socket(address)?;
    next.set_reuse_port(true)?;
    next.bind(&address.into())?;
    Ok(next.into())
}

/// Lets clients in, where they are not yet. For whoever is about to accept them: one more socket of an address gets its
/// share of the clients from this moment, and takes them with it when it is closed.
///
/// # Errors
/// When the kernel refuses.
pub fn start(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(BACKLOG)
}

/// At least `count` of them; those that are added do not listen before [`start`], as the predecessor is serving still.
/// Whoever may not bind beside them, for the lack of a privilege or as another user than the
/// first one, lets several workers accept from one.
fn add_to(mut known: Vec<TcpListener>, count: usize) -> io::Result<Vec<TcpListener>> {
    let (address, passed) = (known[0].local_addr()?, known.len());
    while known.len() < count {
        let next = join(address).or_else(|_| known[known.len() % passed].try_clone())?;
        known.push(next);
    }
    Ok(known)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier process may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // [::] is every IPv6 address; 0.0.0.0 is asked for by its own --listen.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Whether `address` is somebody's, found out without listening there. `None`: whoever asks may not bind it, or nobody here can.
pub(crate) fn is_taken(address: SocketAddr) -> Option<bool> {
    match socket(address).and_then(|socket| socket.bind(&address.into())) {
        Ok(()) => Some(false),
        Err(error) => (error.kind() == io::ErrorKind::AddrInUse).then_some(true),
    }
}

/// Why `address` cannot be listened on, and what to do.
pub(crate) fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => in_use(Occupants::of(address), std::process::id()),
        Some(Errno::EADDRNOTAVAIL) => {
            "no interface of this host has the address; ip addr shows those there are".into()
        }
        Some(Errno::EACCES) => "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE".into(),
        Some(Errno::EAFNOSUPPORT) => "this host has no IPv6; leave the address out".into(),
        _ => reason(error),
    }
}

fn in_use(mut occupants: Occupants, own: u32) -> String {
    // A successor has second descriptors of its predecessor's sockets.
    occupants.0.retain(|process| process.pid != own);
    let (whom, hint) = match occupants.0.len() {
        0 => ("it", " (ss -ltnp as root shows who has it)"),
        1 => ("it", ""),
        _ => ("them", ""),
    };
    format!("address in use by {occupants}; stop {whom} or choose another address or port{hint}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::occupant::Process;

    fn local(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn clients_are_told_how_large_segments_may_be() {
        let bound = bind(&[local(0)], 2, vec![]).expect("bound");
        let told = || {
            let client = TcpStream::connect(bound.addresses[0]).expect("connected");
            SockRef::from(&client).tcp_mss().expect("a size")
        };
        let ordinary = told();
        bound.limit_segments(Some(1_000)).expect("a limit");
        assert!((500..=1_000).contains(&told()));
        bound.limit_segments(None).expect("no limit");
        assert_eq!(told(), ordinary);
    }

    #[test]
    fn every_worker_gets_connections() {
        let bound = bind(&[local(0)], 3, vec![]).expect("bound");
        let address = bound.addresses[0];
        let _clients: Vec<_> = (0..200).map(|_| TcpStream::connect(address).expect("connected")).collect();
        let (mut accepted, mut busy, deadline) = (0, HashSet::new(), Instant::now() + Duration::from_secs(5));
        while accepted < 200 && Instant::now() < deadline {
            for (worker, listeners) in bound.workers.iter().enumerate() {
                while listeners[0].accept().is_ok() {
                    accepted += 1;
                    busy.insert(worker);
                }
            }
        }
        assert_eq!((accepted, busy.len()), (200, 3));
    }

    #[test]
    fn a_second_balancer_is_refused_although_both_share_ports_among_workers() {
        for workers in [1, 4] {
            let bound = bind(&[local(0)], workers, vec![]).expect("bound");
            let refused = bind(&bound.addresses, workers, vec![]).expect_err("taken").to_string();
            let expected = format!("--listen {}: address in use by another process", bound.addresses[0]);
            assert!(refused.starts_with(&expected), "{refused}");
            // Also where the second one would listen on every address.
            let any = SocketAddr::from(([0, 0, 0, 0], bound.addresses[0].port()));
            assert!(bind(&[any], workers, vec![]).is_err());
        }
    }

    #[test]
    fn whoever_has_the_address_is_named_if_that_can_be_seen() {
        let process = |pid| Process { pid, name: "haproxy".to_owned() };
        let told = |pids: &[u32]| in_use(Occupants(pids.iter().copied().map(process).collect()), 9);
        assert_eq!(
            told(&[7]),
            "address in use by haproxy (pid 7); stop it or choose another address or port"
        );
        assert_eq!(told(&[7, 9]), told(&[7]), "we share the sockets of a predecessor");
        assert!(told(&[7, 8]).starts_with("address in use by haproxy (pid 7) and 1 more; stop them or"));
        assert!(
            told(&[]).contains("by another process; stop it or") && told(&[]).contains("ss -ltnp as root")
        );
    }

    #[test]
    fn an_address_is_taken_while_somebody_listens_there() {
        let bound = bind(&[local(0)], 2, vec![]).expect("bound");
        let address = bound.addresses[0];
        assert_eq!(is_taken(address), Some(true));
        assert_eq!(is_taken(SocketAddr::from(([0, 0, 0, 0], address.port()))), Some(true));
        drop(bound);
        assert_eq!(is_taken(address), Some(false));
        assert_eq!(is_taken("192.0.2.77:8080".parse().expect("address")), None, "another host's");
    }

    #[test]
    fn one_of_two_that_start_at_the_same_time_is_refused() {
        // Both are bound before either listens.
        let (one, other) = (socket(local(0)).expect("socket"), socket(local(0)).expect("socket"));
        one.bind(&local(0).into()).expect("bound");
        let address = one.local_addr().expect("address");
        other.bind(&address).expect("both may be bound");
        one.listen(BACKLOG).expect("the first one listens");
        one.set_reuse_port(true).expect("shared");
        assert_eq!(other.listen(BACKLOG).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn a_stranger_that_shares_the_port_is_noticed() {
        let stranger = socket(local(0)).expect("socket");
        stranger.set_reuse_port(true).expect("shared");
        stranger.bind(&local(0).into()).expect("bound");
        stranger.listen(1).expect("listening");
        let address = stranger.local_addr().ok().and_then(|address| address.as_socket()).expect("address");
        assert!(bind(&[address], 2, vec![]).is_err());
    }

    #[test]
    fn an_address_can_be_taken_again_at_once() {
        let bound = bind(&[local(0)], 2, vec![]).expect("bound");
        let addresses = bound.addresses.clone();
        let client = TcpStream::connect(addresses[0]).expect("connected");
        drop(bound);
        drop(client);
        assert!(bind(&addresses, 2, vec![]).is_ok());
    }

    /// As a successor gets them.
    fn pass(bound: &Bound, asked: SocketAddr) -> Vec<Passed> {
        let all = bound.workers.iter().flatten();
        all.map(|socket| Passed { asked, listener: socket.try_clone().expect("a descriptor") }).collect()
    }

    #[test]
    fn passed_sockets_are_all_accepted_from_whatever_the_number_of_workers() {
        for (before, after) in [(1, 4), (4, 1), (3, 2), (2, 2)] {
            let bound = bind(&[local(0)], before, vec![]).expect("bound");
            let queued: Vec<_> =
                (0..40).map(|_| TcpStream::connect(bound.addresses[0]).expect("connected")).collect();
            // Port 0 means the port that it has become.
            let taken = bind(&[local(0)], after, pass(&bound, local(0))).expect("taken");
            assert_eq!(taken.addresses, bound.addresses);
            drop(bound);
            taken.workers.iter().flatten().for_each(|socket| start(socket).expect("listening"));
            assert_eq!(taken.workers.len(), after);
            assert!(taken.workers.iter().all(|listeners| !listeners.is_empty()), "an idle worker");
            let sockets: Vec<_> = taken.workers.iter().flatten().collect();
            assert_eq!(sockets.len(), before.max(after));
            let (mut accepted, deadline) = (0, Instant::now() + Duration::from_secs(5));
            while accepted < queued.len() && Instant::now() < deadline {
                accepted += sockets.iter().filter(|socket| socket.accept().is_ok()).count();
            }
            assert_eq!(accepted, queued.len(), "{before} -> {after}");
        }
    }

    #[test]
    fn a_passed_socket_of_an_address_that_is_not_asked_for_is_not_used() {
        let bound = bind(&[local(0)], 1, vec![]).expect("bound");
        let passed = pass(&bound, local(0));
        let other = SocketAddr::from(([127, 0, 0, 2], 0));
        let taken = bind(&[other], 1, passed).expect("bound");
        assert_eq!(taken.addresses[0].ip(), other.ip());
    }

    #[test]
    fn an_address_of_another_host_is_told() {
        let refused = bind(&["192.0.2.77:8080".parse().expect("address")], 1, vec![])
            .expect_err("not ours")
            .to_string();
        assert!(refused.contains("no interface of this host has the address"), "{refused}");
    }
}
