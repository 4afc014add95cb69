//! The XDP program through the real verifier and BPF_PROG_TEST_RUN: packet and maps in; verdict, packet, counter and
//! maps out. Runs in a namespace with real interfaces and routes, since the program asks the kernel for both.

#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

mod fixture;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balancer::datapath::collect::{Collector, flow_clock};
use balancer_ebpf::abi::{
    Address, FAST_PATH_EXCLUSIVE, FAST_PATH_OFF, NOT_FAST_NS, ROUTE_NS, SERVER_DOWN, SERVER_DRAIN,
    SERVER_MAINT, Server, Service,
};
use balancer_ebpf::affinity::Affinity;
use balancer_ebpf::counter::Outcome;
use balancer_ebpf::phase::{
    CLOSING, CLOSING_NS, DEAD, ENDED_NS, ESTABLISHED, ESTABLISHED_NS, HALF_OPEN, HALF_OPEN_NS,
};
use fixture::packet::{ACK, CWR, ECE, FIN, Frame, PSH, RST, SYN, URG};
use fixture::{CLIENT, CLIENT6, World, both, each, packet, trial, trial6};
use libtest_mimic::{Arguments, Trial};
use xtask::kernels::guest;

/// These have flows of an hour, and no flow is older than the machine that it runs on.
const OF_AN_HOUR: [&str; 8] = [
    "a_flow_that_expires_is_taken_off_by_the_collector",
    "an_answer_that_comes_too_late_does_not_reach_the_client",
    "an_answer_that_comes_too_late_does_not_reach_the_client_over_ipv6",
    "an_established_flow_expires_only_when_both_directions_are_idle",
    "ends_of_directly_answered_flows_are_told",
    "ends_of_directly_answered_flows_are_told_over_ipv6",
    "what_falls_silent_is_told_by_the_collector",
    "what_is_about_to_be_removed_is_not_touched",
];
/// These have hundreds of packets within the seconds for which something counts, or look for a checksum for as long, which an
/// emulated machine may not manage.
const OF_MANY_PACKETS: [&str; 12] = [
    "a_finished_checksum_that_looks_unfinished_is_fast",
    "a_finished_checksum_that_looks_unfinished_is_fast_by_gateway",
    "a_finished_checksum_that_looks_unfinished_is_fast_by_gateway_over_ipv6",
    "a_finished_checksum_that_looks_unfinished_is_fast_over_ipv6",
    "a_hundred_thousand_denied_sources_are_no_trouble",
    "a_flood_from_unknown_sources_leaves_no_trace",
    "a_full_table_refuses_new_flows_and_keeps_the_old",
    "a_missing_neighbour_is_told_and_not_for_every_packet",
    "half_open_flows_of_a_block_are_capped_together_over_ipv6",
    "half_open_flows_of_one_source_are_capped",
    "half_open_flows_of_one_source_are_capped_over_ipv6",
    "what_the_ring_does_not_take_is_told_by_the_collector",
];

fn main() {
    guest::play_if_asked();
    let arguments = Arguments::from_args();
    let trials = [
        parsing(),
        decision(),
        rewriting(),
        life_cycle(),
        families(),
        ipv6(),
        wishes(),
        counts(),
        ending(),
        abuse(),
        two_cpus(),
        fixture::events::trials(),
        fixture::errors::trials(),
        fixture::forwarding::trials(),
        fixture::direct::trials(),
    ]
    .concat_trials();
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().map(fits_here).collect());
    fixture::end();
    conclusion.exit();
}

fn fits_here(trial: Trial) -> Trial {
    let is_young = flow_clock() < ESTABLISHED_NS + 10 * SECOND;
    let name = trial.name();
    let cannot =
        is_young && OF_AN_HOUR.contains(&name) || guest::is_inside() && OF_MANY_PACKETS.contains(&name);
    let ignored = cannot || trial.has_ignored_flag();
    trial.with_ignored_flag(ignored)
}

trait Concat {
    fn concat_trials(self) -> Vec<Trial>;
}

impl<T: IntoIterator<Item = Trial>, const N: usize> Concat for [T; N] {
    fn concat_trials(self) -> Vec<Trial> {
        self.into_iter().flatten().collect()
    }
}

/// A packet that must be passed untouched, counted under this name, with the flow table as it was.
fn passes(name: &str, outcome: Outcome, packet: fn() -> Frame) -> Trial {
    trial(name, move |world| {
        let run = world.run(&packet());
        run.expect(outcome);
        run.expect_untouched();
        world.expect_flows(0);
    })
}

/// The same for an ordinary SYN in a world that has been changed.
fn doubt(name: &str, outcome: Outcome, change: fn(&mut World)) -> Trial {
    trial(name, move |world| {
        change(world);
        let run = world.run(&Frame::syn());
        run.expect(outcome);
        run.expect_untouched();
        world.expect_flows(0);
    })
}

fn parsing() -> Vec<Trial> {
    vec![
        passes("arp_is_passed", Outcome::NotIp, || Frame::syn().ether_type(0x0806)),
        passes("lldp_is_passed", Outcome::NotIp, || Frame::syn().ether_type(0x88cc)),
        passes("another_version_is_passed", Outcome::Malformed, || Frame::syn().ether_type(0x86dd)),
        passes("a_vlan_tag_is_passed", Outcome::Vlan, || Frame::syn().ether_type(0x8100)),
        passes("qinq_is_passed", Outcome::Vlan, || Frame::syn().ether_type(0x88a8)),
        passes("udp_is_passed", Outcome::NotTcp, || Frame::syn().protocol(17)),
        passes("icmp_is_passed", Outcome::Icmp, || Frame::syn().protocol(1)),
        passes("sctp_is_passed", Outcome::NotTcp, || Frame::syn().protocol(132)),
        passes("tcp_to_another_port_is_passed", Outcome::NotService, || Frame::syn().destination_port(81)),
        passes("transit_traffic_is_passed", Outcome::NotService, || Frame::syn().destination([192, 0, 2, 1])),
        passes("ihl_4_is_passed", Outcome::Malformed, || Frame::syn().byte(14, 0x44)),
        passes("ihl_15_in_a_short_packet_is_passed", Outcome::Truncated, || Frame::syn().byte(14, 0x4f)),
        passes("a_first_fragment_is_passed", Outcome::Fragment, || Frame::syn().byte(20, 0x20)),
        passes("a_later_fragment_is_passed", Outcome::Fragment, || Frame::syn().byte(21, 9)),
        passes("a_length_beyond_the_frame_is_passed", Outcome::Truncated, || Frame::syn().byte(16, 1)),
        passes("a_data_offset_of_4_is_passed", Outcome::Malformed, || Frame::syn().byte(46, 0x40)),
        passes("ip_options_without_a_flow_are_passed", Outcome::IpOptions, || Frame::syn().ip_options()),
        passes("syn_ack_without_a_flow_is_passed", Outcome::NoFlow, || Frame::syn().flags(SYN | ACK)),
        passes("syn_fin_is_passed", Outcome::NoFlow, || Frame::syn().flags(SYN | FIN)),
        passes("syn_rst_is_passed", Outcome::NoFlow, || Frame::syn().flags(SYN | RST)),
        passes("null_is_passed", Outcome::NoFlow, || Frame::syn().flags(0)),
        passes("xmas_is_passed", Outcome::NoFlow, || Frame::syn().flags(FIN | PSH | URG)),
        passes("data_without_a_flow_is_passed", Outcome::NoFlow, || {
            Frame::syn().flags(ACK | PSH).payload(10)
        }),
        passes("rst_without_a_flow_is_passed", Outcome::NoFlow, || Frame::syn().flags(RST)),
    ]
}

