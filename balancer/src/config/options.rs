//! `WHAT[,OPTION…]`: what the flags with options have in common. A comma ends an option.

use crate::cli::{Stop, nearest};

/// A flag's value while it is being read: knows how to say what is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    /// With dashes.
    pub(super) flag: &'static str,
    pub(super) text: &'a str,
}

impl<'a> Value<'a> {
    /// The part before the first comma, and the options after it.
    pub(super) fn split(self) -> (&'a str, impl Iterator<Item = &'a str> + Clone) {
        let mut parts = self.text.split(',');
        (parts.next().unwrap_or_default(), parts)
    }

    /// `rest` is the rest of a sentence: what is wrong; what would be right.
    pub(super) fn wrong(self, rest: impl std::fmt::Display) -> Stop {
        Stop::Usage(format!("{} {:?} {rest}", self.flag, self.text))
    }

    /// Refuses an option that is none of the `supported` ones. `planned` ones are documented but not built yet.
    pub(super) fn unsupported(self, option: &str, supported: &str, planned: &[&str]) -> Stop {
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        if name.is_empty() {
            return self.wrong("has an empty option; leave out the comma");
        }
        if planned.contains(&name) {
            return self.wrong(format_args!(
                "has the option {name:?}, which is not supported yet; write {supported}"
            ));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        // What stands for something else is written in capitals.
        let words =
            || supported.split(|c| !is_word(c)).filter(|word| word.contains(|c: char| c.is_lowercase()));
        let wants_value = supported.contains(&format!("{name}="));
        match (words().any(|word| word == name), wants_value, option.contains('=')) {
            (true, true, false) => self.wrong(format_args!("has {name} without a value; write {supported}")),
            (true, false, true) => {
                self.wrong(format_args!("has a value for {name}, which takes none; write {name} alone"))
            }
            _ => match nearest(name, words().filter(|word| *word != name)) {
                Some(word) => {
                    self.wrong(format_args!("has an unknown option {name:?}; did you mean {word}?"))
                }
                None => self.wrong(format_args!("has an unknown option {name:?}; write {supported}")),
            },
        }
    }

    /// Fills `slot`, once.
    pub(super) fn set_once<T>(self, slot: &mut Option<T>, name: &str, value: T) -> Result<(), Stop> {
        if slot.is_some() {
            return Err(self.wrong(format_args!("has {name} twice; give it once")));
        }
        *slot = Some(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_is_not_known_is_told_with_the_nearest_one() {
        let form = "NAME=ADDR:PORT[,weight=N][,backup][,mode=auto|native]";
        let table = [
            ("wieght=2", "has an unknown option \"wieght\"; did you mean weight?"),
            ("bakcup", "has an unknown option \"bakcup\"; did you mean backup?"),
            ("weight", "has weight without a value; write NAME=ADDR"),
            ("backup=yes", "has a value for backup, which takes none; write backup alone"),
            ("native", "has an unknown option \"native\"; write NAME=ADDR"),
            ("colour=red", "has an unknown option \"colour\"; write NAME=ADDR"),
            ("", "has an empty option; leave out the comma"),
        ];
        for (option, expected) in table {
            let found = Value { flag: "--server", text: "x" }.unsupported(option, form, &[]).into_message();
            assert!(found.starts_with(&format!("--server \"x\" {expected}")), "{option}: {found}");
        }
    }
}
