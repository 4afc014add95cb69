//! All workers added up, on the control thread, when somebody asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::time::{MissedTickBehavior, interval};

use super::capture::{Captured, Side};
use super::history::{self, History, Sample, Totals};
use super::rates::{LOOK, Rate};
use super::worker::{Back, BackStats, Front, Latencies, Stats, Verdicts};
use crate::clock;
use crate::proxy::descriptors;
use crate::server::State;
use crate::service::Shared;

/// The statistics of the service: every number is read when it is asked for, and what only an onlooker sees (rates, times
/// of being down) is looked at four times a second.
#[derive(Debug)]
pub struct Statistics {
    /// Those of each worker.
    pub workers: Vec<Arc<Stats>>,
    service: Shared,
    seen: RefCell<Seen>,
    cleared: RefCell<Cleared>,
    history: RefCell<History>,
}

/// What an onlooker sees.
#[derive(Debug)]
struct Seen {
    looked: Instant,
    connections: Rate,
    requests: Rate,
    visits: Rate,
    /// Microseconds of processor time.
    cpu: Rate,
    bytes_out: Rate,
    /// Of each server, by place.
    sessions: Vec<Rate>,
    /// The same.
    servers: Vec<Availability>,
    service: Availability,
}

/// Whether somebody could be served, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Availability {
    /// Somebody could.
    pub is_up: bool,
    /// Since when the state is what it is.
    pub since: Instant,
    /// How often it has gone down.
    pub downs: u64,
    /// How long it has been down, up to the last change.
    down_before: Duration,
    state: State,
}

/// What [`Statistics::clear`] was told to begin anew.
#[derive(Debug, Default)]
struct Cleared {
    front: Front,
    back: HashMap<Option<usize>, Back>,
    downs: HashMap<Option<usize>, u64>,
    check_failures: HashMap<usize, u64>,
}

/// From when on something is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// The start of the process: such counters never go back.
    Start,
    /// The last `clear counters all`, if there was one.
    Clearing,
}

/// The clients' side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrontTotals {
    /// The counters.
    pub counters: Front,
    /// Client connections now, and the most at one time.
    pub connections: (u64, u64),
    /// Client connections that came in the last second, and the most in one.
    pub connection_rate: (u64, u64),
    /// The same of requests.
    pub request_rate: (u64, u64),
}

/// A server, or all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackTotals {
    /// The counters.
    pub counters: Back,
    /// How long things took, since start.
    pub latencies: Latencies,
    /// Requests now, and the most at one time; of the service, the sum of what each worker has had at one time.
    pub in_flight: (u64, u64),
    /// Requests that wait for it and no other, or of the service, for any; and the most at one time.
    pub waiting: (u64, u64),
    /// Requests that came in the last second, and the most in one.
    pub rate: (u64, u64),
    /// When it was asked last.
    pub last_session: Option<Instant>,
    /// Checks that have failed while it was up.
    pub check_failures: u64,
    /// Whether it could be asked now, and before.
    pub availability: Availability,
}

/// What the process takes from this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Of the time of its workers, what they had nothing to do.
    pub idle_percent: u64,
    /// Bytes written to clients.
    pub bytes_out: u64,
}

impl Statistics {
    /// Of these workers.
    pub fn new(service: &Shared, workers: Vec<Arc<Stats>>) -> Self {
        let seen = Seen {
            looked: Instant::now(),
            connections: Rate::default(),
            requests: Rate::default(),
            visits: Rate::default(),
            cpu: Rate::default(),
            bytes_out: Rate::default(),
            sessions: Vec::new(),
            servers: Vec::new(),
            service: Availability::new(State::Up),
        };
        Self {
            workers,
            service: Shared::clone(service),
            seen: RefCell::new(seen),
            cleared: RefCell::default(),
            history: RefCell::default(),
        }
    }

    /// With what a predecessor has seen, the oldest sample first.
    pub fn with_history(self, samples: Vec<Sample>) -> Self {
        self.history.borrow_mut().resume(samples);
        self
    }

    /// Looks on, for ever.
    pub async fn watch(self: Rc<Self>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // All that was counted up to here is of this process, but for what the kernel keeps.
        let (_, fast_opened) = self.service.servers.fast_in_all();
        self.history.borrow_mut().begin(Totals { fast_opened, ..Totals::default() });
        loop {
            for _ in 0..history::LOOKS {
                ticks.tick().await;
                self.look();
            }
            self.history.borrow_mut().note(self.totals());
        }
    }

    /// The last ten minutes, the oldest sample first.
    pub fn history(&self) -> Vec<Sample> {
        self.history.borrow().samples()
    }

