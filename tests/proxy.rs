//! The slow path from outside: raw bytes in, raw bytes out, servers that behave and servers that do not.
//!
//! Numbers in names are those of the persistence cases.
#![expect(unreachable_pub, reason = "a test binary exports nothing; `pub` marks what its modules share")]

mod slow_path;
