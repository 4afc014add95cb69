//! `--server NAME=ADDR:PORT[,id=VALUE][,weight=N][,backup][,maxconn=N][,maxqueue=N][,disabled]`, and the same said at run
//! time.

use std::net::SocketAddr;

use super::options::Value;
use super::persistence::together;
use super::{ServerConfig, ServerId, address};
use crate::cli::Stop;
use crate::persist::List;

/// Ids in the kernel are 16 bits wide; the balancing algorithms walk the list.
pub(crate) const MOST_SERVERS: usize = 1024;

/// Long enough for any digest, short enough for every cookie header.
const LONGEST_ID: usize = 128;

const SUPPORTED: &str = "NAME=ADDR:PORT[,id=VALUE][,weight=N][,backup][,maxconn=N][,maxqueue=N][,disabled]";

/// As in HAProxy, so that its configurations carry over.
pub(crate) const LARGEST_WEIGHT: u32 = 256;

/// More than a host has ports for.
const LARGEST_LIMIT: u32 = 1_000_000;

pub(super) fn servers(texts: &[String]) -> Result<Vec<ServerConfig>, Stop> {
    if texts.is_empty() {
        return Err(Stop::Usage("--server is missing; write --server NAME=ADDR:PORT".into()));
    }
    if texts.len() > MOST_SERVERS {
        return Err(Stop::Usage(format!(
            "--server is given {} times; {MOST_SERVERS} is the most",
            texts.len()
        )));
    }
    let mut servers = Vec::with_capacity(texts.len());
    for text in texts {
        let value = Value { flag: "--server", text };
        let server = server(value)?;
        admit(value, &server, &servers)?;
        servers.push(server);
    }
    Ok(servers)
}

/// A server that is given at run time, beside the `others`, by an instance that listens at `listen` and has that `list`.
///
/// # Errors
/// What would be wrong with it as a flag.
pub(crate) fn one(
    text: &str,
    others: &[ServerConfig],
    listen: &[SocketAddr],
    list: &List,
) -> Result<ServerConfig, String> {
    let value = Value { flag: "server", text };
    let outcome = server(value).and_then(|mut server| {
        together::fit(list, &mut server).map_err(|rest| value.wrong(rest))?;
        admit(value, &server, others)?;
        if others.len() >= MOST_SERVERS {
            return Err(value.wrong(format_args!("is one too many; {MOST_SERVERS} is the most")));
        }
        match goes_round(&server, listen) {
            Some(rest) => Err(value.wrong(rest)),
            None => Ok(server),
        }
    });
    outcome.map_err(Stop::into_message)
}

/// What is wrong with a server at one of our own addresses, as the rest of a sentence.
pub(super) fn goes_round(server: &ServerConfig, listen: &[SocketAddr]) -> Option<String> {
    (server.host.is_none() && listen.contains(&server.address)).then(|| {
        format!(
            "has the address of --listen {}, so requests would go round for ever; give one of them another address",
            server.address
        )
    })
}

/// Names and cookie values belong to one server each.
fn admit(value: Value<'_>, server: &ServerConfig, others: &[ServerConfig]) -> Result<(), Stop> {
    if others.iter().any(|other| other.name == server.name) {
        return Err(value.wrong("has the name of a server before it; give every server a name of its own"));
    }
    if let Some(cookie) = server.cookie()
        && let Some(other) = others.iter().find(|other| other.cookie().as_ref() == Some(&cookie))
    {
        return Err(value.wrong(format_args!(
            "has the id {cookie:?}, which server {} has too; give every server an id of its own",
            other.name
        )));
    }
    Ok(())
}

