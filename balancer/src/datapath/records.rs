//! What a running service writes into the registry and beside it. Every map is open already, and the folder by which
//! services take turns, so that all of this works once root is given up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};

use super::maps::Maps;
use super::registry::Registry;
use super::running::Inner;
use super::tables::{self, Pinned};
use super::{flows, publish};
use crate::config::ServerConfig;
use crate::intent::Intent;
use crate::intent::ledger::Records;
use crate::server::Identity;

/// The records of one service.
pub(super) struct KernelRecords {
    pub(super) inner: Arc<Mutex<Inner>>,
    pub(super) service: String,
}

impl Records for KernelRecords {
    fn enter(&self, settings: &ServerConfig, there_are: &[String]) -> anyhow::Result<Identity> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!inner.is_silent, "another process has taken over");
        let Inner { registry, xdp, learned, turn, .. } = &mut *inner;
        turn.lock().context("cannot lock the folder of pins")?;
        let enter = |registry: &mut Registry| {
            registry.enter(&self.service, &settings.name, settings.address, settings.host.as_deref())
        };
        // Ids of deleted servers are kept until they are needed: to look whether anything names them takes time.
        let entered = enter(registry).or_else(|_| {
            let keep: Vec<&str> = there_are.iter().map(String::as_str).collect();
            retire(&self.service, &keep, registry, xdp.as_mut().map(|xdp| &mut xdp.maps), learned);
            enter(registry)
        });
        let committed = registry.commit();
        turn.unlock().context("cannot unlock the folder of pins")?;
        committed.and(entered).map(|(identity, _)| identity)
    }

    fn write(&self, server: &str, intent: Option<&Intent>) -> anyhow::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(!inner.is_silent, "another process has taken over");
        inner.intents.write(&self.service, server, intent)
    }
}

/// Servers that there are no more take nobody new; their ids are free once nothing names them. To be called under the
/// shared lock.
pub(super) fn retire(
    service: &str,
    keep: &[&str],
    registry: &mut Registry,
    mut maps: Option<&mut Maps>,
    learned: &[Pinned],
) {
    let retired = registry.retired(service, keep);
    if retired.is_empty() {
        return;
    }
    // One walk for all of them: a table may hold a million entries. Where nobody knows: better some ids too few.
    let Some(named) = tables::named(learned) else { return };
    let mut held = HashSet::new();
    if let Some(maps) = &mut maps {
        retired.iter().for_each(|(_, id)| publish::remove_server(maps, *id));
        flows::servers(maps, &mut held);
    }
    let is_held = |id: &u16| held.contains(id) || named[usize::from(*id)];
    for (name, id) in retired.iter().filter(|(_, id)| !is_held(id)) {
        registry.forget(service, name);
        if let Some(maps) = &maps {
            maps.loads.forget(*id);
        }
    }
}