fn decision() -> Vec<Trial> {
    vec![
        doubt("an_unknown_source_is_passed", Outcome::NoAffinity, World::forget_client),
        doubt("an_entry_at_its_expiry_is_passed", Outcome::AffinityExpired, |world| {
            let now = world.boot_seconds();
            world.learn(Affinity::new(world.server_id(), 1, now));
        }),
        doubt("a_tentative_entry_is_absent", Outcome::AffinityTentative, |world| {
            world.learn(world.affinity().tentative());
        }),
        doubt("an_ambiguous_source_is_passed", Outcome::Ambiguous, |world| {
            let now = world.boot_seconds();
            world.learn(world.affinity().with_ambiguity(now, 1800));
        }),
        doubt("an_unknown_server_id_is_passed", Outcome::UnknownServer, |world| {
            let later = world.boot_seconds() + 60;
            world.learn(Affinity::new(99, 1, later));
        }),
        doubt("a_server_id_out_of_range_is_passed", Outcome::UnknownServer, |world| {
            let later = world.boot_seconds() + 60;
            world.learn(Affinity::new(u16::MAX, 1, later));
        }),
        doubt("another_generation_is_passed", Outcome::Generation, |world| {
            let later = world.boot_seconds() + 60;
            world.learn(Affinity::new(world.server_id(), 2, later));
        }),
        doubt("a_down_server_is_passed", Outcome::ServerDown, |world| world.server_state(SERVER_DOWN)),
        doubt("a_draining_server_is_passed", Outcome::ServerDrain, |world| world.server_state(SERVER_DRAIN)),
        doubt("a_server_in_maintenance_is_passed", Outcome::ServerMaint, |world| {
            world.server_state(SERVER_MAINT);
        }),
        doubt("a_server_marked_not_fast_is_passed", Outcome::ServerNotFast, |world| {
            let until = world.boot_ns() + NOT_FAST_NS;
            let id = u32::from(world.server_id());
            world.maps.not_fast.set(id, until, 0).expect("set");
        }),
        doubt("a_denied_source_is_passed", Outcome::Denied, |world| world.deny(&["10.10.1.2"], false)),
        doubt("a_source_in_a_denied_block_is_passed", Outcome::Denied, |world| {
            world.deny(&["10.8.0.0/13", "192.0.2.0/24"], false);
        }),
        doubt("a_world_that_is_denied_is_passed", Outcome::Denied, |world| world.deny(&["0.0.0.0/0"], false)),
        trial("what_others_deny_and_what_is_no_longer_denied_does_not_count", |world| {
            world.deny(&["10.10.0.0/16"], true);
            world.deny(&["10.10.1.0/31", "10.10.1.3", "10.10.1.4/30", "2001:db8::/32"], false);
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.deny(&["10.10.1.2"], false);
            let other = || Frame::syn().source_port(20_001);
            world.run(&other()).expect(Outcome::Denied);
            // A flow that is there already goes on.
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            world.deny(&[], false);
            world.run(&other()).expect(Outcome::SynForwarded);
        }),
        trial("a_hundred_thousand_denied_sources_are_no_trouble", |world| {
            let many: Vec<_> =
                (0..100_000_u32).map(|n| Ipv4Addr::from_bits(0x0b00_0000 + 2 * n).to_string()).collect();
            let mut blocks: Vec<_> = many.iter().map(String::as_str).collect();
            world.deny(&blocks, false);
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            blocks.push("10.10.1.2");
            world.deny(&blocks, false);
            world.run(&Frame::syn().source_port(20_001)).expect(Outcome::Denied);
            world.deny(&[], false);
            assert_eq!(world.maps.denied.keys().count(), 0);
        }),
        doubt("a_fast_path_that_is_off_passes", Outcome::FastPathOff, |world| {
            world.service(|service| service.fast_path = FAST_PATH_OFF);
        }),
        doubt("a_stale_heartbeat_passes", Outcome::HeartbeatStale, |world| {
            let now = world.boot_ns();
            world.service(|service| {
                service.hold = 1;
                service.heartbeat = now - 2;
            });
        }),
        trial("exclusive_samples_some_syns_and_the_same_ones_again", |world| {
            world.service(|service| {
                service.fast_path = FAST_PATH_EXCLUSIVE;
                service.verify_share = 4;
            });
            let outcome_of =
                |world: &mut World, port: u16| world.run(&Frame::syn().source_port(port)).outcome();
            let first: Vec<_> = (0..64).map(|n| outcome_of(world, 20_000 + n)).collect();
            let sampled = first.iter().filter(|outcome| **outcome == Outcome::Sampled).count();
            assert!((4..=32).contains(&sampled), "{sampled} of 64 with a share of 4");
            for (n, outcome) in first.iter().enumerate().filter(|(_, outcome)| **outcome == Outcome::Sampled)
            {
                assert_eq!(outcome_of(world, 20_000 + n as u16), *outcome, "a repeated SYN is decided alike");
            }
        }),
        passes("a_syn_with_a_ttl_of_1_is_passed", Outcome::TtlExpired, || Frame::syn().ttl(1)),
        doubt(
            "an_interface_without_the_program_is_no_way_out",
            Outcome::EgressForeign,
            World::close_server_interface,
        ),
        doubt("an_unresolved_neighbour_is_passed", Outcome::NoNeighbour, World::forget_server_neighbour),
        doubt("a_socket_of_the_same_tuple_is_passed", Outcome::SocketExists, World::open_socket_of_the_tuple),
        doubt("a_host_that_does_not_forward_passes", Outcome::ForwardingOff, World::stop_forwarding),
        doubt("a_server_without_a_known_source_address_is_passed", Outcome::NoRoute, |world| {
            let id = u32::from(world.server_id());
            let server = world.maps.servers.get(&id, 0).expect("get");
            world.maps.servers.set(id, Server { snat: Address::NONE, ..server }, 0).expect("set");
        }),
        trial("a_port_outside_the_range_is_not_used_again", |world| {
            world.establish();
            world.run(&world.reply(FIN | ACK));
            world.run(&Frame::syn().flags(FIN | ACK));
            world.service(|service| service.first_port = 30_000);
            let run = world.run(&Frame::syn().sequence(77));
            run.expect(Outcome::SynForwarded);
            assert!(run.packet().source_port >= 30_000);
        }),
    ]
}

