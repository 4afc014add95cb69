use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use proptest::prelude::*;

use super::limit::tests::Kernel;
use super::*;
use crate::server::tests::named;
use crate::server::{Health, Operator};

const ANY: Wish = Wish::Any(Refused::NONE);

/// Servers s1, s2, …, with these limits.
fn limited(limits: &[u32]) -> Servers {
    let server = |(n, &limit): (usize, &u32)| named(n).with_capacity(Some(limit), None);
    Servers::new((1..).zip(limits).map(server).collect())
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    wish: Wish,
    call: oneshot::Receiver<Turn>,
}

impl Waiter {
    fn new(servers: &Servers, wish: Wish) -> Self {
        Self::again(servers, None, wish)
    }

    fn again(servers: &Servers, mut ticket: Option<Ticket>, wish: Wish) -> Self {
        let call = servers.join(&mut ticket, wish).expect("a queue without a limit");
        Self { ticket: ticket.expect("just given"), wish, call }
    }

    fn turn(&mut self) -> Option<Turn> {
        self.call.try_recv().ok()
    }

    fn leave(mut self, servers: &Servers) {
        servers.leave(self.ticket, self.wish);
        self.call.close();
        if let Some(Turn::Slot(place)) = self.turn() {
            servers.release(place);
        }
    }
}

#[test]
fn a_slot_goes_from_hand_to_hand_and_nobody_overtakes() {
    let servers = limited(&[1]);
    assert!(servers.take(0) && !servers.take(0) && !servers.has_room(0));
    let (mut first, mut second) = (Waiter::new(&servers, Wish::Server(0)), Waiter::new(&servers, ANY));
    assert_eq!((servers.waiting(), servers.waiting_for(0)), (2, 1));
    servers.release(0);
    assert_eq!((first.turn(), second.turn(), servers.take(0)), (Some(Turn::Slot(0)), None, false));
    servers.release(0);
    assert_eq!((second.turn(), servers.waiting(), servers.take(0)), (Some(Turn::Slot(0)), 0, false));
    servers.release(0);
    assert!(servers.take(0));
}

#[test]
fn whoever_has_left_is_passed_over_even_at_the_last_moment() {
    let servers = limited(&[1]);
    assert!(servers.take(0));
    let [gone, deaf, mut last] = [(); 3].map(|()| Waiter::new(&servers, ANY));
    gone.leave(&servers);
    // It is being dropped, and has not left the line yet.
    drop(deaf.call);
    servers.release(0);
    assert_eq!((last.turn(), servers.waiting()), (Some(Turn::Slot(0)), 0));
    let (called, mut next) = (Waiter::new(&servers, ANY), Waiter::new(&servers, ANY));
    servers.release(0);
    called.leave(&servers);
    assert_eq!(next.turn(), Some(Turn::Slot(0)));
}

#[test]
fn a_queue_has_a_limit_of_its_own() {
    let servers = Servers::new(vec![named(1).with_capacity(Some(1), Some(1))]);
    assert!(servers.take(0));
    let waiter = Waiter::new(&servers, Wish::Server(0));
    assert_eq!(servers.join(&mut None, Wish::Server(0)).err(), Some(QueueFull));
    let _anywhere = Waiter::new(&servers, ANY);
    waiter.leave(&servers);
    let _another = Waiter::new(&servers, Wish::Server(0));
}

#[test]
fn those_who_wait_for_a_server_that_is_lost_decide_anew_and_come_back_to_their_place() {
    let servers = limited(&[1, 1]);
    assert!(servers.take(0) && servers.take(1));
    let (mut moved, mut other) = (Waiter::new(&servers, Wish::Server(0)), Waiter::new(&servers, ANY));
    servers.set_health(0, Health::Down);
    assert_eq!((moved.turn(), other.turn(), servers.waiting()), (Some(Turn::Again), None, 1));
    let mut moved = Waiter::again(&servers, Some(moved.ticket), Wish::Server(1));
    servers.release(1);
    assert_eq!((moved.turn(), other.turn()), (Some(Turn::Slot(1)), None));
    servers.set_health(0, Health::Up);
    assert_eq!(other.turn(), None, "the first request is being served still");
    servers.release(0);
    assert_eq!(other.turn(), Some(Turn::Slot(0)));
}

#[test]
fn nobody_waits_for_a_server_that_was_lost_a_moment_ago() {
    for change in [
        (|servers: &Servers| servers.retire(0)) as fn(&Servers),
        |servers| servers.set_operator(0, Operator::Maint),
        |servers| {
            servers.set_health(0, Health::Down);
        },
        |servers| {
            servers.replace(0, named(1)).expect("a place");
        },
    ] {
        let servers = limited(&[1]);
        assert!(servers.take(0));
        let mut before = Waiter::new(&servers, Wish::Server(0));
        change(&servers);
        assert_eq!(before.turn(), Some(Turn::Again));
        assert_eq!(Waiter::new(&servers, Wish::Server(0)).turn(), Some(Turn::Again));
    }
    let servers = limited(&[1]);
    assert!(servers.take(0));
    servers.set_weight(0, 0);
    assert_eq!(Waiter::new(&servers, ANY).turn(), Some(Turn::Again), "nobody takes anybody new");
}

