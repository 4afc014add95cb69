//! `balancer doctor`: each thing that can be wrong with a host is broken in a namespace, the doctor names it, what it says
//! to type is typed, and the row is ok again. Also what `run` does on a host that is not ok.
#![allow(unreachable_pub, dead_code, missing_docs, reason = "a test is nobody's library")]

mod clinic;
mod site;

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::xdp::XdpMode;
use balancer::datapath::{maps, program};
use clinic::{COMMAND_LIMIT, Clinic, pick, rows};
use libtest_mimic::Arguments;
use site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, pins, trial};
use xtask::lab::{Daemon, Lab, http, wait_until};
use xtask::privilege::find_program;

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("a_host_that_is_well_has_nothing_missing", well),
        trial("forwarding_that_is_off_is_named_and_mended", forwarding),
        trial("forwarding_of_ipv6_is_named_and_mended", forwarding_of_ipv6),
        trial("a_strict_source_check_is_named_and_mended", strict_source_check),
        trial("a_peer_that_takes_no_frames_is_named_and_mended", deaf_peer),
        trial("unfinished_checksums_are_named_and_mended", unfinished_checksums),
        trial("a_large_mtu_is_named_refused_and_mended", large_mtu),
        trial("too_few_queues_are_named_refused_and_mended", few_queues),
        trial("a_foreign_program_on_a_link_is_named_and_taken_off", foreign_link),
        trial("a_foreign_program_without_a_link_is_named_and_taken_off", foreign_program),
        trial("ports_that_overlap_are_named_refused_and_mended", overlapping_ports),
        trial("an_unknown_neighbour_is_named_and_asked_for", unknown_neighbour),
        trial("an_interface_that_is_down_is_named_and_brought_up", interface_down),
        trial("an_interface_that_was_renamed_is_named_and_renamed", interface_renamed),
        trial("an_address_that_is_not_here_is_named_and_added", foreign_address),
        trial("a_process_that_has_the_address_is_named_and_stopped", address_in_use),
        trial("the_service_itself_has_its_address", own_address),
        trial("a_server_behind_an_interface_without_the_program_is_named", egress_without_program),
        trial("a_missing_bpf_file_system_is_named_and_mounted", no_bpf_file_system),
        trial("maps_of_another_version_are_named_and_removed", other_version),
        trial("a_lock_that_outlives_its_process_is_named_and_freed", orphaned_lock),
        trial("few_descriptors_are_named_and_raised", few_descriptors),
        trial("a_gateways_server_with_another_way_back_is_named_and_mended", way_back),
        trial("a_direct_server_behind_a_router_is_named_and_mended", behind_a_router),
        trial("a_direct_server_without_the_address_is_named_and_gets_it", without_the_address),
        trial("a_direct_server_that_answers_for_the_address_is_named_and_silenced", answers_arp),
        trial("a_rule_that_names_the_port_is_shown", packet_filter),
        trial("who_may_do_nothing_is_told_what_to_type", unprivileged),
        trial("what_is_mended_makes_connections_fast", mended_means_fast),
        trial("native_is_refused_where_there_is_none_and_auto_is_generic", no_native_mode),
        trial("a_probe_tries_and_leaves_nothing", probe),
        trial("auto_finds_the_interfaces_and_is_fast", auto_is_fast),
        trial("auto_leaves_out_what_somebody_else_has", auto_leaves_out),
        trial("auto_without_privileges_is_the_proxy_and_a_name_is_an_error", auto_without_privileges),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn well() -> Result<()> {
    let clinic = Clinic::open()?;
    let neighbour = clinic.row("neighbour s1")?;
    clinic.mend("neighbour s1", &neighbour)?;
    let wrong: Vec<_> = clinic.examine(&[])?.into_iter().filter(|(_, row)| row.state == "missing").collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    let output = clinic.run(&[BALANCER, "doctor"])?;
    ensure!(output.status.success(), "{output:?}");
    for part in ["ok       kernel  ", "interface c1  ", "interface s1  "] {
        ensure!(output.stdout.contains(part), "no {part:?} in {}", output.stdout);
    }
    Ok(())
}

