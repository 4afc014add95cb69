//! The servers of the service as the kernel side knows them, while they come and go.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::server::Server;

/// Servers whose source address is looked at again in one heartbeat.
const SERVERS_A_BEAT: usize = 64;

/// A server, as far as it is of interest here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) id: u16,
    pub(super) name: String,
    pub(super) address: SocketAddr,
}

/// All of them; an id stands for one.
#[derive(Debug, Default)]
pub(super) struct Roster {
    known: Vec<Entry>,
    turn: usize,
}

impl Roster {
    pub(super) fn new(known: Vec<Entry>) -> Self {
        Self { known, turn: 0 }
    }

    /// Enters a server, or another address of it.
    pub(super) fn enter(&mut self, server: &Server) {
        let id = server.identity.id;
        if let Some(known) = self.known.iter_mut().find(|known| known.id == id) {
            known.address = server.address;
        } else {
            self.known.push(Entry { id, name: server.name.clone(), address: server.address });
        }
    }

    /// Takes a server out; true if it was there.
    pub(super) fn leave(&mut self, id: u16) -> bool {
        let before = self.known.len();
        self.known.retain(|known| known.id != id);
        self.known.len() != before
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u16> + use<> {
        self.known.iter().map(|known| known.id).collect::<Vec<_>>().into_iter()
    }

    pub(super) fn names(&self) -> HashMap<u16, String> {
        self.known.iter().map(|known| (known.id, known.name.clone())).collect()
    }

    /// The name of a server, or its id if it is no longer here.
    pub(super) fn name_of(&self, id: u16) -> String {
        self.by_id(id).map_or_else(|| format!("#{id}"), |known| known.name.clone())
    }

    pub(super) fn by_id(&self, id: u16) -> Option<&Entry> {
        self.known.iter().find(|known| known.id == id)
    }

    /// Those whose turn it is to be looked at: a bounded number, so that a thousand servers take their turns.
    pub(super) fn next_turn(&mut self) -> Vec<Entry> {
        let count = self.known.len().min(SERVERS_A_BEAT);
        self.turn = (self.turn + count) % self.known.len().max(1);
        self.known.iter().cycle().skip(self.turn).take(count).cloned().collect()
    }

    /// Who is here, by name.
    pub(super) fn names_in_use(&self) -> Vec<&str> {
        self.known.iter().map(|known| known.name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::named;

    fn roster(count: usize) -> Roster {
        let mut roster = Roster::default();
        (1..=count).for_each(|n| roster.enter(&named(n)));
        roster
    }

    #[test]
    fn a_server_at_another_address_is_the_same_server() {
        let mut roster = roster(2);
        let mut moved = named(2);
        moved.address.set_port(9);
        roster.enter(&moved);
        assert_eq!(roster.ids().collect::<Vec<_>>(), [1, 2]);
        assert!(roster.next_turn().iter().any(|known| known.address.port() == 9));
        assert!(roster.leave(2) && !roster.leave(2));
        assert_eq!(roster.names(), HashMap::from([(1, "s1".to_owned())]));
    }

    #[test]
    fn every_server_has_its_turn() {
        for count in [0, 1, SERVERS_A_BEAT, 2 * SERVERS_A_BEAT + 7] {
            let mut roster = roster(count);
            let turns = count.div_ceil(SERVERS_A_BEAT);
            let mut seen: Vec<u16> =
                (0..turns).flat_map(|_| roster.next_turn()).map(|known| known.id).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), count);
        }
    }
}
