//! One server's limit, and the part of it that is lent to the fast path.
//!
//! What XDP admits the proxy cannot see in time, so it lends XDP a number of connections and counts all of them as taken:
//! *slow + lent ≤ maxconn* at every moment. When the proxy runs short it calls everything back, which in the kernel is
//! a limit of 0, and counts what is there: from then on fast connections only end. As long as somebody waits nothing is
//! lent, so a fast client does not overtake those who stand in line: its SYN is passed, and it stands in line as well.
//! When nobody waits any more, half of what is free is lent again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;

use super::slots::Slots;
use crate::server::FastLoads;

/// A server's connections on the fast path.
#[derive(Clone, Copy)]
pub(in crate::server) struct Fast<'a> {
    pub(super) loads: &'a dyn FastLoads,
    pub(super) id: u16,
}

impl<'a> Fast<'a> {
    pub(in crate::server) fn new(loads: &'a dyn FastLoads, id: u16) -> Self {
        Self { loads, id }
    }

    fn connections(self) -> u32 {
        self.loads.connections(self.id)
    }

    fn set_limit(self, limit: u32) {
        self.loads.set_limit(self.id, limit);
    }
}

/// What a server takes at one time.
#[derive(Debug)]
pub(in crate::server) struct Limit {
    /// Requests, or with `--mode tcp` connections; never 0.
    pub(in crate::server) maxconn: u32,
    /// Requests that wait for this server and no other.
    pub(in crate::server) maxqueue: Option<u32>,
    slots: CachePadded<Slots>,
    /// How many connections XDP may make, all in all. Held while that changes.
    lent: Mutex<u32>,
}

impl Limit {
    pub(in crate::server) fn new(maxconn: u32, maxqueue: Option<u32>) -> Self {
        let slots = CachePadded::new(Slots::new(maxconn));
        Self { maxconn, maxqueue, slots, lent: Mutex::default() }
    }

    /// Takes a slot, for a request that is then the server's until [`Self::give_back`].
    pub(super) fn take(&self, fast: Option<Fast<'_>>) -> bool {
        if self.slots.take() {
            return true;
        }
        fast.is_some_and(|fast| {
            self.call_back(fast);
            self.slots.take()
        })
    }

    pub(super) fn give_back(&self) {
        self.slots.give_back();
    }

