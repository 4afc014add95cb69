//! The fast path end to end: real XDP on real veth pairs, real nginx, and the invariants of the design.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

mod dns;
mod families;
mod path_errors;
mod site;
mod stories;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;
use site::{
    BALANCER, Forward, PATIENCE, SOURCE_FIRST, Site, Visit, all_flags, pins, start, start_servers, trial,
};
use xtask::lab::http::{self, Connection};
use xtask::lab::{Lab, wait_until};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![
        trial("a_known_client_goes_past_the_proxy_and_others_do_not", || {
            stories::known_and_unknown(Forward::Nat)
        }),
        trial("a_frozen_process_serves_the_known_and_only_them", frozen),
        trial("kill_9_and_restart_keep_affinities_and_connections", || {
            stories::kill_and_restart(Forward::Nat)
        }),
        trial("a_download_survives_kill_9_whole", || stories::download_survives_kill(Forward::Nat)),
        trial("no_known_client_is_refused_while_the_process_crashes_and_starts", crash_under_load),
        trial("drain_keeps_users_and_maint_moves_them", || stories::drain_and_maint(Forward::Nat)),
        trial("a_dead_server_loses_its_users_to_another_one_once", || stories::dead_server(Forward::Nat)),
        trial("live_flows_survive_drain", || stories::live_flow_survives_drain(Forward::Nat)),
        trial("a_client_with_transmit_offload_is_served_by_the_proxy", transmit_offload),
        trial("parallel_first_connections_all_complete", parallel_first_connections),
        trial("a_client_behind_another_proxy_is_never_fast", behind_a_proxy),
        trial("two_users_behind_one_address_make_it_ambiguous", two_users_one_address),
        trial("exclusive_keeps_sending_some_through_the_proxy", exclusive),
        trial("auto_is_off_when_the_cookie_comes_first", auto_with_cookie_first),
        trial("entries_follow_names_when_servers_are_reordered", reordered_servers),
        trial("a_new_address_of_a_server_is_a_new_generation", new_address),
        trial("a_stop_leaves_running_connections_and_opens_no_new_ones", clean_stop),
        trial("detach_leaves_nothing_behind", detach),
        trial("two_services_share_the_program_and_do_not_notice_each_other", two_services),
        trial("a_failed_start_leaves_nothing_behind", failed_start),
        trial("a_second_instance_of_the_same_name_is_refused", second_instance),
        trial("finished_flows_are_collected", collected),
        trial("a_wildcard_listen_does_not_capture_transit_traffic", wildcard),
        trial("operators_intent_survives_kill_9", intent_survives),
        trial("a_server_that_was_down_is_sent_nobody_after_kill_9", health_survives),
        trial("a_changed_address_of_ours_is_followed", own_address_changes),
        trial("a_start_that_fails_does_not_disturb_what_a_crash_left", failed_start_after_crash),
        trial("detach_by_force_takes_an_adopted_program_off", force_after_adoption),
        trial("flows_of_an_interface_that_was_made_anew_are_gone", recreated_interface),
        trial("a_half_closed_request_waits_for_its_answer", half_closed_request),
        trial("a_denied_client_is_served_on_neither_path", denied),
        trial("a_deny_list_that_is_read_again_holds_on_both_paths", denied_from_a_hup_on),
        trial("tcp_mode_is_fast_for_known_clients", tcp_mode),
        trial("servers_that_come_and_go_at_run_time_are_on_both_paths", servers_come_and_go),
        trial("a_server_whose_name_moves_takes_its_users_along", a_name_that_moves),
        trial("a_known_client_of_ipv6_goes_past_the_proxy", families::known_and_unknown),
        trial("a_download_over_ipv6_survives_kill_9_whole", families::download_survives_kill),
        trial("ipv4_and_ipv6_are_served_side_by_side_and_do_not_mix", families::side_by_side),
        trial("an_excluded_client_of_ipv6_is_always_the_proxys", families::excluded),
        trial("no_path_over_ipv6_is_told_of_larger_segments_than_mss_says", families::segments),
    ];
    trials.extend(path_errors::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

fn frozen() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    site.daemon.child.signal(Signal::SIGSTOP)?;
    let known = site.visit(0, &[])?;
    ensure!(known.fast && known.server == home);
    let mut stranger = site.connect(1)?;
    stranger.stream().set_read_timeout(Some(Duration::from_secs(1)))?;
    ensure!(stranger.get("/", &[]).is_err(), "an unknown client was served by a frozen proxy");
    site.daemon.child.signal(Signal::SIGCONT)?;
    Ok(())
}

