//! Health: which servers may be given clients, as far as that can be found out.
//!
//! | module | what it does |
//! |---|---|
//! | [`probe`] | one check: can the server be connected to, and with `http=`, does it say that it is well? |
//! | [`hysteresis`] | when single results become a verdict (pure) |
//! | [`ramp`] | slow start: how much of its weight a server has (pure) |
//! | [`monitor`] | all that is known of a server: checks, errors of real traffic, the operator's wish (pure) |
//! | [`watch`] | the task per server around it, on the control thread |
//! | [`news`] | what the operator is told |
//!
//! A verdict reaches the proxy, the kernel's map and the record of the next start in one step, [`Servers::set_health`].
//!
//! [`Servers::set_health`]: crate::server::Servers::set_health

pub mod hysteresis;
mod monitor;
mod news;
mod probe;
mod ramp;
mod watch;

use std::collections::{HashMap, HashSet};

use tokio::task::{JoinHandle, spawn_local};

use crate::service::Shared;
pub(crate) use probe::is_ours;
use watch::Watch;

/// Watches over the servers, also while there is nothing to watch: flags may be read again. To be called inside a `LocalSet`.
pub fn spawn(service: &Shared) {
    spawn_local(supervise(Shared::clone(service)));
}

/// One task for each server there is, as they come and go.
async fn supervise(service: Shared) {
    let mut watched: HashMap<usize, JoinHandle<()>> = HashMap::new();
    let mut is_start = true;
    loop {
        // Before the look, so that what happens after it is not missed.
        let enrolled = service.servers.enrolled();
        // Where there is no address there is nowhere to ask; once there is, the server has another place.
        let has_address = |place: &usize| !service.servers[*place].is_unresolved();
        let places: HashSet<usize> = service.servers.places().into_iter().filter(has_address).collect();
        watched.retain(|place, task| {
            let is_there = places.contains(place);
            if !is_there {
                task.abort();
            }
            is_there
        });
        for &place in &places {
            watched
                .entry(place)
                .or_insert_with(|| spawn_local(Watch::new(Shared::clone(&service), place, !is_start).run()));
        }
        is_start = false;
        enrolled.await;
    }
}
