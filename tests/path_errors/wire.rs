//! What an end hears by ICMP: a raw socket in its namespace, and the errors it gets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use xtask::lab::Namespace;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// With the MTU.
    TooBig(u16),
    PortUnreachable,
    TimeExceeded,
}

/// An ICMP error that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub from: IpAddr,
    pub what: What,
    /// Source and destination of the quoted packet.
    pub about: (SocketAddr, SocketAddr),
}

/// Everything that comes in by ICMP from now on.
pub struct Ear {
    /// A raw socket, of which the same calls are used.
    socket: UdpSocket,
    family: Family,
}

impl Ear {
    pub fn open(ns: &Namespace, family: Family) -> Result<Self> {
        let (domain, protocol) = match family {
            Family::V4 => (Domain::IPV4, Protocol::ICMPV4),
            Family::V6 => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = ns.run(|| Socket::new(domain, Type::RAW, Some(protocol)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket: socket.into(), family })
    }

    /// The next error that says so.
    pub fn hear(&self, what: What) -> Result<Heard> {
        let deadline = Instant::now() + PATIENCE;
        let mut packet = [0; 2048];
        while Instant::now() < deadline {
            let Ok((length, from)) = self.socket.recv_from(&mut packet) else { break };
            let heard = match self.family {
                Family::V4 => read_v4(&packet[..length]),
                Family::V6 => read_v6(&packet[..length]),
            };
            if let Some((said, about)) = heard.context("what was heard is broken")?
                && said == what
            {
                return Ok(Heard { from: from.ip(), what, about });
            }
        }
        bail!("nothing was heard that says {what:?}")
    }
}

type Quoted = (SocketAddr, SocketAddr);

/// `None`: no error that concerns us.
fn read_v4(packet: &[u8]) -> Result<Option<(What, Quoted)>> {
    ensure!(packet.len() >= 28 && packet[0] == 0x45, "no plain packet");
    let icmp = &packet[20..];
    let what = match icmp[..2] {
        [3, 4] => What::TooBig(u16::from_be_bytes([icmp[6], icmp[7]])),
        [3, 3] => What::PortUnreachable,
        [11, 0] => What::TimeExceeded,
        _ => return Ok(None),
    };
    // The raw socket gets it before the kernel looks at the checksum; it does that of IPv6 before.
    ensure!(sum(icmp) == 0xffff, "its checksum");
    ensure!(icmp.len() >= 36 && icmp[8] == 0x45 && icmp[17] == 6, "no quoted TCP packet");
    let address = |at: usize| <[u8; 4]>::try_from(&icmp[at..at + 4]).map(IpAddr::from);
    Ok(Some((what, quoted(address(20)?, address(24)?, &icmp[28..]))))
}

fn read_v6(icmp: &[u8]) -> Result<Option<(What, Quoted)>> {
    ensure!(icmp.len() >= 8, "half a header");
    let what = match icmp[..2] {
        [2, 0] => What::TooBig(u16::from_be_bytes([icmp[6], icmp[7]])),
        [1, 4] => What::PortUnreachable,
        [3, 0] => What::TimeExceeded,
        _ => return Ok(None),
    };
    ensure!(icmp.len() >= 56 && icmp[8] >> 4 == 6 && icmp[14] == 6, "no quoted TCP packet");
    let address = |at: usize| <[u8; 16]>::try_from(&icmp[at..at + 16]).map(IpAddr::from);
    Ok(Some((what, quoted(address(16)?, address(32)?, &icmp[48..]))))
}

fn quoted(from: IpAddr, to: IpAddr, tcp: &[u8]) -> Quoted {
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    ((from, port(0)).into(), (to, port(2)).into())
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
