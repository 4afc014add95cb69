//! What a store of entries can do, in the kernel or in memory.

use std::io;

use balancer_ebpf::affinity::Affinity;

use super::Key;

/// Where entries are kept. An implementation has one of two answers to an entry too many: it forgets about the least
/// recently written one, or it refuses.
pub trait Store: Send {
    /// The entry, live or not.
    fn get(&self, key: &Key) -> Option<Affinity>;

    /// Writes the entry, which also counts as its use.
    ///
    /// # Errors
    /// The store is full, or the kernel refuses for another reason; the request is served all the same.
    fn put(&self, key: &Key, entry: Affinity) -> io::Result<()>;

    /// Forgets the key; forgetting an unknown key is no error.
    fn remove(&self, key: &Key);

    /// Visits the next entries of a walk, about a thousand at most, in no order. True: that was the end, and the walk
    /// begins again. Entries that change meanwhile may be missed or seen twice.
    fn walk(&self, walk: &mut Walk, visit: &mut dyn FnMut(Key, Affinity)) -> bool;

    /// Forgets everything.
    fn clear(&self);

    /// Another handle to the same entries.
    fn handle(&self) -> Box<dyn Store>;

    /// `kernel` or `memory`, for `show info`.
    fn kind(&self) -> &'static str;
}

/// How far a walk over a store has come. A new one begins at the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    /// In the store's own terms.
    pub place: Option<u32>,
}