    /// Of the connections that came in the last minute, how many were fast, from 0 to 1; `None`: there were none.
    pub fn fast_share(&self) -> Option<f64> {
        self.history.borrow().fast_share()
    }

    /// The clients' side.
    pub fn front(&self, since: Since) -> FrontTotals {
        let (seen, since_look) = self.seen();
        let whole = self.whole_front();
        let (connections, most) = descriptors::clients();
        let connection_rate = seen.connections.now(whole.connections + whole.denied, since_look);
        let request_rate = seen.requests.now(whole.requests, since_look);
        let counters = match since {
            Since::Start => whole,
            Since::Clearing => whole.since(&self.cleared.borrow().front),
        };
        FrontTotals {
            counters,
            connections: (connections, most),
            connection_rate: (connection_rate, seen.connections.most(connection_rate)),
            request_rate: (request_rate, seen.requests.most(request_rate)),
        }
    }

    /// What the process has taken from this host in the last second.
    pub fn load(&self) -> Load {
        let (seen, since_look) = self.seen();
        let busy = seen.cpu.now(cpu_micros(), since_look) / 10_000;
        let threads = self.workers.len().max(1) as u64;
        Load {
            idle_percent: 100 - (busy / threads).min(100),
            bytes_out: seen.bytes_out.now(self.whole_front().bytes_out, since_look),
        }
    }

    /// All servers together, those too that have gone, and what no server was found for.
    pub fn service(&self, since: Since) -> BackTotals {
        let (seen, since_look) = self.seen();
        let whole = self.whole_front();
        let places = (0..self.service.servers.places_ever()).map(Some);
        let counters = std::iter::once(None).chain(places).map(|place| self.counters(place, since)).sum();
        let backs = self.workers.iter().flat_map(|stats| stats.backs());
        let latencies = backs.map(BackStats::latencies).fold(Latencies::default(), |a, b| a + b);
        let lasts = self.workers.iter().flat_map(|stats| stats.backs().map(|back| stats.last_session(back)));
        let rate = seen.visits.now(whole.visits, since_look);
        let (waiting, most_waiting) = self.service.servers.waiting_for_any();
        let mut availability = seen.service;
        if since == Since::Clearing {
            availability.downs -= self.cleared.borrow().downs.get(&None).copied().unwrap_or(0);
        }
        BackTotals {
            // HAProxy has no such number of all of them.
            check_failures: 0,
            counters,
            latencies,
            in_flight: (whole.visits.saturating_sub(whole.visits_ended), whole.visits_most),
            waiting: (waiting as u64, most_waiting as u64),
            rate: (rate, seen.visits.most(rate)),
            last_session: lasts.flatten().max(),
            availability,
        }
    }

    /// Each server by its place, in the order of the list.
    pub fn servers(&self, since: Since) -> Vec<(usize, BackTotals)> {
        let servers = &self.service.servers;
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for place in 0..servers.places_ever() {
            places.entry(&servers[place].name).or_default().push(place);
        }
        let of = |place: usize| places.get(servers[place].name.as_str()).map_or(&[][..], Vec::as_slice);
        servers.places().into_iter().map(|place| (place, self.server(place, of(place), since))).collect()
    }

    /// What the methods of `--persist` have come to, in their order, since start.
    pub fn verdicts(&self) -> Verdicts {
        let mut sum = Verdicts::default();
        for verdicts in self.workers.iter().map(|stats| stats.verdicts()) {
            for (sum, count) in sum.iter_mut().flatten().zip(verdicts.iter().flatten()) {
                *sum += count;
            }
        }
        sum
    }

    /// The last messages that were not understood, the oldest first.
    pub fn captured(&self, side: Side) -> Vec<Captured> {
        let mut captured: Vec<_> = self.workers.iter().filter_map(|stats| stats.captured(side)).collect();
        captured.sort_by_key(|captured| captured.unix_millis);
        captured
    }

    /// Begins anew to look for what was the most and the longest; with `all` the counters too, for those who ask
    /// [`Since::Clearing`].
    pub fn clear(&self, all: bool) {
        self.workers.iter().for_each(|stats| stats.forget_largest());
        descriptors::forget_most_clients();
        self.service.servers.forget_most();
        self.seen.borrow_mut().forget_most();
        if all {
            let seen = self.seen.borrow();
            let places = || std::iter::once(None).chain((0..self.service.servers.places_ever()).map(Some));
            let downs = |place: Option<usize>| match place {
                None => seen.service.downs,
                Some(place) => seen.servers.get(place).map_or(0, |server| server.downs),
            };
            *self.cleared.borrow_mut() = Cleared {
                front: self.whole_front(),
                back: places().map(|place| (place, self.counters(place, Since::Start))).collect(),
                downs: places().map(|place| (place, downs(place))).collect(),
                check_failures: places().flatten().map(|place| (place, self.failures(place))).collect(),
            };
        }
    }

