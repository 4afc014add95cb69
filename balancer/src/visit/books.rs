//! What a thread looks clients up in and writes what it learns into.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::log;
use crate::service::Service;
use crate::table::newcomers::Admission;
use crate::table::{Newcomers, Tables};

/// A thread's handles to what persistence is made of.
#[derive(Debug)]
pub struct Books {
    /// Settings, servers, balancing.
    pub service: Arc<Service>,
    /// The learned tables.
    pub tables: Tables,
    newcomers: RefCell<Newcomers>,
}

impl Books {
    /// Of a thread of its own: new keys are counted by each.
    pub fn new(service: Arc<Service>, tables: Tables) -> Self {
        let words = tables.key().bytes();
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| words[at + n]));
        let newcomers = RefCell::new(Newcomers::new([word(0), word(8)], tables.most_newcomers()));
        Self { service, tables, newcomers }
    }

    /// Whether `client` may have one more new key; it is counted then. `now`: seconds of any clock.
    pub(super) fn admit(&self, client: IpAddr, now: u32) -> bool {
        let mut newcomers = self.newcomers.borrow_mut();
        match newcomers.admit(client, now) {
            Admission::Granted => return true,
            Admission::Refused => {}
            Admission::FirstRefusal => log::warn(format_args!(
                "{client} brings more new keys than the learned tables take from one address, {} a minute and worker: \
                 further ones are served and not learned (new_keys_refused counts them)",
                newcomers.limit()
            )),
        }
        self.tables.count_refused_key();
        false
    }

    /// The client was counted for a new key that it has not brought.
    pub(super) fn take_back(&self, client: IpAddr, now: u32) {
        self.newcomers.borrow_mut().take_back(client, now);
    }
}
