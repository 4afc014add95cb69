//! `cargo xtask dist`: what is handed to others: a package for Debian and Ubuntu, and an archive of the same for everybody
//! else. Both come out the same whenever they are made from the same commit.

mod needs;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::setup::Needs;
use crate::{build, privilege, setup};
use stage::Stage;

/// What to pack.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A daemon that is already built, instead of building this workspace's
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
    /// Where the results go [default: target/dist]
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Builds, packs, and says where the results are.
///
/// # Errors
/// When the build fails, or a program that packs is missing or fails.
pub fn command(options: &Options) -> Result<ExitCode> {
    let balancer = match &options.balancer {
        Some(balancer) => balancer.clone(),
        None => {
            setup::ensure(Needs { ebpf: true, ..Needs::NOTHING })?;
            build::release_daemon()?
        }
    };
    let output = options.output.clone().unwrap_or_else(|| build::workspace().join("target/dist"));
    let made = pack(&balancer, &output)?;
    made.iter().for_each(|path| println!("dist: {}", path.display()));
    if made.len() == 1 {
        println!("dist: no package for Debian, as there is no dpkg-deb here");
    }
    Ok(ExitCode::SUCCESS)
}

/// Packs a daemon that is built. Returns the archive and, where there is a `dpkg-deb`, the package.
///
/// # Errors
/// When a program that packs is missing or fails.
pub fn pack(balancer: &Path, output: &Path) -> Result<Vec<PathBuf>> {
    let product = Product::of(balancer)?;
    let stage = Stage::new(&output.join("stage"))?;
    let mut made = vec![product.archive(&stage, output)?];
    if privilege::find_program("dpkg-deb").is_some() {
        made.push(product.package(&stage, output)?);
    }
    Ok(made)
}

/// What is packed.
struct Product {
    balancer: PathBuf,
    version: String,
    /// Seconds since 1970 that all files are dated.
    date: String,
}

impl Product {
    fn of(balancer: &Path) -> Result<Self> {
        let version = output(Command::new(balancer).arg("--version"))?;
        let version =
            version.split_whitespace().last().context("the daemon does not tell its version")?.to_owned();
        // Outside of a clone there is no such date.
        let of_commit = || {
            output(
                privilege::as_user("git").args(["log", "-1", "--format=%ct"]).current_dir(build::workspace()),
            )
        };
        let date = std::env::var("SOURCE_DATE_EPOCH").or_else(|_| of_commit()).unwrap_or_default();
        let date = if date.is_empty() { "0".to_owned() } else { date };
        Ok(Self { balancer: balancer.to_path_buf(), version, date })
    }

    /// What the daemon says of itself, as a file.
    fn document(&self, words: &[&str]) -> Result<String> {
        output(Command::new(&self.balancer).args(words)).map(|text| text + "\n")
    }

    fn archive(&self, stage: &Stage, output_folder: &Path) -> Result<PathBuf> {
        let name = format!("balancer-{}-{}", self.version, std::env::consts::ARCH);
        let folder = stage.folder(&name)?;
        folder.program("balancer", &self.balancer)?;
        folder.file("balancer.8", &self.document(&["man"])?)?;
        folder.file("balancer.service", include_str!("balancer.service"))?;
        folder.file("balancer.conf", include_str!("balancer.conf"))?;
        for (shell, file) in SHELLS {
            folder.file(&format!("completions/{file}"), &self.document(&["completions", shell])?)?;
        }
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            folder.file(file, &fs::read_to_string(build::workspace().join(file))?)?;
        }
        let archive = output_folder.join(format!("{name}.tar.gz"));
        let tar = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "-czf"];
        let mut command = Command::new("tar");
        command.args(tar).arg(&archive).arg(format!("--mtime=@{}", self.date));
        // Without the name and the time of the file.
        command.env("GZIP", "-9n").arg("-C").arg(stage.path()).arg(&name);
        output(&mut command)?;
        Ok(archive)
    }

    fn package(&self, stage: &Stage, output_folder: &Path) -> Result<PathBuf> {
        let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
        let name = format!("balancer_{}_{architecture}.deb", self.version);
        let folder = stage.folder("package")?;
        folder.program("usr/sbin/balancer", &self.balancer)?;
        folder.file("usr/lib/systemd/system/balancer.service", include_str!("balancer.service"))?;
        folder.file("etc/balancer/balancer.conf", include_str!("balancer.conf"))?;
        folder.compressed("usr/share/man/man8/balancer.8", &self.document(&["man"])?)?;
        for ((shell, _), file) in SHELLS.into_iter().zip([
            "bash-completion/completions/balancer",
            "zsh/vendor-completions/_balancer",
            "fish/vendor_completions.d/balancer.fish",
        ]) {
            folder.file(&format!("usr/share/{file}"), &self.document(&["completions", shell])?)?;
        }
        folder.file("usr/share/doc/balancer/copyright", include_str!("copyright"))?;
        folder.compressed(
            "usr/share/doc/balancer/README.md",
            &fs::read_to_string(build::workspace().join("README.md"))?,
        )?;
        let size = folder.kibibytes()?;
        folder.file("DEBIAN/control", &self.control(&architecture, size)?)?;
        folder.file("DEBIAN/conffiles", "/etc/balancer/balancer.conf\n")?;
        folder.script("DEBIAN/postinst", include_str!("postinst"))?;
        folder.script("DEBIAN/prerm", include_str!("prerm"))?;
        folder.script("DEBIAN/postrm", include_str!("postrm"))?;
        let package = output_folder.join(name);
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "-Zxz", "--build"]).arg(folder.path()).arg(&package);
        output(command.env("SOURCE_DATE_EPOCH", &self.date))?;
        Ok(package)
    }

    fn control(&self, architecture: &str, size: u64) -> Result<String> {
        let depends = needs::of(&self.balancer)?;
        Ok(format!(
            "Package: balancer
Version: {}
Architecture: {architecture}
Maintainer: The balancer developers <balancer@localhost>
Installed-Size: {size}
Depends: {depends}
Suggests: iproute2
Section: net
Priority: optional
Description: load balancer that keeps sessions
 Users stay on the server that knows them, through reloads, crashes, and servers
 that come and go. Connections of clients whose server is known are forwarded in
 the kernel by XDP; everything else goes through an HTTP proxy that learns.
",
            self.version
        ))
    }
}

/// Who is completed for, and the file's usual name.
const SHELLS: [(&str, &str); 3] =
    [("bash", "balancer.bash"), ("zsh", "_balancer"), ("fish", "balancer.fish")];

/// What a program prints, without the end of the line.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}
