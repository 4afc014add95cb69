//! The access log: one line a request, written by a thread of its own.
//!
//! | module | what it does |
//! |---|---|
//! | [`record`] | what is known of a request when it is over, and which format writes it |
//! | [`text`], [`json`], [`haproxy`] | the line that people read; the one that programs read; the one that HAProxy writes |
//! | [`pieces`], [`time`] | numbers, addresses and times as both write them |
//! | [`queue`] | lines on their way from the workers |
//! | [`writer`] | the thread that takes them to their file |
//!
//! Workers append to one bounded buffer and never wait for the disk; what does not fit is dropped and counted.

mod haproxy;
mod json;
mod pieces;
mod queue;
mod record;
mod text;
pub(crate) mod time;
mod writer;

pub use queue::Sender;
pub use record::{
    Layout, Load, Path, Record, Times, write_connection, write_fast, write_no_request, write_request,
};
pub use writer::{AccessLog, Opened, Target};
