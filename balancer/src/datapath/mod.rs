//! The kernel side of the service: learned tables in pinned maps, and the XDP program that reads them.
//!
//! | module | what it does |
//! |---|---|
//! | `open`, `running`, `detach` | the life of a service's hold on the kernel |
//! | [`view`] | what operators see |
//! | [`pins`] | where maps are pinned, whose they are, and the locks |
//! | [`maps`] | opening the maps: created, or found and checked |
//! | [`registry`] | names of servers → ids that outlive the process |
//! | [`intents`] | what operators want of servers, which does so too |
//! | `records` | what a running service enters into both |
//! | `tables`, [`kernel_table`] | the learned tables; one of their stores in a pinned map |
//! | [`program`] | loading the program and attaching it to interfaces |
//! | [`publish`] | what the program is told: service, listen addresses, servers |
//! | [`collect`] | removing flows that are over; their counts |
//! | [`loads`] | what each server carries, and its limit: memory that the program shares |
//! | [`tend`] | changing flows in place |
//! | [`census`] | whether counts are right (pure) |
//! | `events` | reading the ring |
//! | `roster` | the servers as they come and go |
//! | [`flows`] | listing flows |
//! | [`ring`], [`ended`] | what the program tells; the ends of fast connections and their lines in the log |
//! | [`foresee`] | whether a new connection would be fast |
//! | `auto` | which interfaces `--xdp auto` means |
//! | [`links`] | interfaces that come and go while the service runs |
//! | [`upgrade`] | the program, the tables and the roles of a version with other maps |
//! | `old_flows` | whether such a version has connections |
//! | [`netdev`] | whether an interface's driver runs programs and transmits XDP frames |
//! | [`routes`] | which addresses are ours; keeping servers' neighbours known |
//! | [`syscall`], [`shared`] | the system calls that no library offers; a map in our memory |
//!
//! Everything is opened before it is used and kept as descriptors: nothing is opened by path once the service runs.

pub mod view;

#[cfg(feature = "xdp")]
pub mod census;
#[cfg(feature = "xdp")]
pub mod collect;
#[cfg(feature = "xdp")]
pub mod ended;
#[cfg(feature = "xdp")]
pub mod flows;
#[cfg(feature = "xdp")]
pub mod foresee;
#[cfg(feature = "xdp")]
pub mod intents;
#[cfg(feature = "xdp")]
pub mod kernel_table;
#[cfg(feature = "xdp")]
pub mod links;
#[cfg(feature = "xdp")]
pub mod loads;
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
pub mod ring;
#[cfg(feature = "xdp")]
pub mod routes;
#[cfg(feature = "xdp")]
pub mod shared;
#[cfg(feature = "xdp")]
pub mod syscall;
#[cfg(feature = "xdp")]
pub mod tend;
#[cfg(feature = "xdp")]
pub mod upgrade;

#[cfg(feature = "xdp")]
mod auto;
#[cfg(feature = "xdp")]
mod detach;
#[cfg(feature = "xdp")]
mod events;
#[cfg(feature = "xdp")]
mod old_flows;
#[cfg(feature = "xdp")]
mod open;
#[cfg(feature = "xdp")]
mod records;
#[cfg(feature = "xdp")]
mod roster;
#[cfg(feature = "xdp")]
mod running;
#[cfg(feature = "xdp")]
mod tables;
#[cfg(feature = "xdp")]
pub use self::{
    detach::{detach, detach_all},
    open::{check, open, try_to_load},
    running::Datapath,
};

#[cfg(not(feature = "xdp"))]
mod absent;
#[cfg(not(feature = "xdp"))]
pub use absent::{Datapath, check, detach, detach_all, open};

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::Context as _;

use crate::config::Config;
use crate::intent::Intents;
use crate::intent::ledger::{InMemory, Ledger, Records};
use crate::intent::muster::{Member, muster};
use crate::names::Answers;
use crate::server::{Health, Identity};
use crate::table::{HashKey, Tables};

