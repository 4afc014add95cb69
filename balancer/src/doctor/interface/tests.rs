//! What is said of an interface, without one.

use super::super::peer::Place;
use super::super::row::State;
use super::*;
use crate::netlink::link::Xdp;

fn pair() -> Facts {
    let link = |name: &str| Link {
        name: name.to_owned(),
        index: 7,
        is_up: true,
        has_carrier: true,
        mtu: 1500,
        kind: Some("veth".to_owned()),
        ..Link::default()
    };
    Facts {
        link: link("c1"),
        mode: XdpMode::Auto,
        on: OnIt::Nothing,
        runs: Some(true),
        transmits: Some(true),
        features: BTreeSet::new(),
        channels: Some(Channels { receive: 1, receive_most: 4, transmit: 1 }),
        peer: Some(Peer {
            place: Place::There("/run/netns/client".into()),
            link: Some(link("eth0")),
            features: Some(BTreeSet::new()),
            channels: Some(Channels { receive: 1, receive_most: 4, transmit: 1 }),
        }),
        vlans: Vec::new(),
        running: None,
        attached_elsewhere: false,
        probed: None,
    }
}

fn hardware() -> Facts {
    let link = Link { kind: None, ..pair().link };
    Facts { link, peer: None, ..pair() }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn said(row: &Row) -> (State, &str) {
    (row.state, row.mend.as_deref().unwrap_or_default())
}

#[test]
fn an_interface_is_up_and_has_another_end() {
    assert_eq!(state(&pair()).state, State::Ok);
    let mut down = pair();
    down.link.is_up = false;
    assert_eq!(said(&state(&down)), (State::Missing, "ip link set dev c1 up"));
    let mut alone = pair();
    alone.link.has_carrier = false;
    assert_eq!(state(&alone).state, State::Warning);
    alone.peer.as_mut().and_then(|peer| peer.link.as_mut()).expect("a peer").is_up = false;
    assert_eq!(
        state(&alone).mend.as_deref(),
        Some("nsenter --net=/run/netns/client ip link set dev eth0 up")
    );
}

#[test]
fn one_that_is_gone_may_have_another_name() {
    assert_eq!(gone("eth0", &["wan0".to_owned()]).mend.as_deref(), Some("ip link set dev wan0 name eth0"));
    assert!(gone("eth0", &[]).mend.is_some_and(|mend| mend.starts_with("ip link lists")));
}

#[test]
fn there_can_be_one_program() {
    let with = |on, mode: &'static str| {
        let mut facts = Facts { on, ..pair() };
        facts.link.xdp = Some(Xdp { mode, program: Some(1) });
        program(&facts)
    };
    assert_eq!(said(&with(OnIt::Ours, "native")).0, State::Ok);
    assert_eq!(said(&with(OnIt::Ours, "generic")).0, State::Warning, "the driver could do better");
    let foreign = |link| OnIt::Foreign { link };
    assert_eq!(said(&with(foreign(None), "native")), (State::Missing, "ip link set dev c1 xdp off"));
    assert_eq!(said(&with(foreign(None), "generic")).1, "ip link set dev c1 xdpgeneric off");
    assert_eq!(said(&with(foreign(Some(9)), "native")).1, "bpftool link detach id 9");
    let other = OnIt::OtherVersion { pin: "/sys/fs/bpf/balancer/v1/4/link-7".into() };
    assert_eq!(said(&with(other, "native")).1, "rm /sys/fs/bpf/balancer/v1/4/link-7");
}

#[test]
fn native_is_what_the_driver_runs() {
    let with = |runs, mode| program(&Facts { runs, mode, ..pair() });
    assert_eq!(with(Some(true), XdpMode::Auto).state, State::Ok);
    assert_eq!(with(Some(false), XdpMode::Auto).state, State::Warning);
    assert_eq!(with(Some(false), XdpMode::Generic).state, State::Ok);
    assert_eq!(said(&with(Some(false), XdpMode::Native)), (State::Missing, "--xdp c1,mode=generic"));
    assert_eq!(said(&with(None, XdpMode::Auto)), (State::Warning, "balancer doctor --probe"));
    let probed = |result: Result<(), &str>| {
        program(&Facts { probed: Some(result.map_err(str::to_owned)), ..pair() }).state
    };
    assert_eq!(probed(Ok(())), State::Ok);
    assert_eq!(probed(Err("refused")), State::Missing);
}

