//! What the parts of a running service share.

use std::sync::Arc;

use crate::balance::Balance;
use crate::config::Config;
use crate::server::Servers;

/// Shared by workers, checks and the admin socket.
#[derive(Debug)]
pub struct Service {
    /// The validated settings.
    pub config: Config,
    /// The servers and their states.
    pub servers: Servers,
    /// Who gets a request that no method decided.
    pub balance: Balance,
}

/// How the parts hold it.
pub type Shared = Arc<Service>;
