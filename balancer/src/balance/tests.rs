use super::*;
use crate::config::Balance::{First, LeastConn, Random, RoundRobin, Source};
use crate::server::tests::{named, servers, weighted};
use crate::server::{FastLoads, Health, Operator};

fn picks(balance: &Balance, set: &Servers, count: usize) -> Vec<usize> {
    (0..count).filter_map(|_| balance.pick(set, &Refused::default(), Key::NONE).place()).collect()
}

fn share(picks: &[usize], of: usize) -> usize {
    picks.iter().filter(|&&pick| pick == of).count()
}

#[test]
fn round_robin_goes_round_and_leaves_out_who_takes_nobody() {
    let set = servers(3);
    let balance = Balance::new(RoundRobin, &set);
    assert_eq!(picks(&balance, &set, 6), [0, 1, 2, 0, 1, 2]);
    set.set_operator(1, Operator::Drain);
    let picks = picks(&balance, &set, 4);
    assert_eq!((share(&picks, 0), share(&picks, 2)), (2, 2));
}

#[test]
fn passes_over_who_refused_this_request() {
    let set = servers(70);
    let balance = Balance::new(RoundRobin, &set);
    (2..68).for_each(|index| {
        set.set_operator(index, Operator::Maint);
    });
    let mut refused = Refused::default();
    [0, 68].into_iter().for_each(|index| refused.insert(index));
    let pick = |refused: &Refused| balance.pick(&set, refused, Key::NONE);
    assert!((0..8).all(|_| matches!(pick(&refused), Pick::Free(1 | 69))));
    [1, 69].into_iter().for_each(|index| refused.insert(index));
    assert_eq!(pick(&refused), Pick::None);
}

#[test]
fn weights_are_exact_and_nothing_comes_to_weight_zero() {
    let set = weighted(&[(3, false), (1, false), (0, false)]);
    let picks = picks(&Balance::new(RoundRobin, &set), &set, 400);
    assert_eq!([share(&picks, 0), share(&picks, 1), share(&picks, 2)], [300, 100, 0]);
}

#[test]
fn backups_serve_when_no_primary_will_do() {
    let set = weighted(&[(1, false), (1, true), (1, true)]);
    for algorithm in [RoundRobin, LeastConn, Random, First, Source] {
        let balance = Balance::new(algorithm, &set);
        assert_eq!(picks(&balance, &set, 5), [0; 5]);
        let mut refused = Refused::default();
        refused.insert(0);
        assert!(matches!(balance.pick(&set, &refused, Key::NONE), Pick::Free(1 | 2)));
        set.set_operator(0, Operator::Maint);
        assert!(picks(&balance, &set, 5).iter().all(|&pick| pick > 0));
        set.set_operator(0, Operator::Ready);
    }
}

#[test]
fn least_connections_fill_up_by_weight_and_take_turns_when_equal() {
    let set = weighted(&[(1, false), (3, false)]);
    let balance = Balance::new(LeastConn, &set);
    for _ in 0..40 {
        let pick = balance.pick(&set, &Refused::default(), Key::NONE).place().expect("up");
        set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
    }
    let busy = [0, 1].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed));
    assert_eq!(busy, [10, 30]);
    let idle = weighted(&[(1, false), (3, false)]);
    let picks = picks(&Balance::new(LeastConn, &idle), &idle, 40);
    assert_eq!(share(&picks, 0), 10, "in turn by weight while nobody is busy");
}

#[test]
fn random_avoids_the_busy_one_and_is_even_among_the_idle() {
    let set = servers(4);
    set[0].in_flight.store(100, Ordering::Relaxed);
    let picks = picks(&Balance::new(Random, &set), &set, 4000);
    // Only drawn twice does it get anything.
    assert!((150..350).contains(&share(&picks, 0)), "{}", share(&picks, 0));
    assert!((1..4).all(|place| (1100..1400).contains(&share(&picks, place))));
    let idle = weighted(&[(1, false), (2, false), (5, false)]);
    let picks = super::tests::picks(&Balance::new(Random, &idle), &idle, 8000);
    for (place, expected) in [(0, 1000), (1, 2000), (2, 5000)] {
        assert!(share(&picks, place).abs_diff(expected) < 200, "{place}: {}", share(&picks, place));
    }
}

