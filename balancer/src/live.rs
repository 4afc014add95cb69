//! A setting that is replaced while it is in use, when flags are read again.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// All that is cloned from it is the same one.
pub struct Live<T>(Arc<Cell<T>>);

struct Cell<T> {
    value: ArcSwap<T>,
    replaced: Notify,
}

impl<T> Live<T> {
    /// What it is at this moment, for a look: it may not be held across a wait.
    pub fn look(&self) -> impl Deref<Target = Arc<T>> + use<'_, T> {
        self.0.value.load()
    }

    /// What it is at this moment.
    pub fn now(&self) -> Arc<T> {
        self.0.value.load_full()
    }

    /// It is that from now on, for all who have it.
    pub fn replace(&self, value: Arc<T>) {
        self.0.value.store(value);
        self.0.replaced.notify_waiters();
    }

    /// Until it is replaced. What happens from this call on counts, awaited or not.
    pub fn replaced(&self) -> Notified<'_> {
        self.0.replaced.notified()
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Cell { value: ArcSwap::from_pointee(value), replaced: Notify::new() }))
    }
}

impl<T: Default> Default for Live<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: PartialEq> PartialEq for Live<T> {
    fn eq(&self, other: &Self) -> bool {
        *self.look() == *other.look()
    }
}

impl<T: Eq> Eq for Live<T> {}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.look().fmt(f)
    }
}
