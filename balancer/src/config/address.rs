//! `ADDR:PORT` and `NAME:PORT`, and what is wrong with text that is neither.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Longest name of a host (RFC 1035 §2.3.4), without the dot of the root.
const LONGEST_HOST: usize = 253;

const WRONG_PORT: &str = "has a port that is not a number from 1 to 65535; write another";

/// The address, or what is wrong with it as the rest of a sentence; what would be right.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| diagnose(text))
}

/// An address and port, or the name of a host and a port: then the address is the unspecified one, until somebody has
/// asked. What is wrong, as for [`parse`].
pub(super) fn location(text: &str) -> Result<(SocketAddr, Option<String>), String> {
    match text.rsplit_once(':') {
        Some((host, port)) if text.parse::<SocketAddr>().is_err() && is_host_name(host) => {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| is_number).ok_or(WRONG_PORT)?;
            Ok(((Ipv4Addr::UNSPECIFIED, port).into(), Some(host.to_ascii_lowercase())))
        }
        None if is_host_name(text) => Err(format!("has no port; write {text}:PORT")),
        _ => parse(text).map(|address| (address, None)),
    }
}

fn diagnose(text: &str) -> String {
    const EXAMPLES: &str = "write for example 192.0.2.1:80 or [2001:db8::1]:80";
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        let shown = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        return format!("has no port; write {shown}:PORT");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text.parse::<u16>() {
            Ok(port) => format!("has no address; write 0.0.0.0:{port} for all of this host's"),
            Err(_) if is_host_name(text) => "has neither an address nor a port; write ADDR:PORT".into(),
            Err(_) => format!("is not an address with a port; {EXAMPLES}"),
        };
    };
    if host.is_empty() || host == "*" {
        return format!("has no address; write 0.0.0.0:{port} for all of this host's");
    }
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        return format!("has an IPv6 address without brackets; write [{host}]:{port}");
    }
    if host == "localhost" {
        return format!("has a host name; write an address, as in 127.0.0.1:{port}");
    }
    if is_host_name(host) {
        return "has a host name; write an address of this host".into();
    }
    if bare_host(host).parse::<IpAddr>().is_ok() {
        return WRONG_PORT.into();
    }
    format!("is not an address with a port; {EXAMPLES}")
}

fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Letters, digits, dashes and underlines between dots. What ends in a number is an address that is wrong, not a name.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(fits)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= LONGEST_HOST
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_none_or(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        let table = [
            ("10.0.0.1", "has no port; write 10.0.0.1:PORT"),
            ("[::1]", "has no port; write [::1]:PORT"),
            ("::1", "has no port; write [::1]:PORT"),
            ("2001:db8::1:zz", "write [2001:db8::1]:zz"),
            ("80", "has no address; write 0.0.0.0:80"),
            (":80", "has no address; write 0.0.0.0:80"),
            ("*:80", "has no address; write 0.0.0.0:80"),
            ("web1:80", "has a host name; write an address of this host"),
            ("web1.example.org:80", "has a host name; write an address of this host"),
            ("web1", "has neither an address nor a port"),
            ("localhost:80", "write an address, as in 127.0.0.1:80"),
            ("10.0.0.300:80", "is not an address"),
            ("10.0.0.1:65536", "has a port that is not a number"),
            ("10.0.0.1:http", "has a port that is not a number"),
            ("[::1]:x", "has a port that is not a number"),
            ("", "is not an address"),
        ];
        for (text, expected) in table {
            let found = parse(text).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        for text in ["10.0.0.1:80", "[::1]:80", "0.0.0.0:0"] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_location_may_be_a_name() {
        let long = format!("{0}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(61));
        for host in ["web1", "App.Example.org", "app.example.", "_http.x", "1and1.example", long.as_str()] {
            let (address, name) = location(&format!("{host}:80")).expect(host);
            assert_eq!((address.to_string().as_str(), name), ("0.0.0.0:80", Some(host.to_ascii_lowercase())));
        }
        for text in ["10.0.0.1:80", "[::1]:80"] {
            assert_eq!(location(text), Ok((text.parse().expect(text), None)));
        }
        let table = [
            ("web1", "has no port; write web1:PORT"),
            ("web1:http", "has a port that is not a number"),
            ("web1:65536", "has a port that is not a number"),
            ("web1:+80", "has a port that is not a number"),
            ("web1:", "has a port that is not a number"),
            ("10.0.0.300:80", "is not an address"),
            ("web..x:80", "is not an address"),
            ("-web:80", "is not an address"),
            ("a b:80", "is not an address"),
        ];
        for (text, expected) in table {
            let found = location(text).expect_err(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
        assert!(location(&format!("{long}y:80")).is_err(), "too long");
    }
}