#[test]
fn a_key_keeps_its_server_and_moves_only_when_it_must() {
    let set = servers(5);
    let balance = Balance::new(Source, &set);
    let keys: Vec<_> = (0..1000_u32).map(|n| Key::new(&n.to_be_bytes())).collect();
    let places =
        || keys.iter().map(|&key| balance.pick(&set, &Refused::default(), key).place()).collect::<Vec<_>>();
    let before = places();
    assert_eq!(before, places());
    assert!((0..5).all(|place| (150..250).contains(&before.iter().filter(|p| **p == Some(place)).count())));
    set.set_operator(2, Operator::Drain);
    let after = places();
    assert!(!after.contains(&Some(2)));
    let moved = before.iter().zip(&after).filter(|(before, after)| **before != Some(2) && before != after);
    assert!(moved.count() <= 40);
    set.set_operator(2, Operator::Ready);
    assert_eq!(before, places());
}

/// As many fast connections as it says, by id.
#[derive(Debug)]
struct Fast(Vec<u32>);

impl FastLoads for Fast {
    fn connections(&self, id: u16) -> u32 {
        self.0.get(usize::from(id)).copied().unwrap_or(0)
    }

    fn opened(&self, _id: u16) -> u64 {
        0
    }

    fn set_limit(&self, _id: u16, _limit: u32) {}

    fn refused(&self, _id: u16) -> u64 {
        0
    }

    fn unanswered(&self, _id: u16) -> u64 {
        0
    }

    fn end(&self, _id: u16) -> u64 {
        0
    }
}

#[test]
fn connections_of_the_fast_path_are_connections() {
    // The ids are 1, 2 and 3.
    let set = servers(3);
    set.count_fast_with(Box::new(Fast(vec![99, 10, 4, 7])));
    let balance = Balance::new(LeastConn, &set);
    for _ in 0..9 {
        let pick = balance.pick(&set, &Refused::default(), Key::NONE).place().expect("up");
        set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
    }
    let slow = [0, 1, 2].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed));
    assert_eq!(slow, [0, 6, 3], "until all three have ten");
    let picks = picks(&Balance::new(Random, &set), &set, 300);
    assert_eq!(share(&picks, 0) + share(&picks, 1) + share(&picks, 2), 300);
}

#[test]
fn the_first_one_has_everything_for_as_long_as_it_will_do() {
    let set = weighted(&[(1, false), (256, false), (1, false)]);
    let balance = Balance::new(First, &set);
    assert_eq!(picks(&balance, &set, 5), [0; 5], "weights do not count");
    set.set_operator(0, Operator::Drain);
    assert_eq!(picks(&balance, &set, 3), [1; 3]);
    set.set_operator(0, Operator::Ready);
    assert_eq!(picks(&balance, &set, 2), [0; 2]);
}

#[test]
fn turns_are_shared_by_all_threads() {
    let set = weighted(&[(3, false), (2, false), (1, false)]);
    let balance = Balance::new(RoundRobin, &set);
    let picked: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| picks(&balance, &set, 300))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!([0, 1, 2].map(|place| share(&picked, place)), [600, 400, 200]);
}

/// s2 is just coming up with that share.
fn rising(weights: &[(u32, bool)], share: u32) -> Servers {
    let set = weighted(weights);
    set.set_share(1, share);
    set
}