fn forwarding() -> Result<()> {
    let clinic = Clinic::open()?;
    let row = clinic.story("forwarding ipv4", "missing", |clinic| {
        clinic.shell("sysctl -w net.ipv4.ip_forward=0")?;
        ensure!(clinic.row("forwarding ipv4 s1")?.state == "missing");
        let output = clinic.run(&[BALANCER, "doctor"])?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        Ok(())
    })?;
    ensure!(row.mend == "sysctl -w net.ipv4.ip_forward=1", "{row:?}");
    clinic.story("forwarding ipv4 c1", "missing", |clinic| {
        clinic.shell("sysctl -w net.ipv4.conf.c1.forwarding=0")
    })?;
    Ok(())
}

fn forwarding_of_ipv6() -> Result<()> {
    let mut clinic = Clinic::open()?;
    for (link, net) in [("c1", 1), ("s1", 2)] {
        clinic.shell(&format!("ip address add 2001:db8:0:{net}::1/64 dev {link} nodad"))?;
    }
    clinic.flag("--listen", "[2001:db8:0:1::1]:80")?;
    clinic.flag("--server", "s1=[2001:db8:0:2::2]:8080")?;
    clinic.story("forwarding ipv6", "missing", |clinic| {
        clinic.shell("sysctl -w net.ipv6.conf.all.forwarding=0")
    })?;
    clinic.story("forwarding ipv6 s1", "missing", |clinic| {
        clinic.shell("sysctl -w net.ipv6.conf.s1.forwarding=0")
    })?;
    ensure!(clinic.row("server s1")?.state == "ok");
    Ok(())
}

fn strict_source_check() -> Result<()> {
    let clinic = Clinic::open()?;
    clinic
        .story("rp_filter c1", "warning", |clinic| clinic.shell("sysctl -w net.ipv4.conf.all.rp_filter=1"))?;
    Ok(())
}

fn deaf_peer() -> Result<()> {
    let clinic = Clinic::open()?;
    let row = clinic.story("transmit c1", "missing", |clinic| {
        clinic.lab.client().ns.output("ethtool", &["-K", "eth0", "gro", "off"]).map(drop)
    })?;
    ensure!(row.detail.contains(clinic.lab.client().ns.name()), "it says where the peer is: {row:?}");
    Ok(())
}

fn unfinished_checksums() -> Result<()> {
    let clinic = Clinic::open()?;
    clinic.story("checksums s1", "warning", |clinic| {
        clinic.lab.server(1).ns.output("ethtool", &["-K", "eth0", "tx", "on"]).map(drop)
    })?;
    Ok(())
}

fn large_mtu() -> Result<()> {
    let clinic = Clinic::open()?;
    let row = clinic.story("mtu c1", "missing", |clinic| {
        clinic.shell("ip link set dev c1 mtu 9000")?;
        clinic.lab.client().ns.output("ip", &["link", "set", "eth0", "mtu", "9000"])?;
        let refusal = clinic.refusal()?;
        ensure!(refusal.contains("--xdp c1") && refusal.contains("at most 3506"), "{refusal}");
        Ok(())
    })?;
    ensure!(row.detail.contains("3506"), "{row:?}");
    clinic.daemon().map(drop)
}

fn few_queues() -> Result<()> {
    let clinic = Clinic::open()?;
    clinic.story("queues c1", "missing", |clinic| {
        clinic.lab.client().ns.output("ethtool", &["-L", "eth0", "tx", "2"])?;
        let refusal = clinic.refusal()?;
        ensure!(refusal.contains("ethtool -L c1 rx"), "{refusal}");
        Ok(())
    })?;
    clinic.daemon().map(drop)
}

/// Somebody else's program, on `c1` for as long as this is kept.
fn somebody_else_s(clinic: &Clinic) -> Result<Ebpf> {
    let loaded = || -> Result<Ebpf> {
        let (mut ebpf, _maps) = maps::load_unpinned(1000)?;
        program::verify(&mut ebpf)?;
        Ok(ebpf)
    };
    clinic.lab.balancer.run(loaded)?
}