fn rewriting() -> Vec<Trial> {
    let ports = both("the_clients_port_is_kept_where_it_may_be", |world| {
        let run = world.run(&world.syn().source_port(12_345));
        assert_eq!(run.packet().source_port, 12_345);
        let run = world.run(&world.syn().source_port(50_000));
        let port = run.packet().source_port;
        assert!((10_000..=32_767).contains(&port), "{port} is one the kernel may give to the proxy");
    });
    let of_ipv4 = vec![
        trial("the_ttl_goes_down_and_the_rest_of_the_headers_stays", |world| {
            let syn = Frame::syn()
                .byte(15, 0xb8)
                .byte(18, 0x12)
                .byte(19, 0x34)
                .tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
            let run = world.run(&syn);
            run.expect(Outcome::SynForwarded);
            run.expect_valid_checksums();
            let (before, after) = (syn.bytes(), run.bytes());
            assert_eq!(after[22], before[22] - 1, "TTL");
            for (range, what) in
                [(14..22, "DSCP, ECN, id, DF"), (38..50, "sequence, flags, window"), (52..62, "options")]
            {
                assert_eq!(after[range.clone()], before[range], "{what}");
            }
        }),
        trial("snat_addresses_of_the_service_are_used", |world| {
            world.service(|service| {
                (service.snat_v4, service.snat_v6) = (1, 1);
                service.snat_ips[0] = Address::v4([10, 20, 1, 77]);
                service.snat_ips[1] = Address::from(IpAddr::from([0x20; 16]));
            });
            assert_eq!(world.run(&Frame::syn()).packet().source, IpAddr::from([10, 20, 1, 77]));
        }),
    ];
    ports.into_iter().chain(of_ipv4).collect()
}

fn life_cycle() -> Vec<Trial> {
    vec![
        trial("a_repeated_syn_goes_to_the_recorded_server_whatever_the_table_says", |world| {
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.forget_client();
            world.server_state(SERVER_DOWN);
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            world.expect_flows(2);
        }),
        trial("a_live_flow_outlives_drain_affinity_and_process", |world| {
            world.establish();
            world.forget_client();
            world.server_state(SERVER_MAINT);
            world.service(|service| *service = Service { name: service.name, ..Service::FREE });
            world.run(&Frame::syn().flags(ACK | PSH).payload(9)).expect(Outcome::ToServer);
            world.run(&world.reply(ACK)).expect(Outcome::ToClient);
        }),
        trial("a_half_open_flow_is_a_miss_at_its_deadline", |world| {
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.age_flows(HALF_OPEN_NS);
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::NoFlow);
        }),
        trial("an_established_flow_expires_only_when_both_directions_are_idle", |world| {
            world.establish();
            world.age_client_side(ESTABLISHED_NS + 1);
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::ToServer);
            world.age_flows(ESTABLISHED_NS);
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::NoFlow);
        }),
        trial("a_forged_reset_is_survived_by_a_flow_whose_ends_talk", |world| {
            world.establish();
            world.run(&world.reply(RST)).expect(Outcome::ToClient);
            assert_eq!(world.phase(), CLOSING);
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::ToServer);
            world.run(&world.reply(ACK)).expect(Outcome::ToClient);
            assert_eq!(world.phase(), ESTABLISHED);
        }),
        trial("a_forged_reset_and_a_forged_syn_do_not_kill_a_flow_whose_server_drains", |world| {
            world.establish();
            world.server_state(SERVER_DRAIN);
            world.run(&Frame::syn().flags(RST).sequence(12_345)).expect(Outcome::ToServer);
            world.run(&Frame::syn().sequence(777)).expect(Outcome::ToServer);
            world.run(&Frame::syn().flags(ACK | PSH).payload(9)).expect(Outcome::ToServer);
            world.run(&world.reply(ACK)).expect(Outcome::ToClient);
            assert_eq!(world.phase(), ESTABLISHED);
        }),
        trial("a_half_closed_flow_waits_for_the_answer_as_long_as_any_other", |world| {
            world.establish();
            world.run(&Frame::syn().flags(FIN | ACK)).expect(Outcome::ToServer);
            world.run(&world.reply(ACK)).expect(Outcome::ToClient);
            world.age_flows(2 * CLOSING_NS);
            world.run(&world.reply(ACK | PSH).payload(9)).expect(Outcome::ToClient);
        }),
        trial("a_new_syn_on_a_live_flow_goes_to_its_server", |world| {
            world.establish();
            world.forget_client();
            world.run(&Frame::syn().sequence(77)).expect(Outcome::ToServer);
            assert_eq!(world.phase(), ESTABLISHED);
        }),
        trial("what_is_about_to_be_removed_is_not_touched", |world| {
            world.establish();
            world.age_flows(ESTABLISHED_NS + 1);
            world.run(&Frame::syn().sequence(77)).expect(Outcome::FlowEnding);
        }),
        trial("a_syn_ack_with_an_unfinished_checksum_ends_the_flow_and_marks_the_server", |world| {
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.run(&world.reply(SYN | ACK).unfinished_checksum()).expect(Outcome::UnfinishedSynAck);
            assert_eq!(world.phase(), DEAD);
            world.run(&Frame::syn().source_port(20_001)).expect(Outcome::ServerNotFast);
        }),
        trial("packets_of_a_flow_that_cannot_be_sent_are_dropped_and_never_passed", |world| {
            world.establish();
            world.run(&Frame::syn().flags(ACK).ttl(1)).expect(Outcome::IcmpTimeExceeded);
            world.run(&Frame::syn().flags(ACK).ip_options()).expect(Outcome::DropOptions);
            world.run(&Frame::syn().flags(ACK).byte(20, 0x20)).expect(Outcome::DropFragment);
            world.forget_server_neighbour();
            world.age_flows(ROUTE_NS);
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::DropNoNeighbour);
        }),
        trial("packets_and_bytes_are_counted_per_direction", |world| {
            world.establish();
            world.run(&Frame::syn().flags(ACK | PSH).payload(100));
            let (client, server) = world.flow();
            assert_eq!((client.packets, client.bytes), (3, 100));
            assert_eq!((server.packets, server.bytes), (1, 0));
        }),
    ]
}

