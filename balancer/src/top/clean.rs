//! Text of the instance on its way to the terminal: servers have names that somebody chose, and traces tell of what
//! clients have sent. None of it may move the cursor, turn the direction of writing, or push a column aside.

use std::fmt;

use serde::{Deserialize, Deserializer};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Stands for a character that is not shown.
const HIDDEN: char = '?';

/// The longest text that is kept: a line of any terminal, several times.
const LONGEST: usize = 4096;

/// Text that a terminal takes as text: one line, each character one or two columns wide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Clean(String);

impl Clean {
    /// What is left of `text`, with a question mark for each character that is not just written.
    pub fn new(text: &str) -> Self {
        Self(text.chars().take(LONGEST).map(|c| if is_harmless(c) { c } else { HIDDEN }).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Clean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Clean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(&text))
    }
}

/// Without a width are control characters (`None`), and marks, joiners and directions (zero).
fn is_harmless(c: char) -> bool {
    // Newer than some terminals' tables, or shown in a font of the reader's own: the width is anybody's guess.
    let is_private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    c.width().is_some_and(|width| width > 0) && !is_private
}

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text if it fits into so many columns, else its beginning and a mark.
pub(super) fn fit(text: &str, columns: usize, mark: char) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let mut used = 0;
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= room
        })
        .collect();
    cut.extend((columns > 0).then_some(mark));
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_text_is_left() {
        let table = [
            ("s1", "s1"),
            ("a\x1b[2Jb", "a?[2Jb"),
            ("a\u{9b}31mb", "a?31mb"),
            ("a\r\nb\tc\0", "a??b?c?"),
            ("a\u{202e}b\u{200b}c\u{301}", "a?b?c?"),
            ("\u{feff}\u{7f}\u{e000}", "???"),
            ("日本 é", "日本 é"),
        ];
        for (text, expected) in table {
            assert_eq!(Clean::new(text).as_str(), expected, "{text:?}");
        }
        assert_eq!(Clean::new(&"x".repeat(9999)).as_str().len(), LONGEST);
    }

    #[test]
    fn what_is_cut_says_so_and_has_the_width_that_there_is() {
        for (text, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab~"),
            ("日本語", 5, "日本~"),
            ("日本語", 4, "日~"),
            ("ab", 1, "~"),
            ("ab", 0, ""),
        ] {
            assert_eq!(fit(text, columns, '~'), expected, "{text} in {columns}");
        }
    }
}
