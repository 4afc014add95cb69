//! What persistence knows of one request: claims, decision, reservation, and what is learned from the answer.
//!
//! The decisions are [`decide`](crate::persist::decide)'s, [`learn`](crate::persist::learn)'s and [`issue`]'s; here are the
//! look-ups before and the writes after them. `balancer explain` goes the same way and leaves the writes out.

mod books;
mod learned;
mod recent;
mod rehearsal;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

pub use books::Books;
use learned::{Learned, Lesson, Write};
pub use recent::{Decided, Recent};
pub use rehearsal::Rehearsal;

use crate::balance::{Key, Pick};
use crate::clock;
use crate::config::Balance;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::persist::decide::{Decision, Finding, Hold, OnDown, Policy, Refused, Scene};
use crate::persist::issue::{self, ByServer, CookieFacts, Issue, Letters, SetCookie};
use crate::persist::learn;
use crate::persist::named::{Named, split_prefix};
use crate::persist::session::{self, Issued};
use crate::persist::trace::{Trace, Verdict};
use crate::persist::{CookieMode, Method, cookie};
use crate::table::{Table, source_key};

/// A status that teaches, for what has none: a connection that is not HTTP, and one that has become something else.
const GOOD: u16 = 200;

/// One request's way through the list.
pub struct Visit {
    books: Rc<Books>,
    client: IpAddr,
    /// Seconds of the boot clock: what entries expire by.
    now: u32,
    /// What the request says by each method, in the order of the list.
    claims: Vec<Claim>,
    /// Where the client has a connection of its own, which balancing must not take it away from.
    at_home: Option<usize>,
    proxied: bool,
    is_post: bool,
    /// `--persist-ignore` names its path: it is balanced, and leaves nothing behind.
    ignored: bool,
    /// What it is balanced by, should no method decide.
    key: Key,
    refused: Refused,
    /// The server that the client is bound to has been waited for.
    has_waited: bool,
    decision: Decision,
    chosen: Option<usize>,
    /// What balancing has said, if it was asked.
    pick: Pick,
}

/// What a request says by one method.
enum Claim {
    /// It names servers itself.
    Named(Named),
    /// It has a key in a learned table.
    Learned(Learned),
}

/// Where a request goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// To this server and no other; it may have to wait for it.
    Bound(usize),
    /// To this server, which had room a moment ago.
    Free(usize),
    /// To whichever server has room first.
    Any,
    /// To nobody yet, or to nobody at all: the client stays bound to a server that is down.
    Hold(Hold),
    /// Nobody is left.
    Nobody,
}

impl Visit {
    /// Takes from the request what the methods need; tables are asked when their turn comes.
    pub fn new(books: &Rc<Books>, request: &Request<'_, '_>, client: IpAddr) -> Self {
        let config = &books.service.config;
        let path = request.path();
        let claims = config.persist.methods().iter().enumerate();
        let key = key(books.service.balance.algorithm(), Some(request), client);
        let mut visit = Self::begin(books, client, key);
        visit.claims = claims.map(|(place, method)| claim(books, place, method, request, client)).collect();
        visit.proxied = request.proxied;
        visit.is_post = request.method == "POST";
        visit.ignored = config.persist_ignore.iter().any(|prefix| path.starts_with(prefix));
        visit
    }

    /// The client has a connection of its own to `server`.
    #[must_use]
    pub fn at_home(mut self, server: Option<usize>) -> Self {
        self.at_home = server;
        self
    }

    /// The same for a connection that is not HTTP: its address is all that is known of it.
    pub fn of_connection(books: &Rc<Books>, client: IpAddr) -> Self {
        let claims = books.service.config.persist.methods().iter().enumerate();
        let claim = |(place, _)| Claim::Learned(of_address(books.tables.get(place), client));
        let mut visit = Self::begin(books, client, key(books.service.balance.algorithm(), None, client));
        visit.claims = claims.map(claim).collect();
        visit
    }

