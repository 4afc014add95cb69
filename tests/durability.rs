//! Nothing that a client was told is lost: neither by a crash under load, nor in a restart while somebody is being served.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[path = "durability/crash.rs"]
mod crash;
#[path = "durability/file.rs"]
mod file;
#[path = "durability/reload.rs"]
mod reload;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;
#[path = "durability/stand.rs"]
mod stand;

use libtest_mimic::Arguments;
use site::trial;

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("kill_9_under_load_forgets_no_session_that_was_answered", crash::under_load),
        trial("a_hundred_thousand_sessions_survive_kill_9_as_they_were", crash::full_tables),
        trial("what_is_taught_during_a_reload_is_known_after_it", reload::in_the_kernel),
        trial("what_is_taught_during_a_reload_is_known_after_it_in_memory", reload::in_memory),
        trial("without_bpf_a_state_file_keeps_sessions_as_they_were", file::as_they_were),
        trial("without_bpf_a_state_file_of_others_is_set_aside", file::of_others),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}
