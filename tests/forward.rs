//! The other ways a fast packet can travel, end to end: real XDP, real nginx, whose own access log is the witness.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[path = "forward/direct.rs"]
mod direct;
#[path = "forward/gateway.rs"]
mod gateway;
#[path = "forward/resets.rs"]
mod resets;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;
mod stories;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use site::{Forward, trial};

/// What is to hold however packets travel.
type Story = fn(Forward) -> Result<()>;

const STORIES: [(&str, Story); 6] = [
    ("a_known_client_goes_past_the_proxy_and_others_do_not", stories::known_and_unknown),
    ("kill_9_and_restart_keep_affinities_and_connections", stories::kill_and_restart),
    ("a_download_survives_kill_9_whole", stories::download_survives_kill),
    ("drain_keeps_users_and_maint_moves_them", stories::drain_and_maint),
    ("a_dead_server_loses_its_users_to_another_one_once", stories::dead_server),
    ("live_flows_survive_drain", stories::live_flow_survives_drain),
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = in_each_way();
    trials.extend(gateway::trials());
    trials.extend(direct::trials());
    trials.extend(resets::trials());
    libtest_mimic::run(&arguments, trials).exit();
}

fn in_each_way() -> Vec<Trial> {
    let ways = [Forward::Gateway, Forward::Dsr];
    let by = |forward: Forward| {
        STORIES.map(|(name, story)| trial(&format!("{name}_by_{}", forward.word()), move || story(forward)))
    };
    ways.into_iter().flat_map(by).collect()
}
