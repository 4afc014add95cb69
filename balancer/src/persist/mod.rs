//! Persistence: one ordered list of methods decides which server a request goes to.
//!
//! | module | what it does |
//! |---|---|
//! | [`named`], [`session`] | what a request says: servers by name, ids of the application |
//! | [`decide`] | request → server: the first method that names a usable server |
//! | [`learn`] | answer → where a table's entry points |
//! | [`issue`] | answer → the cookie: whether it is issued, and how it is written |
//! | [`trace`] | what each method found, for the log and the operator |
//! | [`cookie`], [`cookie_date`] | cookies in headers: finding, taking out, changing |
//! | [`method`] | the methods and their options |
//! | [`dates`], [`sign`] | what a cookie's value says beside the id |
//! | [`dynamic`] | ids made of addresses |
//!
//! `decide` and `learn` are pure: facts and `now` in, decisions out. They read no clock and touch no table.
//!
//! # What a request can cost
//!
//! A client can write what it likes into a head, as long as `--max-head` lets it pass. Each of at most [`MAX_METHODS`]
//! methods goes through the head once for each of its places; nothing is compared with everything else in it. Of what is
//! found, a method keeps four servers ([`named`]), has eight codes verified (`sign-key=`), and asks its table for
//! [`session::MOST_IDS`] keys. An answer writes one key to each table, and a second one where it sets a new id.

pub mod cookie;
pub mod cookie_date;
pub mod dates;
pub mod decide;
pub mod dynamic;
pub mod issue;
pub mod learn;
pub mod method;
pub mod named;
pub mod session;
pub mod sign;
pub mod trace;

pub use method::{
    CookieAttributes, CookieMethod, CookieMode, Method, Place, RouteMethod, SessionMethod, SourceMethod,
    TableOptions, ValueMethod,
};

/// At most this many `--persist` methods: keeps the trace of a request on the stack.
pub const MAX_METHODS: usize = 8;

/// The ordered list. At most one `cookie` and one `source`, no method twice, at most [`MAX_METHODS`]: `Config` has
/// checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    methods: Vec<Method>,
    labels: Vec<String>,
}

impl List {
    /// The methods in the order of the command line.
    pub fn new(methods: Vec<Method>) -> Self {
        assert!(methods.len() <= MAX_METHODS, "Config limits the list");
        let is_alone =
            |method: &Method| methods.iter().filter(|other| other.kind() == method.kind()).count() == 1;
        let label =
            |method: &Method| if is_alone(method) { method.kind().to_owned() } else { method.label() };
        let labels = methods.iter().map(label).collect();
        Self { methods, labels }
    }

    /// In order of evaluation.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// What each method is called in traces: its kind, and its name where there are several of a kind.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The cookie method, if there is one.
    pub fn cookie(&self) -> Option<&CookieMethod> {
        self.methods
            .iter()
            .find_map(|method| if let Method::Cookie(cookie) = method { Some(cookie) } else { None })
    }

    /// The source method, if there is one.
    pub fn source(&self) -> Option<&SourceMethod> {
        self.methods
            .iter()
            .find_map(|method| if let Method::Source(source) = method { Some(source) } else { None })
    }

    /// The learned tables: the method's place in the list, the table's name, its options.
    pub fn tables(&self) -> impl Iterator<Item = (usize, String, &TableOptions)> {
        let methods = self.methods.iter().enumerate();
        methods.filter_map(|(place, method)| Some((place, method.label(), method.table()?)))
    }

    /// Source affinity decides before everything else, so a connection can be steered without seeing its bytes.
    pub fn source_is_first(&self) -> bool {
        matches!(self.methods.first(), Some(Method::Source(_)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The method that a flag's value means.
    pub(crate) fn method(text: &str) -> Method {
        let list = crate::config::persist_list(&[text.to_owned()]).expect(text);
        list.methods()[0].clone()
    }

    /// The same for a cookie.
    pub(crate) fn cookie_method(text: &str) -> CookieMethod {
        match method(text) {
            Method::Cookie(cookie) => cookie,
            other => panic!("{other:?} is no cookie"),
        }
    }

    #[test]
    fn methods_are_called_by_their_kind_unless_there_are_several() {
        let list = |texts: &[&str]| {
            let methods = texts.iter().map(|text| method(text)).collect();
            List::new(methods).labels().to_vec()
        };
        assert_eq!(list(&["cookie=SRV", "session=JS", "source"]), ["cookie", "session", "source"]);
        assert_eq!(list(&["session=A", "header=X", "session=B"]), ["session=A", "header", "session=B"]);
    }
}