#[test]
fn a_server_that_is_coming_up_gets_its_share_by_and_by() {
    let set = rising(&[(1, false), (1, false)], 1);
    let balance = Balance::new(RoundRobin, &set);
    for sixteenths in 1..=16_usize {
        set.set_share(1, sixteenths as u32);
        let picks = picks(&balance, &set, 16 * (16 + sixteenths));
        assert_eq!([share(&picks, 0), share(&picks, 1)], [256, 16 * sixteenths], "{sixteenths}/16");
    }
    let set = rising(&[(3, false), (2, false)], 8);
    let idle = picks(&Balance::new(LeastConn, &set), &set, 400);
    assert_eq!([share(&idle, 0), share(&idle, 1)], [300, 100]);
    let balance = Balance::new(LeastConn, &set);
    for _ in 0..40 {
        let pick = balance.pick(&set, &Refused::default(), Key::NONE).place().expect("up");
        set[pick].in_flight.fetch_add(1, Ordering::Relaxed);
    }
    assert_eq!([0, 1].map(|place: usize| set[place].in_flight.load(Ordering::Relaxed)), [30, 10]);
    let set = rising(&[(1, false), (1, false)], 4);
    let drawn = picks(&Balance::new(Random, &set), &set, 5000);
    assert!(share(&drawn, 1).abs_diff(1000) < 150, "{}", share(&drawn, 1));
}

#[test]
fn a_round_stays_short_while_a_server_is_coming_up() {
    let turns = |weights: &[(u32, bool)]| {
        let group = &Plan::new(&RoundRobin, &rising(weights, 7), &Plan::default()).primaries;
        (group.schedule.len(), share(&group.schedule.from(0).collect::<Vec<_>>(), 1))
    };
    assert_eq!(turns(&[(1, false); 1000]), (999 * 16 + 7, 7));
    assert_eq!(turns(&[(101, false), (256, false)]), (101 + 112, 112));
    // So heavy that the weights themselves are fine enough, or so many that a small one is there at once.
    let (length, of_rising) = turns(&[(256, false); 100]);
    assert_eq!((length, of_rising), (99 * 16 + 7, 7));
    let mut uneven = [(255, false); 100];
    uneven[0].0 = 254;
    let (length, of_rising) = turns(&uneven);
    assert!(length < 2 * 100 * 255 && of_rising == 112, "{length} {of_rising}");
    uneven[1].0 = 1;
    assert_eq!(turns(&uneven).1, 1);
}

#[test]
fn keys_come_to_a_server_that_is_coming_up_once_and_nobody_elses_move_meanwhile() {
    let set = servers(5);
    let balance = Balance::new(Source, &set);
    let keys: Vec<_> = (0..4000_u32).map(|n| Key::new(&n.to_be_bytes())).collect();
    let places = || -> Vec<usize> {
        let pick = |&key| balance.pick(&set, &Refused::default(), key).place().expect("somebody");
        keys.iter().map(pick).collect()
    };
    let whole = places();
    set.set_health(2, Health::Down);
    set.set_share(2, 1);
    let without = places();
    set.set_health(2, Health::Up);
    let mut before = places();
    let foreign = before.iter().zip(&without).filter(|(now, then)| now != then && **now != 2).count();
    assert!(foreign <= 4000 * 4 / 100, "{foreign} keys of others move when it comes");
    for sixteenths in 2..=16 {
        set.set_share(2, sixteenths);
        let after = places();
        for ((key, then), now) in keys.iter().zip(&before).zip(&after) {
            assert!(then == now || *now == 2, "{key:?} moves from {then} to {now} at {sixteenths}/16");
        }
        let its_own = share(&after, 2);
        let exact = share(&whole, 2) * sixteenths as usize / 16;
        assert!(its_own.abs_diff(exact) < 60, "{its_own} at {sixteenths}/16, not {exact}");
        before = after;
    }
    assert_eq!(before, whole);
}

#[test]
fn a_step_of_a_slow_start_makes_no_table() {
    let set = servers(3);
    let first = Plan::new(&Source, &set, &Plan::default());
    let table = |plan: &Plan| Arc::as_ptr(&plan.primaries.table.as_ref().expect("a table").table);
    set.set_health(1, Health::Down);
    let without = Plan::new(&Source, &set, &first);
    set.set_share(1, 1);
    set.set_health(1, Health::Up);
    let rising = Plan::new(&Source, &set, &without);
    let settled = |plan: &Plan| plan.primaries.settled.as_ref().map(|keyed| Arc::as_ptr(&keyed.table));
    assert_eq!(settled(&rising), Some(table(&without)));
    set.set_share(1, 2);
    let step = Plan::new(&Source, &set, &rising);
    assert_eq!((table(&step), settled(&step)), (table(&rising), settled(&rising)));
    set.set_share(1, WHOLE);
    let whole = Plan::new(&Source, &set, &step);
    assert_eq!((table(&whole), settled(&whole)), (table(&rising), None));
    (0..3).for_each(|place| set.set_share(place, 1));
    assert_eq!(settled(&Plan::new(&Source, &set, &whole)), None, "nobody to stay with");
}

