//! Commands about tables, in HAProxy's words: `show table`, `set table`, `clear table` (pure).

use crate::table::Key;
use crate::table::hash::unhex;

/// Conditions of one command, as in HAProxy.
const MOST_CONDITIONS: usize = 4;

const BEFORE_A_VALUE: [&str; 5] = ["key", "data.server_key", "data.server_id", "eq", "ne"];

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) verb: Verb,
    /// `None`: all of them.
    pub(super) table: Option<String>,
    pub(super) which: Which,
    pub(super) form: Form,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    /// `show`
    Show,
    /// `set`: the entry is to name this server.
    Set(Server),
    /// `clear`
    Clear,
}

/// A server as the command gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Server {
    /// `data.server_key`
    Name(String),
    /// `data.server_id`
    Id(u16),
}

/// Which entries are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Which {
    /// Those that meet all conditions; without one all.
    All(Vec<Condition>),
    /// `key`: as clients send it.
    Key(String),
    /// `ptr`: as it is shown.
    Pointer(Key),
}

/// `data.server_id OP N`, `data.server_key eq|ne NAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    pub(super) server: Server,
    pub(super) operator: Comparison,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What the answer looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// As HAProxy writes it.
    HaProxy,
    /// `text`: a table for people.
    Text,
    /// `json`
    Json,
}

impl Ask {
    /// `None`: the command is not about tables. An error says what is wrong, in HAProxy's words where it has some.
    pub(super) fn parse(text: &str) -> Option<Result<Self, (Form, String)>> {
        let mut words = words(text);
        let (verb, noun) = (words.first()?.clone(), words.get(1)?.clone());
        let verb = match (verb.as_str(), noun.as_str()) {
            ("show", "table" | "tables") => "show",
            ("set", "table") => "set",
            ("clear", "table") => "clear",
            _ => return None,
        };
        // A key or a server may be called like that, too.
        let is_value =
            words.iter().rev().nth(1).is_some_and(|before| BEFORE_A_VALUE.contains(&before.as_str()));
        let form = match words.last().map(String::as_str) {
            Some("json") if !is_value => Form::Json,
            Some("text") if !is_value => Form::Text,
            _ => Form::HaProxy,
        };
        if form != Form::HaProxy {
            words.pop();
        }
        Some(Self::read(verb, words.into_iter().skip(2), form).map_err(|error| (form, error)))
    }

    fn read(verb: &str, mut words: impl Iterator<Item = String>, form: Form) -> Result<Self, String> {
        let table = words.next();
        if table.is_none() && verb != "show" {
            return Err("\"table\" parameter expected".into());
        }
        let (mut which, mut server) = (Which::All(Vec::new()), None);
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or_else(|| format!("a value is missing after {word:?}"));
            match (word.as_str(), &mut which) {
                ("key", _) => which = Which::Key(next()?),
                ("ptr", _) => which = Which::Pointer(pointer(&next()?)?),
                (data, _) if verb == "set" => server = Some(read_server(data, next()?)?),
                (data, Which::All(conditions)) if conditions.len() < MOST_CONDITIONS => {
                    let operator = comparison(&next()?)?;
                    let condition = Condition { operator, server: read_server(data, next()?)? };
                    let is_order = !matches!(operator, Comparison::Equal | Comparison::NotEqual);
                    if is_order && matches!(condition.server, Server::Name(_)) {
                        return Err("server_key is compared with eq or ne".into());
                    }
                    conditions.push(condition);
                }
                (other, _) => return Err(format!("{other:?} is one too many")),
            }
        }
        let verb = match (verb, server) {
            ("set", Some(_)) if matches!(which, Which::All(_)) => return Err("Key value expected".into()),
            ("set", Some(server)) => Verb::Set(server),
            ("set", None) => return Err("\"data.server_key\" with the name of a server is missing".into()),
            ("clear", _) => Verb::Clear,
            _ => Verb::Show,
        };
        Ok(Self { verb, table, which, form })
    }
}

fn read_server(data: &str, value: String) -> Result<Server, String> {
    match data {
        "data.server_key" => Ok(Server::Name(value)),
        "data.server_id" => {
            value.parse().map(Server::Id).map_err(|_| "Require a valid integer value to store".to_owned())
        }
        _ if data.starts_with("data.") => Err(format!(
            "Data type not stored in this table: {data:?}; there are data.server_id and data.server_key"
        )),
        other => {
            Err(format!("{other:?} is not known; there are key, ptr, data.server_id and data.server_key"))
        }
    }
}

