//! What the kernel and user space of `balancer` share: the layout of the maps, and the packet logic.
//!
//! Everything here is `no_std`, allocates nothing, never panics on a packet, and is compiled twice: for the BPF
//! target, where [`main.rs`](../main.rs) wraps it in maps and helpers, and for the host, where it is unit-tested.
//!
//! | module | what it holds |
//! |---|---|
//! | [`affinity`] | the u64 that says which server a client belongs to |
//! | [`abi`] | keys and values of the other maps, and their names |
//! | [`counter`] | one enum that names every outcome of a packet |
//! | [`packet`] | parsing: frame → addresses, ports, flags, or the reason why not |
//! | [`checksum`] | RFC 1624 updates, and telling a checksum that a peer left unfinished |
//! | [`icmp`] | errors about packets of flows: relayed, and our own |
//! | [`reset`] | a reset in answer to a packet |
//! | [`phase`] | the life cycle of a flow: which packet moves it where, and how long it may idle |
//! | [`state`] | a flow's state in one word, so that its steps can be counted exactly |
//! | [`window`] | counting over two windows: the caps on half-open flows and on SYNs |
//! | [`siphash`] | the keyed hash behind sampling and port choice |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod affinity;
pub mod checksum;
pub mod counter;
pub mod icmp;
pub mod packet;
pub mod phase;
pub mod reset;
pub mod siphash;
pub mod state;
pub mod window;

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "the trait is unsafe to implement")]
    use crate::abi::{Address, Event, EventRate, Flow, FlowKey, ListenKey, Rate, Server, Service, Settings};
    use crate::window::Window;

    // SAFETY: all are `repr(C)`, made of integers and arrays of integers, without implicit padding: their sizes are
    // asserted where they are defined.
    unsafe impl aya::Pod for Address {}
    unsafe impl aya::Pod for Event {}
    unsafe impl aya::Pod for EventRate {}
    unsafe impl aya::Pod for Flow {}
    unsafe impl aya::Pod for FlowKey {}
    unsafe impl aya::Pod for ListenKey {}
    unsafe impl aya::Pod for Rate {}
    unsafe impl aya::Pod for Server {}
    unsafe impl aya::Pod for Service {}
    unsafe impl aya::Pod for Settings {}
    unsafe impl aya::Pod for Window {}
}
