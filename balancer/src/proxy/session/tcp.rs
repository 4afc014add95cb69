//! A connection with `--mode tcp`: a server is chosen by the client's address and reached as for a request; then bytes
//! go both ways as they come.

use super::{Outcome, Session};
use crate::persist::issue::SetCookie;
use crate::proxy::upstream::Reuse;
use crate::visit::Visit;

impl Session {
    /// From the first look at the tables to the line in the log.
    pub(super) async fn serve_connection(&mut self) {
        if self.started.is_none() {
            self.started = self.shared.log.is_some().then(std::time::Instant::now);
        }
        let mut visit = Visit::of_connection(&self.shared.books, self.peer.ip());
        let outcome = match self.reach(&mut visit, Reuse::Never, None).await {
            Ok(mut upstream) => {
                // That it accepts is all the answer that can be told from others.
                visit.answered(None);
                let (bytes, failure) = self.pass_bytes(&mut upstream.connection).await;
                Outcome { status: None, bytes, failure, issued: Some(SetCookie::Nothing) }
            }
            Err(failure) => Outcome { status: None, bytes: 0, failure: Some(failure), issued: None },
        };
        self.account_connection(&visit, &outcome);
    }
}
