//! `--mode tcp`: what needs HTTP cannot go with it.

use super::options::Value;
use super::{Balance, IdentityConfig};
use crate::cli::Stop;
use crate::persist::{List, Method};

/// Flags that say something about messages.
pub(super) const IDLE: [&str; 5] =
    ["timeout-client", "timeout-server", "timeout-keepalive", "max-head", "max-headers"];

/// `texts` are the methods of `list` as they were given.
pub(super) fn check(
    texts: &[String],
    list: &List,
    identity: &IdentityConfig,
    balance: &Balance,
    ignored: &[String],
) -> Result<(), Stop> {
    let http = list.methods().iter().zip(texts).find(|(method, _)| !matches!(method, Method::Source(_)));
    if let Some((_, text)) = http {
        let value = Value { flag: "--persist", text };
        return Err(value.wrong("is about HTTP, which --mode tcp does not read; write --persist source"));
    }
    if identity.forwarded.is_some() {
        return Err(Stop::Usage(
            "--forwarded is about HTTP, which --mode tcp does not write; leave it out, or write --send-proxy v2".into(),
        ));
    }
    if let Some(text) = ignored.first() {
        let value = Value { flag: "--persist-ignore", text };
        return Err(value.wrong("is about HTTP, which --mode tcp does not read; leave it out"));
    }
    if matches!(balance, Balance::Uri | Balance::Header(_) | Balance::Query(_)) {
        let (text, flag) = (balance.to_string(), "--balance");
        let value = Value { flag, text: &text };
        return Err(value.wrong("is about HTTP, which --mode tcp does not read; write --balance source"));
    }
    Ok(())
}
