//! How many keys a client may bring into the tables: somebody who makes up an id for every request is not to push out
//! others' by it.

use std::net::IpAddr;

use balancer_ebpf::siphash::siphash13;

use super::{mask, source_key};

/// New keys a minute and source at least. A large office behind one address logs in a few hundred people a minute; a flood
/// is thousands a second. What is not admitted is served, and balanced each time.
pub const NEW_KEYS_A_MINUTE: u16 = 600;

/// Tables take more if they are large: a quarter of their probation, so that a flood needs minutes to fill that, and users
/// who come again within one are in no danger.
const SHARE_OF_A_TABLE: u32 = 16;

/// Whether a source may have another new key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It may, and it was counted.
    Granted,
    /// It has had too many in this minute.
    Refused,
    /// The same, and it is the first that this is said of in this minute.
    FirstRefusal,
}

/// An attacker has at least this much of IPv6 to themselves.
const MASK6: u8 = 64;

/// Counters in a row: that of a flood is shared by one source in so many.
const ROW: usize = 4096;

const MINUTE: u32 = 60;

/// New keys of this minute by source, in a fixed amount of memory: two rows of counters, of which the smaller one counts
/// (a count-min sketch). Several sources may share a counter, but seldom both; no source has none.
#[derive(Debug)]
pub struct Newcomers {
    rows: Box<[[u16; ROW]; 2]>,
    minute: u32,
    /// Whose counters collide is nobody's to know.
    key: [u64; 2],
    limit: u16,
    /// Somebody was refused in this minute.
    has_refused: bool,
}

impl Newcomers {
    /// Nobody was seen yet. `key` is random.
    pub fn new(key: [u64; 2], limit: u16) -> Self {
        Self { rows: Box::new([[0; ROW]; 2]), minute: 0, key, limit, has_refused: false }
    }

    /// The limit for a table of that size.
    pub fn limit_of(size: u32) -> u16 {
        u16::try_from(size / SHARE_OF_A_TABLE).unwrap_or(u16::MAX).max(NEW_KEYS_A_MINUTE)
    }

    /// New keys that a source may have in a minute.
    pub fn limit(&self) -> u16 {
        self.limit
    }

    /// A key that `source` was counted for at `now` has not come about.
    pub fn take_back(&mut self, source: IpAddr, now: u32) {
        if now / MINUTE == self.minute {
            let places = self.places(source);
            for (row, place) in self.rows.iter_mut().zip(places) {
                row[place] = row[place].saturating_sub(1);
            }
        }
    }

    /// Whether `source` may have another new key. `now` in seconds of any clock.
    pub fn admit(&mut self, source: IpAddr, now: u32) -> Admission {
        let minute = now / MINUTE;
        if minute != self.minute {
            *self.rows = [[0; ROW]; 2];
            (self.minute, self.has_refused) = (minute, false);
        }
        let places = self.places(source);
        let count = self.rows.iter().zip(places).map(|(row, place)| row[place]).min().unwrap_or_default();
        if count >= self.limit {
            let is_first = !std::mem::replace(&mut self.has_refused, true);
            return if is_first { Admission::FirstRefusal } else { Admission::Refused };
        }
        for (row, place) in self.rows.iter_mut().zip(places) {
            row[place] = row[place].saturating_add(1);
        }
        Admission::Granted
    }

    fn places(&self, source: IpAddr) -> [usize; 2] {
        let words = mask(source_key(source), 32, MASK6);
        let [high, low] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|n| words[at + n])));
        let hash = siphash13(self.key, [high, low, 0]);
        [hash as usize % ROW, (hash >> 32) as usize % ROW]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers() -> Newcomers {
        Newcomers::new([1, 2], NEW_KEYS_A_MINUTE)
    }

    fn admits(newcomers: &mut Newcomers, source: IpAddr, now: u32) -> bool {
        newcomers.admit(source, now) == Admission::Granted
    }

    fn v4(n: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + n).to_be_bytes())
    }

    #[test]
    fn a_source_brings_so_many_a_minute_and_more_in_the_next() {
        let mut newcomers = newcomers();
        let admitted =
            |newcomers: &mut Newcomers, now| (0..10_000).filter(|_| admits(newcomers, v4(1), now)).count();
        assert_eq!(admitted(&mut newcomers, 0), usize::from(NEW_KEYS_A_MINUTE));
        assert_eq!(admitted(&mut newcomers, 59), 0);
        assert_eq!(admitted(&mut newcomers, 60), usize::from(NEW_KEYS_A_MINUTE));
    }

    #[test]
    fn what_is_taken_back_may_come_again_and_refusals_are_told_once_a_minute() {
        let mut newcomers = newcomers();
        (0..NEW_KEYS_A_MINUTE).for_each(|_| assert!(admits(&mut newcomers, v4(1), 0)));
        assert_eq!(newcomers.admit(v4(1), 0), Admission::FirstRefusal);
        assert_eq!(newcomers.admit(v4(1), 1), Admission::Refused);
        newcomers.take_back(v4(1), 2);
        assert!(admits(&mut newcomers, v4(1), 3) && !admits(&mut newcomers, v4(1), 3));
        newcomers.take_back(v4(1), 61);
        (0..NEW_KEYS_A_MINUTE).for_each(|_| assert!(admits(&mut newcomers, v4(1), 61)));
        assert_eq!(newcomers.admit(v4(1), 61), Admission::FirstRefusal);
    }

    #[test]
    fn large_tables_take_more() {
        let limits = [100, 9_600, 100_000, 1_000_000, u32::MAX].map(Newcomers::limit_of);
        assert_eq!(limits, [600, 600, 6250, 62_500, u16::MAX]);
    }

    #[test]
    fn a_flood_of_one_source_is_not_anothers() {
        let mut newcomers = newcomers();
        let admitted = (0..100_000).filter(|_| admits(&mut newcomers, v4(0), 0)).count();
        assert_eq!(admitted, usize::from(NEW_KEYS_A_MINUTE));
        let turned_away = (1..=1000).filter(|n| !admits(&mut newcomers, v4(*n), 0)).count();
        assert_eq!(turned_away, 0, "of a thousand sources");
    }

    #[test]
    fn addresses_of_one_household_count_together() {
        let mut newcomers = newcomers();
        let v6 = |n: u64| IpAddr::from((0x2001_0db8_0000_0001_u128 << 64 | u128::from(n)).to_be_bytes());
        let admitted = (0..10_000).filter(|n| admits(&mut newcomers, v6(*n), 0)).count();
        assert_eq!(admitted, usize::from(NEW_KEYS_A_MINUTE));
        assert!(admits(&mut newcomers, "2001:db8:0:2::1".parse().expect("address"), 0));
        let mapped: IpAddr = "::ffff:10.0.0.9".parse().expect("address");
        assert!((0..10_000).filter(|_| admits(&mut newcomers, mapped, 0)).count() == 600);
        assert!(!admits(&mut newcomers, v4(9), 0), "an IPv4 address in its IPv6 form is the same");
    }
}
