//! Loss, floods, and many connections at once.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::http::Connection;
use xtask::lab::{Lab, Namespace, wait_until};

use crate::site::{PATIENCE, SOURCE_FIRST, Site, Visit, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("what_is_lost_and_out_of_order_arrives_whole", lossy),
        trial("ten_thousand_connections_at_once_are_each_their_own", ten_thousand),
        trial("a_flood_from_a_known_source_is_bounded", known_flood),
        trial("a_flood_from_random_sources_enters_nothing", random_flood),
    ]
}

/// Three in a hundred packets are lost on arrival, and one in ten is late on departure.
fn spoil(ns: &Namespace) -> Result<()> {
    // One packet each, not forty together.
    ns.output("ip", &["link", "set", "dev", "eth0", "gso_max_segs", "1"])?;
    for words in [
        "qdisc add dev eth0 root handle 1: htb default 20",
        "class add dev eth0 parent 1: classid 1:10 htb rate 2mbit burst 1600 cburst 1600",
        "class add dev eth0 parent 1: classid 1:20 htb rate 10gbit burst 1m cburst 1m",
    ] {
        ns.output("tc", &words.split(' ').collect::<Vec<_>>())?;
    }
    let table = "table ip lab {
        chain in {
            type filter hook prerouting priority 0
            meta l4proto tcp numgen random mod 100 < 3 drop
        }
        chain out {
            type filter hook postrouting priority 0
            numgen random mod 10 == 0 meta priority set 1:10
        }
    }";
    ns.output("nft", &[table]).map(drop)
}

/// How many segments have come before the ones that they follow.
fn out_of_order(ns: &Namespace) -> Result<u64> {
    let text = ns.output("cat", &["/proc/net/netstat"])?;
    let lines: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("TcpExt:"))
        .map(|line| line.split(' ').collect())
        .collect();
    let at = lines[0].iter().position(|name| *name == "TCPOFOQueue").context("a counter")?;
    Ok(lines[1][at].parse()?)
}

fn lossy() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let (client, server) = (&site.lab.client().ns, &site.lab.server(home[1..].parse()?).ns);
    let before = site.daemon.counter("syn_forwarded")?;
    let mut connection = site.connect(0)?;
    spoil(client)?;
    spoil(server)?;
    let body: Vec<u8> = (0_u32..400_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let stored = connection.request("PUT", "/upload/spoilt", &[], &body)?;
    ensure!(matches!(stored.status, 201 | 204), "{}", stored.status);
    ensure!(site.nginx(&home).uploaded("spoilt")? == body, "the upload");
    ensure!(connection.get("/upload/spoilt", &[])?.body == body, "the download");
    ensure!(site.daemon.counter("syn_forwarded")? == before + 1, "it was to be a fast one");
    let late = out_of_order(client)? + out_of_order(server)?;
    ensure!(late > 0, "nothing was out of order");
    Ok(())
}

/// Of each of three clients, to three servers.
const MANY: usize = 3334;

fn ten_thousand() -> Result<()> {
    let site = Site::open_in(&Lab::star().servers(3).client_addresses(3), SOURCE_FIRST)?;
    for client in 0..3 {
        site.introduce(client)?;
    }
    let front = site.lab.client().gateway_at(80);
    let sources = &site.lab.client().addresses;
    let before = site.daemon.counter("syn_forwarded")?;
    let mut kept = site.lab.client().ns.run(|| {
        let all = (0..MANY).flat_map(|_| sources.iter().copied());
        all.enumerate().map(|(n, source)| ask(source, front, n)).collect::<Result<Vec<_>>>()
    })??;
    for (n, stream) in kept.iter_mut().enumerate() {
        hear(stream, n).with_context(|| format!("connection {n}"))?;
    }
    // A client may come to the port of its first visit, which the stack still remembers.
    let fast = site.daemon.counter("syn_forwarded")? - before;
    ensure!(fast + site.daemon.counter("pass_socket_exists")? >= 3 * MANY as u64, "{fast} were fast");
    let rows = site.daemon.show(&["servers"])?;
    let open: u64 = rows.as_array().into_iter().flatten().filter_map(|row| row["fast"].as_u64()).sum();
    ensure!(open == fast, "{open} of {fast} are counted");
    // Each of them once more, with all the others open.
    for (n, stream) in kept.iter_mut().enumerate() {
        say(stream, n)?;
        hear(stream, n).with_context(|| format!("connection {n}, again"))?;
    }
    Ok(())
}

fn ask(source: Ipv4Addr, front: SocketAddr, n: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&front.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = TcpStream::from(socket);
    say(&mut stream, n)?;
    Ok(stream)
}