    /// `places`: all that the server has had.
    fn server(&self, place: usize, places: &[usize], since: Since) -> BackTotals {
        let (seen, since_look) = self.seen();
        let servers = &self.service.servers;
        let sum = |count: &dyn Fn(usize) -> u64| places.iter().map(|place| count(*place)).sum();
        let backs = || {
            self.workers.iter().flat_map(|stats| {
                places.iter().filter_map(move |place| Some((stats, stats.back(Some(*place))?)))
            })
        };
        let latencies = backs().map(|(_, back)| back.latencies()).fold(Latencies::default(), |a, b| a + b);
        let sessions = self.counters(Some(place), Since::Start).sessions;
        let rate = seen.sessions.get(place);
        let rate_now = rate.map_or(sessions, |rate| rate.now(sessions, since_look));
        let mut availability =
            seen.servers.get(place).copied().unwrap_or_else(|| Availability::new(servers[place].state()));
        if since == Since::Clearing {
            availability.downs -= self.cleared.borrow().downs.get(&Some(place)).copied().unwrap_or(0);
        }
        let mut check_failures = self.failures(place);
        if since == Since::Clearing {
            check_failures -= self.cleared.borrow().check_failures.get(&place).copied().unwrap_or(0);
        }
        BackTotals {
            check_failures,
            counters: places.iter().map(|place| self.counters(Some(*place), since)).sum(),
            latencies,
            in_flight: (
                sum(&|place| servers[place].in_flight.load(Ordering::Relaxed).into()),
                servers[place].most_in_flight.load(Ordering::Relaxed).into(),
            ),
            waiting: (
                sum(&|place| servers.waiting_for(place) as u64),
                servers[place].most_waiting.load(Ordering::Relaxed).into(),
            ),
            rate: (rate_now, rate.map_or(rate_now, |rate| rate.most(rate_now))),
            last_session: backs().filter_map(|(stats, back)| stats.last_session(back)).max(),
            availability,
        }
    }

    fn totals(&self) -> Totals {
        let (front, service) = (self.whole_front(), self.service(Since::Start));
        let (fast, fast_opened) = self.service.servers.fast_in_all();
        Totals {
            at: clock::unix_millis() / 1000,
            // With `--mode tcp` there are only visits.
            requests: front.requests.max(front.visits),
            connections: front.connections,
            fast_opened,
            failures: front.responses_5xx + service.counters.server_aborts,
            total: service.latencies.total,
            in_flight: service.in_flight.0,
            fast,
        }
    }

    fn failures(&self, place: usize) -> u64 {
        self.service.servers[place].checks.read().failures
    }

    fn whole_front(&self) -> Front {
        self.workers.iter().map(|stats| stats.front()).sum()
    }

    fn counters(&self, place: Option<usize>, since: Since) -> Back {
        let backs = self.workers.iter().filter_map(|stats| stats.back(place));
        let whole: Back = backs.map(|back| back.counters.read()).sum();
        match since {
            Since::Clearing => match self.cleared.borrow().back.get(&place) {
                // How many there are now is nothing that begins anew.
                Some(before) => whole.since(&Back { idle: 0, ..*before }),
                None => whole,
            },
            Since::Start => whole,
        }
    }

    fn seen(&self) -> (std::cell::Ref<'_, Seen>, Duration) {
        let seen = self.seen.borrow();
        let since_look = seen.looked.elapsed();
        (seen, since_look)
    }

    fn look(&self) {
        let (front, servers) = (self.whole_front(), &self.service.servers);
        let mut seen = self.seen.borrow_mut();
        seen.looked = Instant::now();
        seen.connections.look(front.connections + front.denied);
        seen.requests.look(front.requests);
        seen.visits.look(front.visits);
        seen.cpu.look(cpu_micros());
        seen.bytes_out.look(front.bytes_out);
        for place in seen.servers.len()..servers.places_ever() {
            seen.sessions.push(Rate::default());
            // Until somebody has looked a server is up.
            let state = if servers[place].state() == State::Maint { State::Maint } else { State::Up };
            seen.servers.push(Availability::new(state));
        }
        let live = servers.places();
        for &place in &live {
            seen.sessions[place].look(self.counters(Some(place), Since::Start).sessions);
            seen.servers[place].is_now(servers[place].state());
        }
        let is_up = live.iter().any(|&place| servers[place].takes_new());
        seen.service.is_now(if is_up { State::Up } else { State::Down });
    }
}