#[test]
fn a_draining_server_serves_its_own_who_wait_and_nobody_new() {
    let servers = limited(&[1]);
    assert!(servers.take(0));
    let (mut own, mut new) = (Waiter::new(&servers, Wish::Server(0)), Waiter::new(&servers, ANY));
    servers.set_operator(0, Operator::Drain);
    assert_eq!((own.turn(), new.turn()), (None, Some(Turn::Again)));
    servers.release(0);
    assert_eq!(own.turn(), Some(Turn::Slot(0)));
}

#[test]
fn a_server_that_comes_takes_those_who_wait_for_any() {
    let servers = limited(&[1]);
    assert!(servers.take(0));
    let (mut first, mut second) = (Waiter::new(&servers, ANY), Waiter::new(&servers, ANY));
    let place = servers.add(named(2).with_capacity(Some(1), None)).expect("a place");
    assert_eq!((first.turn(), second.turn()), (Some(Turn::Slot(place)), None));
    let free = servers.add(named(3)).expect("a place");
    assert_eq!(second.turn(), Some(Turn::Slot(free)));
}

#[test]
fn backups_take_who_waits_only_when_no_primary_could() {
    let backup = named(2).with_capacity(Some(1), None).as_backup(true);
    let servers = Servers::new(vec![named(1).with_capacity(Some(1), None), backup]);
    assert!(servers.take(0) && servers.take(1));
    let mut waiter = Waiter::new(&servers, ANY);
    servers.release(1);
    assert_eq!(waiter.turn(), None, "the primary is only full");
    let mut refused = Refused::default();
    refused.insert(0);
    let mut failed = Waiter::new(&servers, Wish::Any(refused));
    assert_eq!(failed.turn(), Some(Turn::Slot(1)), "the primary has failed it");
    servers.release(1);
    servers.set_health(0, Health::Down);
    assert_eq!(waiter.turn(), Some(Turn::Slot(1)));
}

#[test]
fn what_becomes_of_a_server_out_of_use_moves_nobody_in_the_line() {
    let servers = limited(&[1, 1]);
    servers.set_operator(1, Operator::Maint);
    assert!(servers.take(0));
    let (mut first, mut second) = (Waiter::new(&servers, ANY), Waiter::new(&servers, ANY));
    servers.set_weight(1, 0);
    servers.set_weight(1, 1);
    assert_eq!((first.turn(), second.turn(), servers.waiting()), (None, None, 2));
    servers.set_operator(0, Operator::Maint);
    assert_eq!((first.turn(), second.turn()), (Some(Turn::Again), Some(Turn::Again)), "nobody is left");
}

#[test]
fn fast_connections_count_and_do_not_overtake() {
    let servers = limited(&[2]);
    let kernel = Kernel::with(0, u32::MAX);
    servers.count_fast_with(Box::new(kernel.clone()));
    assert_eq!(kernel.limit(), 0);
    servers.settle_with_fast_path();
    assert!(kernel.connect() && !kernel.connect(), "half of two");
    assert!(servers.take(0) && !servers.has_room(0));
    let mut waiter = Waiter::new(&servers, ANY);
    kernel.close();
    assert!(!kernel.connect() && servers.has_room(0));
    assert_eq!(waiter.turn(), None, "nobody has told us");
    servers.settle_with_fast_path();
    assert_eq!((waiter.turn(), kernel.limit()), (Some(Turn::Slot(0)), 0));
    servers.release(0);
    servers.settle_with_fast_path();
    assert_eq!((kernel.limit(), servers.has_room(0)), (1, true), "lent, and not used yet");
    servers.release(0);
    let free = servers.add(named(1)).expect("a place");
    assert_eq!((kernel.limit(), servers.take(free)), (u32::MAX, true));
    servers.leave_fast_path();
    servers.settle_with_fast_path();
    assert!(servers.take(0) && !servers.take(0), "what was lent stays lent");
    assert_eq!(kernel.limit(), u32::MAX, "it is the successor's");
}

/// What can happen, for [`arrival_decides`].
#[derive(Clone, Copy, Debug)]
enum Step {
    Take(usize),
    Release(usize),
    Join(Option<usize>),
    Leave(usize),
    State(usize, bool),
    Weight(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_usize..3).prop_map(Step::Take),
        6 => (0_usize..9).prop_map(Step::Release),
        6 => prop_oneof![Just(None), (0_usize..3).prop_map(Some)].prop_map(Step::Join),
        2 => (0_usize..9).prop_map(Step::Leave),
        1 => (0_usize..3, any::<bool>()).prop_map(|(place, up)| Step::State(place, up)),
        1 => (0_usize..3, 0_u32..2).prop_map(|(place, weight)| Step::Weight(place, weight)),
    ]
}

