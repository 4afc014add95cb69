//! Flags and intents → the servers there are: the rules.
//!
//! - A weight of run time holds until the flags say another weight or another address.
//! - What a server is to be (ready, drain, maint) holds as long as the flags name it.
//! - A server that the flags no longer name is gone, and what was wanted of it with it.
//! - One that was added at run time stays until it is deleted, or until the flags name it: then they count.
//! - One that was deleted at run time stays deleted until the flags say another address.

use std::net::SocketAddr;

use super::{Flag, Intent, Intents, unasked};
use crate::config::{ServerConfig, servers};
use crate::persist::List;
use crate::server::Operator;

/// The servers that the service starts with.
#[derive(Debug, Default)]
pub struct Muster {
    /// In the order of the flags, what was added behind them.
    pub members: Vec<Member>,
    /// What holds of what was on record.
    pub intents: Intents,
    /// What the start-up log should say.
    pub notes: Vec<String>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// As the flags say, or whoever added it.
    pub settings: ServerConfig,
    /// What it is to be.
    pub wish: Operator,
    /// Its weight now.
    pub weight: u32,
}

/// Applies the rules. `listen`: where clients connect; `list`: what has to be able to name the servers.
pub fn muster(flags: &[ServerConfig], listen: &[SocketAddr], list: &List, mut recorded: Intents) -> Muster {
    let mut muster = Muster::default();
    for settings in flags {
        let intent = recorded.remove(&settings.name).unwrap_or_default();
        muster.enroll_flag(settings, intent, listen, list);
    }
    let mut added: Vec<_> = recorded
        .into_iter()
        .filter_map(|(name, intent)| Some((intent.added.clone()?, name, intent)))
        .collect();
    added.sort_by_key(|(added, ..)| added.at);
    for (added, name, intent) in added {
        let others: Vec<_> = muster.members.iter().map(|member| member.settings.clone()).collect();
        match servers::one(&added.text, &others, listen, list) {
            Ok(settings) if settings.name == name => muster.enroll(settings, intent),
            Ok(_) => muster
                .notes
                .push(format!("server {name}, added at run time, is forgotten: its record has another name")),
            Err(why) => muster.notes.push(format!("server {name}, added at run time, is forgotten: {why}")),
        }
    }
    muster
}

impl Muster {
    fn enroll_flag(
        &mut self,
        settings: &ServerConfig,
        mut intent: Intent,
        listen: &[SocketAddr],
        list: &List,
    ) {
        let name = &settings.name;
        let others: Vec<_> = self.members.iter().map(|member| member.settings.clone()).collect();
        let instead = intent.added.as_ref().filter(|added| added.flag == Some(Flag::of(settings)));
        let instead = instead.and_then(|added| servers::one(&added.text, &others, listen, list).ok());
        if let Some(added) = instead.filter(|added| added.name == *name) {
            self.notes.push(format!(
                "server {name} is at {} still, as it was put there at run time; another address or weight in the flags \
                 ends that",
                added.location()
            ));
            return self.enroll(added, intent);
        }
        if intent.added.take().is_some() {
            self.notes.push(format!("server {name}, added at run time, is as the flags say now"));
        }
        match intent.deleted.take() {
            Some(location) if location == settings.location() => {
                self.notes.push(format!(
                    "server {name} stays deleted, as it was at run time; another address in the flags brings it back, or \
                     `balancer add server`"
                ));
                self.intents.insert(name.clone(), Intent { deleted: Some(location), ..Intent::default() });
                return;
            }
            Some(location) => self.notes.push(format!(
                "server {name}, deleted at run time, is back: the flags say {} and not {location} any more",
                settings.location()
            )),
            None => {}
        }
        self.enroll(settings.clone(), intent);
    }