fn foreign_link() -> Result<()> {
    let clinic = Clinic::open()?;
    let mut ebpf = somebody_else_s(&clinic)?;
    let story = clinic.story("xdp c1", "missing", |clinic| {
        let attach = || -> Result<()> {
            let index = nix::net::if_::if_nametoindex("c1")?;
            Ok(program::of(&mut ebpf)?.attach_to_if_index(index, XdpMode::Driver).map(drop)?)
        };
        clinic.lab.balancer.run(attach)??;
        let refusal = clinic.refusal()?;
        ensure!(refusal.contains("another XDP program is attached there"), "{refusal}");
        Ok(())
    });
    match story {
        // The tool is not on every host; the row has named the link.
        Err(error) if find_program("bpftool").is_none() => {
            ensure!(format!("{error:#}").contains("bpftool"), "{error:#}");
            drop(ebpf);
        }
        story => ensure!(story?.mend.starts_with("bpftool link detach id")),
    }
    clinic.daemon().map(drop)
}

/// A pin outside of the balancer's folders, gone with the test.
struct Pin(PathBuf);

impl Drop for Pin {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn foreign_program() -> Result<()> {
    let clinic = Clinic::open()?;
    let mut ebpf = somebody_else_s(&clinic)?;
    let pin = Pin(Path::new("/sys/fs/bpf").join(format!("{}-foreign", clinic.lab.balancer.name())));
    program::of(&mut ebpf)?.pin(&pin.0)?;
    for mode in ["xdp", "xdpgeneric"] {
        clinic.story("xdp c1", "missing", |clinic| {
            clinic.shell(&format!("ip link set dev c1 {mode} pinned {}", pin.0.display()))
        })?;
    }
    clinic.daemon().map(drop)
}

fn overlapping_ports() -> Result<()> {
    let clinic = Clinic::open()?;
    clinic.story("ports", "missing", |clinic| {
        clinic.shell("sysctl -w net.ipv4.ip_local_port_range='20000 60999'")?;
        let refusal = clinic.refusal()?;
        ensure!(refusal.contains("--snat-ports 10000-32767 overlaps"), "{refusal}");
        Ok(())
    })?;
    clinic.daemon().map(drop)
}

fn unknown_neighbour() -> Result<()> {
    let clinic = Clinic::open()?;
    let unknown = clinic.row("neighbour s1")?;
    ensure!(unknown.state == "warning", "nobody has talked to it yet: {unknown:?}");
    clinic.mend("neighbour s1", &unknown)?;
    clinic.story("neighbour s1", "warning", |clinic| clinic.shell("ip neigh flush dev s1"))?;
    Ok(())
}

fn interface_down() -> Result<()> {
    let clinic = Clinic::open()?;
    clinic.story("interface s1", "missing", |clinic| clinic.shell("ip link set dev s1 down"))?;
    clinic.story("interface c1", "warning", |clinic| {
        clinic.lab.client().ns.output("ip", &["link", "set", "eth0", "down"]).map(drop)
    })?;
    Ok(())
}

fn interface_renamed() -> Result<()> {
    let clinic = Clinic::open()?;
    let daemon = clinic.daemon()?;
    let row =
        clinic.story("interface c1", "missing", |clinic| clinic.shell("ip link set dev c1 name wan0"))?;
    ensure!(row.detail.contains("wan0"), "{row:?}");
    drop(daemon);
    Ok(())
}

fn foreign_address() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic.flag("--listen", "192.0.2.10:80")?;
    let broken = clinic.row("listen 192.0.2.10:80")?;
    ensure!(broken.state == "missing", "{broken:?}");
    ensure!(clinic.refusal()?.contains("192.0.2.10"));
    clinic.mend("listen 192.0.2.10:80", &broken)?;
    clinic.daemon().map(drop)
}

/// A process that listens in the balancer's namespace, ended with the test.
struct Squatter(process::Child);

