//! What can become of a packet. One enum: verdict, counter and name cannot drift apart.

/// What the kernel is told to do with the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Up to the kernel's stack, and so to the proxy.
    Pass,
    /// Gone: a packet of a live flow that cannot be forwarded now; TCP repeats it.
    Drop,
    /// Out of an interface, rewritten.
    Redirect,
}

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $variant:ident => $verdict:ident, $name:literal;)+) => {
        /// The outcome of a packet; its number is its index in the counter map.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Outcome {
            /// Every outcome, in the order of the counter map.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// What the kernel is told.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// The name in `show info`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

outcomes! {
    /// A SYN opened a flow and went to its server.
    SynForwarded => Redirect, "syn_forwarded";
    /// A packet of a flow, towards the server.
    ToServer => Redirect, "to_server";
    /// A packet of a flow, towards the client.
    ToClient => Redirect, "to_client";

    /// Shorter than an Ethernet header.
    ShortFrame => Pass, "pass_short_frame";
    /// Neither IPv4, IPv6 nor a VLAN tag: ARP, LLDP and the like.
    NotIp => Pass, "pass_not_ip";
    /// A VLAN tag.
    Vlan => Pass, "pass_vlan";
    /// An extension header of IPv6 other than a fragment's.
    Ipv6Extension => Pass, "pass_ipv6_extension";
    /// An IPv4 address in its IPv6 form, in a packet of IPv6: nobody's on the wire (RFC 4942 §2.2).
    MappedAddress => Pass, "pass_mapped_address";
    /// A source that means something on its own link only (`fe80::/10`).
    LinkLocal => Pass, "pass_link_local";
    /// A header or the packet ends before its length field says.
    Truncated => Pass, "pass_truncated";
    /// A header whose fields contradict each other.
    Malformed => Pass, "pass_malformed";
    /// UDP and everything else that is neither TCP nor ICMP.
    NotTcp => Pass, "pass_not_tcp";
    /// A fragment that belongs to no flow.
    Fragment => Pass, "pass_fragment";
    /// IP options, and no flow.
    IpOptions => Pass, "pass_ip_options";
    /// Not a SYN, and no flow: the proxy's, or nobody's.
    NoFlow => Pass, "pass_no_flow";
    /// A SYN to an address and port that no service listens on.
    NotService => Pass, "pass_not_service";
    /// The service's fast path is off.
    FastPathOff => Pass, "pass_fast_path_off";
    /// The service's process has not been heard of for longer than its hold time.
    HeartbeatStale => Pass, "pass_heartbeat_stale";
    /// The source is not known.
    NoAffinity => Pass, "pass_no_affinity";
    /// The source was known once.
    AffinityExpired => Pass, "pass_affinity_expired";
    /// The source's first request is still being answered.
    AffinityTentative => Pass, "pass_affinity_tentative";
    /// The entry changed while it was read.
    AffinityChanged => Pass, "pass_affinity_changed";
    /// Several users share the source address.
    Ambiguous => Pass, "pass_ambiguous";
    /// The entry names a server id that is not in use.
    UnknownServer => Pass, "pass_unknown_server";
    /// The server fails its health checks.
    ServerDown => Pass, "pass_server_down";
    /// The server is draining: the proxy decides.
    ServerDrain => Pass, "pass_server_drain";
    /// The server is in maintenance.
    ServerMaint => Pass, "pass_server_maint";
    /// The server's address has changed since the entry was learned.
    Generation => Pass, "pass_generation";
    /// The client speaks IPv4 and the server IPv6, or the other way round: the proxy goes between.
    FamilyDiffers => Pass, "pass_family_differs";
    /// The server sends unfinished checksums: see `unfinished_syn_ack`.
    ServerNotFast => Pass, "pass_server_not_fast";
    /// The server has as many fast connections as it may have: the proxy decides, or lets the client wait.
    ServerFull => Pass, "pass_server_full";
    /// The service denies the source: the proxy turns it away.
    Denied => Pass, "pass_denied";
    /// The service wants the source to go through the proxy.
    Excluded => Pass, "pass_excluded";
    /// Sent through the proxy on purpose, to keep checking.
    Sampled => Pass, "pass_sampled";
    /// A SYN with a TTL of one.
    TtlExpired => Pass, "pass_ttl";
    /// A SYN whose checksum is only the pseudo-header's: a local sender with transmit offload.
    UnfinishedSyn => Pass, "pass_unfinished_checksum";
    /// A SYN-ACK of that kind: its server is not fast for a while and its flow is gone.
    UnfinishedSynAck => Pass, "unfinished_syn_ack";
    /// More SYNs on this CPU than are looked at in a second.
    SynRate => Pass, "pass_syn_rate";
    /// Too many half-open flows of this source.
    HalfOpenSource => Pass, "pass_half_open_source";
    /// Too many half-open flows in all.
    HalfOpenTotal => Pass, "pass_half_open_total";
    /// The stack has a socket of this tuple.
    SocketExists => Pass, "pass_socket_exists";
    /// Forwarding is off on the interface the packet came in by.
    ForwardingOff => Pass, "pass_forwarding_off";
    /// No neighbour entry for the server; the proxy's own connection resolves it.
    NoNeighbour => Pass, "pass_no_neighbour";
    /// No route to the server.
    NoRoute => Pass, "pass_no_route";
    /// The route to the server leaves by an interface without the program.
    EgressForeign => Pass, "pass_egress_foreign";
    /// The route back to the client leaves by an interface without the program.
    NoWayBack => Pass, "pass_no_way_back";
    /// The ways to the server and to the client differ in MTU, and the client lets routers cut its packets up: nobody would
    /// tell it to send smaller ones.
    MtuDiffers => Pass, "pass_mtu_differs";
    /// What the table has of this tuple is about to be removed.
    FlowEnding => Pass, "pass_flow_ending";
    /// No free port towards the server was found.
    PortsExhausted => Pass, "pass_ports_exhausted";
    /// The flow table is full.
    FlowTableFull => Pass, "pass_flow_table_full";
    /// The maps are not set up; the loader's fault.
    NotConfigured => Pass, "pass_not_configured";

    /// A packet of a flow with IP options.
    DropOptions => Drop, "drop_ip_options";
    /// A first fragment of a flow.
    DropFragment => Drop, "drop_fragment";
    /// A packet of a flow with a TTL of one, and too many of those were answered in this second.
    DropTtl => Drop, "drop_ttl";
    /// A packet of a flow that is larger than the route's MTU, and is not answered: its sender lets routers cut it up, which
    /// is not done here, or too many were answered in this second.
    DropMtu => Drop, "drop_mtu";
    /// A packet of a flow without a route.
    DropNoRoute => Drop, "drop_no_route";
    /// A packet of a flow whose neighbour is not resolved.
    DropNoNeighbour => Drop, "drop_no_neighbour";
    /// A packet of a flow whose route leaves by an interface without the program.
    DropEgress => Drop, "drop_egress_foreign";

    /// ICMP that is no error about a packet of a live flow: an echo, an error about a connection of the proxy.
    Icmp => Pass, "pass_icmp";
    /// An ICMP error about a packet of a flow that went to the client, towards the server.
    IcmpToServer => Redirect, "icmp_to_server";
    /// An ICMP error about a packet of a flow that went to the server, towards the client.
    IcmpToClient => Redirect, "icmp_to_client";
    /// An ICMP error about a packet of a flow that was not sent on: too many in this second, no hops left, or no way.
    DropIcmp => Drop, "drop_icmp";
    /// A packet of a flow that is larger than the route's MTU, answered with that MTU.
    IcmpTooBig => Redirect, "icmp_too_big";
    /// A packet of a flow with a TTL of one, answered.
    IcmpTimeExceeded => Redirect, "icmp_time_exceeded";

    /// Another connection of the same client and port goes to the server already, by another address of ours, and the
    /// server could not tell them apart.
    TupleTaken => Pass, "pass_tuple_taken";
    /// The client is on the server's own link, or is the server: its answers would not come back through this host.
    BesideServer => Pass, "pass_client_beside_server";
    /// A packet of a server that sees its clients, of a flow that is over: routed on, it would come from an address that
    /// the client has never talked to. It is a reset itself, or too many were answered in this second.
    DropOver => Drop, "drop_flow_over";
    /// The same, answered with a reset.
    ResetServer => Redirect, "reset_to_server";
    /// The server has another port than the one that the client asks for, and nothing in the packet may be changed.
    PortDiffers => Pass, "pass_port_differs";
    /// The way to the server leads through a router, which would not know what to do with a packet for the service's address.
    NotOnLink => Pass, "pass_server_not_on_link";
    /// A packet of a flow that was removed just when it came.
    DropGone => Drop, "drop_flow_gone";
    /// A packet of a flow that user space has ended: the stack answers it with a reset.
    Ended => Pass, "pass_flow_ended";
    /// The same, and too many were passed in this second.
    DropEnded => Drop, "drop_flow_ended";
}

/// What is counted beside outcomes, from the far end of a service's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Note {
    /// Ends that the ring of events had no room for; the collector tells them.
    EventsFull = MAX_OUTCOMES - 1,
    /// Ends that were too many for a second; the collector tells them.
    EventsLimited = MAX_OUTCOMES - 2,
    /// Connections whose end nobody tells: their place was taken, or their service was down, before it could be.
    EndsLost = MAX_OUTCOMES - 3,
}

impl Note {
    /// All of them.
    pub const ALL: &[Self] = &[Self::EventsFull, Self::EventsLimited, Self::EndsLost];

    /// The name in `show info`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsFull => "events_full",
            Self::EventsLimited => "events_limited",
            Self::EndsLost => "ends_lost",
        }
    }
}

/// The place of a number of [`Outcome`] or [`Note`] among the counters of the service in `slot`; slot 0 is what belongs
/// to no service.
#[inline(always)]
pub const fn index(slot: u32, number: u32) -> u32 {
    slot * MAX_OUTCOMES + number
}

/// Entries of the counter map for one service; leaves room for outcomes of later versions with the same schema, which come last: counters
/// are pinned by number.
pub const MAX_OUTCOMES: u32 = 128;

const _: () = assert!(Outcome::ALL.len() + Note::ALL.len() <= MAX_OUTCOMES as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        let mut names: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Outcome::ALL.len());
    }
}
