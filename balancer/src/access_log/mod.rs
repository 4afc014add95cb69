//! The access log: one line a request, written by a thread of its own.
//!
//! | module | what it does |
//! |---|---|
//! | [`record`] | what is known of a request when it is over |
//! | [`text`] | the line that people read |
//! | [`time`] | the time as both people and programs write it |
//! | [`queue`] | lines on their way from the workers |
//! | [`writer`] | the thread that takes them to their file |
//!
//! Workers append to one bounded buffer and never wait for the disk; what does not fit is dropped and counted.

mod queue;
mod record;
mod text;
mod time;
mod writer;

pub use queue::Sender;
pub use record::{NO_REQUEST, Record, write_request};
pub use writer::AccessLog;
