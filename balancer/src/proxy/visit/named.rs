//! The servers that a request's cookies name.

use crate::http::request::Request;
use crate::persist::decide::{Finding, Refused};
use crate::persist::{CookieMethod, cookie};
use crate::server::Servers;

/// Values of our cookie that are looked at: a client has one. Several mean a mistake that the first few show.
const COOKIE_VALUES: usize = 4;

/// The values of our cookie in a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named {
    /// The servers that they name, in order.
    servers: [usize; COOKIE_VALUES],
    count: usize,
    /// There was at least one value, known or not.
    pub(super) present: bool,
}

impl Named {
    pub(super) fn read(request: &Request<'_, '_>, method: &CookieMethod, servers: &Servers) -> Self {
        let mut named = Self::default();
        for value in request.cookie_headers().flat_map(|header| cookie::values(header, &method.name)) {
            named.present = true;
            if let Some(server) = servers.by_cookie(value) {
                named.note(server);
            }
        }
        named
    }

    /// Repetition must not push out the one value that could be used.
    fn note(&mut self, server: usize) {
        if self.count < COOKIE_VALUES && !self.servers[..self.count].contains(&server) {
            self.servers[self.count] = server;
            self.count += 1;
        }
    }

    /// The first usable one, else the first that names anybody.
    pub(super) fn finding(&self, servers: &Servers, refused: &Refused) -> Finding {
        let known = &self.servers[..self.count];
        let usable = |server: &&usize| servers[**server].state().keeps_users() && !refused.contains(**server);
        match known.iter().find(usable).or(known.first()) {
            Some(&server) => Finding::server(server),
            None if self.present => Finding::Invalid,
            None => Finding::Missing,
        }
    }
}