/// What holds for both families, however packets travel.
fn families() -> Vec<Trial> {
    [
        each("a_known_source_is_sent_to_its_server", |world| {
            let run = world.run(&world.syn());
            run.expect(Outcome::SynForwarded);
            let out = run.packet();
            assert_eq!((out.source, out.destination), (world.seen(), world.server()));
            assert_eq!(out.destination_port, 8080);
            assert_eq!(run.macs(), world.macs_towards_server());
            world.expect_flows(2);
        }),
        each("an_ecn_syn_is_fast_and_keeps_its_bits", |world| {
            let run = world.run(&world.syn().flags(SYN | ECE | CWR).tos(0x02));
            run.expect(Outcome::SynForwarded);
            assert_eq!(run.packet().flags, SYN | ECE | CWR);
            assert_eq!(run.tos(), 0x02);
        }),
        each("a_syn_with_an_unfinished_checksum_is_passed", |world| {
            let run = world.run(&world.syn().unfinished_checksum());
            run.expect(Outcome::UnfinishedSyn);
            world.expect_flows(0);
        }),
        each("a_finished_checksum_that_looks_unfinished_is_fast", |world| {
            world.run(&world.syn().lookalike_checksum()).expect(Outcome::SynForwarded);
            world.run(&world.reply(SYN | ACK).lookalike_checksum()).expect(Outcome::ToClient);
            world.run(&world.syn().source_port(20_001)).expect(Outcome::SynForwarded);
        }),
        each("a_client_without_a_neighbour_entry_is_answered_the_way_it_came", |world| {
            world.forget_client_neighbour();
            world.run(&world.syn()).expect(Outcome::SynForwarded);
            let run = world.run(&world.reply(SYN | ACK));
            run.expect(Outcome::ToClient);
            assert_eq!(run.macs(), world.syn().macs_reversed());
        }),
        each("checksums_are_right_for_every_length", |world| {
            world.establish();
            let longest = if world.client().is_ipv4() { 1460 } else { 1440 };
            for length in [0, 1, 2, 3, 555, longest] {
                let run = world.run(&world.syn().flags(ACK | PSH).payload(length));
                run.expect(Outcome::ToServer);
                run.expect_valid_checksums();
                let run = world.run(&world.reply(ACK | PSH).payload(length));
                run.expect(Outcome::ToClient);
                run.expect_valid_checksums();
            }
        }),
        each("the_answer_comes_from_the_address_the_client_asked", |world| {
            world.run(&world.syn()).expect(Outcome::SynForwarded);
            let run = world.run(&world.reply(SYN | ACK));
            run.expect(Outcome::ToClient);
            run.expect_valid_checksums();
            let out = run.packet();
            assert_eq!((out.source, out.source_port), (world.vip(), 80));
            assert_eq!((out.destination, out.destination_port), (world.client(), 20_000));
            assert_eq!(run.macs(), world.macs_towards_client());
        }),
        each("a_reset_of_the_server_reaches_the_client", |world| {
            world.run(&world.syn()).expect(Outcome::SynForwarded);
            world.run(&world.reply(RST | ACK)).expect(Outcome::ToClient);
            assert_eq!(world.phase(), CLOSING);
        }),
        each("a_stranger_cannot_answer_for_the_server", |world| {
            world.run(&world.syn()).expect(Outcome::SynForwarded);
            let stranger = match world.server() {
                IpAddr::V4(_) => IpAddr::from([10, 20, 1, 99]),
                IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0x20, 1, 0, 0, 0, 0x99).into(),
            };
            let forged = world.reply(SYN | ACK).source(stranger);
            world.run(&forged).expect(Outcome::NoFlow);
        }),
        each("a_handshake_establishes_the_flow", |world| {
            world.run(&world.syn());
            assert_eq!(world.phase(), HALF_OPEN);
            world.run(&world.reply(SYN | ACK));
            world
                .run(&world.syn().flags(ACK).acknowledgment(fixture::SERVER_ISN + 1))
                .expect(Outcome::ToServer);
            assert_eq!(world.phase(), ESTABLISHED);
        }),
        each("closing_and_lingering", |world| {
            world.establish();
            world.run(&world.syn().flags(FIN | ACK)).expect(Outcome::ToServer);
            world.run(&world.reply(FIN | ACK)).expect(Outcome::ToClient);
            world.run(&world.syn().flags(ACK)).expect(Outcome::ToServer);
            assert_eq!(world.phase(), CLOSING);
            world.age_flows(CLOSING_NS);
            world.run(&world.syn().flags(ACK)).expect(Outcome::NoFlow);
        }),
        each("a_new_syn_after_both_fins_is_a_new_decision_on_the_same_port", |world| {
            world.establish();
            let port = world.snat_port();
            world.run(&world.reply(FIN | ACK));
            world.run(&world.syn().flags(FIN | ACK));
            let run = world.run(&world.syn().sequence(77));
            run.expect(Outcome::SynForwarded);
            assert_eq!(run.packet().source_port, port, "a closed tuple keeps its port for its own client");
            assert_eq!(world.phase(), HALF_OPEN);
            world.expect_flows(2);
        }),
        each("a_syn_that_is_passed_kills_what_was_left_of_its_tuple", |world| {
            world.establish();
            world.run(&world.reply(FIN | ACK));
            world.run(&world.syn().flags(FIN | ACK));
            world.server_state(SERVER_DOWN);
            world.run(&world.syn().sequence(77)).expect(Outcome::ServerDown);
            assert_eq!(world.phase(), DEAD);
            world.run(&world.syn().flags(ACK)).expect(Outcome::NoFlow);
            world.run(&world.reply(ACK)).expect(world.server_is_late());
        }),
        each("what_is_ended_is_the_stacks_from_the_clients_side", |world| {
            world.establish();
            let (from_client, from_server) = (world.syn().flags(ACK | PSH).payload(9), world.reply(ACK));
            assert_eq!(world.end_flows(world.server_id()), 1);
            assert_eq!((world.phase(), world.connections()), (DEAD, 0));
            let late = match world.server_is_late() {
                Outcome::NoFlow => Outcome::Ended,
                late => late,
            };
            for (frame, outcome) in [(from_client, Outcome::Ended), (from_server, late)] {
                let run = world.run(&frame);
                run.expect(outcome);
                if run.verdict_is_pass() {
                    run.expect_untouched();
                }
            }
            assert_eq!((world.phase(), world.connections()), (DEAD, 0));
            assert_eq!(world.end_flows(world.server_id()), 0, "once");
            world.age_flows(ENDED_NS);
            world.run(&world.syn().sequence(77)).expect(Outcome::FlowEnding);
        }),
        each("half_open_flows_of_one_source_are_capped", |world| {
            let fast = (0..400)
                .filter(|n| {
                    world.run(&world.syn().source_port(10_000 + n)).outcome() == Outcome::SynForwarded
                })
                .count();
            assert_eq!(fast, 256);
            world.run(&world.syn().source_port(30_000)).expect(Outcome::HalfOpenSource);
        }),
        each("short_frames_do_no_harm", |world| {
            let whole = world.syn().bytes();
            for length in 14..whole.len() {
                let run = world.run(&Frame::raw(whole[..length].to_vec()));
                assert!(run.verdict_is_pass(), "{length} bytes");
            }
            world.expect_flows(0);
        }),
    ]
    .concat_trials()
}

