//! What only a build with XDP can find out: the program in this kernel's verifier, the file system of pins, and which
//! program is on an interface.

use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use balancer_ebpf::abi::MAX_SERVICES;
use balancer_ebpf::counter::{self, Outcome};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statfs::statfs;
use nix::unistd::{AccessFlags, faccessat, geteuid};

use super::interface::OnIt;
use super::locks;
use super::row::{Row, word};
use crate::datapath::pins::{BPF_FS_MAGIC, BPFFS, Pins};
use crate::datapath::{netdev, program, syscall, try_to_load};
use crate::netlink::link::Link;

/// Enough to see whether the kernel takes the maps.
const SMALL_TABLE: u32 = 1024;

/// What the program calls; the youngest of them is of Linux 5.11.
const HELPERS: [(&str, BpfHelper); 7] = [
    ("bpf_fib_lookup", BpfHelper::BPF_FUNC_fib_lookup),
    ("bpf_skc_lookup_tcp", BpfHelper::BPF_FUNC_skc_lookup_tcp),
    ("bpf_sk_release", BpfHelper::BPF_FUNC_sk_release),
    ("bpf_redirect_map", BpfHelper::BPF_FUNC_redirect_map),
    ("bpf_ktime_get_boot_ns", BpfHelper::BPF_FUNC_ktime_get_boot_ns),
    ("bpf_ktime_get_coarse_ns", BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
    ("bpf_map_lookup_elem", BpfHelper::BPF_FUNC_map_lookup_elem),
];

pub(super) fn examine() -> Vec<Row> {
    let mut rows = vec![verifier(try_to_load(SMALL_TABLE), lacking_helpers)];
    let is_mounted = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    rows.push(file_system(is_mounted, Path::new(BPFFS).is_dir(), geteuid().as_raw(), |path, flags| {
        faccessat(AT_FDCWD, path, flags, AtFlags::AT_EACCESS).is_ok()
    }));
    rows.push(other_versions());
    rows.extend(unfinished());
    rows
}

fn verifier(tried: anyhow::Result<()>, lacking: impl Fn() -> Vec<&'static str>) -> Row {
    let Err(error) = tried else { return Row::ok("bpf", "this kernel takes the XDP program") };
    let detail = match lacking().as_slice() {
        [] => format!("{error:#}"),
        some => format!("{error:#}; this kernel lacks {}", some.join(", ")),
    };
    Row::missing("bpf", detail)
        .mend("see the rows above; if they are ok, BPF is locked away by a container or by lockdown")
}

/// Without privileges nothing can be tried, and nothing is said to be lacking.
fn lacking_helpers() -> Vec<&'static str> {
    let lacks = |helper: BpfHelper| matches!(is_helper_supported(ProgramType::Xdp, helper), Ok(false));
    if lacks(BpfHelper::BPF_FUNC_map_lookup_elem) {
        return Vec::new();
    }
    HELPERS.iter().filter(|(_, helper)| lacks(*helper)).map(|(name, _)| *name).collect()
}

fn file_system(is_mounted: bool, is_there: bool, user: u32, may: impl Fn(&Path, AccessFlags) -> bool) -> Row {
    let check = "bpffs";
    let mount = format!("mount -t bpf bpf {BPFFS}");
    match (is_mounted, is_there) {
        (false, true) if user == 0 => {
            let detail = format!("not mounted on {BPFFS}; balancer mounts it when it starts, if it may");
            return Row::warning(check, detail).mend(mount);
        }
        (false, true) => return Row::missing(check, format!("not mounted on {BPFFS}")).mend(mount),
        (false, false) => {
            return Row::missing(check, format!("there is no {BPFFS}"))
                .mend(format!("mount -t sysfs sysfs /sys && {mount}"));
        }
        (true, _) => {}
    }
    let folder = PathBuf::from(BPFFS).join("balancer");
    let can_enter = may(Path::new(BPFFS), AccessFlags::X_OK);
    let all = AccessFlags::W_OK | AccessFlags::X_OK;
    let can_write = can_enter
        && if may(&folder, AccessFlags::F_OK) { may(&folder, all) } else { may(Path::new(BPFFS), all) };
    if can_write {
        return Row::ok(check, format!("mounted on {BPFFS}, and may be written to"));
    }
    let enter = if can_enter { String::new() } else { format!("chmod o+x {BPFFS} && ") };
    let folder = folder.display();
    Row::missing(check, format!("mounted on {BPFFS}, but this user may not write there"))
        .mend(format!("{enter}mkdir -p {folder} && chown -R {user} {folder}"))
}

/// What the program has counted of packets whose senders leave checksums to hardware that is not there.
fn unfinished() -> Option<Row> {
    let pins = Pins::locate().ok()?;
    let counters = MapData::from_pin(pins.shared("COUNTERS")).ok()?;
    let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(counters)).ok()?;
    let of = |outcome: Outcome| {
        let indices = (0..MAX_SERVICES).map(|slot| counter::index(slot, outcome as u32));
        let values = indices.filter_map(|index| counters.get(&index, 0).ok());
        values.map(|values| values.iter().sum::<u64>()).sum::<u64>()
    };
    Some(senders(of(Outcome::UnfinishedSyn), of(Outcome::UnfinishedSynAck)))
}

