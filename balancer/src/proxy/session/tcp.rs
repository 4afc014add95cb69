//! A connection with `--mode tcp`: a server is chosen by the client's address and reached as for a request; then bytes
//! go both ways as they come.

use std::time::Instant;

use super::clock::Clock;
use super::{Outcome, Session};
use crate::persist::issue::SetCookie;
use crate::proxy::upstream::Reuse;
use crate::visit::Visit;

impl Session {
    /// From the first look at the tables to the line in the log.
    pub(super) async fn serve_connection(&mut self) {
        let mut clock = Clock::new(*self.started.get_or_insert_with(Instant::now), false);
        self.shared.stats.visit_begins();
        self.shared.stats.roll.asks(self.present);
        let mut visit = Visit::of_connection(&self.shared.books, self.peer.ip());
        let outcome = match self.reach(&mut visit, &mut clock, Reuse::Never, None).await {
            Ok(mut upstream) => {
                // That it accepts is all the answer that can be told from others.
                visit.answered(None);
                clock.answered();
                let (bytes, failure) = self.pass_bytes(&mut upstream).await;
                Outcome { status: None, bytes, failure, issued: Some(SetCookie::Nothing) }
            }
            Err(failure) => Outcome { status: None, bytes: 0, failure: Some(failure), issued: None },
        };
        self.account_connection(&visit, &clock, &outcome);
    }
}