impl Squatter {
    fn at(clinic: &Clinic, address: SocketAddr) -> Result<Self> {
        let socket = clinic.lab.balancer.run(|| TcpListener::bind(address))??;
        let holder = process::Command::new("sleep").arg("600").stdin(OwnedFd::from(socket)).spawn()?;
        Ok(Self(holder))
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        // What the doctor says may have ended it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address_in_use() -> Result<()> {
    let mut clinic = Clinic::open()?;
    let listen = clinic.lab.client().gateway_at(80);
    let http_admin = SocketAddr::from(([127, 0, 0, 1], 9100));
    clinic.flags.extend(["--http-admin".to_owned(), http_admin.to_string()]);
    for (check, wanted, held) in [
        (format!("listen {listen}"), listen, listen),
        (format!("listen {listen}"), listen, SocketAddr::from(([0, 0, 0, 0], listen.port()))),
        (format!("--http-admin {http_admin}"), http_admin, http_admin),
    ] {
        let mut holder = None;
        let row = clinic.story(&check, "missing", |clinic| {
            let squatter = holder.insert(Squatter::at(clinic, held)?);
            let by = format!("{wanted}: address in use by sleep (pid {}); stop it", squatter.0.id());
            let refusal = clinic.refusal()?;
            ensure!(refusal.contains(&by), "{refusal}");
            Ok(())
        })?;
        let pid = holder.context("a holder")?.0.id();
        ensure!(row.detail.contains(&format!("sleep (pid {pid})")), "{row:?}");
        ensure!(row.mend == format!("kill {pid}"), "{row:?}");
    }
    clinic.daemon().map(drop)
}

fn own_address() -> Result<()> {
    let clinic = Clinic::open()?;
    let daemon = clinic.daemon()?;
    let (listen, admin) = (clinic.lab.client().gateway_at(80).to_string(), path(daemon.admin())?.to_owned());
    let look = |name: &str| {
        let words = ["doctor", "--json", "--listen", &listen, "--name", name, "--admin", &admin];
        let output = clinic.run(&[&[BALANCER], &words[..]].concat())?;
        pick(rows(&output.stdout)?, &format!("listen {listen}"))
    };
    let row = look("web")?;
    ensure!(row.state == "ok", "{row:?}");
    let row = look("other")?;
    let by = format!("balancer (pid {})", daemon.child.pid());
    ensure!(row.state == "missing" && row.detail.contains(&by), "{row:?}");
    Ok(())
}

fn egress_without_program() -> Result<()> {
    let mut clinic = Clinic::open()?;
    ensure!(clinic.row("server s1")?.state == "ok");
    clinic.shell("ip route add unreachable 10.20.1.2/32")?;
    let row = clinic.row("server s1")?;
    ensure!(row.state == "missing" && row.detail.contains("no route"), "{row:?}");
    clinic.shell("ip route del unreachable 10.20.1.2/32")?;
    clinic.shell("ip link add br0 type bridge && ip link set br0 up && ip route add 10.20.1.2/32 dev br0")?;
    let row = clinic.row("server s1")?;
    ensure!(row.state == "missing", "{row:?}");
    // What the doctor says here is a flag.
    clinic.flags.extend(row.mend.split(' ').map(str::to_owned));
    clinic.wait_until_ok("server s1")
}

fn no_bpf_file_system() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic.keep_mounts_apart()?;
    clinic.story("bpffs", "warning", |clinic| clinic.shell("umount --lazy /sys/fs/bpf"))?;
    Ok(())
}

fn other_version() -> Result<()> {
    let clinic = Clinic::open()?;
    let left = Path::new("/sys/fs/bpf/balancer/v0").join(clinic.lab.balancer.cookie().to_string());
    clinic.story("other versions", "warning", |_| Ok(fs::create_dir_all(left.join("web"))?))?;
    ensure!(!left.exists());
    Ok(())
}

fn orphaned_lock() -> Result<()> {
    let clinic = Clinic::open()?;
    let lock = clinic.lab.balancer.fresh_path("x").with_file_name("web.lock");
    let row = clinic.story("instance", "missing", |clinic| {
        // The shell takes the lock and ends; what it has started goes on, and has the descriptor.
        let line =
            format!("exec 9>>{}; flock 9; echo \"pid $$, admin socket x\" >&9; sleep 600 &", lock.display());
        clinic.shell(&line)?;
        ensure!(clinic.refusal()?.contains("already running"));
        Ok(())
    })?;
    ensure!(row.detail.contains("sleep"), "{row:?}");
    let daemon = clinic.daemon()?;
    let pid = daemon.child.pid();
    let alive =
        clinic.run(&[BALANCER, "doctor", "--json", "--name", "web", "--admin", path(daemon.admin())?])?;
    let row = pick(rows(&alive.stdout)?, "instance")?;
    ensure!(row.state == "ok" && row.detail == format!("web is running, pid {pid}"), "{row:?}");
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("UTF-8")
}