    /// A slot could be taken.
    pub(super) fn has_room(&self, fast: Option<Fast<'_>>) -> bool {
        let is_lent_for_nothing = |fast: Fast<'_>| {
            u64::from(self.slots.taken()) + u64::from(fast.connections()) < u64::from(self.maxconn)
        };
        self.slots.has_room() || fast.is_some_and(is_lent_for_nothing)
    }

    /// What an earlier process may have lent is called back, before anything is taken.
    pub(super) fn adopt(&self, fast: Fast<'_>) {
        fast.set_limit(0);
        self.call_back(fast);
    }

    /// Nothing is lent from here on; what fast connections there are count.
    fn call_back(&self, fast: Fast<'_>) {
        let mut lent = self.lent();
        if std::mem::take(&mut *lent) > 0 {
            fast.set_limit(0);
        }
        // None is added any more, so it can only become too many.
        let busy = fast.connections();
        self.slots.set_limit(|_, _| Some(self.maxconn.saturating_sub(busy)));
    }

    /// Lends half of what is free.
    pub(super) fn lend(&self, fast: Fast<'_>) {
        let mut lent = self.lent();
        let busy = fast.connections();
        let mut offer = 0;
        let is_lent = self.slots.set_limit(|taken, _| {
            let free = self.maxconn.saturating_sub(taken).saturating_sub(busy);
            offer = busy + free.div_ceil(2);
            // Where nothing is free, `busy` may be too many already.
            (free > 0 && offer > *lent).then(|| self.maxconn - offer)
        });
        if is_lent {
            // After our own share has become smaller.
            fast.set_limit(offer);
            *lent = offer;
        }
    }

    fn lent(&self) -> MutexGuard<'_, u32> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(in crate::server) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// The kernel's side: one word for the count and the limit, as XDP sees them.
    #[derive(Clone, Debug, Default)]
    pub(in crate::server) struct Kernel(Arc<AtomicU64>);

    impl Kernel {
        /// Left by a process before us.
        pub(in crate::server) fn with(connections: u32, limit: u32) -> Self {
            Self(Arc::new(AtomicU64::new(u64::from(limit) << 32 | u64::from(connections))))
        }

        /// A SYN; false: it is passed.
        pub(in crate::server) fn connect(&self) -> bool {
            let admit = |word: u64| ((word as u32) < (word >> 32) as u32).then(|| word + 1);
            self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, admit).is_ok()
        }

        /// A fast connection ends.
        pub(in crate::server) fn close(&self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }

        pub(in crate::server) fn limit(&self) -> u32 {
            (self.0.load(Ordering::SeqCst) >> 32) as u32
        }
    }

    impl FastLoads for Kernel {
        fn connections(&self, _id: u16) -> u32 {
            self.0.load(Ordering::SeqCst) as u32
        }

        fn opened(&self, _id: u16) -> u64 {
            0
        }

        fn set_limit(&self, _id: u16, limit: u32) {
            let set = |word: u64| Some(u64::from(limit) << 32 | u64::from(word as u32));
            let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
        }

        fn refused(&self, _id: u16) -> u64 {
            0
        }

        fn unanswered(&self, _id: u16) -> u64 {
            0
        }

        fn end(&self, _id: u16) -> u64 {
            u64::from(self.0.fetch_and(u64::MAX << 32, Ordering::SeqCst) as u32)
        }
    }

    #[test]
    fn half_of_what_is_free_is_lent_and_comes_back_when_it_is_wanted() {
        let kernel = Kernel::default();
        let fast = Fast::new(&kernel, 1);
        let limit = Limit::new(9, None);
        assert!(limit.take(Some(fast)));
        limit.lend(fast);
        assert_eq!(kernel.limit(), 4);
        assert!((0..5).filter(|_| kernel.connect()).count() == 4);
        assert!((0..9).filter(|_| limit.take(Some(fast))).count() == 4, "9 - 4 fast ones - the first");
        assert_eq!((kernel.limit(), kernel.connect()), (0, false));
        kernel.close();
        assert!(!kernel.connect(), "it is the turn of whoever waits");
        assert!(limit.has_room(Some(fast)) && limit.take(Some(fast)) && !limit.has_room(Some(fast)));
    }

    #[test]
    fn what_another_process_has_left_counts() {
        let kernel = Kernel::with(7, u32::MAX);
        let fast = Fast::new(&kernel, 1);
        let limit = Limit::new(5, None);
        limit.adopt(fast);
        assert!(!limit.take(Some(fast)) && !kernel.connect());
        (0..3).for_each(|_| kernel.close());
        limit.lend(fast);
        assert_eq!((kernel.limit(), limit.take(Some(fast))), (5, true), "lent, not used, called back");
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_on_both_paths_together(
            maxconn in 1_u32..12,
            left in 0_u32..4,
            steps in proptest::collection::vec(0_u8..6, 1..300),
        ) {
            let kernel = Kernel::with(left, 3);
            let fast = Fast::new(&kernel, 1);
            let limit = Limit::new(maxconn, None);
            limit.adopt(fast);
            let mut slow = 0;
            for step in steps {
                match step {
                    0 | 1 => slow += u32::from(limit.take(Some(fast))),
                    2 if slow > 0 => {
                        limit.give_back();
                        slow -= 1;
                    }
                    3 => {
                        kernel.connect();
                    }
                    4 if kernel.connections(1) > 0 => kernel.close(),
                    5 => limit.lend(fast),
                    _ => {}
                }
                let busy = kernel.connections(1);
                prop_assert!(slow + busy.max(kernel.limit()) <= maxconn.max(left), "{slow} {kernel:?}");
                prop_assert_eq!(limit.slots.taken(), slow);
                prop_assert_eq!(limit.has_room(Some(fast)), slow + busy < maxconn);
            }
        }
    }

    #[test]
    fn never_more_than_the_limit_when_both_paths_are_in_a_hurry() {
        const MAXCONN: u32 = 5;
        let (kernel, limit) = (Kernel::default(), Limit::new(MAXCONN, None));
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        // Counted after it was admitted and before it ends, so never more than there are.
        let serve = || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::hint::spin_loop();
            now.fetch_sub(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..30_000 {
                        if limit.take(Some(Fast::new(&kernel, 1))) {
                            serve();
                            limit.give_back();
                        }
                    }
                });
                scope.spawn(|| {
                    for _ in 0..30_000 {
                        if kernel.connect() {
                            serve();
                            kernel.close();
                        }
                    }
                });
            }
            scope.spawn(|| (0..30_000).for_each(|_| limit.lend(Fast::new(&kernel, 1))));
        });
        let most = most.load(Ordering::SeqCst);
        assert!((1..=u64::from(MAXCONN)).contains(&most), "{most}");
        assert_eq!(limit.slots.taken(), 0);
    }
}