    fn begin(books: &Rc<Books>, client: IpAddr, key: Key) -> Self {
        Self {
            books: Rc::clone(books),
            client,
            now: if books.tables.is_empty() { 0 } else { clock::boot_seconds() },
            claims: Vec::new(),
            at_home: None,
            proxied: false,
            is_post: false,
            ignored: false,
            key,
            refused: Refused::default(),
            has_waited: false,
            decision: Decision::default(),
            chosen: None,
            pick: Pick::None,
        }
    }

    /// Where the request goes, deciding on the first call and after [`Self::refuse`], [`Self::reconsider`] and
    /// [`Self::has_waited`].
    pub fn choose(&mut self) -> Choice {
        if self.chosen.is_none() {
            self.decide();
            if !self.reserve() {
                // Another request of this client was faster: decide once more with what it reserved.
                self.decide();
                self.reserve();
            }
        }
        self.choice()
    }

    /// `server` is who had room first. False: it is not for the request any more, since another one of its client was
    /// faster; where it goes is to be chosen anew.
    pub fn settle(&mut self, server: usize) -> bool {
        (self.chosen, self.pick) = (Some(server), Pick::Free(server));
        self.decision.trace.balanced = true;
        self.wake();
        let is_free = self.reserve();
        if !is_free {
            self.chosen = None;
        }
        is_free
    }

    /// What was chosen may be out of date, as may what tables have said.
    pub fn reconsider(&mut self) {
        self.chosen = None;
        self.wake();
        for claim in &mut self.claims {
            if let Claim::Learned(learned) = claim {
                learned.forget();
            }
        }
    }

    /// A method has decided, so the client has reason to be there.
    pub fn was_decided(&self) -> bool {
        self.decision.server.is_some()
    }

    /// It was only its turn that led the request where it was sent, and there is somebody else.
    pub fn could_go_elsewhere(&self) -> bool {
        let (Some(chosen), Pick::Free(_)) = (self.chosen, self.pick) else { return false };
        let mut refused = self.refused;
        refused.insert(chosen);
        let service = &self.books.service;
        !service.balance.candidates(&service.servers, &refused, self.key).is_empty()
    }

    /// The servers that were taken out.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The server that [`Self::choose`] returned.
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Takes the chosen server out: it cannot be reached.
    pub fn refuse(&mut self) {
        if let Some(server) = self.chosen.take() {
            self.refused.insert(server);
        }
    }

    /// The server that the client is bound to has been waited for; whether it has come back is seen now.
    pub fn has_waited(&mut self) {
        self.has_waited = true;
        self.reconsider();
    }

    /// Hears the methods after the deciding one, for the trace and the write-back. Called when the request is on its
    /// way, so that it does not wait for them.
    pub fn hear_the_rest(&mut self) {
        let (heard, all) = (self.decision.trace.steps().len(), self.claims.len());
        if self.ignored || heard >= all {
            return;
        }
        self.hear(heard..all, |_, _| true);
        // Parallel requests without a cookie shall find where this client is.
        self.reserve();
    }

    /// A server has answered: points the tables at it and says what to do about the cookie. `None`: what it has answered
    /// is not HTTP.
    pub fn answered(&mut self, response: Option<&Response<'_, '_>>) -> SetCookie {
        self.hear_the_rest();
        let Some(serving) = self.chosen else { return SetCookie::Nothing };
        let by_server = self.by_server(response);
        let mut action = self.cookie_after(serving, by_server);
        // The client is elsewhere already, and a cookie of ours would lead it back.
        let is_ours = action == SetCookie::Insert && by_server == ByServer::Nothing;
        if is_ours && !self.ignored && self.comes_late(serving) {
            action = SetCookie::Nothing;
        }
        if !self.ignored {
            for (place, write) in self.writes(serving, by_server, response) {
                self.perform(place, &write);
            }
        }
        action
    }

    /// Since the decision another request of the client has been answered elsewhere, or the operator has spoken.
    fn comes_late(&self, serving: usize) -> bool {
        let servers = &self.books.service.servers;
        let scene = Scene { servers, refused: &self.refused, policy: self.policy() };
        let id = servers[serving].identity.id;
        self.claims.iter().enumerate().any(|(place, claim)| match (claim, self.books.tables.get(place)) {
            (Claim::Learned(learned), Some(table)) => learned.comes_late(table, id, self.now, &scene),
            _ => false,
        })
    }

