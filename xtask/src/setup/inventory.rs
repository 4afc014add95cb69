//! What is there and what is not.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Needs, bpf, kernel};
use crate::kernels::QEMU;
use crate::privilege::find_program;

/// One part that something needs.
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    /// Where it was found, or nothing.
    pub(super) found: Option<String>,
    pub(super) remedy: Remedy,
}

/// How a missing part is had.
pub(super) enum Remedy {
    /// Debian's package of that name.
    Package(&'static str),
    /// A component of the Rust toolchain in use.
    Component(&'static str),
    /// The steps in [`bpf`].
    Toolchain,
    /// The steps in [`kernel`].
    Kernel,
}

impl Item {
    pub(super) fn is_there(&self) -> bool {
        self.found.is_some()
    }
}

/// Programs of the laboratory: name, Debian's package, what for.
const LAB: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "makes the network namespaces of demo, tests and benchmarks"),
    ("ethtool", "ethtool", "sets the offloads of the veth pairs"),
    (
        "nft",
        "nftables",
        "a packet filter for tests, and the kernel's own translation of addresses for benchmarks",
    ),
    ("nginx", "nginx-light", "the origin that tests and benchmarks talk to"),
    ("haproxy", "haproxy", "the proxy that benchmarks compare with"),
    ("hatop", "hatop", "a view of HAProxy that has to work on our admin socket"),
    ("prometheus-haproxy-exporter", "prometheus-haproxy-exporter", "metrics of HAProxy, the same"),
    ("socat", "socat", "talks to admin sockets in people's scripts"),
    ("script", "bsdutils", "a terminal for hatop"),
    ("curl", "curl", "a client that people know"),
    ("systemd-socket-activate", "systemd", "passes sockets on, and systemd-analyze beside it reads the unit"),
    ("groff", "groff-base", "sets the man page"),
    ("dpkg-deb", "dpkg", "packs, and installs where the package is tried"),
    ("wrk", "wrk", "makes the load of benchmarks and demo"),
];

/// What the page is looked at with.
const BROWSER: &[(&str, &str, &str)] = &[
    ("chromium", "chromium", "shows the page of the service to its tests"),
    ("chromedriver", "chromium-driver", "drives it"),
];

/// A part of Debian's package fonts-dejavu-core: a browser without any font measures no text.
const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

/// A part of Debian's package python3-prometheus-client. Prometheus itself, with promtool, would be a hundred megabytes.
const PARSER: &str = "/usr/lib/python3/dist-packages/prometheus_client/openmetrics/parser.py";

/// Looks for everything that `needs` names. Quick: one call of rustup and one of the linker, files otherwise.
pub(super) fn take(needs: Needs) -> Vec<Item> {
    let mut items = vec![program("cc", "gcc", "links Rust programs and compiles the allocator")];
    if needs.fuzz {
        items.push(program("c++", "g++", "compiles libFuzzer"));
    }
    if needs.ebpf {
        items.push(Item {
            name: "eBPF toolchain",
            why: "compiles the XDP program",
            found: bpf::toolchain().map(|found| found.to_string()),
            remedy: Remedy::Toolchain,
        });
        items.push(Item {
            name: "bpf-linker",
            why: "links the XDP program",
            found: bpf::linker(),
            remedy: Remedy::Toolchain,
        });
    }
    if needs.lab {
        items.push(Item {
            name: "prometheus_client",
            why: "the reference parser of metrics, which has to take ours; in Python",
            found: Path::new(PARSER).exists().then(|| PARSER.to_owned()),
            remedy: Remedy::Package("python3-prometheus-client"),
        });
        items.extend(LAB.iter().map(|&(name, package, why)| program(name, package, why)));
    }
    if needs.browser {
        items.extend(BROWSER.iter().map(|&(name, package, why)| program(name, package, why)));
        items.push(Item {
            name: "DejaVu",
            why: "a font for the browser",
            found: Path::new(FONT).exists().then(|| FONT.to_owned()),
            remedy: Remedy::Package("fonts-dejavu-core"),
        });
    }
    if needs.valgrind {
        items.push(program("valgrind", "valgrind", "counts the instructions of a request"));
    }
    if needs.qemu {
        items.push(program(
            QEMU,
            "qemu-system-x86",
            "boots the oldest kernel that the XDP program is promised for",
        ));
    }
    if needs.kernel {
        items.push(Item {
            name: "the oldest kernel",
            why: "loads the XDP program, under qemu",
            found: kernel::found().map(|kernel| kernel.image.display().to_string()),
            remedy: Remedy::Kernel,
        });
    }
    if needs.lints {
        items.push(component("rustfmt", "cargo-fmt", "checks the formatting"));
        items.push(component("clippy", "cargo-clippy", "checks the code"));
    }
    items
}

/// Rustup's proxy of that name is there in any case; it works when the component is.
fn component(name: &'static str, program: &str, why: &'static str) -> Item {
    let version = Command::new(program).arg("--version").stderr(Stdio::null()).output().ok();
    let version = version.filter(|output| output.status.success());
    let found = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    Item { name, why, found, remedy: Remedy::Component(name) }
}

fn program(name: &'static str, package: &'static str, why: &'static str) -> Item {
    let found = find_program(name).map(|path| path.display().to_string());
    Item { name, why, found, remedy: Remedy::Package(package) }
}
