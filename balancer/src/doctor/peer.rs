//! The other end of a veth pair: where it lives and how it is set, as far as that can be known from here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::row::word;
use crate::netlink::ethtool::{self, Channels};
use crate::netlink::link::{self, Link};
use crate::netlink::namespaces;

/// Where it lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In this network namespace.
    Here,
    /// In the one that this file stands for.
    There(PathBuf),
    /// In one that cannot be found from here.
    Hidden,
}

/// What is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    pub(super) place: Place,
    /// Its state; also of one that lives where nobody can go, if the kernel tells.
    pub(super) link: Option<Link>,
    /// Its offloads that are on.
    pub(super) features: Option<BTreeSet<String>>,
    pub(super) channels: Option<Channels>,
}

impl Peer {
    /// Of one end of a veth pair.
    pub(super) fn of(link: &Link) -> Option<Self> {
        let index = link.other.filter(|_| link.is_veth())?;
        let Some(number) = link.other_namespace else {
            return Some(Self::at(Place::Here, link::by_index(index).ok(), index));
        };
        let link = link::in_namespace(number, index).ok();
        let place = namespaces::find(number).map_or(Place::Hidden, Place::There);
        Some(Self::at(place, link, index))
    }

    fn at(place: Place, link: Option<Link>, index: u32) -> Self {
        let ask =
            || (link::by_index(index).ok(), ethtool::features(index).ok(), ethtool::channels(index).ok());
        let (own, features, channels) = match &place {
            Place::Here => ask(),
            Place::There(namespace) => namespaces::inside(namespace, ask).unwrap_or_default(),
            Place::Hidden => (None, None, None),
        };
        Self { place, link: own.or(link), features, channels }
    }

    /// Its name, and where it is.
    pub(super) fn describe(&self) -> String {
        let name = self.link.as_ref().map_or("its peer", |link| link.name.as_str());
        match &self.place {
            Place::Here => format!("its peer ({name})"),
            Place::There(namespace) => format!("its peer ({name} in {})", namespace.display()),
            Place::Hidden => "its peer (in a namespace that cannot be found from here)".to_owned(),
        }
    }

    /// A command for its side; `NAME` in it is the interface.
    pub(super) fn command(&self, command: &str) -> String {
        let name = self.link.as_ref().map_or("IF", |link| link.name.as_str());
        let command = command.replace("NAME", &word(name));
        match &self.place {
            Place::Here => command,
            Place::There(namespace) => {
                format!("nsenter --net={} {command}", word(&namespace.to_string_lossy()))
            }
            Place::Hidden => format!("in the namespace of its peer: {command}"),
        }
    }
}
