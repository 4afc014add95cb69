//! The servers that a request's cookies and routes name.

use super::cookie;
use super::dates::{self, Age, Dates};
use super::decide::{Finding, Scene};
use super::method::{CookieMethod, CookieMode, RouteMethod};
use super::session;
use super::sign::Signer;
use crate::http::request::Request;
use crate::server::Servers;

/// Servers that are remembered: a client's cookie names one. Several mean a mistake, which the first few show.
const VALUES: usize = 4;

/// Values whose code is verified (`sign-key=`): it costs a hash with every key, so a head that is full of such values must
/// not have them all. What comes behind them is taken for forged.
const MOST_VERIFIED: u8 = 8;

/// What the values of one method in a request name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named {
    /// The servers, in order, each once.
    servers: [Naming; VALUES],
    count: u8,
    /// The first value that was good once.
    stale: Option<Age>,
    /// A value names nobody.
    is_invalid: bool,
    verified: u8,
    /// There was at least one value of ours, good or not.
    pub present: bool,
}

/// A server that a value names.
#[derive(Clone, Copy, Debug, Default)]
struct Naming {
    server: usize,
    dates: Dates,
    /// The cookie is to be written again.
    refresh: bool,
}

impl Named {
    /// By the persistence cookie. `now`: unix seconds, for its dates.
    pub fn by_cookie(request: &Request<'_, '_>, method: &CookieMethod, servers: &Servers, now: u64) -> Self {
        let mut named = Self::default();
        for value in request.cookie_headers().flat_map(|header| cookie::values(header, &method.name)) {
            if method.mode == CookieMode::Prefix {
                // What has no server's id in front is the application's business.
                if let Some((server, _)) = split_prefix(value, servers) {
                    named.present = true;
                    match server {
                        Some(server) => named.note(Naming { server, ..Naming::default() }),
                        None => named.is_invalid = true,
                    }
                }
            } else {
                named.present = true;
                named.read(value, method, servers, now);
            }
        }
        named
    }

    /// By the route behind the application's session id.
    pub fn by_route(request: &Request<'_, '_>, method: &RouteMethod, servers: &Servers) -> Self {
        let mut named = Self::default();
        for place in &method.places {
            session::values(request, &method.name, *place, &mut |id| {
                let Some(dot) = memchr::memrchr(b'.', id) else { return };
                named.present = true;
                match servers.by_cookie(&id[dot + 1..]) {
                    Some(server) => named.note(Naming { server, ..Naming::default() }),
                    None => named.is_invalid = true,
                }
            });
        }
        named
    }

    /// The first usable one, else the first that names anybody.
    pub fn finding(&self, scene: &Scene<'_>) -> Finding {
        let known = &self.servers[..usize::from(self.count)];
        let usable = |naming: &&Naming| scene.is_usable(naming.server);
        match known.iter().find(usable).or(known.first()) {
            Some(naming) => Finding::server(naming.server),
            None if self.stale.is_some() => Finding::Expired,
            None if self.is_invalid => Finding::Invalid,
            None => Finding::Missing,
        }
    }

    /// The cookie names `server`, and is good: is it to be written again all the same?
    pub fn is_to_be_refreshed(&self, server: usize) -> bool {
        self.of(server).is_some_and(|naming| naming.refresh)
    }

    /// When the client was first seen: the cookie that names `serving` knows, else, after a move, the first one there is.
    pub fn first_seen(&self, serving: Option<usize>) -> Option<u64> {
        let first = || self.servers[..usize::from(self.count)].first();
        serving.and_then(|serving| self.of(serving)).or_else(first)?.dates.first
    }

    /// Why the cookie counts for nothing, if that is its age.
    pub fn stale(&self) -> Option<Age> {
        self.stale
    }