/// What a simple and slow reading of the rules says.
struct Model {
    servers: Servers,
    limits: [u32; 3],
    /// Places of those who are served.
    served: Vec<usize>,
    /// In the order of arrival.
    waiting: Vec<Waiter>,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Take(place) => {
                if self.servers.take(place) {
                    self.served.push(place);
                }
            }
            Step::Release(which) if which < self.served.len() => {
                self.servers.release(self.served.swap_remove(which));
            }
            Step::Join(place) => {
                let wish = place.map_or(ANY, Wish::Server);
                self.waiting.push(Waiter::new(&self.servers, wish));
            }
            Step::Leave(which) if which < self.waiting.len() => {
                self.waiting.remove(which).leave(&self.servers);
            }
            Step::State(place, up) => {
                self.servers.set_health(place, if up { Health::Up } else { Health::Down });
            }
            Step::Weight(place, weight) => self.servers.set_weight(place, weight),
            Step::Release(_) | Step::Leave(_) => {}
        }
    }

    /// Hears who was called. Among those who were called to a server, nobody who waits for it came earlier.
    fn hear(&mut self) {
        let mut called_last = [None; 3];
        let mut still = Vec::new();
        for mut waiter in std::mem::take(&mut self.waiting) {
            match waiter.turn() {
                Some(Turn::Slot(place)) => {
                    assert!(still.iter().all(|earlier: &Waiter| !self.suits(earlier.wish, place)));
                    called_last[place] = Some(waiter.ticket);
                    self.served.push(place);
                }
                // Decides anew: whatever it wants can be had nowhere.
                Some(Turn::Again) => assert!(!self.is_served_by_any(waiter.wish) || waiter.wish == ANY),
                None => still.push(waiter),
            }
        }
        self.waiting = still;
    }

    fn suits(&self, wish: Wish, place: usize) -> bool {
        match wish {
            Wish::Server(wanted) => wanted == place && self.servers[place].state().keeps_users(),
            Wish::Any(refused) => self.servers.takes_new(place, &refused),
        }
    }

    fn is_served_by_any(&self, wish: Wish) -> bool {
        (0..3).any(|place| self.suits(wish, place))
    }

    fn check(&self) {
        for place in 0..3 {
            let served = self.served.iter().filter(|&&at| at == place).count();
            assert!(served <= self.limits[place] as usize, "{served} at {place}");
            let waits = self.waiting.iter().any(|waiter| self.suits(waiter.wish, place));
            assert!(!waits || !self.servers.has_room(place), "somebody waits for what is free");
        }
        assert!(self.waiting.iter().all(|waiter| self.is_served_by_any(waiter.wish)), "waits for nothing");
        assert_eq!(self.servers.waiting(), self.waiting.len());
    }
}

proptest! {
    #[test]
    fn arrival_decides(
        limits in proptest::array::uniform3(1_u32..4),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut model = Model { servers: limited(&limits), limits, served: Vec::new(), waiting: Vec::new() };
        for step in steps {
            model.step(step);
            model.hear();
            model.check();
        }
    }
}

/// Threads that come, wait, change their mind and go. A slot that was lost would make the last ones wait for ever.
#[test]
fn nothing_is_lost_between_threads() {
    const THREADS: u64 = 6;
    const ROUNDS: u64 = 4000;
    let servers = limited(&[2, 1]);
    let busy = [AtomicU32::new(0), AtomicU32::new(0)];
    let serve = |place: usize| {
        let now = busy[place].fetch_add(1, Ordering::SeqCst) + 1;
        assert!(now <= servers[place].maxconn().expect("a limit"), "{now} at {place}");
        std::thread::yield_now();
        busy[place].fetch_sub(1, Ordering::SeqCst);
        servers.release(place);
    };
    let come = |random: u64| {
        let place = (random >> 8) as usize % 2;
        if random.is_multiple_of(5) && servers.take(place) {
            return serve(place);
        }
        let wish = if random.is_multiple_of(3) { ANY } else { Wish::Server(place) };
        let waiter = Waiter::new(&servers, wish);
        if random.is_multiple_of(7) {
            return waiter.leave(&servers);
        }
        match waiter.call.blocking_recv() {
            Ok(Turn::Slot(place)) => serve(place),
            other => panic!("{other:?}"),
        }
    };
    let (done, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (done, come) = (done.clone(), &come);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..ROUNDS {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    come(random >> 33);
                }
                let _ = done.send(());
            });
        }
        for _ in 0..THREADS {
            // A thread that waits for ever would keep the scope from ending.
            if ended.recv_timeout(std::time::Duration::from_secs(60)).is_err() {
                eprintln!("somebody waits for ever: {:?}", servers.queue);
                std::process::abort();
            }
        }
    });
    assert_eq!(servers.waiting(), 0);
    assert!(servers.take(0) && servers.take(0) && servers.take(1) && !servers.take(0) && !servers.take(1));
}

#[test]
fn a_server_without_a_limit_has_nothing_to_take() {
    let servers = Servers::new(vec![named(1)]);
    assert!((0..1000).all(|_| servers.take(0)) && servers.has_room(0));
    servers.release(0);
    assert_eq!((servers[0].maxconn(), servers.waiting()), (None, 0));
}
