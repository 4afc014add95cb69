//! How much servers take at one time (`maxconn=`), and who waits for them.
//!
//! | module | what it does |
//! |---|---|
//! | `slots` | a count that never passes its limit |
//! | `limit` | a server's own, and what of it is lent to the fast path |
//! | `line` | who waits, in the order of arrival (pure) |
//!
//! A slot that becomes free while somebody waits goes to the first of those whom it suits, before anybody who comes
//! later can see it. A request without competition takes one without a lock, and a server without `maxconn=` has
//! nothing to take.
//!
//! Nobody waits for what is free: who gives a slot back writes that first and then looks whether anybody waits; who
//! wants to wait says so first and then looks for slots. All of these are sequentially consistent, so at least one of
//! the two sees the other. The same holds for the states of servers, see [`Servers::publish`].

mod limit;
mod line;
mod slots;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use tokio::sync::oneshot;

use super::{Servers, State};
use crate::persist::decide::Refused;
pub(super) use limit::{Fast, Limit};
use line::Line;
pub use line::{Ticket, Wish};

/// What somebody who waits is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It has a slot of the server at this place, which it has to [release](Servers::release).
    Slot(usize),
    /// Servers have changed: where it wants to go has to be decided anew.
    Again,
}

/// As many wait for that server as may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueFull;

type Caller = oneshot::Sender<Turn>;

/// The requests that wait for the servers of a service.
#[derive(Debug, Default)]
pub(super) struct Queue {
    line: Mutex<Line<Caller>>,
    /// How many; read on the way of every request to a server with a limit.
    len: CachePadded<AtomicUsize>,
    /// The most at one time that have waited for any server.
    most_for_any: AtomicUsize,
}

impl Queue {
    pub(super) fn forget_most(&self) {
        self.most_for_any.store(0, Ordering::Relaxed);
    }
}

/// The line, held, and those who are to be called as soon as it is not.
struct Held<'a> {
    servers: &'a Servers,
    line: MutexGuard<'a, Line<Caller>>,
    called: VecDeque<(Caller, Turn)>,
}

impl Servers {
    /// Takes a slot of the server at `place`, which is to be [released](Self::release). False: it has none, or somebody
    /// waits for it.
    pub fn take(&self, place: usize) -> bool {
        if self[place].limit.is_none() {
            return true;
        }
        if self.queue.len.load(Ordering::SeqCst) == 0 {
            return self.seize(place);
        }
        self.hold(|held| {
            held.call_for(place);
            self.seize(place)
        })
    }

    /// Gives a slot back.
    pub fn release(&self, place: usize) {
        if self.give_back(place) && self.queue.len.load(Ordering::SeqCst) > 0 {
            self.hold(|held| held.call_for(place));
        }
    }

    /// A slot of the server at `place` could be taken.
    pub fn has_room(&self, place: usize) -> bool {
        self[place].limit.as_ref().is_none_or(|limit| limit.has_room(self.fast_side(place)))
    }

    /// Stands in line. Without a `ticket`, as somebody who comes now, with the one that it gets. Whoever does not want
    /// to wait any longer [leaves](Self::leave).
    ///
    /// # Errors
    /// See [`QueueFull`].
    pub fn join(
        &self,
        ticket: &mut Option<Ticket>,
        wish: Wish,
    ) -> Result<oneshot::Receiver<Turn>, QueueFull> {
        self.hold(|held| {
            if let Wish::Server(place) = wish
                && held.is_full_for(place)
            {
                return Err(QueueFull);
            }
            let (caller, call) = oneshot::channel();
            let ticket = *ticket.get_or_insert_with(|| held.line.ticket());
            held.line.join(ticket, wish, caller);
            held.count();
            held.note_most(wish);
            fence(Ordering::SeqCst);
            match wish {
                Wish::Server(place) => held.reconsider(place),
                Wish::Any(refused) => held.look_around(ticket, refused),
            }
            Ok(call)
        })
    }

