//! Flags that are read again while the service runs (HUP): what they change about the servers there are.
//!
//! The same is done as when the operator adds, deletes or weighs a server, but nothing is noted as wanted beyond the flags: at
//! the next start they say it themselves.

use std::time::Duration;

use super::Desk;
use crate::config::ServerConfig;
use crate::config::servers;
use crate::log;
use crate::server::{Operator, Server};

/// How the servers of the flags have changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// New ones, as in `--server`.
    pub added: Vec<String>,
    /// Names of those that are not named any more.
    pub deleted: Vec<String>,
    /// Names, and their weights.
    pub weighed: Vec<(String, u32)>,
}

impl Changes {
    /// From the servers of before to those of now, with their texts. What else differs about a server is in the error.
    ///
    /// # Errors
    /// The name of a server that has changed in another way.
    pub fn between(old: &[ServerConfig], new: &[ServerConfig], texts: &[String]) -> Result<Self, String> {
        let mut changes = Self::default();
        for (server, text) in new.iter().zip(texts) {
            match old.iter().find(|old| old.name == server.name) {
                None => changes.added.push(text.trim().to_owned()),
                Some(old) if old == server => {}
                Some(old) if ServerConfig { weight: server.weight, ..old.clone() } == *server => {
                    changes.weighed.push((server.name.clone(), server.weight));
                }
                Some(_) => return Err(server.name.clone()),
            }
        }
        let is_there = |name: &str| new.iter().any(|server| server.name == name);
        let gone = old.iter().filter(|server| !is_there(&server.name));
        changes.deleted = gone.map(|server| server.name.clone()).collect();
        Ok(changes)
    }

    /// Nothing has.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Desk {
    /// Whether the changes can be made as a whole.
    ///
    /// # Errors
    /// Why not.
    pub fn foresee(&self, changes: &Changes) -> Result<(), String> {
        if !changes.is_empty() {
            self.ledger.check_that_it_is_ours().map_err(|error| log::chain(&error))?;
        }
        // Those that go make room for those that come.
        let mut there_are = self.ledger.all_settings();
        there_are.retain(|server| !changes.deleted.contains(&server.name));
        for text in &changes.added {
            if self.known(text).is_some() {
                continue;
            }
            there_are.push(servers::one(text, &there_are, &self.listen, &self.service.config.persist)?);
        }
        Ok(())
    }

    /// Makes them. What the operator has deleted or added meanwhile stays as it is.
    ///
    /// # Errors
    /// What has kept a server from being added; the others are.
    pub fn apply(&self, changes: &Changes) -> Result<(), String> {
        changes.deleted.iter().for_each(|name| self.drop_server(name));
        changes.weighed.iter().for_each(|(name, weight)| self.reweigh(name, *weight));
        let outcomes: Vec<_> = changes.added.iter().map(|text| self.adopt(text)).collect();
        outcomes.into_iter().collect()
    }

    /// A server that the operator has added before the flags came to name it.
    fn known(&self, text: &str) -> Option<ServerConfig> {
        let settings = servers::one(text, &[], &[], &self.service.config.persist).ok()?;
        self.ledger.settings(&settings.name).filter(|known| *known == settings)
    }

    fn adopt(&self, text: &str) -> Result<(), String> {
        if let Some(settings) = self.known(text) {
            let place = self.place(&settings.name)?;
            self.written(&self.service.servers[place], self.ledger.configured(settings));
            return Ok(());
        }
        let settings =
            servers::one(text, &self.ledger.all_settings(), &self.listen, &self.service.config.persist)?;
        let identity = self.ledger.enter(&settings).map_err(|error| log::chain(&error))?;
        let wish = if settings.disabled { Operator::Maint } else { Operator::Ready };
        let server = Server::configured(settings.clone(), identity).with_operator(wish);
        let place = self.service.servers.add(server).map_err(|error| error.to_string())?;
        let server = &self.service.servers[place];
        log::info(format_args!("server {} at {} is added by the flags", server.name, settings.location()));
        self.written(server, self.ledger.configured(settings));
        self.names.follow(place, Duration::ZERO, false);
        Ok(())
    }

    fn drop_server(&self, name: &str) {
        let servers = &self.service.servers;
        let Some(place) = servers.by_name(name) else { return };
        let connections = servers.connections(name);
        servers.retire(place);
        log::info(format_args!(
            "server {name} is not among the flags any more; {connections} connections may finish"
        ));
        self.written(&servers[place], self.ledger.deleted(name, None));
    }

    fn reweigh(&self, name: &str, weight: u32) {
        let servers = &self.service.servers;
        let Some(place) = servers.by_name(name) else { return };
        let before = servers[place].weight();
        if before != weight {
            servers.set_weight(place, weight);
            log::info(format_args!("server {name} has weight {weight} (was {before}) by the flags"));
        }
        self.written(&servers[place], self.ledger.configured_weight(name, weight));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &[&str], new: &[&str]) -> Result<Changes, String> {
        let settings = |texts: &[&str]| -> Vec<ServerConfig> {
            let one = |text: &&str| servers::one(text, &[], &[], &crate::persist::List::default());
            texts.iter().map(one).collect::<Result<_, _>>().expect("valid")
        };
        let texts: Vec<_> = new.iter().map(ToString::to_string).collect();
        Changes::between(&settings(old), &settings(new), &texts)
    }

    #[test]
    fn servers_come_go_and_change_their_weight() {
        let old = ["s1=10.0.0.1:80", "s2=10.0.0.2:80,weight=2", "s3=10.0.0.3:80"];
        assert_eq!(changes(&old, &old), Ok(Changes::default()));
        let new = ["s4=10.0.0.4:80,backup", "s3=10.0.0.3:80,weight=9", "s1=10.0.0.1:80"];
        let expected = Changes {
            added: vec!["s4=10.0.0.4:80,backup".into()],
            deleted: vec!["s2".into()],
            weighed: vec![("s3".into(), 9)],
        };
        assert_eq!(changes(&old, &new), Ok(expected));
    }

    #[test]
    fn what_else_changes_about_a_server_names_it() {
        for new in
            ["s1=10.0.0.9:80", "s1=10.0.0.1:80,backup", "s1=10.0.0.1:80,maxconn=5", "s1=10.0.0.1:80,id=x"]
        {
            assert_eq!(changes(&["s1=10.0.0.1:80"], &[new]), Err("s1".into()), "{new}");
        }
    }
}
