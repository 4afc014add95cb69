//! The kernel side of the service: learned tables in pinned maps, and the XDP program that reads them.
//!
//! | module | what it does |
//! |---|---|
//! | `open`, `running`, `detach` | the life of a service's hold on the kernel |
//! | [`view`] | what operators see |
//! | [`pins`] | where maps are pinned, whose they are, and the locks |
//! | [`maps`] | opening the maps: created, or found and checked |
//! | [`registry`] | names of servers → ids that outlive the process |
//! | [`kernel_table`] | a learned table in a pinned map |
//! | [`program`] | loading the program and attaching it to interfaces |
//! | [`publish`] | what the program is told: service, listen addresses, servers |
//! | [`collect`] | removing flows that are over |
//! | [`flows`] | listing flows |
//! | [`netdev`] | whether an interface can transmit XDP frames |
//! | [`syscall`] | the system calls that no library offers |
//!
//! Everything is opened before it is used and kept as descriptors: nothing is opened by path once the service runs.

pub mod view;

#[cfg(feature = "xdp")]
pub mod collect;
#[cfg(feature = "xdp")]
pub mod flows;
#[cfg(feature = "xdp")]
pub mod kernel_table;
#[cfg(feature = "xdp")]
pub mod maps;
#[cfg(feature = "xdp")]
pub mod netdev;
#[cfg(feature = "xdp")]
pub mod pins;
#[cfg(feature = "xdp")]
pub mod program;
#[cfg(feature = "xdp")]
pub mod publish;
#[cfg(feature = "xdp")]
pub mod registry;
#[cfg(feature = "xdp")]
pub mod syscall;

#[cfg(feature = "xdp")]
mod detach;
#[cfg(feature = "xdp")]
mod open;
#[cfg(feature = "xdp")]
mod running;
#[cfg(feature = "xdp")]
pub use self::{
    detach::detach,
    open::{check, open},
    running::Datapath,
};

#[cfg(not(feature = "xdp"))]
mod absent;
#[cfg(not(feature = "xdp"))]
pub use absent::{Datapath, check, detach, open};

use crate::config::Config;
use crate::server::{Health, Identity, Operator};
use crate::table::Store;
use crate::table::memory::Memory;

/// What the service gets from the kernel, or in its place.
pub struct Opened {
    /// Identity of each server, and the operator's wish and the health on record, in the order of the configuration.
    pub servers: Vec<(Identity, Operator, Health)>,
    /// The `source` table, if the list has that method.
    pub source: Option<Box<dyn Store>>,
    /// The XDP program, if one was asked for.
    pub datapath: Option<Datapath>,
    /// What the start-up log should say.
    pub notes: Vec<String>,
}

/// Tables in memory: forgotten by a restart. Ids are places in the list, which nothing outlives here.
fn in_memory(config: &Config, note: Option<String>) -> Opened {
    let servers = (1..=config.servers.len() as u16)
        .map(|id| (Identity { id, generation: 1 }, Operator::Ready, Health::Unknown))
        .collect();
    let source = config.persist.source().map(|source| Box::new(Memory::new(source.size)) as Box<dyn Store>);
    Opened { servers, source, datapath: None, notes: note.into_iter().collect() }
}