    /// What is done about the cookie once `serving` has answered.
    fn cookie_after(&self, serving: usize, by_server: ByServer) -> SetCookie {
        let service = &self.books.service;
        match (service.config.persist.cookie(), self.cookie_facts()) {
            (Some(method), Some(facts)) => {
                issue::set_cookie(method, &facts, serving, &service.servers, by_server)
            }
            _ => SetCookie::Nothing,
        }
    }

    /// What [`Self::answered`] has decided about the cookie, to be written.
    pub fn issue<'a>(&self, books: &'a Books, action: SetCookie) -> Option<Issue<'a>> {
        let method = books.service.config.persist.cookie()?;
        let id = self.chosen.and_then(|server| books.service.servers[server].cookie.as_deref());
        let is_timed = method.is_dated() || method.mode != CookieMode::Insert;
        let now = if is_timed && action != SetCookie::Nothing { clock::unix_seconds() } else { 0 };
        Some(Issue { method, action, id, first_seen: self.first_seen(), now })
    }

    /// The two letters; `issued`: what [`Self::answered`] returned, if a server did answer.
    pub fn letters(&self, issued: Option<SetCookie>) -> Letters {
        self.cookie_facts().map_or(Letters::NO_COOKIE, |facts| Letters {
            request: issue::request_letter(&facts),
            response: issue::response_letter(issued.unwrap_or(SetCookie::Nothing)),
        })
    }

    /// `--persist-ignore` names its path.
    pub fn is_ignored(&self) -> bool {
        self.ignored
    }

    /// What every method that was heard said.
    pub fn trace(&self) -> &Trace {
        &self.decision.trace
    }

    fn choice(&self) -> Choice {
        match (self.chosen, self.decision.hold) {
            (Some(server), _) if matches!(self.pick, Pick::Free(_)) => Choice::Free(server),
            (Some(server), _) => Choice::Bound(server),
            (None, Some(hold)) => Choice::Hold(hold),
            (None, None) if self.pick == Pick::Full => Choice::Any,
            (None, None) => Choice::Nobody,
        }
    }

    /// The request has waited, and the clock has gone on.
    fn wake(&mut self) {
        self.now = clock::boot_seconds();
    }

    /// Hears the list up to the deciding method, and beyond it those that cost nothing to hear; then balances.
    fn decide(&mut self) {
        self.decide_without_balancing();
        if self.chosen.is_none() && self.decision.hold.is_none() {
            self.balance();
        }
    }

    fn decide_without_balancing(&mut self) {
        self.decision = Decision::default().away_from(self.left());
        if !self.ignored {
            self.hear(0..self.claims.len(), |visit, place| {
                visit.decision.server.is_none() || !visit.would_ask_a_table(place)
            });
        }
        (self.chosen, self.pick) = (self.decision.server, Pick::None);
    }

    /// Hears these methods for as long as `go_on` says so.
    fn hear(&mut self, places: Range<usize>, go_on: impl Fn(&Self, usize) -> bool) {
        let books = Rc::clone(&self.books);
        let (refused, policy) = (self.refused, self.policy());
        let scene = Scene { servers: &books.service.servers, refused: &refused, policy };
        for place in places {
            if !go_on(self, place) {
                break;
            }
            let finding = match (&mut self.claims[place], books.tables.get(place)) {
                (Claim::Named(named), _) => named.finding(&scene),
                (Claim::Learned(learned), Some(table)) => learned.finding(table, &scene, self.now),
                (Claim::Learned(_), None) => Finding::Missing,
            };
            let is_fixed = books.service.config.persist.methods()[place].is_fixed();
            self.decision.weigh(finding, is_fixed, &scene);
        }
    }

    fn balance(&mut self) {
        let service = &self.books.service;
        let keeps =
            |&home: &usize| service.servers[home].state().keeps_users() && !self.refused.contains(home);
        self.pick = match self.at_home.filter(keeps) {
            Some(home) => Pick::Keyed(home),
            None => service.balance.pick(&service.servers, &self.refused, self.key),
        };
        self.chosen = self.pick.place();
        self.decision.trace.balanced = self.chosen.is_some();
    }

    /// Whom the balancing could choose, in today's order; one server where a hash decides.
    fn candidates(&self) -> Vec<usize> {
        let service = &self.books.service;
        service.balance.candidates(&service.servers, &self.refused, self.key)
    }

    /// What the flags say, for this request.
    fn policy(&self) -> Policy {
        let mut policy = self.books.service.config.policy;
        if self.has_waited {
            policy.on_down = OnDown::Move;
        }
        policy
    }

    /// A learned session remembers that its client was moved away from a server. That has to be known before a cookie
    /// that only the application can change is heard, so the tables of sessions are asked first where there is one.
    fn left(&mut self) -> Option<usize> {
        let books = Rc::clone(&self.books);
        let methods = books.service.config.persist.methods();
        if self.ignored || !methods.iter().any(Method::is_fixed) {
            return None;
        }
        let (refused, policy) = (self.refused, self.policy());
        let scene = Scene { servers: &books.service.servers, refused: &refused, policy };
        let now = self.now;
        (0..).zip(&mut self.claims).find_map(|(place, claim)| {
            match (claim, &methods[place], books.tables.get(place)) {
                (Claim::Learned(learned), Method::Session(_), Some(table)) => {
                    learned.finding(table, &scene, now);
                    learned.left(&scene, now)
                }
                _ => None,
            }
        })
    }

    fn would_ask_a_table(&self, place: usize) -> bool {
        matches!(&self.claims[place], Claim::Learned(learned) if !learned.is_read)
    }

    /// Reserves the client's keys for the chosen server, in the tables that were heard and name nobody usable: a usable
    /// server there is not a gap to fill but somebody's session. False: another request was faster, and no method before
    /// that one binds this client.
    fn reserve(&mut self) -> bool {
        let is_vacant = |verdict| !matches!(verdict, Verdict::Hit | Verdict::Ambiguous | Verdict::Outvoted);
        let Some(chosen) = self.chosen else { return true };
        let books = Rc::clone(&self.books);
        let server = books.service.servers[chosen].identity;
        let mut has_one = self.decision.server.is_some();
        for (place, (claim, step)) in self.claims.iter_mut().zip(self.decision.trace.steps()).enumerate() {
            let (Claim::Learned(learned), Some(table), true) =
                (claim, books.tables.get(place), is_vacant(step.verdict))
            else {
                continue;
            };
            if learned.reserve(table, server, self.now, || books.admit(self.client, self.now)) {
                has_one = true;
            } else if !has_one {
                return false;
            }
        }
        true
    }

    /// What is to be written into the tables, by place in the list.
    fn writes(
        &self,
        serving: usize,
        by_server: ByServer,
        response: Option<&Response<'_, '_>>,
    ) -> Vec<(usize, Write)> {
        let service = &self.books.service;
        // Nothing is asked here that is not asked for: most requests write nothing.
        let mut writes = Vec::new();
        let status =
            response.map_or(GOOD, |response| if response.status == 101 { GOOD } else { response.status });
        let (moved_from, named_besides) = self.fixed(serving, by_server, response);
        for (place, (claim, method)) in self.claims.iter().zip(service.config.persist.methods()).enumerate() {
            let (Claim::Learned(learned), Some(table)) = (claim, self.books.tables.get(place)) else {
                continue;
            };
            let lesson = Lesson {
                serving: service.servers[serving].identity,
                creates: method.creates(status),
                elsewhere_usable: learn::elsewhere_usable(&self.decision.trace, place, serving),
                proxied: self.proxied,
                moved_from,
                named_besides,
            };
            match (method, self.issued(method, response)) {
                (Method::Session(_), Issued::Id(id)) => {
                    let key = table.key(&id);
                    let is_the_same = key.is_some() && key == learned.key();
                    let of_request = Lesson { creates: lesson.creates && is_the_same, ..lesson };
                    writes.extend(self.write(learned, table, &of_request).map(|write| (place, write)));
                    if !is_the_same {
                        // The client still says what only the application can change: the new id remembers the move,
                        // too, whether it was just now or with the old one.
                        let remembered =
                            lesson.named_besides.filter(|left| learned.remembers(*left, self.now));
                        let fresh = Lesson { moved_from: lesson.moved_from.or(remembered), ..lesson };
                        writes.extend(self.write_new(table, &id, &fresh).map(|write| (place, write)));
                    }
                }
                (Method::Session(_), Issued::Deleted) => {
                    writes.extend(learned.key().map(|key| (place, Write::Forget(key))));
                }
                (Method::Session(session), Issued::Nothing) => {
                    let lesson = Lesson { creates: lesson.creates && session.request_learn, ..lesson };
                    writes.extend(self.write(learned, table, &lesson).map(|write| (place, write)));
                }
                _ => writes.extend(self.write(learned, table, &lesson).map(|write| (place, write))),
            }
        }
        writes
    }

    /// What the answer makes of the request's key in a table.
    fn write(&self, learned: &Learned, table: &Table, lesson: &Lesson) -> Option<Write> {
        learned.lesson(table, lesson, self.now)?;
        let servers = &self.books.service.servers;
        let scene = Scene { servers, refused: &self.refused, policy: self.policy() };
        learned.lesson_after_all(table, lesson, self.now, &scene)
    }

    /// The same for an id that the server has just issued.
    fn write_new(&self, table: &Table, id: &[u8], lesson: &Lesson) -> Option<Write> {
        let key = table.key(id)?;
        let found = table.find(&key);
        let is_known =
            found.is_some_and(|found| found.entry.is_live(self.now) && !found.entry.is_tentative());
        if !is_known && (!lesson.creates || !self.books.admit(self.client, self.now)) {
            return None;
        }
        learned::write(table, key, found.map(|found| found.entry), found, lesson, self.now)
    }

    fn perform(&mut self, place: usize, write: &Write) {
        let books = Rc::clone(&self.books);
        let (Claim::Learned(learned), Some(table)) = (&mut self.claims[place], books.tables.get(place))
        else {
            return;
        };
        match write {
            Write::Learn { key, entry, seen } => {
                // A table that refuses costs the client its memory, not its answer.
                let _ = table.learn(key, *entry, *seen);
                if learned.key() == Some(*key) {
                    learned.keep();
                }
            }
            Write::Forget(key) => {
                table.forget(key);
                learned.keep();
            }
        }
    }

    /// By methods that only the application can change the client belongs to another server than `serving`: the ids of
    /// the one that it was moved away from, and of the one that it names all the same.
    fn fixed(
        &self,
        serving: usize,
        by_server: ByServer,
        response: Option<&Response<'_, '_>>,
    ) -> (Option<u16>, Option<u16>) {
        let methods = self.books.service.config.persist.methods();
        let mut found = (None, None);
        for (method, step) in methods.iter().zip(self.decision.trace.steps()).filter(|(m, _)| m.is_fixed()) {
            let Some(named) = step.server.filter(|named| *named != serving) else { continue };
            let is_set_anew = match method {
                Method::Route(route) => response.is_some_and(|response| {
                    let now = clock::unix_seconds();
                    issue::by_server(&route.name, response.set_cookies(), now) == ByServer::Value
                }),
                _ => by_server == ByServer::Value,
            };
            if is_set_anew {
                continue;
            }
            let id = Some(self.books.service.servers[named].identity.id);
            match step.verdict {
                Verdict::Down | Verdict::Maint | Verdict::Backup => found.0 = id,
                Verdict::Outvoted => found.1 = id,
                Verdict::Hit | Verdict::Ambiguous | Verdict::Miss | Verdict::Invalid | Verdict::Expired => {}
            }
        }
        found
    }

    fn by_server(&self, response: Option<&Response<'_, '_>>) -> ByServer {
        let (Some(method), Some(response)) = (self.books.service.config.persist.cookie(), response) else {
            return ByServer::Nothing;
        };
        // Whether a date is past is only asked where the answer to that matters.
        let now = if method.mode == CookieMode::Insert { 0 } else { clock::unix_seconds() };
        issue::by_server(&method.name, response.set_cookies(), now)
    }

    fn issued<'a>(&self, method: &Method, response: Option<&'a Response<'_, '_>>) -> Issued<'a> {
        match (method, response) {
            (Method::Session(session), Some(response)) if response.set_cookies().next().is_some() => {
                session::issued(response.set_cookies(), session, clock::unix_seconds())
            }
            _ => Issued::Nothing,
        }
    }

    fn named(&self) -> Option<&Named> {
        let methods = self.books.service.config.persist.methods();
        let place = methods.iter().position(|method| matches!(method, Method::Cookie(_)))?;
        match self.claims.get(place)? {
            Claim::Named(named) => Some(named),
            Claim::Learned(_) => None,
        }
    }

    fn first_seen(&self) -> Option<u64> {
        self.named()?.first_seen(self.chosen)
    }

    fn cookie_facts(&self) -> Option<CookieFacts> {
        let service = &self.books.service;
        let methods = service.config.persist.methods();
        let place = methods.iter().position(|method| matches!(method, Method::Cookie(_)))?;
        let named = self.named()?;
        let policy = Policy { on_down: OnDown::Move, ..service.config.policy };
        let scene = Scene { servers: &service.servers, refused: &self.refused, policy };
        // Before a decision there is no step; what is to be said then is what a miss would say.
        let verdict = self.decision.trace.steps().get(place).map_or(Verdict::Miss, |step| step.verdict);
        Some(CookieFacts {
            finding: named.finding(&scene),
            verdict,
            present: named.present,
            refresh: self.chosen.is_some_and(|serving| named.is_to_be_refreshed(serving)),
            stale: named.stale(),
            first_seen: self.first_seen(),
            is_post: self.is_post,
            ignored: self.ignored,
        })
    }
}

