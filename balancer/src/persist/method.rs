//! The methods of the list and their options, as `--persist` gives them.

use crate::config::Statuses;

/// One `--persist` of the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Method {
    /// `cookie=NAME`: the server's id travels in a cookie.
    Cookie(CookieMethod),
    /// `session=NAME`: the application's own session id, in a learned table.
    Session(SessionMethod),
    /// `route=NAME`: the server's id at the end of the application's session id (Tomcat's jvmRoute).
    Route(RouteMethod),
    /// `header=NAME`: the value of a header, in a learned table.
    Header(ValueMethod),
    /// `query=NAME`: the value of a parameter of the query, in a learned table.
    Query(ValueMethod),
    /// `source`: the client's address, in a learned table, which XDP reads.
    Source(SourceMethod),
}

impl Method {
    /// The word that the method's flag begins with.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Session(_) => "session",
            Self::Route(_) => "route",
            Self::Header(_) => "header",
            Self::Query(_) => "query",
            Self::Source(_) => "source",
        }
    }

    /// The method as in its flag, without options; its table is called like that.
    pub fn label(&self) -> String {
        let name = match self {
            Self::Cookie(cookie) => &cookie.name,
            Self::Session(session) => &session.name,
            Self::Route(route) => &route.name,
            Self::Header(value) | Self::Query(value) => &value.name,
            Self::Source(_) => return self.kind().to_owned(),
        };
        format!("{}={name}", self.kind())
    }

    /// What the client says by this method only the application can change: after a move it goes on naming the old
    /// server.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Cookie(cookie) => cookie.mode != CookieMode::Insert,
            Self::Route(_) => true,
            Self::Session(_) | Self::Header(_) | Self::Query(_) | Self::Source(_) => false,
        }
    }

    /// An answer with that status makes a new entry of a key that is not known. A known one is pointed at whoever answers,
    /// whatever the answer.
    pub fn creates(&self, status: u16) -> bool {
        match self {
            Self::Cookie(_) | Self::Route(_) => false,
            Self::Session(session) => session.learn_status.contains(status),
            Self::Header(_) | Self::Query(_) => matches!(status, 200..=399 | 401),
            // An address is nothing that the application has issued.
            Self::Source(_) => true,
        }
    }

    /// The options of its learned table, if it has one.
    pub fn table(&self) -> Option<&TableOptions> {
        match self {
            Self::Cookie(_) | Self::Route(_) => None,
            Self::Session(session) => Some(&session.table),
            Self::Header(value) | Self::Query(value) => Some(&value.table),
            Self::Source(source) => Some(&source.table),
        }
    }
}

/// Options of `cookie=`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CookieMethod {
    /// The cookie's name, compared exactly.
    pub name: String,
    /// What becomes of the cookie on its way.
    pub mode: CookieMode,
    /// The servers do not see the cookie.
    pub indirect: bool,
    /// Answers in which a cookie is inserted are made private.
    pub nocache: bool,
    /// A cookie is only inserted in answers to POST.
    pub postonly: bool,
    /// A cookie of that name which a server sets passes, and suppresses ours.
    pub preserve: bool,
    /// What follows the value in a cookie that is inserted.
    pub attributes: CookieAttributes,
    /// `maxidle=`, in seconds: a cookie that was last seen longer ago counts for nothing.
    pub max_idle: Option<u32>,
    /// `maxlife=`, in seconds: the same for a cookie that was first seen longer ago.
    pub max_life: Option<u32>,
    /// `sign-key=`: values carry a code that only who knows the key can make.
    pub signer: Option<super::sign::Signer>,
    /// `dynamic-key=`: ids of servers without one are made of their address.
    pub dynamic_key: Option<String>,
}

impl CookieMethod {
    /// Its value says when the client was seen.
    pub fn is_dated(&self) -> bool {
        self.max_idle.is_some() || self.max_life.is_some()
    }
}

/// What becomes of the persistence cookie on its way. Exactly one of the modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CookieMode {
    /// Ours: added to answers.
    #[default]
    Insert,
    /// The application's: its value is replaced by the server's id.
    Rewrite,
    /// The application's: the server's id is put before its value, with a `~`.
    Prefix,
    /// The application's: only read.
    Passive,
}

/// The attributes of a cookie that is written, in the order in which they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CookieAttributes {
    /// `path=`; `/` unless given.
    pub path: Option<String>,
    /// `domain=`: a cookie for each.
    pub domains: Vec<String>,
    /// `max-age=`, in seconds.
    pub max_age: Option<u32>,
    /// `httponly`
    pub http_only: bool,
    /// `secure`
    pub secure: bool,
    /// `samesite=`, the word as it is written.
    pub same_site: Option<&'static str>,
    /// `attr=`, as they are.
    pub others: Vec<String>,
}

/// Where in a request a session id is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A cookie; names compare exactly.
    Cookie,
    /// `;NAME=value` in the path; names compare without case.
    Path,
    /// A parameter of the query; names compare without case.
    Query,
    /// A header.
    Header,
}

/// Options of `session=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionMethod {
    /// What the application calls its session id.
    pub name: String,
    /// Where it is looked for, in this order.
    pub places: Vec<Place>,
    /// The cookie's name only begins with [`Self::name`].
    pub is_prefix: bool,
    /// An answer that sets no id points the request's at the serving server.
    pub request_learn: bool,
    /// A new id is only learned from answers with such a status.
    pub learn_status: Statuses,
    /// Its table.
    pub table: TableOptions,
}

/// Options of `route=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteMethod {
    /// What the application calls its session id.
    pub name: String,
    /// Where it is looked for, in this order: cookie, path.
    pub places: Vec<Place>,
}

/// Options of `header=` and `query=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValueMethod {
    /// The header or parameter.
    pub name: String,
    /// Its table.
    pub table: TableOptions,
}

/// Options of `source`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceMethod {
    /// Its table.
    pub table: TableOptions,
    /// Leading bits of an IPv4 address that count.
    pub mask4: u8,
    /// Leading bits of an IPv6 address that count.
    pub mask6: u8,
}

/// Options of a learned table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableOptions {
    /// Life of an entry after its last use, in seconds.
    pub timeout: u32,
    /// Most entries that it holds.
    pub size: u32,
    /// A full table refuses new entries instead of forgetting old ones.
    pub nopurge: bool,
}
