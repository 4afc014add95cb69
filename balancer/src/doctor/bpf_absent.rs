//! A build without XDP: the rest of the host is looked at all the same.

use std::path::PathBuf;

use super::interface::OnIt;
use super::row::Row;
use crate::netlink::link::Link;

pub(super) fn examine() -> Vec<Row> {
    vec![
        Row::warning(
            "fast path",
            "this build is the proxy alone; the rows about interfaces are for one with XDP",
        )
        .mend("build it with the feature xdp"),
    ]
}

pub(super) fn role(_name: &str) -> Option<PathBuf> {
    None
}

pub(super) fn attached() -> Vec<u32> {
    Vec::new()
}

pub(super) fn on(link: &Link) -> OnIt {
    if link.xdp.is_some() { OnIt::Foreign { link: None } } else { OnIt::Nothing }
}

pub(super) fn runs(_link: &Link) -> Option<bool> {
    None
}

pub(super) fn transmits(_link: &Link) -> Option<bool> {
    None
}

pub(super) fn probe(_link: &Link) -> anyhow::Result<()> {
    anyhow::bail!("this build has no program to try it with")
}