fn senders(clients: u64, servers: u64) -> Row {
    let check = "unfinished checksums";
    if clients + servers == 0 {
        return Row::ok(check, "none was seen");
    }
    let detail = format!(
        "seen since the program is there: {clients} of clients (pass_unfinished_checksum), {servers} of servers; as long \
         as these rise, connections of some go through the proxy"
    );
    Row::warning(check, detail).mend("at the sender: ethtool -K IF tx off")
}

/// What balancers of other versions have pinned for this network namespace.
fn other_versions() -> Row {
    let check = "other versions";
    let Ok(pins) = Pins::locate() else {
        return Row::warning(check, "network namespaces cannot be told apart here (Linux 5.14 can)");
    };
    let running =
        |pins: &Pins| pins.services().into_iter().find(|name| locks::on(&pins.service(name)).is_some());
    let others: Vec<_> = pins.of_other_schemas().into_iter().map(|other| (running(&other), other)).collect();
    let live = others.iter().find(|(running, _)| running.is_some());
    let Some((running, other)) = live.or(others.first()) else {
        return Row::ok(check, "have left nothing here");
    };
    let root = other.root().display().to_string();
    match running {
        Some(name) => {
            let detail = format!("a balancer of another version, {name}, is running with maps in {root}");
            Row::warning(check, detail).mend("stop it before this one is started")
        }
        None => {
            let detail =
                format!("a balancer of another version has left maps in {root}, perhaps with its program");
            Row::warning(check, detail).mend(format!("rm -r {}", word(&root)))
        }
    }
}

/// The folder that the process with that name has locked.
pub(super) fn role(name: &str) -> Option<PathBuf> {
    Pins::locate().ok().map(|pins| pins.service(name))
}

/// Interfaces that our program is attached to, by number.
pub(super) fn attached() -> Vec<u32> {
    Pins::locate().map(|pins| pins.linked_interfaces()).unwrap_or_default()
}

/// Whose program is on the interface.
pub(super) fn on(link: &Link) -> OnIt {
    let Some(xdp) = link.xdp else { return OnIt::Nothing };
    let Ok(pins) = Pins::locate() else { return OnIt::Foreign { link: None } };
    let links = syscall::xdp_links().unwrap_or_default();
    let id = links.iter().find(|on| on.interface == link.index && Some(on.program) == xdp.program);
    if pins.link(link.index).exists() {
        return OnIt::Ours;
    }
    if let Some(other) = pins.of_other_schemas().iter().find(|other| other.link(link.index).exists()) {
        return OnIt::OtherVersion { pin: other.link(link.index) };
    }
    OnIt::Foreign { link: id.map(|link| link.id) }
}

/// See [`netdev::runs`].
pub(super) fn runs(link: &Link) -> Option<bool> {
    netdev::runs(link.index)
}

/// See [`netdev::transmits`].
pub(super) fn transmits(link: &Link) -> Option<bool> {
    netdev::transmits(link.index)
}

/// Attaches a program in native mode, and takes it off again.
pub(super) fn probe(link: &Link) -> anyhow::Result<()> {
    program::probe(&link.name, link.index)
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    #[test]
    fn the_file_system_of_pins_is_mounted_and_ours_to_write() {
        let judge = |is_mounted, user, may: &[(&str, AccessFlags)]| {
            file_system(is_mounted, true, user, |path, flags| {
                may.iter().any(|(at, have)| Path::new(at) == path && have.contains(flags))
            })
        };
        let (all, enter) = (AccessFlags::W_OK | AccessFlags::X_OK, AccessFlags::X_OK);
        assert_eq!(judge(false, 0, &[]).mend.as_deref(), Some("mount -t bpf bpf /sys/fs/bpf"));
        assert_eq!(judge(false, 0, &[]).state, State::Warning, "balancer can do that itself");
        assert_eq!(judge(false, 1000, &[]).state, State::Missing);
        assert_eq!(judge(true, 0, &[("/sys/fs/bpf", all)]).state, State::Ok);
        let own = [("/sys/fs/bpf", enter), ("/sys/fs/bpf/balancer", all)];
        assert_eq!(judge(true, 1000, &own).state, State::Ok, "a folder of its own will do");
        assert_eq!(
            judge(true, 1000, &[]).mend.as_deref(),
            Some(
                "chmod o+x /sys/fs/bpf && mkdir -p /sys/fs/bpf/balancer && chown -R 1000 /sys/fs/bpf/balancer"
            )
        );
        assert_eq!(
            judge(true, 1000, &[("/sys/fs/bpf", enter)]).mend.as_deref(),
            Some("mkdir -p /sys/fs/bpf/balancer && chown -R 1000 /sys/fs/bpf/balancer")
        );
    }

    #[test]
    fn what_was_counted_is_evidence() {
        assert_eq!(senders(0, 0).state, State::Ok);
        let row = senders(3, 1);
        assert!(row.state == State::Warning && row.detail.contains("3 of clients"), "{row:?}");
    }

    #[test]
    fn a_helper_that_is_lacking_is_named_beside_the_kernel_s_words() {
        assert_eq!(verifier(Ok(()), Vec::new).state, State::Ok);
        let row = verifier(Err(anyhow::anyhow!("refused")), || vec!["bpf_fib_lookup"]);
        assert_eq!(row.state, State::Missing);
        assert_eq!(row.detail, "refused; this kernel lacks bpf_fib_lookup");
    }
}
