//! `bind`: where clients connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::pair::{Pair, Side};
use super::sections::Directive;
use super::sheet::{Sheet, Verdict};
use super::trial::{so_far, trial};

const NO_TLS: &str = "there is no TLS here, and its clients must not be answered in the clear";
const TERMINATE: &str = "a TLS terminator in front, with --accept-proxy for its address";

/// More are a range of ports, which are a listener each.
const MOST: usize = 64;

/// What follows an address: the option, how many words it takes, and what there is to say.
const OPTIONS: &[(&str, usize, Verdict, &str, &str)] = &[
    ("name", 1, Verdict::Moot, "names nothing here", ""),
    ("id", 1, Verdict::Moot, "names nothing here", ""),
    ("v6only", 0, Verdict::Moot, "an IPv6 address is never more than that here", ""),
    ("maxconn", 1, Verdict::Left, "listeners have no limit of their own", "--max-connections N for all"),
    ("interface", 1, Verdict::Left, "a listener is an address, not an interface", "--listen ADDR:PORT"),
    ("transparent", 0, Verdict::Left, "addresses of others cannot be listened on", ""),
    ("backlog", 1, Verdict::Moot, "the queue is as long as the kernel allows", ""),
    ("defer-accept", 0, Verdict::Moot, "clients are accepted when they are connected", ""),
    ("tfo", 0, Verdict::Left, "there is no TCP Fast Open", ""),
    ("tcp-ut", 1, Verdict::Left, "there is no such time-out", "--timeout-client T"),
    ("nice", 1, Verdict::Moot, "all listeners count the same", ""),
    ("process", 1, Verdict::Moot, "every worker accepts from every listener", ""),
    ("thread", 1, Verdict::Moot, "every worker accepts from every listener", ""),
    ("shards", 1, Verdict::Moot, "every worker has a socket of its own", ""),
    ("accept-netscaler-cip", 1, Verdict::Left, "that protocol is not known here", "--accept-proxy CIDR"),
    ("proto", 1, Verdict::Left, "there is HTTP/1 alone", ""),
    ("alpn", 1, Verdict::Left, "there is HTTP/1 alone", ""),
    ("npn", 1, Verdict::Left, "there is HTTP/1 alone", ""),
    (
        "namespace",
        1,
        Verdict::Left,
        "a process has one network namespace",
        "ip netns exec NAME balancer run …",
    ),
    ("uid", 1, Verdict::Left, "is about Unix sockets", ""),
    ("gid", 1, Verdict::Left, "is about Unix sockets", ""),
    ("user", 1, Verdict::Left, "is about Unix sockets", ""),
    ("group", 1, Verdict::Left, "is about Unix sockets", ""),
    ("mode", 1, Verdict::Left, "is about Unix sockets", ""),
    ("level", 1, Verdict::Left, "is about Unix sockets", ""),
];

/// What one `bind` says.
#[derive(Default)]
struct Bind {
    addresses: Vec<SocketAddr>,
    accepts_proxy: bool,
    mss: Option<String>,
}

