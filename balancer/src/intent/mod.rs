//! What the operator wants of servers beyond what the flags say. It outlives the process, and is kept apart from the
//! configuration: the flags stay what they are, and what contradicts them ends when they change.
//!
//! | module | what it does |
//! |---|---|
//! | [`Intent`] | what is wanted of one server |
//! | [`muster`] | flags and intents → the servers there are (pure): the rules |
//! | [`ledger`] | intents of a running service, and where they are written down |
//! | [`record`] | an intent as bytes |

pub mod ledger;
pub mod muster;
pub mod record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::ServerConfig;
use crate::server::Operator;

/// By the names of the servers.
pub type Intents = BTreeMap<String, Intent>;

/// What is wanted of one server. Nothing at all, unless something was said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Intent {
    /// What it is to be; `None`: what its settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wish: Option<Operator>,
    /// A weight that was given at run time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// It was deleted: where the flags said it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
    /// The flags do not name it: it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<Added>,
}

/// A weight that was given at run time, and what it was given instead of: it holds only as long as that.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Weight {
    /// The weight.
    pub weight: u32,
    /// Where the settings said that the server is.
    pub location: String,
    /// What they said of its weight.
    pub initial: u32,
}

/// A server that was added at run time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Added {
    /// What `--server` would say.
    pub text: String,
    /// When, in milliseconds of unix time: servers keep their order.
    pub at: u64,
    /// What the flags said of a server of that name, in whose place it was put: it holds only as long as that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<Flag>,
}

/// What the flags say of a server, as far as a change of it counts for more than what was said at run time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Flag {
    /// Where it is.
    pub location: String,
    /// Its weight.
    pub weight: u32,
}

impl Flag {
    /// Of these settings.
    pub fn of(settings: &ServerConfig) -> Self {
        Self { location: settings.location(), weight: settings.weight }
    }
}

impl Weight {
    fn is_instead_of(&self, settings: &ServerConfig) -> bool {
        self.location == settings.location() && self.initial == settings.weight
    }
}

/// What a server is to be when nobody has said anything.
fn unasked(settings: &ServerConfig) -> Operator {
    if settings.disabled { Operator::Maint } else { Operator::Ready }
}
