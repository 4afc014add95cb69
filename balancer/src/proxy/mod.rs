//! The slow path: sockets around the pure parts. It is always correct, so everything may be sent through it.
//!
//! | module | what it does |
//! |---|---|
//! | [`worker`] | a thread with its own runtime: accepts, serves, drains |
//! | [`session`] | the life of a client connection, request by request: the data path as named steps |
//! | [`relay`] | one message body on its way from one socket to another |
//! | [`slot`] | the right to be served by a server, and the wait for it |
//! | [`upstream`] | connections to servers: kept, checked, made |
//! | [`failure`] | how a request can fail, whose fault that is, and what the client is told |
//! | [`connection`], [`buffer`] | a socket and what has been read from it; buffers that idle connections give back |
//! | [`listener`], [`socket`] | a TCP socket that the reactor hears of only when it has to be waited for |
//! | [`descriptors`] | how many clients there may be, and what is done when this host runs short |
//! | [`timers`] | coarse deadlines: a store per request, one sweep per tick |
//!
//! Nothing here locks on the request path, but for requests that wait for a server with `maxconn=`: what a worker's tasks
//! share is reached through `Rc` and `Cell`.

pub mod buffer;
pub mod connection;
pub mod descriptors;
pub mod failure;
pub mod listener;
pub mod relay;
pub mod session;
pub mod slot;
pub mod socket;
pub mod timers;
pub mod upstream;
pub mod worker;

pub use worker::{Order, Worker};
