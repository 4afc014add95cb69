//! `--xdp auto`: the interfaces that the addresses say, and a start without the fast path where there can be none.

use std::net::SocketAddr;

use crate::config::{Config, DatapathConfig, InterfaceConfig};
use crate::log;
use crate::netlink::around;

/// `--xdp auto` and no interface by name: nothing was promised.
pub(super) fn is_all(config: &Config) -> bool {
    config.datapath.as_ref().is_some_and(|datapath| datapath.auto.is_some() && datapath.interfaces.is_empty())
}

/// The same service without a fast path.
pub(super) fn without(config: &Config) -> Config {
    Config { datapath: None, ..config.clone() }
}

/// The one line about it.
pub(super) fn no_fast_path(why: &str) -> String {
    format!("--xdp auto: there is no fast path, everything goes through the proxy: {why}")
}

/// `--xdp` with the interfaces that `auto` stands for; `None`: there is none.
pub(super) fn resolve(
    config: &Config,
    servers: impl Iterator<Item = SocketAddr>,
    notes: &mut Vec<String>,
) -> Option<DatapathConfig> {
    let mut datapath = config.datapath.clone()?;
    let Some(mode) = datapath.auto else { return Some(datapath) };
    let found = around::interfaces(&config.listen, &servers.collect::<Vec<_>>());
    let found: Vec<String> = found.into_iter().map(|link| link.name).collect();
    for name in &found {
        if !datapath.interfaces.iter().any(|interface| interface.name == *name) {
            datapath.interfaces.push(InterfaceConfig { name: name.clone(), mode, is_found: true });
        }
    }
    if datapath.interfaces.is_empty() {
        notes.push(no_fast_path("clients and servers are all on this host, or there is no way to them"));
        return None;
    }
    notes.push(format!("--xdp auto: {}", log::first_few(found.iter().map(String::as_str))));
    Some(datapath)
}
