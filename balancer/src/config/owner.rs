//! `--user` and `--group`: whom the process becomes.

use nix::unistd::{Gid, Group, Uid, User};

use super::Host;
use super::options::Value;
use crate::cli::Stop;

/// Whom the process becomes once everything is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The user's name, for messages and for the groups that the user is in.
    pub name: String,
    /// The user.
    pub uid: u32,
    /// The group: `--group`, or the user's own.
    pub gid: u32,
}

/// The names looked up. `None` where there is nothing to change: no `--user`, or that of a user who runs us already.
///
/// # Errors
/// A name that this host does not know; root, which would change nothing; and a process that may not change.
pub(super) fn owner(user: Option<&str>, group: Option<&str>, host: &Host) -> Result<Option<Owner>, Stop> {
    let Some(name) = user else {
        return match group {
            Some(text) => {
                Err(Value { flag: "--group", text }
                    .wrong("has no effect by itself; write --user NAME as well"))
            }
            None => Ok(None),
        };
    };
    let value = Value { flag: "--user", text: name };
    let Some(user) = User::from_name(name).ok().flatten() else {
        return Err(value.wrong("is not a user of this host; getent passwd lists them"));
    };
    if user.uid.is_root() {
        return Err(value.wrong(
            "has the very privileges that --user is there to give up; write another user, or leave it out",
        ));
    }
    let gid = match group {
        Some(text) => match Group::from_name(text).ok().flatten() {
            Some(group) => group.gid,
            None => {
                let value = Value { flag: "--group", text };
                return Err(value.wrong("is not a group of this host; getent group lists them"));
            }
        },
        None => user.gid,
    };
    if host.root {
        return Ok(Some(Owner { name: name.to_owned(), uid: user.uid.as_raw(), gid: gid.as_raw() }));
    }
    if (Uid::effective(), Gid::effective()) == (user.uid, gid) {
        return Ok(None);
    }
    Err(Stop::Failed(format!(
        "--user {name:?} needs root to change to; start balancer as root, or leave it out"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(root: bool) -> Host {
        Host { root, ..Host::read() }
    }

    fn refused(user: Option<&str>, group: Option<&str>) -> String {
        match owner(user, group, &host(true)) {
            Err(Stop::Usage(message)) => message,
            other => panic!("{user:?} {group:?}: {other:?}"),
        }
    }

    #[test]
    fn unknown_names_and_those_without_effect_are_refused() {
        assert!(refused(Some("nobody-at-all"), None).starts_with("--user \"nobody-at-all\" is not a user"));
        assert!(refused(Some("nobody"), Some("no-such")).starts_with("--group \"no-such\" is not a group"));
        assert!(refused(Some("root"), None).starts_with("--user \"root\""));
        assert!(refused(None, Some("root")).starts_with("--group \"root\" has no effect"));
    }

    #[test]
    fn who_is_not_root_may_not_change() {
        // Unless the tests are that user's.
        match owner(Some("daemon"), None, &host(false)) {
            Err(Stop::Failed(message)) => assert!(message.contains("needs root"), "{message}"),
            other => assert_eq!(
                Uid::effective(),
                User::from_name("daemon").expect("read").expect("there").uid,
                "{other:?}"
            ),
        }
    }

    #[test]
    fn root_becomes_the_user_in_the_users_group() {
        let found = owner(Some("nobody"), None, &host(true)).expect("there").expect("a change");
        let nobody = User::from_name("nobody").expect("readable").expect("there");
        assert_eq!((found.uid, found.gid), (nobody.uid.as_raw(), nobody.gid.as_raw()));
        assert_eq!(owner(None, None, &host(true)).expect("nothing asked"), None);
    }
}
