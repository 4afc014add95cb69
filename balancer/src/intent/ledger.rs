//! The intents of a running service, and where they are written down. Control thread only.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail, ensure};

use super::muster::Member;
use super::{Added, Flag, Intent, Intents, Weight, record};
use crate::clock;
use crate::config::ServerConfig;
use crate::server::{Identity, Operator};

/// What outlives a change of a server's address, and where it can be, the process.
pub trait Records {
    /// The identity of a server at that address: a name keeps its id, another address is another generation. `there_are`:
    /// the names of servers there are, whose ids are not to be given to others.
    ///
    /// # Errors
    /// No id is left, or it cannot be written.
    fn enter(&self, settings: &ServerConfig, there_are: &[String]) -> anyhow::Result<Identity>;

    /// Writes down what is wanted of a server; `None`: nothing any more.
    ///
    /// # Errors
    /// It cannot be written.
    fn write(&self, server: &str, intent: Option<&Intent>) -> anyhow::Result<()>;
}

/// What is wanted of the servers there are, and of those that were deleted.
pub struct Ledger {
    records: Box<dyn Records>,
    /// What was on record when the service started.
    recorded: Intents,
    /// Shared with whoever keeps them over a reboot.
    intents: Arc<Mutex<Intents>>,
    /// Of the servers there are.
    settings: RefCell<BTreeMap<String, ServerConfig>>,
    is_frozen: Cell<bool>,
}

impl Ledger {
    /// With the servers that the service starts with. Nothing is written before [`Self::settle`].
    pub fn new(records: Box<dyn Records>, recorded: Intents, intents: Intents, members: &[Member]) -> Self {
        let settings = members.iter().map(|member| (member.settings.name.clone(), member.settings.clone()));
        Self {
            records,
            recorded,
            intents: Arc::new(Mutex::new(intents)),
            settings: RefCell::new(settings.collect()),
            is_frozen: Cell::default(),
        }
    }

    /// The start has succeeded: what does not hold any more is off the record, what a predecessor has told is on it.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn settle(&self) -> anyhow::Result<()> {
        let intents = self.held();
        let known =
            self.recorded.keys().chain(intents.keys().filter(|name| !self.recorded.contains_key(*name)));
        for name in known.filter(|name| self.recorded.get(*name) != intents.get(*name)) {
            self.records.write(name, intents.get(name))?;
        }
        Ok(())
    }

    /// A successor is told which servers there are; until it has taken over or has failed to there are no others.
    pub fn freeze(&self, is_frozen: bool) {
        self.is_frozen.set(is_frozen);
    }

    /// No server may come or go now.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen.get()
    }

    /// All of them, for a successor.
    pub fn intents(&self) -> Intents {
        self.held().clone()
    }

    /// What says at any time, from any thread, what they are as lines of the state file.
    pub fn lines(&self) -> impl Fn() -> Vec<String> + Send + use<> {
        let intents = Arc::clone(&self.intents);
        move || {
            let intents = intents.lock().unwrap_or_else(PoisonError::into_inner);
            intents.iter().map(|(server, intent)| record::line(server, intent)).collect()
        }
    }

    fn held(&self) -> MutexGuard<'_, Intents> {
        self.intents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings of the server of that name, if there is one.
    pub fn settings(&self, server: &str) -> Option<ServerConfig> {
        self.settings.borrow().get(server).cloned()
    }

    /// Settings of all servers there are.
    pub fn all_settings(&self) -> Vec<ServerConfig> {
        self.settings.borrow().values().cloned().collect()
    }

    /// What a server is to be.
    ///
    /// # Errors
    /// It cannot be written down; it holds until the process ends.
    pub fn wish(&self, server: &str, wish: Operator) -> anyhow::Result<()> {
        self.change(server, |intent| intent.wish = Some(wish))
    }

    /// Its weight.
    ///
    /// # Errors
    /// As for [`Self::wish`].
    pub fn weigh(&self, server: &str, weight: u32) -> anyhow::Result<()> {
        let Some(settings) = self.settings(server) else { return Ok(()) };
        let given = Weight { weight, location: settings.location(), initial: settings.weight };
        self.change(server, |intent| intent.weight = (weight != settings.weight).then_some(given))
    }

    /// An identity for a server that is new, or at another address than before.
    ///
    /// # Errors
    /// No id is left, or a successor is about to take over.
    pub fn enter(&self, settings: &ServerConfig) -> anyhow::Result<Identity> {
        self.check_that_it_is_ours()?;
        let there_are: Vec<_> = self.settings.borrow().keys().cloned().collect();
        self.records.enter(settings, &there_are)
    }

    /// There is a server more; `text` is what `--server` would say. `flag`: what the flags say of one of that name, which
    /// was deleted before. `is_flag`: they say the same.
    ///
    /// # Errors
    /// As for [`Self::wish`].
    pub fn added(
        &self,
        settings: ServerConfig,
        text: &str,
        flag: Option<Flag>,
        is_flag: bool,
    ) -> anyhow::Result<()> {
        let name = settings.name.clone();
        self.settings.borrow_mut().insert(name.clone(), settings);
        let added = (!is_flag).then(|| Added { text: text.to_owned(), at: clock::unix_millis(), flag });
        self.change(&name, |intent| *intent = Intent { added, ..Intent::default() })
    }

    /// The flags say that there is a server more: nothing is wanted beyond that.
    ///
    /// # Errors
    /// As for [`Self::wish`].
    pub fn configured(&self, settings: ServerConfig) -> anyhow::Result<()> {
        let name = settings.name.clone();
        self.settings.borrow_mut().insert(name.clone(), settings);
        self.change(&name, |intent| *intent = Intent::default())
    }

    /// The flags give a server another weight, which counts for more than one that was given at run time.
    ///
    /// # Errors
    /// As for [`Self::wish`].
    pub fn configured_weight(&self, server: &str, weight: u32) -> anyhow::Result<()> {
        if let Some(settings) = self.settings.borrow_mut().get_mut(server) {
            settings.weight = weight;
        }
        self.change(server, |intent| intent.weight = None)
    }

    /// There is a server less. `flag`: where the flags say that it is.
    ///
    /// # Errors
    /// As for [`Self::wish`].
    pub fn deleted(&self, server: &str, flag: Option<String>) -> anyhow::Result<()> {
        self.settings.borrow_mut().remove(server);
        self.change(server, |intent| *intent = Intent { deleted: flag, ..Intent::default() })
    }

    /// Whether servers may come and go now.
    ///
    /// # Errors
    /// A successor is about to take over.
    pub fn check_that_it_is_ours(&self) -> anyhow::Result<()> {
        ensure!(!self.is_frozen.get(), "another process is taking over just now; try again in a moment");
        Ok(())
    }

    fn change(&self, server: &str, change: impl FnOnce(&mut Intent)) -> anyhow::Result<()> {
        let mut intents = self.held();
        let mut intent = intents.remove(server).unwrap_or_default();
        change(&mut intent);
        if intent != Intent::default() {
            intents.insert(server.to_owned(), intent);
        }
        let written = self.records.write(server, intents.get(server));
        written.context("is not on record, so the next start does not know it")
    }
}

