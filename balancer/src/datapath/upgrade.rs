//! A version with another schema was here before: its tables, its program, and the processes that it may still have.
//!
//! What the versions have in common, which is nearly all that was learned, is pinned a second time in our folder: it is
//! one and the same map. Its flows are not ours to read. So as long as its program is on an interface that we want, clients
//! are served by the proxy, and the program carries on the connections that it has. When those have ended, or
//! `--drain-timeout` has passed, and no process of that version has a role any more, ours takes its place in the very same
//! link, so that there is no moment without a program.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::{MapData, MapInfo};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, loaded_programs};

use super::collect::flow_clock;
use super::links::{Links, name_of};
use super::maps::Maps;
use super::old_flows::OldFlows;
use super::pins::{INTENT, Pins, REGISTRY, Rollback};
use super::program;
use super::tables::{HASH_KEY, pinned};
use crate::log;

/// Since this schema the registry, the operator's intent, the key of hashes and the learned tables are laid out as ours.
/// To be raised when one of them changes.
const OLDEST_KIN: u32 = 2;

/// Pins in our folder what a version with another schema has learned, so that an upgrade forgets nobody. Returns what the
/// log should say. To be called under the shared lock.
///
/// # Errors
/// What the kernel refuses.
pub fn inherit(pins: &Pins, service: &str, rollback: &mut Rollback) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for other in pins.of_other_schemas() {
        let theirs = other.service(service);
        // If ours are others they are newer; if they are the same, a start was broken off.
        let key = pins.service(service).join(HASH_KEY);
        if !other.shared(REGISTRY).exists() || key.exists() && !is_same(&key, &theirs.join(HASH_KEY)) {
            continue;
        }
        let tables = pinned(&theirs);
        if !is_kin(&other) {
            notes
                .extend((!tables.is_empty()).then(|| not_migrated(&other, "its tables have another layout")));
            continue;
        }
        for map in [REGISTRY, INTENT] {
            repin(&other.shared(map), &pins.shared(map), rollback)?;
        }
        if tables.is_empty() {
            continue;
        }
        // Entries name servers by the ids of their registry.
        if !is_same(&other.shared(REGISTRY), &pins.shared(REGISTRY)) {
            notes.push(not_migrated(&other, "another service was started afresh first"));
            continue;
        }
        let own = pins.service(service);
        let names = tables.iter().map(|(name, _)| name.as_str()).chain([HASH_KEY]);
        for name in names {
            repin(&theirs.join(name), &own.join(name), rollback)?;
        }
        notes.push(format!(
            "learned tables are those of the version with {}: {}",
            schema_name(&other),
            log::first_few(tables.iter().map(|(name, _)| name.as_str()))
        ));
    }
    Ok(notes)
}

fn not_migrated(other: &Pins, why: &str) -> String {
    format!(
        "what the version with {} has learned in the kernel is not taken over: {why}; its --state-file is the way",
        schema_name(other)
    )
}

/// The same map under another path, unless there is one.
fn repin(from: &Path, to: &Path, rollback: &mut Rollback) -> anyhow::Result<()> {
    if to.exists() || !from.exists() {
        return Ok(());
    }
    rollback.note(to.to_owned());
    let map = MapData::from_pin(from).with_context(|| format!("cannot open {}", from.display()))?;
    map.pin(to).with_context(|| format!("cannot pin {}", to.display()))
}

/// One map under both paths.
fn is_same(one: &Path, other: &Path) -> bool {
    id_of(one).is_ok_and(|one| id_of(other).is_ok_and(|other| one == other))
}

fn id_of(path: &Path) -> anyhow::Result<u32> {
    Ok(MapInfo::from_pin(path).with_context(|| format!("cannot open {}", path.display()))?.id())
}

fn is_kin(other: &Pins) -> bool {
    other.schema().is_some_and(|schema| (OLDEST_KIN..=balancer_ebpf::abi::SCHEMA).contains(&schema))
}

