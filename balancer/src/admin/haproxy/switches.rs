//! `enable` and `disable` of what is not a server: its checks, the agents that there are not, the frontend.

use crate::admin::Desk;
use crate::admin::command::own_name;
use crate::log;

/// What was asked for, in HAProxy's words where it is refused. `None`: it is none of these.
pub(super) fn switch(desk: &Desk, on: bool, words: &[&str]) -> Option<Result<String, String>> {
    let (what, name) = match *words {
        [what] => (what, None),
        [what, name] => (what, Some(name)),
        _ => return None,
    };
    match what {
        "health" => Some(health(desk, on, name)),
        "agent" => Some(agent(desk, on, name)),
        "frontend" => Some(frontend(desk, on, name)),
        _ => None,
    }
}

fn health(desk: &Desk, on: bool, name: Option<&str>) -> Result<String, String> {
    let server = &desk.service.servers[place(desk, name)?];
    if desk.service.config.health.look().check.is_none() {
        return match on {
            true => Err("Health check was not configured on this server, cannot enable.".to_owned()),
            false => Ok(format!("server {} is not checked, with --check none\n", server.name)),
        };
    }
    if server.checks.are_on() != on {
        // What has gone wrong meanwhile was to say nothing.
        server.marks.clear();
        server.checks.switch(on);
        let news = if on { "is checked again" } else { "is not checked any more" };
        log::info(format_args!("server {} {news}, by the operator", server.name));
    }
    let (name, state) = (&server.name, server.state().as_str());
    Ok(match on {
        true => format!("server {name} is checked; it is {state} now\n"),
        false => format!(
            "server {name} is not checked until enable health {name} or the end of the process; it stays {state}\n"
        ),
    })
}

fn agent(desk: &Desk, on: bool, name: Option<&str>) -> Result<String, String> {
    let server = &desk.service.servers[place(desk, name)?];
    match on {
        true => Err("Agent was not configured on this server, cannot enable.".to_owned()),
        false => Ok(format!("server {} has no agent\n", server.name)),
    }
}

/// It accepts for as long as the process lives.
fn frontend(desk: &Desk, on: bool, name: Option<&str>) -> Result<String, String> {
    let own = &desk.service.config.name;
    match name {
        None => Err("A frontend name is expected.".to_owned()),
        Some(name) if name != own => Err("No such frontend.".to_owned()),
        Some(_) if on => Err("All sockets are already enabled.".to_owned()),
        Some(_) => Err(format!(
            "frontend {own} accepts for as long as the process lives; TERM drains it, and set server S drain|maint \
             takes servers out"
        )),
    }
}

fn place(desk: &Desk, name: Option<&str>) -> Result<usize, String> {
    let name = name.ok_or("Require 'backend/server'.")?;
    let own = own_name(name, &desk.service.config.name);
    desk.service.servers.by_name(own).ok_or_else(|| match own.contains('/') {
        true => "No such backend.".to_owned(),
        false => "No such server.".to_owned(),
    })
}
