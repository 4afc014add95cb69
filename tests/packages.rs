//! What `cargo xtask dist` makes: the package is installed in a root that has nothing but what it says it needs, served from,
//! and removed; the unit is read by the service manager's own checker, and its capabilities are enough.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Arguments;
use nix::sys::signal::Signal;
use site::{BALANCER, PATIENCE, trial};
use tempfile::TempDir;
use xtask::lab::http;
use xtask::lab::nginx::Nginx;
use xtask::lab::process::Output;
use xtask::lab::{Child, Command, Lab, Namespace, wait_until};

/// Compressing a program with all its symbols, on a busy machine.
const PACKING: Duration = Duration::from_secs(300);

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("the_package_installs_serves_and_is_removed_without_a_trace", package),
        trial("the_unit_is_understood", unit),
        trial("the_units_capabilities_are_enough", capabilities),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn package() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let made = TempDir::new()?;
    let files = xtask::dist::pack(Path::new(BALANCER), made.path())?;
    let [archive, package] = files.try_into().ok().context("an archive and a package")?;
    let listed = run(lab.balancer.command("tar").arg("-tzf").arg(&archive))?.stdout;
    for file in
        ["/balancer", "/balancer.8", "/balancer.service", "/balancer.conf", "/LICENSE-MIT", "/README.md"]
    {
        ensure!(listed.lines().any(|line| line.ends_with(file)), "no {file} in {listed}");
    }

    let root = Root::new(&lab.balancer)?;
    root.run("dpkg", &["-i", &package.display().to_string()])?;
    ensure!(root.output("systemctl", &[]).is_err(), "this is to be a root without a service manager");
    root.chrooted(&["/usr/sbin/balancer", "check", "@/etc/balancer/balancer.conf"])?;
    let page = run(lab.balancer.command("gzip").arg("-dc").arg(root.at("usr/share/man/man8/balancer.8.gz")))?;
    ensure!(page.stdout.contains("SIGNALS"));

    // As it is installed, with the fast path added.
    let conf = root.at("etc/balancer/balancer.conf");
    let (front, interface) = (lab.client().gateway_at(80), &lab.client().interface);
    writeln!(OpenOptions::new().append(true).open(&conf)?, "--persist source\n--xdp {interface}")?;
    let nginx = Nginx::start(&lab.balancer, "127.0.0.1:8080".parse()?, "app1")?;
    let mut daemon = root.spawn(&["/usr/sbin/balancer", "run", "@/etc/balancer/balancer.conf"])?;
    wait_until(PATIENCE, "the service to be ready", || daemon.stderr().contains("ready: "))
        .with_context(|| daemon.stderr())?;
    let answer = http::get(&lab.client().ns, None, front, "/", &[])?;
    ensure!(answer.status == 200 && answer.header("X-Server") == Some("app1"), "{}", answer.text());
    let status = fs::read_to_string(format!("/proc/{}/status", inner(&daemon)?))?;
    ensure!(!status.lines().any(|line| line.starts_with("Uid:\t0")), "it is root still: {status}");
    daemon.signal(Signal::SIGTERM)?;
    ensure!(daemon.wait(PATIENCE)?.success(), "{}", daemon.stderr());
    ensure!(root.at("var/lib/balancer/balancer.state").exists());
    ensure!(pins(&lab.balancer), "the fast path is to go on");
    drop(nginx);

    root.run("dpkg", &["-r", "balancer"])?;
    ensure!(!pins(&lab.balancer), "the program has stayed in the kernel");
    ensure!(!root.at("usr/sbin/balancer").exists() && conf.exists() && root.at("var/lib/balancer").exists());
    root.run("dpkg", &["-P", "balancer"])?;
    ensure!(!root.at("etc/balancer").exists() && !root.at("var/lib/balancer").exists());
    Ok(())
}

/// `chroot` has become the daemon.
fn inner(daemon: &Child) -> Result<u32> {
    let name = fs::read_to_string(format!("/proc/{}/comm", daemon.pid()))?;
    ensure!(name.trim() == "balancer", "this is {name}");
    Ok(daemon.pid())
}