fn schema_name(other: &Pins) -> String {
    other.schema().map_or_else(|| "another schema".to_owned(), |schema| format!("schema {schema}"))
}

/// Until the program of another version may be replaced.
pub struct Waiting {
    other: Pins,
    /// The links to the interfaces, which are pinned in our folder already: root may have been given up when it is time.
    links: Vec<(u32, XdpLink)>,
    flows: Option<OldFlows>,
    /// Who has the roles of services there.
    roles: Vec<(String, File)>,
    /// Since when no process of that version has a role.
    alone_since: Option<Instant>,
    limit: Duration,
}

impl Waiting {
    /// Looks whether the program of another version is on one of the interfaces. To be called under the shared lock.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn look(
        pins: &Pins,
        wanted: &[u32],
        limit: Duration,
        rollback: &mut Rollback,
    ) -> anyhow::Result<Option<Self>> {
        for other in pins.of_other_schemas() {
            let mut links = Vec::new();
            for index in wanted.iter().filter(|index| other.link(**index).exists()) {
                let link = FdLink::from(PinnedLink::from_pin(other.link(*index))?);
                if !is_foreign(&link, *index, pins) {
                    continue;
                }
                let pin = pins.link(*index);
                rollback.note(pin.clone());
                let _ = fs::remove_file(&pin);
                let pinned = link.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
                links.push((*index, XdpLink::try_from(FdLink::from(pinned))?));
            }
            if !links.is_empty() {
                let flows = OldFlows::open(&other.shared("FLOWS"));
                let waiting = Self { other, links, flows, roles: Vec::new(), alone_since: None, limit };
                return Ok(Some(waiting));
            }
        }
        Ok(None)
    }

    /// What is to be said at the start.
    pub fn note(&self) -> String {
        format!(
            "fast path: the program of a version with {} is on {}; clients are served by the proxy until its connections \
             have ended, or for {:?} (--drain-timeout), and then it is replaced",
            schema_name(&self.other),
            self.interfaces(),
            self.limit
        )
    }

    /// What keeps clients from the fast path.
    pub fn obstacle(&self) -> String {
        format!(
            "the program of a version with {} is still on {}",
            schema_name(&self.other),
            self.interfaces()
        )
    }

    fn interfaces(&self) -> String {
        let names: Vec<String> = self.links.iter().filter_map(|(index, _)| name_of(*index)).collect();
        names.join(", ")
    }

    /// Looks again. `Ok`: the time has come; otherwise what is amiss, if anything is.
    pub fn is_over(&mut self) -> Result<(), Option<String>> {
        let live = self.live_services();
        if !live.is_empty() {
            self.alone_since = None;
            return Err(Some(format!(
                "the program of a version with {} stays on {}, as processes of that version run: {}; upgrade them, too",
                schema_name(&self.other),
                self.interfaces(),
                log::first_few(live.iter().map(String::as_str))
            )));
        }
        let since = *self.alone_since.get_or_insert_with(Instant::now);
        let has_flows = self.flows.as_ref().is_none_or(|flows| flows.are_in_use(flow_clock()));
        if has_flows && since.elapsed() < self.limit { Err(None) } else { Ok(()) }
    }

    /// The services whose role is with a process of that version.
    fn live_services(&mut self) -> Vec<String> {
        // Without root there are only those that were seen before.
        for name in self.other.services() {
            if !self.roles.iter().any(|(known, _)| *known == name)
                && let Ok(folder) = File::open(self.other.service(&name))
            {
                self.roles.push((name, folder));
            }
        }
        let is_live = |folder: &File| match folder.try_lock_shared() {
            Ok(()) => {
                let _ = folder.unlock();
                false
            }
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(_)) => false,
        };
        self.roles.iter().filter(|(_, folder)| is_live(folder)).map(|(name, _)| name.clone()).collect()
    }

    /// Puts our program in the place of the other one. What is there of other interfaces has still to be attached to.
    ///
    /// # Errors
    /// What the kernel refuses; some interfaces may have the program then.
    pub fn replace(
        self,
        service: &str,
        wanted: &[u32],
        program: &mut Xdp,
        maps: &mut Maps,
        pins: &Pins,
    ) -> anyhow::Result<Links> {
        let is_cut = self.flows.as_ref().is_none_or(|flows| flows.are_in_use(flow_clock()));
        let (names, schema) = (self.interfaces(), schema_name(&self.other));
        let ours =
            |index: &u32| PinnedLink::from_pin(pins.link(*index)).is_ok_and(|l| runs_ours(&l.into(), pins));
        let mut indexes: Vec<u32> = pins.linked_interfaces().into_iter().filter(ours).collect();
        program::forget_flows_beyond(maps, &indexes);
        for (index, link) in self.links {
            // Its interface may be gone.
            if name_of(index).is_none() {
                continue;
            }
            let id = program.attach_to_link(link).context("cannot replace the program of another version")?;
            drop(program.take_link(id));
            indexes.push(index);
        }
        clear(&self.other, service, pins);
        log::info(format_args!(
            "fast path: the program of the version with {schema} is replaced on {names}{}",
            if is_cut { "; connections that it still had are cut" } else { "" }
        ));
        indexes.sort_unstable();
        indexes.dedup();
        let places = wanted.iter().map(|index| if indexes.contains(index) { *index } else { 0 }).collect();
        let attached = indexes.into_iter().filter_map(program::describe).collect();
        Ok(Links { attached, places })
    }
}

