//! `--resolver ADDR[:PORT]`.

use std::net::{IpAddr, SocketAddr};

use super::options::Value;
use crate::cli::Stop;

/// As many as a look-up has time for.
pub(crate) const MOST: usize = 4;

/// DNS.
const USUAL_PORT: u16 = 53;

pub(super) fn resolvers(texts: &[String]) -> Result<Vec<SocketAddr>, Stop> {
    if texts.len() > MOST {
        return Err(Stop::Usage(format!("--resolver is given {} times; {MOST} is the most", texts.len())));
    }
    let mut resolvers: Vec<SocketAddr> = Vec::with_capacity(texts.len());
    for text in texts {
        let value = Value { flag: "--resolver", text };
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let address = match (text.parse(), bare.parse::<IpAddr>()) {
            (Ok(address), _) => address,
            (_, Ok(address)) => SocketAddr::new(address, USUAL_PORT),
            _ => {
                return Err(
                    value.wrong("is not an address; write for example 192.0.2.53 or [2001:db8::1]:5353")
                );
            }
        };
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(value.wrong("is nobody who can be asked; write the address of a DNS server"));
        }
        if resolvers.contains(&address) {
            return Err(value.wrong("is given twice; give it once"));
        }
        resolvers.push(address);
    }
    Ok(resolvers)
}
