//! What persistence knows of one request: findings, decision, reservation, and what is learned from the answer.
//!
//! The decisions are [`decide`](crate::persist::decide)'s and [`learn`](crate::persist::learn)'s; here are the look-ups
//! before and the writes after them.

use std::net::IpAddr;
use std::rc::Rc;

use balancer_ebpf::affinity::Affinity;

use super::worker::Shared;
use crate::clock;
use crate::http::request::Request;
use crate::http::response;
use crate::persist::decide::{Decision, Finding, is_refused};
use crate::persist::learn::{self, Answered, CookieFacts, Letters, SetCookie};
use crate::persist::trace::{Trace, Verdict};
use crate::persist::{CookieMethod, Method, cookie};
use crate::server::Servers;
use crate::table::{self, Key, RESERVATION_SECONDS, Table};

/// Values of our cookie that are looked at: a client has one. Several mean a mistake that the first few show.
const COOKIE_VALUES: usize = 4;

/// The values of our cookie in a request.
#[derive(Clone, Copy, Debug, Default)]
struct Named {
    /// The servers that they name, in order.
    servers: [usize; COOKIE_VALUES],
    count: usize,
    /// There was at least one value, known or not.
    present: bool,
}

impl Named {
    fn read(request: &Request<'_, '_>, method: &CookieMethod, servers: &Servers) -> Self {
        let mut named = Self::default();
        for value in request.cookie_headers().flat_map(|header| cookie::values(header, &method.name)) {
            named.present = true;
            if let (Some(server), true) = (servers.by_cookie(value), named.count < COOKIE_VALUES) {
                named.servers[named.count] = server;
                named.count += 1;
            }
        }
        named
    }

    /// The first usable one, else the first that names anybody.
    fn finding(&self, servers: &Servers, refused: u64) -> Finding {
        let known = &self.servers[..self.count];
        let usable =
            |server: &&usize| servers[**server].state().keeps_users() && !is_refused(refused, **server);
        match known.iter().find(usable).or(known.first()) {
            Some(&server) => Finding::server(server),
            None if self.present => Finding::Invalid,
            None => Finding::Missing,
        }
    }
}

/// The client's entry in the source table, as far as this request has to do with it.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    key: Key,
    now: u32,
    /// The table has been asked.
    is_read: bool,
    /// What it said, or what another request has put there since.
    entry: Option<Affinity>,
    /// What this request has put there until a server answers.
    reserved: Option<Affinity>,
}

impl Source {
    /// What is in the table now, unless somebody else has written to it.
    fn expected(&self) -> Option<Affinity> {
        self.reserved.map(Affinity::tentative).or(self.entry)
    }
}

/// One request's way through the list.
pub(super) struct Visit {
    shared: Rc<Shared>,
    named: Named,
    source: Source,
    proxied: bool,
    refused: u64,
    decision: Decision,
    chosen: Option<usize>,
}

impl Visit {
    /// Takes from the request what the methods need; tables are asked when their turn comes.
    pub(super) fn new(shared: &Rc<Shared>, request: &Request<'_, '_>, client: IpAddr) -> Self {
        let list = &shared.service.config.persist;
        let named = list.cookie().map(|method| Named::read(request, method, &shared.service.servers));
        let mut source = Source::default();
        if shared.table.is_some() {
            source.key = table::source_key(client);
            source.now = clock::boot_seconds();
        }
        Self {
            shared: Rc::clone(shared),
            named: named.unwrap_or_default(),
            source,
            proxied: request.proxied,
            refused: 0,
            decision: Decision::default(),
            chosen: None,
        }
    }

    /// The server that the request goes to, deciding on the first call and after [`Self::refuse`]. `None`: nobody is
    /// left.
    pub(super) fn choose(&mut self) -> Option<usize> {
        if self.chosen.is_none() {
            self.decide();
            if !self.reserve() {
                // Another request of this client was faster: decide once more with what it reserved.
                self.decide();
            }
        }
        self.chosen
    }

    /// The server that [`Self::choose`] returned.
    pub(super) fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Takes the chosen server out: it cannot be reached.
    pub(super) fn refuse(&mut self) {
        if let Some(server) = self.chosen.take().filter(|&server| server < 64) {
            self.refused |= 1 << server;
        }
    }

    /// Hears the methods after the deciding one, for the trace and the write-back. Called when the request is on its
    /// way, so that it does not wait for them.
    pub(super) fn hear_the_rest(&mut self) {
        let service = self.shared.service.clone();
        let heard = self.decision.trace.steps().len();
        if heard == service.config.persist.methods().len() {
            return;
        }
        for method in &service.config.persist.methods()[heard..] {
            let finding = self.finding(method);
            self.decision.weigh(finding, &service.servers, self.refused);
        }
        // Parallel requests without a cookie shall find where this client is.
        self.reserve();
    }