#[test]
fn one_that_the_running_process_has_not_got_is_named() {
    let facts = Facts { running: Some(12), attached_elsewhere: true, ..pair() };
    assert_eq!(said(&program(&facts)), (State::Warning, "kill -USR2 12"));
}

#[test]
fn the_mtu_of_a_pair_is_that_of_the_end_that_sends() {
    assert_eq!(mtu(&pair()).state, State::Ok);
    let mut large = pair();
    large.peer.as_mut().and_then(|peer| peer.link.as_mut()).expect("a peer").mtu = 9000;
    let row = mtu(&large);
    assert!(row.detail.contains("3506"), "{row:?}");
    assert_eq!(
        said(&row),
        (
            State::Missing,
            "ip link set dev c1 mtu 3506 && nsenter --net=/run/netns/client ip link set dev eth0 mtu 3506"
        )
    );
    assert_eq!(mtu(&Facts { mode: XdpMode::Generic, ..large.clone() }).state, State::Ok, "generic takes any");
    let mut card = hardware();
    card.link.mtu = 9000;
    assert_eq!(said(&mtu(&card)), (State::Warning, "ip link set dev c1 mtu 1500"));
}

#[test]
fn a_peer_has_to_take_frames() {
    assert_eq!(transmit(&pair()).map(|row| row.state), Some(State::Ok));
    let deaf = Facts { transmits: Some(false), ..pair() };
    let row = transmit(&deaf).expect("a row");
    assert_eq!(said(&row), (State::Missing, "nsenter --net=/run/netns/client ethtool -K eth0 gro on"));
    assert_eq!(
        transmit(&Facts { transmits: Some(false), ..hardware() }),
        None,
        "it may once it has a program"
    );
    let mut hidden = deaf;
    hidden.peer = Some(Peer { place: Place::Hidden, link: None, features: None, channels: None });
    let row = transmit(&hidden).expect("a row");
    assert_eq!(row.mend.as_deref(), Some("in the namespace of its peer: ethtool -K IF gro on"));
}

#[test]
fn a_pair_receives_by_as_many_queues_as_its_peer_sends_by() {
    assert_eq!(queues(&pair()).map(|row| row.state), Some(State::Ok));
    let mut many = pair();
    many.peer.as_mut().expect("a peer").channels = Some(Channels { transmit: 2, ..Channels::default() });
    let row = queues(&many).expect("a row");
    assert_eq!(said(&row), (State::Missing, "ethtool -L c1 rx 2"));
    many.channels = Some(Channels { receive: 1, receive_most: 1, transmit: 1 });
    let row = queues(&many).expect("a row");
    assert_eq!(row.mend.as_deref(), Some("nsenter --net=/run/netns/client ethtool -L eth0 tx 1"));
}

#[test]
fn unfinished_checksums_are_the_peer_s() {
    assert_eq!(checksums(&pair()).map(|row| row.state), Some(State::Ok));
    let mut lazy = pair();
    lazy.peer.as_mut().expect("a peer").features = Some(set(&["tx-checksum-ip-generic"]));
    let row = checksums(&lazy).expect("a row");
    assert_eq!(said(&row), (State::Warning, "nsenter --net=/run/netns/client ethtool -K eth0 tx off"));
    lazy.peer.as_mut().expect("a peer").features = None;
    let row = checksums(&lazy).expect("a row");
    assert!(row.detail.contains("pass_unfinished_checksum"), "{row:?}");
    assert_eq!(checksums(&hardware()), None);
}

#[test]
fn offloads_that_join_packets_or_take_tags_off_are_named() {
    assert_eq!((merging(&hardware()), tags(&hardware())), (None, None));
    let joins = Facts { features: set(&["rx-lro", "rx-gro-hw"]), ..hardware() };
    let row = merging(&joins).expect("a row");
    assert_eq!(said(&row), (State::Warning, "ethtool -K c1 rx-lro off rx-gro-hw off"));
    let tagged = Facts { vlans: vec!["c1.5".to_owned()], ..hardware() };
    assert_eq!(tags(&tagged).map(|row| row.state), Some(State::Ok));
    let row = tags(&Facts { features: set(&["rx-vlan-hw-parse"]), ..tagged }).expect("a row");
    assert_eq!(said(&row), (State::Warning, "ethtool -K c1 rx-vlan-hw-parse off"));
}