fn crash_under_load() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let (ns, to, source) =
        (site.lab.client().ns.clone(), site.lab.client().gateway_at(80), Some(site.address(0)));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let client = scope.spawn(|| -> Result<(u64, Vec<String>)> {
            let (mut visits, mut slow) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match http::get(&ns, source, to, "/", &[]) {
                    Ok(answer) => {
                        let visit = Visit::of(&answer)?;
                        ensure!(visit.server == home, "{visit:?}");
                        slow.extend((!visit.fast).then(|| format!("{visit:?}")));
                    }
                    // It was the host's, where nobody listens meanwhile.
                    Err(error) => slow.push(format!("{error:#}")),
                }
                visits += 1;
            }
            Ok((visits, slow))
        });
        for _ in 0..3 {
            site.daemon.kill();
            site.daemon.restart()?;
        }
        stop.store(true, Ordering::Relaxed);
        let (visits, slow) = client.join().expect("the thread")?;
        ensure!(visits > 10, "only {visits} visits: nothing was tried");
        // In thousands of visits the client comes back to the port of its first one, which the stack still remembers, or to
        // one whose flow is ending.
        let excused = site.daemon.counter("pass_socket_exists")? + site.daemon.counter("pass_flow_ending")?;
        ensure!(
            slow.len() as u64 <= excused,
            "of {visits} visits these did not go past the proxy, {excused} of them for their port: {slow:?}"
        );
        Ok(())
    })
}

fn transmit_offload() -> Result<()> {
    let site = Site::open_in(&Lab::star().keep_offloads(), SOURCE_FIRST)?;
    site.introduce(0)?;
    let visit = site.visit(0, &[])?;
    ensure!(!visit.fast, "{visit:?}");
    ensure!(site.daemon.counter("pass_unfinished_checksum")? > 0);
    Ok(())
}

/// Browsers open six connections at once; the first answer teaches the affinity while the others are being opened.
fn parallel_first_connections() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    for round in 0..20 {
        let key = site.address(0).to_string();
        let servers = std::thread::scope(|scope| {
            let visits: Vec<_> =
                (0..6).map(|_| scope.spawn(|| site.visit(0, &[]).map(|visit| visit.server))).collect();
            visits.into_iter().map(|visit| visit.join().expect("the thread")).collect::<Result<Vec<_>>>()
        })
        .with_context(|| format!("round {round}"))?;
        ensure!(servers.iter().all(|server| *server == servers[0]), "one client, two servers: {servers:?}");
        ensure!(site.daemon.affinity("source", &key)?.as_ref() == Some(&servers[0]));
    }
    Ok(())
}

fn behind_a_proxy() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.visit(0, &[("X-Forwarded-For", "192.0.2.1")])?.server;
    site.wait_until_learned(0, &home)?;
    let visit = site.visit(0, &[])?;
    ensure!(!visit.fast && visit.server == home, "{visit:?}");
    ensure!(site.daemon.counter("pass_ambiguous")? > 0);
    let entry = site.daemon.entry("source", &site.address(0).to_string())?.context("an entry")?;
    ensure!(entry["ambiguous"] == true, "{entry}");
    Ok(())
}

