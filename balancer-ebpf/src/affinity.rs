//! An affinity: which server a client belongs to, and until when, in one word.
//!
//! One `u64`, so that a reader never sees half of an update. From the least significant bit:
//!
//! | bits | field |
//! |---|---|
//! | 0–31 | expiry, whole seconds of `CLOCK_BOOTTIME` |
//! | 32–47 | server id from the registry, never 0 |
//! | 48–55 | generation of the server's address |
//! | 56–62 | ambiguity mark, 0 = one user as far as is known |
//! | 63 | tentative: reserved by a request that no server has answered yet |
//!
//! The ambiguity mark is the time of the last evidence in sixteenths of the table's timeout, modulo 127, plus one.
//! An entry that nobody refreshes is gone after sixteen of them, so the modulus is never ambiguous itself.
//!
//! Only entries of the `source` table are read by XDP and have generation and ambiguity. In entries of all other tables
//! these fifteen bits, 48–62, hold the id of the server that the key was moved away from, 0 = none.

/// How many slices a table's timeout has: the granularity of refreshes and of ageing ambiguity.
pub const SLICES: u32 = 16;

const ID: u32 = 32;
const GENERATION: u32 = 48;
const AMBIGUOUS: u32 = 56;
const TENTATIVE: u64 = 1 << 63;
const INSTEAD_OF: u32 = 48;
const INSTEAD_OF_MASK: u64 = 0x7fff;
const MARK_MASK: u64 = 0x7f;
const MARK_CYCLE: u32 = 127;

/// A learned binding of a key to a server. Copy it out of a map before asking it anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Affinity(pub u64);

impl Affinity {
    /// A confirmed, unambiguous entry that expires at `expiry` (seconds of `CLOCK_BOOTTIME`).
    #[inline(always)]
    pub const fn new(server: u16, generation: u8, expiry: u32) -> Self {
        Self(expiry as u64 | (server as u64) << ID | (generation as u64) << GENERATION)
    }

    /// The same entry as a reservation: it counts in user space, XDP treats it as absent.
    #[inline(always)]
    pub const fn tentative(self) -> Self {
        Self(self.0 | TENTATIVE)
    }

    /// The same entry with evidence of a second user seen at `now`.
    #[inline(always)]
    pub const fn with_ambiguity(self, now: u32, timeout: u32) -> Self {
        let mark = 1 + (slice_of(now, timeout) % MARK_CYCLE) as u64;
        Self((self.0 & !(MARK_MASK << AMBIGUOUS)) | mark << AMBIGUOUS)
    }

    /// The same entry, keeping `from`'s ambiguity unless that has aged out by `now`.
    #[inline(always)]
    pub const fn inherit_ambiguity(self, from: Self, now: u32, timeout: u32) -> Self {
        if !from.is_ambiguous() || from.ambiguity_aged_out(now, timeout) {
            return self;
        }
        Self(self.0 | (from.0 & (MARK_MASK << AMBIGUOUS)))
    }

    /// The same entry for the same server under another id: from a table of another registry.
    #[inline(always)]
    pub const fn renamed(self, server: u16, generation: u8) -> Self {
        const NAME: u64 = 0xff_ffff << ID;
        Self((self.0 & !NAME) | (Self::new(server, generation, 0).0 & NAME))
    }

    /// A confirmed entry of a table that XDP does not read.
    #[inline(always)]
    pub const fn learned(server: u16, expiry: u32) -> Self {
        Self::new(server, 0, expiry)
    }

    /// The same entry, made for a key that was moved away from that server. Not for entries of `source`.
    #[inline(always)]
    pub const fn with_instead_of(self, server: Option<u16>) -> Self {
        let id = match server {
            Some(id) => id as u64 & INSTEAD_OF_MASK,
            None => 0,
        };
        Self((self.0 & !(INSTEAD_OF_MASK << INSTEAD_OF)) | id << INSTEAD_OF)
    }

    /// The server that the key was moved away from. Not for entries of `source`.
    #[inline(always)]
    pub const fn instead_of(self) -> Option<u16> {
        match (self.0 >> INSTEAD_OF) & INSTEAD_OF_MASK {
            0 => None,
            id => Some(id as u16),
        }
    }

    /// The same entry with another expiry.
    #[inline(always)]
    pub const fn until(self, expiry: u32) -> Self {
        Self((self.0 & !(u32::MAX as u64)) | expiry as u64)
    }

