//! Parallel first requests of one client, at the worst of all moments: every worker has looked the client up and found
//! nothing, has balanced, and is about to reserve. Without reservations every round is split.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};

use balancer::config::Balance;
use balancer::server::FastLoads;

use super::PATIENCE;
use super::balancer::{Balancer, Builder};
use super::client::Client;
use super::origin::Origin;

const WORKERS: usize = 4;
const CLIENTS: usize = 6;
const ROUNDS: u16 = 1000;

/// Those who come wait until there are so many; who comes later does not wait.
#[derive(Clone)]
struct Meeting(Arc<Inner>);

struct Inner {
    /// Of those that have come.
    count: Mutex<usize>,
    has_grown: Condvar,
    size: usize,
}

impl Meeting {
    fn of(size: usize) -> Self {
        Self(Arc::new(Inner { count: Mutex::default(), has_grown: Condvar::new(), size }))
    }

    /// Whoever waits in vain goes on alone, and [`Self::end`] tells.
    fn join(&self) {
        let Inner { count, has_grown, size } = &*self.0;
        let mut count = count.lock().expect("lock");
        *count += 1;
        has_grown.notify_all();
        let _ = has_grown.wait_timeout_while(count, PATIENCE, |count| *count < *size).expect("lock");
    }

    /// Whether it has come about. The next one begins.
    fn end(&self) -> bool {
        std::mem::take(&mut *self.0.count.lock().expect("lock")) >= self.0.size
    }
}

/// Who balances by the least connections asks for those of the fast path: after the look-up, and before the
/// reservation. There the first request of each worker waits for those of the others. The rest of the six come when one
/// of the four has reserved, and have no reason to balance.
struct Rendezvous(Meeting);

impl FastLoads for Rendezvous {
    fn connections(&self, id: u16) -> u32 {
        // Of all servers that are asked about one is enough.
        if id == 1 {
            self.0.join();
        }
        0
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

/// Six clients with the same session and the same address, over all workers.
fn ask_at_once(balancer: &Balancer, round: u16) -> BTreeSet<String> {
    // New to every table. All of 127/8 is local.
    let [high, low] = round.to_be_bytes();
    let source = format!("127.1.{high}.{low}");
    let addresses = balancer.addresses.iter().cycle().take(CLIENTS);
    let mut clients: Vec<_> = addresses.map(|address| Client::connect_from(&source, *address)).collect();
    for client in &mut clients {
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: JS=round-{round}\r\n\r\n"));
    }
    let answers = clients.iter_mut().map(|client| {
        let answer = client.response();
        assert_eq!(answer.status(), 200, "round {round}");
        let (name, cookie) = (answer.text(), answer.header("set-cookie"));
        // Whoever gets a cookie gets the one of who has answered.
        assert!(
            cookie.is_none_or(|cookie| cookie.starts_with(&format!("SRV={name};"))),
            "{name}: {cookie:?}"
        );
        name
    });
    answers.collect()
}

/// No round is split, in any of the tables.
fn six_parallel_first_requests_stay_together(flags: &[&str]) {
    // No server answers before all six have come, so nobody learns from another's answer.
    let all_asked = Meeting::of(CLIENTS);
    let origin = |name: &'static str| {
        let all_asked = all_asked.clone();
        Origin::answering(move |_| {
            all_asked.join();
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{name}")
        })
    };
    let (s1, s2) = (origin("s1"), origin("s2"));
    let about_to_reserve = Meeting::of(WORKERS);
    let builder = Builder::of_flags(flags).server(s1.address).server(s2.address);
    let balancer = builder
        .workers(WORKERS)
        .balance(Balance::LeastConn)
        .fast(Rendezvous(about_to_reserve.clone()))
        .start();
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let answers = ask_at_once(&balancer, round);
            assert!(about_to_reserve.end() && all_asked.end(), "round {round}: they have not met");
            answers
        })
        .collect();
    let split = rounds.iter().filter(|answers| answers.len() > 1).count();
    assert_eq!(split, 0, "so many of {ROUNDS} rounds are split");
    // Either server could have been the one.
    assert_eq!(rounds.iter().flatten().collect::<BTreeSet<_>>().len(), 2, "one server has had all rounds");
    for (label, table) in balancer.tables.iter() {
        let mut confirmed = 0;
        table.for_each(|_, found| confirmed += u16::from(!found.entry.is_tentative()));
        assert_eq!(confirmed, ROUNDS, "entries of {label}");
    }
}

#[test]
fn of_one_session_with_the_session_alone() {
    six_parallel_first_requests_stay_together(&["--persist", "session=JS,size=10k"]);
}

#[test]
fn of_one_session_with_a_list_of_methods() {
    let list =
        ["--persist", "cookie=SRV", "--persist", "session=JS,size=10k", "--persist", "source,size=10k"];
    six_parallel_first_requests_stay_together(&list);
}