/// What other versions have left of this service is not needed any more once we have it, unless their program is
/// somewhere still, or one of their processes.
pub fn tidy(pins: &Pins, service: &str) {
    let is_inherited = |other: &Pins| is_same(&other.shared(REGISTRY), &pins.shared(REGISTRY));
    for other in pins.of_other_schemas().into_iter().filter(is_inherited) {
        let is_free = File::open(other.service(service)).is_ok_and(|folder| folder.try_lock().is_ok());
        let link = |index: &u32| PinnedLink::from_pin(other.link(*index));
        let is_on = |index: &u32| link(index).is_ok_and(|link| is_foreign(&link.into(), *index, pins));
        if is_free && !other.linked_interfaces().iter().any(is_on) {
            clear(&other, service, pins);
        }
    }
}

/// Takes away what another version has left that nobody uses any more. Without root all of it stays until the next start.
pub fn clear(other: &Pins, service: &str, pins: &Pins) {
    let_go(other, pins);
    let folder = other.service(service);
    // Tables that we have not inherited are all that is left of what was learned.
    if pinned(&folder).is_empty() || is_same(&folder.join(HASH_KEY), &pins.service(service).join(HASH_KEY)) {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&folder);
    }
    if other.services().is_empty() {
        for entry in fs::read_dir(other.root()).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        other.remove_if_empty();
    }
}

/// Removes the second pins of links that have our program now.
pub fn let_go(other: &Pins, pins: &Pins) {
    for index in other.linked_interfaces() {
        let path = other.link(index);
        if !PinnedLink::from_pin(&path).is_ok_and(|link| is_foreign(&link.into(), index, pins)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether another program than ours is on that interface by that link.
fn is_foreign(link: &FdLink, index: u32, pins: &Pins) -> bool {
    name_of(index).is_some() && !runs_ours(link, pins)
}

/// Whether the program that is attached by that link uses our maps.
fn runs_ours(link: &FdLink, pins: &Pins) -> bool {
    let uses = || -> anyhow::Result<bool> {
        let flows = id_of(&pins.shared("FLOWS"))?;
        let program = link.info()?.program_id();
        let found = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program);
        let maps = found.context("a program that is gone")?.map_ids()?;
        ensure!(maps.is_some(), "this kernel does not tell a program's maps");
        Ok(maps.is_some_and(|maps| maps.contains(&flows)))
    };
    uses().unwrap_or(false)
}