/// Processor time of all threads.
fn cpu_micros() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        u64::try_from(micros).unwrap_or(0)
    })
}

impl Seen {
    fn forget_most(&mut self) {
        let rates = [&mut self.connections, &mut self.requests, &mut self.visits];
        rates.into_iter().chain(&mut self.sessions).for_each(Rate::forget_most);
    }
}

impl Availability {
    fn new(state: State) -> Self {
        let is_up = state.keeps_users();
        Self { is_up, since: Instant::now(), downs: 0, down_before: Duration::ZERO, state }
    }

    /// How long it has been down, all in all.
    pub fn down(&self) -> Duration {
        self.down_before + if self.is_up { Duration::ZERO } else { self.since.elapsed() }
    }

    fn is_now(&mut self, state: State) {
        if state == self.state {
            return;
        }
        let now = Instant::now();
        if !self.is_up {
            self.down_before += now - self.since;
        }
        if state == State::Down {
            self.downs += 1;
        }
        (self.state, self.is_up, self.since) = (state, state.keeps_users(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balance;
    use crate::cli;
    use crate::config::{Host, Plan};
    use crate::server::tests::{named, servers};
    use crate::service::Service;

    fn statistics() -> Statistics {
        let line = "balancer run --listen 127.0.0.1:0 --server s1=10.0.0.1:80 --admin /x/y.sock";
        let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split(' ').map(Into::into)) else {
            panic!("{line}");
        };
        let config = Plan::new(&run, settings, &Host::read()).expect("valid").config;
        let servers = servers(2);
        let balance = Balance::new(config.balance.clone(), &servers);
        let service = Arc::new(Service { config, servers, balance });
        Statistics::new(&service, vec![Arc::default(), Arc::default()])
    }

    #[test]
    fn workers_add_up_and_so_do_the_places_of_a_name() {
        let statistics = statistics();
        let [one, two] = &statistics.workers[..] else { unreachable!() };
        one.accepted();
        two.accepted();
        two.closed();
        two.responded(Some(204));
        let now = Instant::now();
        one.session_begins(1, now, true);
        two.session_begins(1, now, false);
        two.retried(0);
        // s2 has moved, and s1 was deleted.
        let servers = &statistics.service.servers;
        let place = servers.replace(1, named(2)).expect("a place");
        servers.retire(0);
        one.session_begins(place, now, true);
        let rows = statistics.servers(Since::Start);
        assert_eq!(rows.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [place]);
        let s2 = rows[0].1.counters;
        assert_eq!((s2.sessions, s2.balanced, s2.retries), (3, 2, 0));
        assert!(rows[0].1.last_session.is_some());
        let all = statistics.service(Since::Start).counters;
        assert_eq!((all.sessions, all.retries), (3, 1), "with the one that is gone");
        let front = statistics.front(Since::Start).counters;
        assert_eq!((front.connections, front.closed, front.responses_2xx), (2, 1, 1));
    }

    #[test]
    fn what_was_cleared_counts_for_those_who_cannot_bear_it_still() {
        let statistics = statistics();
        let stats = &statistics.workers[0];
        stats.session_begins(0, Instant::now(), true);
        stats.idle(0, 3);
        stats.of(Some(0)).took(&crate::stats::Elapsed {
            queue: None,
            connect: None,
            response: None,
            total: Duration::from_millis(7),
        });
        statistics.look();
        statistics.service.servers.set_health(0, crate::server::Health::Down);
        statistics.look();
        let s1 = |since| statistics.servers(since)[0].1;
        assert_eq!((s1(Since::Clearing).availability.downs, s1(Since::Clearing).rate), (1, (1, 1)));
        assert!(!s1(Since::Start).availability.is_up);
        statistics.clear(false);
        assert_eq!(s1(Since::Clearing).counters.sessions, 1);
        assert_eq!(s1(Since::Clearing).latencies.total.longest_micros, 0);
        statistics.clear(true);
        let (start, clearing) = (s1(Since::Start), s1(Since::Clearing));
        assert_eq!((start.counters.sessions, clearing.counters.sessions), (1, 0));
        assert_eq!((start.availability.downs, clearing.availability.downs), (1, 0));
        assert_eq!(clearing.counters.idle, 3, "as many as there are");
        assert_eq!(statistics.service(Since::Clearing).counters.sessions, 0);
    }
}