/// `--fast-path-exclude` and `--mss`.
fn wishes() -> Vec<Trial> {
    const MSS_1460: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 7];
    const MSS_1200: &[u8] = &[2, 4, 0x04, 0xb0, 1, 3, 3, 7];
    [
        each("an_excluded_source_is_the_proxys", |world| {
            let (own, around) = match world.client() {
                IpAddr::V4(_) => ("10.10.1.2", "10.10.0.0/16"),
                IpAddr::V6(_) => ("2001:db8:10:1::2", "2001:db8:10::/48"),
            };
            world.establish();
            world.exclude(&[own], &[]);
            let other = world.syn().source_port(20_001);
            let run = world.run(&other);
            run.expect(Outcome::Excluded);
            run.expect_untouched();
            world.run(&world.syn().flags(ACK)).expect(Outcome::ToServer);
            // The same block, denied now; then both, of which being denied says more.
            world.exclude(&[], &[own]);
            world.run(&other).expect(Outcome::Denied);
            world.exclude(&[own], &[own]);
            world.run(&other).expect(Outcome::Denied);
            world.exclude(&[around], &[own]);
            world.run(&other).expect(Outcome::Denied);
            world.exclude(&[around], &[]);
            world.run(&other).expect(Outcome::Excluded);
            world.exclude(&[], &[]);
            world.run(&other).expect(Outcome::SynForwarded);
        }),
        each("the_segment_size_is_clamped_on_syn_and_syn_ack_only", |world| {
            world.service(|service| service.mss = 1_200);
            let (syn, at) = (world.syn().tcp_options(MSS_1460), packet::tcp_at(&world.syn().bytes()) + 20);
            for expected in [Outcome::SynForwarded, Outcome::ToServer] {
                let run = world.run(&syn);
                run.expect(expected);
                run.expect_valid_checksums();
                assert_eq!(run.bytes()[at..], *MSS_1200);
            }
            let answer = world.reply(SYN | ACK).tcp_options(MSS_1460).payload(5);
            let run = world.run(&answer);
            run.expect(Outcome::ToClient);
            run.expect_valid_checksums();
            assert_eq!(run.bytes()[at..at + 8], *MSS_1200);
            let run = world.run(&world.syn().flags(ACK).acknowledgment(1_001).tcp_options(MSS_1460));
            run.expect(Outcome::ToServer);
            assert_eq!(run.bytes()[at..], *MSS_1460);
            // Odd places, nothing to say, nonsense.
            for (n, before, after) in [
                (1, &[1, 2, 4, 0x05, 0xb4, 1, 1, 1][..], &[1, 2, 4, 0x04, 0xb0, 1, 1, 1][..]),
                (2, &[2, 4, 0x04, 0x00], &[2, 4, 0x04, 0x00]),
                (3, &[], &[]),
                (4, &[8, 0, 2, 4, 0x05, 0xb4, 1, 1], &[8, 0, 2, 4, 0x05, 0xb4, 1, 1]),
            ] {
                let run = world.run(&world.syn().source_port(20_000 + n).tcp_options(before));
                run.expect(Outcome::SynForwarded);
                run.expect_valid_checksums();
                assert_eq!(run.bytes()[at..], *after);
            }
        }),
        each("a_syn_that_is_passed_keeps_its_segment_size", |world| {
            world.service(|service| service.mss = 1_200);
            world.server_state(SERVER_DRAIN);
            let run = world.run(&world.syn().tcp_options(MSS_1460));
            run.expect(Outcome::ServerDrain);
            run.expect_untouched();
        }),
    ]
    .concat_trials()
}

/// An ordinary SYN of IPv6 in a world that has been changed: passed untouched, counted under this name, and nothing else.
fn doubt6(name: &str, outcome: Outcome, change: fn(&mut World)) -> Trial {
    trial6(name, move |world| {
        change(world);
        let run = world.run(&world.syn());
        run.expect(outcome);
        run.expect_untouched();
        world.expect_flows(0);
    })
}