fn two_users_one_address() -> Result<()> {
    let flags = ["--persist", "cookie=SRV,insert", "--persist", "source", "--fast-path", "always"];
    let site = Site::open(&flags)?;
    let home = site.introduce(0)?;
    // Until somebody else is seen the address is fast, so the second user has to come in while it is not: through a
    // server that drains.
    site.daemon.set_server(&home, "drain")?;
    let other = site.other(&home).to_owned();
    let second = site.visit(0, &[("Cookie", &format!("SRV={other}"))])?;
    ensure!(second.server == other, "the cookie decides");
    site.daemon.set_server(&home, "ready")?;
    wait_until(PATIENCE, "the address to be ambiguous", || {
        let entry = site.daemon.entry("source", &site.address(0).to_string());
        entry.is_ok_and(|entry| entry.is_some_and(|entry| entry["ambiguous"] == true))
    })?;
    for server in [&home, &other] {
        let visit = site.visit(0, &[("Cookie", &format!("SRV={server}"))])?;
        ensure!(!visit.fast && visit.server == *server, "each user stays with their server: {visit:?}");
    }
    Ok(())
}

fn exclusive() -> Result<()> {
    let flags = [
        "--persist",
        "cookie=SRV,insert",
        "--persist",
        "source",
        "--fast-path",
        "exclusive",
        "--verify-share",
        "2",
    ];
    let site = Site::open(&flags)?;
    let home = site.introduce(0)?;
    let cookie = format!("SRV={home}");
    // A client that comes back to the port of an earlier connection meets that one's TIME_WAIT, and its server.
    let passed =
        || anyhow::Ok(site.daemon.counter("pass_sampled")? + site.daemon.counter("pass_socket_exists")?);
    let before = passed()?;
    let mut fast = 0;
    for _ in 0..40 {
        let visit = site.visit(0, &[("Cookie", &cookie)])?;
        ensure!(visit.server == home);
        fast += u32::from(visit.fast);
    }
    ensure!((5..=35).contains(&fast), "{fast} of 40 with a share of 2");
    ensure!(passed()? - before == u64::from(40 - fast));
    Ok(())
}

fn auto_with_cookie_first() -> Result<()> {
    let site = Site::open(&["--persist", "cookie=SRV,insert", "--persist", "source"])?;
    site.introduce(0)?;
    ensure!(!site.visit(0, &[])?.fast);
    ensure!(site.daemon.counter("pass_fast_path_off")? > 0);
    let log = site.daemon.log();
    ensure!(
        log.lines().filter(|line| line.contains("fast path") && line.contains("off")).count() == 1,
        "{log}"
    );
    Ok(())
}

fn reordered_servers() -> Result<()> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = start_servers(&lab)?;
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let Site { daemon, servers, lab } = site;
    daemon.kill();
    let mut flags = all_flags(&lab, 80, SOURCE_FIRST);
    let places: Vec<_> =
        flags.iter().enumerate().filter(|(_, f)| f.starts_with("s1=") || f.starts_with("s2=")).collect();
    let (first, second) = (places[0].0, places[1].0);
    flags.swap(first, second);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let site = Site { daemon, servers, lab };
    for (client, home) in homes.iter().enumerate() {
        let visit = site.visit(client, &[])?;
        ensure!(visit.fast && visit.server == *home, "{visit:?}");
    }
    Ok(())
}

fn new_address() -> Result<()> {
    let lab = Lab::star().client_addresses(3).servers(1).build()?;
    let servers = start_servers(&lab)?;
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    site.introduce(0)?;
    let Site { daemon, servers, lab } = site;
    daemon.kill();
    drop(servers);
    let host = lab.server(1);
    let servers = vec![xtask::lab::nginx::Nginx::start(&host.ns, host.at(8081), "s1")?];
    let moved = format!("s1={}", host.at(8081));
    let flags = all_flags(&lab, 80, SOURCE_FIRST);
    let flags: Vec<&str> =
        flags.iter().map(|f| if f.starts_with("s1=") { moved.as_str() } else { f.as_str() }).collect();
    let daemon = xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let site = Site { daemon, servers, lab };
    let first = site.visit(0, &[])?;
    ensure!(!first.fast && first.server == "s1", "the slow path matches by name: {first:?}");
    ensure!(site.daemon.counter("pass_generation")? == 1);
    wait_until(PATIENCE, "the entry to be re-pointed", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    Ok(())
}

fn clean_stop() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    site.daemon.child.signal(Signal::SIGTERM)?;
    let status = site.daemon.child.wait(PATIENCE)?;
    ensure!(status.success(), "{status}: {}", site.daemon.log());
    ensure!(
        Visit::of(&kept.get("/", &[])?)?.server == home,
        "a running fast connection outlives the process"
    );
    ensure!(site.connect(0).is_err(), "nothing listens, and nothing new is fast");
    site.daemon.restart()?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home);
    let back = site.visit(0, &[])?;
    ensure!(back.fast && back.server == home, "{back:?}");
    Ok(())
}