fn comparison(text: &str) -> Result<Comparison, String> {
    Ok(match text {
        "eq" => Comparison::Equal,
        "ne" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "le" => Comparison::LessOrEqual,
        "gt" => Comparison::Greater,
        "ge" => Comparison::GreaterOrEqual,
        _ => return Err("Require and operator among \"eq\", \"ne\", \"le\", \"ge\", \"lt\", \"gt\"".into()),
    })
}

fn pointer(text: &str) -> Result<Key, String> {
    let digits = text.strip_prefix("0x").and_then(|digits| unhex(digits.as_bytes()));
    digits.ok_or_else(|| "Invalid ptr; write it as it is shown, 0x and 32 hex digits".to_owned())
}

/// Words between spaces; a backslash takes what follows it as it is.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let c = if c == '\\' { characters.next().unwrap_or(c) } else { c };
        word.get_or_insert_default().push(c);
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Ask {
        match Ask::parse(text) {
            Some(Ok(ask)) => ask,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn ask(verb: Verb, table: Option<&str>, which: Which, form: Form) -> Ask {
        Ask { verb, table: table.map(ToOwned::to_owned), which, form }
    }

    #[test]
    fn commands_in_haproxys_words() {
        let all = || Which::All(Vec::new());
        let key = |text: &str| Which::Key(text.into());
        let name = |text: &str| Server::Name(text.into());
        let pointer = format!("show table T ptr 0x{}", "0f".repeat(16));
        let conditions = vec![
            Condition { server: Server::Id(3), operator: Comparison::GreaterOrEqual },
            Condition { server: name("s1"), operator: Comparison::NotEqual },
        ];
        let table = [
            ("show table", ask(Verb::Show, None, all(), Form::HaProxy)),
            ("show  tables json", ask(Verb::Show, None, all(), Form::Json)),
            ("show table T text", ask(Verb::Show, Some("T"), all(), Form::Text)),
            ("show table T key a", ask(Verb::Show, Some("T"), key("a"), Form::HaProxy)),
            ("show table T key json", ask(Verb::Show, Some("T"), key("json"), Form::HaProxy)),
            ("show table T key json json", ask(Verb::Show, Some("T"), key("json"), Form::Json)),
            ("show table T key a\\ b\\\\\\;", ask(Verb::Show, Some("T"), key("a b\\;"), Form::HaProxy)),
            (&pointer, ask(Verb::Show, Some("T"), Which::Pointer([15; 16]), Form::HaProxy)),
            (
                "show table T data.server_id ge 3 data.server_key ne s1",
                ask(Verb::Show, Some("T"), Which::All(conditions), Form::HaProxy),
            ),
            (
                "set table T key a data.server_key s1",
                ask(Verb::Set(name("s1")), Some("T"), key("a"), Form::HaProxy),
            ),
            (
                "set table T key a data.server_id 7",
                ask(Verb::Set(Server::Id(7)), Some("T"), key("a"), Form::HaProxy),
            ),
            (
                "set table T key text data.server_key json",
                ask(Verb::Set(name("json")), Some("T"), key("text"), Form::HaProxy),
            ),
            ("clear table T", ask(Verb::Clear, Some("T"), all(), Form::HaProxy)),
            ("clear table T key a", ask(Verb::Clear, Some("T"), key("a"), Form::HaProxy)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let table = [
            ("clear table", "\"table\" parameter expected"),
            ("set table T data.server_key s1", "Key value expected"),
            ("set table T key a", "\"data.server_key\" with the name of a server is missing"),
            ("set table T key a data.gpc0 5", "Data type not stored in this table: \"data.gpc0\""),
            ("set table T key a data.server_id x", "Require a valid integer value to store"),
            ("set table T key", "a value is missing after \"key\""),
            ("show table T key a b", "\"b\" is one too many"),
            ("show table T key a data.server_id eq 1", "\"data.server_id\" is one too many"),
            ("show table T data.server_id is 1", "Require and operator among"),
            ("show table T data.server_key lt s1", "server_key is compared with eq or ne"),
            ("show table T ptr 0x7f", "Invalid ptr"),
            ("show table T frobnicate eq 1", "\"frobnicate\" is not known"),
        ];
        for (text, expected) in table {
            match Ask::parse(text) {
                Some(Err((Form::HaProxy, error))) => assert!(error.starts_with(expected), "{text}: {error}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["", "show", "show info", "set server s1 drain", "clear counters", "SHOW TABLE"] {
            assert_eq!(Ask::parse(text), None, "{text}");
        }
    }
}