    fn enroll(&mut self, settings: ServerConfig, mut intent: Intent) {
        let name = &settings.name;
        if let Some(given) = intent.weight.take_if(|given| !given.is_instead_of(&settings)) {
            self.notes.push(format!(
                "server {name} has weight {} as the flags say, which have changed since {} was set at run time",
                settings.weight, given.weight
            ));
        }
        let weight = intent.weight.as_ref().map_or(settings.weight, |given| given.weight);
        let wish = intent.wish.unwrap_or(unasked(&settings));
        if intent != Intent::default() {
            self.intents.insert(name.clone(), intent);
        }
        self.members.push(Member { settings, wish, weight });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::{Added, Weight};

    fn flags(texts: &[&str]) -> Vec<ServerConfig> {
        texts.iter().map(|text| servers::one(text, &[], &[], &List::default()).expect(text)).collect()
    }

    fn wish(wish: Operator) -> Intent {
        Intent { wish: Some(wish), ..Intent::default() }
    }

    fn weight(weight: u32, location: &str, initial: u32) -> Intent {
        let weight = Some(Weight { weight, location: location.into(), initial });
        Intent { weight, ..Intent::default() }
    }

    fn deleted(location: &str) -> Intent {
        Intent { deleted: Some(location.into()), ..Intent::default() }
    }

    fn added(text: &str, at: u64) -> Intent {
        Intent { added: Some(Added { text: text.into(), at, flag: None }), ..Intent::default() }
    }

    /// Flags, what is on record, the servers that come of it as `name wish weight`, the names that stay on record, and a
    /// word of what is said.
    type Row<'a> = (&'a [&'a str], Vec<(&'a str, Intent)>, &'a [&'a str], &'a [&'a str], &'a str);

    const S1: &str = "s1=10.0.0.1:80,weight=5";
    const S1_MOVED: &str = "s1=10.0.0.9:80,weight=5";
    const S2: &str = "s2=10.0.0.2:80";

    #[test]
    fn who_was_put_in_a_flags_place_stays_until_the_flag_changes() {
        let put = |flag: &str| {
            let flag = Some(Flag::of(&flags(&[flag])[0]));
            let added = Added { text: "s1=10.0.0.4:80,weight=2".into(), at: 1, flag };
            Intents::from([("s1".to_owned(), Intent { added: Some(added), ..Intent::default() })])
        };
        let found = |now: &str, before: &str| {
            let mustered = muster(&flags(&[now]), &[], &List::default(), put(before));
            (mustered.members[0].settings.address.to_string(), mustered.members[0].weight)
        };
        assert_eq!(found(S1, S1), ("10.0.0.4:80".into(), 2));
        assert_eq!(found(S1_MOVED, S1), ("10.0.0.9:80".into(), 5));
        assert_eq!(found("s1=10.0.0.1:80,weight=6", S1), ("10.0.0.1:80".into(), 6));
    }

    #[test]
    fn rules() {
        use Operator::{Drain, Maint, Ready};
        let table: Vec<Row<'_>> = vec![
            (&[S1, S2], vec![], &["s1 ready 5", "s2 ready 1"], &[], ""),
            (&[S1, S2], vec![("s2", wish(Drain))], &["s1 ready 5", "s2 drain 1"], &["s2"], ""),
            (&[S1_MOVED], vec![("s1", wish(Maint))], &["s1 maint 5"], &["s1"], ""),
            (&[S2], vec![("s1", wish(Maint))], &["s2 ready 1"], &[], ""),
            // `disabled` is a wish of the flags, until there is another.
            (&["s1=10.0.0.1:80,disabled"], vec![], &["s1 maint 1"], &[], ""),
            (&["s1=10.0.0.1:80,disabled"], vec![("s1", wish(Ready))], &["s1 ready 1"], &["s1"], ""),
            // Weights.
            (&[S1], vec![("s1", weight(9, "10.0.0.1:80", 5))], &["s1 ready 9"], &["s1"], ""),
            (
                &[S1],
                vec![("s1", weight(9, "10.0.0.1:80", 4))],
                &["s1 ready 5"],
                &[],
                "weight 5 as the flags say",
            ),
            (
                &[S1_MOVED],
                vec![("s1", weight(9, "10.0.0.1:80", 5))],
                &["s1 ready 5"],
                &[],
                "weight 5 as the flags",
            ),
            (&["s1=app:80"], vec![("s1", weight(9, "app:80", 1))], &["s1 ready 9"], &["s1"], ""),
            // Deleted ones.
            (&[S1, S2], vec![("s1", deleted("10.0.0.1:80"))], &["s2 ready 1"], &["s1"], "s1 stays deleted"),
            (
                &[S1_MOVED],
                vec![("s1", deleted("10.0.0.1:80"))],
                &["s1 ready 5"],
                &[],
                "s1, deleted at run time, is back",
            ),
            (&[S2], vec![("s1", deleted("10.0.0.1:80"))], &["s2 ready 1"], &[], ""),
            // Added ones, in the order in which they were.
            (
                &[S2],
                vec![("a", added("a=10.1.0.1:80", 7)), ("b", added("b=10.1.0.2:80,weight=3,disabled", 6))],
                &["s2 ready 1", "b maint 3", "a ready 1"],
                &["a", "b"],
                "",
            ),
            (
                &[S2],
                vec![("a", Intent { wish: Some(Drain), ..added("a=10.1.0.1:80", 7) })],
                &["s2 ready 1", "a drain 1"],
                &["a"],
                "",
            ),
            (
                &[S2],
                vec![("s2", added("s2=10.1.0.1:80", 1))],
                &["s2 ready 1"],
                &[],
                "s2, added at run time, is as the flags",
            ),
            (
                &[S2],
                vec![("a", added("a=10.1.0.1:80,id=s2", 1))],
                &["s2 ready 1"],
                &[],
                "a, added at run time, is forgotten: server",
            ),
            (
                &[S2],
                vec![("a", added("a=192.0.2.1:80", 1))],
                &["s2 ready 1"],
                &[],
                "has the address of --listen",
            ),
            (&[S2], vec![("a", added("nonsense", 1))], &["s2 ready 1"], &[], "has no name"),
            (&[S2], vec![("a", added("b=10.1.0.1:80", 1))], &["s2 ready 1"], &[], "another name"),
        ];
        let listen = ["192.0.2.1:80".parse().expect("address")];
        for (texts, recorded, expected, kept, said) in table {
            let recorded: Intents =
                recorded.into_iter().map(|(name, intent)| (name.to_owned(), intent)).collect();
            let shown = format!("{texts:?} {recorded:?}");
            let found = muster(&flags(texts), &listen, &List::default(), recorded);
            let member = |member: &Member| {
                format!("{} {} {}", member.settings.name, member.wish.as_str(), member.weight)
            };
            assert_eq!(found.members.iter().map(member).collect::<Vec<_>>(), expected, "{shown}");
            assert_eq!(found.intents.keys().collect::<Vec<_>>(), kept, "{shown}");
            assert_eq!(found.notes.len(), usize::from(!said.is_empty()), "{shown}: {:?}", found.notes);
            assert!(found.notes.iter().all(|note| note.contains(said)), "{shown}: {:?}", found.notes);
        }
    }
}