fn say(stream: &mut TcpStream, n: usize) -> Result<()> {
    let request = format!("GET /many HTTP/1.1\r\nHost: lab\r\nCookie: n={n}\r\n\r\n");
    Ok(stream.write_all(request.as_bytes())?)
}

/// The server repeats the cookie.
fn hear(stream: &mut TcpStream, n: usize) -> Result<()> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    while !heard.ends_with(b"\n") || !heard.windows(7).any(|part| part == b"cookie=") {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the end, after {} bytes", heard.len());
        heard.extend_from_slice(&buffer[..length]);
    }
    let text = String::from_utf8_lossy(&heard);
    ensure!(text.ends_with(&format!("cookie=n={n}\n")), "{text}");
    Ok(())
}

/// A socket that sends packets as they are.
fn raw(ns: &Namespace) -> Result<Socket> {
    Ok(ns.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))))??)
}

fn send_syn(socket: &Socket, from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
    let packet = syn(from, to);
    socket.send_to(&packet, &SocketAddr::V4(to).into())?;
    Ok(())
}

/// The kernel fills in the length and the checksum of the IP header (raw(7)).
fn syn(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [0, 6, 0, 20];
    let words = packet[12..].chunks(2).chain(pseudo.chunks(2));
    let sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => anyhow::bail!("{address} is IPv6"),
    }
}

fn flow_entries(site: &Site) -> Result<usize> {
    Ok(site.daemon.show(&["flows"])?.as_array().map_or(0, Vec::len))
}

/// As many half-open connections as one source may have; the rest is the proxy's, which has SYN cookies.
fn known_flood() -> Result<()> {
    const SYNS: u16 = 4000;
    /// As many as the queue of a veth has room for.
    const BURST: u16 = 200;
    /// By ports that the source's own connections have or had.
    const OWN: u64 = 20;
    let site = Site::open(SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let mut kept = fast_connection(&site)?;
    // A source that answers nothing, so that the connections stay half-open.
    let client = site.lab.client();
    let mute = "table ip lab {
        chain out {
            type filter hook output priority 0
            tcp flags & rst == rst drop
        }
    }";
    client.ns.output("nft", &[mute])?;
    let (socket, to) = (raw(&client.ns)?, v4(client.gateway_at(80))?);
    let before = site.daemon.counter("syn_forwarded")?;
    let counted = || {
        let count = |name| site.daemon.counter(name).unwrap_or(0);
        let passed = count("pass_half_open_source") + count("pass_half_open_total") + count("pass_syn_rate");
        count("syn_forwarded") - before + passed
    };
    for first in (0..SYNS).step_by(BURST.into()) {
        for port in 1024 + first..1024 + first + BURST {
            send_syn(&socket, SocketAddrV4::new(site.address(0), port), to)?;
        }
        wait_until(PATIENCE, "the burst to be counted", || counted() + OWN >= u64::from(first + BURST))?;
    }
    let forwarded = site.daemon.counter("syn_forwarded")? - before;
    // The window that counts them slides: a few more fit in while the flood lasts.
    ensure!((200..=600).contains(&forwarded), "{forwarded} of {SYNS} became flows");
    ensure!(flow_entries(&site)? <= 602, "{}", flow_entries(&site)?);
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "a running connection of the same source");
    let other = site.visit(1, &[])?;
    ensure!(other.fast && other.server == homes[1], "another known client: {other:?}");
    Ok(())
}

/// The proxy may always get a new connection instead, if rarely: one whose port has just been used, for example.
fn fast_connection(site: &Site) -> Result<Connection> {
    for _ in 0..5 {
        let mut connection = site.connect(0)?;
        if Visit::of(&connection.get("/", &[])?)?.fast {
            return Ok(connection);
        }
    }
    bail!("five connections of a known client went through the proxy")
}

fn random_flood() -> Result<()> {
    const SYNS: u32 = 4000;
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let client = site.lab.client();
    let (socket, to) = (raw(&client.ns)?, v4(client.gateway_at(80))?);
    let before = site.daemon.counter("pass_no_affinity")?;
    for n in 0..SYNS {
        let source = Ipv4Addr::from(0xc612_0000 + n.wrapping_mul(2_654_435_761) % 0x2_0000);
        send_syn(&socket, SocketAddrV4::new(source, 1024 + n as u16), to)?;
    }
    wait_until(PATIENCE, "all of them to be passed", || {
        site.daemon.counter("pass_no_affinity").is_ok_and(|now| now - before >= u64::from(SYNS))
    })?;
    ensure!(flow_entries(&site)? == 0, "a stranger has a flow");
    let table = site.daemon.show(&["table", "source"])?;
    ensure!(table.as_array().is_some_and(|rows| rows.len() == 1), "a SYN has taught something: {table}");
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    let stranger = site.visit(1, &[])?;
    ensure!(!stranger.fast, "{stranger:?}");
    Ok(())
}
