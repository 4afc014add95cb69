//! What the operator does to servers. Each change is made, then written down, so that it survives a restart; if it cannot
//! be, it holds all the same, and the answer says so.

use std::time::Duration;

use super::Desk;
use super::command::{own_name, server_text, weight};
use super::report::ServerDetail;
use crate::config::{ServerConfig, fast_path, servers};
use crate::intent::Flag;
use crate::log::{self, counted};
use crate::server::{Operator, Server};

impl Desk {
    pub(super) async fn set_server(&self, name: &str, state: &str) -> Result<String, String> {
        let place = self.place(name)?;
        let wish = Operator::from_word(state)
            .ok_or_else(|| format!("there is no state {state:?}; write ready, drain or maint"))?;
        let (servers, server) = (&self.service.servers, &self.service.servers[place]);
        if server.operator() != wish {
            servers.set_operator(place, wish);
            log::info(format_args!("server {} is set to {state} by the operator", server.name));
        }
        // Also when it is so already: from now on it is what was said, whatever the flags come to say.
        let complaint = self.written(server, self.ledger.wish(&server.name, wish));
        let said =
            format!("server {} is set to {state}; it is {} now\n", server.name, server.state().as_str());
        if wish == Operator::Ready {
            return Ok(said + &complaint);
        }
        let detail = ServerDetail::of(self, place).await;
        Ok(said + &complaint + &detail.what_points_there())
    }

    pub(super) fn set_weight(&self, name: &str, text: &str) -> Result<String, String> {
        let place = self.place(name)?;
        let (servers, server) = (&self.service.servers, &self.service.servers[place]);
        let (before, weight) = (server.weight(), weight(text, server.initial_weight)?);
        self.ledger.check_that_it_is_ours().map_err(|error| log::chain(&error))?;
        let mut complaint = String::new();
        if before != weight {
            servers.set_weight(place, weight);
            log::info(format_args!(
                "server {} has weight {weight} (was {before}) by the operator",
                server.name
            ));
            complaint = self.written(server, self.ledger.weigh(&server.name, weight));
        }
        Ok(format!(
            "server {} has weight {weight} (initial {})\n{complaint}",
            server.name, server.initial_weight
        ))
    }

    pub(super) fn get_weight(&self, name: &str) -> Result<String, String> {
        let server = &self.service.servers[self.place(name)?];
        Ok(format!("{} (initial {})\n", server.weight(), server.initial_weight))
    }

    pub(super) fn add_server(&self, words: &[&str]) -> Result<String, String> {
        let config = &self.service.config;
        let text = server_text(words, &config.name)?;
        let settings = servers::one(&text, &self.ledger.all_settings(), &self.listen, &config.persist)?;
        if let Some(datapath) = &config.datapath {
            fast_path::fits_direct(datapath, &self.listen, &settings)?;
        }
        let identity = self.ledger.enter(&settings).map_err(|error| log::chain(&error))?;
        let wish = if settings.disabled { Operator::Maint } else { Operator::Ready };
        let server = Server::configured(settings.clone(), identity).with_operator(wish);
        let place = self.service.servers.add(server).map_err(|error| error.to_string())?;
        let server = &self.service.servers[place];
        let is_flag = config.servers.contains(&settings);
        let flag = config.servers.iter().find(|flag| flag.name == settings.name).map(Flag::of);
        log::info(format_args!("server {} at {} is added by the operator", server.name, settings.location()));
        let complaint =
            self.written(server, self.ledger.added(settings, &text, flag.filter(|_| !is_flag), is_flag));
        self.names.follow(place, Duration::ZERO, false);
        Ok(format!("server {} is added; it is {} now\n{complaint}", server.name, server.state().as_str()))
    }

    pub(super) fn del_server(&self, name: &str, force: bool) -> Result<String, String> {
        let place = self.place(name)?;
        let (servers, server) = (&self.service.servers, &self.service.servers[place]);
        let (name, connections) = (server.name.as_str(), self.service.servers.connections(&server.name));
        if !force && server.operator() != Operator::Maint {
            return Err(format!(
                "server {name} is not in maint; say set server {name} maint before, or force after"
            ));
        }
        if !force && connections > 0 {
            return Err(format!(
                "server {name} has {connections} connections; wait, or say shutdown sessions server {name} before, or \
                 force after"
            ));
        }
        self.ledger.check_that_it_is_ours().map_err(|error| log::chain(&error))?;
        servers.retire(place);
        log::info(format_args!("server {name} is deleted by the operator, with {connections} connections"));
        let flag = self.service.config.servers.iter().find(|flag| flag.name == name);
        let complaint = self.written(server, self.ledger.deleted(name, flag.map(ServerConfig::location)));
        let left = match servers.len() {
            0 => ", and no other is left".to_owned(),
            _ => String::new(),
        };
        Ok(format!("server {name} is deleted{left}\n{complaint}"))
    }

    pub(super) fn shutdown_sessions(&self, name: &str) -> Result<String, String> {
        let place = self.place(name)?;
        let server = &self.service.servers[place];
        let ended = self.service.servers.end_sessions_of(&server.name);
        let slow = counted(ended.slow, "connection");
        let what = format!("{slow} of the proxy and {} of the fast path ended", ended.fast);
        log::info(format_args!("server {}: {what} by the operator", server.name));
        Ok(format!("server {}: {what}\n", server.name))
    }

    /// The place of the server of that name, with or without the backend's before it.
    pub(super) fn place(&self, name: &str) -> Result<usize, String> {
        let servers = &self.service.servers;
        servers.by_name(own_name(name, &self.service.config.name)).ok_or_else(|| {
            let names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
            let there_are = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("there is no server {name:?}; there are: {there_are}")
        })
    }

    /// What is to be said when a change cannot be written down.
    pub(super) fn written(&self, server: &Server, outcome: anyhow::Result<()>) -> String {
        match outcome {
            Ok(()) => String::new(),
            Err(error) => {
                let error = log::chain(&error);
                log::warn(format_args!("server {}: what was changed {error}", server.name));
                format!("warning: this {error}\n")
            }
        }
    }
}