    fn read(&mut self, value: &[u8], method: &CookieMethod, servers: &Servers, now: u64) {
        let Some(value) = self.verify(value, method) else {
            self.is_invalid = true;
            return;
        };
        let is_dated = method.is_dated();
        // An id has no bar in it, so without dates a value that has one names nobody.
        let parts = if is_dated { dates::split(value) } else { Some((value, Dates::default())) };
        let Some((server, dates)) = parts.and_then(|(id, dates)| Some((servers.by_cookie(id)?, dates)))
        else {
            self.is_invalid = true;
            return;
        };
        let age = if is_dated {
            dates::check(dates, method.max_idle, method.max_life, now)
        } else {
            Age::Good { refresh: false }
        };
        match age {
            Age::Good { refresh } => self.note(Naming { server, dates, refresh }),
            Age::Idle | Age::Old => self.stale = self.stale.or(Some(age)),
        }
    }

    fn verify<'a>(&mut self, value: &'a [u8], method: &CookieMethod) -> Option<&'a [u8]> {
        let Some(signer) = &method.signer else { return Some(value) };
        // What has no code at the end costs nothing.
        if !Signer::is_signed(value) || self.verified == MOST_VERIFIED {
            return None;
        }
        self.verified += 1;
        signer.verify(value)
    }

    /// Repetition must not push out the one value that could be used.
    fn note(&mut self, naming: Naming) {
        let count = usize::from(self.count);
        if count < VALUES && self.of(naming.server).is_none() {
            self.servers[count] = naming;
            self.count += 1;
        }
    }

    fn of(&self, server: usize) -> Option<&Naming> {
        self.servers[..usize::from(self.count)].iter().find(|naming| naming.server == server)
    }
}

