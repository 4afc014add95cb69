//! Takes out entries that have expired, a little at a time: a table that refuses when it is full has places again, and
//! counts are true. On the control thread: no worker waits for it.

use std::time::Duration;

use tokio::time::sleep;

use super::Tables;
use super::learned::TableWalk;
use crate::clock;

/// Between two steps of a thousand entries or so, which take a tenth of a millisecond: half a percent of a core, and a
/// million entries in half a minute.
const PAUSE: Duration = Duration::from_millis(20);

/// Between the end of the last table and the beginning of the first.
const REST: Duration = Duration::from_secs(5);

/// A walk over all tables that never ends.
#[derive(Debug, Default)]
pub struct Collector {
    /// Which table is next.
    turn: usize,
    walk: TableWalk,
}

impl Collector {
    /// Looks at the next entries; true: those were the last ones of the last table.
    pub fn step(&mut self, tables: &Tables, now: u32) -> bool {
        let is_over =
            tables.iter().nth(self.turn).is_none_or(|(_, table)| table.collect(&mut self.walk, now));
        if is_over {
            self.turn += 1;
        }
        let is_end = tables.iter().nth(self.turn).is_none();
        if is_end {
            self.turn = 0;
        }
        is_end
    }
}

/// Collects for as long as the service runs.
pub async fn run(tables: Tables) {
    let mut collector = Collector::default();
    while !tables.is_empty() {
        let is_end = collector.step(&tables, clock::boot_seconds());
        sleep(if is_end { REST } else { PAUSE }).await;
    }
}

#[cfg(test)]
mod tests {
    use balancer_ebpf::affinity::Affinity;

    use super::*;
    use crate::table::set::tests::list;
    use crate::table::{Found, HashKey};

    #[test]
    fn every_table_is_looked_through_in_bounded_steps() {
        let list = list("--persist session=JS,size=10k --persist source,size=10k");
        let tables = Tables::in_memory(&list, HashKey::from_bytes([1; 16]));
        for n in 0..10_000_u32 {
            let mut key = [0; 16];
            key[12..].copy_from_slice(&n.to_be_bytes());
            let entry = Affinity::learned(1, if n % 10 == 0 { 200 } else { 100 });
            for (_, table) in tables.iter() {
                table
                    .restore(&key, Found { entry, probation: n % 3 == 0 && n < 6000 })
                    .expect("there is room");
            }
        }
        let left = || {
            let mut count = 0;
            tables.iter().for_each(|(_, table)| table.for_each(|_, _| count += 1));
            count
        };
        let mut collector = Collector::default();
        let (mut steps, mut before) = (0, left());
        loop {
            let is_end = collector.step(&tables, 150);
            let now = left();
            assert!(before - now < 2000, "a step takes out {}", before - now);
            (steps, before) = (steps + 1, now);
            if is_end {
                break;
            }
        }
        assert!(steps > 10, "{steps}");
        assert_eq!(left(), 2000);
        while !collector.step(&tables, 250) {}
        assert_eq!(left(), 0, "it begins again");
    }
}
