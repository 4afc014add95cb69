//! What persistence knows of one request: findings, decision, reservation, and what is learned from the answer.
//!
//! The decisions are [`decide`](crate::persist::decide)'s and [`learn`]'s; here are the look-ups before and the writes
//! after them.

mod named;
mod source;

use std::net::IpAddr;
use std::rc::Rc;

use named::Named;
use source::{Lesson, Source};

use super::worker::Shared;
use crate::balance::{Key, Pick};
use crate::config::Balance;
use crate::http::request::Request;
use crate::http::response;
use crate::persist::Method;
use crate::persist::decide::{Decision, Finding, Refused};
use crate::persist::learn::{self, CookieFacts, Letters, SetCookie};
use crate::persist::trace::{Trace, Verdict};
use crate::service::Service;
use crate::table::source_key;

/// One request's way through the list.
pub(super) struct Visit {
    shared: Rc<Shared>,
    named: Named,
    /// `None` without a table.
    source: Option<Source>,
    /// Where the client has a connection of its own, which balancing must not take it away from.
    at_home: Option<usize>,
    proxied: bool,
    /// What it is balanced by, should no method decide.
    key: Key,
    refused: Refused,
    decision: Decision,
    chosen: Option<usize>,
    /// Where it was chosen to go it also waits: somebody would lose something elsewhere, or a key says so.
    is_bound: bool,
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// To this server and no other; it may have to wait for it.
    Bound(usize),
    /// To this server, which had room a moment ago.
    Free(usize),
    /// To whichever server has room first.
    Any,
    /// Nobody is left.
    Nobody,
}

impl Visit {
    /// Takes from the request what the methods need; tables are asked when their turn comes.
    pub(super) fn new(shared: &Rc<Shared>, request: &Request<'_, '_>, client: IpAddr) -> Self {
        let service = &shared.service;
        let mut visit = Self::begin(shared, client, key(service.balance.algorithm(), Some(request), client));
        if let Some(method) = service.config.persist.cookie() {
            visit.named = Named::read(request, method, &service.servers);
        }
        visit.proxied = request.proxied;
        visit
    }

    /// The client has a connection of its own to `server`.
    pub(super) fn at_home(mut self, server: Option<usize>) -> Self {
        self.at_home = server;
        self
    }

    /// The same for a connection that is not HTTP: its address is all that is known of it.
    pub(super) fn of_connection(shared: &Rc<Shared>, client: IpAddr) -> Self {
        Self::begin(shared, client, key(shared.service.balance.algorithm(), None, client))
    }

    fn begin(shared: &Rc<Shared>, client: IpAddr, key: Key) -> Self {
        Self {
            shared: Rc::clone(shared),
            named: Named::default(),
            source: shared.table.as_ref().map(|_| Source::new(client)),
            at_home: None,
            proxied: false,
            key,
            refused: Refused::default(),
            decision: Decision::default(),
            chosen: None,
            is_bound: false,
        }
    }

    /// Where the request goes, deciding on the first call and after [`Self::refuse`] and [`Self::reconsider`].
    pub(super) fn choose(&mut self) -> Choice {
        let mut pick = Pick::None;
        if self.chosen.is_none() {
            pick = self.decide();
            if !self.reserve() {
                // Another request of this client was faster: decide once more with what it reserved.
                pick = self.decide();
            }
        }
        match self.chosen {
            Some(server) if self.is_bound => Choice::Bound(server),
            Some(server) => Choice::Free(server),
            None if pick == Pick::Full => Choice::Any,
            None => Choice::Nobody,
        }
    }

    /// `server` is who had room first. False: it is not for the request any more, since another one of its client was
    /// faster; where it goes is to be chosen anew.
    pub(super) fn settle(&mut self, server: usize) -> bool {
        (self.chosen, self.is_bound) = (Some(server), false);
        self.decision.trace.balanced = true;
        self.source.iter_mut().for_each(Source::wake);
        let is_free = self.reserve();
        if !is_free {
            self.chosen = None;
        }
        is_free
    }

