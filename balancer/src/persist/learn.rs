//! What is written once a server has answered: the cookie to issue, and where the table entry points.
//!
//! After this every method agrees on the serving server, so the next request cannot be torn between two.

use balancer_ebpf::affinity::{Affinity, SLICES};

use super::decide::Finding;
use super::trace::{Trace, Verdict};
use crate::server::{Identity, Servers};

/// HAProxy's two letters of persistence, as they stand in its termination state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Letters {
    /// `N` none, `I` invalid, `D` names a down server, `V` valid, `U` present but unused, `-` no cookie method.
    pub request: char,
    /// `N` none, `I` inserted, `D` deleted, `-` no cookie method.
    pub response: char,
}

impl Letters {
    /// For a service without a cookie method.
    pub const NO_COOKIE: Self = Self { request: '-', response: '-' };
}

/// What to do about the persistence cookie (`insert` mode) in the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetCookie {
    /// The client has the right one, or the server has no id.
    Nothing,
    /// Issue `NAME=<cookie of the serving server>`.
    Insert,
    /// The serving server has no id and the client holds a cookie of ours: take it back.
    Delete,
}

/// What the request said about the cookie method, for [`set_cookie`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CookieFacts {
    /// What the cookie named.
    pub finding: Finding,
    /// The step of the trace that belongs to the cookie method.
    pub verdict: Verdict,
    /// The client sent at least one cookie of that name.
    pub present: bool,
}

/// `insert` mode: ours is issued unless the client already names the serving server and the server set none itself.
/// `server_set_one`: the response carries a Set-Cookie of our name, which is removed by the caller.
pub fn set_cookie(facts: &CookieFacts, serving: usize, servers: &Servers, server_set_one: bool) -> SetCookie {
    if servers[serving].cookie.is_none() {
        return if facts.present { SetCookie::Delete } else { SetCookie::Nothing };
    }
    let names_serving = matches!(facts.finding, Finding::Server { index, .. } if index == serving);
    if names_serving && !server_set_one { SetCookie::Nothing } else { SetCookie::Insert }
}

/// The letter for what the request carried.
pub fn request_letter(facts: &CookieFacts) -> char {
    match facts.verdict {
        Verdict::Hit | Verdict::Ambiguous => 'V',
        Verdict::Outvoted => 'U',
        Verdict::Down | Verdict::Maint => 'D',
        Verdict::Invalid => 'I',
        Verdict::Miss | Verdict::Expired => 'N',
    }
}

/// The letter for what the response carries.
pub fn response_letter(action: SetCookie) -> char {
    match action {
        SetCookie::Nothing => 'N',
        SetCookie::Insert => 'I',
        SetCookie::Delete => 'D',
    }
}

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
    use crate::server::tests::servers;

    const S1: Identity = Identity { id: 1, generation: 1 };
    const TIMEOUT: u32 = 1600;

    fn answered(entry: Option<Affinity>) -> Answered {
        Answered { entry, serving: S1, elsewhere_usable: false, proxied: false }
    }

    fn facts(finding: Finding, verdict: Verdict) -> CookieFacts {
        CookieFacts { finding, verdict, present: finding != Finding::Missing }
    }

    #[test]
    fn a_client_without_cookie_gets_one_and_a_client_with_it_does_not() {
        let set = servers(2);
        assert_eq!(set_cookie(&facts(Finding::Missing, Verdict::Miss), 0, &set, false), SetCookie::Insert);
        assert_eq!(set_cookie(&facts(Finding::server(0), Verdict::Hit), 0, &set, false), SetCookie::Nothing);
    }

    #[test]
    fn a_server_that_sets_our_cookie_itself_is_overruled() {
        let set = servers(2);
        assert_eq!(set_cookie(&facts(Finding::server(0), Verdict::Hit), 0, &set, true), SetCookie::Insert);
    }

    #[test]
    fn a_moved_client_gets_a_new_cookie() {
        let set = servers(2);
        assert_eq!(set_cookie(&facts(Finding::server(1), Verdict::Down), 0, &set, false), SetCookie::Insert);
        assert_eq!(request_letter(&facts(Finding::server(1), Verdict::Down)), 'D');
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
    fn a_new_generation_of_the_same_name_is_rewritten() {
        let entry = Affinity::new(1, 7, 1700);
        assert_eq!(point(&answered(Some(entry)), 101, TIMEOUT).map(Affinity::generation), Some(1));
    }
}
