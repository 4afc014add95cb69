//! `WHAT[,OPTION…]`: what the flags with options have in common. A comma ends an option.

use crate::cli::Stop;

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
        self.wrong(format_args!("has an unknown option {name:?}; write {supported}"))
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