/// Identities where there are no maps: they end with the process, or are passed on by a hot restart.
#[derive(Debug, Default)]
pub struct InMemory {
    known: RefCell<HashMap<String, (Identity, SocketAddr)>>,
    last: Cell<u16>,
}

impl InMemory {
    /// No server is known.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Records for InMemory {
    fn enter(&self, settings: &ServerConfig, _there_are: &[String]) -> anyhow::Result<Identity> {
        let mut known = self.known.borrow_mut();
        let identity = match known.get(&settings.name) {
            Some((identity, address)) if *address == settings.address => *identity,
            // Zero means new, so the count skips it when it wraps.
            Some((identity, _)) => {
                Identity { generation: identity.generation.checked_add(1).unwrap_or(1), ..*identity }
            }
            None => {
                let Some(id) = self.last.get().checked_add(1) else {
                    bail!("all ids of servers are used up; restart the balancer")
                };
                self.last.set(id);
                Identity { id, generation: 1 }
            }
        };
        known.insert(settings.name.clone(), (identity, settings.address));
        Ok(identity)
    }

    fn write(&self, _server: &str, _intent: Option<&Intent>) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::config::servers;
    use crate::intent::unasked;

    fn settings(text: &str) -> ServerConfig {
        servers::one(text, &[], &[], &crate::persist::List::default()).expect(text)
    }

    /// Writes nothing down when it is told to fail.
    #[derive(Default)]
    struct Book {
        written: Rc<RefCell<Intents>>,
        fails: Rc<Cell<bool>>,
    }

    impl Records for Book {
        fn enter(&self, _settings: &ServerConfig, _there_are: &[String]) -> anyhow::Result<Identity> {
            Ok(Identity { id: 1, generation: 1 })
        }

        fn write(&self, server: &str, intent: Option<&Intent>) -> anyhow::Result<()> {
            ensure!(!self.fails.get(), "no ink");
            match intent {
                Some(intent) => self.written.borrow_mut().insert(server.to_owned(), intent.clone()),
                None => self.written.borrow_mut().remove(server),
            };
            Ok(())
        }
    }

