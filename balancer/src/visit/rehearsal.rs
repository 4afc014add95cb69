//! The same way through the list without leaving a trace in any table: what `balancer explain` tells.

use super::learned::Write;
use super::{Claim, Visit};
use crate::persist::decide::Hold;
use crate::persist::issue::{ByServer, Letters, SetCookie};
use crate::table::Key;

/// What would become of a request.
#[derive(Debug)]
pub struct Rehearsal {
    /// Whom it would go to: one server where a method or a hash decides, else the candidates in today's order; nobody.
    pub candidates: Vec<usize>,
    /// Why nobody is asked although somebody is named.
    pub hold: Option<Hold>,
    /// What the key of each method's table is, by place in the list.
    pub keys: Vec<Option<Key>>,
    /// What an answer with status 200 that sets no cookie would make of the tables: place in the list, key, and the server
    /// it would point to by its id in the registry, with its expiry.
    pub writes: Vec<(usize, Key, u16, u32)>,
    /// And of the persistence cookie.
    pub cookie: SetCookie,
    /// The two letters of the log.
    pub letters: Letters,
}

impl Visit {
    /// Goes through the list as [`Self::choose`] and [`Self::answered`] do, and leaves out everything that others could
    /// notice: reservations, turns of the balancing, writes.
    pub fn rehearse(&mut self) -> Rehearsal {
        self.decide_without_balancing();
        let candidates = match (self.chosen, self.decision.hold) {
            (Some(server), _) => vec![server],
            (None, Some(_)) => Vec::new(),
            (None, None) => self.candidates(),
        };
        self.decision.trace.balanced = self.chosen.is_none() && !candidates.is_empty();
        self.chosen = self.chosen.or(candidates.first().copied());
        let heard = self.decision.trace.steps().len();
        if !self.ignored {
            self.hear(heard..self.claims.len(), |_, _| true);
        }
        let keys = self.claims.iter().map(|claim| match claim {
            Claim::Learned(learned) => learned.key(),
            Claim::Named(_) => None,
        });
        let (keys, mut writes, mut cookie) = (keys.collect(), Vec::new(), SetCookie::Nothing);
        if let Some(serving) = self.chosen {
            if !self.ignored {
                writes = self.writes(serving, ByServer::Nothing, None);
            }
            cookie = self.cookie_after(serving, ByServer::Nothing);
        }
        let writes = writes.into_iter().filter_map(|(place, write)| match write {
            Write::Learn { key, entry, .. } => Some((place, key, entry.server(), entry.expiry())),
            Write::Forget(_) => None,
        });
        let letters = self.letters(self.chosen.map(|_| cookie));
        Rehearsal { candidates, hold: self.decision.hold, keys, writes: writes.collect(), cookie, letters }
    }
}
