//! Counters of this CPU, by service.

use balancer_ebpf::counter;

use crate::maps::COUNTERS;

/// Counts an outcome or a note, by its number, for the service in `slot`.
#[inline(always)]
pub(crate) fn count(slot: u32, number: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter::index(slot, number)) {
        // SAFETY: the element of this CPU, and nothing interrupts the program on it.
        unsafe { *counter += 1 };
    }
}
