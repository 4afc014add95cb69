//! The successor that this process has started itself (USR2), until it has taken over or has ended. Two look after it: whoever
//! watches the process, and whoever talks to it. If it fails both notice, and the former says so once, for both.

use std::cell::{Cell, RefCell};
use std::process::ExitStatus;

use nix::unistd::Pid;
use tokio::sync::Notify;

/// What is known of it.
#[derive(Debug, Default)]
pub struct Attempt {
    pid: Cell<Option<Pid>>,
    is_talking: Cell<bool>,
    /// Why it will not take over, unless it has just ended.
    why: RefCell<Option<String>>,
    talk_is_over: Notify,
}

impl Attempt {
    /// A process was started.
    pub fn begin(&self, pid: Pid) {
        self.pid.set(Some(pid));
        self.why.take();
    }

    /// It is not ours to look after any more. Returns it, if there was one.
    pub fn end(&self) -> Option<Pid> {
        self.pid.take()
    }

    /// Whether one is under way.
    pub fn is_going(&self) -> bool {
        self.pid.get().is_some()
    }

    /// Its failure is certain.
    pub fn is_lost(&self, why: impl Into<String>) {
        self.why.borrow_mut().get_or_insert(why.into());
    }

    /// The conversation with `pid` begins. False: that is somebody else.
    pub(super) fn talks(&self, pid: i32) -> bool {
        let is_it = self.pid.get() == Some(Pid::from_raw(pid));
        self.is_talking.set(is_it);
        is_it
    }

    /// The conversation with it is over.
    pub(super) fn has_talked(&self) {
        self.is_talking.set(false);
        self.talk_is_over.notify_one();
    }

    /// Until nobody talks to it. With a process that has ended nobody does for long.
    pub async fn silence(&self) {
        while self.is_talking.get() {
            self.talk_is_over.notified().await;
        }
    }

    /// Why nobody has taken over, of a process that has ended so.
    pub fn account(&self, status: ExitStatus) -> String {
        let ended = format!("it has ended ({status})");
        let reason = match self.why.take() {
            Some(why) => format!("{why}, and {ended}"),
            None => ended,
        };
        // Whoever gives up says why on the stderr that is also ours; whoever is killed, or told to stop, does not.
        let own =
            if status.code().is_some_and(|code| code != 0) { "; its own last line says why" } else { "" };
        reason + own
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_failure_is_told_with_what_both_have_noticed() {
        let attempt = Attempt::default();
        attempt.begin(Pid::from_raw(7));
        let (given_up, killed) = (ExitStatus::from_raw(1 << 8), ExitStatus::from_raw(9));
        assert_eq!(attempt.account(ExitStatus::from_raw(0)), "it has ended (exit status: 0)");
        assert_eq!(attempt.account(given_up), "it has ended (exit status: 1); its own last line says why");
        assert_eq!(attempt.account(killed), "it has ended (signal: 9 (SIGKILL))");
        attempt.is_lost("it was not ready within 30s");
        attempt.is_lost("it has not answered");
        let told = attempt.account(killed);
        assert_eq!(
            told, "it was not ready within 30s, and it has ended (signal: 9 (SIGKILL))",
            "the first counts"
        );
        attempt.is_lost("of an earlier one");
        attempt.begin(Pid::from_raw(8));
        assert_eq!(attempt.account(killed), "it has ended (signal: 9 (SIGKILL))");
    }

    #[test]
    fn only_the_process_that_was_started_is_looked_after() {
        let attempt = Attempt::default();
        assert!(!attempt.talks(7) && !attempt.is_going());
        attempt.begin(Pid::from_raw(7));
        assert!(!attempt.talks(8) && attempt.talks(7) && attempt.is_going());
        assert_eq!((attempt.end(), attempt.end()), (Some(Pid::from_raw(7)), None));
        assert!(!attempt.talks(7));
    }

    #[tokio::test]
    async fn what_is_said_waits_for_the_conversation() {
        let attempt = Attempt::default();
        attempt.silence().await;
        attempt.begin(Pid::from_raw(7));
        // Once before, whose end is not taken for that of the second.
        for _ in 0..2 {
            assert!(attempt.talks(7));
            let order = RefCell::new(Vec::new());
            let wait = async {
                attempt.silence().await;
                order.borrow_mut().push("told");
            };
            let talk = async {
                tokio::task::yield_now().await;
                order.borrow_mut().push("over");
                attempt.has_talked();
            };
            tokio::join!(wait, talk);
            assert_eq!(*order.borrow(), ["over", "told"]);
            attempt.has_talked();
        }
    }
}
