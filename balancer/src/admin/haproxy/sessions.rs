//! `show sess`: a line for each client of the proxy. HAProxy calls its own form unstable; what is said is in its place,
//! and what is not known here (buffers, processor time) is left out. Fast connections are counted in the last line.

use std::fmt::Write;
use std::net::IpAddr;

use super::Desk;

pub(super) fn show(desk: &Desk) -> String {
    let (servers, name) = (&desk.service.servers, &desk.service.config.name);
    let mut text = String::new();
    for (worker, stats) in desk.stats.workers.iter().enumerate() {
        for guest in stats.roll.guests() {
            let proto = match guest.client.ip() {
                IpAddr::V4(_) => "tcpv4",
                IpAddr::V6(_) => "tcpv6",
            };
            let server = guest.server.map(|place| servers[place].name.as_str());
            let backend = if server.is_some() { name.as_str() } else { "<NONE>" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "0x{:x}: proto={proto} src={} fe={name} be={backend} srv={} ts=00 epoch=0 age={}s calls={} rate=0 cpu=0 \
                 lat=0 exp= rc=0 c_exp=",
                (worker as u64) << 48 | guest.serial,
                guest.client,
                server.unwrap_or("<none>"),
                guest.age.as_secs(),
                guest.requests,
            );
        }
    }
    if desk.view.is_some() {
        let fast: u64 =
            servers.places().into_iter().map(|place| u64::from(servers.fast_connections(place))).sum();
        let _ = writeln!(text, "# {fast} more connections are on the fast path: show flows");
    }
    text
}
