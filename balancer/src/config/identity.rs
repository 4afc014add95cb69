//! `--deny`, `--accept-proxy`, `--send-proxy`, `--forwarded`, `--debug-from`.

use std::fs::File;
use std::io::Read;

use super::IdentityConfig;
use super::options::Value;
use crate::cidr::{AddressSet, Cidr};
use crate::cli::Stop;
use crate::cli::flags::{ForwardedArg, IdentityArgs, SendProxyArg};
use crate::http::forwarded::Style;
use crate::log;
use crate::proxy_protocol::Version;

/// A million IPv6 blocks, one per line.
const LARGEST_FILE: u64 = 64 * 1024 * 1024;

pub(super) fn identity(args: &IdentityArgs) -> Result<IdentityConfig, Stop> {
    let debuggers = args.debug_from.iter().map(|text| block(Value { flag: "--debug-from", text }));
    let proxies = args.accept_proxy.iter().map(|text| block(Value { flag: "--accept-proxy", text }));
    Ok(IdentityConfig {
        deny: addresses("--deny", &args.deny)?.into(),
        accept_proxy: proxies.collect::<Result<AddressSet, Stop>>()?,
        debug_from: debuggers.collect::<Result<AddressSet, Stop>>()?,
        send_proxy: args.send_proxy.map(|version| match version {
            SendProxyArg::V1 => Version::V1,
            SendProxyArg::V2 => Version::V2,
        }),
        forwarded: match args.forwarded {
            ForwardedArg::None => None,
            ForwardedArg::XForwardedFor => Some(Style::XForwarded),
            ForwardedArg::Forwarded => Some(Style::Rfc7239),
        },
    })
}

/// Blocks, or names of files with blocks.
pub(super) fn addresses(flag: &'static str, texts: &[String]) -> Result<AddressSet, Stop> {
    let mut blocks = Vec::new();
    for text in texts {
        let value = Value { flag, text };
        match text.strip_prefix('@') {
            Some(path) => read_file(value, path, &mut blocks)?,
            None => blocks.push(block(value)?),
        }
    }
    Ok(blocks.into_iter().collect())
}

fn block(value: Value<'_>) -> Result<Cidr, Stop> {
    Cidr::parse(value.text).map_err(|rest| value.wrong(rest))
}

fn read_file(value: Value<'_>, path: &str, blocks: &mut Vec<Cidr>) -> Result<(), Stop> {
    if path.is_empty() {
        return Err(value.wrong(format_args!("does not name a file; write {} @FILE", value.flag)));
    }
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text)).map_err(
        |error| {
            value.wrong(format_args!("cannot be read: {}; name a file of addresses", log::reason(&error)))
        },
    )?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(value.wrong("is larger than 64m; split it"));
    }
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1_usize..) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            let block = Cidr::parse(entry);
            blocks.push(block.map_err(|rest| value.wrong(format_args!("line {number}: {entry:?} {rest}")))?);
        }
    }
    Ok(())
}