fn detach() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    site.introduce(0)?;
    let balancer = |words: &[&str]| site.lab.balancer.command(BALANCER).args(words).output(PATIENCE);
    let refused = balancer(&["detach", "--name", "web"])?;
    ensure!(refused.status.code() == Some(1) && refused.stderr.contains("running"), "{refused:?}");
    ensure!(balancer(&["detach", "--name", "nobody"])?.status.code() == Some(1));
    site.daemon.child.signal(Signal::SIGTERM)?;
    site.daemon.child.wait(PATIENCE)?;
    ensure!(site.pins().exists(), "a stop keeps the pins");
    let done = balancer(&["detach", "--name", "web"])?;
    ensure!(done.status.success(), "{done:?}");
    ensure!(!site.pins().exists(), "pins are left");
    let link = site.lab.balancer.output("ip", &["link", "show", "dev", "c1"])?;
    ensure!(!link.contains("xdp"), "{link}");
    site.daemon.restart()?;
    site.wait_until_checked(&site.daemon)?;
    ensure!(!site.visit(0, &[])?.fast, "what was learned went with the pins");
    Ok(())
}

fn two_services() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let second = start(&site.lab, "other", 81, SOURCE_FIRST)?;
    site.wait_until_checked(&second)?;
    let at_second = site.lab.client().gateway_at(81);
    let ns = site.lab.client().ns.clone();
    let home = site.introduce(0)?;
    let first = Visit::of(&http::get(&ns, None, at_second, "/", &[])?)?;
    ensure!(!first.fast, "what one service has learned is not the other's");
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    second.kill();
    drop(second);
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home);
    let done = site.lab.balancer.command(BALANCER).args(["detach", "--name", "other"]).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    ensure!(
        Visit::of(&kept.get("/", &[])?)?.server == home,
        "the other service's detach cut this connection"
    );
    ensure!(site.visit(0, &[])?.fast);
    Ok(())
}

fn failed_start() -> Result<()> {
    let lab = Lab::star().build()?;
    let mut flags = all_flags(&lab, 80, SOURCE_FIRST);
    flags.extend(["--xdp".to_owned(), "nonsense0".to_owned()]);
    let admin = lab.balancer.fresh_path("admin.sock");
    let run =
        lab.balancer.command(BALANCER).args(["run", "--name", "web", "--admin"]).arg(&admin).args(&flags);
    let output = run.output(PATIENCE)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let errors: Vec<_> = output.stderr.lines().filter(|line| line.contains("nonsense0")).collect();
    ensure!(errors.len() == 1, "{output:?}");
    ensure!(!pins(&lab).exists(), "pins are left");
    ensure!(!admin.exists(), "the socket is left");
    let links = lab.balancer.output("ip", &["link", "show"])?;
    ensure!(!links.contains("xdp"), "{links}");
    Ok(())
}

fn second_instance() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let flags = all_flags(&site.lab, 82, SOURCE_FIRST);
    let elsewhere = site.lab.balancer.fresh_path("elsewhere.sock");
    let run = site.lab.balancer.command(BALANCER).args(["run", "--name", "web", "--admin"]).arg(&elsewhere);
    let output = run.args(&flags).output(PATIENCE)?;
    ensure!(output.status.code() == Some(1) && output.stderr.contains("web"), "{output:?}");
    let home = site.introduce(0)?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "the first one is not disturbed");
    Ok(())
}

