//! What the fast path carries for each server, in memory that is shared with the XDP program: no call waits or costs a
//! system call but the one that ends connections.

use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use balancer_ebpf::abi::{FROM_CLIENT, Flow, Load, MAX_SERVERS, Traffic};

use super::running::Inner;
use super::shared::SharedWords;
use super::tend;
use crate::server::FastLoads;

const WORD: usize = size_of::<u64>();
const WORDS_A_SERVER: usize = size_of::<Load>() / WORD;

/// The loads of all servers of the network namespace, by id.
#[derive(Debug)]
pub struct Loads {
    shared: SharedWords,
    /// The limits of our own servers, as they stand in [`Load::below`].
    limits: Vec<AtomicU64>,
    /// A successor says now what the limits are.
    is_silent: AtomicBool,
}

impl Loads {
    /// Those in the map `LOADS`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let shared = SharedWords::of(map, MAX_SERVERS as usize * WORDS_A_SERVER)?;
        let limits = (0..MAX_SERVERS).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { shared, limits, is_silent: AtomicBool::new(false) })
    }

    /// Flows that are open. Less than none are counted only after an accident.
    pub fn connections(&self, id: u16) -> i64 {
        self.read(id, offset_of!(Load, connections)) as i64
    }

    /// How often one was opened.
    pub fn opened(&self, id: u16) -> u64 {
        self.read(id, offset_of!(Load, opened))
    }

    /// See [`FastLoads::refused`].
    pub fn refused(&self, id: u16) -> u64 {
        self.read(id, offset_of!(Load, refused))
    }

    /// See [`FastLoads::unanswered`].
    pub fn unanswered(&self, id: u16) -> u64 {
        self.read(id, offset_of!(Load, unanswered))
    }

    /// What entries that are gone have carried: from clients, to clients.
    pub fn traffic(&self, id: u16) -> [Traffic; 2] {
        [offset_of!(Load, from_clients), offset_of!(Load, to_clients)].map(|at| Traffic {
            packets: self.read(id, at + offset_of!(Traffic, packets)),
            bytes: self.read(id, at + offset_of!(Traffic, bytes)),
        })
    }

    /// An entry is gone: what it has carried is added up.
    pub fn carried(&self, flow: &Flow) {
        let from_client = flow.direction == FROM_CLIENT;
        let at = if from_client { offset_of!(Load, from_clients) } else { offset_of!(Load, to_clients) };
        let counts = [(offset_of!(Traffic, packets), flow.packets), (offset_of!(Traffic, bytes), flow.bytes)];
        for (offset, count) in counts {
            if let Some(word) = self.word(flow.server, at + offset) {
                word.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Nothing names this id any more: the next server that has it begins at nothing.
    pub fn forget(&self, id: u16) {
        let words = [offset_of!(Load, from_clients), offset_of!(Load, to_clients)]
            .into_iter()
            .flat_map(|at| [at, at + WORD])
            .chain([offset_of!(Load, opened)]);
        words.filter_map(|at| self.word(id, at)).for_each(|word| word.store(0, Ordering::SeqCst));
    }

    /// A flow that was open has been removed.
    pub fn close(&self, id: u16) {
        self.subtract(id, 1);
    }

    /// Takes `excess` off the connections, which may be less than nothing.
    pub fn subtract(&self, id: u16, excess: i64) {
        if let Some(word) = self.word(id, offset_of!(Load, connections)) {
            word.fetch_sub(excess as u64, Ordering::SeqCst);
        }
    }

    /// See [`FastLoads::set_limit`].
    pub fn set_limit(&self, id: u16, limit: u32) {
        let below = if limit == u32::MAX { 0 } else { u64::from(limit) + 1 };
        if let Some(known) = self.limits.get(usize::from(id)) {
            known.store(below, Ordering::Relaxed);
        }
        if !self.is_silent.load(Ordering::Relaxed) {
            self.write_limit(id, below);
        }
        // The program counts first and looks at the limit then, with a barrier in between as there is one here: it has
        // seen the new limit, or whoever reads the count from here on sees what it has counted.
        fence(Ordering::SeqCst);
    }

    /// From now on a successor says what the limits are.
    pub fn fall_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// The successor has failed: the limits of these servers are ours again.
    pub fn speak_again(&self, ids: impl Iterator<Item = u16>) {
        self.is_silent.store(false, Ordering::Relaxed);
        for id in ids {
            let known = self.limits.get(usize::from(id)).map_or(0, |limit| limit.load(Ordering::Relaxed));
            self.write_limit(id, known);
        }
    }

    fn write_limit(&self, id: u16, below: u64) {
        if let Some(word) = self.word(id, offset_of!(Load, below)) {
            word.store(below, Ordering::SeqCst);
        }
    }

    fn read(&self, id: u16, offset: usize) -> u64 {
        self.word(id, offset).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    fn word(&self, id: u16, offset: usize) -> Option<&AtomicU64> {
        self.shared.words().get(usize::from(id) * WORDS_A_SERVER + offset / WORD)
    }
}

/// The loads, for whoever asks about servers.
pub(super) struct ServerLoads {
    pub(super) loads: Arc<Loads>,
    pub(super) inner: Arc<Mutex<Inner>>,
}

impl FastLoads for ServerLoads {
    fn connections(&self, id: u16) -> u32 {
        u32::try_from(self.loads.connections(id).max(0)).unwrap_or(u32::MAX)
    }

    fn opened(&self, id: u16) -> u64 {
        self.loads.opened(id)
    }

    fn set_limit(&self, id: u16, limit: u32) {
        self.loads.set_limit(id, limit);
    }

    fn refused(&self, id: u16) -> u64 {
        self.loads.refused(id)
    }

    fn unanswered(&self, id: u16) -> u64 {
        self.loads.unanswered(id)
    }

    fn end(&self, id: u16) -> u64 {
        tend::end_all(&self.inner, id)
    }
}
