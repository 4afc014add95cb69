//! Health checks: can the server be connected to?
//!
//! [`hysteresis`] decides, here are the sockets and the clock around it: one task per server on the control thread.

pub mod hysteresis;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config::CheckConfig;
use crate::log;
use crate::server::{Health, Servers, State};
use crate::service::Shared;
use hysteresis::Hysteresis;

/// Starts the checks of all servers, if there are any. To be called inside a `LocalSet`.
pub fn spawn(service: &Shared) {
    let Some(config) = &service.config.check else { return };
    for index in 0..service.servers.len() {
        tokio::task::spawn_local(watch(Shared::clone(service), index, config.clone()));
    }
}

/// What a check has found.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Finding {
    Reachable,
    /// Why not.
    Unreachable(String),
    /// The check itself could not be made: this host is short of something. Says nothing about the server.
    NotChecked(String),
}

async fn watch(service: Shared, index: usize, config: CheckConfig) {
    let servers = &service.servers;
    let mut state = Hysteresis::new(config.rise, config.fall);
    let mut complained = false;
    let random = RandomState::new();
    for round in 0_u64.. {
        let server = &servers[index];
        match connect(server.address, config.timeout).await {
            Finding::Reachable => {
                if state.observe(true).is_some() {
                    came_up(servers, index);
                }
            }
            Finding::Unreachable(why) => {
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
        sleep(jittered(config.interval, random.hash_one(round))).await;
    }
}

fn came_up(servers: &Servers, index: usize) {
    let is_news = servers[index].health() == Health::Down;
    if servers.set_health(index, Health::Up) && is_news {
        log::info(format_args!("server {} is up ({})", servers[index].name, left(servers)));
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

async fn connect(address: SocketAddr, limit: Duration) -> Finding {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // A reset instead of a farewell: otherwise every check leaves a TIME_WAIT behind.
            let _ = stream.set_zero_linger();
            Finding::Reachable
        }
        Ok(Err(error)) if is_ours(&error) => Finding::NotChecked(log::reason(&error)),
        Ok(Err(error)) => Finding::Unreachable(log::reason(&error)),
        Err(_) => Finding::Unreachable(format!("no answer within {limit:?}")),
    }
}

/// Whether a connection failed on this side: this host is short of something, or forbids it. Says nothing about the
/// server.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(
        code,
        Some(
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EPERM
                | Errno::EACCES
        )
    )
}

/// `interval`, a tenth more or less, so that the checks of many servers and many balancers do not fall together.
fn jittered(interval: Duration, random: u64) -> Duration {
    let permille = 900 + (random % 201) as u32;
    interval * permille / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

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

    #[test]
    fn what_this_host_lacks_is_not_the_servers_fault() {
        use Errno::{EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
        let is_ours = |errno: Errno| is_ours(&io::Error::from_raw_os_error(errno as i32));
        assert!([EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM].into_iter().all(is_ours));
        assert!(![Errno::ECONNREFUSED, Errno::EHOSTUNREACH, Errno::ETIMEDOUT].into_iter().any(is_ours));
    }

    #[test]
    fn a_listener_is_reachable_and_a_closed_port_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            let address = listener.local_addr().expect("address");
            let limit = Duration::from_secs(5);
            assert_eq!(connect(address, limit).await, Finding::Reachable);
            drop(listener);
            assert_eq!(connect(address, limit).await, Finding::Unreachable("connection refused".into()));
        });
    }
}
