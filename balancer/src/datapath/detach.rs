//! Taking a service out of the kernel.

use std::fs;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::Ebpf;
use balancer_ebpf::abi::Service;

use super::intents::IntentMap;
use super::maps::{self, Maps};
use super::pins::{INTENT, Pins, REGISTRY, Rollback};
use super::registry::Registry;
use super::{flows, publish, syscall, upgrade};
use crate::cidr::AddressSet;
use crate::log;

/// `balancer detach`: removes a service's pins; the last one takes the program and the shared pins with it. `force`
/// also removes what a live instance uses, and what cannot be read.
///
/// # Errors
/// The service is live, or there is none of that name.
pub fn detach(name: &str, force: bool) -> anyhow::Result<String> {
    let pins = Pins::locate()?;
    let folder = pins.service(name);
    if !folder.exists() && !force {
        bail!(
            "no service named \"{name}\" has left anything in the kernel in this network namespace; there \
             are: {}",
            list(&pins.services())
        );
    }
    let _turn = pins.lock_shared()?;
    let role = pins.lock_service(name);
    if role.is_err() && !force && folder.exists() {
        bail!("\"{name}\" is running; stop it first, or use --force, which cuts its fast connections");
    }
    remove(&pins, name)?;
    Ok(if pins.root().exists() {
        format!("{name}: removed; the program stays for: {}", list(&pins.services()))
    } else {
        format!("{name}: removed, and the program with it")
    })
}

/// `balancer detach --all`: the same for every service here. One that is running stays, and the others go.
///
/// # Errors
/// Some service is live, or could not be removed; all are named.
pub fn detach_all(force: bool) -> anyhow::Result<String> {
    let services = Pins::locate()?.services();
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    for name in &services {
        match detach(name, force) {
            Ok(told) => removed.push(told),
            Err(error) => kept.push(log::chain(&error)),
        }
    }
    if !kept.is_empty() {
        bail!("{}", [kept, removed].concat().join("; "));
    }
    let nothing = "no service has anything in the kernel in this network namespace".to_owned();
    Ok(if removed.is_empty() { nothing } else { removed.join("\n") })
}

pub(super) fn remove(pins: &Pins, name: &str) -> anyhow::Result<()> {
    let mut program = existing(pins).ok();
    if let Some((_ebpf, maps)) = &mut program
        && let Some(slot) = publish::find_slot(maps, name)
    {
        let _ = publish::listens(maps, slot, &[]);
        let _ = publish::deny(maps, slot, &AddressSet::default(), &AddressSet::default());
        let _ = maps.services.set(slot, Service::FREE, 0);
        // The ring goes with its last handle.
        let _ = syscall::remove(maps.events.fd().as_fd(), &slot);
    }
    let registry = pins.shared(REGISTRY);
    if registry.exists() {
        let mut registry = Registry::open(&registry)?;
        for (server, id) in registry.retired(name, &[]) {
            // A flow that still runs keeps its server's id from being given to another.
            if !program.as_ref().is_some_and(|(_, maps)| flows::names_server(maps, id)) {
                registry.forget(name, &server);
                if let Some((_, maps)) = &program {
                    maps.loads.forget(id);
                }
            }
        }
    }
    let intents = pins.shared(INTENT);
    if intents.exists() {
        IntentMap::open(&intents)?.clear(name);
    }
    let folder = pins.service(name);
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        fs::remove_file(entry.path())?;
    }
    if folder.exists() {
        fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if pins.services().is_empty() {
        // Links that our program has taken over from another version may be pinned there as well.
        pins.of_other_schemas().iter().for_each(|other| upgrade::let_go(other, pins));
        for entry in fs::read_dir(pins.root()).into_iter().flatten().flatten() {
            fs::remove_file(entry.path())?;
        }
        pins.remove_if_empty();
    }
    Ok(())
}

/// The maps as they are pinned, if they are.
fn existing(pins: &Pins) -> anyhow::Result<(Ebpf, Maps)> {
    if !pins.shared("FLOWS").exists() {
        bail!("no XDP program of balancer is loaded in this network namespace");
    }
    maps::load(pins, 1024, &mut Rollback::default())
}

fn list(services: &[String]) -> String {
    match services {
        [] => "none".to_owned(),
        some => log::first_few(some.iter().map(String::as_str)),
    }
}
