//! What is said about requests, beforehand and afterwards, and what becomes of them.

use std::rc::Rc;
use std::sync::Arc;

use balancer::config::Limits;
use balancer::http::fields::Slots;
use balancer::http::request;
use balancer::persist::issue::Letters;
use balancer::server::{Health, Operator};
use balancer::visit::{Books, Visit};

use super::balancer::{Balancer, Builder};
use super::client::Client;
use super::origin::Origin;

/// Numbers that look random and are the same in every run (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// What `explain` says of that request, in the words of the log.
fn explained(balancer: &Balancer, head: &str, client: &str) -> String {
    let books = Rc::new(Books::new(Arc::clone(&balancer.service), balancer.tables.handle()));
    let mut slots = Slots::default();
    let request = request::parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed");
    let mut visit = Visit::new(&books, &request.expect("whole"), client.parse().expect("address"));
    let rehearsal = visit.rehearse();
    let service = &balancer.service;
    let trace = visit.trace().display(&service.config.persist, &service.servers, visit.chosen()).to_string();
    let Letters { request, response } = rehearsal.letters;
    format!("{request}{response} persist={trace}")
}

#[test]
fn what_is_explained_is_what_happens_in_a_thousand_states() {
    let origins: Vec<_> = ["s1", "s2", "s3"].map(Origin::named).into();
    let flags =
        ["--persist", "cookie=SRV", "--persist", "session=JS", "--persist", "source", "--on-down", "move"];
    let builder =
        origins.iter().fold(Builder::of_flags(&flags), |builder, origin| builder.server(origin.address));
    let balancer = builder.start();
    let mut numbers = Numbers(7);
    for round in 0..1000 {
        let servers = &balancer.service.servers;
        // One server stays up, so that there is always somebody to answer.
        let (place, state) = (1 + numbers.below(2) as usize, numbers.below(4));
        servers.set_health(place, if state == 0 { Health::Down } else { Health::Up });
        servers.set_operator(place, numbers.one_of(&[Operator::Ready, Operator::Drain, Operator::Maint]));
        let client = numbers.one_of(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        let cookie = numbers.one_of(&["", "SRV=s1", "SRV=s2", "SRV=s3", "SRV=zz", "SRV=s2; SRV=s1"]);
        let session = numbers.one_of(&["", "JS=a", "JS=b", "JS=c"]);
        let cookies: Vec<_> = [cookie, session].into_iter().filter(|text| !text.is_empty()).collect();
        let header =
            if cookies.is_empty() { String::new() } else { format!("Cookie: {}\r\n", cookies.join("; ")) };
        let head = format!("GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n");
        let told = explained(&balancer, &head, client);
        let again = explained(&balancer, &head, client);
        assert_eq!(told, again, "round {round}: to explain changes nothing");
        let answer = Client::connect_from(client, balancer.address).get_with("/", &header);
        assert_eq!(answer.status(), 200);
        let line = balancer.log_line(round);
        assert!(line.trim_end().ends_with(&told), "round {round}: {told} became {line}");
    }
}

#[test]
fn who_may_know_is_told_why_in_a_header() {
    let origin = Origin::named("s1");
    let flags = ["--persist", "cookie=SRV", "--debug-from", "127.0.0.8"];
    let balancer = Builder::of_flags(&flags).server(origin.address).start();
    let told = Client::connect_from("127.0.0.8", balancer.address).get("/");
    let why = "server=s1; persist=cookie:miss,balance>s1; letters=NI; path=slow";
    assert_eq!((told.header("x-balancer"), told.header("cache-control")), (Some(why), Some("no-store")));
    let forged =
        Client::connect_from("127.0.0.7", balancer.address).get_with("/", "X-Forwarded-For: 127.0.0.8\r\n");
    assert_eq!((forged.header("x-balancer"), forged.header("cache-control")), (None, None));
}
