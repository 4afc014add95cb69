//! `balancer top`: what it draws, and how it behaves on a real terminal in front of a real instance.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[expect(dead_code, reason = "only the test of idle clients asks how many there may be")]
mod daemon;
mod pty;
mod screen;
mod watching;
