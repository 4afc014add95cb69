//! One check.

use std::borrow::Cow;

use serde::Serialize;

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Things go on, but slower, or only through the proxy, or it could not be looked at.
    Warning,
    /// A start would fail, or the fast path would not work there at all.
    Missing,
}

impl State {
    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        }
    }
}

/// A check and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Row {
    /// What was looked at, and of what: `mtu eth0`.
    pub check: String,
    /// How it stands.
    pub state: State,
    /// What was found, and what follows from it.
    pub detail: String,
    /// What to type so that it is ok, or what to change.
    pub mend: Option<String>,
}

impl Row {
    /// As it should be.
    pub fn ok(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, State::Ok, detail)
    }

    /// Not as good as it could be.
    pub fn warning(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, State::Warning, detail)
    }

    /// Not there.
    pub fn missing(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(check, State::Missing, detail)
    }

    fn new(check: impl Into<String>, state: State, detail: impl Into<String>) -> Self {
        Self { check: check.into(), state, detail: detail.into(), mend: None }
    }

    /// What to type.
    #[must_use]
    pub fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    /// What to type, if it is known.
    #[must_use]
    pub fn mend_if(self, mend: Option<String>) -> Self {
        Self { mend, ..self }
    }
}

/// A word of a shell's command line. Names of interfaces may hold almost anything.
pub(super) fn word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:@/+=,%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(word("eth0.5"), "eth0.5");
        assert_eq!(word("a;reboot"), "'a;reboot'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
    }
}