    /// What was chosen may be out of date.
    pub(super) fn reconsider(&mut self) {
        self.chosen = None;
        self.source.iter_mut().for_each(Source::forget);
    }

    /// The server that [`Self::choose`] returned.
    pub(super) fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// A method has decided, so the client has reason to be there.
    pub(super) fn was_decided(&self) -> bool {
        self.decision.server.is_some()
    }

    /// The servers that were taken out.
    pub(super) fn refused(&self) -> Refused {
        self.refused
    }

    /// Takes the chosen server out: it cannot be reached.
    pub(super) fn refuse(&mut self) {
        if let Some(server) = self.chosen.take() {
            self.refused.insert(server);
        }
    }

    /// Hears the methods after the deciding one, for the trace and the write-back. Called when the request is on its
    /// way, so that it does not wait for them.
    pub(super) fn hear_the_rest(&mut self) {
        let shared = Rc::clone(&self.shared);
        let heard = self.decision.trace.steps().len();
        let Some(rest @ [_, ..]) = shared.service.config.persist.methods().get(heard..) else { return };
        for method in rest {
            let finding = self.finding(&shared, method);
            self.decision.weigh(finding, &shared.service.servers, &self.refused);
        }
        // Parallel requests without a cookie shall find where this client is.
        self.reserve();
    }

    /// A server has answered: points the table at it and says what to do about the cookie.
    pub(super) fn answered(&mut self, server_set_one: bool) -> SetCookie {
        self.hear_the_rest();
        let Some(serving) = self.chosen else { return SetCookie::Nothing };
        self.learn_source(serving);
        self.cookie_facts().map_or(SetCookie::Nothing, |facts| {
            learn::set_cookie(&facts, serving, &self.shared.service.servers, server_set_one)
        })
    }

