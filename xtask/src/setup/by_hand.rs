//! What to type where nothing can be installed from here.

use std::fmt;

/// A person has to install something; the commands have been printed.
#[derive(Debug)]
pub struct ByHand(String);

impl fmt::Display for ByHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ByHand {}

const COMMANDS: &str = "\
Install by hand what is missing, then run `cargo xtask setup --check`.

  Debian, Ubuntu (with Debian's core for BPF, where `apt-cache policy libstd-rust-web-dev-bpf` knows it):
    sudo apt-get install gcc g++ iproute2 ethtool nftables nginx-light haproxy curl wrk valgrind
    sudo apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev
    rustup toolchain link debian-bpf /usr
    PATH=/usr/lib/llvm-22/bin:$PATH cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22

  Debian, Ubuntu (with nightly):
    sudo apt-get install gcc g++ iproute2 ethtool nftables nginx-light haproxy curl wrk valgrind
    rustup toolchain install nightly --component rust-src
    cargo install cargo-binstall && cargo binstall bpf-linker

  Fedora:
    sudo dnf install gcc gcc-c++ iproute ethtool nftables nginx haproxy curl wrk valgrind
    rustup toolchain install nightly --component rust-src
    cargo install cargo-binstall && cargo binstall bpf-linker

  Arch:
    sudo pacman -S --needed gcc iproute2 ethtool nftables nginx haproxy curl wrk valgrind
    rustup toolchain install nightly --component rust-src
    cargo install cargo-binstall && cargo binstall bpf-linker

  The proxy alone needs none of this: cargo build --release -p balancer --no-default-features
";

/// Prints the commands and makes the error that ends the program with exit code 2.
pub(super) fn ask(reason: &str) -> anyhow::Error {
    println!("setup: {reason}\n\n{COMMANDS}");
    ByHand(reason.to_owned()).into()
}
