//! A client's entry in the source table, as far as one request has to do with it.

use std::net::IpAddr;

use balancer_ebpf::affinity::Affinity;

use crate::clock;
use crate::persist::decide::{Finding, Refused};
use crate::persist::learn::{self, Answered};
use crate::server::{Identity, Servers};
use crate::table::{self, Key, RESERVATION_SECONDS, Table};

/// What was read, what was reserved, and the one `now` of the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Source {
    key: Key,
    now: u32,
    /// The table has been asked.
    pub(super) is_read: bool,
    /// What it said, or what another request has put there since.
    entry: Option<Affinity>,
    /// What this request has put there until a server answers.
    reserved: Option<Affinity>,
}

/// What a server's answer says about the client's entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// Who answered, by index.
    pub(super) serving: usize,
    /// As in [`Answered::elsewhere_usable`], by what the decision saw.
    pub(super) elsewhere_usable: bool,
    /// As in [`Answered::proxied`].
    pub(super) proxied: bool,
    /// Servers that failed the request.
    pub(super) refused: Refused,
}

impl Source {
    pub(super) fn new(client: IpAddr) -> Self {
        Self { key: table::source_key(client), now: clock::boot_seconds(), ..Self::default() }
    }

    /// What the table says, which it is asked once.
    pub(super) fn finding(&mut self, table: &Table, servers: &Servers) -> Finding {
        if !self.is_read {
            self.entry = table.get(&self.key);
            self.is_read = true;
        }
        let Some(entry) = self.entry else { return Finding::Missing };
        if !entry.is_live(self.now) {
            return Finding::Expired;
        }
        let ambiguous = entry.is_ambiguous() && !entry.ambiguity_aged_out(self.now, table.timeout);
        servers.by_id(entry.server()).map_or(Finding::Missing, |index| Finding::Server { index, ambiguous })
    }

    /// Reserves the key for `server`. False: another request has taken it meanwhile, and its entry is now the one
    /// that counts.
    pub(super) fn reserve(&mut self, table: &Table, server: Identity) -> bool {
        let expiry = self.now.saturating_add(RESERVATION_SECONDS);
        let mut reservation = Affinity::new(server.id, server.generation, expiry);
        if let Some(entry) = self.entry.filter(|entry| entry.is_live(self.now)) {
            reservation = reservation.inherit_ambiguity(entry, self.now, table.timeout);
        }
        match table.reserve(&self.key, self.expected(), reservation, self.now) {
            Ok(()) => {
                self.reserved = Some(reservation);
                true
            }
            Err(winner) => {
                (self.entry, self.reserved) = (Some(winner), None);
                false
            }
        }
    }

    /// The request has waited, and the clock has gone on.
    pub(super) fn wake(&mut self) {
        self.now = clock::boot_seconds();
    }

    /// Others may have written to the table. What this request has put there itself says nothing new.
    pub(super) fn forget(&mut self) {
        self.wake();
        self.is_read &= self.reserved.is_some();
    }

    /// A server has answered: the entry points to it from now on.
    pub(super) fn learn(&mut self, table: &Table, servers: &Servers, lesson: &Lesson) {
        let known = self.expected();
        // Whatever happens now, there is nothing to take back any more.
        self.reserved = None;
        let answered = Answered {
            entry: known,
            serving: servers[lesson.serving].identity,
            elsewhere_usable: lesson.elsewhere_usable,
            proxied: lesson.proxied,
        };
        if learn::point(&answered, self.now, table.timeout).is_none() {
            return;
        }
        // Something is to be written, so the entry is worth a second look: the answer to another request of this
        // client may have been faster.
        let entry = table.get(&self.key);
        let elsewhere_usable =
            lesson.elsewhere_usable || (entry != known && self.names_another_usable(entry, servers, lesson));
        let answered = Answered { entry, elsewhere_usable, ..answered };
        if let Some(next) = learn::point(&answered, self.now, table.timeout) {
            // A table that refuses costs the client its memory, not its answer.
            let _ = table.put(&self.key, next);
        }
    }

    /// No server has answered: the key is free again.
    pub(super) fn release(&mut self, table: &Table) {
        if let Some(reserved) = self.reserved.take() {
            table.release(&self.key, reserved);
        }
    }

    /// What is in the table now, unless somebody else has written to it.
    fn expected(&self) -> Option<Affinity> {
        self.reserved.map(Affinity::tentative).or(self.entry)
    }

    fn names_another_usable(&self, entry: Option<Affinity>, servers: &Servers, lesson: &Lesson) -> bool {
        let named =
            entry.filter(|entry| entry.is_live(self.now)).and_then(|entry| servers.by_id(entry.server()));
        named.is_some_and(|named| {
            named != lesson.serving && servers[named].state().keeps_users() && !lesson.refused.contains(named)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::servers;
    use crate::table::memory::Memory;

    const TIMEOUT: u32 = 1600;

    fn setup() -> (Table, Servers, IpAddr) {
        let client = "192.0.2.1".parse().expect("address");
        (Table::new(Box::new(Memory::new(100)), TIMEOUT), servers(2), client)
    }

    fn lesson(serving: usize) -> Lesson {
        Lesson { serving, elsewhere_usable: false, proxied: false, refused: Refused::default() }
    }

    #[test]
    fn the_second_of_two_parallel_requests_finds_what_the_first_has_reserved() {
        let (table, servers, client) = setup();
        let (mut first, mut second) = (Source::new(client), Source::new(client));
        assert_eq!(first.finding(&table, &servers), Finding::Missing);
        assert_eq!(second.finding(&table, &servers), Finding::Missing);
        assert!(first.reserve(&table, servers[1].identity));
        assert!(!second.reserve(&table, servers[0].identity));
        assert_eq!(second.finding(&table, &servers), Finding::server(1));
    }

    #[test]
    fn a_redispatched_request_replaces_its_own_reservation() {
        let (table, servers, client) = setup();
        let mut source = Source::new(client);
        source.finding(&table, &servers);
        assert!(source.reserve(&table, servers[1].identity));
        assert!(source.reserve(&table, servers[0].identity));
        source.release(&table);
        assert_eq!(table.get(&table::source_key(client)), None);
    }

    #[test]
    fn answers_of_two_usable_servers_to_parallel_requests_are_ambiguity() {
        let (table, servers, client) = setup();
        let (mut first, mut second) = (Source::new(client), Source::new(client));
        first.finding(&table, &servers);
        second.finding(&table, &servers);
        first.learn(&table, &servers, &lesson(0));
        second.learn(&table, &servers, &lesson(1));
        let entry = table.get(&table::source_key(client)).expect("learned");
        assert_eq!((entry.server(), entry.is_ambiguous()), (servers[1].identity.id, true));
    }

    #[test]
    fn the_answer_confirms_the_reservation() {
        let (table, servers, client) = setup();
        let mut source = Source::new(client);
        source.finding(&table, &servers);
        source.reserve(&table, servers[0].identity);
        source.learn(&table, &servers, &lesson(0));
        source.release(&table);
        let entry = table.get(&table::source_key(client)).expect("learned");
        assert!(!entry.is_tentative() && entry.expiry() >= clock::boot_seconds() + TIMEOUT);
    }
}
