//! What an answer does about the persistence cookie: whether it is issued, what becomes of one that the server sets, and
//! how both are written.

use super::dates;
use super::decide::Finding;
use super::method::{CookieAttributes, CookieMethod, CookieMode};
use super::trace::Verdict;
use super::{cookie, session};
use crate::server::Servers;

/// HAProxy's two letters of persistence, as they stand in its termination state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Letters {
    /// `N` none, `I` invalid, `D` names a down server, `V` valid, `E` last seen too long ago, `O` first seen too long ago,
    /// `U` present but unused, `-` no cookie method.
    pub request: char,
    /// `N` none, `I` inserted, `U` updated, `P` set by the server and left, `R` rewritten or prefixed, `D` deleted, `-` no
    /// cookie method.
    pub response: char,
}

impl Letters {
    /// For a service without a cookie method.
    pub const NO_COOKIE: Self = Self { request: '-', response: '-' };
}

/// What becomes of the persistence cookie in a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SetCookie {
    /// The client has the right one, or the server has no id, or only the application may set it and has not.
    #[default]
    Nothing,
    /// Ours is issued.
    Insert,
    /// The client has the right one, and gets it with a later date.
    Update,
    /// The serving server has no id and the client holds a cookie of ours: it is taken back.
    Delete,
    /// The server sets one, which passes as it is.
    Leave,
    /// The server sets one, which gets our id.
    Rewrite,
}

/// What the request said about the cookie method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CookieFacts {
    /// What the cookie named.
    pub finding: Finding,
    /// The step of the trace that belongs to the cookie method.
    pub verdict: Verdict,
    /// The client sent at least one cookie of that name.
    pub present: bool,
    /// The cookie names the serving server, and is to be written again all the same.
    pub refresh: bool,
    /// Why the cookie counts for nothing, if that is its age.
    pub stale: Option<dates::Age>,
    /// When the client was first seen, as its cookie says: unix seconds.
    pub first_seen: Option<u64>,
    /// The request is a POST.
    pub is_post: bool,
    /// `--persist-ignore` names its path: nothing decides, nothing is issued.
    pub ignored: bool,
}

/// What a server has set itself under the cookie's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ByServer {
    /// Nothing.
    #[default]
    Nothing,
    /// A value.
    Value,
    /// The client is to forget it.
    Deletion,
}

/// What to do about the cookie when the server at `serving` has answered.
pub fn set_cookie(
    method: &CookieMethod,
    facts: &CookieFacts,
    serving: usize,
    servers: &Servers,
    by_server: ByServer,
) -> SetCookie {
    let server_sets = by_server != ByServer::Nothing;
    match method.mode {
        CookieMode::Passive if server_sets => SetCookie::Leave,
        CookieMode::Prefix if by_server == ByServer::Deletion => SetCookie::Leave,
        // A prefix would be in the application's way; an id in place of its value is only of use where it binds.
        CookieMode::Rewrite if server_sets && facts.ignored => SetCookie::Leave,
        CookieMode::Rewrite | CookieMode::Prefix if server_sets && servers[serving].cookie.is_some() => {
            SetCookie::Rewrite
        }
        CookieMode::Insert => insert(method, facts, serving, servers, server_sets),
        CookieMode::Rewrite | CookieMode::Prefix if server_sets => SetCookie::Leave,
        CookieMode::Passive | CookieMode::Rewrite | CookieMode::Prefix => SetCookie::Nothing,
    }
}

fn insert(
    method: &CookieMethod,
    facts: &CookieFacts,
    serving: usize,
    servers: &Servers,
    server_sets: bool,
) -> SetCookie {
    if server_sets && (method.preserve || facts.ignored) {
        return SetCookie::Leave;
    }
    if facts.ignored {
        return SetCookie::Nothing;
    }
    let may_set = !method.postonly || facts.is_post;
    if servers[serving].cookie.is_none() {
        return if facts.present && may_set { SetCookie::Delete } else { SetCookie::Nothing };
    }
    let names_serving = matches!(facts.finding, Finding::Server { index, .. } if index == serving);
    match (names_serving && !server_sets, facts.refresh) {
        _ if !may_set => SetCookie::Nothing,
        (true, true) => SetCookie::Update,
        (true, false) => SetCookie::Nothing,
        (false, _) => SetCookie::Insert,
    }
}

