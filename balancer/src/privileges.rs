//! Giving up root for good, and being sure of it.

use std::ffi::CString;
use std::fs;

use anyhow::{Context as _, bail};
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, getresgid, getresuid, initgroups, setresgid, setresuid, setuid};

use crate::config::Owner;

/// Becomes `owner`. To be called before any thread is started: some of what is given up here is each thread's own.
///
/// # Errors
/// Something is left of what was to be given up. The process must not go on.
pub fn drop_to(owner: &Owner) -> anyhow::Result<()> {
    become_user(owner).with_context(|| format!("--user {:?}: cannot become that user", owner.name))?;
    verify(owner).with_context(|| format!("--user {:?}: root is not given up", owner.name))
}

fn become_user(owner: &Owner) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    // Groups first: afterwards there is no right to change them. The kernel takes the capabilities with the user.
    initgroups(&CString::new(owner.name.as_str())?, gid)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    set_no_new_privs()?;
    Ok(())
}

fn verify(owner: &Owner) -> anyhow::Result<()> {
    let (users, groups) = (getresuid()?, getresgid()?);
    if [users.real, users.effective, users.saved].iter().any(|uid| uid.as_raw() != owner.uid) {
        bail!("the process is still user {} or can be again", users.effective);
    }
    if [groups.real, groups.effective, groups.saved].iter().any(|gid| gid.as_raw() != owner.gid) {
        bail!("the process is still in group {} or can be again", groups.effective);
    }
    if setuid(Uid::from_raw(0)).is_ok() {
        bail!("the process could become root again");
    }
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    leftovers(&status)
}

/// Capabilities that the kernel says are left.
fn leftovers(status: &str) -> anyhow::Result<()> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).with_context(|| format!("/proc/self/status has no {name}"))
    };
    for set in ["CapPrm", "CapEff", "CapAmb"] {
        let left = field(set)?;
        if left.chars().any(|digit| digit != '0') {
            bail!("capabilities are left: {set} is {left}");
        }
    }
    if field("NoNewPrivs")? != "1" {
        bail!("programs that it starts could get privileges");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(status: &str) -> String {
        leftovers(status).expect_err("something is left").to_string()
    }

    #[test]
    fn what_is_left_is_noticed() {
        let clean = "Uid:\t1\t1\nCapPrm:\t0000\nCapEff:\t0000\nCapAmb:\t0000\nNoNewPrivs:\t1\n";
        leftovers(clean).expect("nothing is left");
        let with = clean.replace("CapPrm:\t0000", "CapPrm:\t0400");
        assert_eq!(complaint(&with), "capabilities are left: CapPrm is 0400");
        assert!(complaint(&clean.replace("Privs:\t1", "Privs:\t0")).contains("could get privileges"));
        assert!(complaint("").contains("has no CapPrm"));
    }
}
