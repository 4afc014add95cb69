//! A request's key in a learned table, as far as one request has to do with it.

use balancer_ebpf::affinity::Affinity;

use crate::persist::decide::{Finding, Scene};
use crate::persist::learn::{self, Answered};
use crate::persist::session::MOST_IDS;
use crate::server::Identity;
use crate::table::{Found, Key, RESERVATION_SECONDS, Table};

/// What was read, what was reserved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Learned {
    /// The keys that the request has; an address is always one.
    keys: [Key; MOST_IDS],
    count: u8,
    /// The one that counts: the first that names a usable server.
    at: u8,
    /// The table has been asked.
    pub(super) is_read: bool,
    /// What it said, or what another request has put there since.
    found: Option<Found>,
    /// What this request has put there until a server answers.
    reserved: Option<Affinity>,
    /// Whether the source of the request may have one more new key; asked once.
    admitted: Option<bool>,
    /// It was counted for that, and has not brought one so far.
    is_charged: bool,
}

/// What is to be done about a key once a server has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Write {
    /// It points to a server.
    Learn {
        /// The key.
        key: Key,
        /// The entry.
        entry: Affinity,
        /// What the request had found before it reserved anything.
        seen: Option<Found>,
    },
    /// It is forgotten: the application has ended that session.
    Forget(Key),
}

/// What a server's answer says about a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lesson {
    /// Who answered.
    pub(super) serving: Identity,
    /// The answer may make a new entry.
    pub(super) creates: bool,
    /// As in [`Answered::elsewhere_usable`], by what the decision saw.
    pub(super) elsewhere_usable: bool,
    /// As in [`Answered::proxied`].
    pub(super) proxied: bool,
    /// The client says by a method that nobody but the application can change that it belongs to the server of that id,
    /// and was moved away from there.
    pub(super) moved_from: Option<u16>,
    /// It says so, and the server is usable again: an entry that remembers the move goes on remembering it.
    pub(super) named_besides: Option<u16>,
}

impl Learned {
    /// Of one key.
    pub(super) fn of(key: Key) -> Self {
        let mut learned = Self::default();
        learned.add(key);
        learned
    }

    /// One more key, which counts if those before it name nobody.
    pub(super) fn add(&mut self, key: Key) {
        if let Some(place) = self.keys.get_mut(usize::from(self.count)) {
            *place = key;
            self.count += 1;
        }
    }

    /// Others may have written to the table. What this request has put there itself says nothing new.
    pub(super) fn forget(&mut self) {
        self.is_read &= self.reserved.is_some();
    }

    /// The key that counts; `None`: the request has none.
    pub(super) fn key(&self) -> Option<Key> {
        self.keys[..usize::from(self.count)].get(usize::from(self.at)).copied()
    }

    /// What the table says, which it is asked once.
    pub(super) fn finding(&mut self, table: &Table, scene: &Scene<'_>, now: u32) -> Finding {
        if !std::mem::replace(&mut self.is_read, true) {
            self.read(table, scene, now);
        }
        let Some(entry) = self.entry() else { return Finding::Missing };
        if !entry.is_live(now) {
            return Finding::Expired;
        }
        let ambiguous =
            table.is_of_sources() && entry.is_ambiguous() && !entry.ambiguity_aged_out(now, table.timeout);
        let server = scene.servers.by_id(entry.server());
        server.map_or(Finding::Missing, |index| Finding::Server { index, ambiguous })
    }

    /// The server that the session was moved away from, if its entry names a usable one now.
    pub(super) fn left(&self, scene: &Scene<'_>, now: u32) -> Option<usize> {
        let entry = self.entry().filter(|entry| entry.is_live(now))?;
        let home = scene.servers.by_id(entry.server())?;
        let left = scene.servers.by_id(entry.instead_of()?)?;
        scene.is_usable(home).then_some(left)
    }

    /// The entry says that its client was moved away from the server of that id.
    pub(super) fn remembers(&self, left: u16, now: u32) -> bool {
        self.entry().filter(|entry| entry.is_live(now)).and_then(Affinity::instead_of) == Some(left)
    }

    /// Reserves the key for `server`. False: another request has taken it meanwhile, and its entry is now the one that
    /// counts. `admit`: whether the client may have one more new key.
    pub(super) fn reserve(
        &mut self,
        table: &Table,
        server: Identity,
        now: u32,
        admit: impl FnOnce() -> bool,
    ) -> bool {
        let Some(key) = self.key() else { return true };
        let live = self.entry().filter(|entry| entry.is_live(now));
        if live.is_none() && !table.is_of_sources() {
            if self.admitted.is_none() {
                let is_admitted = admit();
                (self.admitted, self.is_charged) = (Some(is_admitted), is_admitted);
            }
            if self.admitted == Some(false) {
                return true;
            }
        }
        let expiry = now.saturating_add(RESERVATION_SECONDS);
        let reservation = if table.is_of_sources() {
            let reservation = Affinity::new(server.id, server.generation, expiry);
            live.map_or(reservation, |live| reservation.inherit_ambiguity(live, now, table.timeout))
        } else {
            Affinity::learned(server.id, expiry).with_instead_of(live.and_then(Affinity::instead_of))
        };
        match table.reserve(&key, self.expected(), reservation, now) {
            Ok(()) => {
                self.reserved = Some(reservation);
                true
            }
            Err(winner) => {
                let probation = self.found.is_none_or(|found| found.probation);
                (self.found, self.reserved) = (Some(Found { entry: winner, probation }), None);
                false
            }
        }
    }