    /// Expiry in seconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub const fn expiry(self) -> u32 {
        self.0 as u32
    }

    /// The server's id in the registry.
    #[inline(always)]
    pub const fn server(self) -> u16 {
        (self.0 >> ID) as u16
    }

    /// The generation of the server's address when this was learned.
    #[inline(always)]
    pub const fn generation(self) -> u8 {
        (self.0 >> GENERATION) as u8
    }

    /// Reserved by a request that is still waiting for a server's answer.
    #[inline(always)]
    pub const fn is_tentative(self) -> bool {
        self.0 & TENTATIVE != 0
    }

    /// More than one user was seen behind this key; see [`Self::ambiguity_aged_out`].
    #[inline(always)]
    pub const fn is_ambiguous(self) -> bool {
        (self.0 >> AMBIGUOUS) & MARK_MASK != 0
    }

    /// Valid at `now`: an entry is good up to, and not including, its expiry.
    #[inline(always)]
    pub const fn is_live(self, now: u32) -> bool {
        now < self.expiry()
    }

    /// Whether the last evidence of a second user is a whole `timeout` ago.
    #[inline(always)]
    pub const fn ambiguity_aged_out(self, now: u32, timeout: u32) -> bool {
        let mark = ((self.0 >> AMBIGUOUS) & MARK_MASK) as u32;
        if mark == 0 {
            return true;
        }
        let seen = mark - 1;
        let age = (slice_of(now, timeout) % MARK_CYCLE + MARK_CYCLE - seen) % MARK_CYCLE;
        age > SLICES
    }
}

#[inline(always)]
const fn slice_of(now: u32, timeout: u32) -> u32 {
    match now.checked_div(timeout / SLICES) {
        Some(slice) => slice,
        // A timeout below sixteen seconds ages by the second.
        None => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let entry = Affinity::new(u16::MAX, u8::MAX, u32::MAX);
        assert_eq!((entry.server(), entry.generation(), entry.expiry()), (u16::MAX, u8::MAX, u32::MAX));
        assert!(!entry.is_tentative() && !entry.is_ambiguous());
        let marked = Affinity::new(0, 0, 0).tentative().with_ambiguity(7, 1800);
        assert_eq!((marked.server(), marked.generation(), marked.expiry()), (0, 0, 0));
        assert!(marked.is_tentative() && marked.is_ambiguous());
    }

    #[test]
    fn the_server_that_was_left_is_remembered_beside_the_others() {
        let entry = Affinity::learned(7, 100).with_instead_of(Some(4095));
        assert_eq!((entry.server(), entry.expiry(), entry.instead_of()), (7, 100, Some(4095)));
        assert!(!entry.is_tentative());
        let tentative = entry.tentative().with_instead_of(Some(1));
        assert_eq!((tentative.instead_of(), tentative.is_tentative()), (Some(1), true));
        assert_eq!(entry.with_instead_of(None), Affinity::learned(7, 100));
        assert_eq!(Affinity::learned(7, 100).instead_of(), None);
        assert_eq!(entry.until(u32::MAX).until(5), Affinity::learned(7, 5).with_instead_of(Some(4095)));
    }

    #[test]
    fn an_entry_is_live_until_its_expiry_and_not_at_it() {
        let entry = Affinity::new(1, 0, 100);
        assert!(entry.is_live(99));
        assert!(!entry.is_live(100));
    }

    #[test]
    fn ambiguity_ages_out_a_timeout_after_the_last_evidence() {
        let timeout = 1600;
        let entry = Affinity::new(1, 0, 10_000).with_ambiguity(5_000, timeout);
        let refreshed = |now| Affinity::new(1, 0, now + timeout).inherit_ambiguity(entry, now, timeout);
        assert!(refreshed(5_001).is_ambiguous());
        assert!(refreshed(6_600).is_ambiguous());
        assert!(!refreshed(6_800).is_ambiguous());
    }

    #[test]
    fn ambiguity_survives_the_wrap_of_its_cycle() {
        let timeout = 16;
        let entry = Affinity::new(1, 0, 1_000).with_ambiguity(126, timeout);
        assert!(!entry.ambiguity_aged_out(130, timeout));
        assert!(entry.ambiguity_aged_out(126 + 17, timeout));
    }
}
