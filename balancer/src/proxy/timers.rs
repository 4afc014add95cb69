//! Coarse deadlines. Arming one is a store, so every wait can have one; a sweep per tick finds those that are due.
//!
//! Never early, up to two ticks late, which nobody notices on time-outs of seconds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Time between sweeps.
pub(super) const TICK: Duration = Duration::from_millis(100);

const NEVER: u64 = u64::MAX;

/// A number of ticks: computed once per time-out, not once per request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Ticks(u64);

impl Ticks {
    /// The shortest wait.
    pub(super) const ONE: Self = Self(1);

    /// What is left of it after `ticks`.
    pub(super) fn after(self, ticks: Self) -> Self {
        Self(self.0.saturating_sub(ticks.0))
    }

    pub(super) fn from_duration(duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        Self(u64::try_from(ticks).unwrap_or(NEVER))
    }
}

#[derive(Debug, Default)]
struct Slot {
    due: u64,
    waker: Option<Waker>,
}

/// A worker's deadlines.
#[derive(Debug)]
pub(super) struct Timers {
    start: Instant,
    now: Cell<u64>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
    /// Nobody's time is left.
    is_over: Cell<bool>,
}

impl Timers {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            now: Cell::new(0),
            slots: RefCell::default(),
            free: RefCell::default(),
            is_over: Cell::new(false),
        })
    }

    /// A deadline that is not armed.
    pub(super) fn deadline(self: &Rc<Self>) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or(slots.len());
        let slot = Slot { due: NEVER, waker: None };
        if index < slots.len() {
            slots[index] = slot;
        } else {
            slots.push(slot);
        }
        Deadline { timers: Rc::clone(self), index }
    }

    /// The tick that is going on.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Whether `since` is at least `age` ago.
    pub(super) fn is_older(&self, since: u64, age: Ticks) -> bool {
        self.now().saturating_sub(since) > age.0
    }

    /// Looks at the clock and wakes whoever is due.
    pub(super) fn sweep(&self) {
        let ticks = self.start.elapsed().as_millis() / TICK.as_millis();
        self.advance(u64::try_from(ticks).unwrap_or(NEVER - 1));
    }

    /// Wakes everyone, so that they see what has changed besides the time.
    pub(super) fn wake_all(&self) {
        self.wake(|_| true);
    }

    /// Every deadline has passed from now on, those too that are armed later.
    pub(super) fn expire_all(&self) {
        self.is_over.set(true);
        self.wake_all();
    }

    /// [`Self::expire_all`] was called.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    fn advance(&self, now: u64) {
        self.now.set(now);
        self.wake(|slot| slot.due <= now);
    }

    fn wake(&self, due: impl Fn(&Slot) -> bool) {
        for slot in self.slots.borrow().iter().filter(|slot| due(slot)) {
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }
}

/// The one deadline of a connection: it waits for one thing at a time.
#[derive(Debug)]
pub(super) struct Deadline {
    timers: Rc<Timers>,
    index: usize,
}

impl Deadline {
    /// Due after `ticks` from now, whatever it was before.
    pub(super) fn arm(&self, ticks: Ticks) {
        // One more: the tick that is going on is partly over.
        let due = self.timers.now().saturating_add(ticks.0).saturating_add(1);
        self.timers.slots.borrow_mut()[self.index].due = due.min(NEVER - 1);
    }

    /// Whether it has passed; otherwise the task is woken when it does.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &mut self.timers.slots.borrow_mut()[self.index];
        if slot.due <= self.timers.now() || self.timers.is_over() {
            return Poll::Ready(());
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // A slot keeps no task alive: the waker goes with the deadline.
        self.timers.slots.borrow_mut()[self.index] = Slot { due: NEVER, waker: None };
        self.timers.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_due(deadline: &Deadline) -> bool {
        deadline.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn is_never_early_and_can_be_armed_again() {
        let timers = Timers::new();
        let deadline = timers.deadline();
        assert!(!is_due(&deadline), "not armed");
        deadline.arm(Ticks::from_duration(Duration::from_millis(250)));
        timers.advance(3);
        assert!(!is_due(&deadline));
        timers.advance(4);
        assert!(is_due(&deadline));
        deadline.arm(Ticks::from_duration(Duration::from_secs(1)));
        assert!(!is_due(&deadline));
    }

    #[test]
    fn when_all_is_over_every_deadline_has_passed() {
        let timers = Timers::new();
        let deadline = timers.deadline();
        deadline.arm(Ticks::from_duration(Duration::from_secs(60)));
        assert!(!is_due(&deadline));
        timers.expire_all();
        assert!(is_due(&deadline));
        assert!(is_due(&timers.deadline()), "not armed");
    }

    #[test]
    fn places_are_used_again() {
        let timers = Timers::new();
        let first = timers.deadline();
        first.arm(Ticks(0));
        drop(first);
        timers.advance(5);
        let second = timers.deadline();
        assert_eq!(timers.slots.borrow().len(), 1);
        assert!(!is_due(&second), "nothing is left of the first");
    }
}
