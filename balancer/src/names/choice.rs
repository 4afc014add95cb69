//! Which of the addresses of a host its server has.

use std::net::{IpAddr, SocketAddr};

use super::resolver::Answer;

/// The address that the server has, none of ours (`listen`): the `last` one while it is among them; else the first that no other server has, IPv4
/// before IPv6, which the fast path does not know; else the first. The rest of a sentence, if there is none.
///
/// # Errors
/// None of them can be a server's.
pub fn choose(
    answer: &Answer,
    port: u16,
    last: Option<SocketAddr>,
    taken: &[SocketAddr],
    listen: &[SocketAddr],
) -> Result<SocketAddr, String> {
    let mut addresses: Vec<IpAddr> = answer.addresses.iter().map(IpAddr::to_canonical).collect();
    addresses.retain(|address| is_a_servers(*address, answer.is_local));
    if let Some(ours) =
        addresses.iter().find(|address| is_ours(SocketAddr::new(**address, port), listen)).copied()
    {
        addresses.retain(|address| !is_ours(SocketAddr::new(*address, port), listen));
        if addresses.is_empty() {
            return Err(format!("is {ours}, where this balancer listens"));
        }
    }
    addresses.sort_unstable_by_key(|address| (address.is_ipv6(), *address));
    let mut places = addresses.iter().map(|address| SocketAddr::new(*address, port));
    let kept = last.filter(|last| addresses.contains(&last.ip()) && last.port() == port);
    kept.or_else(|| places.clone().find(|place| !taken.contains(place))).or_else(|| places.next()).ok_or_else(
        || match answer.addresses.as_slice() {
            [] => "has no address".to_owned(),
            [first, ..] => format!("is {first}, which no server can have"),
        },
    )
}

/// Requests would come back to us for ever.
fn is_ours(address: SocketAddr, listen: &[SocketAddr]) -> bool {
    listen.iter().any(|listen| {
        // Only an address of this host can be bound.
        let is_local = || std::net::UdpSocket::bind((address.ip(), 0)).is_ok();
        *listen == address || listen.ip().is_unspecified() && listen.port() == address.port() && is_local()
    })
}

/// What `--server` would take; and who answers from afar does not get clients sent to services of this very host.
fn is_a_servers(address: IpAddr, is_local: bool) -> bool {
    let is_out_of_place = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
        // Without its interface nobody can connect to it.
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(is_out_of_place
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback() && !is_local)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(addresses: &[&str]) -> Answer {
        let addresses = addresses.iter().map(|text| text.parse().expect("address")).collect();
        Answer { addresses, life: Duration::from_secs(10), is_local: false }
    }

    fn chosen(addresses: &[&str], last: Option<&str>, taken: &[&str]) -> Result<String, String> {
        let place = |text: &str| format!("{text}:80").parse::<SocketAddr>().expect("address");
        let taken: Vec<_> = taken.iter().map(|text| place(text)).collect();
        let ours = [place("10.9.9.9")];
        choose(&answer(addresses), 80, last.map(place), &taken, &ours).map(|place| place.ip().to_string())
    }

    #[test]
    fn a_server_stays_where_it_is_and_moves_to_where_nobody_is() {
        /// The answer, where the server was, where others are, and where it is then.
        type Row = (&'static [&'static str], Option<&'static str>, &'static [&'static str], &'static str);
        let table: [Row; 11] = [
            (&["10.9.9.9", "10.0.0.1"], None, &[], "10.0.0.1"),
            (&["10.9.9.9", "10.0.0.1"], Some("10.9.9.9"), &[], "10.0.0.1"),
            (&["10.0.0.2", "10.0.0.1"], None, &[], "10.0.0.1"),
            (&["10.0.0.1", "10.0.0.2"], Some("10.0.0.2"), &[], "10.0.0.2"),
            (&["10.0.0.2", "10.0.0.1"], Some("10.0.0.2"), &["10.0.0.2"], "10.0.0.2"),
            (&["10.0.0.2", "10.0.0.1"], Some("10.0.0.9"), &[], "10.0.0.1"),
            (&["10.0.0.1", "10.0.0.2"], None, &["10.0.0.1"], "10.0.0.2"),
            (&["10.0.0.1", "10.0.0.2"], None, &["10.0.0.1", "10.0.0.2"], "10.0.0.1"),
            (&["2001:db8::1", "10.0.0.1"], None, &[], "10.0.0.1"),
            (&["2001:db8::1"], Some("10.0.0.1"), &[], "2001:db8::1"),
            (&["::ffff:10.0.0.7"], None, &[], "10.0.0.7"),
        ];
        for (addresses, last, taken, expected) in table {
            assert_eq!(
                chosen(addresses, last, taken).as_deref(),
                Ok(expected),
                "{addresses:?} {last:?} {taken:?}"
            );
        }
    }

    #[test]
    fn nobody_is_sent_where_no_server_can_be() {
        let table = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ];
        for address in table {
            let refused = chosen(&[address], Some(address).filter(|text| !text.contains(':')), &[]);
            assert_eq!(refused, Err(format!("is {address}, which no server can have")));
            assert_eq!(
                chosen(&[address, "10.0.0.1"], None, &[]).as_deref(),
                Ok("10.0.0.1"),
                "beside {address}"
            );
        }
        assert_eq!(chosen(&[], None, &[]), Err("has no address".into()));
        let ours = Answer { is_local: true, ..answer(&["127.0.0.1"]) };
        assert!(choose(&ours, 80, None, &[], &[]).is_ok(), "who writes /etc/hosts knows what they do");
    }
}