    /// Waits no longer. Whoever was called meanwhile has what it was told.
    pub fn leave(&self, ticket: Ticket, wish: Wish) {
        self.hold(|held| held.line.leave(ticket, wish));
    }

    /// How many wait for the server at `place` and no other.
    pub fn waiting_for(&self, place: usize) -> usize {
        if self.queue.len.load(Ordering::Relaxed) == 0 {
            0
        } else {
            self.hold(|held| held.line.len_of(place))
        }
    }

    /// How many wait for whichever server has room first, and the most that have at one time.
    pub fn waiting_for_any(&self) -> (usize, usize) {
        let most = self.queue.most_for_any.load(Ordering::Relaxed);
        let now = if self.waiting() == 0 { 0 } else { self.hold(|held| held.line.len_of_unbound()) };
        (now, most)
    }

    /// Where the last one with that wish stands, first among those who wait for its server, then among those who wait for
    /// any; 0: it is not there.
    pub fn position(&self, wish: Wish) -> (u32, u32) {
        self.hold(|held| match wish {
            Wish::Server(place) => (held.line.len_of(place) as u32, 0),
            Wish::Any(_) => (0, held.line.len_of_unbound() as u32),
        })
    }

    /// How many wait, for one server or for any.
    pub fn waiting(&self) -> usize {
        self.queue.len.load(Ordering::Relaxed)
    }

    /// Looks after what is lent to the fast path, whose connections end without telling us. To be called a few times a
    /// second.
    pub fn settle_with_fast_path(&self) {
        if self.fast.get().is_none() {
            return;
        }
        for place in self.places() {
            let (Some(limit), Some(fast)) = (&self[place].limit, self.fast_side(place)) else { continue };
            let is_wanted = self.waiting() > 0
                && self.hold(|held| {
                    held.call_for(place);
                    held.line.wants(place)
                });
            if !is_wanted {
                limit.lend(fast);
            }
        }
    }

    /// The fast path is counted from here on.
    pub(super) fn limit_fast_path(&self, place: usize) {
        let (server, Some(fast)) = (&self[place], self.fast_side(place)) else { return };
        match &server.limit {
            Some(limit) => limit.adopt(fast),
            None => self.fast().set_limit(server.identity.id, u32::MAX),
        }
    }

    /// The server at `place` has another state, or another weight: those who wait are called to it, or sent away.
    pub(super) fn reconsider(&self, place: usize) {
        // The state was written before; see the module.
        fence(Ordering::SeqCst);
        if self.queue.len.load(Ordering::SeqCst) > 0 {
            self.hold(|held| held.reconsider(place));
        }
    }

    /// May be given somebody who has not been refused by all of those that are asked first.
    fn takes_new(&self, place: usize, refused: &Refused) -> bool {
        let is_open = |place: usize| self[place].takes_new() && !refused.contains(place);
        let is_primary = |place: &usize| !self[*place].backup;
        is_open(place) && (is_primary(&place) || !self.places().into_iter().filter(is_primary).any(is_open))
    }

    /// False: nothing had to be taken.
    fn give_back(&self, place: usize) -> bool {
        let limit = &self[place].limit;
        limit.iter().for_each(Limit::give_back);
        limit.is_some()
    }

    fn seize(&self, place: usize) -> bool {
        self[place].limit.as_ref().is_none_or(|limit| limit.take(self.fast_side(place)))
    }