fn collected() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    site.introduce(0)?;
    // The client closes first, so nothing has to rest.
    for _ in 0..20 {
        ensure!(site.visit(0, &[])?.fast);
    }
    let entries = || -> usize {
        let pinned = site.pins().join("FLOWS");
        let map = aya::maps::MapData::from_pin(pinned).expect("the flow table");
        let map: aya::maps::HashMap<_, balancer_ebpf::abi::FlowKey, balancer_ebpf::abi::Flow> =
            aya::maps::Map::HashMap(map).try_into().expect("its shape");
        map.keys().count()
    };
    ensure!(entries() >= 2, "nothing was ever there");
    wait_until(Duration::from_secs(90), "the flow table to be empty", || entries() == 0)
}

fn wildcard() -> Result<()> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = start_servers(&lab)?;
    let mut flags = all_flags(&lab, 8080, SOURCE_FIRST);
    for flag in &mut flags {
        if *flag == lab.client().gateway_at(8080).to_string() {
            *flag = "0.0.0.0:8080".to_owned();
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    let (ns, front) = (site.lab.client().ns.clone(), site.lab.client().gateway_at(8080));
    let home = Visit::of(&http::get(&ns, None, front, "/", &[])?)?.server;
    site.wait_until_learned(0, &home)?;
    ensure!(Visit::of(&http::get(&ns, None, front, "/", &[])?)?.fast);
    let other = if home == "s1" { 2 } else { 1 };
    let direct = Visit::of(&http::get(&ns, None, site.lab.server(other).at(8080), "/", &[])?)?;
    let untouched = direct.server != home && direct.peer.ip() == site.address(0);
    ensure!(untouched, "traffic for a server was captured: {direct:?}");
    Ok(())
}

fn intent_survives() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    site.daemon.set_server("s2", "drain")?;
    site.daemon.kill();
    site.daemon.restart()?;
    ensure!(site.daemon.server("s2")?["state"] == "drain");
    for client in 0..3 {
        ensure!(site.visit(client, &[])?.server == "s1");
    }
    Ok(())
}

/// A server that takes connections and says nothing, so that the first check after the start takes its time.
fn health_survives() -> Result<()> {
    let lab = Lab::star().build()?;
    let servers = start_servers(&lab)?;
    let start = |port| {
        let (listen, at) = (lab.client().gateway_at(80).to_string(), lab.server(2).at(port));
        let (first, second) = (format!("s1={}", lab.server(1).at(8080)), format!("s2={at}"));
        let flags = format!(
            "--listen {listen} --server {first} --server {second} --check http=/13 --check-interval 100ms \
             --check-timeout 3s --check-fall 1 --check-rise 3"
        );
        let flags: Vec<_> = flags.split(' ').collect();
        xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)
    };
    let health = |daemon: &xtask::lab::Daemon, name: &str| -> Result<String> {
        Ok(daemon.server(name)?["health"].as_str().unwrap_or_default().to_owned())
    };
    let wait_for = |daemon: &xtask::lab::Daemon, name: &str, wanted: &str| {
        wait_until(PATIENCE, &format!("{name} to be {wanted}"), || {
            health(daemon, name).is_ok_and(|found| found == wanted)
        })
    };
    let mut daemon = start(8080)?;
    wait_for(&daemon, "s2", "up")?;
    servers[1].child.signal(Signal::SIGSTOP)?;
    wait_for(&daemon, "s2", "down")?;
    daemon.kill();
    daemon.restart()?;
    ensure!(health(&daemon, "s2")? == "down", "nobody has looked yet");
    for _ in 0..4 {
        let visit = http::get(&lab.client().ns, None, lab.client().gateway_at(80), "/", &[])?;
        ensure!(Visit::of(&visit)?.server == "s1");
    }
    servers[1].child.signal(Signal::SIGCONT)?;
    wait_for(&daemon, "s2", "up")?;
    ensure!(daemon.log().contains("server s2 is up: a check is well; 2 of 2 left"), "{}", daemon.log());
    servers[1].child.signal(Signal::SIGSTOP)?;
    wait_for(&daemon, "s2", "down")?;
    daemon.kill();
    // Of another address nothing is known.
    let host = lab.server(2);
    let other = xtask::lab::nginx::Nginx::start(&host.ns, host.at(8081), "s2")?;
    other.child.signal(Signal::SIGSTOP)?;
    let daemon = start(8081)?;
    ensure!(health(&daemon, "s2")? == "unknown", "{}", health(&daemon, "s2")?);
    other.child.signal(Signal::SIGCONT)?;
    wait_for(&daemon, "s2", "up")
}

