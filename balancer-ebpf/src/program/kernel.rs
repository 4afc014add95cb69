//! What the kernel is asked: clocks, sockets, routes.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup, bpf_sock_tuple,
    bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Ipv4Tuple,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_sk_release, bpf_skc_lookup_tcp,
};
use aya_ebpf::programs::XdpContext;
use balancer_ebpf::abi::{FlowKey, NOT_FAST_NS};

use crate::maps::NOT_FAST;

const AF_INET: u8 = 2;
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

/// Whether the stack has a socket for exactly this tuple: a connection of the proxy, one that it is accepting, or the
/// rest of one. A listener does not count.
#[inline(always)]
pub(crate) fn socket_exists(ctx: &XdpContext, key: &FlowKey) -> bool {
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: Ipv4Tuple {
                saddr: u32::from_ne_bytes(key.source),
                daddr: u32::from_ne_bytes(key.destination),
                sport: u16::from_ne_bytes(key.source_port),
                dport: u16::from_ne_bytes(key.destination_port),
            },
        },
    };
    // SAFETY: the tuple is initialised as far as its length says, and the reference is released below.
    unsafe {
        let socket = bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            &raw mut tuple,
            size_of::<Ipv4Tuple>() as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        );
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
    /// The packet is larger than the MTU.
    TooBig,
    /// Forwarding is off on the interface it came in by.
    ForwardingOff,
    /// Unreachable, local, or something newer.
    Unreachable,
}

/// The route of a packet with these addresses that came in by `ifindex`. `length` is checked against the MTU; with 0
/// the MTU is reported instead.
#[inline(always)]
pub(crate) fn route(
    ctx: &XdpContext,
    ifindex: u32,
    key: &FlowKey,
    tos: u8,
    length: u16,
) -> Result<Route, NoRoute> {
    // SAFETY: all zeros is a valid value of this plain struct, and the kernel wants unused fields zeroed.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = AF_INET;
    fib.l4_protocol = IPPROTO_TCP;
    fib.ifindex = ifindex;
    fib.__bindgen_anon_1.tot_len = length;
    fib.__bindgen_anon_2.tos = tos;
    fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(key.source);
    fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(key.destination);
    fib.sport = u16::from_ne_bytes(key.source_port);
    fib.dport = u16::from_ne_bytes(key.destination_port);
    // SAFETY: the struct is as long as we say.
    let result = unsafe { bpf_fib_lookup(ctx.as_ptr(), &raw mut fib, size_of::<FibLookup>() as i32, 0) };
    match result as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => {
            let mut macs = [0; 12];
            macs[..6].copy_from_slice(&fib.dmac);
            macs[6..].copy_from_slice(&fib.smac);
            // SAFETY: the kernel has written the MTU where the length was.
            Ok(Route { ifindex: fib.ifindex, macs, mtu: unsafe { fib.__bindgen_anon_1.mtu_result } })
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => Err(NoRoute::NoNeighbour),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(NoRoute::TooBig),
        BPF_FIB_LKUP_RET_FWD_DISABLED => Err(NoRoute::ForwardingOff),
        _ => Err(NoRoute::Unreachable),
    }
}
