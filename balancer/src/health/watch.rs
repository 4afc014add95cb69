//! The task that watches over one server: sockets and clocks around a [`Monitor`].

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use super::monitor::{Change, FastCounts, Monitor, Start};
use super::news;
use super::probe::{self, Finding, Look};
use crate::config::{CheckConfig, HealthConfig, OnMarkedDown};
use crate::log;
use crate::server::{Health, Server, Servers};
use crate::service::Shared;

/// Between two looks at what the fast path has counted: a fraction of what a user notices, and nothing beside the checks.
const FAST_LOOK: Duration = Duration::from_millis(250);

/// Watches over one server for as long as it is there.
pub(super) struct Watch {
    service: Shared,
    place: usize,
    monitor: RefCell<Monitor>,
    has_complained: Cell<bool>,
}

impl Watch {
    /// `is_new`: the server was added while the service runs.
    pub(super) fn new(service: Shared, place: usize, is_new: bool) -> Self {
        let server = &service.servers[place];
        let start = Start {
            health: server.health(),
            is_on_record: server.has_health_on_record(),
            operator: server.operator(),
            is_new,
        };
        let monitor = RefCell::new(Monitor::new(&service.config.health.look(), start));
        let watch = Self { service, place, monitor, has_complained: Cell::new(false) };
        // Before anybody can be balanced to one that is to begin with a small share.
        watch.heed();
        watch
    }

    pub(super) async fn run(self) {
        tokio::join!(self.check(), self.follow(), self.look_at_the_fast_path());
    }

    /// Checks, the first time at once, and whenever it is to be done in another way.
    async fn check(&self) {
        let (random, health, checks) =
            (RandomState::new(), &self.service.config.health, &self.server().checks);
        for round in 0_u64.. {
            let (replaced, switched) = (health.replaced(), checks.switched());
            let config = health.now();
            let pause = async {
                match &config.check {
                    Some(check) if checks.are_on() => {
                        self.check_once(check).await;
                        let pause = self.monitor.borrow().until_next_check(random.hash_one(round));
                        sleep(pause).await;
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = replaced => {}
                () = switched => {}
                () = pause => {}
            }
        }
    }

    async fn check_once(&self, config: &CheckConfig) {
        let server = self.server();
        let header = self.service.config.identity.send_proxy;
        let look = probe::check(server.address, &config.probe, header, config.timeout).await;
        let Look { finding, checked } = look;
        if let Finding::NotChecked(why) = &finding
            && !self.has_complained.replace(true)
        {
            log::warn(format_args!(
                "server {} cannot be checked: {why}, which is not its doing; it stays {}",
                server.name,
                server.state().as_str()
            ));
        }
        // What the operator has said meanwhile comes first.
        self.heed();
        let was_up = self.monitor.borrow().is_up();
        let change = self.monitor.borrow_mut().checked(Instant::now(), &finding);
        if !matches!(finding, Finding::NotChecked(_)) {
            let has_failed = was_up && matches!(finding, Finding::Ill(_));
            server.checks.note(checked, self.monitor.borrow().haproxy_health(), has_failed);
        }
        self.publish(change);
    }

    /// Follows what is said elsewhere, by the operator, by real traffic or by flags that are read again, and the steps of
    /// a slow start.
    async fn follow(&self) {
        let health = &self.service.config.health;
        loop {
            let replaced = health.replaced();
            let next = self.monitor.borrow().next_share(Instant::now());
            let step = async {
                match next {
                    Some(next) => sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.server().stirred() => {}
                () = step => {}
                () = replaced => self.reconfigure(&health.now()),
            }
            self.heed();
        }
    }

    fn reconfigure(&self, config: &HealthConfig) {
        let is_lost = self.monitor.borrow_mut().reconfigure(Instant::now(), config);
        let (server, was) = (self.server(), self.server().state());
        self.server().marks.clear();
        if is_lost {
            self.servers().set_health(self.place, Health::Unknown);
            if server.state() != was {
                let (name, now) = (&server.name, server.state().as_str());
                log::info(format_args!("server {name} is {now}: nobody checks it any more"));
            }
        }
    }

    fn heed(&self) {
        let (server, now) = (self.server(), Instant::now());
        self.monitor.borrow_mut().told(now, server.operator());
        // Who is not to be checked could not come up again: HAProxy lets real traffic say nothing then, too.
        let observe = self.service.config.health.look().observe.filter(|_| server.checks.are_on());
        if let (Some(observe), Some(streak)) = (observe, server.marks.streak())
            && streak.count >= observe.limit
        {
            let change = self.monitor.borrow_mut().marked(now, streak);
            self.publish(change);
        }
        self.publish_share(now);
    }

    /// Errors that only the XDP program knows of.
    async fn look_at_the_fast_path(&self) {
        if !self.servers().counts_fast() {
            return;
        }
        let health = &self.service.config.health;
        loop {
            let replaced = health.replaced();
            if !health.look().observe.is_some_and(|observe| observe.connect) {
                replaced.await;
                continue;
            }
            let (fast, id) = (self.servers().fast(), self.server().identity.id);
            let counts = FastCounts { refused: fast.refused(id), unanswered: fast.unanswered(id) };
            if self.server().checks.are_on() {
                let change = self.monitor.borrow_mut().fast(Instant::now(), counts);
                self.publish(change);
            } else {
                self.monitor.borrow_mut().forget_fast();
            }
            sleep(FAST_LOOK).await;
        }
    }

    /// To the proxy, the kernel, and the operator.
    fn publish(&self, change: Option<Change>) {
        let Some(change) = change else { return };
        let (servers, place) = (self.servers(), self.place);
        let connections = news::connections(servers, place);
        // This wakes `follow`, which sees to the share; that of a server that comes up is the first one since it went.
        servers.set_health(place, change.to);
        // What went wrong before does not count against what comes now.
        self.server().marks.clear();
        let is_reset = self.service.config.health.look().on_marked_down == OnMarkedDown::Reset;
        let ended = (change.to == Health::Down && is_reset).then(|| servers.end_sessions(place));
        match news::line(servers, place, &change, connections, ended) {
            Some(line) if change.to == Health::Down && !servers.iter().any(Server::takes_new) => {
                log::error(line);
            }
            Some(line) if change.to == Health::Down => log::warn(line),
            Some(line) => log::info(line),
            None => {}
        }
    }

    fn publish_share(&self, now: Instant) {
        let share = self.monitor.borrow().share(now);
        self.servers().set_share(self.place, share);
    }

    fn servers(&self) -> &Servers {
        &self.service.servers
    }

    fn server(&self) -> &Server {
        &self.service.servers[self.place]
    }
}