    /// The cookie to write for what [`Self::answered`] returned.
    pub(super) fn set_cookie<'a>(&self, shared: &'a Shared, action: SetCookie) -> response::SetCookie<'a> {
        let Some(method) = shared.service.config.persist.cookie() else { return response::SetCookie::None };
        let value = self.chosen.and_then(|server| shared.service.servers[server].cookie.as_deref());
        match (action, value) {
            (SetCookie::Insert, Some(value)) => response::SetCookie::Issue { name: &method.name, value },
            (SetCookie::Delete, _) => response::SetCookie::Delete { name: &method.name },
            (SetCookie::Insert, None) | (SetCookie::Nothing, _) => response::SetCookie::None,
        }
    }

    /// The two letters; `issued`: what [`Self::answered`] returned, if a server did answer.
    pub(super) fn letters(&self, issued: Option<SetCookie>) -> Letters {
        self.cookie_facts().map_or(Letters::NO_COOKIE, |facts| Letters {
            request: learn::request_letter(&facts),
            response: learn::response_letter(issued.unwrap_or(SetCookie::Nothing)),
        })
    }

    /// What every method that was heard said.
    pub(super) fn trace(&self) -> &Trace {
        &self.decision.trace
    }

    /// Hears the list up to the deciding method, and beyond it those that cost nothing to hear; then balances.
    fn decide(&mut self) -> Pick {
        let shared = Rc::clone(&self.shared);
        let service = &shared.service;
        self.decision = Decision::default();
        for method in service.config.persist.methods() {
            if self.decision.server.is_some() && self.would_ask_a_table(method) {
                break;
            }
            let finding = self.finding(&shared, method);
            self.decision.weigh(finding, &service.servers, &self.refused);
        }
        let pick = match self.decision.server {
            Some(server) => Pick::Keyed(server),
            None => self.balance(service),
        };
        (self.chosen, self.is_bound) = (pick.place(), matches!(pick, Pick::Keyed(_)));
        self.decision.trace.balanced = self.decision.server.is_none() && self.chosen.is_some();
        pick
    }

    fn balance(&self, service: &Service) -> Pick {
        let keeps =
            |&home: &usize| service.servers[home].state().keeps_users() && !self.refused.contains(home);
        match self.at_home.filter(keeps) {
            Some(home) => Pick::Keyed(home),
            None => service.balance.pick(&service.servers, &self.refused, self.key),
        }
    }

    fn would_ask_a_table(&self, method: &Method) -> bool {
        matches!(method, Method::Source(_)) && self.source.is_some_and(|source| !source.is_read)
    }

    fn finding(&mut self, shared: &Shared, method: &Method) -> Finding {
        let servers = &shared.service.servers;
        match (method, &mut self.source, &shared.table) {
            (Method::Cookie(_), ..) => self.named.finding(servers, &self.refused),
            (Method::Source(_), Some(source), Some(table)) => source.finding(table, servers),
            (Method::Source(_), ..) => Finding::Missing,
        }
    }

    /// Reserves the client's key for the chosen server, if the source method was heard and names nobody usable: a
    /// usable server there is not a gap to fill but somebody's session. False: another request was faster.
    fn reserve(&mut self) -> bool {
        let is_vacant = self
            .step_of(|method| matches!(method, Method::Source(_)))
            .is_some_and(|verdict| !matches!(verdict, Verdict::Hit | Verdict::Ambiguous | Verdict::Outvoted));
        match (&mut self.source, &self.shared.table, self.chosen) {
            (Some(source), Some(table), Some(chosen)) if is_vacant => {
                source.reserve(table, self.shared.service.servers[chosen].identity)
            }
            _ => true,
        }
    }

    fn learn_source(&mut self, serving: usize) {
        let place = self.place_of(|method| matches!(method, Method::Source(_)));
        let (Some(source), Some(table), Some(place)) = (&mut self.source, &self.shared.table, place) else {
            return;
        };
        let elsewhere_usable = learn::elsewhere_usable(&self.decision.trace, place, serving);
        let lesson = Lesson { serving, elsewhere_usable, proxied: self.proxied, refused: self.refused };
        source.learn(table, &self.shared.service.servers, &lesson);
    }

    fn cookie_facts(&self) -> Option<CookieFacts> {
        self.shared.service.config.persist.cookie()?;
        // Before a decision there is no step; what is to be said then is what a miss would say.
        let verdict = self.step_of(|method| matches!(method, Method::Cookie(_))).unwrap_or(Verdict::Miss);
        let finding = self.named.finding(&self.shared.service.servers, &self.refused);
        Some(CookieFacts { finding, verdict, present: self.named.present })
    }

    fn step_of(&self, wanted: impl Fn(&Method) -> bool) -> Option<Verdict> {
        self.decision.trace.steps().get(self.place_of(wanted)?).map(|step| step.verdict)
    }

    fn place_of(&self, wanted: impl Fn(&Method) -> bool) -> Option<usize> {
        self.shared.service.config.persist.methods().iter().position(wanted)
    }
}

/// What is balanced by; there is no `request` on a connection that is not HTTP.
fn key(algorithm: &Balance, request: Option<&Request<'_, '_>>, client: IpAddr) -> Key {
    let bytes = match algorithm {
        Balance::RoundRobin | Balance::LeastConn | Balance::Random | Balance::First => return Key::NONE,
        Balance::Source => return Key::new(&source_key(client)),
        Balance::Uri => request.map(|request| request.path().as_bytes()),
        Balance::Header(name) => request.and_then(|request| request.header(name)),
        Balance::Query(name) => request.and_then(|request| request.parameter(name)).map(str::as_bytes),
    };
    bytes.filter(|bytes| !bytes.is_empty()).map_or(Key::NONE, Key::new)
}

impl Drop for Visit {
    /// Only does something when no server has answered.
    fn drop(&mut self) {
        if let (Some(source), Some(table)) = (&mut self.source, &self.shared.table) {
            source.release(table);
        }
    }
}