fn servers_come_and_go() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let other = site.other(&home).to_owned();
    ensure!(site.visit(0, &[])?.fast);
    site.operator(&["del", "server", &home, "--force"])?;
    let moved = site.visit(0, &[])?;
    ensure!(!moved.fast && moved.server == other, "its entry is a miss on both paths: {moved:?}");
    site.wait_until_learned(0, &other)?;
    ensure!(site.visit(0, &[])?.fast);
    // The same process, under another name.
    let at = site.lab.server(if home == "s1" { 1 } else { 2 }).at(8080);
    site.operator(&["add", "server", &format!("late={at}")])?;
    site.operator(&["set", "server", &other, "drain"])?;
    ensure!(site.visit(1, &[])?.server == home);
    site.wait_until_learned(1, "late")?;
    site.operator(&["set", "server", &other, "ready"])?;
    for round in ["before the crash", "after it"] {
        for (client, server) in [(0, &other), (1, &home)] {
            let visit = site.visit(client, &[])?;
            ensure!(visit.fast && visit.server == *server, "{round}: {visit:?}");
        }
        site.daemon.kill();
        site.daemon.restart()?;
        ensure!(site.daemon.show(&["servers"])?.as_array().is_some_and(|rows| rows.len() == 2));
    }
    Ok(())
}

fn a_name_that_moves() -> Result<()> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = start_servers(&lab)?;
    let at = |n: usize| lab.server(n).at(8080).ip().to_string();
    let socket = lab.balancer.run(|| std::net::UdpSocket::bind("127.0.0.1:0"))??;
    let resolver = socket.local_addr()?.to_string();
    let dns = dns::Dns::on(socket, dns::are(&[&at(1)]));
    let mut flags = all_flags(&lab, 80, SOURCE_FIRST);
    let first = flags.iter().position(|flag| flag.starts_with("s1=")).context("a server")?;
    flags[first] = "app=app.example:8080".to_owned();
    let second = flags.iter().position(|flag| flag.starts_with("s2=")).context("a server")?;
    flags.drain(second - 1..=second);
    flags.extend(["--resolver".to_owned(), resolver]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let addresses = [at(1), at(2)];
    let site = Site { daemon, servers, lab };
    ensure!(site.visit(0, &[])?.server == "s1");
    site.wait_until_learned(0, "app")?;
    let mut kept = site.connect(0)?;
    let before = Visit::of(&kept.get("/", &[])?)?;
    ensure!(before.fast && before.server == "s1", "{before:?}");
    dns.say_from_now_on(dns::are(&[&addresses[1]]));
    wait_until(PATIENCE, "the server to move", || {
        site.daemon.server("app").is_ok_and(|row| row["generation"] == 2)
    })?;
    let moved = site.visit(0, &[])?;
    ensure!(!moved.fast && moved.server == "s2", "the slow path matches by name: {moved:?}");
    wait_until(PATIENCE, "the entry to be re-pointed", || site.visit(0, &[]).is_ok_and(|visit| visit.fast))?;
    ensure!(site.visit(0, &[])?.server == "s2");
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == "s1", "a live flow never moves");
    Ok(())
}

