//! Buffers that connections borrow from their worker while they have something to hold.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Storage kept for the next borrower; more than a worker has requests in progress at once costs memory for nothing.
const KEPT: usize = 256;

/// Storage for the middle of a large body: a quarter of the system calls, and still within a core's own cache.
const LARGE: usize = 64 * 1024;

/// Large pieces that a worker lends at a time, so that clients that take nothing hold 16 MiB and no more; whoever comes
/// later makes do with the ordinary size.
const LARGE_LENT: usize = 256;

/// Scratch space that has grown beyond this is not kept.
const SCRATCH_LIMIT: usize = 64 * 1024;

/// A worker's buffers. The last one given back is the first one lent: its cache lines are warm.
#[derive(Debug)]
pub(super) struct Buffers {
    size: usize,
    free: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    large_lent: Cell<usize>,
    scratch: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Rc<Self> {
        Rc::new(Self {
            size,
            free: RefCell::default(),
            large: RefCell::default(),
            large_lent: Cell::new(0),
            scratch: RefCell::default(),
        })
    }

    /// Empty space to compose a message in.
    pub(super) fn scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(self.size))
    }

    pub(super) fn give_scratch(&self, mut scratch: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < KEPT && (1..=SCRATCH_LIMIT).contains(&scratch.capacity()) {
            scratch.clear();
            kept.push(scratch);
        }
    }

    fn take(&self) -> Box<[u8]> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; self.size].into_boxed_slice())
    }

    fn take_large(&self) -> Box<[u8]> {
        if self.size >= LARGE || self.large_lent.get() >= LARGE_LENT {
            return self.take();
        }
        self.large_lent.set(self.large_lent.get() + 1);
        self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE].into_boxed_slice())
    }

    fn give(&self, bytes: Box<[u8]>) {
        let mut kept = if bytes.len() == self.size {
            self.free.borrow_mut()
        } else {
            self.large_lent.set(self.large_lent.get() - 1);
            self.large.borrow_mut()
        };
        if kept.len() < KEPT {
            kept.push(bytes);
        }
    }
}

/// What has been read from a socket and not been used yet. Holds storage only between the two.
#[derive(Debug)]
pub(super) struct Buffer {
    pool: Rc<Buffers>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new(pool: &Rc<Buffers>) -> Self {
        Self { pool: Rc::clone(pool), bytes: Box::default(), start: 0, end: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn has_storage(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// No byte more fits, even after moving what there is to the front.
    pub(super) fn is_full(&self) -> bool {
        self.has_storage() && self.end - self.start == self.bytes.len()
    }

    /// Room for more, never empty unless [`Self::is_full`]. Storage is borrowed if there is none.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = self.pool.take();
        }
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes are to come: takes storage that suits so many, unless there is something in what it has.
    pub(super) fn expect(&mut self, count: u64) {
        if count > self.pool.size as u64 && self.is_empty() && self.bytes.len() <= self.pool.size {
            self.release();
            self.bytes = self.pool.take_large();
        }
    }

    /// The first `count` bytes of [`Self::spare`] have been written.
    pub(super) fn added(&mut self, count: usize) {
        self.end += count;
    }

    /// The first `count` bytes of [`Self::filled`] are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Gives the storage back if nothing is in it.
    pub(super) fn release(&mut self) {
        if self.is_empty() && self.has_storage() {
            (self.start, self.end) = (0, 0);
            self.pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.start = self.end;
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_storage_is_lent_to_a_limit_and_used_again() {
        let pool = Buffers::new(8);
        let mut many: Vec<_> = (0..=LARGE_LENT).map(|_| Buffer::new(&pool)).collect();
        many.iter_mut().for_each(|buffer| buffer.expect(9));
        let sizes: Vec<_> = many.iter_mut().map(|buffer| buffer.spare().len()).collect();
        assert_eq!((sizes[0], sizes[LARGE_LENT - 1], sizes[LARGE_LENT]), (LARGE, LARGE, 8));
        drop(many);
        assert_eq!((pool.large.borrow().len(), pool.free.borrow().len()), (KEPT, 1));
        let mut again = Buffer::new(&pool);
        again.expect(9);
        assert_eq!((again.spare().len(), pool.large_lent.get()), (LARGE, 1));
    }

    fn write(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.spare()[..bytes.len()].copy_from_slice(bytes);
        buffer.added(bytes.len());
    }

    #[test]
    fn makes_room_by_moving_what_is_left_to_the_front() {
        let mut buffer = Buffer::new(&Buffers::new(8));
        write(&mut buffer, b"abcdefgh");
        assert!(buffer.is_full());
        buffer.consume(5);
        write(&mut buffer, b"ij");
        assert_eq!(buffer.filled(), b"fghij");
    }

    #[test]
    fn an_empty_buffer_gives_its_storage_to_the_next() {
        let pool = Buffers::new(8);
        let mut buffer = Buffer::new(&pool);
        write(&mut buffer, b"ab");
        buffer.release();
        assert!(buffer.has_storage(), "it still holds something");
        buffer.consume(2);
        buffer.release();
        assert!(!buffer.has_storage());
        assert_eq!(pool.free.borrow().len(), 1);
        write(&mut buffer, b"cd");
        drop(buffer);
        assert_eq!(pool.free.borrow().len(), 1);
    }
}
