//! `show servers state`, which is also the format of HAProxy's state file, and `show servers conn`.

use std::fmt::Write;
use std::time::Instant;

use super::{BACKEND_ID, Desk};
use crate::server::{Health, Operator, Server};
use crate::stats::Since;

const STATE_HEADER: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight \
srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
srv_agent_addr srv_agent_port\n";

/// Version 1 of the format.
pub(super) fn state(desk: &Desk) -> String {
    let (servers, now, name) = (&desk.service.servers, Instant::now(), &desk.service.config.name);
    let is_checked = desk.service.config.health.look().check.is_some();
    let mut text = STATE_HEADER.to_owned();
    for (place, totals) in desk.stats.servers(Since::Start) {
        let server = &servers[place];
        let checks = server.checks.read();
        let (number, result) = match &checks.last {
            Some(last) => (last.number(), if last.word.ends_with("OK") { 3 } else { 2 }),
            // Nobody knows.
            None => (1, 0),
        };
        let since = now.saturating_duration_since(totals.availability.since).as_secs();
        let address = match server.is_unresolved() {
            true => "-".to_owned(),
            false => server.address.ip().to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{BACKEND_ID} {name} {} {} {address} {} {} {} {} {since} {number} {result} {} {} 0 0 0 {} {} - 0 0 - - 0",
            server.identity.id,
            server.name,
            operational_state(server),
            administrative_state(server),
            server.weight(),
            server.initial_weight,
            checks.health,
            // Configured, and enabled.
            match (is_checked, server.checks.are_on()) {
                (true, true) => 6,
                (true, false) => 2,
                (false, _) => 0,
            },
            server.host.as_deref().unwrap_or("-"),
            server.address.port(),
        );
    }
    text
}

/// 0 stopped, 1 starting, 2 running, 3 stopping.
fn operational_state(server: &Server) -> u8 {
    match (server.operator(), server.health()) {
        (Operator::Maint, _) | (_, Health::Down) => 0,
        _ if server.is_unresolved() => 0,
        (_, Health::Draining) => 3,
        _ => 2,
    }
}

/// Bits: 1 maintenance, 8 drain, 32 its host has no address.
fn administrative_state(server: &Server) -> u8 {
    let wish = match server.operator() {
        Operator::Ready => 0,
        Operator::Drain => 8,
        Operator::Maint => 1,
    };
    wish | if server.is_unresolved() { 32 } else { 0 }
}

/// Connections to servers; none of HAProxy's is estimated or purged here.
pub(super) fn connections(desk: &Desk) -> String {
    let (servers, name) = (&desk.service.servers, &desk.service.config.name);
    let mut text =
        "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb \
                    idle_lim idle_cur idle_per_thr[1]\n"
            .to_owned();
    for (place, totals) in desk.stats.servers(Since::Start) {
        let (server, idle) = (&servers[place], totals.counters.idle);
        // What has been needed is the best guess at what will be.
        let most = totals.in_flight.1;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name}/{} {BACKEND_ID}/{} {} {} - 0 {} {most} {most} 0 {idle} -1 {idle} {idle}",
            server.name,
            server.identity.id,
            server.address.ip(),
            server.address.port(),
            totals.in_flight.0,
        );
    }
    text
}
