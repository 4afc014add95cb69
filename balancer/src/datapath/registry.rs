//! Names of servers → ids and generations, in a pinned map: tables and flows name a server by these for as long as the
//! host runs, whatever becomes of the process or of the order of its flags.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, bail};
use aya::maps::{HashMap, Map, MapData};
use balancer_ebpf::abi::MAX_SERVERS;
use siphasher::sip::SipHasher13;

use crate::server::{Health, Identity, Server};
use crate::table::{source_address, source_key};

/// `--name`, a zero, the server's name, zeros.
pub(super) type Name = [u8; 96];

/// What is known of a server. All fields are bytes, so there is no padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    id: [u8; 2],
    generation: u8,
    reserved: [u8; 2],
    port: [u8; 2],
    /// What was last found out about it at this address.
    health: u8,
    address: [u8; 16],
    /// Of the name of the host whose address this is; zero: it was given as an address.
    host: [u8; 8],
}

#[allow(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: bytes only.
unsafe impl aya::Pod for Record {}

/// The registry of one network namespace.
#[derive(Debug)]
pub struct Registry {
    map: HashMap<MapData, Name, Record>,
    /// New generations: written when the start has succeeded, so that one that fails changes nothing.
    pending: Vec<(Name, Record)>,
}

impl Registry {
    /// The registry pinned at `path`, made if it is not there.
    ///
    /// # Errors
    /// What the kernel refuses, or a map of another build.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let map = if path.exists() {
            let map = MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
            HashMap::try_from(Map::HashMap(map))
                .with_context(|| format!("{} has another layout", path.display()))?
        } else {
            let map = HashMap::create(MAX_SERVERS, 0).context("cannot create the registry of servers")?;
            let map: HashMap<MapData, Name, Record> = map;
            map.pin(path).with_context(|| format!("cannot pin {}", path.display()))?;
            let pinned =
                MapData::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?;
            HashMap::try_from(Map::HashMap(pinned))?
        };
        Ok(Self { map, pending: Vec::new() })
    }

    /// The identity of a server at `address`, which is that of `host` if it has one, and the health on record. A name keeps
    /// its id; another address is another generation, of which no health is known. To be called under the shared lock.
    ///
    /// # Errors
    /// When no id is left.
    pub fn enter(
        &mut self,
        service: &str,
        server: &str,
        address: SocketAddr,
        host: Option<&str>,
    ) -> anyhow::Result<(Identity, Health)> {
        let name = name(service, server);
        let mut record = match self.map.get(&name, 0) {
            Ok(record) => record,
            Err(_) => Record {
                id: self.free_id()?.to_ne_bytes(),
                generation: 0,
                reserved: [0; 2],
                port: [0; 2],
                health: Health::Unknown as u8,
                address: [0; 16],
                host: [0; 8],
            },
        };
        let (octets, port) = (octets(address.ip()), address.port().to_be_bytes());
        let (is_new, before) = (record.generation == 0, record);
        if (record.address, record.port) != (octets, port) {
            // Zero means new, so the count skips it when it wraps.
            record.generation = record.generation.checked_add(1).unwrap_or(1);
            (record.address, record.port, record.health) = (octets, port, Health::Unknown as u8);
        }
        record.host = host_hash(host);
        if record != before {
            if is_new {
                // At once: the id must not be given to anybody else.
                self.map.insert(name, record, 0).context("cannot write the registry of servers")?;
            } else {
                self.pending.push((name, record));
            }
        }
        let identity = Identity { id: u16::from_ne_bytes(record.id), generation: record.generation };
        Ok((identity, Health::from_u8(record.health)))
    }

    /// Where a server was, if that was the address of `host`.
    pub fn last_address(&self, service: &str, server: &str, host: &str) -> Option<SocketAddr> {
        let record = self.map.get(&name(service, server), 0).ok()?;
        let address = SocketAddr::new(source_address(&record.address), u16::from_be_bytes(record.port));
        (record.host == host_hash(Some(host)) && !address.ip().is_unspecified()).then_some(address)
    }

    /// The start has succeeded: new generations count from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        for (name, record) in self.pending.drain(..) {
            self.map.insert(name, record, 0).context("cannot write the registry of servers")?;
        }
        Ok(())
    }

    /// Records the health, if it is that of the address on record.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn record(&mut self, service: &str, server: &Server) -> anyhow::Result<()> {
        let name = name(service, &server.name);
        let mut record = self.map.get(&name, 0)?;
        if record.generation != server.identity.generation || record.health == server.health() as u8 {
            return Ok(());
        }
        record.health = server.health() as u8;
        Ok(self.map.insert(name, record, 0)?)
    }

    /// Ids on record for servers of `service` that `keep` does not name.
    pub fn retired(&self, service: &str, keep: &[&str]) -> Vec<(String, u16)> {
        let records = self.map.iter().filter_map(Result::ok);
        records
            .filter_map(|(name, record)| {
                let (owner, server) = parts(&name)?;
                (owner == service && !keep.contains(&server))
                    .then(|| (server.to_owned(), u16::from_ne_bytes(record.id)))
            })
            .collect()
    }

    /// Forgets a server that no entry and no flow names any more: its id may be used again.
    pub fn forget(&mut self, service: &str, server: &str) {
        let _ = self.map.remove(&name(service, server));
    }

    fn free_id(&self) -> anyhow::Result<u16> {
        let mut taken = vec![false; MAX_SERVERS as usize];
        taken[0] = true;
        for (_, record) in self.map.iter().filter_map(Result::ok) {
            if let Some(slot) = taken.get_mut(usize::from(u16::from_ne_bytes(record.id))) {
                *slot = true;
            }
        }
        match taken.iter().position(|taken| !taken) {
            Some(id) => Ok(id as u16),
            None => bail!(
                "all {MAX_SERVERS} server ids of this network namespace are in use; detach unused services"
            ),
        }
    }
}

/// The IPv6 form of an address.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    source_key(address)
}

fn host_hash(host: Option<&str>) -> [u8; 8] {
    let Some(host) = host else { return [0; 8] };
    let mut hasher = SipHasher13::new();
    hasher.write(host.as_bytes());
    // Zero means none.
    hasher.finish().max(1).to_be_bytes()
}

pub(super) fn name(service: &str, server: &str) -> Name {
    let mut name = [0; size_of::<Name>()];
    let bytes = [service.as_bytes(), &[0], server.as_bytes()].concat();
    // Config has checked the lengths: 32 and 63.
    let length = bytes.len().min(name.len());
    name[..length].copy_from_slice(&bytes[..length]);
    name
}

pub(super) fn parts(name: &Name) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(name).ok()?.trim_end_matches('\0');
    text.split_once('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_were_put_together() {
        assert_eq!(parts(&name("web", "s1")), Some(("web", "s1")));
        let (longest_service, longest_server) = ("x".repeat(32), "y".repeat(63));
        assert_eq!(
            parts(&name(&longest_service, &longest_server)),
            Some((&*longest_service, &*longest_server))
        );
    }
}
