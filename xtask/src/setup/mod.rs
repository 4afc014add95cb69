//! Finds or installs what the build, the tests and the demo need.
//!
//! [`inventory`] says what is there, [`bpf`] which of the two ways to an eBPF object is open, [`apt`]
//! installs packages, [`kernel`] fetches the one that is booted for tests, and [`by_hand`] prints what to type where nothing can be installed.

mod apt;
mod bpf;
mod by_hand;
mod inventory;
pub(crate) mod kernel;

use std::process::ExitCode;

use anyhow::Result;

pub use by_hand::ByHand;
use inventory::{Item, Remedy};

/// What the caller is about to do.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Build the XDP program.
    pub ebpf: bool,
    /// Run real programs in network namespaces.
    pub lab: bool,
    /// Check formatting and lints.
    pub lints: bool,
    /// Count instructions.
    pub valgrind: bool,
    /// Compile libFuzzer.
    pub fuzz: bool,
    /// Drive a browser.
    pub browser: bool,
    /// Emulate a machine.
    pub qemu: bool,
    /// Boot the oldest kernel on it.
    pub kernel: bool,
}

impl Needs {
    /// To be added to.
    pub const NOTHING: Self = Self {
        ebpf: false,
        lab: false,
        lints: false,
        valgrind: false,
        fuzz: false,
        browser: false,
        qemu: false,
        kernel: false,
    };

    /// Everything that any command needs, and can have here.
    fn all() -> Self {
        let kernel = kernel::is_possible();
        Self {
            ebpf: true,
            lab: true,
            lints: true,
            valgrind: true,
            fuzz: true,
            browser: true,
            qemu: kernel,
            kernel,
        }
    }
}

/// `cargo xtask setup`: reports each part, and installs the missing ones unless only asked to check.
///
/// # Errors
/// When an installation fails, or [`ByHand`] when it has to be done by a person.
pub fn command(check: bool) -> Result<ExitCode> {
    let all = Needs::all();
    let items = inventory::take(all);
    for item in &items {
        match &item.found {
            Some(found) => println!("setup: ok       {:<22} {found}", item.name),
            None => println!("setup: missing  {:<22} {}", item.name, item.why),
        }
    }
    if items.iter().all(Item::is_there) {
        println!("setup: everything is there");
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        return Ok(ExitCode::from(1));
    }
    install(all, &items)?;
    println!("setup: everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure of what `needs` names, silently when it is all there.
///
/// # Errors
/// When an installation fails, or [`ByHand`] when it has to be done by a person.
pub fn ensure(needs: Needs) -> Result<()> {
    let items = inventory::take(needs);
    if items.iter().all(Item::is_there) { Ok(()) } else { install(needs, &items) }
}

/// Environment for cargo, so that the build finds the eBPF linker even where cargo's folder of binaries is
/// not in PATH. The toolchain itself is found by the build script.
#[must_use]
pub fn ebpf_env() -> Vec<(String, String)> {
    bpf::path_with_linker().map(|path| ("PATH".to_owned(), path)).into_iter().collect()
}

/// Packages first, in one go, since the toolchain's steps need some of them.
fn install(needs: Needs, missing: &[Item]) -> Result<()> {
    let mut packages: Vec<&str> = Vec::new();
    let mut components: Vec<&str> = Vec::new();
    let (mut toolchain, mut kernel) = (false, false);
    for item in missing.iter().filter(|item| !item.is_there()) {
        match &item.remedy {
            Remedy::Package(package) => packages.push(package),
            Remedy::Component(component) => components.push(component),
            Remedy::Toolchain => toolchain = true,
            Remedy::Kernel => kernel = true,
        }
    }
    let way = toolchain.then(bpf::choose_way).transpose()?;
    packages.extend(way.iter().flat_map(bpf::Way::packages));
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        apt::install(&packages)?;
    }
    if !components.is_empty() {
        bpf::add_components(&components)?;
    }
    if let Some(way) = way {
        way.install()?;
    }
    if kernel {
        kernel::fetch().map_err(|error| by_hand::ask(&format!("{error:#}")))?;
    }
    let still: Vec<&str> =
        inventory::take(needs).iter().filter(|item| !item.is_there()).map(|item| item.name).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(by_hand::ask(&format!("still missing after the installation: {}", still.join(", "))))
}