    fn fast_side(&self, place: usize) -> Option<Fast<'_>> {
        let server = &self[place];
        // The id of one that is retired may be its successor's.
        let is_ours = !server.is_retired() && !self.has_left_fast_path.load(Ordering::Relaxed);
        self.fast.get().filter(|_| is_ours).map(|loads| Fast::new(&**loads, server.identity.id))
    }

    /// Does something with the line, and then calls who is to be called: waking somebody takes longer than all the rest.
    fn hold<T>(&self, act: impl FnOnce(&mut Held<'_>) -> T) -> T {
        let mut held = self.line();
        let done = act(&mut held);
        self.call(held.let_go());
        done
    }

    fn line(&self) -> Held<'_> {
        let line = self.queue.line.lock().unwrap_or_else(PoisonError::into_inner);
        Held { servers: self, line, called: VecDeque::new() }
    }

    fn call(&self, mut called: VecDeque<(Caller, Turn)>) {
        while let Some((caller, turn)) = called.pop_front() {
            // It has left without having heard: the slot is the next one's.
            if let Err(Turn::Slot(place)) = caller.send(turn) {
                let mut held = self.line();
                self.give_back(place);
                held.call_for(place);
                called.extend(held.let_go());
            }
        }
    }
}

impl Held<'_> {
    /// Calls as many as there are slots of the server at `place`.
    fn call_for(&mut self, place: usize) {
        let servers = self.servers;
        let state = servers[place].state();
        if !state.keeps_users() {
            return;
        }
        let suits = |refused: &Refused| servers.takes_new(place, refused);
        let takes: Option<&dyn Fn(&Refused) -> bool> = if state == State::Up { Some(&suits) } else { None };
        while let Some(first) = self.line.first(place, takes)
            && servers.seize(place)
        {
            let caller = self.line.leave(first.ticket, first.wish);
            self.called.extend(caller.map(|caller| (caller, Turn::Slot(place))));
        }
    }

    /// As [`Servers::reconsider`].
    fn reconsider(&mut self, place: usize) {
        let server = &self.servers[place];
        let state = server.state();
        let mut dismissed = Vec::new();
        if !state.keeps_users() {
            dismissed = self.line.dismiss_bound(place);
        }
        let mut others = Vec::new();
        if !server.takes_new() {
            // Somebody may have nobody left who takes them. The others stay where they stand in line, and may be backups'
            // from now on.
            let servers = self.servers;
            others = servers.places();
            others.retain(|&other| servers[other].takes_new());
            let is_stranded = |refused: &Refused| others.iter().all(|&other| refused.contains(other));
            dismissed.extend(self.line.dismiss_unbound(is_stranded));
        }
        self.called.extend(dismissed.into_iter().map(|caller| (caller, Turn::Again)));
        self.call_for(place);
        others.into_iter().for_each(|other| self.call_for(other));
    }

    /// Somebody waits for any server: is there one with room after all, and is there any?
    fn look_around(&mut self, ticket: Ticket, refused: Refused) {
        let takers: Vec<_> = self
            .servers
            .places()
            .into_iter()
            .filter(|&place| self.servers.takes_new(place, &refused))
            .collect();
        if takers.is_empty() {
            let caller = self.line.leave(ticket, Wish::Any(refused));
            self.called.extend(caller.map(|caller| (caller, Turn::Again)));
        }
        takers.into_iter().for_each(|place| self.call_for(place));
    }

    fn is_full_for(&self, place: usize) -> bool {
        let most = self.servers[place].limit.as_ref().and_then(|limit| limit.maxqueue);
        most.is_some_and(|most| self.line.len_of(place) >= most as usize)
    }

    /// Lets others at it, who see how many wait. Returns who is to be called.
    fn let_go(self) -> VecDeque<(Caller, Turn)> {
        self.count();
        self.called
    }

    fn note_most(&self, wish: Wish) {
        match wish {
            Wish::Server(place) => {
                let waiting = u32::try_from(self.line.len_of(place)).unwrap_or(u32::MAX);
                self.servers[place].most_waiting.fetch_max(waiting, Ordering::Relaxed);
            }
            Wish::Any(_) => {
                self.servers.queue.most_for_any.fetch_max(self.line.len_of_unbound(), Ordering::Relaxed);
            }
        }
    }

    fn count(&self) {
        self.servers.queue.len.store(self.line.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
