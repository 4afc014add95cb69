//! The process that has the name: whether it lives, and whether somebody else holds its locks.

use std::fs;
use std::path::{Path, PathBuf};

use super::bpf;
use super::locks::{self, Held};
use super::row::Row;
use crate::config::Subject;
use crate::occupant::name_of;

/// The process that runs under that name, and the row about it.
pub(super) fn examine(subject: &Subject) -> (Option<u32>, Vec<Row>) {
    let Some(admin) = &subject.admin else { return (None, Vec::new()) };
    let lock = admin.with_file_name(format!("{}.lock", subject.name));
    let holder = fs::read_to_string(&lock).ok().and_then(|text| pid(&text)).filter(|pid| is_alive(*pid));
    let files: Vec<(PathBuf, Held)> = std::iter::once(lock)
        .chain(bpf::role(&subject.name))
        .filter_map(|path| locks::on(&path).map(|held| (path, held)))
        .collect();
    let running = holder.filter(|_| !files.is_empty());
    let row = judge(&subject.name, running, &files, name_of);
    (running, vec![row])
}

fn judge(
    name: &str,
    running: Option<u32>,
    files: &[(PathBuf, Held)],
    name_of: impl Fn(u32) -> String,
) -> Row {
    let check = "instance";
    if files.is_empty() {
        return Row::ok(check, format!("none named {name} is running"));
    }
    for (path, Held { by }) in files {
        if by.is_empty() && running.is_none() {
            return Row::warning(check, format!("{} is locked, by nobody who can be looked at", show(path)))
                .mend("run balancer doctor as root");
        }
        // While one process takes over from another both have the lock.
        if !by.is_empty() && !running.is_some_and(|pid| by.contains(&pid)) {
            let who = |pid: &u32| format!("{} (pid {pid})", name_of(*pid));
            let holders: Vec<_> = by.iter().map(who).collect();
            let pids: Vec<_> = by.iter().map(u32::to_string).collect();
            if by.iter().any(|pid| name_of(*pid) == "balancer") {
                let detail = format!(
                    "{} has its lock {} and does not answer at this admin socket; it may have another one",
                    holders.join(", "),
                    show(path)
                );
                return Row::warning(check, detail).mend(format!(
                    "balancer doctor --name {name} --admin PATH, with the path that this shows: ss -xlp | grep pid={}",
                    pids[0]
                ));
            }
            let detail = format!(
                "the process has ended, but {} still holds its lock {}, so none named {name} can start",
                holders.join(", "),
                show(path)
            );
            return Row::missing(check, detail).mend(format!("kill {}", pids.join(" ")));
        }
    }
    match running {
        Some(pid) => Row::ok(check, format!("{name} is running, pid {pid}")),
        None => Row::ok(check, format!("{name} is running")),
    }
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// `pid 708, admin socket …`
fn pid(text: &str) -> Option<u32> {
    text.strip_prefix("pid ")?.split(',').next()?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    fn held(by: &[u32]) -> Vec<(PathBuf, Held)> {
        vec![(PathBuf::from("/run/web.lock"), Held { by: by.to_vec() })]
    }

    #[test]
    fn a_lock_is_the_running_process_s_or_somebody_else_s() {
        let judge = |running, files: &[_]| judge("web", running, files, |_| "sleep".to_owned());
        assert_eq!(judge(None, &[]).detail, "none named web is running");
        assert_eq!(judge(Some(7), &held(&[7])).detail, "web is running, pid 7");
        assert_eq!(judge(Some(7), &held(&[6, 7])).state, State::Ok, "a predecessor that drains");
        assert_eq!(judge(Some(7), &held(&[])).state, State::Ok, "nobody else's descriptors can be seen");
        let stolen = judge(None, &held(&[8, 9]));
        assert_eq!((stolen.state, stolen.mend.as_deref()), (State::Missing, Some("kill 8 9")));
        assert!(stolen.detail.contains("sleep (pid 8)"), "{stolen:?}");
        assert_eq!(judge(None, &held(&[])).state, State::Warning);
    }

    #[test]
    fn the_holder_has_written_its_number() {
        assert_eq!(pid("pid 708, admin socket /run/x.sock\n"), Some(708));
        assert_eq!(pid(""), None);
    }
}