fn own_address_changes() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let number: usize = home[1..].parse()?;
    let host = site.lab.server(number);
    let fast = |at: &str| -> Result<bool> {
        let mut connection = site.connect(0)?;
        connection.stream().set_read_timeout(Some(Duration::from_secs(1)))?;
        let visit = Visit::of(&connection.get("/", &[])?)?;
        Ok(visit.fast && site.daemon.show(&["flows"])?.to_string().contains(at))
    };
    ensure!(fast(&format!("\"{}:", host.gateway))?);
    // The server answers through its gateway, which has another address from now on.
    let (old, new) = (format!("{}/24", host.gateway), format!("10.20.{number}.9/24"));
    let new_gateway = format!("10.20.{number}.9");
    site.lab.balancer.output("ip", &["addr", "add", &new, "dev", &host.interface])?;
    site.lab.balancer.output("ip", &["addr", "del", &old, "dev", &host.interface])?;
    site.lab.balancer.output("ip", &["addr", "add", &new, "dev", &host.interface]).ok();
    host.ns.output("ip", &["route", "replace", "default", "via", &new_gateway])?;
    wait_until(PATIENCE, "the new address to be used", || fast(&format!("\"{new_gateway}:")).unwrap_or(false))
}

fn failed_start_after_crash() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    site.daemon.kill();
    let squatter =
        site.lab.balancer.run(|| std::net::TcpListener::bind(site.lab.client().gateway_at(80)))??;
    // A server at another address, too: a start that fails must not make a new generation of it.
    let flags = all_flags(&site.lab, 80, SOURCE_FIRST);
    let flags: Vec<String> = flags.iter().map(|flag| flag.replace(":8080", ":8081")).collect();
    let admin = site.lab.balancer.fresh_path("failed.sock");
    let run = site.lab.balancer.command(BALANCER).args(["run", "--name", "web", "--admin"]).arg(&admin);
    let output = run.args(&flags).output(PATIENCE)?;
    ensure!(output.status.code() == Some(1) && output.stderr.contains("in use"), "{output:?}");
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    drop(squatter);
    site.daemon.restart()?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    ensure!(site.daemon.counter("pass_generation")? == 0);
    Ok(())
}

fn force_after_adoption() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    site.daemon.kill();
    site.daemon.restart()?;
    let done =
        site.lab.balancer.command(BALANCER).args(["detach", "--name", "web", "--force"]).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    wait_until(PATIENCE, "the program to be gone", || {
        let link = site.lab.balancer.output("ip", &["link", "show", "dev", "c1"]);
        link.is_ok_and(|link| !link.contains("xdp"))
    })?;
    ensure!(!site.visit(0, &[])?.fast, "the proxy serves everything");
    Ok(())
}

fn recreated_interface() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let rows = || -> Result<usize> { Ok(site.daemon.show(&["flows"])?.as_array().map_or(0, Vec::len)) };
    ensure!(rows()? == 1);
    let client = &site.lab.client().ns;
    site.lab.balancer.output("ip", &["link", "del", "dev", "c1"])?;
    site.lab.balancer.output("ip", &["link", "add", "c1", "type", "veth", "peer", "name", "c1x"])?;
    site.lab.balancer.output("ip", &["link", "set", "c1x", "netns", client.name()])?;
    site.lab.balancer.output("ip", &["addr", "add", "10.10.1.1/24", "dev", "c1"])?;
    site.lab.balancer.output("ip", &["link", "set", "c1", "up"])?;
    let second = start(&site.lab, "other", 81, SOURCE_FIRST)?;
    ensure!(rows()? == 0, "a flow of the old interface is still there");
    drop(second);
    Ok(())
}

fn denied() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let Site { daemon, servers, lab } = site;
    daemon.kill();
    let denied = lab.client().addresses[0].to_string();
    let with_deny = |deny: &[&str]| start(&lab, "web", 80, &[SOURCE_FIRST, deny].concat());
    let daemon = with_deny(&["--deny", "192.0.2.0/24", "--deny", &denied])?;
    let refused = |expected: u64| -> Result<()> {
        let visit = http::get(
            &lab.client().ns,
            Some(lab.client().addresses[0]),
            lab.client().gateway_at(80),
            "/",
            &[],
        );
        ensure!(visit.is_err(), "a denied client was served: {visit:?}");
        ensure!(daemon.counter("pass_denied")? == expected && daemon.show(&["info"])?["denied"] == expected);
        Ok(())
    };
    refused(1)?;
    refused(2)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "a running fast connection is not cut");
    let site = Site { daemon, servers, lab };
    let other = site.visit(1, &[])?;
    ensure!(other.fast && other.server == homes[1], "{other:?}");
    // Nothing of it is left when the list is gone.
    let Site { daemon, servers, lab } = site;
    daemon.kill();
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let site = Site { daemon, servers, lab };
    let again = site.visit(0, &[])?;
    ensure!(again.fast && again.server == homes[0], "{again:?}");
    Ok(())
}