/// The letter for what the request carried.
pub fn request_letter(facts: &CookieFacts) -> char {
    match facts.verdict {
        _ if facts.ignored => {
            if facts.present {
                'U'
            } else {
                'N'
            }
        }
        Verdict::Hit | Verdict::Ambiguous => 'V',
        Verdict::Outvoted | Verdict::Backup => 'U',
        Verdict::Down | Verdict::Maint => 'D',
        Verdict::Invalid => 'I',
        Verdict::Expired if facts.stale == Some(dates::Age::Old) => 'O',
        Verdict::Expired => 'E',
        Verdict::Miss => 'N',
    }
}

/// The letter for what the response carries.
pub fn response_letter(action: SetCookie) -> char {
    match action {
        SetCookie::Nothing => 'N',
        SetCookie::Insert => 'I',
        SetCookie::Update => 'U',
        SetCookie::Delete => 'D',
        SetCookie::Leave => 'P',
        SetCookie::Rewrite => 'R',
    }
}

/// What a server has set under `name`, going by all of its `set_cookies`. `now`: unix seconds.
pub fn by_server<'h>(name: &str, set_cookies: impl Iterator<Item = &'h [u8]>, now: u64) -> ByServer {
    let mut found = ByServer::Nothing;
    for header in set_cookies.filter(|header| cookie::set_cookie_name(header) == name.as_bytes()) {
        if !session::deletes(header, now) {
            return ByServer::Value;
        }
        found = ByServer::Deletion;
    }
    found
}

/// What is written into the head of a response.
#[derive(Clone, Copy, Debug)]
pub struct Issue<'a> {
    /// The cookie.
    pub method: &'a CookieMethod,
    /// What is done about it.
    pub action: SetCookie,
    /// The serving server's id.
    pub id: Option<&'a str>,
    /// When the client was first seen, as its cookie says: unix seconds.
    pub first_seen: Option<u64>,
    /// Unix seconds.
    pub now: u64,
}

