//! The datapath while everything around it changes: interfaces, addresses, neighbours, versions, other services, load.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of hot restarts")]
mod load;
#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

mod datapath {
    pub mod hold;
    pub mod links;
    pub mod neighbours;
    pub mod paths;
    pub mod shared;
    pub mod strain;
    pub mod upgrade;
}

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let trials = [
        datapath::links::trials(),
        datapath::neighbours::trials(),
        datapath::upgrade::trials(),
        datapath::shared::trials(),
        datapath::paths::trials(),
        datapath::hold::trials(),
        datapath::strain::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