#[test]
fn instances_agree_whatever_the_order_of_their_flags() {
    let mut others: Vec<_> = (1..=5).map(named).collect();
    others.reverse();
    let (one, other) = (servers(5), Servers::new(others));
    let name = |set: &Servers, key| {
        let pick = Balance::new(Source, set).pick(set, &Refused::default(), key).place();
        set[pick.expect("somebody")].name.clone()
    };
    for key in (0..50_u32).map(|n| Key::new(&n.to_be_bytes())) {
        assert_eq!(name(&one, key), name(&other, key));
    }
}

/// s1 and s2 with room for two each, and the backup s3.
fn small() -> Servers {
    let server = |n: usize| named(n).with_capacity(Some(2), None).as_backup(n == 3);
    Servers::new((1..=3).map(server).collect())
}

#[test]
fn who_is_full_is_passed_over_and_backups_are_not_for_overflow() {
    for algorithm in [RoundRobin, LeastConn, Random, First] {
        let set = small();
        let balance = Balance::new(algorithm.clone(), &set);
        let pick = |set: &Servers| balance.pick(set, &Refused::default(), Key::NONE);
        for _ in 0..4 {
            let Pick::Free(place) = pick(&set) else { panic!("{algorithm:?}: somebody has room") };
            assert!(set.take(place));
        }
        assert_eq!(pick(&set), Pick::Full, "{algorithm:?}");
        set.release(1);
        assert_eq!(pick(&set), Pick::Free(1), "{algorithm:?}");
        set.set_operator(0, Operator::Maint);
        set.set_operator(1, Operator::Maint);
        assert_eq!(pick(&set), Pick::Free(2), "{algorithm:?}");
        set.set_operator(2, Operator::Maint);
        assert_eq!(pick(&set), Pick::None, "{algorithm:?}");
    }
}

#[test]
fn first_fills_one_after_the_other() {
    let set = small();
    let balance = Balance::new(First, &set);
    let fill = |_| {
        let place = balance.pick(&set, &Refused::default(), Key::NONE).place()?;
        set.take(place).then_some(place)
    };
    assert_eq!((0..5).map_while(fill).collect::<Vec<_>>(), [0, 0, 1, 1]);
}

#[test]
fn a_key_waits_for_its_server_and_who_has_none_does_not() {
    let set = small();
    let balance = Balance::new(Source, &set);
    let keyed = balance.pick(&set, &Refused::default(), Key::new(b"somebody"));
    let Pick::Keyed(place) = keyed else { panic!("{keyed:?}") };
    assert!(set.take(place) && set.take(place));
    assert_eq!(balance.pick(&set, &Refused::default(), Key::new(b"somebody")), keyed);
    let others: Vec<_> = (0..4).map(|_| balance.pick(&set, &Refused::default(), Key::NONE)).collect();
    assert_eq!(others, [Pick::Free(1 - place); 4]);
}

#[test]
fn a_request_without_the_key_takes_its_turn() {
    let set = servers(2);
    let balance = Balance::new(config::Balance::Header("x-user".into()), &set);
    assert_eq!(picks(&balance, &set, 4), [0, 1, 0, 1]);
}

#[test]
fn the_turns_of_who_is_taken_out_are_shared_by_the_others() {
    let set = servers(3);
    let balance = Balance::new(RoundRobin, &set);
    let mut refused = Refused::default();
    refused.insert(0);
    let picks: Vec<_> = (0..90).filter_map(|_| balance.pick(&set, &refused, Key::NONE).place()).collect();
    assert_eq!([share(&picks, 0), share(&picks, 1), share(&picks, 2)], [0, 45, 45]);
}