impl Issue<'_> {
    /// A cookie is inserted or taken back, and no cache may keep the answer for others.
    pub fn is_private(&self) -> bool {
        let is_ours = matches!(self.action, SetCookie::Insert | SetCookie::Update | SetCookie::Delete);
        self.method.nocache && is_ours
    }

    /// Writes the line for a Set-Cookie header of the server that has the value `header`, called `name`. False: it is not
    /// about our cookie, or passes as it is, and nothing was written.
    pub fn write_theirs(&self, name: &str, header: &[u8], out: &mut Vec<u8>) -> bool {
        if cookie::set_cookie_name(header) != self.method.name.as_bytes() || self.action == SetCookie::Leave {
            return false;
        }
        match (self.method.mode, self.id) {
            (CookieMode::Insert, _) => true,
            (CookieMode::Rewrite, Some(id)) => {
                self.write_changed(name, header, &[id.as_bytes()], out);
                true
            }
            (CookieMode::Prefix, Some(id)) if !session::deletes(header, self.now) => {
                // As it stands there: a quoted value is read differently by some who read cookies.
                self.write_changed(name, header, &[id.as_bytes(), b"~", cookie::set_value(header)], out);
                true
            }
            (CookieMode::Rewrite | CookieMode::Prefix | CookieMode::Passive, _) => false,
        }
    }

    /// Writes the lines for ours.
    pub fn write_ours(&self, out: &mut Vec<u8>) {
        let is_deletion = match self.action {
            SetCookie::Insert | SetCookie::Update => false,
            SetCookie::Delete => true,
            SetCookie::Nothing | SetCookie::Leave | SetCookie::Rewrite => return,
        };
        let attributes = &self.method.attributes;
        let domains = attributes.domains.iter().map(|domain| Some(domain.as_str()));
        // Without domains the cookie is the host's; one cookie for each of several, since the last attribute of a name
        // is the only one that browsers look at (RFC 6265 §5.2.3).
        let without = attributes.domains.is_empty().then_some(None);
        for domain in domains.chain(without) {
            put(out, &[b"Set-Cookie: ", self.method.name.as_bytes(), b"="]);
            if is_deletion {
                // The date of HAProxy; any past one would do.
                put(out, &[b"; Expires=Thu, 01-Jan-1970 00:00:01 GMT"]);
            } else {
                self.write_value(out);
            }
            put(out, &[b"; path=", attributes.path.as_deref().unwrap_or("/").as_bytes()]);
            if let Some(domain) = domain {
                put(out, &[b"; domain=", domain.as_bytes()]);
            }
            attributes.write_rest(out, is_deletion, |_| true);
            put(out, &[b"\r\n"]);
        }
    }

    fn write_value(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.id.unwrap_or_default().as_bytes());
        if self.method.is_dated() {
            dates::write(out, self.now);
        }
        if self.method.max_life.is_some() {
            dates::write(out, self.first_seen.unwrap_or(self.now));
        }
        if let Some(signer) = &self.method.signer {
            signer.sign(out, start);
        }
    }

    /// The server's cookie with another value, and with the attributes that it has not set itself.
    fn write_changed(&self, name: &str, header: &[u8], value: &[&[u8]], out: &mut Vec<u8>) {
        let attributes = &self.method.attributes;
        let is_missing = |attribute: &str| cookie::attribute(header, attribute).is_none();
        let end = memchr::memchr(b';', header).unwrap_or(header.len());
        let domains = if is_missing("domain") { attributes.domains.as_slice() } else { &[] };
        let domains: Vec<_> = match domains {
            [] => vec![None],
            some => some.iter().map(Some).collect(),
        };
        for domain in domains {
            put(out, &[name.as_bytes(), b": ", self.method.name.as_bytes(), b"="]);
            put(out, value);
            put(out, &[&header[end..]]);
            if let Some(path) = attributes.path.as_deref().filter(|_| is_missing("path")) {
                put(out, &[b"; path=", path.as_bytes()]);
            }
            if let Some(domain) = domain {
                put(out, &[b"; domain=", domain.as_bytes()]);
            }
            attributes.write_rest(out, false, is_missing);
            put(out, &[b"\r\n"]);
        }
    }
}

