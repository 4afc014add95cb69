//! The kernel's version, what the process may do, and how many files it may open.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::utsname::uname;
use nix::unistd::geteuid;

use super::row::{Row, word};
use crate::config::Subject;

/// The oldest that the program is tested on.
const OLDEST: (u32, u32) = (6, 1);
/// Below this many files a busy proxy makes clients wait.
const FEW_FILES: u64 = 4096;
/// What is proposed instead.
const ENOUGH_FILES: u64 = 65_536;

const NET_BIND_SERVICE: Capability = Capability { number: 10, name: "cap_net_bind_service" };
const NET_ADMIN: Capability = Capability { number: 12, name: "cap_net_admin" };
const SYS_RESOURCE: Capability = Capability { number: 24, name: "cap_sys_resource" };
const SYS_ADMIN: Capability = Capability { number: 21, name: "cap_sys_admin" };
const PERFMON: Capability = Capability { number: 38, name: "cap_perfmon" };
const BPF: Capability = Capability { number: 39, name: "cap_bpf" };

#[derive(Clone, Copy, Debug)]
struct Capability {
    number: u32,
    name: &'static str,
}

impl Capability {
    fn is_in(self, set: u64) -> bool {
        set >> self.number & 1 == 1
    }
}

pub(super) fn examine(subject: &Subject) -> Vec<Row> {
    let release = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut rows = vec![version(&release)];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let start = read_number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let needs_low_port = subject.listen.iter().any(|listen| (1..start).contains(&u64::from(listen.port())));
    let program = std::env::current_exe().unwrap_or_default();
    rows.push(capabilities(&status, geteuid().is_root(), needs_low_port, &program));
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    let most = read_number("/proc/sys/fs/nr_open").unwrap_or(ENOUGH_FILES);
    let may_raise = effective(&status).is_some_and(|set| SYS_RESOURCE.is_in(set));
    rows.push(files(hard, may_raise.then_some(most)));
    if let Some(jit) = read_number("/proc/sys/net/core/bpf_jit_enable").filter(|_| cfg!(feature = "xdp")) {
        rows.push(compiler(jit));
    }
    rows
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn version(release: &str) -> Row {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return Row::warning("kernel", format!("its version {release:?} is not understood"));
    };
    let (oldest, older) = OLDEST;
    if (major, minor) >= OLDEST {
        return Row::ok("kernel", format!("{release}; {oldest}.{older} or later is needed"));
    }
    let detail = format!("{release} is older than {oldest}.{older}, so XDP and kernel tables may not work");
    Row::missing("kernel", detail).mend("boot a newer kernel")
}

fn effective(status: &str) -> Option<u64> {
    let field = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(field.trim(), 16).ok()
}

fn capabilities(status: &str, is_root: bool, needs_low_port: bool, program: &Path) -> Row {
    let check = "capabilities";
    let Some(set) = effective(status) else {
        return Row::warning(check, "/proc/self/status does not say");
    };
    let mut needed: Vec<Capability> = Vec::new();
    if cfg!(feature = "xdp") && !SYS_ADMIN.is_in(set) {
        needed.extend([BPF, NET_ADMIN, PERFMON]);
    }
    if needs_low_port {
        needed.push(NET_BIND_SERVICE);
    }
    let names =
        |wanted: &[Capability]| wanted.iter().map(|capability| capability.name).collect::<Vec<_>>().join(",");
    let lacking: Vec<_> = needed.iter().copied().filter(|capability| !capability.is_in(set)).collect();
    if lacking.is_empty() {
        return Row::ok(check, if is_root { "root, with all that is needed" } else { "all that is needed" });
    }
    let row = Row::missing(check, format!("{} not there, for BPF, XDP or ports below 1024", names(&lacking)));
    if is_root {
        let add = |capability: &Capability| {
            format!("--cap-add {}", capability.name.trim_start_matches("cap_").to_uppercase())
        };
        let add: Vec<_> = needed.iter().map(add).collect();
        return row.mend(format!("start the container with {}", add.join(" ")));
    }
    row.mend(format!("setcap {}+ep {}", names(&needed), word(&program.to_string_lossy())))
}

/// The process raises its limit as far as it goes, so that is what counts. `most`: as far as this user may raise it.
fn files(hard: u64, most: Option<u64>) -> Row {
    let check = "descriptors";
    if hard >= FEW_FILES {
        return Row::ok(check, format!("up to {hard}"));
    }
    let detail = format!(
        "no more than {hard}, which is about {} clients; further ones wait",
        hard.saturating_sub(100) / 2
    );
    // For the shell that starts the daemon; a unit of systemd has LimitNOFILE.
    Row::warning(check, detail).mend(match most {
        Some(most) => format!("ulimit -n {}", most.min(ENOUGH_FILES)),
        None => "raise it as root, or where the session or the container is started".to_owned(),
    })
}

fn compiler(jit: u64) -> Row {
    if jit > 0 {
        return Row::ok("bpf jit", "on");
    }
    let detail = "off: the kernel interprets the XDP program, which takes several times as long";
    Row::warning("bpf jit", detail).mend("sysctl -w net.core.bpf_jit_enable=1")
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    #[test]
    fn versions_are_numbers_and_not_text() {
        for (release, state) in [
            ("6.18.44-cloud", State::Ok),
            ("6.1.0-30-amd64", State::Ok),
            ("10.0", State::Ok),
            ("5.15.0-91-generic", State::Missing),
            ("6.0.12", State::Missing),
            ("unknown", State::Warning),
        ] {
            assert_eq!(version(release).state, state, "{release}");
        }
    }

    #[cfg(feature = "xdp")]
    #[test]
    fn what_is_lacking_is_named_and_asked_for_as_a_whole() {
        let judge = |set: u64, is_root, low| {
            let status = format!("CapPrm:\t0\nCapEff:\t{set:016x}\n");
            capabilities(&status, is_root, low, Path::new("/usr/bin/balancer"))
        };
        let all = 1 << 39 | 1 << 38 | 1 << 12;
        assert_eq!(judge(all, false, false).state, State::Ok);
        assert_eq!(judge(1 << 21, false, false).state, State::Ok, "CAP_SYS_ADMIN stands for all");
        let row = judge(1 << 39 | 1 << 12, false, false);
        assert_eq!(row.state, State::Missing);
        assert!(row.detail.starts_with("cap_perfmon not there"), "{row:?}");
        assert_eq!(
            row.mend.as_deref(),
            Some("setcap cap_bpf,cap_net_admin,cap_perfmon+ep /usr/bin/balancer"),
            "setcap replaces what was there"
        );
        assert!(judge(all, false, true).detail.starts_with("cap_net_bind_service"));
        let row = judge(0, true, false);
        assert!(
            row.mend
                .is_some_and(|mend| mend.ends_with("--cap-add BPF --cap-add NET_ADMIN --cap-add PERFMON"))
        );
    }

    #[test]
    fn few_descriptors_and_an_interpreter_are_worth_a_warning() {
        assert_eq!(files(1_048_576, None).state, State::Ok);
        assert_eq!(files(1024, Some(1_048_576)).mend.as_deref(), Some("ulimit -n 65536"));
        assert_eq!(files(1024, Some(20_000)).mend.as_deref(), Some("ulimit -n 20000"));
        assert!(files(1024, None).mend.is_some_and(|mend| mend.starts_with("raise it as root")));
        assert_eq!(compiler(1).state, State::Ok);
        assert_eq!(compiler(0).state, State::Warning);
    }
}
