//! Health checks: can the server be connected to, and with `http=`, does it say that it is well?
//!
//! [`hysteresis`] decides, [`probe`] asks; here is the clock around them: one task per server on the control thread.

pub mod hysteresis;
mod probe;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::sleep;

use crate::config::CheckConfig;
use crate::log;
use crate::server::{Health, Servers, State};
use crate::service::Shared;
use hysteresis::Hysteresis;
use probe::Finding;
pub(crate) use probe::is_ours;

/// While a verdict is in doubt, checks come this many times as often: the sooner it is known the better, and a busy
/// server is not asked more than it has to be.
const HASTE: u32 = 4;

/// Starts the checks of all servers, if there are any. To be called inside a `LocalSet`.
pub fn spawn(service: &Shared) {
    let Some(config) = &service.config.check else { return };
    for index in service.servers.places() {
        tokio::task::spawn_local(watch(Shared::clone(service), index, config.clone()));
    }
}

async fn watch(service: Shared, index: usize, config: CheckConfig) {
    let servers = &service.servers;
    let verdict = match servers[index].health() {
        Health::Unknown => None,
        known => Some(known != Health::Down),
    };
    let mut state = Hysteresis::new(config.rise, config.fall).with_verdict(verdict);
    let mut complained = false;
    let random = RandomState::new();
    for round in 0_u64.. {
        let server = &servers[index];
        match probe::check(server.address, &config.probe, config.timeout).await {
            Finding::Well => well(servers, index, &mut state, Health::Up),
            Finding::Draining => well(servers, index, &mut state, Health::Draining),
            Finding::Ill(why) => {
                if state.observe(false).is_some() {
                    went_down(servers, index, &why);
                }
            }
            Finding::NotChecked(why) if !complained => {
                complained = true;
                log::warn(format_args!("server {} cannot be checked: {why}", server.name));
            }
            Finding::NotChecked(_) => {}
        }
        let interval = if state.is_in_doubt() { config.interval / HASTE } else { config.interval };
        sleep(jittered(interval, random.hash_one(round))).await;
    }
}

/// A check has succeeded. That a server wants nobody new needs no second opinion, nor that it does again.
fn well(servers: &Servers, index: usize, state: &mut Hysteresis, health: Health) {
    let before = servers[index].health();
    if state.observe(true).is_none() && (before == Health::Down || before == health) {
        return;
    }
    if servers.set_health(index, health) {
        let (name, left) = (&servers[index].name, left(servers));
        let news = match (before, health) {
            (_, Health::Draining) => "asks for no new clients",
            (Health::Draining, _) => "takes new clients again",
            (Health::Down, _) => "is up",
            // At start nobody has said that it was not.
            _ => return,
        };
        log::info(format_args!("server {name} {news} ({left})"));
    }
}

fn went_down(servers: &Servers, index: usize, why: &str) {
    if servers.set_health(index, Health::Down) {
        log::warn(format_args!("server {} is down: {why} ({})", servers[index].name, left(servers)));
    }
}

/// How many servers take new clients.
fn left(servers: &Servers) -> String {
    let up = servers.iter().filter(|server| server.state() == State::Up).count();
    format!("{up} of {} left", servers.len())
}

/// `interval`, a tenth more or less, so that the checks of many servers and many balancers do not fall together.
fn jittered(interval: Duration, random: u64) -> Duration {
    let permille = 900 + (random % 201) as u32;
    interval * permille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let interval = Duration::from_secs(10);
        for random in [0, 1, 100, 200, 201, u64::MAX] {
            let found = jittered(interval, random);
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&found), "{found:?}");
        }
        let longest = Duration::from_secs(365 * 24 * 3600);
        assert!(jittered(longest, 200) > longest);
    }
}