fn ipv6() -> Vec<Trial> {
    let passes6 =
        |name: &str, outcome, packet: fn() -> Frame| passes(&format!("{name}_over_ipv6"), outcome, packet);
    let known = |world: &mut World, source: IpAddr| {
        let affinity = world.affinity();
        world.learn_block(source, affinity);
    };
    vec![
        passes6("hop_by_hop_options_are_passed", Outcome::Ipv6Extension, || Frame::syn6().protocol(0)),
        passes6("a_routing_header_is_passed", Outcome::Ipv6Extension, || Frame::syn6().protocol(43)),
        passes6("destination_options_are_passed", Outcome::Ipv6Extension, || Frame::syn6().protocol(60)),
        passes6("a_fragment_is_passed", Outcome::Fragment, || Frame::syn6().protocol(44)),
        passes6("udp_is_passed", Outcome::NotTcp, || Frame::syn6().protocol(17)),
        passes6("icmp_is_passed", Outcome::Icmp, || Frame::syn6().protocol(58)),
        passes6("another_port_is_passed", Outcome::NotService, || Frame::syn6().destination_port(81)),
        passes6("transit_traffic_is_passed", Outcome::NotService, || {
            Frame::syn6().destination(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1))
        }),
        passes6("another_version_is_passed", Outcome::Malformed, || Frame::syn6().byte(14, 0x40)),
        passes6("a_length_beyond_the_frame_is_passed", Outcome::Truncated, || Frame::syn6().byte(18, 1)),
        passes6("a_mapped_source_is_passed", Outcome::MappedAddress, || {
            Frame::syn6().source(Ipv4Addr::new(10, 10, 1, 2).to_ipv6_mapped())
        }),
        passes6("a_mapped_destination_is_passed", Outcome::MappedAddress, || {
            Frame::syn6().destination(Ipv4Addr::new(10, 10, 1, 1).to_ipv6_mapped())
        }),
        passes6("syn_ack_without_a_flow_is_passed", Outcome::NoFlow, || Frame::syn6().flags(SYN | ACK)),
        passes6("syn_fin_is_passed", Outcome::NoFlow, || Frame::syn6().flags(SYN | FIN)),
        passes6("syn_rst_is_passed", Outcome::NoFlow, || Frame::syn6().flags(SYN | RST)),
        passes6("null_is_passed", Outcome::NoFlow, || Frame::syn6().flags(0)),
        passes6("xmas_is_passed", Outcome::NoFlow, || Frame::syn6().flags(FIN | PSH | URG)),
        passes6("data_without_a_flow_is_passed", Outcome::NoFlow, || Frame::syn6().flags(ACK).payload(10)),
        trial6("a_syn_with_a_hop_limit_of_1_is_passed", |world| {
            world.run(&Frame::syn6().ttl(1)).expect(Outcome::TtlExpired);
        }),
        trial6("a_link_local_source_is_passed", move |world| {
            let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
            known(world, source.into());
            world.run(&Frame::syn6().source(source)).expect(Outcome::LinkLocal);
        }),
        trial6("a_block_of_sources_has_one_entry", move |world| {
            let in_the_block = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 1, 7, 7, 7, 7);
            world.run(&Frame::syn6().source(in_the_block)).expect(Outcome::SynForwarded);
            let outside = Ipv6Addr::new(0x2001, 0xdb8, 0x10, 2, 7, 7, 7, 7);
            world.run(&Frame::syn6().source(outside)).expect(Outcome::NoAffinity);
            world.service(|service| service.mask6 = 128);
            world.run(&Frame::syn6().source(in_the_block).source_port(1)).expect(Outcome::NoAffinity);
            known(world, in_the_block.into());
            world.run(&Frame::syn6().source(in_the_block).source_port(1)).expect(Outcome::SynForwarded);
        }),
        trial("a_block_of_ipv4_sources_has_one_entry", move |world| {
            world.service(|service| service.mask4 = 25);
            let neighbour = || Frame::syn().source([10, 10, 1, 100]);
            world.run(&neighbour()).expect(Outcome::NoAffinity);
            known(world, IpAddr::from([10, 10, 1, 3]));
            world.run(&neighbour()).expect(Outcome::SynForwarded);
            world.run(&Frame::syn().source([10, 10, 1, 128])).expect(Outcome::NoAffinity);
        }),
        trial6("a_server_of_the_other_family_is_the_proxys", |world| {
            let affinity = world.affinity();
            world.learn_block(CLIENT, affinity);
            let run = world.run(&Frame::syn());
            run.expect(Outcome::FamilyDiffers);
            run.expect_untouched();
        }),
        trial("a_server_of_the_other_family_is_the_proxys_the_other_way_round", move |world| {
            known(world, CLIENT6);
            world.run(&Frame::syn6()).expect(Outcome::FamilyDiffers);
        }),
        trial6("snat_addresses_of_the_service_are_used", |world| {
            world.service(|service| {
                (service.snat_v4, service.snat_v6) = (2, 1);
                service.snat_ips[2] = Address::from(IpAddr::from([0x20; 16]));
            });
            let run = world.run(&Frame::syn6());
            run.expect_valid_checksums();
            assert_eq!(run.packet().source, IpAddr::from([0x20; 16]));
        }),
        trial6("the_hop_limit_goes_down_and_the_rest_of_the_headers_stays", |world| {
            let syn = Frame::syn6().tos(0xb8).tcp_options(&[2, 4, 5, 0xb4, 1, 3, 3, 7]);
            let run = world.run(&syn);
            run.expect(Outcome::SynForwarded);
            run.expect_valid_checksums();
            let (before, after) = (syn.bytes(), run.bytes());
            assert_eq!(after[21], before[21] - 1, "hop limit");
            for (range, what) in [
                (12..21, "type, traffic class, flow label, length"),
                (58..70, "sequence, flags, window"),
                (72..82, "options"),
            ] {
                assert_eq!(after[range.clone()], before[range], "{what}");
            }
        }),
        trial6("packets_of_a_flow_that_cannot_be_sent_are_dropped_and_never_passed", |world| {
            world.establish();
            world.run(&Frame::syn6().flags(ACK).ttl(1)).expect(Outcome::IcmpTimeExceeded);
            world.forget_server_neighbour();
            world.age_flows(ROUTE_NS);
            world.run(&Frame::syn6().flags(ACK)).expect(Outcome::DropNoNeighbour);
        }),
        trial6("half_open_flows_of_a_block_are_capped_together", |world| {
            let syn = |n: u16| Frame::syn6().source(Ipv6Addr::new(0x2001, 0xdb8, 0x10, 1, 0, 0, 0, n));
            let fast = (100..500).filter(|n| world.run(&syn(*n)).outcome() == Outcome::SynForwarded).count();
            assert_eq!(fast, 256);
        }),
        trial6("denied_blocks_are_of_one_family", |world| {
            world.deny(&["0.0.0.0/0", "2001:db8:10:1::4/126"], false);
            world.run(&Frame::syn6()).expect(Outcome::SynForwarded);
            world.deny(&["2001:db8:10::/48"], false);
            world.run(&Frame::syn6().source_port(1)).expect(Outcome::Denied);
            world.deny(&["::/0"], false);
            world.run(&Frame::syn6().source_port(2)).expect(Outcome::Denied);
            let affinity = world.affinity();
            world.learn_block(CLIENT, affinity);
            world.run(&Frame::syn()).expect(Outcome::FamilyDiffers);
        }),
        doubt6("an_unknown_source_is_passed", Outcome::NoAffinity, World::forget_client),
        doubt6("an_entry_at_its_expiry_is_passed", Outcome::AffinityExpired, |world| {
            let now = world.boot_seconds();
            world.learn(Affinity::new(world.server_id(), 1, now));
        }),
        doubt6("a_draining_server_is_passed", Outcome::ServerDrain, |world| world.server_state(SERVER_DRAIN)),
        doubt6("an_unresolved_neighbour_is_passed", Outcome::NoNeighbour, World::forget_server_neighbour),
        doubt6(
            "a_socket_of_the_same_tuple_is_passed",
            Outcome::SocketExists,
            World::open_socket_of_the_tuple,
        ),
        doubt6("a_host_that_does_not_forward_passes", Outcome::ForwardingOff, World::stop_forwarding),
        doubt6("a_server_without_a_known_source_address_is_passed", Outcome::NoRoute, |world| {
            let id = u32::from(world.server_id());
            let server = world.maps.servers.get(&id, 0).expect("get");
            world.maps.servers.set(id, Server { snat: Address::NONE, ..server }, 0).expect("set");
        }),
    ]
}

const SECOND: u64 = 1_000_000_000;

/// Another connection of the ordinary client.
fn syn(n: u16) -> Frame {
    Frame::syn().source_port(20_000 + n)
}

/// The server's answer that there is nobody at that port.
fn refusal(world: &World) -> Frame {
    world.reply(RST | ACK).acknowledgment(fixture::CLIENT_ISN + 1)
}

