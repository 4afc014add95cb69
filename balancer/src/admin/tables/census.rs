//! How many entries the tables have, and how many name each server. That takes a walk over all of them.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use balancer_ebpf::affinity::Affinity;

use super::rows::TableSummary;
use crate::admin::Desk;
use crate::table::Tables;

/// How old a census may be, at least: a walk takes a second where tables are large.
const LIFE: Duration = Duration::from_secs(10);

/// And in times of what it took.
const SHARE: u32 = 10;

/// What was counted.
#[derive(Debug)]
pub struct Census {
    at: Instant,
    took: Duration,
    /// The tables.
    pub tables: Vec<TableSummary>,
    servers: HashMap<u16, u64>,
}

impl Census {
    /// Walks over all tables.
    pub fn take(tables: &Tables) -> Self {
        let (at, mut servers) = (Instant::now(), HashMap::new());
        let mut count = |entry: Affinity| *servers.entry(entry.server()).or_default() += 1;
        let tables =
            tables.iter().map(|(name, table)| TableSummary::counted(name, table, &mut count)).collect();
        Self { at, took: at.elapsed(), tables, servers }
    }

    /// Live entries that name the server with this id; `None`: nothing is learned.
    pub fn entries(&self, id: u16) -> Option<u64> {
        (!self.tables.is_empty()).then(|| self.servers.get(&id).copied().unwrap_or(0))
    }
}

impl Desk {
    /// The last census, or a new one when that is too old: counted on a thread of its own, by one at a time.
    pub(in crate::admin) async fn census(&self) -> Rc<Census> {
        let _turn = self.table_turn.lock().await;
        if let Some(census) = &*self.census.borrow()
            && census.at.elapsed() < LIFE.max(census.took * SHARE)
        {
            return Rc::clone(census);
        }
        let tables = self.books.tables.handle();
        let counted = tokio::task::spawn_blocking(move || Census::take(&tables)).await;
        // It fails with the end of the process only.
        let nothing =
            || Census { at: Instant::now(), took: LIFE, tables: Vec::new(), servers: HashMap::new() };
        let census = Rc::new(counted.unwrap_or_else(|_| nothing()));
        *self.census.borrow_mut() = Some(Rc::clone(&census));
        census
    }
}
