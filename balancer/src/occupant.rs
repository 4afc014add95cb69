//! Who has an address: told to whoever cannot have it.
//!
//! The kernel lists the sockets of a network namespace with their inodes, and the descriptors of a process lead to inodes.
//! The descriptors of another user's processes are only for root to see.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::log::plain;

/// A process, as it calls itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// The processes that have an address, in the order of their numbers; none: none of them can be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Occupants(pub(crate) Vec<Process>);

impl Occupants {
    /// Of an address that the kernel has just refused as in use. Where nobody listens it is a connection that has the port.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let sockets = sockets();
        let claims = || sockets.iter().filter_map(|socket| Some((socket.claim(address)?, socket.inode)));
        let strongest = claims().map(|(claim, _)| claim).min();
        Self::with(&claims().filter(|(claim, _)| Some(*claim) == strongest).map(|(_, inode)| inode).collect())
    }

    /// Of an address at which somebody listens for certain, as far as the kernel's list alone can tell.
    pub(crate) fn listening(address: SocketAddr) -> Option<Self> {
        let sockets = sockets();
        let certain = sockets.iter().filter(|socket| socket.claim(address) == Some(Claim::Listens));
        let inodes: HashSet<u64> = certain.map(|socket| socket.inode).collect();
        (!inodes.is_empty()).then(|| Self::with(&inodes))
    }

    /// Whether that process is among them.
    pub(crate) fn has(&self, pid: u32) -> bool {
        self.0.iter().any(|process| process.pid == pid)
    }

    fn with(inodes: &HashSet<u64>) -> Self {
        let is_one = |path: PathBuf| inode(&path).is_some_and(|inode| inodes.contains(&inode));
        let processes = having(is_one);
        Self(processes.into_iter().map(|pid| Process { pid, name: name_of(pid) }).collect())
    }
}

/// `nginx (pid 7) and 4 more`.
impl Display for Occupants {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((Process { pid, name }, more)) = self.0.split_first() else {
            return f.write_str("another process");
        };
        write!(f, "{name} (pid {pid})")?;
        if more.is_empty() { Ok(()) } else { write!(f, " and {} more", more.len()) }
    }
}

/// What a process is called. It may call itself anything, so this is one word or several that a terminal can show.
pub(crate) fn name_of(pid: u32) -> String {
    shown(&fs::read(format!("/proc/{pid}/comm")).unwrap_or_default())
}

/// The processes with a descriptor that leads to what `is_it` knows, in the order of their numbers.
pub(crate) fn having(is_it: impl Fn(PathBuf) -> bool) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found: Vec<u32> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
            open.any(|entry| is_it(entry.path())).then_some(pid)
        })
        .collect();
    found.sort_unstable();
    found
}

fn shown(name: &[u8]) -> String {
    let name: String = String::from_utf8_lossy(name).trim_end().chars().map(plain).collect();
    if name.trim().is_empty() { "a process without a name".to_owned() } else { name }
}

/// The socket that a descriptor is: `socket:[1234]`.
fn inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// What keeps an address from being had, the surest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Claim {
    Listens,
    /// At `[::]`, which takes IPv4 as well unless its process has said otherwise; the kernel's list does not show that.
    MayListen,
    /// A connection goes out from there.
    Connected,
}

/// A line of the kernel's list.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Socket {
    local: SocketAddr,
    is_listening: bool,
    inode: u64,
}

impl Socket {
    fn claim(&self, wanted: SocketAddr) -> Option<Claim> {
        let (own, ip) = (self.local.ip().to_canonical(), wanted.ip().to_canonical());
        let is_same = own == ip || own.is_unspecified() || ip.is_unspecified();
        if self.local.port() != wanted.port() || !is_same {
            return None;
        }
        let takes_both = own == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        match (self.is_listening, own.is_ipv4() == ip.is_ipv4()) {
            (true, true) => Some(Claim::Listens),
            (true, false) => takes_both.then_some(Claim::MayListen),
            (false, is_same_family) => is_same_family.then_some(Claim::Connected),
        }
    }
}

/// Those of this thread's network namespace that belong to a process.
fn sockets() -> Vec<Socket> {
    let lists = ["tcp", "tcp6"].map(|list| fs::read_to_string(format!("/proc/thread-self/net/{list}")));
    lists.iter().flatten().flat_map(|list| list.lines().filter_map(socket)).collect()
}

