//! `ADDR:PORT`, and what is wrong with text that is not one.

use std::net::{IpAddr, SocketAddr};

/// The address, or what is wrong with it as the rest of a sentence; what would be right.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| diagnose(text))
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
            Err(_) if is_host_name(text) => "is a host name without port; write an address and a port".into(),
            Err(_) => format!("is not an address with a port; {EXAMPLES}"),
        };
    };
    if host.is_empty() || host == "*" {
        return format!("has no address; write 0.0.0.0:{port} for all of this host's");
    }
    if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        return format!("has an IPv6 address without brackets; write [{host}]:{port}");
    }
    if is_host_name(host) {
        return "has a host name, which is not supported yet; write an address".into();
    }
    if bare_host(host).parse::<IpAddr>().is_ok() {
        return "has a port that is not a number from 1 to 65535; write such a number".into();
    }
    format!("is not an address with a port; {EXAMPLES}")
}

fn bare_host(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Four numbers with dots are an address that is wrong, not a name.
fn is_host_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.chars().all(fits) && text.chars().any(|c| c.is_ascii_alphabetic())
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
            ("web1:80", "host name, which is not supported yet"),
            ("web1.example.org:80", "host name, which is not supported yet"),
            ("web1", "host name without port"),
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
}
