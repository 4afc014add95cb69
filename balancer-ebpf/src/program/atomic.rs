//! Atomic words in maps. The compiler knows none for this target, so they are instructions by name.
//!
//! Those that change a word are full barriers, as the kernel promises of all that return what was there.

use core::arch::asm;

/// Reads the word whole, and now.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn read(word: *const u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { word.read_volatile() }
}

/// Adds and returns what was there.
///
/// # Safety
/// `word` points to an aligned word of a map value.
#[inline(always)]
pub(crate) unsafe fn fetch_add(word: *mut u64, mut value: u64) -> u64 {
    // SAFETY: the caller's promise, which the verifier checks as well.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Sets bits and returns what was there.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn fetch_or(word: *mut u64, mut bits: u64) -> u64 {
    // SAFETY: as above.
    unsafe {
        asm!(
            "{bits} = atomic_fetch_or((u64 *)({word} + 0), {bits})",
            word = in(reg) word,
            bits = inout(reg) bits,
            options(nostack),
        );
    }
    bits
}

/// Keeps the bits that are in `bits`, and returns what was there.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn fetch_and(word: *mut u64, mut bits: u64) -> u64 {
    // SAFETY: as above.
    unsafe {
        asm!(
            "{bits} = atomic_fetch_and((u64 *)({word} + 0), {bits})",
            word = in(reg) word,
            bits = inout(reg) bits,
            options(nostack),
        );
    }
    bits
}

/// Puts `new` where `old` is, and returns what was there: `old` if it has succeeded.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let found;
    // SAFETY: as above.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inlateout("r0") old => found,
            options(nostack),
        );
    }
    found
}