    fn member(text: &str) -> Member {
        let settings = settings(text);
        Member { wish: unasked(&settings), weight: settings.weight, settings }
    }

    #[test]
    fn what_was_said_is_on_record() {
        let (written, fails) = (Rc::default(), Rc::default());
        let book = Book { written: Rc::clone(&written), fails: Rc::clone(&fails) };
        let members = [member("s1=10.0.0.1:80,weight=5"), member("s2=10.0.0.2:80,disabled")];
        let ledger = Ledger::new(Box::new(book), Intents::new(), Intents::new(), &members);
        let written = |server: &str| written.borrow().get(server).cloned();
        ledger.wish("s1", Operator::Drain).expect("written");
        ledger.weigh("s1", 7).expect("written");
        let weight = Some(Weight { weight: 7, location: "10.0.0.1:80".into(), initial: 5 });
        assert_eq!(written("s1"), Some(Intent { wish: Some(Operator::Drain), weight, ..Intent::default() }));
        ledger.wish("s1", Operator::Ready).expect("written");
        ledger.weigh("s1", 5).expect("written");
        let ready = Intent { wish: Some(Operator::Ready), ..Intent::default() };
        assert_eq!(written("s1"), Some(ready), "whatever the flags come to say, and no weight");
        ledger.wish("s2", Operator::Ready).expect("written");
        assert_eq!(written("s2").and_then(|intent| intent.wish), Some(Operator::Ready));
        ledger.wish("s2", Operator::Maint).expect("written");
        assert_eq!(written("s2").and_then(|intent| intent.wish), Some(Operator::Maint));

        ledger.deleted("s1", Some("10.0.0.1:80".into())).expect("written");
        assert_eq!(written("s1").and_then(|intent| intent.deleted).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(ledger.settings("s1"), None);
        let text = "s1=10.0.0.9:80";
        ledger.added(settings(text), text, None, false).expect("written");
        assert_eq!(
            written("s1").and_then(|intent| intent.added).map(|added| added.text).as_deref(),
            Some(text)
        );
        ledger.deleted("s1", None).expect("written");
        assert_eq!(written("s1"), None);

        fails.set(true);
        let error = format!("{:#}", ledger.wish("s2", Operator::Drain).expect_err("no ink"));
        assert!(error.contains("not on record") && error.ends_with("no ink"), "{error}");
    }

    #[test]
    fn what_does_not_hold_any_more_is_taken_off_the_record_once_the_start_has_succeeded() {
        let wish = |wish| Intent { wish: Some(wish), ..Intent::default() };
        let recorded =
            Intents::from([("s1".into(), wish(Operator::Drain)), ("gone".into(), wish(Operator::Maint))]);
        let written = Rc::new(RefCell::new(recorded.clone()));
        let book = Book { written: Rc::clone(&written), ..Book::default() };
        let holds =
            Intents::from([("s1".into(), wish(Operator::Drain)), ("s2".into(), wish(Operator::Maint))]);
        let ledger = Ledger::new(Box::new(book), recorded.clone(), holds.clone(), &[]);
        assert_eq!(*written.borrow(), recorded);
        ledger.settle().expect("written");
        assert_eq!(*written.borrow(), holds);
    }

    #[test]
    fn ids_in_memory_belong_to_names_and_generations_to_addresses() {
        let records = InMemory::new();
        let enter = |text: &str| {
            let Identity { id, generation } = records.enter(&settings(text), &[]).expect("an id");
            (id, generation)
        };
        assert_eq!((enter("s1=10.0.0.1:80"), enter("s2=10.0.0.2:80")), ((1, 1), (2, 1)));
        assert_eq!((enter("s1=10.0.0.1:80"), enter("s1=10.0.0.3:80")), ((1, 1), (1, 2)));
        records.last.set(u16::MAX);
        assert_eq!(enter("s2=10.0.0.2:80"), (2, 1));
        assert!(records.enter(&settings("s3=10.0.0.3:80"), &[]).is_err());
    }

    #[test]
    fn while_somebody_takes_over_no_server_comes_or_goes() {
        let ledger = Ledger::new(Box::<InMemory>::default(), Intents::new(), Intents::new(), &[]);
        ledger.freeze(true);
        let refused = ledger.enter(&settings("s1=10.0.0.1:80")).expect_err("frozen").to_string();
        assert!(refused.contains("another process is taking over"), "{refused}");
        ledger.freeze(false);
        assert!(ledger.enter(&settings("s1=10.0.0.1:80")).is_ok());
    }
}