fn server(value: Value<'_>) -> Result<ServerConfig, Stop> {
    let (head, options) = value.split();
    if value.text.contains(char::is_whitespace) {
        return Err(
            value.wrong("has a space in it; options follow after commas, as in s1=192.0.2.1:80,weight=2")
        );
    }
    let Some((name, location)) = head.split_once('=') else {
        return Err(value.wrong(format_args!("has no name; write {SUPPORTED}")));
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=63).contains(&name.len()) || !name.chars().all(fits) {
        return Err(
            value.wrong("has a name that is not allowed; write 1 to 63 letters, digits, dots, _ and -")
        );
    }
    let (address, host) = server_location(value, location)?;
    let (mut id, mut weight, mut backup, mut disabled) = (None, None, None, None);
    let (mut maxconn, mut maxqueue) = (None, None);
    for option in options {
        match option.split_once('=') {
            Some(("id", text)) => value.set_once(&mut id, "id", text)?,
            Some(("weight", text)) => value.set_once(&mut weight, "weight", server_weight(value, text)?)?,
            Some((name @ "maxconn", text)) => {
                value.set_once(&mut maxconn, name, limit(value, name, text)?)?;
            }
            Some((name @ "maxqueue", text)) => {
                value.set_once(&mut maxqueue, name, limit(value, name, text)?)?;
            }
            None if option == "backup" => value.set_once(&mut backup, "backup", true)?,
            None if option == "disabled" => value.set_once(&mut disabled, "disabled", true)?,
            _ => return Err(unknown(value, option)),
        }
    }
    let id = match id {
        None => ServerId::Name,
        Some("") => ServerId::Nothing,
        Some(id) if id.len() <= LONGEST_ID && id.bytes().all(is_id_octet) => ServerId::Given(id.to_owned()),
        Some(_) => {
            return Err(value.wrong(format_args!(
                "has an id that a cookie cannot carry; write at most {LONGEST_ID} visible ASCII characters without \
                 space, quote, comma, semicolon, backslash, ~ and |"
            )));
        }
    };
    let (maxconn, maxqueue) = (maxconn.flatten(), maxqueue.flatten());
    if let (None, Some(most)) = (maxconn, maxqueue) {
        return Err(value.wrong(format_args!(
            "has maxqueue={most}, though nobody waits for a server that takes everybody; add maxconn=N"
        )));
    }
    Ok(ServerConfig {
        name: name.to_owned(),
        address,
        host,
        id,
        weight: weight.unwrap_or(1),
        backup: backup.unwrap_or(false),
        maxconn,
        maxqueue,
        disabled: disabled.unwrap_or(false),
    })
}

/// 0 is none, as in HAProxy.
/// Some have another name here than in HAProxy, or are a flag for all servers.
fn unknown(value: Value<'_>, option: &str) -> Stop {
    let here = match option.split('=').next().unwrap_or_default() {
        "cookie" => "a server's cookie is id=VALUE",
        "check" => "all servers are checked, as --check says",
        "inter" | "fastinter" | "downinter" => "the time between checks is --check-interval, for all servers",
        "rise" | "fall" => "it is --check-rise and --check-fall, for all servers",
        "slowstart" => "it is --slow-start, for all servers",
        "send-proxy" | "send-proxy-v2" => "it is --send-proxy, for all servers",
        "ssl" | "verify" | "sni" | "alpn" => "there is no TLS here",
        _ => return value.unsupported(option, SUPPORTED, &[]),
    };
    value.wrong(format_args!("has an unknown option {option:?}; {here}"))
}

fn limit(value: Value<'_>, name: &str, text: &str) -> Result<Option<u32>, Stop> {
    let limit = number(text, LARGEST_LIMIT).ok_or_else(|| {
        value.wrong(format_args!("has {name}={text}; write 1 to {LARGEST_LIMIT}, 0 for no limit"))
    })?;
    Ok(Some(limit).filter(|limit| *limit > 0))
}

fn number(text: &str, most: u32) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number <= most)
}

fn server_weight(value: Value<'_>, text: &str) -> Result<u32, Stop> {
    number(text, LARGEST_WEIGHT).ok_or_else(|| {
        value.wrong(format_args!("has the weight {text:?}; write 0 to {LARGEST_WEIGHT}, 0 for no new users"))
    })
}

fn server_location(value: Value<'_>, text: &str) -> Result<(SocketAddr, Option<String>), Stop> {
    let (address, host) = address::location(text).map_err(|rest| value.wrong(rest))?;
    if address.port() == 0 {
        return Err(
            value.wrong("has port 0, which nothing can be connected to; write a port from 1 to 65535")
        );
    }
    if host.is_none() && (address.ip().is_unspecified() || address.ip().is_multicast()) {
        return Err(value.wrong("has an address that nothing can be connected to; write the server's own"));
    }
    Ok((address, host))
}

/// A cookie-octet (RFC 6265 §4.1.1) that the other cookie modes do not use as a separator.
fn is_id_octet(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'"' | b',' | b';' | b'\\' | b'~' | b'|')
}