fn denied_from_a_hup_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("deny");
    std::fs::write(&list, "192.0.2.0/24\n")?;
    let flag = format!("@{}", list.display());
    let site = Site::open(&[SOURCE_FIRST, &["--deny", &flag]].concat())?;
    let homes = [site.introduce(0)?, site.introduce(1)?];
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    let hang_up = |text: &str, said: &str| -> Result<()> {
        std::fs::write(&list, text)?;
        let before = site.daemon.log().matches("HUP: ").count();
        site.daemon.child.signal(Signal::SIGHUP)?;
        wait_until(PATIENCE, "a word about the HUP", || site.daemon.log().matches("HUP: ").count() > before)?;
        let log = site.daemon.log();
        ensure!(
            log.lines().rfind(|line| line.contains("HUP: ")).is_some_and(|line| line.contains(said)),
            "{log}"
        );
        Ok(())
    };
    hang_up(&format!("{}\n", site.address(0)), "counts from now on: --deny")?;
    for refused in 1..=2 {
        let visit = site.visit(0, &[]);
        ensure!(visit.is_err(), "a denied client was served: {visit:?}");
        ensure!(site.daemon.counter("pass_denied")? == refused, "XDP has not seen it");
    }
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == homes[0], "a running fast connection is not cut");
    let other = site.visit(1, &[])?;
    ensure!(other.fast && other.server == homes[1], "{other:?}");
    // What cannot be read changes nothing.
    hang_up("nonsense\n", "nothing is changed: --deny")?;
    ensure!(site.visit(0, &[]).is_err() && site.visit(1, &[])?.fast);
    hang_up("", "counts from now on: --deny")?;
    let again = site.visit(0, &[])?;
    ensure!(again.fast && again.server == homes[0], "{again:?}");
    Ok(())
}

fn tcp_mode() -> Result<()> {
    let site = Site::open(&["--mode", "tcp", "--persist", "source"])?;
    let home = site.introduce(0)?;
    let known = site.visit(0, &[])?;
    ensure!(known.fast && known.server == home, "{known:?}");
    ensure!(!site.visit(1, &[])?.fast);
    Ok(())
}

/// nginx gives up on a client that has closed its half, so this server is our own: it thinks about `/think` for longer
/// than a closing flow may idle.
fn half_closed_request() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let listener = lab.server(1).ns.run(|| std::net::TcpListener::bind(lab.server(1).at(8080)))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || think_and_answer(stream));
        }
    });
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let (client, front) = (&lab.client().ns, lab.client().gateway_at(80));
    http::get(client, None, front, "/", &[])?;
    wait_until(PATIENCE, "the client to be known", || {
        daemon.affinity("source", &lab.client().address().to_string()).is_ok_and(|found| found.is_some())
    })?;
    let mut connection = Connection::open(client, None, front)?;
    connection.stream().set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.send(b"GET /think HTTP/1.1\r\nHost: x\r\n\r\n")?;
    connection.stream().shutdown(std::net::Shutdown::Write)?;
    ensure!(connection.receive()?.text() == "thought");
    ensure!(daemon.counter("syn_forwarded")? == 1, "this connection was to be a fast one");
    Ok(())
}

fn think_and_answer(mut stream: std::net::TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut request = [0; 1024];
    let length = stream.read(&mut request).unwrap_or(0);
    if request[..length].starts_with(b"GET /think") {
        // The point of the test is that time passes: nothing else could be waited for.
        std::thread::sleep(Duration::from_secs(12));
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nthought");
}