/// What the service gets from the kernel, or in its place.
pub struct Opened {
    /// The servers that it starts with.
    pub members: Vec<Enrolled>,
    /// What the operator wants of them.
    pub ledger: Ledger,
    /// The learned tables.
    pub tables: Tables,
    /// The XDP program, if one was asked for.
    pub datapath: Option<Datapath>,
    /// What the start-up log should say.
    pub notes: Vec<String>,
    /// The same as warnings.
    pub warnings: Vec<String>,
}

/// A server that the service starts with.
pub struct Enrolled {
    /// What it is to be.
    pub member: Member,
    /// Its identity in tables.
    pub identity: Identity,
    /// What was last found out about it at this address.
    pub health: Health,
}

/// What is known of the servers before the kernel is asked.
#[derive(Debug, Default)]
pub struct Known {
    /// Who their hosts are.
    pub answers: Answers,
    /// What a predecessor says that the operator wants.
    pub intents: Option<Intents>,
    /// Where it says that servers with names of hosts are, by name and host.
    pub last: HashMap<(String, String), SocketAddr>,
    /// What a file says that the operator wanted before a reboot. It counts where nobody knows better.
    pub kept: Intents,
    /// What ids were hashed with where learned entries come from.
    pub hash_key: Option<HashKey>,
}

impl Known {
    /// Puts the servers with names of hosts where they are; `recorded` says where a server was by the record.
    fn place(
        &self,
        members: &mut [Member],
        recorded: impl Fn(&str, &str) -> Option<SocketAddr>,
        notes: &mut Vec<String>,
        warnings: &mut Vec<String>,
    ) {
        let mut taken: Vec<SocketAddr> = members.iter().map(|member| member.settings.address).collect();
        for (at, Member { settings, .. }) in members.iter_mut().enumerate() {
            let last = settings.host.as_deref().and_then(|host| {
                let told = self.last.get(&(settings.name.clone(), host.to_owned())).copied();
                told.or_else(|| recorded(&settings.name, host))
                    .filter(|last| last.port() == settings.address.port())
            });
            match self.answers.place(settings, last, &taken) {
                Ok(note) => notes.extend(note),
                Err(warning) => warnings.push(warning),
            }
            taken[at] = settings.address;
        }
    }
}

/// Tables in memory, and with them what operators say: all of it ends with the process, unless it is passed on.
fn in_memory(config: &Config, known: &Known, reason: &str) -> anyhow::Result<Opened> {
    let intents = known.intents.clone().unwrap_or_else(|| known.kept.clone());
    let mut mustered = muster(&config.servers, &config.listen, &config.persist, intents);
    let key = known.hash_key.map_or_else(HashKey::random, Ok).context("the host gives no random bytes")?;
    let tables = Tables::in_memory(&config.persist, key);
    let what = match tables.is_empty() {
        true => "the states that operators give to servers are in memory",
        false => "learned tables are in memory, and with them the states that operators give to servers",
    };
    let then = match config.state_file {
        Some(_) => "and kept in --state-file",
        None => "and will not survive a restart, unless it is a hot one (USR2) or --state-file keeps them",
    };
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    let is_forgotten = !tables.is_empty() && config.state_file.is_none();
    if is_forgotten { &mut warnings } else { &mut notes }.push(format!("{what}, {then}: {reason}"));
    notes.append(&mut mustered.notes);
    known.place(&mut mustered.members, |_, _| None, &mut notes, &mut warnings);
    let (records, mut members) = (InMemory::new(), Vec::new());
    for member in mustered.members {
        let identity = records.enter(&member.settings, &[])?;
        members.push(Enrolled { member, identity, health: Health::Unknown });
    }
    let ledger = ledger(Box::new(records), Intents::new(), mustered.intents, &members);
    Ok(Opened { members, ledger, tables, datapath: None, notes, warnings })
}

fn ledger(records: Box<dyn Records>, recorded: Intents, intents: Intents, members: &[Enrolled]) -> Ledger {
    let members: Vec<_> = members.iter().map(|enrolled| enrolled.member.clone()).collect();
    Ledger::new(records, recorded, intents, &members)
}
