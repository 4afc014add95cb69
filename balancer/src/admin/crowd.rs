//! The places for those who talk to the admin socket, and who has to go when there is none left: whoever has been silent
//! the longest, so that a client that only holds its place keeps nobody out.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// Turns of the control thread, within which whoever is called has gone.
const TURNS: u32 = 16;

/// The places.
#[derive(Debug)]
pub(super) struct Crowd {
    most: usize,
    /// Somebody silent for so long may have to go. A client that is at work is never.
    grace: Duration,
    taken: Cell<usize>,
    /// Those who have been silent for longer than that.
    silent: Cell<usize>,
    /// Calls the one who has been for the longest.
    call: Notify,
    /// Somebody has gone, or has been silent for long enough to be called.
    chance: Notify,
}

/// One of the places.
#[derive(Debug)]
pub(super) struct Seat(Rc<Crowd>);

/// Takes itself out of a count.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Crowd {
    pub(super) fn new(most: usize, grace: Duration) -> Rc<Self> {
        let (taken, silent) = (Cell::new(0), Cell::new(0));
        Rc::new(Self { most, grace, taken, silent, call: Notify::new(), chance: Notify::new() })
    }

    pub(super) fn seat(self: &Rc<Self>) -> Option<Seat> {
        (self.taken.get() < self.most).then(|| {
            self.taken.set(self.taken.get() + 1);
            Seat(Rc::clone(self))
        })
    }

    /// The same; if there is none, after somebody silent has gone.
    pub(super) async fn seat_of_the_silent(self: &Rc<Self>) -> Option<Seat> {
        if self.taken.get() >= self.most && self.silent.get() > 0 {
            self.call.notify_one();
            // The one who is called needs a turn to go.
            for _ in 0..TURNS {
                if self.taken.get() < self.most {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        self.seat()
    }

    /// The same, and if nobody is silent when somebody is, or is done.
    pub(super) async fn next_seat(self: &Rc<Self>) -> Seat {
        loop {
            if let Some(seat) = self.seat_of_the_silent().await {
                return seat;
            }
            self.chance.notified().await;
        }
    }

    /// Until nobody is there.
    pub(super) async fn all_gone(&self) {
        while self.taken.get() > 0 {
            self.chance.notified().await;
        }
    }
}

impl Seat {
    /// Does what takes as long as the other side likes; `None`: it has taken longer than `limit`, or somebody else needs
    /// the place.
    pub(super) async fn patiently<T>(&self, limit: Duration, act: impl Future<Output = T>) -> Option<T> {
        let called = async {
            sleep(self.0.grace).await;
            let _silent = Counted::new(&self.0.silent);
            self.0.chance.notify_one();
            self.0.call.notified().await;
        };
        tokio::select! {
            biased;
            done = act => Some(done),
            () = called => None,
            () = sleep(limit) => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
        self.0.chance.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    const GRACE: Duration = Duration::from_millis(100);

    #[test]
    fn who_has_been_silent_the_longest_goes_first() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        LocalSet::new().block_on(&runtime.expect("runtime"), async {
            let crowd = Crowd::new(2, GRACE);
            let hold =
                |seat: Seat| spawn_local(async move { seat.patiently(10 * GRACE, pending::<()>()).await });
            let first = hold(crowd.seat().expect("a place"));
            sleep(GRACE / 2).await;
            let second = hold(crowd.seat().expect("a place"));
            assert!(crowd.seat_of_the_silent().await.is_none(), "both have said something just now");
            sleep(GRACE).await;
            let third = crowd.seat_of_the_silent().await.expect("the place of the first");
            assert!(first.await.expect("ended").is_none() && !second.is_finished());
            assert_eq!(third.patiently(GRACE, async { 7 }).await, Some(7));
            drop(third);
            assert!(crowd.seat().is_some() && !second.is_finished(), "a place that is free is taken first");
            assert!(second.await.expect("ended").is_none(), "its own time is over");
        });
    }

    #[test]
    fn who_waits_for_a_place_gets_that_of_the_first_who_is_silent_or_done() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        LocalSet::new().block_on(&runtime.expect("runtime"), async {
            let crowd = Crowd::new(1, GRACE);
            let done = crowd.seat().expect("a place");
            let next = spawn_local({
                let crowd = Rc::clone(&crowd);
                async move { crowd.next_seat().await }
            });
            sleep(GRACE).await;
            assert!(!next.is_finished(), "it is at work");
            drop(done);
            let seat = next.await.expect("a place");
            let silent = spawn_local(async move { seat.patiently(10 * GRACE, pending::<()>()).await });
            let begun = tokio::time::Instant::now();
            crowd.next_seat().await;
            assert!(silent.await.expect("ended").is_none() && begun.elapsed() < 5 * GRACE);
        });
    }
}