fn counts() -> Vec<Trial> {
    vec![
        trial("a_connection_counts_from_its_syn_to_both_fins", |world| {
            assert_eq!(world.connections(), 0);
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            assert_eq!(world.connections(), 1);
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            world.complete(&Frame::syn());
            world.run(&Frame::syn().flags(FIN | ACK));
            assert_eq!(world.connections(), 1, "half-closed");
            world.run(&world.reply(FIN | ACK));
            assert_eq!(world.connections(), 0);
            world.run(&world.reply(FIN | ACK));
            world.run(&Frame::syn().flags(ACK));
            world.run(&Frame::syn().flags(RST));
            assert_eq!(world.connections(), 0, "once");
        }),
        trial("a_reset_takes_a_connection_off_the_count_and_traffic_both_ways_puts_it_back", |world| {
            world.establish();
            world.run(&world.reply(RST));
            world.run(&world.reply(RST));
            assert_eq!(world.connections(), 0);
            world.run(&Frame::syn().flags(ACK));
            assert_eq!(world.connections(), 0);
            world.run(&world.reply(ACK));
            assert_eq!(world.connections(), 1);
            world.run(&Frame::syn().flags(RST));
            assert_eq!(world.connections(), 0);
        }),
        trial("a_flow_that_is_killed_is_not_counted_any_more", |world| {
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.run(&world.reply(SYN | ACK).unfinished_checksum()).expect(Outcome::UnfinishedSynAck);
            assert_eq!(world.connections(), 0);
        }),
        trial("a_tuple_that_is_used_again_counts_once", |world| {
            world.establish();
            world.run(&Frame::syn().flags(FIN | ACK));
            world.run(&world.reply(FIN | ACK));
            world.run(&Frame::syn().sequence(77)).expect(Outcome::SynForwarded);
            assert_eq!(world.connections(), 1);
            world.run(&world.reply(RST | ACK));
            world.age_flows(2 * SECOND);
            world.run(&Frame::syn().sequence(78)).expect(Outcome::SynForwarded);
            assert_eq!(world.connections(), 1);
            world.run(&Frame::syn().flags(RST));
            assert_eq!(world.connections(), 0);
        }),
        trial("a_flow_that_expires_is_taken_off_by_the_collector", |world| {
            let mut collector = Collector::default();
            world.establish();
            world.run(&syn(1)).expect(Outcome::SynForwarded);
            world.collect(&mut collector);
            assert_eq!(world.connections(), 2);
            world.age_flows(HALF_OPEN_NS + 2 * SECOND);
            world.collect(&mut collector);
            assert_eq!(world.connections(), 1, "the half-open one");
            world.age_flows(ESTABLISHED_NS + 2 * SECOND);
            world.collect(&mut collector);
            assert_eq!(world.connections(), 0);
            world.expect_flows(0);
        }),
        trial("what_closed_in_order_is_not_taken_off_twice", |world| {
            world.establish();
            world.run(&Frame::syn().flags(RST));
            world.age_flows(CLOSING_NS + 2 * SECOND);
            world.collect(&mut Collector::default());
            world.expect_flows(0);
            assert_eq!(world.connections(), 0);
        }),
        trial("a_syn_beyond_the_limit_is_passed_until_there_is_room", |world| {
            world.maps.loads.set_limit(world.server_id(), 2);
            world.establish();
            world.run(&syn(1)).expect(Outcome::SynForwarded);
            let run = world.run(&syn(2));
            run.expect(Outcome::ServerFull);
            run.expect_untouched();
            assert_eq!(world.connections(), 2);
            world.expect_flows(4);
            world.run(&Frame::syn().flags(ACK | PSH).payload(9)).expect(Outcome::ToServer);
            world.run(&syn(1)).expect(Outcome::ToServer);
            world.run(&Frame::syn().flags(RST));
            world.run(&syn(2)).expect(Outcome::SynForwarded);
            world.run(&syn(3)).expect(Outcome::ServerFull);
            world.maps.loads.set_limit(world.server_id(), 3);
            world.run(&syn(3)).expect(Outcome::SynForwarded);
            world.maps.loads.set_limit(world.server_id(), 1);
            assert_eq!(world.connections(), 3, "what is over may stay");
            world.run(&syn(4)).expect(Outcome::ServerFull);
            world.maps.loads.set_limit(world.server_id(), u32::MAX);
            world.run(&syn(4)).expect(Outcome::SynForwarded);
        }),
        doubt("a_limit_of_nothing_lets_nobody_in", Outcome::ServerFull, |world| {
            world.maps.loads.set_limit(world.server_id(), 0);
        }),
        trial("a_flow_that_cannot_be_entered_is_not_counted", |world| {
            world.service(|service| (service.first_port, service.last_port) = (10_000, 10_000));
            world.run(&syn(0)).expect(Outcome::SynForwarded);
            world.run(&syn(1)).expect(Outcome::PortsExhausted);
            assert_eq!(world.connections(), 1);
        }),
        trial("a_count_that_has_gone_wrong_is_set_right", |world| {
            let mut collector = Collector::default();
            world.establish();
            for wrong in [-3, 2] {
                world.maps.loads.subtract(world.server_id(), wrong);
                assert_eq!(world.collect(&mut collector), [], "it may be a matter of timing");
                assert_eq!(world.collect(&mut collector), [(world.server_id(), -wrong)]);
                assert_eq!(world.connections(), 1);
                assert_eq!(world.collect(&mut collector), []);
            }
        }),
        trial("a_refusal_counts_once", |world| {
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            let forged = world.reply(RST | ACK).acknowledgment(4711);
            let refusal = refusal(world);
            world.run(&refusal).expect(Outcome::ToClient);
            world.run(&refusal).expect(Outcome::ToClient);
            assert_eq!(world.maps.loads.refused(world.server_id()), 1);
            assert_eq!(world.connections(), 0);
            world.age_flows(2 * SECOND);
            world.run(&Frame::syn().sequence(77)).expect(Outcome::SynForwarded);
            world.run(&forged).expect(Outcome::ToClient);
            assert_eq!(
                world.maps.loads.refused(world.server_id()),
                1,
                "from somebody who has not seen the SYN"
            );
        }),
        trial("a_reset_of_a_connection_is_no_refusal", |world| {
            world.establish();
            world.run(&refusal(world)).expect(Outcome::ToClient);
            assert_eq!(world.maps.loads.refused(world.server_id()), 0);
        }),
        trial("silence_counts_once_when_the_client_repeats_its_syn", |world| {
            let unanswered = |world: &World| world.maps.loads.unanswered(world.server_id());
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.backdate_flows(SECOND);
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            assert_eq!(unanswered(world), 0);
            world.backdate_flows(3 * SECOND);
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            world.run(&Frame::syn()).expect(Outcome::ToServer);
            world.collect(&mut Collector::default());
            assert_eq!((unanswered(world), world.connections()), (1, 1));
        }),
        trial("silence_counts_once_when_the_client_says_nothing_more", |world| {
            let unanswered = |world: &World| world.maps.loads.unanswered(world.server_id());
            world.run(&syn(1)).expect(Outcome::SynForwarded);
            world.backdate_flows(2 * SECOND);
            world.collect(&mut Collector::default());
            assert_eq!(unanswered(world), 0);
            world.backdate_flows(3 * SECOND);
            world.collect(&mut Collector::default());
            world.collect(&mut Collector::default());
            world.run(&syn(1)).expect(Outcome::ToServer);
            assert_eq!((unanswered(world), world.connections()), (1, 1));
        }),
        trial("a_server_that_says_anything_is_not_silent", |world| {
            for (n, answer) in [(1, SYN | ACK), (2, ACK)] {
                world.run(&syn(n)).expect(Outcome::SynForwarded);
                world.run(&world.reply_to(&syn(n), answer)).expect(Outcome::ToClient);
                world.backdate_flows(4 * SECOND);
                world.run(&syn(n)).expect(Outcome::ToServer);
                world.collect(&mut Collector::default());
                assert_eq!(world.maps.loads.unanswered(world.server_id()), 0);
            }
        }),
    ]
}

