//! What operators want of servers, in a pinned map beside the registry: it outlives the process, whatever becomes of it.

use std::path::Path;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::MAX_SERVERS;

use super::registry::{Name, name, parts};
use crate::intent::record::{self, LENGTH};
use crate::intent::{Intent, Intents};

/// linux/bpf.h: most servers are never spoken of, so room is made when it is needed.
const BPF_F_NO_PREALLOC: u32 = 1;

/// The intents of one network namespace.
#[derive(Debug)]
pub struct IntentMap {
    map: HashMap<MapData, Name, [u8; LENGTH]>,
}

impl IntentMap {
    /// The map pinned at `path`, made if it is not there.
    ///
    /// # Errors
    /// What the kernel refuses, or a map of another build.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            let map: HashMap<MapData, Name, [u8; LENGTH]> =
                HashMap::create(MAX_SERVERS, BPF_F_NO_PREALLOC)
                    .context("cannot create the map of operators' intents")?;
            map.pin(path).with_context(|| format!("cannot pin {}", path.display()))?;
        }
        let map = MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
        let map = HashMap::try_from(Map::HashMap(map))
            .with_context(|| format!("{} has another layout", path.display()))?;
        Ok(Self { map })
    }

    /// What is wanted of the servers of `service`, and the names of those whose record is not understood.
    pub fn read(&self, service: &str) -> (Intents, Vec<String>) {
        let (mut intents, mut broken) = (Intents::new(), Vec::new());
        for (name, record) in self.map.iter().filter_map(Result::ok) {
            let Some((_, server)) = parts(&name).filter(|(owner, _)| *owner == service) else { continue };
            match record::decode(&record) {
                Ok(intent) => drop(intents.insert(server.to_owned(), intent)),
                Err(_) => broken.push(server.to_owned()),
            }
        }
        (intents, broken)
    }

    /// Writes down what is wanted of a server; `None`: nothing any more.
    ///
    /// # Errors
    /// It does not fit, or the kernel refuses.
    pub fn write(&mut self, service: &str, server: &str, intent: Option<&Intent>) -> anyhow::Result<()> {
        let name = name(service, server);
        match intent {
            Some(intent) => Ok(self.map.insert(name, record::encode(intent)?, 0)?),
            None => {
                // It may not be there.
                let _ = self.map.remove(&name);
                Ok(())
            }
        }
    }

    /// Forgets all that is wanted of the servers of `service`.
    pub fn clear(&mut self, service: &str) {
        let names: Vec<Name> = self.map.keys().filter_map(Result::ok).collect();
        for name in names.iter().filter(|name| parts(name).is_some_and(|(owner, _)| owner == service)) {
            let _ = self.map.remove(name);
        }
    }
}