    /// A server has answered: points the table at it and says what to do about the cookie.
    pub(super) fn answered(&mut self, server_set_one: bool) -> SetCookie {
        self.hear_the_rest();
        self.learn_source();
        self.source.reserved = None;
        match (self.chosen, self.cookie_facts()) {
            (Some(serving), Some(facts)) => {
                learn::set_cookie(&facts, serving, &self.shared.service.servers, server_set_one)
            }
            _ => SetCookie::Nothing,
        }
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
    fn decide(&mut self) {
        let service = self.shared.service.clone();
        self.decision = Decision::default();
        for method in service.config.persist.methods() {
            if self.decision.server.is_some() && matches!(method, Method::Source(_)) && !self.source.is_read {
                break;
            }
            let finding = self.finding(method);
            self.decision.weigh(finding, &service.servers, self.refused);
        }
        self.chosen = self.decision.server;
        if self.chosen.is_none() {
            self.chosen = service.balance.pick(&service.servers, self.refused);
            self.decision.trace.balanced = self.chosen.is_some();
        }
    }

    fn finding(&mut self, method: &Method) -> Finding {
        let shared = Rc::clone(&self.shared);
        let servers = &shared.service.servers;
        match (method, &shared.table) {
            (Method::Cookie(_), _) => self.named.finding(servers, self.refused),
            (Method::Source(_), Some(table)) => self.source_finding(table, servers),
            (Method::Source(_), None) => Finding::Missing,
        }
    }

    fn source_finding(&mut self, table: &Table, servers: &Servers) -> Finding {
        let source = &mut self.source;
        if !source.is_read {
            source.entry = table.get(&source.key);
            source.is_read = true;
        }
        let Some(entry) = source.entry else { return Finding::Missing };
        if !entry.is_live(source.now) {
            return Finding::Expired;
        }
        let ambiguous = entry.is_ambiguous() && !entry.ambiguity_aged_out(source.now, table.timeout);
        servers.by_id(entry.server()).map_or(Finding::Missing, |index| Finding::Server { index, ambiguous })
    }

    /// Reserves the client's key for the chosen server, if the source method was heard and names nobody usable: a
    /// usable server there is not a gap to fill but somebody's session. False: another request has taken the key
    /// meanwhile, and its entry is now the one that counts.
    fn reserve(&mut self) -> bool {
        let Some(table) = &self.shared.table else { return true };
        let (Some(chosen), true) = (self.chosen, self.source_is_vacant()) else { return true };
        let source = &mut self.source;
        let identity = self.shared.service.servers[chosen].identity;
        let expiry = source.now.saturating_add(RESERVATION_SECONDS);
        let mut reservation = Affinity::new(identity.id, identity.generation, expiry);
        if let Some(entry) = source.entry.filter(|entry| entry.is_live(source.now)) {
            reservation = reservation.inherit_ambiguity(entry, source.now, table.timeout);
        }
        match table.reserve(&source.key, source.expected(), reservation, source.now) {
            Ok(()) => {
                source.reserved = Some(reservation);
                true
            }
            Err(winner) => {
                (source.entry, source.reserved) = (Some(winner), None);
                false
            }
        }
    }

    fn source_is_vacant(&self) -> bool {
        self.step_of(|method| matches!(method, Method::Source(_)))
            .is_some_and(|verdict| !matches!(verdict, Verdict::Hit | Verdict::Ambiguous | Verdict::Outvoted))
    }

    fn learn_source(&mut self) {
        let Some(table) = &self.shared.table else { return };
        let (Some(serving), true) = (self.chosen, self.source.is_read) else { return };
        let servers = &self.shared.service.servers;
        let (key, now, known) = (self.source.key, self.source.now, self.source.expected());
        let methods = self.shared.service.config.persist.methods();
        let place = methods.iter().position(|method| matches!(method, Method::Source(_)));
        let answered = Answered {
            entry: known,
            serving: servers[serving].identity,
            elsewhere_usable: place
                .is_some_and(|place| learn::elsewhere_usable(&self.decision.trace, place, serving)),
            proxied: self.proxied,
        };
        if learn::point(&answered, now, table.timeout).is_none() {
            return;
        }
        // Something is to be written, so the entry is worth a second look: an answer to another request of this
        // client may have been faster.
        let entry = table.get(&key);
        let taken = entry != known && self.names_another_usable(entry, serving);
        let answered = Answered { entry, elsewhere_usable: answered.elsewhere_usable || taken, ..answered };
        if let Some(next) = learn::point(&answered, now, table.timeout) {
            // A table that refuses costs the client its memory, not its answer.
            let _ = table.put(&key, next);
        }
    }

    fn names_another_usable(&self, entry: Option<Affinity>, serving: usize) -> bool {
        let servers = &self.shared.service.servers;
        entry
            .filter(|entry| entry.is_live(self.source.now))
            .and_then(|entry| servers.by_id(entry.server()))
            .is_some_and(|named| {
                named != serving && servers[named].state().keeps_users() && !is_refused(self.refused, named)
            })
    }

    fn cookie_facts(&self) -> Option<CookieFacts> {
        self.shared.service.config.persist.cookie()?;
        // Before a decision there is no step; what is to be said then is what a miss would say.
        let verdict = self.step_of(|method| matches!(method, Method::Cookie(_))).unwrap_or(Verdict::Miss);
        let finding = self.named.finding(&self.shared.service.servers, self.refused);
        Some(CookieFacts { finding, verdict, present: self.named.present })
    }

    fn step_of(&self, wanted: impl Fn(&Method) -> bool) -> Option<Verdict> {
        let methods = self.shared.service.config.persist.methods();
        let place = methods.iter().position(wanted)?;
        self.decision.trace.steps().get(place).map(|step| step.verdict)
    }
}

impl Drop for Visit {
    /// No server has answered: what was reserved for its answer is free again.
    fn drop(&mut self) {
        if let (Some(table), Some(reserved)) = (&self.shared.table, self.source.reserved.take()) {
            table.release(&self.source.key, reserved);
        }
    }
}