/// What the request says by the method at `place` of the list.
fn claim(books: &Books, place: usize, method: &Method, request: &Request<'_, '_>, client: IpAddr) -> Claim {
    let (service, table) = (&books.service, books.tables.get(place));
    let mut learned = Learned::default();
    let mut note = |id: &[u8]| {
        if let Some(key) = table.and_then(|table| table.key(id)) {
            learned.add(key);
        }
    };
    match method {
        Method::Cookie(cookie) => {
            let now = if cookie.is_dated() { clock::unix_seconds() } else { 0 };
            return Claim::Named(Named::by_cookie(request, cookie, &service.servers, now));
        }
        Method::Route(route) => return Claim::Named(Named::by_route(request, route, &service.servers)),
        Method::Source(_) => return Claim::Learned(of_address(table, client)),
        Method::Session(session) => {
            // Of a cookie with a prefix of ours the application only knows the rest.
            let prefixed = service.config.persist.cookie();
            let prefixed =
                prefixed.filter(|cookie| cookie.mode == CookieMode::Prefix && cookie.name == session.name);
            session::ids(request, session, |id: Cow<'_, [u8]>| match prefixed {
                Some(_) => {
                    note(split_prefix(&id, &service.servers).map_or(&*id, |(_, rest)| cookie::unquote(rest)));
                }
                None => note(&id),
            });
        }
        Method::Header(value) => request.header(&value.name).into_iter().for_each(note),
        Method::Query(value) => request.parameter(&value.name).map(str::as_bytes).into_iter().for_each(note),
    }
    Claim::Learned(learned)
}

fn of_address(table: Option<&Table>, client: IpAddr) -> Learned {
    table
        .filter(|table| table.is_of_sources())
        .map_or_else(Learned::default, |table| Learned::of(table.source_key(client)))
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
    /// Only does something when no server has answered, or nothing was to be learned from its answer.
    fn drop(&mut self) {
        for (place, claim) in self.claims.iter_mut().enumerate() {
            if let (Claim::Learned(learned), Some(table)) = (claim, self.books.tables.get(place))
                && learned.release(table)
            {
                self.books.take_back(self.client, self.now);
            }
        }
    }
}
