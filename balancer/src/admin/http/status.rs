//! What stands behind the `?` of `/status.json`: how many decisions are wanted. Pure.

use percent_encoding::percent_decode_str;

use super::super::decisions::MOST;

/// The only parameter.
const DECISIONS: &str = "decisions";

/// Of what is wrong, in the answer that says so.
const LONGEST_SHOWN: usize = 40;

/// How many of the last decisions are asked for.
///
/// # Errors
/// Which parameter is wrong, and what would be right.
pub(super) fn decisions(query: &str) -> Result<usize, String> {
    let mut wanted = None;
    for word in query.split('&').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let (name, value) = (decoded(name), decoded(value));
        if name != DECISIONS {
            return Err(wrong(&format!("there is no parameter {}", shown(&name))));
        }
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong(&format!("{DECISIONS} is {}, which is no number", shown(&value))));
        }
        // More than there can be is all of them.
        if wanted.replace(value.parse().unwrap_or(usize::MAX)).is_some() {
            return Err(wrong(&format!("{DECISIONS} is there twice")));
        }
    }
    Ok(wanted.unwrap_or(MOST))
}

fn wrong(what: &str) -> String {
    format!(
        "{what}; write /status.json?{DECISIONS}=10 for the last 10 decisions, or /status.json for all that are kept, at \
         most {MOST}\n"
    )
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// In quotes, with nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(LONGEST_SHOWN).collect();
    format!("{cut:?}{}", if cut.len() < text.len() { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_of_decisions_is_taken_and_anything_else_is_named() {
        for (query, expected) in [
            ("", MOST),
            ("&", MOST),
            ("decisions=0", 0),
            ("decisions=10", 10),
            ("&decisions=%310&", 10),
            ("decisions=99999999999999999999999", usize::MAX),
        ] {
            assert_eq!(decisions(query), Ok(expected), "{query}");
        }
        for (query, expected) in [
            ("decisions=abc", "decisions is \"abc\", which is no number; write /status.json?decisions=10"),
            ("decisions", "decisions is \"\", which is no number"),
            ("decisions=-1", "decisions is \"-1\""),
            ("decisions=+1", "decisions is \"+1\""),
            ("decision=10", "there is no parameter \"decision\"; write /status.json?decisions=10"),
            ("decisions=10&pretty", "there is no parameter \"pretty\""),
            ("decisions=1&decisions=2", "decisions is there twice"),
            ("%1b%5b31m%E2%80%AE=1", "there is no parameter \"\\u{1b}[31m\\u{202e}\""),
        ] {
            let why = decisions(query).expect_err(query);
            assert!(why.starts_with(expected) && why.ends_with("at most 1000\n"), "{query}: {why}");
        }
        let why = decisions(&"x".repeat(8000)).expect_err("no such parameter");
        assert!(why.contains(&format!("\"{}\"…", "x".repeat(LONGEST_SHOWN))) && why.len() < 300, "{why}");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered_in_one_line(query in "\\PC{0,200}|(%[0-9a-f]{2}|[&=a]){0,100}") {
            if let Err(why) = decisions(&query) {
                prop_assert_eq!(why.lines().count(), 1);
            }
        }
    }
}