fn few_descriptors() -> Result<()> {
    let clinic = Clinic::open()?;
    let look = format!("{BALANCER} doctor --json --interface c1");
    let first = clinic.run(&["sh", "-c", &format!("ulimit -n 1000; {look}")])?;
    let row = pick(rows(&first.stdout)?, "descriptors")?;
    ensure!(row.state == "warning", "{row:?}");
    // Root of a container may not be allowed to raise it, and is told so.
    if row.mend.starts_with("raise it") {
        return Ok(());
    }
    let then = clinic.run(&["sh", "-c", &format!("ulimit -n 1000; {}; {look}", row.mend)])?;
    let row = pick(rows(&then.stdout)?, "descriptors")?;
    ensure!(row.state == "ok", "{row:?} {then:?}");
    Ok(())
}

fn way_back() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic.flags.extend(["--forward", "gateway"].map(str::to_owned));
    let server = &clinic.lab.server(1).ns;
    clinic.story("way back s1", "missing", |_| {
        server.output("ip", &["route", "replace", "default", "via", "10.20.1.99"]).map(drop)
    })?;
    clinic
        .story("way back s1", "missing", |_| server.output("ip", &["route", "del", "default"]).map(drop))?;
    Ok(())
}

/// A service whose server answers directly, as it should be.
fn direct() -> Result<Clinic> {
    let mut clinic = Clinic::open_in(&Lab::star().servers(1).direct_answers())?;
    clinic.flag("--server", "s1=10.20.1.2:80")?;
    clinic.flags.extend(["--forward", "dsr"].map(str::to_owned));
    Ok(clinic)
}

fn behind_a_router() -> Result<()> {
    let clinic = direct()?;
    clinic.story("on link s1", "missing", |clinic| {
        clinic.shell("ip route add 10.20.1.2/32 via 10.20.1.99 dev s1")?;
        ensure!(clinic.refusal()?.contains("behind the router 10.20.1.99"));
        Ok(())
    })?;
    clinic.daemon().map(drop)
}

fn without_the_address() -> Result<()> {
    let clinic = direct()?;
    let server = &clinic.lab.server(1).ns;
    clinic.story("address s1 10.10.1.1", "missing", |_| {
        server.output("ip", &["addr", "del", "10.10.1.1/32", "dev", "lo"]).map(drop)
    })?;
    Ok(())
}

fn answers_arp() -> Result<()> {
    let clinic = direct()?;
    let server = &clinic.lab.server(1).ns;
    clinic.story("arp 10.10.1.1 s1", "warning", |_| server.sysctl("net.ipv4.conf.all.arp_ignore", "0"))?;
    Ok(())
}

fn packet_filter() -> Result<()> {
    let clinic = Clinic::open()?;
    ensure!(clinic.row("netfilter")?.state == "ok");
    clinic.shell("nft add table inet filter")?;
    clinic.shell("nft add chain inet filter input '{ type filter hook input priority 0; }'")?;
    clinic.shell("nft add rule inet filter input tcp dport '{ 79-81, 443 }' drop")?;
    let row = clinic.row("netfilter")?;
    ensure!(row.state == "warning" && row.detail.contains("drop") && row.mend.contains("--deny"), "{row:?}");
    Ok(())
}

