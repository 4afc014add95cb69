//! Persistence: one ordered list of methods decides which server a request goes to.
//!
//! | module | what it does |
//! |---|---|
//! | [`decide`] | request → server: the first method that names a usable server |
//! | [`learn`] | answer → what to write: the cookie to issue, the table entry to point |
//! | [`trace`] | what each method found, for the log and the operator |
//! | [`cookie`] | finding the persistence cookie in a request, and taking it out |
//!
//! `decide` and `learn` are pure: facts and `now` in, decisions out. They read no clock and touch no table.

pub mod cookie;
pub mod decide;
pub mod learn;
pub mod trace;

/// At most this many `--persist` methods: keeps the trace of a request on the stack.
pub const MAX_METHODS: usize = 8;

/// One `--persist` of the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Method {
    /// `cookie=NAME,insert[,indirect]`: the server's name travels in a cookie of ours.
    Cookie(CookieMethod),
    /// `source`: the client's address, in a learned table.
    Source(SourceMethod),
}

impl Method {
    /// The word used in traces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Cookie(_) => "cookie",
            Self::Source(_) => "source",
        }
    }
}

/// Options of `cookie=`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CookieMethod {
    /// The cookie's name, compared exactly.
    pub name: String,
    /// The servers do not see the cookie.
    pub indirect: bool,
}

/// Options of `source`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceMethod {
    /// Life of an entry after its last use, in seconds.
    pub timeout: u32,
    /// Most entries the table holds.
    pub size: u32,
}

/// The ordered list. At most one `cookie` and one `source`, at most [`MAX_METHODS`]: `Config` has checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List(Vec<Method>);

impl List {
    /// The methods in the order of the command line.
    pub fn new(methods: Vec<Method>) -> Self {
        assert!(methods.len() <= MAX_METHODS, "Config limits the list");
        Self(methods)
    }

    /// In order of evaluation.
    pub fn methods(&self) -> &[Method] {
        &self.0
    }

    /// The cookie method, if there is one.
    pub fn cookie(&self) -> Option<&CookieMethod> {
        self.0.iter().find_map(|method| if let Method::Cookie(cookie) = method { Some(cookie) } else { None })
    }

    /// The source method, if there is one.
    pub fn source(&self) -> Option<&SourceMethod> {
        self.0.iter().find_map(|method| if let Method::Source(source) = method { Some(source) } else { None })
    }

    /// Source affinity decides before everything else, so a connection can be steered without seeing its bytes.
    pub fn source_is_first(&self) -> bool {
        matches!(self.0.first(), Some(Method::Source(_)))
    }
}
