//! Connections that are ended by order: what each of their ends is told, as seen on the wire.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::http::Connection;
use xtask::lab::{Host, Namespace, wait_until};

use crate::site::{Forward, PATIENCE, SOURCE_FIRST, Site, Visit, trial};

const RST: u8 = 0x04;

pub fn trials() -> Vec<Trial> {
    let ways = [Forward::Nat, Forward::Gateway, Forward::Dsr];
    let stories: [(&str, crate::Story); 2] = [
        ("a_server_that_is_marked_down_resets_its_clients", marked_down),
        ("a_reset_in_the_middle_of_a_download_reaches_both_ends", in_a_download),
    ];
    let by = |forward: Forward| {
        stories.map(|(name, story)| trial(&format!("{name}_by_{}", forward.word()), move || story(forward)))
    };
    ways.into_iter().flat_map(by).collect()
}

/// Everything that a host hears by TCP from now on.
struct Ear(UdpSocket);

/// Of one packet.
#[derive(Debug)]
struct Heard {
    from: SocketAddr,
    to_port: u16,
    sequence: u32,
    flags: u8,
}

impl Ear {
    fn open(ns: &Namespace) -> Result<Self> {
        let socket = ns.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)))??;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.set_recv_buffer_size(4 << 20)?;
        Ok(Self(socket.into()))
    }

    /// What has been heard by that port until it is quiet.
    fn at(&self, port: u16) -> Vec<Heard> {
        let mut packet = [0; 2048];
        let mut heard = Vec::new();
        while let Ok(length) = self.0.recv(&mut packet) {
            heard.extend(parse(&packet[..length]).filter(|heard| heard.to_port == port));
        }
        heard
    }
}

fn parse(packet: &[u8]) -> Option<Heard> {
    let tcp = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    let word = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(Heard {
        from: SocketAddr::new(IpAddr::from(source), word(0)?),
        to_port: word(2)?,
        sequence: u32::from(word(4)?) << 16 | u32::from(word(6)?),
        flags: *tcp.get(13)?,
    })
}

/// New connections to it get no answer; those that there are do not notice.
fn close_to_newcomers(server: &Host) -> Result<()> {
    let rules = "table ip closed { chain input { type filter hook input priority 0; tcp flags syn / syn,ack drop; }; }";
    server.ns.output("nft", &[rules]).map(drop)
}

fn marked_down(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, &[SOURCE_FIRST, &["--on-marked-down", "reset"]].concat())?;
    let home = site.introduce(0)?;
    let ear = Ear::open(&site.lab.client().ns)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    close_to_newcomers(site.lab.server(home[1..].parse()?))?;
    wait_until(PATIENCE, "the connection to be ended", || {
        site.daemon.server(&home).is_ok_and(|row| row["state"] == "down" && row["fast"] == 0)
    })?;
    let port = kept.local_addr()?.port();
    ear.at(port);
    expect_reset(&mut kept)?;
    let heard = ear.at(port);
    ensure!(heard.len() == 1, "one packet, one answer: {heard:?}");
    ensure!(heard[0].flags == RST && heard[0].from == site.front(), "{heard:?}");
    ensure!(site.daemon.counter("pass_flow_ended")? >= 1);
    let other = site.visit(0, &[])?;
    ensure!(!other.fast && other.server != home, "{other:?}");
    Ok(())
}

/// The kernel believes a reset only if it has the very next sequence number (RFC 5961 §3.2).
fn expect_reset(connection: &mut Connection) -> Result<()> {
    // It may have come already, in answer to an acknowledgment.
    let sent = connection.send(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n");
    let error = sent.and_then(|()| connection.receive()).err();
    let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("reset"), "not a reset: {error}");
    Ok(())
}

/// The server speaks first.
fn in_a_download(forward: Forward) -> Result<()> {
    let site = Site::open_by(forward, SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let server = site.lab.server(home[1..].parse()?);
    let ear = Ear::open(&site.lab.client().ns)?;
    let mut download = site.connect(0)?;
    download.send(b"GET /slow HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    wait_until(PATIENCE, "the download to run", || {
        site.daemon.show(&["flows"]).is_ok_and(|flows| flows[0]["packets_in"].as_u64() > Some(4))
    })?;
    site.operator(&["flows", "reset", "--server", &home])?;
    // Nobody tells the server of a direct answer; it hears of it no sooner than it would of a client that has vanished.
    if forward != Forward::Dsr {
        wait_until(PATIENCE, "the server's end to be gone", || has_none(&server.ns, &site))?;
    }
    expect_reset(&mut download)?;
    let heard = ear.at(download.local_addr()?.port());
    ensure!(
        heard.iter().all(|heard| heard.from == site.front()),
        "not from {}: {:?}",
        site.front(),
        heard.last()
    );
    let reset = heard.iter().find(|heard| heard.flags == RST).context("no reset was heard")?;
    let data = heard.iter().map(|heard| heard.sequence).max();
    ensure!(Some(reset.sequence) >= data || forward == Forward::Dsr, "it is behind all that has come");
    if forward == Forward::Gateway {
        ensure!(site.daemon.counter("reset_to_server")? > 0);
    }
    Ok(())
}

/// The proxy's own connections come from ports of the kernel's.
fn has_none(ns: &Namespace, site: &Site) -> bool {
    let words = ["-Htn", "state", "established", "( sport = :8080 )"];
    let Ok(table) = ns.output("ss", &words) else { return false };
    let peers = table.lines().filter_map(|line| line.split_whitespace().nth(3)?.parse::<SocketAddr>().ok());
    let is_fast = |peer: SocketAddr| {
        peer.ip() == IpAddr::from(site.address(0)) || (10_000..=32_767).contains(&peer.port())
    };
    !peers.into_iter().any(is_fast)
}
