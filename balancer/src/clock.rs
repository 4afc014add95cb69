//! Time: what affinities expire by, and what logs show.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`: the clock that the XDP program reads too.
pub fn boot_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_BOOTTIME) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        // Linux has had this clock since 2.6.39; an error would be a seccomp filter gone wrong.
        Err(_) => 0,
    }
}

/// Whole seconds of `CLOCK_BOOTTIME`, the unit of expiries.
pub fn boot_seconds() -> u32 {
    (boot_ns() / 1_000_000_000) as u32
}

/// Wall clock, whole seconds since 1970: what dates in cookies are made of.
pub fn unix_seconds() -> u64 {
    unix_millis() / 1000
}

/// Wall clock, for people: milliseconds since 1970.
pub fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