/// A copy of the binary that everybody may run, and a script that runs it as nobody.
fn as_nobody(clinic: &Clinic) -> Result<(PathBuf, PathBuf)> {
    let (binary, script) =
        (clinic.lab.balancer.fresh_path("balancer"), clinic.lab.balancer.fresh_path("nobody"));
    fs::copy(BALANCER, &binary)?;
    let words = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    fs::write(&script, format!("#!/bin/sh\nexec {words} {} \"$@\"\n", binary.display()))?;
    for file in [&binary, &script] {
        fs::set_permissions(file, Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(binary.parent().context("a folder")?, Permissions::from_mode(0o777))?;
    Ok((binary, script))
}

fn unprivileged() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic.keep_mounts_apart()?;
    clinic.shell("mount -t bpf -o mode=0700 bpf /sys/fs/bpf")?;
    let (_, script) = as_nobody(&clinic)?;
    let look = |clinic: &Clinic, check: &str| pick(clinic.examine(&[path(&script)?])?, check);
    for check in ["capabilities", "bpf", "bpffs"] {
        let row = look(&clinic, check)?;
        ensure!(row.state == "missing", "{check}: {row:?}");
    }
    ensure!(look(&clinic, "netfilter")?.detail.contains("not permitted"));
    for check in ["capabilities", "bpffs"] {
        clinic.shell(&look(&clinic, check)?.mend)?;
        let row = look(&clinic, check)?;
        ensure!(row.state == "ok", "{check}: {row:?}");
    }
    ensure!(look(&clinic, "bpf")?.state == "ok", "capabilities were all that was lacking");
    Ok(())
}

fn mended_means_fast() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    site.introduce(0)?;
    let client = &site.lab.client().ns;
    let fast = |wanted: bool| {
        wait_until(PATIENCE, &format!("a visit with fast = {wanted}"), || {
            site.visit(0, &[]).is_ok_and(|visit| visit.fast == wanted)
        })
    };
    let row = |check: &str| {
        let words = ["doctor", "--json", "--interface", "c1", "--interface", "s1", "--interface", "s2"];
        let output = site.lab.balancer.command(BALANCER).args(words).output(COMMAND_LIMIT)?;
        pick(rows(&output.stdout)?, check)
    };
    let breaks: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("forwarding ipv4", &|| site.lab.balancer.sysctl("net.ipv4.ip_forward", "0")),
        ("transmit c1", &|| client.output("ethtool", &["-K", "eth0", "gro", "off"]).map(drop)),
        ("checksums c1", &|| client.output("ethtool", &["-K", "eth0", "tx", "on"]).map(drop)),
    ];
    fast(true)?;
    for (check, break_it) in breaks {
        break_it()?;
        fast(false).context(check)?;
        ensure!(
            check != "checksums c1" || row("unfinished checksums")?.state == "warning",
            "the counter is evidence"
        );
        let broken = row(check)?;
        ensure!(broken.state != "ok", "{check}: {broken:?}");
        site.lab.balancer.output("sh", &["-c", &broken.mend])?;
        fast(true).with_context(|| format!("after {}", broken.mend))?;
        ensure!(row(check)?.state == "ok");
    }
    Ok(())
}

fn no_native_mode() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic.shell("ip link add br0 type bridge && ip link set br0 up")?;
    clinic.flags.extend(["--xdp".to_owned(), "br0,mode=native".to_owned()]);
    let refusal = clinic.refusal()?;
    ensure!(refusal.contains("--xdp br0: its driver has no native XDP"), "{refusal}");
    let row = clinic.row("xdp br0")?;
    ensure!(row.state == "missing" && row.mend == "--xdp br0,mode=generic", "{row:?}");
    let last = clinic.flags.last_mut().context("flags")?;
    "br0".clone_into(last);
    ensure!(clinic.row("xdp br0")?.state == "warning");
    let daemon = clinic.daemon()?;
    let info = daemon.show(&["info"])?;
    let modes = info["datapath"]["interfaces"].as_array().context("interfaces")?;
    let mode = |name: &str| modes.iter().find(|row| row["name"] == name).map(|row| row["mode"].clone());
    ensure!(mode("br0") == Some("generic".into()) && mode("c1") == Some("native".into()), "{info}");
    Ok(())
}