/// Whether anything of ours is in the kernel, as seen from that namespace.
fn pins(ns: &Namespace) -> bool {
    let listed = ns.command(BALANCER).args(["detach", "--all"]).output(PATIENCE);
    listed.is_ok_and(|output| !output.stdout.contains("no service has anything"))
}

fn unit() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let folder = TempDir::new()?;
    let file = folder.path().join("balancer.service");
    fs::write(&file, unit_text()?.replace("/usr/sbin/balancer", BALANCER))?;
    let verified =
        lab.balancer.command("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output(PATIENCE)?;
    let said: Vec<_> = verified.stderr.lines().filter(|line| line.contains("balancer")).collect();
    ensure!(verified.status.success() && said.is_empty(), "{verified:?}");
    // What the checker says is wrong has to be told from what it says is right.
    fs::write(&file, unit_text()?.replace("Type=notify", "Typ=notify"))?;
    let spoilt =
        lab.balancer.command("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output(PATIENCE)?;
    ensure!(spoilt.stderr.contains("Typ"), "{spoilt:?}");
    Ok(())
}

fn unit_text() -> Result<String> {
    let path = xtask::build::workspace().join("xtask/src/dist/balancer.service");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Start with XDP, another user, and a reload, with no more than the unit gives.
fn capabilities() -> Result<()> {
    let lab = Lab::star().servers(1).build()?;
    let nginx = Nginx::start(&lab.server(1).ns, lab.server(1).at(8080), "s1")?;
    let text = unit_text()?;
    let set = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("a set")?;
    let set: Vec<_> = set.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    let bounds = format!("--bounding-set=-all,+{}", set.join(",+"));
    let (flags, admin) = (lab.balancer.fresh_path("flags"), lab.balancer.fresh_path("admin.sock"));
    let lines = format!(
        "--listen {}\n--server s1={}\n--admin {}\n--persist source\n--xdp {}\n--xdp {}\n--user nobody\n",
        lab.client().gateway_at(80),
        lab.server(1).at(8080),
        admin.display(),
        lab.client().interface,
        lab.server(1).interface,
    );
    fs::write(&flags, lines)?;
    let file = format!("@{}", flags.display());
    let bounded = |verb: &str| -> Command {
        lab.balancer.command("setpriv").args([&bounds, "--no-new-privs", BALANCER, verb, &file])
    };
    let mut daemon = bounded("run").spawn()?;
    wait_until(PATIENCE, "the service to be ready", || daemon.stderr().contains("ready: "))
        .with_context(|| daemon.stderr())?;
    let fast = || -> Result<bool> {
        let answer = http::get(&lab.client().ns, None, lab.client().gateway_at(80), "/", &[])?;
        ensure!(answer.status == 200, "{}", answer.text());
        let info = lab.balancer.command(BALANCER).args(["show", "info", "--json", "--admin"]).arg(&admin);
        let info: serde_json::Value = serde_json::from_str(&info.output(PATIENCE)?.stdout)?;
        Ok(info["datapath"].to_string().contains("\"syn_forwarded\":1"))
    };
    wait_until(PATIENCE, "a connection by XDP", || fast().unwrap_or(false))?;
    let reloaded = bounded("reload").output(PATIENCE)?;
    ensure!(reloaded.status.success(), "{reloaded:?}");
    ensure!(daemon.wait(PATIENCE)?.success(), "{}", daemon.stderr());
    fast()?;
    let info = lab
        .balancer
        .command(BALANCER)
        .args(["show", "info", "--json", "--admin"])
        .arg(&admin)
        .output(PATIENCE)?;
    let info: serde_json::Value = serde_json::from_str(&info.stdout)?;
    let successor = nix::unistd::Pid::from_raw(info["pid"].as_i64().context("a pid")? as i32);
    nix::sys::signal::kill(successor, Signal::SIGTERM)?;
    wait_until(PATIENCE, "the successor to end", || nix::sys::signal::kill(successor, None).is_err())?;
    drop(nginx);
    Ok(())
}

/// A folder that is `/` to what runs in it: the programs that maintainer scripts may use, the libraries that the package
/// depends on, and nothing else.
struct Root<'a> {
    folder: TempDir,
    ns: &'a Namespace,
}

impl<'a> Root<'a> {
    fn new(ns: &'a Namespace) -> Result<Self> {
        let root = Self { folder: TempDir::new()?, ns };
        for folder in
            ["proc", "sys", "tmp", "etc", "run", "usr/bin", "usr/sbin", "usr/lib", "var/lib/dpkg/info"]
        {
            fs::create_dir_all(root.at(folder))?;
        }
        for folder in ["var/lib/dpkg/updates", "var/lib/dpkg/triggers", "dev"] {
            fs::create_dir_all(root.at(folder))?;
        }
        for (link, to) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib")]
        {
            std::os::unix::fs::symlink(to, root.at(link))?;
        }
        for (file, text) in [
            ("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
            ("etc/group", "root:x:0:\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("etc/gshadow", "root:*::\n"),
            ("etc/login.defs", "SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\n"),
        ] {
            fs::write(root.at(file), text)?;
        }
        for program in ["sh", "mkdir", "chown", "chmod", "rm", "getent", "useradd"] {
            root.copy(&xtask::privilege::find_program(program).with_context(|| program.to_owned())?)?;
        }
        root.copy(Path::new(BALANCER))?;
        fs::remove_file(root.at("usr/bin/balancer"))?;
        // What is there, as far as the package's dependencies are concerned.
        let query = ns.command("dpkg-query").args(["-W", "-f", STATUS, "libc6", "libgcc-s1", "passwd"]);
        fs::write(root.at("var/lib/dpkg/status"), run(query)?.stdout)?;
        Ok(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A program and the libraries that it says it needs.
    fn copy(&self, program: &Path) -> Result<()> {
        let libraries = run(self.ns.command("ldd").arg(program))?.stdout;
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for (library, path) in paths.map(|path| (true, path)).chain([(false, program.to_path_buf())]) {
            let folder = if library { "usr/lib" } else { "usr/bin" };
            let to = self.at(folder).join(path.file_name().context("a name")?);
            fs::copy(&path, to).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// In a mount namespace of its own, with what the kernel shows.
    fn command(&self, words: &[&str]) -> Command {
        let script = "root=$1; shift; for part in proc sys dev; do mount --rbind /$part \"$root/$part\" || exit; done; \
                      exec \"$@\"";
        let command = self.ns.command("unshare").args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg(self.folder.path()).args(words)
    }

    fn output(&self, program: &str, words: &[&str]) -> Result<Output> {
        let root = self.folder.path().display().to_string();
        run(self.command(&[&["chroot", &root, program], words].concat()))
    }

    /// With the root as the place where to install.
    fn run(&self, program: &str, words: &[&str]) -> Result<Output> {
        let root = format!("--root={}", self.folder.path().display());
        run(self.command(&[&[program, &root], words].concat()))
    }

    fn chrooted(&self, words: &[&str]) -> Result<Output> {
        self.output(words[0], &words[1..])
    }

    fn spawn(&self, words: &[&str]) -> Result<Child> {
        let root = self.folder.path().display().to_string();
        self.command(&[&["chroot", &root], words].concat()).spawn()
    }
}

const STATUS: &str = "Package: ${Package}\nStatus: install ok installed\nMaintainer: nobody <x@y.z>\nArchitecture: \
                      ${Architecture}\nMulti-Arch: same\nVersion: ${Version}\nDescription: there\n\n";

fn run(command: Command) -> Result<Output> {
    let line = command.line();
    let output = command.output(PACKING)?;
    ensure!(output.status.success(), "{line}: {output:?}");
    Ok(output)
}