impl CookieAttributes {
    /// Those after path and domain that `wants` is asked for by name. A deletion has no age of its own.
    fn write_rest(&self, out: &mut Vec<u8>, is_deletion: bool, wants: impl Fn(&str) -> bool) {
        let mut add = |name: &str, text: &[&str]| {
            if wants(name) {
                out.extend_from_slice(b"; ");
                text.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
            }
        };
        if let Some(age) = self.max_age.filter(|_| !is_deletion) {
            add("max-age", &["Max-Age=", itoa::Buffer::new().format(age)]);
        }
        if self.http_only {
            add("httponly", &["HttpOnly"]);
        }
        if self.secure {
            add("secure", &["Secure"]);
        }
        if let Some(word) = self.same_site {
            add("samesite", &["SameSite=", word]);
        }
        for other in &self.others {
            let name = other.split_once('=').map_or(other.as_str(), |(name, _)| name);
            add(name.trim(), &[other]);
        }
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persist::tests::cookie_method;
    use crate::server::Server;
    use crate::server::tests::{named, servers};

    const NOW: u64 = 1_700_000_000;

    fn facts(finding: Finding, verdict: Verdict) -> CookieFacts {
        CookieFacts {
            finding,
            verdict,
            present: finding != Finding::Missing,
            refresh: false,
            stale: None,
            first_seen: None,
            is_post: false,
            ignored: false,
        }
    }

    fn new_client() -> CookieFacts {
        facts(Finding::Missing, Verdict::Miss)
    }

    fn bound() -> CookieFacts {
        facts(Finding::server(0), Verdict::Hit)
    }

    #[test]
    fn what_is_done_about_the_cookie() {
        use ByServer::{Deletion, Nothing, Value};
        let set = servers(2);
        let moved = facts(Finding::server(1), Verdict::Down);
        let ignored = |facts: CookieFacts| CookieFacts { ignored: true, ..facts };
        let post = |facts: CookieFacts| CookieFacts { is_post: true, ..facts };
        let dated = CookieFacts { refresh: true, ..bound() };
        let table = [
            ("cookie=SRV", new_client(), Nothing, SetCookie::Insert),
            ("cookie=SRV", bound(), Nothing, SetCookie::Nothing),
            ("cookie=SRV", bound(), Value, SetCookie::Insert),
            ("cookie=SRV", moved, Nothing, SetCookie::Insert),
            ("cookie=SRV,preserve", new_client(), Value, SetCookie::Leave),
            ("cookie=SRV,preserve", new_client(), Deletion, SetCookie::Leave),
            ("cookie=SRV,preserve", new_client(), Nothing, SetCookie::Insert),
            ("cookie=SRV,postonly", new_client(), Nothing, SetCookie::Nothing),
            ("cookie=SRV,postonly", post(new_client()), Nothing, SetCookie::Insert),
            ("cookie=SRV,maxidle=30m", dated, Nothing, SetCookie::Update),
            ("cookie=SRV", ignored(new_client()), Nothing, SetCookie::Nothing),
            ("cookie=SRV", ignored(new_client()), Value, SetCookie::Leave),
            ("cookie=SRV,rewrite", new_client(), Nothing, SetCookie::Nothing),
            ("cookie=SRV,rewrite", bound(), Value, SetCookie::Rewrite),
            ("cookie=SRV,rewrite", ignored(bound()), Value, SetCookie::Leave),
            ("cookie=SRV,prefix", new_client(), Nothing, SetCookie::Nothing),
            ("cookie=SRV,prefix", new_client(), Value, SetCookie::Rewrite),
            ("cookie=SRV,prefix", ignored(new_client()), Value, SetCookie::Rewrite),
            ("cookie=SRV,prefix", bound(), Deletion, SetCookie::Leave),
            ("cookie=SRV,passive", new_client(), Nothing, SetCookie::Nothing),
            ("cookie=SRV,passive", new_client(), Value, SetCookie::Leave),
        ];
        for (options, facts, by_server, expected) in table {
            let found = set_cookie(&cookie_method(options), &facts, 0, &set, by_server);
            assert_eq!(found, expected, "{options} {facts:?} {by_server:?}");
        }
    }

    #[test]
    fn a_server_without_id_gets_no_cookie_and_takes_back_what_is_there() {
        let nameless = Server::new("s3".into(), None, named(3).address, named(3).identity);
        let set = crate::server::Servers::new(vec![nameless]);
        let done = |facts| set_cookie(&cookie_method("cookie=SRV"), &facts, 0, &set, ByServer::Nothing);
        assert_eq!(done(new_client()), SetCookie::Nothing);
        assert_eq!(done(facts(Finding::Invalid, Verdict::Invalid)), SetCookie::Delete);
    }

    #[test]
    fn letters() {
        let table = [
            (new_client(), 'N'),
            (bound(), 'V'),
            (facts(Finding::server(1), Verdict::Down), 'D'),
            (facts(Finding::server(1), Verdict::Outvoted), 'U'),
            (facts(Finding::Invalid, Verdict::Invalid), 'I'),
            (CookieFacts { stale: Some(dates::Age::Idle), ..facts(Finding::Expired, Verdict::Expired) }, 'E'),
            (CookieFacts { stale: Some(dates::Age::Old), ..facts(Finding::Expired, Verdict::Expired) }, 'O'),
            (CookieFacts { ignored: true, ..bound() }, 'U'),
        ];
        for (facts, letter) in table {
            assert_eq!(request_letter(&facts), letter, "{facts:?}");
        }
    }

    fn ours(options: &str, action: SetCookie, first_seen: Option<u64>) -> String {
        let method = cookie_method(options);
        let issue = Issue { method: &method, action, id: Some("s1"), first_seen, now: NOW };
        let mut out = Vec::new();
        issue.write_ours(&mut out);
        String::from_utf8(out).expect("ASCII").replace("\r\n", "\n")
    }

    #[test]
    fn ours_is_written() {
        let insert = |options| ours(options, SetCookie::Insert, None);
        assert_eq!(insert("cookie=SRV"), "Set-Cookie: SRV=s1; path=/\n");
        assert_eq!(
            insert("cookie=SRV,attr=Priority=High,secure,samesite=lax,httponly,path=/app,domain=a.example"),
            "Set-Cookie: SRV=s1; path=/app; domain=a.example; HttpOnly; Secure; SameSite=Lax; Priority=High\n"
        );
        assert_eq!(
            insert("cookie=SRV,domain=a.example,domain=b.example,max-age=1h"),
            "Set-Cookie: SRV=s1; path=/; domain=a.example; Max-Age=3600\n\
             Set-Cookie: SRV=s1; path=/; domain=b.example; Max-Age=3600\n"
        );
        assert_eq!(
            ours("cookie=SRV,max-age=1h", SetCookie::Delete, None),
            "Set-Cookie: SRV=; Expires=Thu, 01-Jan-1970 00:00:01 GMT; path=/\n"
        );
        assert_eq!(ours("cookie=SRV", SetCookie::Nothing, None), "");
    }

    #[test]
    fn ours_is_dated() {
        let mut dates = Vec::new();
        dates::write(&mut dates, NOW);
        let now = String::from_utf8(dates).expect("ASCII");
        assert_eq!(
            ours("cookie=SRV,maxidle=30m", SetCookie::Update, None),
            format!("Set-Cookie: SRV=s1{now}; path=/\n")
        );
        assert_eq!(
            ours("cookie=SRV,maxidle=30m,maxlife=8h", SetCookie::Insert, None),
            format!("Set-Cookie: SRV=s1{now}{now}; path=/\n")
        );
        assert_eq!(
            ours("cookie=SRV,maxlife=8h", SetCookie::Update, Some(0)),
            format!("Set-Cookie: SRV=s1{now}|AAAAA; path=/\n")
        );
    }

    fn theirs(options: &str, header: &str) -> Option<String> {
        let method = cookie_method(options);
        let action = set_cookie(
            &method,
            &new_client(),
            0,
            &servers(1),
            by_server(&method.name, std::iter::once(header.as_bytes()), NOW),
        );
        let issue = Issue { method: &method, action, id: Some("s1"), first_seen: None, now: NOW };
        let mut out = Vec::new();
        let is_done = issue.write_theirs("Set-Cookie", header.as_bytes(), &mut out);
        is_done.then(|| String::from_utf8(out).expect("ASCII").replace("\r\n", "\n"))
    }

    #[test]
    fn what_a_server_sets_is_taken_out_left_or_changed() {
        let some = |text: &str| Some(text.to_owned());
        let table = [
            ("cookie=SRV", "SRV=x; Path=/", some("")),
            ("cookie=SRV", "a=b", None),
            ("cookie=SRV,preserve", "SRV=x", None),
            ("cookie=SRV,rewrite", "SRV=x; Path=/", some("Set-Cookie: SRV=s1; Path=/\n")),
            ("cookie=SRV,rewrite", "SRV=", some("Set-Cookie: SRV=s1\n")),
            ("cookie=JS,prefix", "JS=abc; Path=/", some("Set-Cookie: JS=s1~abc; Path=/\n")),
            ("cookie=JS,prefix", "JS=; Max-Age=0", None),
            (
                "cookie=JS,prefix,httponly,secure,domain=a.example",
                "JS=abc; secure; Domain=b.example",
                some("Set-Cookie: JS=s1~abc; secure; Domain=b.example; HttpOnly\n"),
            ),
            (
                "cookie=JS,prefix,domain=a.example,domain=b.example",
                "JS=abc",
                some("Set-Cookie: JS=s1~abc; domain=a.example\nSet-Cookie: JS=s1~abc; domain=b.example\n"),
            ),
            ("cookie=JS,passive", "JS=s1", None),
        ];
        for (options, header, expected) in table {
            assert_eq!(theirs(options, header), expected, "{options} {header}");
        }
    }
}