/// `instead`: addresses that are given by hand, in the place of all of them.
pub(super) fn carry(pair: &Pair<'_>, sheet: &mut Sheet, instead: &[String]) {
    let lines = pair.all(Side::Front, &["bind"]);
    if !instead.is_empty() {
        for address in instead {
            sheet.implied("--listen", address, "given to import; the lines with bind do not count");
        }
        let (tls, plain): (Vec<&Directive>, _) = lines.into_iter().partition(|line| is_tls(line));
        with_proxy(sheet, &plain);
        tls.iter().for_each(|line| sheet.left(line, NO_TLS, TERMINATE));
        plain.iter().for_each(|line| sheet.moot(line, "the address was given to import"));
        expected_proxies(pair, sheet);
        return;
    }
    let mut carried = Vec::new();
    for line in &lines {
        if sheet.values("--listen").count() >= MOST || carried.len() + sheet.remarks.len() > 4 * MOST {
            sheet.left(line, format!("{MOST} listeners are the most"), "");
            continue;
        }
        let Some(bind) = read(sheet, line) else { continue };
        if bind.addresses.len() > MOST {
            sheet.left(
                line,
                format!("these are {} listeners, and {MOST} are the most", bind.addresses.len()),
                "",
            );
            continue;
        }
        let before = sheet.flags.len();
        for address in &bind.addresses {
            listen(sheet, line, &address.to_string());
        }
        if sheet.flags.len() > before {
            carried.push((*line, bind));
        }
    }
    let accepting: Vec<_> = carried.iter().filter(|(_, bind)| bind.accepts_proxy).collect();
    if accepting.len() == carried.len() {
        with_proxy(sheet, &carried.iter().map(|(line, _)| *line).collect::<Vec<_>>());
    } else {
        for (line, _) in accepting {
            sheet.left_part(
                line,
                "accept-proxy",
                "other listeners of this service take clients without a PROXY header",
                "--accept-proxy CIDR with the address of the proxy in front: from there, and only there, it is asked for",
            );
        }
    }
    expected_proxies(pair, sheet);
    let mss: Vec<_> = carried.iter().filter_map(|(line, bind)| Some((*line, bind.mss.as_deref()?))).collect();
    if let Some(&(first, value)) = mss.first() {
        let agreed = mss.len() == carried.len() && mss.iter().all(|(_, other)| *other == value);
        if agreed && trial(&[("--mss", value)]).is_ok() {
            sheet.flag("--mss", value, &[first]);
        } else {
            sheet.left_part(first, &format!("mss {value}"), "it is one for all listeners here", "--mss N");
        }
    }
}

/// The ports of its addresses, those for TLS aside.
pub(super) fn ports(pair: &Pair<'_>) -> Vec<u16> {
    let lines = pair.all(Side::Front, &["bind"]);
    let texts = lines.into_iter().filter(|line| !is_tls(line)).flat_map(|line| line.word(1).split(','));
    let mut ports: Vec<u16> =
        texts.filter_map(|text| addresses(text).ok()).flatten().map(|address| address.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// `accept-proxy` of all: from whoever connects, as HAProxy takes it.
fn with_proxy(sheet: &mut Sheet, lines: &[&Directive]) {
    let accepts = |line: &&Directive| line.words.iter().any(|word| word == "accept-proxy");
    if let Some(first) = lines.first()
        && lines.iter().all(accepts)
    {
        for everybody in ["0.0.0.0/0", "::/0"] {
            sheet.flag("--accept-proxy", everybody, &[first]);
            sheet.because("from anybody, as in HAProxy: name the proxies in front instead");
        }
    }
}

/// `tcp-request connection expect-proxy layer4 [if { src CIDR … }]`: who has to say who the client is.
fn expected_proxies(pair: &Pair<'_>, sheet: &mut Sheet) {
    const NEAREST: &str = "--accept-proxy CIDR, of the proxies in front";
    for line in pair.all(Side::Front, &["tcp-request", "connection", "expect-proxy"]) {
        let condition: Vec<&str> = line.after(4).iter().map(String::as_str).collect();
        let sources = match condition.as_slice() {
            [] => &["0.0.0.0/0", "::/0"][..],
            ["if", "{", "src", sources @ .., "}"] if !sources.is_empty() => sources,
            _ => {
                sheet.left(line, "its condition is more than addresses", NEAREST);
                continue;
            }
        };
        for source in sources {
            match trial(&[("--accept-proxy", source)]) {
                Ok(_) => sheet.flag("--accept-proxy", *source, &[line]),
                Err(why) => sheet.left_part(line, source, why, NEAREST),
            }
        }
    }
}

fn listen(sheet: &mut Sheet, line: &Directive, address: &str) {
    let before: Vec<_> = so_far(&sheet.flags).into_iter().filter(|(flag, _)| *flag == "--listen").collect();
    if before.iter().any(|(_, known)| *known == address) {
        return sheet.part(Verdict::Moot, line, address, "is listened on already", "");
    }
    let all: Vec<_> = before.iter().copied().chain([("--listen", address)]).collect();
    match trial(&all) {
        Ok(_) => sheet.flag("--listen", address, &[line]),
        Err(why) => sheet.left_part(line, address, why, ""),
    }
}

fn is_tls(line: &Directive) -> bool {
    line.words.iter().skip(2).any(|word| word == "ssl")
}

/// `None`: nothing of it can be carried over, which has been said.
fn read(sheet: &mut Sheet, line: &Directive) -> Option<Bind> {
    if is_tls(line) {
        sheet.left(line, NO_TLS, TERMINATE);
        return None;
    }
    let mut bind = Bind::default();
    let mut is_both = false;
    let mut words = line.after(2).iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "accept-proxy" => bind.accepts_proxy = true,
            "mss" => bind.mss = words.next().map(ToOwned::to_owned),
            "v4v6" => is_both = true,
            _ => match OPTIONS.iter().find(|(known, ..)| *known == word) {
                Some((_, count, verdict, why, nearest)) => {
                    let part: Vec<&str> = std::iter::once(word).chain(words.by_ref().take(*count)).collect();
                    if word == "interface" {
                        sheet.access_part(line, &part.join(" "), *why, *nearest);
                    } else {
                        sheet.part(*verdict, line, &part.join(" "), *why, *nearest);
                    }
                }
                None => sheet.left_part(line, word, "no listener here has such an option", ""),
            },
        }
    }
    let is_v6_only = line.words.iter().any(|word| word == "v6only");
    for text in line.word(1).split(',') {
        match addresses(text) {
            Ok(found) => bind.addresses.extend(found),
            Err(why) => sheet.left_part(line, text, why, "--listen ADDR:PORT"),
        }
    }
    let wild: Vec<u16> = bind
        .addresses
        .iter()
        .filter(|address| address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .map(SocketAddr::port)
        .collect();
    if !wild.is_empty() && !is_v6_only {
        // Linux gives both to such a socket, unless net.ipv6.bindv6only says otherwise.
        bind.addresses.extend(wild.iter().map(|port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port))));
        if !is_both {
            sheet.notes.push(format!(
                "{}: [::] takes IPv4 as well in HAProxy unless the host has net.ipv6.bindv6only=1, so 0.0.0.0 is listened on, \
                 too.",
                line.text()
            ));
        }
    }
    Some(bind)
}

