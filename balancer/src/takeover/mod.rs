//! Hot restart: a new process takes over from the one that serves, and no client notices.
//!
//! ```text
//! successor                                   predecessor
//! takeover PROTOCOL NAME  ──────────────────▶ of the same user or root? nobody else at it?
//! shares locks and sockets ◀── Inventory, descriptors
//! opens, binds, loads, attaches, starts its workers, which wait
//! fills tables             ◀── Entries         if they are in memory
//! keeps them for later     ◀── Streams         if `balancer reload` has started it
//! Ready                   ──────────────────▶ publishes nothing any more
//! serves                   ◀── Yielded
//! Serving                 ──────────────────▶ drains, ends
//! fills tables             ◀── Entries         that its last answers teach
//! ```
//!
//! The conversation is held on the admin socket. Until [`wire::Note::Serving`] arrives the predecessor accepts, and what
//! the successor holds are second descriptors of the same sockets and locks; so the successor may fail, or be killed, at
//! any point before, and all it leaves behind is closed descriptors. Afterwards the predecessor only closes its own,
//! which removes nothing and unlocks nothing.
//!
//! | module | what it does |
//! |---|---|
//! | [`predecessor`] | the successor's side, as it starts |
//! | [`successor`] | the predecessor's side, beside its other work |
//! | [`attempt`] | the successor that USR2 has started, and what becomes of it |
//! | [`lessons`] | what the predecessor learns while it drains |
//! | [`streams`] | where the log goes |
//! | [`wire`] | what they say to each other (pure) |
//! | [`descriptors`] | the system calls that pass descriptors |

pub mod attempt;
pub mod descriptors;
pub mod lessons;
pub mod predecessor;
pub mod streams;
pub mod successor;
pub mod wire;

use std::time::Duration;

/// For a hand-over as a whole, as the predecessor sees it: the successor loads its program and may copy tables meanwhile.
pub const HAND_OVER_LIMIT: Duration = Duration::from_secs(30);

/// For a single answer of the predecessor, which serves clients beside.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
