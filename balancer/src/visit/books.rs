//! What a thread looks clients up in and writes what it learns into.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::service::Service;
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
        Self { service, tables, newcomers: RefCell::new(Newcomers::new([word(0), word(8)])) }
    }

    /// Whether `client` may have one more new key; it is counted then. `now`: seconds of any clock.
    pub(super) fn admit(&self, client: IpAddr, now: u32) -> bool {
        self.newcomers.borrow_mut().admit(client, now)
    }
}