/// The listeners of one address; what is wrong is the rest of a sentence.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let (family, rest) = match text.split_once('@') {
        Some(("ipv4" | "tcp4", rest)) => (Some("ipv4"), rest),
        Some(("ipv6" | "tcp6", rest)) => (Some("ipv6"), rest),
        Some(("tcp", rest)) => (None, rest),
        Some(("unix" | "abns" | "fd" | "sockpair" | "uxst" | "quic4" | "quic6" | "udp", _)) => {
            return Err("is no address and port of TCP".into());
        }
        _ => (None, text),
    };
    if rest.starts_with('/') {
        return Err("is a Unix socket, which clients cannot connect to here".into());
    }
    let (host, ports) = rest.rsplit_once(':').ok_or("has no port")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let ip: IpAddr = match (bare, family) {
        ("" | "*", Some("ipv6")) => Ipv6Addr::UNSPECIFIED.into(),
        ("" | "*", _) => Ipv4Addr::UNSPECIFIED.into(),
        _ => bare.parse().map_err(|_| "is a name; an address of this host is needed")?,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => {
            Ok((first..=last).map(|port| SocketAddr::new(ip, port)).collect())
        }
        _ => Err("has a port that is none".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        let table: &[(&str, &[&str])] = &[
            (":80", &["0.0.0.0:80"]),
            ("*:80", &["0.0.0.0:80"]),
            ("10.0.0.1:80-82", &["10.0.0.1:80", "10.0.0.1:81", "10.0.0.1:82"]),
            ("ipv4@10.0.0.1:80", &["10.0.0.1:80"]),
            ("ipv6@:80", &["[::]:80"]),
            (":::80", &["[::]:80"]),
            ("[::]:80", &["[::]:80"]),
            ("2001:db8::1:80", &["[2001:db8::1]:80"]),
            ("[2001:db8::1]:80", &["[2001:db8::1]:80"]),
        ];
        for (text, expected) in table {
            let found: Vec<String> = addresses(text).expect(text).iter().map(ToString::to_string).collect();
            assert_eq!(&found, expected, "{text}");
        }
        for text in
            ["/run/x.sock", "unix@/x", "fd@3", "abns@x", "10.0.0.1", "web:80", ":0", ":82-80", ":x", ":70000"]
        {
            assert!(addresses(text).is_err(), "{text}");
        }
    }
}
