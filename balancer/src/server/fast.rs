//! What the fast path knows of servers. Without it nobody is fast.

/// The kernel's side of servers' loads, by id in the registry: counts that the XDP program keeps, and limits that it
/// keeps to. Any thread may ask at any time; no call waits.
pub trait FastLoads: Send + Sync {
    /// Fast connections now.
    fn connections(&self, id: u16) -> u32;

    /// How often one was opened, since the maps were made.
    fn opened(&self, id: u16) -> u64;

    /// Fast connections beyond this are left to the proxy; `u32::MAX`: no limit. What is over already may stay. When
    /// this returns, [`Self::connections`] counts every connection that was admitted under the old limit.
    fn set_limit(&self, id: u16, limit: u32);

    /// Fast connections that the server has refused, since the maps were made: SYNs that were answered with RST.
    fn refused(&self, id: u16) -> u64;

    /// Fast connections that the server has not answered for 3 s, since the maps were made.
    fn unanswered(&self, id: u16) -> u64;

    /// Ends the fast connections to the server: returns how many were ended.
    fn end(&self, id: u16) -> u64;
}

/// There is no fast path.
#[derive(Clone, Copy, Debug)]
pub struct NoFastLoads;

impl FastLoads for NoFastLoads {
    fn connections(&self, _id: u16) -> u32 {
        0
    }

    fn opened(&self, _id: u16) -> u64 {
        0
    }

    fn set_limit(&self, _id: u16, _limit: u32) {}

    fn refused(&self, _id: u16) -> u64 {
        0
    }

    fn unanswered(&self, _id: u16) -> u64 {
        0
    }

    fn end(&self, _id: u16) -> u64 {
        0
    }
}
