//! Names of hosts of a running service: each server that has one is looked after by a task on the control thread.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::choice::choose;
use super::resolver::{Answer, LATEST, Resolver, SOONEST};
use crate::intent::ledger::Ledger;
use crate::log;
use crate::service::Shared;

/// Looks after the names of the servers of a service.
pub struct Names {
    resolver: Resolver,
    service: Shared,
    ledger: Rc<Ledger>,
    /// Where clients connect: no server can be there.
    listen: Vec<SocketAddr>,
}

impl Names {
    /// `listen`: where clients connect, ports resolved.
    pub fn new(service: &Shared, ledger: &Rc<Ledger>, listen: &[SocketAddr]) -> Rc<Self> {
        Rc::new(Self {
            resolver: Resolver::new(&service.config.resolvers),
            service: Shared::clone(service),
            ledger: Rc::clone(ledger),
            listen: listen.to_vec(),
        })
    }

    /// Looks after the server at `place`, if it has a name, until it is deleted. To be called inside a `LocalSet`.
    /// `first`: when; `is_lost`: it was not found before, and the log says so.
    pub fn follow(self: &Rc<Self>, place: usize, first: Duration, is_lost: bool) {
        if self.service.servers[place].host.is_some() {
            spawn_local(Rc::clone(self).keep(place, first, is_lost));
        }
    }

    async fn keep(self: Rc<Self>, mut place: usize, first: Duration, mut is_lost: bool) {
        let mut next = first;
        loop {
            sleep(next).await;
            let server = &self.service.servers[place];
            let (false, Some(host)) = (server.is_retired(), server.host.clone()) else { return };
            let Some(answer) = self.ask(&host).await else {
                next = SOONEST;
                continue;
            };
            let outcome = answer.and_then(|answer| Ok((self.apply(place, &host, &answer)?, answer.life)));
            // It may have been deleted while we asked.
            if self.service.servers[place].is_retired() && outcome.is_err() {
                return;
            }
            match outcome {
                Ok((now, life)) => {
                    if is_lost && now == place {
                        let server = &self.service.servers[place];
                        log::info(format_args!(
                            "server {}: {host} is {} still",
                            server.name,
                            server.address.ip()
                        ));
                    }
                    (place, next, is_lost) = (now, life, false);
                }
                // The same trouble is said once.
                Err(why) => {
                    next = if is_lost { later(next) } else { SOONEST };
                    if !is_lost {
                        let server = &self.service.servers[place];
                        let what_then = match server.is_unresolved() {
                            true => {
                                "it is down until its address is known, for which is asked again and again"
                                    .to_owned()
                            }
                            false => format!("it stays at {}", server.address.ip()),
                        };
                        log::warn(format_args!("server {}: {host} {why}; {what_then}", server.name));
                    }
                    is_lost = true;
                }
            }
        }
    }

    /// `None`: a successor is taking over, whose business it is then, perhaps for good.
    async fn ask(&self, host: &str) -> Option<Result<Answer, String>> {
        if self.ledger.is_frozen() {
            return None;
        }
        let answer = self.resolver.resolve(host).await;
        (!self.ledger.is_frozen()).then_some(answer)
    }

    /// Moves the server if it must: its place then.
    fn apply(&self, place: usize, host: &str, answer: &Answer) -> Result<usize, String> {
        let servers = &self.service.servers;
        let server = &servers[place];
        if server.is_retired() {
            return Err("is not asked for any more".to_owned());
        }
        let others = servers.iter().filter(|other| other.name != server.name).map(|other| other.address);
        let taken: Vec<_> = others.collect();
        let last = Some(server.address).filter(|_| !server.is_unresolved());
        let address = choose(answer, server.address.port(), last, &taken, &self.listen)?;
        if address == server.address {
            return Ok(place);
        }
        let Some(mut settings) = self.ledger.settings(&server.name) else { return Ok(place) };
        settings.address = address;
        let cannot = |why: String| format!("is {} now, where it cannot be put: {why}", address.ip());
        let identity = self.ledger.enter(&settings).map_err(|error| cannot(log::chain(&error)))?;
        let moved = server.moved(address, settings.cookie(), identity);
        let new = servers.replace(place, moved).map_err(|error| cannot(error.to_string()))?;
        let was = last.map_or_else(String::new, |last| format!(" (was {})", last.ip()));
        log::info(format_args!("server {}: {host} is {} now{was}", server.name, address.ip()));
        Ok(new)
    }
}

/// After a failure: soon, and then not so soon.
fn later(last: Duration) -> Duration {
    (last * 2).clamp(SOONEST, LATEST)
}