/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1234 …`
fn socket(line: &str) -> Option<Socket> {
    const LISTENING: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = words.get(1)?.split_once(':')?;
    let local = SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?);
    // What nobody has any more, as in TIME_WAIT, has none.
    let inode = words.get(9)?.parse().ok().filter(|inode| *inode != 0)?;
    Some(Socket { local, is_listening: words.get(3) == Some(&LISTENING), inode })
}

/// Words of four bytes as this machine reads them, in hexadecimal digits.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |digits: &[u8]| {
        let word = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let words: Vec<[u8; 4]> = digits.as_bytes().chunks(8).map(word).collect::<Option<_>>()?;
    match *words.as_slice() {
        [v4] => Some(Ipv4Addr::from(v4).into()),
        [_, _, _, _] => <[u8; 16]>::try_from(words.concat()).ok().map(|v6| Ipv6Addr::from(v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    /// Other processes have sockets in the tests of the binary: whatever is started here would, for a moment, have the
    /// descriptors of every other test.
    fn us() -> Process {
        let pid = std::process::id();
        Process { pid, name: name_of(pid) }
    }

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), port)
    }

    fn listener(at: &str) -> (TcpListener, u16) {
        let socket = TcpListener::bind(at).expect("bound");
        let port = socket.local_addr().expect("an address").port();
        (socket, port)
    }

    #[test]
    fn whoever_listens_at_an_address_is_found_whichever_way_it_is_asked_for() {
        let (socket, port) = listener("127.0.0.1:0");
        for ip in ["127.0.0.1", "0.0.0.0"] {
            assert_eq!(Occupants::of(at(ip, port)).0, [us()], "{ip}");
            assert_eq!(Occupants::listening(at(ip, port)), Some(Occupants(vec![us()])), "{ip}");
        }
        for ip in ["127.0.0.2", "::1", "::"] {
            assert_eq!(Occupants::of(at(ip, port)).0, [], "{ip} is free");
            assert_eq!(Occupants::listening(at(ip, port)), None, "{ip}");
        }
        drop(socket);
        assert_eq!(Occupants::of(at("127.0.0.1", port)).0, [], "it is gone");
    }

    #[test]
    fn a_wildcard_has_every_address_and_that_of_ipv6_those_of_ipv4_as_well() {
        let (_socket, port) = listener("0.0.0.0:0");
        assert_eq!(Occupants::of(at("127.0.0.1", port)).0, [us()]);

        // A host without IPv6 has no such socket, and one may be set up so that it takes no IPv4.
        let Ok(socket) = TcpListener::bind("[::]:0") else { return };
        if SockRef::from(&socket).only_v6().expect("an option") {
            return;
        }
        let port = socket.local_addr().expect("an address").port();
        for ip in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            assert_eq!(Occupants::of(at(ip, port)).0, [us()], "{ip}");
            let is_certain = Occupants::listening(at(ip, port)).is_some();
            assert_eq!(is_certain, ip.contains(':'), "{ip}: an option could keep it from IPv4");
        }
    }

    #[test]
    fn of_several_the_first_is_named_and_the_others_are_counted() {
        let process = |pid| Process { pid, name: "nginx".to_owned() };
        let occupants = |pids: &[u32]| Occupants(pids.iter().copied().map(process).collect());
        assert_eq!(occupants(&[7]).to_string(), "nginx (pid 7)");
        assert_eq!(occupants(&[7, 8, 9]).to_string(), "nginx (pid 7) and 2 more");
        assert_eq!(occupants(&[]).to_string(), "another process");
        assert!(occupants(&[7, 8]).has(8) && !occupants(&[7, 8]).has(9));
    }

    #[test]
    fn a_connection_has_its_port_where_nobody_listens() {
        let (socket, _) = listener("127.0.0.1:0");
        let client = TcpStream::connect(socket.local_addr().expect("an address")).expect("connected");
        let address = client.local_addr().expect("an address");
        assert!(Occupants::of(address).has(std::process::id()));
        assert_eq!(Occupants::listening(address), None);
    }

    #[test]
    fn a_name_is_shown_and_does_nothing() {
        assert_eq!(shown(b"haproxy\n"), "haproxy");
        assert_eq!(shown(b"a\x1b[31m\nb\n"), "a [31m b");
        assert_eq!(shown("e\u{202e}vil\n".as_bytes()), "e vil");
        assert_eq!(shown(b"cut \xe2\x80"), "cut \u{fffd}");
        assert_eq!(shown(b"\n"), "a process without a name");
    }

    #[test]
    fn a_line_of_the_kernel_s_is_understood_or_left_out() {
        let rest = "00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1234 1 0 100 0 0 10 0";
        let v4 = format!("   0: {:08X}:1F90 {rest}", u32::from_ne_bytes([127, 0, 0, 1]));
        let found = socket(&v4).expect("a socket");
        assert_eq!((found.local, found.inode), (([127, 0, 0, 1], 8080).into(), 1234));
        assert!(found.is_listening && !socket(&v4.replace(" 0A ", " 01 ")).expect("a socket").is_listening);
        assert_eq!(socket(&v4.replace(" 1234 ", " 0 ")), None, "nobody's");
        let words = Ipv6Addr::LOCALHOST.octets();
        let words = words.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four")));
        let v6: String = words.map(|word| format!("{word:08X}")).collect();
        let found = socket(&format!("   1: {v6}:0050 {rest}")).expect("a socket");
        assert_eq!(found.local, "[::1]:80".parse().expect("an address"));
        for line in
            ["", "  sl  local_address rem_address   st", "0: 01:50", "0: 0100007F:1F90 x 0A", "0: é:1 x 0A"]
        {
            assert_eq!(socket(line), None, "{line}");
        }
    }
}
