//! What the kernel is asked: clocks, sockets, routes.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup, bpf_sock_tuple,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Ipv4Tuple,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Ipv6Tuple,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp,
};
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FlowKey, NOT_FAST_NS, Question};

use crate::maps::{NOT_FAST, QUESTION};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;

/// The clock of flows: monotonic, a few milliseconds coarse, and a tenth of the cost of the exact one.
#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    // SAFETY: takes nothing and always succeeds.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The clock of affinities and heartbeats, which user space reads as `CLOCK_BOOTTIME`.
#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: takes nothing and always succeeds.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Takes a server off the fast path for a while.
#[inline(always)]
pub(crate) fn mark_not_fast(server: u16) {
    if let Some(until) = NOT_FAST.get_ptr_mut(u32::from(server)) {
        // SAFETY: array elements stay where they are.
        unsafe { *until = boot_ns() + NOT_FAST_NS };
    }
}

/// Whether the stack has a socket that answers with exactly this tuple: a connection of the proxy, one that it is accepting, or the
/// rest of one. A listener does not count.
#[inline(always)]
pub(crate) fn socket_exists(ctx: &XdpContext, answers: &FlowKey) -> bool {
    let sport = u16::from_ne_bytes(answers.destination_port);
    let dport = u16::from_ne_bytes(answers.source_port);
    let mut tuple = MaybeUninit::<bpf_sock_tuple>::uninit();
    // SAFETY: all zeros is a valid value of this plain struct. What the shorter tuple leaves would be any register to the
    // compiler otherwise, and a pointer to the verifier.
    let tuple = unsafe {
        clear(tuple.as_mut_ptr());
        tuple.assume_init_mut()
    };
    let length = if answers.source.is_v4() {
        let (saddr, daddr) = (answers.destination.0[3], answers.source.0[3]);
        tuple.__bindgen_anon_1.ipv4 = Ipv4Tuple { saddr, daddr, sport, dport };
        size_of::<Ipv4Tuple>()
    } else {
        let (saddr, daddr) = (answers.destination.0, answers.source.0);
        tuple.__bindgen_anon_1.ipv6 = Ipv6Tuple { saddr, daddr, sport, dport };
        size_of::<Ipv6Tuple>()
    };
    // SAFETY: the tuple is initialised as far as its length says, and the reference is released below.
    unsafe {
        let socket =
            bpf_skc_lookup_tcp(ctx.as_ptr(), &raw mut *tuple, length as u32, BPF_F_CURRENT_NETNS as u64, 0);
        if socket.is_null() {
            return false;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != TCP_LISTEN
    }
}

/// Where a packet leaves, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    pub(crate) ifindex: u32,
    /// Ethernet destination, then source.
    pub(crate) macs: [u8; 12],
    /// The route's MTU.
    pub(crate) mtu: u16,
}

/// Why there is no route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// The neighbour is not resolved.
    NoNeighbour,
    /// The packet is larger than the MTU, which is this.
    TooBig(u16),
    /// Forwarding is off on the interface it came in by.
    ForwardingOff,
    /// Unreachable, local, or something newer.
    Unreachable,
}

/// What the kernel is asked about a route, all fields zero, as it wants those that are not used. In a map, since the stack
/// is short.
#[inline(always)]
fn question<'a>() -> Option<&'a mut FibLookup> {
    let question: *mut FibLookup = QUESTION.get_ptr_mut(0)?.cast();
    // SAFETY: the element of this CPU, which nothing interrupts; all zeros is a value, and nobody else refers to it: an answer
    // is copied before there is another question.
    unsafe {
        clear(question);
        Some(&mut *question)
    }
}

/// Makes it all zeros, word by word: the compiler makes a call of it otherwise, which clears byte by byte, and has a stack
/// frame of its own.
///
/// # Safety
/// `place` may be written to, and its type is made of whole words.
#[inline(always)]
pub(crate) unsafe fn clear<T>(place: *mut T) {
    let mut word = 0;
    while word < size_of::<T>() / size_of::<u32>() {
        // SAFETY: the caller's promise.
        unsafe { place.cast::<u32>().add(word).write_volatile(0) };
        word += 1;
    }
}

const _: () = assert!(size_of::<FibLookup>() == size_of::<Question>() && align_of::<FibLookup>() == 4);

/// The route of a packet with these addresses that came in by `ifindex`; `class`: what `Packet::class` says. `length` is checked against the MTU; with 0
/// the MTU is reported instead. `detour`: becomes 0 if the neighbour is the destination itself, and no router; in a map's
/// memory, of which the verifier remembers nothing.
#[inline(always)]
pub(crate) fn route(
    ctx: &XdpContext,
    ifindex: u32,
    key: &FlowKey,
    class: u32,
    length: u16,
    detour: &mut u8,
) -> Result<Route, NoRoute> {
    let fib = question().ok_or(NoRoute::Unreachable)?;
    fib.l4_protocol = IPPROTO_TCP;
    fib.ifindex = ifindex;
    fib.__bindgen_anon_1.tot_len = length;
    if key.destination.is_v4() {
        fib.family = AF_INET;
        fib.__bindgen_anon_2.tos = class as u8;
        fib.__bindgen_anon_3.ipv4_src = key.source.0[3];
        fib.__bindgen_anon_4.ipv4_dst = key.destination.0[3];
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_2.flowinfo = class;
        // SAFETY: all of the question is zero, whichever way it is read.
        let (source, destination) =
            unsafe { (&mut fib.__bindgen_anon_3.ipv6_src, &mut fib.__bindgen_anon_4.ipv6_dst) };
        key.source.write_to(source);
        key.destination.write_to(destination);
    }
    fib.sport = u16::from_ne_bytes(key.source_port);
    fib.dport = u16::from_ne_bytes(key.destination_port);
    let asked = next_hop(fib);
    // SAFETY: the struct is as long as we say.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), fib, size_of::<FibLookup>() as i32, 0) };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            let mut macs = [0; 12];
            macs[..6].copy_from_slice(&fib.dmac);
            macs[6..].copy_from_slice(&fib.smac);
            // SAFETY: the kernel has written the MTU where the length was.
            let mtu = unsafe { fib.__bindgen_anon_1.mtu_result };
            *detour = differs(&asked, &next_hop(fib));
            Ok(Route { ifindex: fib.ifindex, macs, mtu })
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => Err(NoRoute::NoNeighbour),
        // SAFETY: as above.
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(NoRoute::TooBig(unsafe { fib.__bindgen_anon_1.mtu_result })),
        BPF_FIB_LKUP_RET_FWD_DISABLED => Err(NoRoute::ForwardingOff),
        _ => Err(NoRoute::Unreachable),
    }
}

/// The destination, in the place of which the kernel writes the router's address if there is one. IPv4 has the first word; of
/// another family it is another one altogether.
#[inline(always)]
fn next_hop(fib: &FibLookup) -> [u32; 4] {
    // SAFETY: all of the question is initialised, whichever way it is read.
    unsafe { fib.__bindgen_anon_4.ipv6_dst }
}

#[inline(always)]
fn differs(one: &[u32; 4], other: &[u32; 4]) -> u8 {
    let bits = (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]);
    let bits = bits | bits >> 16;
    (bits | bits >> 8) as u8
}
