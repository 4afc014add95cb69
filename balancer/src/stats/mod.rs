//! What is counted and timed: of the clients, of each server, and of all servers together.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | what one worker counts: written by its thread alone, without a lock or a locked instruction |
//! | [`counter`], [`latency`] | what that is made of: counters; histograms with the mean of the last 1024 |
//! | [`capture`] | the last messages that were not understood, without what is secret |
//! | [`roll`] | who is connected |
//! | [`history`] | the last ten minutes, one sample every five seconds |
//! | [`totals`] | all workers added up, which the control thread does when somebody asks |
//! | [`rates`] | events of the last second, and the most there were in one: looked at four times a second |
//!
//! Servers are counted by their place, and a server that has moved to another address has another place: what is shown
//! under its name is the sum. What was counted for one that is deleted stays in the sum of all, so no counter of the
//! service ever goes back. A process starts at zero, also one that takes over.

pub mod capture;
pub mod counter;
pub mod history;
pub mod latency;
pub mod rates;
pub mod roll;
pub mod totals;
pub mod worker;

pub use history::Sample;
pub use latency::{BOUNDS, Times};
pub use totals::{Availability, BackTotals, FrontTotals, Load, Since, Statistics};
pub use worker::{Back, Elapsed, Front, Latencies, Snapshot, Stats, Verdicts};