fn probe() -> Result<()> {
    let clinic = Clinic::open()?;
    let looked = |interface: &str, row: &str| -> Result<clinic::Row> {
        let output = clinic.run(&[BALANCER, "doctor", "--json", "--probe", "--interface", interface])?;
        pick(rows(&output.stdout)?, row)
    };
    let row = looked("c1", "xdp c1")?;
    ensure!(row.state == "ok" && row.detail.contains("tried"), "{row:?}");
    ensure!(!clinic.lab.balancer.output("ip", &["link", "show", "c1"])?.contains("xdp"), "it is still there");
    clinic.lab.client().ns.output("ethtool", &["-L", "eth0", "tx", "2"])?;
    ensure!(looked("c1", "xdp c1")?.state == "missing", "what is tried can fail");
    // Where somebody's program is nothing is tried.
    let _daemon = {
        clinic.shell("ethtool -L c1 rx 2")?;
        clinic.daemon()?
    };
    ensure!(looked("c1", "xdp c1")?.detail == "balancer's program, native");
    Ok(())
}

fn auto_is_fast() -> Result<()> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = site::start_servers(&lab)?;
    let mut flags = site::all_flags(&lab, 80, SOURCE_FIRST);
    while let Some(at) = flags.iter().position(|word| word == "--xdp") {
        flags.drain(at..at + 2);
    }
    flags.extend(["--xdp".to_owned(), "auto".to_owned()]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    let site = Site { daemon, servers, lab };
    site.wait_until_checked(&site.daemon)?;
    ensure!(site.daemon.log().contains("--xdp auto: c1, s1, s2"), "{}", site.daemon.log());
    let home = site.introduce(0)?;
    let visit = site.visit(0, &[])?;
    ensure!(visit.fast && visit.server == home, "{visit:?}");
    Ok(())
}

fn auto_leaves_out() -> Result<()> {
    let mut clinic = Clinic::open()?;
    clinic
        .shell("ip link add br0 type bridge && ip address add 10.30.0.1/24 dev br0 && ip link set br0 up")?;
    let mut ebpf = somebody_else_s(&clinic)?;
    let attach = || -> Result<()> {
        let index = nix::net::if_::if_nametoindex("br0")?;
        Ok(program::of(&mut ebpf)?.attach_to_if_index(index, XdpMode::Skb).map(drop)?)
    };
    clinic.lab.balancer.run(attach)??;
    clinic.flag("--listen", "0.0.0.0:80")?;
    clinic.flag("--xdp", "auto")?;
    let daemon = clinic.daemon()?;
    let log = daemon.log();
    ensure!(log.contains("--xdp br0: another XDP program is attached there"), "{log}");
    ensure!(log.contains("it is left out") && log.contains("XDP on c1, native"), "{log}");
    Ok(())
}

fn auto_without_privileges() -> Result<()> {
    let mut clinic = Clinic::open()?;
    let (_, script) = as_nobody(&clinic)?;
    let to = clinic.lab.client().gateway_at(8080);
    clinic.flag("--listen", &to.to_string())?;
    let flags = clinic.flags.clone();
    let words: Vec<&str> =
        [path(&script)?, "run"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let output = clinic.run(&words)?;
    ensure!(
        output.status.code() == Some(1) && output.stderr.contains("CAP_BPF"),
        "a name is a wish: {output:?}"
    );
    let words = ["--listen", &flags[1], "--server", &flags[3], "--persist", "source", "--xdp", "auto"];
    let check =
        clinic.run(&[&[path(&script)?, "check"][..], &words, &["--admin", "/tmp/x.sock"]].concat())?;
    ensure!(
        check.status.success() && check.stdout.contains("--xdp auto: there is no fast path"),
        "{check:?}"
    );
    let origin = site::start_servers(&clinic.lab)?;
    let daemon = Daemon::start(&clinic.lab.balancer, &script, "web", &words)?;
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("fast path")).collect();
    ensure!(lines.len() == 1 && lines[0].contains("CAP_BPF"), "one line, and it says why: {lines:?}");
    let response = http::get(&clinic.lab.client().ns, None, to, "/", &[])?;
    ensure!(response.status == 200 && response.header("X-Server") == Some("s1"), "{response:?}");
    drop(origin);
    let left = pins(&clinic.lab);
    ensure!(!left.exists(), "{}", left.display());
    Ok(())
}
