//! HTTP/1 messages: bytes in, decisions out. No sockets, no clocks, no panics on any input.
//!
//! | module | what it does |
//! |---|---|
//! | [`request`], [`response`] | head → what it says, checked; and the head that is sent on in its place |
//! | [`fields`] | what both have in common: line ends, framing fields, hop-by-hop fields |
//! | [`body`], [`chunked`] | which of the bytes that follow belong to the message |
//! | [`scan`] | when a head that arrives in pieces is worth parsing |
//! | [`forwarded`] | who the client is, in headers for the server
//! | [`reply`] | the short answers that the balancer makes itself |
//! | [`fault`] | why a message is refused |
//!
//! `httparse` finds the parts of a head. What it is lenient about is checked here, because a message that two
//! programs read differently is how requests are smuggled (RFC 9112 §11.2). Whatever is sent on is written from what
//! was parsed, never copied as a whole.

pub mod body;
pub mod chunked;
pub mod fault;
pub mod fields;
pub mod forwarded;
pub mod reply;
pub mod request;
pub mod response;
pub mod scan;

/// The two versions that are spoken. Servers are always spoken to in 1.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    fn from_minor(minor: Option<u8>) -> Self {
        if minor == Some(0) { Self::Http10 } else { Self::Http11 }
    }
}
