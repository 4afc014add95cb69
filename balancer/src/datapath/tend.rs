//! What is done to flows in place, by the program `tend`: an entry that packets may be using must not be replaced or
//! removed from here.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use aya::Ebpf;
use aya::programs::{TestRun as _, TestRunOptions};
use balancer_ebpf::abi::{CHORE_END, CHORE_KEYS, CHORE_NOTE_UNANSWERED, Chore, FROM_CLIENT, Flow, FlowKey};
use balancer_ebpf::state::{State, UNANSWERED_NS};

use super::maps::Maps;
use super::program;
use super::running::{Attached, Inner};
use super::syscall::BatchWalk;
use crate::log;

/// Entries looked at in one turn: a millisecond or so.
const BATCH: usize = 8192;
/// Any server.
pub const ANY: u16 = 0;

/// Ends the connections to a server; returns how many. From here on their tuples are the stack's, which answers with RST
/// when one of the two ends speaks. Others come in between: nobody waits for the whole table.
pub(super) fn end_all(inner: &Mutex<Inner>, server: u16) -> u64 {
    end_some(inner, server, |_, flow| flow.server == server)
}

/// The same for those that are `wanted`; `server`: none but its are, or [`ANY`].
pub(super) fn end_some(inner: &Mutex<Inner>, server: u16, wanted: impl Fn(&FlowKey, &Flow) -> bool) -> u64 {
    let mut ending = Ending::of(server);
    loop {
        let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_silent = inner.is_silent;
        let Some(Attached { maps, ebpf, .. }) = inner.xdp.as_mut().filter(|_| !is_silent) else {
            return ending.ended;
        };
        match ending.step(maps, ebpf, &wanted) {
            Ok(at_end) if at_end => return ending.ended,
            Ok(_) => {}
            Err(error) => {
                log::warn(format_args!(
                    "not all fast connections are ended; do it again: {}",
                    log::chain(&error)
                ));
                return ending.ended;
            }
        }
    }
}

/// A walk that ends connections.
#[derive(Debug)]
pub struct Ending {
    server: u16,
    walk: BatchWalk,
    /// How many have been ended so far.
    pub ended: u64,
}

impl Ending {
    /// A walk that has not begun yet, for those to a server, or [`ANY`].
    pub fn of(server: u16) -> Self {
        Self { server, walk: BatchWalk::new(BATCH), ended: 0 }
    }

    /// Ends those among the next entries that are `wanted`; true when the end of the table was reached.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn step(
        &mut self,
        maps: &Maps,
        ebpf: &mut Ebpf,
        wanted: impl Fn(&FlowKey, &Flow) -> bool,
    ) -> anyhow::Result<bool> {
        let (entries, at_end) = self.walk.next::<FlowKey, Flow>(maps.flows_data.fd().as_fd())?;
        let is_meant = |key: &FlowKey, flow: &Flow| {
            flow.direction == FROM_CLIENT && !State(flow.state).is_dead() && wanted(key, flow)
        };
        let keys: Vec<_> =
            entries.iter().filter(|(key, flow)| is_meant(key, flow)).map(|(key, _)| *key).collect();
        self.ended += run(ebpf, CHORE_END, self.server, &keys)?;
        Ok(at_end)
    }
}

/// Whether this is an entry for [`note_unanswered`].
pub(super) fn is_unanswered(flow: &Flow, now: u64) -> bool {
    let state = State(flow.state);
    flow.direction == FROM_CLIENT
        && state.awaits_answer()
        && !state.is_noted_unanswered()
        && now.saturating_sub(flow.created) >= UNANSWERED_NS
}

/// Counts flows that have had no answer for 3 s, those that are still waiting and that nobody has counted.
pub(super) fn note_unanswered(ebpf: &mut Ebpf, keys: &[FlowKey]) -> anyhow::Result<()> {
    run(ebpf, CHORE_NOTE_UNANSWERED, ANY, keys).map(drop)
}

fn run(ebpf: &mut Ebpf, what: u32, server: u16, keys: &[FlowKey]) -> anyhow::Result<u64> {
    let mut done = 0;
    for keys in keys.chunks(CHORE_KEYS) {
        let chore = encode(what, server, keys);
        let options = TestRunOptions { data_in: Some(&chore), ..TestRunOptions::new() };
        done += u64::from(program::tend(ebpf)?.test_run(options)?.return_value);
    }
    Ok(done)
}

/// A [`Chore`], as it stands in memory.
fn encode(what: u32, server: u16, keys: &[FlowKey]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<Chore>());
    for word in [what, u32::from(server), keys.len() as u32, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    for key in keys {
        bytes.extend(key.source.octets());
        bytes.extend(key.destination.octets());
        bytes.extend(key.source_port);
        bytes.extend(key.destination_port);
    }
    bytes.resize(size_of::<Chore>(), 0);
    bytes
}