fn ending() -> Vec<Trial> {
    vec![
        trial("what_is_ended_is_removed_by_the_collector", |world| {
            world.establish();
            world.end_flows(world.server_id());
            world.age_flows(ENDED_NS);
            world.collect(&mut Collector::default());
            world.expect_flows(2);
            world.age_flows(ENDED_NS + 2 * SECOND);
            world.collect(&mut Collector::default());
            world.expect_flows(0);
            assert_eq!(world.connections(), 0);
        }),
        trial("flows_of_other_servers_are_let_alone", |world| {
            world.establish();
            assert_eq!(world.end_flows(world.server_id() + 1), 0);
            assert_eq!((world.phase(), world.connections()), (ESTABLISHED, 1));
        }),
        trial("what_has_closed_in_order_is_left_to_rest", |world| {
            world.establish();
            world.run(&world.reply(FIN | ACK));
            world.run(&Frame::syn().flags(FIN | ACK));
            assert_eq!(world.end_flows(world.server_id()), 0);
            world.run(&world.reply(ACK)).expect(Outcome::ToClient);
            assert_eq!(world.phase(), CLOSING);
        }),
        trial("a_flow_with_a_reset_that_may_be_forged_is_ended_for_good", |world| {
            world.establish();
            world.run(&world.reply(RST));
            assert_eq!(world.end_flows(world.server_id()), 0, "it was no connection any more");
            world.run(&Frame::syn().flags(ACK)).expect(Outcome::Ended);
            assert_eq!((world.phase(), world.connections()), (DEAD, 0));
        }),
        trial("many_flows_are_ended_at_once", |world| {
            for n in 0..200 {
                world.run(&syn(n)).expect(Outcome::SynForwarded);
            }
            assert_eq!((world.connections(), world.end_flows(world.server_id())), (200, 200));
            assert_eq!(world.connections(), 0);
        }),
    ]
}

/// The same packet twice, on two processors at once.
fn two_cpus() -> Vec<Trial> {
    both("the_same_syn_on_two_cpus_opens_one_flow", |world| {
        let syns: Vec<Frame> = (0..200).map(|n| world.syn().source_port(20_000 + n)).collect();
        let [one, other] = world.race(&syns);
        assert!(one.iter().all(|(action, _)| *action == fixture::XDP_REDIRECT), "nobody is turned away");
        assert_eq!(one, other, "both go the same way");
        assert_eq!((world.maps.flows.keys().count(), world.connections()), (400, 200));
    })
    .into()
}

fn abuse() -> Vec<Trial> {
    vec![
        trial("half_open_flows_of_a_service_are_capped", |world| {
            world.service(|service| service.half_open_cap = 3);
            for n in 0..3 {
                world.run(&Frame::syn().source_port(10_000 + n)).expect(Outcome::SynForwarded);
            }
            world.run(&Frame::syn().source_port(10_003)).expect(Outcome::HalfOpenTotal);
        }),
        trial("a_completed_handshake_frees_its_place", |world| {
            world.service(|service| service.half_open_cap = 1);
            world.establish();
            world.run(&Frame::syn().source_port(10_003)).expect(Outcome::SynForwarded);
        }),
        trial("a_forged_handshake_neither_establishes_nor_keeps_a_flow", |world| {
            world.service(|service| service.half_open_cap = 1);
            world.run(&Frame::syn()).expect(Outcome::SynForwarded);
            world.run(&world.reply(SYN | ACK));
            world.age_flows(HALF_OPEN_NS / 2);
            world.run(&Frame::syn().flags(ACK).acknowledgment(0xdead_beef)).expect(Outcome::ToServer);
            assert_eq!(world.phase(), HALF_OPEN);
            world.run(&Frame::syn().source_port(20_001)).expect(Outcome::HalfOpenTotal);
            let (client, _) = world.flow();
            assert!(
                flow_clock() - client.last_seen >= HALF_OPEN_NS / 2,
                "the acknowledgment was no use of the flow"
            );
        }),
        trial("syns_per_second_are_capped", |world| {
            world.settings(|settings| settings.syn_rate = 5);
            let outcomes: Vec<_> =
                (0..50).map(|n| world.run(&Frame::syn().source_port(10_000 + n)).outcome()).collect();
            assert!(outcomes.contains(&Outcome::SynRate), "{outcomes:?}");
        }),
        trial("a_full_table_refuses_new_flows_and_keeps_the_old", |world| {
            world.settings(|settings| settings.half_open_cap = u32::MAX);
            world.service(|service| service.half_open_cap = u32::MAX);
            let mut refused = 0;
            for n in 0..fixture::FLOW_TABLE as u16 + 50 {
                // Completed handshakes, so that the cap on half-open flows stays out of it.
                let syn = Frame::syn().source_port(10_000 + n);
                match world.run(&syn).outcome() {
                    Outcome::SynForwarded => world.complete(&syn),
                    Outcome::FlowTableFull => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert!(refused >= 50, "{refused}");
            world.run(&Frame::syn().source_port(10_000).flags(ACK)).expect(Outcome::ToServer);
        }),
        trial("exhausted_ports_pass", |world| {
            world.service(|service| {
                service.first_port = 10_000;
                service.last_port = 10_001;
                service.half_open_cap = 100;
            });
            world.run(&Frame::syn().source_port(40_000)).expect(Outcome::SynForwarded);
            world.run(&Frame::syn().source_port(40_001)).expect(Outcome::SynForwarded);
            world.run(&Frame::syn().source_port(40_002)).expect(Outcome::PortsExhausted);
        }),
        trial("a_flood_from_unknown_sources_leaves_no_trace", |world| {
            for n in 0..500_u16 {
                let [high, low] = n.to_be_bytes();
                world.run(&Frame::syn().source([172, 16, high, low])).expect(Outcome::NoAffinity);
            }
            world.expect_flows(0);
        }),
    ]
}