    /// What the answer of a server makes of the request's key.
    pub(super) fn lesson(&self, table: &Table, lesson: &Lesson, now: u32) -> Option<Write> {
        let key = self.key()?;
        let is_known = self.entry().is_some_and(|entry| entry.is_live(now) && !entry.is_tentative());
        if !is_known && (!lesson.creates || self.admitted == Some(false)) {
            return None;
        }
        write(table, key, self.expected(), self.found, lesson, now)
    }

    /// The same after a second look, which is for a moment at which something is to be written: the answer to another
    /// request of this client may have been faster.
    pub(super) fn lesson_after_all(
        &self,
        table: &Table,
        lesson: &Lesson,
        now: u32,
        scene: &Scene<'_>,
    ) -> Option<Write> {
        let key = self.key()?;
        let entry = table.look(&key, now).map(|found| found.entry);
        if self.is_late(table, entry, lesson.serving.id, now, scene) {
            return None;
        }
        let elsewhere_usable = lesson.elsewhere_usable
            || entry != self.expected() && names_another(entry, lesson.serving.id, now, scene);
        write(table, key, entry, self.found, &Lesson { elsewhere_usable, ..*lesson }, now)
    }

    /// The answer of `serving` comes late: since the decision another request of this client has been answered elsewhere, or
    /// the operator has spoken. That counts, then.
    pub(super) fn comes_late(&self, table: &Table, serving: u16, now: u32, scene: &Scene<'_>) -> bool {
        let entry = self.key().and_then(|key| table.look(&key, now)).map(|found| found.entry);
        entry.is_some() && self.is_late(table, entry, serving, now, scene)
    }

    fn is_late(
        &self,
        table: &Table,
        entry: Option<Affinity>,
        serving: u16,
        now: u32,
        scene: &Scene<'_>,
    ) -> bool {
        let expected = self.expected().filter(|expected| expected.is_live(now));
        if entry == expected || !self.is_read {
            return false;
        }
        let is_usable = scene.servers.by_id(serving).is_some_and(|serving| scene.is_usable(serving));
        match entry.filter(|entry| entry.is_live(now)) {
            // Of an address that may be evidence of a second user, unless the server that answers is being left.
            Some(_) => (!table.is_of_sources() || !is_usable) && names_another(entry, serving, now, scene),
            // What was there has been taken out; a reservation may have had to make room.
            None => expected.is_some() && self.reserved.is_none(),
        }
    }

    /// No server has answered, or nothing is to be learned from its answer: the key is free again, or as it was. Whether
    /// the source was counted for a new key that it has not brought.
    pub(super) fn release(&mut self, table: &Table) -> bool {
        if let (Some(reserved), Some(key)) = (self.reserved.take(), self.key()) {
            table.release(&key, reserved, self.found);
        }
        std::mem::take(&mut self.is_charged)
    }

    /// Whatever happens now, there is nothing to take back any more.
    pub(super) fn keep(&mut self) {
        (self.reserved, self.is_charged) = (None, false);
    }

    /// Which of several keys counts, and its entry.
    fn read(&mut self, table: &Table, scene: &Scene<'_>, now: u32) {
        let mut best = None;
        for (at, key) in (0..).zip(&self.keys[..usize::from(self.count)]) {
            let Some(found) = table.look(key, now) else { continue };
            let named = scene.servers.by_id(found.entry.server()).filter(|_| found.entry.is_live(now));
            let is_usable = named.is_some_and(|named| scene.is_usable(named));
            if is_usable || best.is_none() {
                best = Some((at, found));
            }
            if is_usable {
                break;
            }
        }
        if let Some((at, found)) = best {
            (self.at, self.found) = (at, Some(found));
        }
    }

    /// What others have put there.
    fn entry(&self) -> Option<Affinity> {
        self.found.map(|found| found.entry)
    }

    /// What is in the table now, unless somebody else has written to it.
    fn expected(&self) -> Option<Affinity> {
        self.reserved.map(Affinity::tentative).or(self.found.map(|found| found.entry))
    }
}

/// The entry is alive and names a usable server that is not `serving`.
fn names_another(entry: Option<Affinity>, serving: u16, now: u32, scene: &Scene<'_>) -> bool {
    let named =
        entry.filter(|entry| entry.is_live(now)).and_then(|entry| scene.servers.by_id(entry.server()));
    named.is_some_and(|named| scene.servers[named].identity.id != serving && scene.is_usable(named))
}

/// What is to be written for `key`, whose entry is `entry`; `None`: that says it already.
pub(super) fn write(
    table: &Table,
    key: Key,
    entry: Option<Affinity>,
    seen: Option<Found>,
    lesson: &Lesson,
    now: u32,
) -> Option<Write> {
    let next = if table.is_of_sources() {
        let answered = Answered {
            entry,
            serving: lesson.serving,
            elsewhere_usable: lesson.elsewhere_usable,
            proxied: lesson.proxied,
        };
        learn::point(&answered, now, table.timeout)
    } else {
        let remembered = entry.filter(|entry| entry.is_live(now)).and_then(Affinity::instead_of);
        let kept = remembered.filter(|left| lesson.named_besides == Some(*left));
        let instead_of = lesson.moved_from.or(kept).filter(|left| *left != lesson.serving.id);
        learn::bind(entry, lesson.serving.id, instead_of, now, table.timeout)
    };
    // A key that is used a second time leaves its probation, whatever else is new.
    let leaves = seen.filter(|seen| seen.probation && seen.is_proof(now)).map(|seen| seen.entry);
    next.or(leaves).map(|entry| Write::Learn { key, entry, seen })
}
