//! Builds the XDP program for the BPF target, so that it can be embedded.

fn main() -> anyhow::Result<()> {
    #[cfg(feature = "xdp")]
    xdp::build()?;
    Ok(())
}

#[cfg(feature = "xdp")]
mod xdp {
    use std::path::Path;
    use std::process::Command;

    use anyhow::Context as _;
    use aya_build::{Package, Toolchain};

    /// A toolchain of Debian's compiler, which ships `core` for BPF precompiled; `cargo xtask setup` links it.
    const DEBIAN: &str = "debian-bpf";
    const OVERRIDE: &str = "BALANCER_BPF_TOOLCHAIN";

    pub(super) fn build() -> anyhow::Result<()> {
        println!("cargo:rerun-if-env-changed={OVERRIDE}");
        println!("cargo:rerun-if-env-changed=RUSTUP_HOME");
        let toolchain = match std::env::var(OVERRIDE) {
            Ok(name) => name,
            Err(_) if has_toolchain(DEBIAN) => DEBIAN.to_owned(),
            Err(_) => "nightly".to_owned(),
        };
        // SAFETY: a build script has one thread.
        #[allow(unsafe_code)]
        unsafe {
            // What the inner cargo says comes back as warnings; its progress is none.
            std::env::set_var("CARGO_TERM_QUIET", "true");
            if toolchain == DEBIAN {
                // aya-ebpf and our two crates need one unstable feature, assembly for this target; naming the crates allows
                // it there and nowhere else.
                std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,balancer_ebpf,balancer_xdp");
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("balancer-ebpf");
        let root_dir = root.to_str().context("the path of the workspace is not UTF-8")?;
        let package =
            Package { name: "balancer-ebpf", root_dir, no_default_features: true, features: &["bpf"] };
        aya_build::build_ebpf([package], Toolchain::Custom(&toolchain)).with_context(|| {
            format!(
                "the XDP program could not be built with the toolchain `{toolchain}`; `cargo xtask setup` installs \
                 what it needs, and `--no-default-features` builds the proxy without it"
            )
        })
    }

    fn has_toolchain(name: &str) -> bool {
        let list = Command::new("rustup").args(["toolchain", "list"]).output();
        list.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with(name))
        })
    }
}
