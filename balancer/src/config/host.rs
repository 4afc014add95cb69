//! What validation needs to know about this host, read once, so that tests can say what it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use crate::cli::Stop;

/// Room for the ends of the temporary name and of `sun_path`, which has 108 bytes.
const LONGEST_ADMIN_PATH: usize = 100;

/// The facts.
#[derive(Clone, Debug)]
pub struct Host {
    /// The process is root's.
    pub root: bool,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_directory: Option<PathBuf>,
    /// Cores that this process may use.
    pub cores: u32,
    /// `net.ipv4.ip_local_port_range`: the ports that the kernel gives to outgoing connections.
    pub local_ports: Option<(u16, u16)>,
}

impl Host {
    /// This one.
    pub fn read() -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        Self {
            root: nix::unistd::geteuid().is_root(),
            runtime_directory: std::env::var_os("XDG_RUNTIME_DIR")
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from),
            cores: available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
            local_ports: range.as_deref().and_then(port_range),
        }
    }

    /// Where the admin socket of the instance called `name` is, unless `--admin` says otherwise.
    ///
    /// # Errors
    /// A name that is not allowed, a path that is too long, or no place to put the socket.
    pub fn admin_path(&self, name: &str, admin: Option<&Path>) -> Result<PathBuf, Stop> {
        check_name(name)?;
        let path = match (admin, self.root, &self.runtime_directory) {
            (Some(path), _, _) if path.file_name().is_none() => {
                return Err(Stop::Usage(format!(
                    "--admin {path:?} does not name a file; write --admin PATH"
                )));
            }
            (Some(path), _, _) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            (None, true, _) => Path::new("/run/balancer").join(format!("{name}.sock")),
            (None, false, Some(directory)) => directory.join("balancer").join(format!("{name}.sock")),
            (None, false, None) => {
                return Err(Stop::Usage(
                    "--admin is not given and XDG_RUNTIME_DIR is not set, so there is no place for the admin \
                     socket; write --admin PATH"
                        .into(),
                ));
            }
        };
        if path.as_os_str().len() > LONGEST_ADMIN_PATH {
            return Err(Stop::Usage(format!(
                "--admin {path:?} is too long for a socket; write at most {LONGEST_ADMIN_PATH} bytes"
            )));
        }
        Ok(path)
    }
}

/// `[a-z0-9_-]{1,32}`: it becomes a part of file names, and bpffs refuses dots.
fn check_name(name: &str) -> Result<(), Stop> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if (1..=32).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    Err(Stop::Usage(format!(
        "--name {name:?} is not a name for a service; write 1 to 32 of a-z, 0-9, _ and -"
    )))
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(port_range(""), None);
    }
}
