//! Names of hosts in `--server`: resolved at start, and again and again while the service runs.
//!
//! | module | what it does |
//! |---|---|
//! | [`choice`] | which of the addresses a server has (pure) |
//! | [`resolver`] | asks `/etc/hosts` and DNS |
//! | [`follow`] | a running service: a task for each server with a name |
//!
//! A server moves only when it must: while its address is among the answers it stays there, in whatever order they come.
//! When nobody answers, it stays as well. One whose name has never been resolved is down until it is.

pub mod choice;
pub mod follow;
pub mod resolver;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::config::{Config, ServerConfig};
use resolver::{Answer, Resolver};

/// What was found out at start.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    hosts: HashMap<String, Result<Answer, String>>,
    /// Where clients connect, which is nowhere for a server to be.
    listen: Vec<SocketAddr>,
}

/// Where a server was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// At this address.
    At(IpAddr),
    /// Nowhere: why.
    Nowhere(String),
    /// Nobody has asked yet.
    NotAsked,
}

impl Answers {
    /// Asks for the hosts of all servers at once.
    pub async fn ask(config: &Config) -> Self {
        let mut tasks = JoinSet::new();
        let mut hosts: Vec<_> = config.servers.iter().filter_map(|server| server.host.clone()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let resolver = Resolver::new(&config.resolvers);
            tasks.spawn_local(async move {
                let answer = resolver.resolve(&host).await;
                (host, answer)
            });
        }
        Self { hosts: tasks.join_all().await.into_iter().collect(), listen: config.listen.clone() }
    }

    /// Where a server is, by the name of its host. `last`: where it was; `taken`: where others are.
    pub fn find(&self, settings: &ServerConfig, last: Option<SocketAddr>, taken: &[SocketAddr]) -> Found {
        match settings.host.as_ref().and_then(|host| self.hosts.get(host)) {
            None => Found::NotAsked,
            Some(Err(why)) => Found::Nowhere(why.clone()),
            Some(Ok(answer)) => choice::choose(answer, settings.address.port(), last, taken, &self.listen)
                .map_or_else(Found::Nowhere, |address| Found::At(address.ip())),
        }
    }

    /// When somebody should ask again for that host, and whether it was not found.
    pub fn due(&self, host: &str) -> (Duration, bool) {
        match self.hosts.get(host) {
            Some(Ok(answer)) => (answer.life, false),
            Some(Err(_)) => (resolver::SOONEST, true),
            None => (Duration::ZERO, false),
        }
    }

    /// Puts a server with the name of a host where it is to be at start: where it was found, else where it was. What the
    /// log should say; `Err`: as a warning.
    pub fn place(
        &self,
        settings: &mut ServerConfig,
        last: Option<SocketAddr>,
        taken: &[SocketAddr],
    ) -> Result<Option<String>, String> {
        let Some(host) = settings.host.clone() else { return Ok(None) };
        let name = settings.name.clone();
        match (self.find(settings, last, taken), last) {
            (Found::At(address), _) => {
                settings.address.set_ip(address);
                Ok(Some(format!("server {name}: {host} is {address}")))
            }
            (Found::Nowhere(why), Some(last)) => {
                settings.address = last;
                Err(format!("server {name}: {host} {why}; it stays at {}", last.ip()))
            }
            (Found::NotAsked, Some(last)) => {
                settings.address = last;
                Ok(None)
            }
            (Found::Nowhere(why), None) => Err(format!(
                "server {name}: {host} {why}; it is down until its address is known, for which is asked \
                 again and again"
            )),
            (Found::NotAsked, None) => Ok(None),
        }
    }
}
