//! Counting anew what is counted all along: a process that is killed between the removal of a flow and its account leaves
//! a server with a connection that it does not have.
//!
//! Flows come and go while the table is walked, so a walk knows the number only within bounds. A count is wrong if it lies
//! outside them, and it is believed to be if that happens in two walks in a row.

use std::collections::HashMap;

/// What the counters said at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Open connections.
    pub connections: i64,
    /// How often one was opened.
    pub opened: u64,
}

/// Walks over the table, and what they have found so far.
#[derive(Debug, Default)]
pub struct Census {
    before: HashMap<u16, Reading>,
    seen: HashMap<u16, i64>,
    doubts: HashMap<u16, i64>,
}

impl Census {
    /// A walk begins; nothing else is asked about than these servers.
    pub fn begin(&mut self, readings: impl Iterator<Item = (u16, Reading)>) {
        self.before = readings.collect();
        self.seen.clear();
    }

    /// The walk was broken off.
    pub fn give_up(&mut self) {
        self.before.clear();
    }

    /// An open connection of that server.
    pub fn see(&mut self, server: u16) {
        if self.before.contains_key(&server) {
            *self.seen.entry(server).or_default() += 1;
        }
    }

    /// The walk is over: which counts are too high, and by how much at least; less than nothing: too low.
    pub fn end(&mut self, now: impl Fn(u16) -> Reading) -> Vec<(u16, i64)> {
        let mut doubts = HashMap::new();
        let mut certain = Vec::new();
        for (server, before) in self.before.drain() {
            let seen = self.seen.get(&server).copied().unwrap_or_default();
            let excess = excess(before, now(server), seen);
            let earlier = self.doubts.get(&server).copied().unwrap_or_default();
            if excess.signum() * earlier.signum() == 1 {
                let least = if excess > 0 { excess.min(earlier) } else { excess.max(earlier) };
                certain.push((server, least));
            } else if excess != 0 {
                doubts.insert(server, excess);
            }
        }
        self.doubts = doubts;
        certain
    }
}

/// By how much the count is too high at least after a walk that has seen `seen` connections: it may have missed all that
/// were opened meanwhile, and may have seen all that were closed.
fn excess(before: Reading, after: Reading, seen: i64) -> i64 {
    let opened = after.opened.wrapping_sub(before.opened) as i64;
    let closed = before.connections + opened - after.connections;
    let (least, most) = (seen - closed.max(0), seen + opened.max(0));
    (after.connections - most).max(0) + (after.connections - least).min(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(connections: i64, opened: u64) -> Reading {
        Reading { connections, opened }
    }

    /// A walk that sees so many connections of server 1.
    fn walk(census: &mut Census, before: Reading, seen: usize, after: Reading) -> Vec<(u16, i64)> {
        census.begin([(1, before)].into_iter());
        (0..seen).for_each(|_| census.see(1));
        census.see(2);
        census.end(|_| after)
    }

    #[test]
    fn a_count_that_agrees_is_left_alone_however_busy_the_server_is() {
        let mut census = Census::default();
        for _ in 0..3 {
            assert_eq!(walk(&mut census, reading(5, 100), 5, reading(5, 100)), []);
            // 40 opened, 40 closed: the walk may have seen any of them.
            for seen in [0, 5, 45] {
                assert_eq!(walk(&mut census, reading(5, 100), seen, reading(5, 140)), []);
            }
        }
    }

    #[test]
    fn a_count_that_is_wrong_twice_is_wrong() {
        let mut census = Census::default();
        assert_eq!(walk(&mut census, reading(7, 100), 5, reading(7, 100)), [], "once");
        assert_eq!(walk(&mut census, reading(7, 100), 5, reading(7, 100)), [(1, 2)]);
        assert_eq!(walk(&mut census, reading(5, 100), 5, reading(5, 100)), [], "it is right now");
        assert_eq!(walk(&mut census, reading(-1, 100), 0, reading(-1, 100)), []);
        assert_eq!(walk(&mut census, reading(-1, 100), 0, reading(-1, 100)), [(1, -1)]);
    }

    #[test]
    fn what_is_taken_off_is_what_is_certain() {
        let mut census = Census::default();
        assert_eq!(
            walk(&mut census, reading(9, 100), 3, reading(9, 102)),
            [],
            "between 1 and 5 there, 9 counted"
        );
        assert_eq!(walk(&mut census, reading(9, 102), 3, reading(9, 103)), [(1, 4)]);
    }

    #[test]
    fn a_walk_that_is_broken_off_says_nothing() {
        let mut census = Census::default();
        census.begin([(1, reading(7, 0))].into_iter());
        census.give_up();
        assert_eq!(census.end(|_| reading(7, 0)), []);
        assert_eq!(walk(&mut census, reading(7, 0), 5, reading(7, 0)), [], "the first doubt");
    }
}
