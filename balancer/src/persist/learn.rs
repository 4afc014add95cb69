//! Where table entries point once a server has answered. After this every method agrees on the serving server, so the
//! next request cannot be torn between two.

use balancer_ebpf::affinity::{Affinity, SLICES};

use super::trace::{Trace, Verdict};
use crate::server::Identity;

/// What is known about a learned key when a server has answered for it.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The entry as it is in the table now.
    pub entry: Option<Affinity>,
    /// The serving server.
    pub serving: Identity,
    /// The entry names another server, and that one could have served: a second user behind the same key, not a move.
    pub elsewhere_usable: bool,
    /// The request came through another proxy (`Via`, `Forwarded`, `X-Forwarded-For`): many users, one address.
    pub proxied: bool,
}

/// The entry to write, or `None` when the one in the table says it already and is fresh enough.
///
/// `now` and `timeout` in seconds. An entry is refreshed when a sixteenth of its life has passed, so that a busy
/// client costs one write per sixteenth and not one per request.
pub fn point(answered: &Answered, now: u32, timeout: u32) -> Option<Affinity> {
    let Identity { id, generation } = answered.serving;
    let fresh = Affinity::new(id, generation, now.saturating_add(timeout));
    let Some(entry) = answered.entry.filter(|entry| entry.is_live(now)) else {
        return Some(if answered.proxied { fresh.with_ambiguity(now, timeout) } else { fresh });
    };
    let same_server = entry.server() == id;
    let evidence = answered.proxied || (!same_server && answered.elsewhere_usable && !entry.is_tentative());
    let next = if evidence {
        fresh.with_ambiguity(now, timeout)
    } else {
        fresh.inherit_ambiguity(entry, now, timeout)
    };
    let same_words = same_server
        && entry.generation() == generation
        && !entry.is_tentative()
        && entry.is_ambiguous() == next.is_ambiguous();
    let aged = next.expiry().saturating_sub(entry.expiry()) >= (timeout / SLICES).max(1);
    (!same_words || aged).then_some(next)
}

/// The same for a table that XDP does not read: which server `id` a key is bound to. `instead_of`: the server that it was
/// moved away from, and that the client goes on naming by what only the application can change.
pub fn bind(
    entry: Option<Affinity>,
    id: u16,
    instead_of: Option<u16>,
    now: u32,
    timeout: u32,
) -> Option<Affinity> {
    let next = Affinity::learned(id, now.saturating_add(timeout)).with_instead_of(instead_of);
    let says_so = entry.is_some_and(|entry| {
        let aged = next.expiry().saturating_sub(entry.expiry()) >= (timeout / SLICES).max(1);
        entry.is_live(now) && entry.until(next.expiry()) == next && !aged
    });
    (!says_so).then_some(next)
}

/// Whether the table's entry named a server other than `serving` that could have served.
pub fn elsewhere_usable(trace: &Trace, method: usize, serving: usize) -> bool {
    trace.steps().get(method).is_some_and(|step| {
        step.server.is_some_and(|named| named != serving)
            && matches!(step.verdict, Verdict::Outvoted | Verdict::Hit | Verdict::Ambiguous)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S1: Identity = Identity { id: 1, generation: 1 };
    const TIMEOUT: u32 = 1600;

    fn answered(entry: Option<Affinity>) -> Answered {
        Answered { entry, serving: S1, elsewhere_usable: false, proxied: false }
    }

    #[test]
    fn a_new_key_gets_the_full_timeout() {
        assert_eq!(point(&answered(None), 100, TIMEOUT), Some(Affinity::new(1, 1, 1700)));
    }

    #[test]
    fn an_entry_is_refreshed_after_a_sixteenth_of_its_life() {
        let entry = Affinity::new(1, 1, 1700);
        assert_eq!(point(&answered(Some(entry)), 199, TIMEOUT), None);
        assert_eq!(point(&answered(Some(entry)), 200, TIMEOUT), Some(Affinity::new(1, 1, 1800)));
    }

    #[test]
    fn a_reservation_is_confirmed_at_once() {
        let reserved = Affinity::new(1, 1, 110).tentative();
        assert_eq!(point(&answered(Some(reserved)), 101, TIMEOUT), Some(Affinity::new(1, 1, 1701)));
    }

    #[test]
    fn a_move_from_an_unusable_server_is_not_ambiguity() {
        let entry = Affinity::new(2, 1, 1700);
        let next = point(&answered(Some(entry)), 150, TIMEOUT).expect("re-pointed");
        assert_eq!((next.server(), next.is_ambiguous()), (1, false));
    }

    #[test]
    fn sessions_on_two_usable_servers_are_ambiguity() {
        let entry = Affinity::new(2, 1, 1700);
        let facts = Answered { elsewhere_usable: true, ..answered(Some(entry)) };
        let next = point(&facts, 150, TIMEOUT).expect("re-pointed");
        assert_eq!((next.server(), next.is_ambiguous()), (1, true));
        let later = point(&answered(Some(next)), 400, TIMEOUT).expect("refreshed");
        assert!(later.is_ambiguous(), "does not go away by ordinary use");
    }

    #[test]
    fn a_client_behind_a_proxy_is_ambiguous_from_the_start() {
        let facts = Answered { proxied: true, ..answered(None) };
        assert!(point(&facts, 100, TIMEOUT).expect("stored").is_ambiguous());
    }

    #[test]
    fn a_key_is_bound_and_refreshed_as_seldom() {
        let entry = Affinity::learned(1, 1700);
        assert_eq!(bind(None, 1, None, 100, TIMEOUT), Some(entry));
        assert_eq!(bind(Some(entry), 1, None, 199, TIMEOUT), None);
        assert_eq!(bind(Some(entry), 1, None, 200, TIMEOUT), Some(entry.until(1800)));
        assert_eq!(bind(Some(entry), 2, None, 101, TIMEOUT), Some(Affinity::learned(2, 1701)));
        assert_eq!(bind(Some(entry.until(110).tentative()), 1, None, 101, TIMEOUT), Some(entry.until(1701)));
        let moved = entry.with_instead_of(Some(2));
        assert_eq!(bind(Some(entry), 1, Some(2), 100, TIMEOUT), Some(moved));
        assert_eq!(bind(Some(moved), 1, None, 100, TIMEOUT), Some(entry));
        assert_eq!(bind(Some(entry), 1, None, 1700, TIMEOUT), Some(entry.until(3300)), "past its life");
    }

    #[test]
    fn a_new_generation_of_the_same_name_is_rewritten() {
        let entry = Affinity::new(1, 7, 1700);
        assert_eq!(point(&answered(Some(entry)), 101, TIMEOUT).map(Affinity::generation), Some(1));
    }
}
