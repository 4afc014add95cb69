//! Who waits, in the order in which they came.
//!
//! A request that a method has decided waits for its server, any other for the first server that has room. What matters
//! between the two is only who came first, so neither can starve the other.

use std::collections::{BTreeMap, HashMap};

use crate::persist::decide::Refused;

/// When a request came. It keeps it, should it have to stand in line again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(u64);

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// The server at this place.
    Server(usize),
    /// Any that takes new clients, but for those that have failed it.
    Any(Refused),
}

/// The requests that wait, each with a way to call it.
#[derive(Debug)]
pub(super) struct Line<T> {
    came: u64,
    /// By the place of the server they wait for; none of them is empty.
    bound: HashMap<usize, BTreeMap<Ticket, T>>,
    unbound: BTreeMap<Ticket, (Refused, T)>,
    len: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { came: 0, bound: HashMap::new(), unbound: BTreeMap::new(), len: 0 }
    }
}

impl<T> Line<T> {
    /// For somebody who comes now.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.came += 1;
        Ticket(self.came)
    }

    /// Stands in line at the place that `ticket` says, which nobody else has.
    pub(super) fn join(&mut self, ticket: Ticket, wish: Wish, caller: T) {
        match wish {
            Wish::Server(place) => {
                self.bound.entry(place).or_default().insert(ticket, caller);
            }
            Wish::Any(refused) => {
                self.unbound.insert(ticket, (refused, caller));
            }
        }
        self.len += 1;
    }

    /// Gives up. Nothing, if it has been called meanwhile.
    pub(super) fn leave(&mut self, ticket: Ticket, wish: Wish) -> Option<T> {
        let left = match wish {
            Wish::Server(place) => self.leave_bound(place, ticket),
            Wish::Any(_) => self.unbound.remove(&ticket).map(|(_, caller)| caller),
        };
        self.len -= usize::from(left.is_some());
        left
    }

    /// Who is to be called when the server at `place` has room: the first of those who wait for it and, where it
    /// `takes` anybody new, of those who wait for anybody.
    pub(super) fn first(&self, place: usize, takes: Option<&dyn Fn(&Refused) -> bool>) -> Option<First> {
        let bound = self.bound.get(&place).and_then(|bound| bound.keys().next());
        let bound = bound.map(|&ticket| First { ticket, wish: Wish::Server(place) });
        let suits = |(refused, _): &(Refused, T)| takes.is_some_and(|takes| takes(refused));
        let mut unbound = self.unbound.iter().take(if takes.is_some() { usize::MAX } else { 0 });
        let unbound = unbound.find(|(_, waiter)| suits(waiter));
        let unbound = unbound.map(|(&ticket, (refused, _))| First { ticket, wish: Wish::Any(*refused) });
        [bound, unbound].into_iter().flatten().min_by_key(|first| first.ticket)
    }

    /// Somebody waits who may be the next at `place`.
    pub(super) fn wants(&self, place: usize) -> bool {
        self.bound.contains_key(&place) || !self.unbound.is_empty()
    }

    /// Everybody who waits for the server at `place`.
    pub(super) fn dismiss_bound(&mut self, place: usize) -> Vec<T> {
        let dismissed: Vec<_> =
            self.bound.remove(&place).into_iter().flat_map(BTreeMap::into_values).collect();
        self.len -= dismissed.len();
        dismissed
    }

    /// Everybody who waits for any server.
    pub(super) fn dismiss_unbound(&mut self, is_stranded: impl Fn(&Refused) -> bool) -> Vec<T> {
        let dismissed = self.unbound.extract_if(.., |_, (refused, _)| is_stranded(refused));
        let dismissed: Vec<_> = dismissed.map(|(_, (_, caller))| caller).collect();
        self.len -= dismissed.len();
        dismissed
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many wait for the server at `place` and no other.
    pub(super) fn len_of(&self, place: usize) -> usize {
        self.bound.get(&place).map_or(0, BTreeMap::len)
    }

    /// How many wait for any server.
    pub(super) fn len_of_unbound(&self) -> usize {
        self.unbound.len()
    }

    fn leave_bound(&mut self, place: usize, ticket: Ticket) -> Option<T> {
        let bound = self.bound.get_mut(&place)?;
        let left = bound.remove(&ticket);
        if bound.is_empty() {
            self.bound.remove(&place);
        }
        left
    }
}

/// Who is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct First {
    pub(super) ticket: Ticket,
    pub(super) wish: Wish,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYBODY: Wish = Wish::Any(Refused::NONE);

    fn refusing(place: usize) -> Wish {
        let mut refused = Refused::default();
        refused.insert(place);
        Wish::Any(refused)
    }

    fn line(wishes: &[Wish]) -> Line<usize> {
        let mut line = Line::default();
        for (number, wish) in wishes.iter().enumerate() {
            let ticket = line.ticket();
            line.join(ticket, *wish, number);
        }
        line
    }

    /// Calls one after the other for the server at `place`.
    fn calls(line: &mut Line<usize>, place: usize, takes_new: bool) -> Vec<usize> {
        let suits = |refused: &Refused| !refused.contains(place);
        let takes: Option<&dyn Fn(&Refused) -> bool> = takes_new.then_some(&suits);
        std::iter::from_fn(|| {
            let first = line.first(place, takes)?;
            line.leave(first.ticket, first.wish)
        })
        .collect()
    }

    #[test]
    fn the_order_is_that_of_arrival_whatever_is_waited_for() {
        let wishes = [Wish::Server(1), EVERYBODY, Wish::Server(2), Wish::Server(1), EVERYBODY];
        assert_eq!(calls(&mut line(&wishes), 1, true), [0, 1, 3, 4]);
        assert_eq!(calls(&mut line(&wishes), 1, false), [0, 3]);
        assert_eq!(calls(&mut line(&wishes), 3, true), [1, 4]);
        assert_eq!(calls(&mut line(&wishes), 3, false), [0; 0]);
    }

    #[test]
    fn nobody_is_called_to_a_server_that_has_failed_it() {
        let mut line = line(&[refusing(1), EVERYBODY]);
        assert_eq!(calls(&mut line, 1, true), [1]);
        assert_eq!(calls(&mut line, 2, true), [0]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn whoever_comes_again_stands_where_it_stood() {
        let mut line = line(&[]);
        let (early, late) = (line.ticket(), line.ticket());
        line.join(late, Wish::Server(1), 1);
        line.join(early, Wish::Server(1), 0);
        assert_eq!((line.len(), line.len_of(1), line.len_of(2)), (2, 2, 0));
        assert_eq!(line.leave(early, Wish::Server(1)), Some(0));
        assert_eq!(line.leave(early, Wish::Server(1)), None, "it is gone");
        line.join(early, EVERYBODY, 0);
        assert_eq!(calls(&mut line, 1, true), [0, 1]);
    }

    #[test]
    fn those_of_a_server_that_is_gone_are_dismissed_in_order() {
        let mut line = line(&[Wish::Server(1), EVERYBODY, Wish::Server(2), Wish::Server(1)]);
        assert_eq!(line.dismiss_bound(1), [0, 3]);
        assert_eq!(line.dismiss_unbound(|_| false), [0; 0]);
        assert_eq!(line.dismiss_unbound(|_| true), [1]);
        assert_eq!((line.len(), line.len_of(1), line.len_of(2)), (1, 0, 1));
    }
}
