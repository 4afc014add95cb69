//! What the program does when nobody is there.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use xtask::lab::wait_until;

use crate::site::{PATIENCE, SOURCE_FIRST, Site, Visit, trial};

const HOLD: Duration = Duration::from_secs(3);

pub fn trials() -> Vec<Trial> {
    vec![trial("known_clients_are_served_for_the_hold_and_no_longer", hold)]
}

fn hold() -> Result<()> {
    let mut site = Site::open(&[SOURCE_FIRST, &["--datapath-hold", "3s"]].concat())?;
    let home = site.introduce(0)?;
    let mut kept = site.connect(0)?;
    ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
    site.daemon.kill();
    let killed = Instant::now();
    let mut last = killed;
    wait_until(HOLD + PATIENCE, "the end of the hold", || match site.visit(0, &[]) {
        Ok(visit) => {
            assert!(visit.fast && visit.server == home, "{visit:?}");
            last = Instant::now();
            false
        }
        Err(error) => {
            assert!(format!("{error:#}").contains("refused"), "{error:#}");
            true
        }
    })?;
    // The last heartbeat was up to a second before the end.
    let served = last.duration_since(killed);
    ensure!(served + Duration::from_millis(1500) > HOLD && served < HOLD, "{served:?}");
    ensure!(Visit::of(&kept.get("/", &[])?)?.server == home, "what is running goes on");
    site.daemon.restart()?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    Ok(())
}
