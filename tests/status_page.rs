//! `/status` as people meet it: in a real browser, in front of a running balancer.
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what its modules share")]

mod browser;
#[expect(dead_code, reason = "only the test of idle clients asks what one costs")]
mod daemon;
mod page;

use libtest_mimic::{Arguments, Trial};
use xtask::lab::origin;

fn main() {
    // The servers are this program once more.
    origin::play_if_asked();
    libtest_mimic::run(&Arguments::from_args(), page::stories()).exit();
}

/// A test that needs a browser: visibly ignored where there is none, and failed where results count.
fn story(name: &str, story: fn()) -> Trial {
    let missing = browser::missing();
    let is_ignored = missing.is_some() && std::env::var_os("CI").is_none();
    let run = move || match missing {
        Some(reason) => Err(reason.into()),
        None => {
            story();
            Ok(())
        }
    };
    Trial::test(name, run).with_ignored_flag(is_ignored)
}