/// The server whose id stands before the first `~`, if it has not gone meanwhile, and what the application has set behind
/// it. `None`: the value is the application's as it is.
pub fn split_prefix<'a>(value: &'a [u8], servers: &Servers) -> Option<(Option<usize>, &'a [u8])> {
    let end = memchr::memchr(b'~', value)?;
    let (id, rest) = (&value[..end], &value[end + 1..]);
    let server = servers.by_cookie(id);
    (server.is_some() || servers.has_named(id)).then_some((server, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::http::fields::Slots;
    use crate::http::request;
    use crate::persist::decide::{Policy, Refused};
    use crate::persist::tests::{cookie_method, method};
    use crate::server::Operator;
    use crate::server::tests::servers;

    const NOW: u64 = 1_700_000_000;

    fn with<T>(target: &str, headers: &str, look: impl FnOnce(&Request<'_, '_>) -> T) -> T {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let mut slots = Slots::default();
        let request = request::parse(head.as_bytes(), &mut slots, &Limits::default()).expect("well-formed");
        look(&request.expect("whole"))
    }

    fn found(options: &str, cookie: &str) -> (Finding, Named) {
        let (set, method) = (servers(2), cookie_method(options));
        set.set_operator(1, Operator::Drain);
        let named = with("/", &format!("Cookie: {cookie}\r\n"), |request| {
            Named::by_cookie(request, &method, &set, NOW)
        });
        let scene = Scene { servers: &set, refused: &Refused::default(), policy: Policy::default() };
        (named.finding(&scene), named)
    }

    #[test]
    fn cookies_name_servers() {
        let table = [
            ("cookie=SRV", "a=b", Finding::Missing),
            ("cookie=SRV", "SRV=s2", Finding::server(1)),
            ("cookie=SRV", "SRV=zz", Finding::Invalid),
            ("cookie=SRV", "SRV=", Finding::Invalid),
            ("cookie=SRV", "SRV=zz; SRV=s2", Finding::server(1)),
            ("cookie=SRV", "SRV=s2|AAAAA", Finding::Invalid),
            ("cookie=SRV,prefix", "SRV=s2~abc", Finding::server(1)),
            ("cookie=SRV,prefix", "SRV=s2~", Finding::server(1)),
            ("cookie=SRV,prefix", "SRV=zz~abc", Finding::Missing),
            ("cookie=SRV,prefix", "SRV=s2", Finding::Missing),
            ("cookie=SRV,prefix", "SRV=a~s2~b", Finding::Missing),
            ("cookie=SRV,maxidle=30m", "SRV=s2", Finding::server(1)),
            ("cookie=SRV,maxidle=30m", "SRV=s2|AAAAA", Finding::Expired),
            ("cookie=SRV,maxidle=30m", "SRV=s2|AAAAA; SRV=s1", Finding::server(0)),
            ("cookie=SRV,maxidle=30m", "SRV=s2|xyz", Finding::Invalid),
        ];
        for (options, cookie, expected) in table {
            assert_eq!(found(options, cookie).0, expected, "{options} {cookie}");
        }
        assert_eq!(found("cookie=SRV,maxidle=30m", "SRV=s2|AAAAA").1.stale(), Some(Age::Idle));
        assert!(found("cookie=SRV,maxidle=30m", "SRV=s2").1.is_to_be_refreshed(1));
    }

    #[test]
    fn a_life_began_when_the_cookie_of_the_server_says() {
        let dated = |server: &str, first: u64| {
            let (mut out, now) = (server.as_bytes().to_vec(), NOW);
            dates::write(&mut out, now);
            dates::write(&mut out, first);
            format!("SRV={}", String::from_utf8(out).expect("ASCII"))
        };
        let cookie = format!("{}; {}", dated("s2", NOW - 60), dated("s1", NOW - 3600));
        let named = found("cookie=SRV,maxidle=30m,maxlife=8h", &cookie).1;
        let ago = |serving| NOW - named.first_seen(serving).expect("dated");
        assert!((56..64).contains(&ago(Some(1))) && (3596..3604).contains(&ago(Some(0))));
        assert!((56..64).contains(&ago(None)), "after a move it is the first there is");
    }

    #[test]
    fn repetition_pushes_nothing_out() {
        let cookie = format!("{}SRV=s2", "SRV=zz; ".repeat(1000));
        assert_eq!(found("cookie=SRV", &cookie).0, Finding::server(1));
    }

    #[test]
    fn only_the_first_few_codes_are_verified() {
        let folder = tempfile::tempdir().expect("folder");
        let keys = folder.path().join("keys");
        std::fs::write(&keys, "secret").expect("written");
        let options = format!("cookie=SRV,sign-key={}", keys.display());
        let mut good = b"s2".to_vec();
        cookie_method(&options).signer.expect("a key").sign(&mut good, 0);
        let behind = |forged: usize| {
            let values = "SRV=s2.AAAAAAAAAAAAAAAA; ".repeat(forged);
            found(&options, &format!("{values}SRV={}", String::from_utf8_lossy(&good))).0
        };
        assert_eq!(behind(0), Finding::server(1));
        assert_eq!(behind(usize::from(MOST_VERIFIED) - 1), Finding::server(1));
        assert_eq!(behind(usize::from(MOST_VERIFIED)), Finding::Invalid);
        let unsigned = format!("{}SRV={}", "SRV=; SRV=s1; ".repeat(50), String::from_utf8_lossy(&good));
        assert_eq!(found(&options, &unsigned).0, Finding::server(1), "what is not signed counts for nothing");
    }

    #[test]
    fn routes_name_servers() {
        let set = servers(2);
        let scene = Scene { servers: &set, refused: &Refused::default(), policy: Policy::default() };
        let table = [
            ("route=JS", "/", "JS=abc.s2", Finding::server(1)),
            ("route=JS", "/", "JS=a.s1.s2", Finding::server(1)),
            ("route=JS", "/", "JS=abc", Finding::Missing),
            ("route=JS", "/", "JS=abc.zz", Finding::Invalid),
            ("route=JS", "/a;js=abc.s2?x=y", "a=b", Finding::server(1)),
            ("route=JS,in=cookie", "/a;js=abc.s2", "a=b", Finding::Missing),
        ];
        for (options, target, cookie, expected) in table {
            let crate::persist::Method::Route(route) = method(options) else {
                panic!("{options} is no route")
            };
            let named = with(target, &format!("Cookie: {cookie}\r\n"), |request| {
                Named::by_route(request, &route, &set)
            });
            assert_eq!(named.finding(&scene), expected, "{options} {target} {cookie}");
        }
    }
}
