//! The trace of a decision: for each method, in order, what it found and what came of it.

use std::fmt::{self, Write};

use super::{List, MAX_METHODS};
use crate::server::Servers;

/// What came of a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It named a usable server and decided.
    Hit,
    /// Nothing was found, or what was found names no server of today.
    Miss,
    /// The client sent something that names no server.
    Invalid,
    /// An entry was there but past its life.
    Expired,
    /// It named a server whose health check fails, or that refused the connection.
    Down,
    /// It named a server that the operator has taken out.
    Maint,
    /// It named a usable server and decided, though several users share the key.
    Ambiguous,
    /// It named a usable server, but a method before it had decided, or its client was moved away from there.
    Outvoted,
    /// It named a backup, which its users are to leave (`--leave-backup`).
    Backup,
}

impl Verdict {
    /// All there are, each at the index that is its number.
    pub const ALL: [Self; 9] = [
        Self::Hit,
        Self::Miss,
        Self::Invalid,
        Self::Expired,
        Self::Down,
        Self::Maint,
        Self::Ambiguous,
        Self::Outvoted,
        Self::Backup,
    ];

    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Down => "down",
            Self::Maint => "maint",
            Self::Ambiguous => "ambiguous",
            Self::Outvoted => "outvoted",
            Self::Backup => "backup",
        }
    }
}

/// One line of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// What came of the method.
    pub verdict: Verdict,
    /// The server it named, usable or not.
    pub server: Option<usize>,
}

impl Step {
    pub(crate) const NOTHING: Self = Self { verdict: Verdict::Miss, server: None };
}

/// The steps of one decision, in the order of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    steps: [Step; MAX_METHODS],
    len: u8,
    /// No method decided and `--balance` chose.
    pub balanced: bool,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { steps: [Step::NOTHING; MAX_METHODS], len: 0, balanced: false }
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.steps[usize::from(self.len)] = step;
        self.len += 1;
    }

    /// In the order of the list.
    pub fn steps(&self) -> &[Step] {
        &self.steps[..usize::from(self.len)]
    }

    /// As in the access log: `cookie:miss,source:hit>s2`, with `balance>s1` if it came to that.
    pub fn display<'a>(
        &'a self,
        list: &'a List,
        servers: &'a Servers,
        chosen: Option<usize>,
    ) -> impl fmt::Display {
        struct Shown<'a>(&'a Trace, &'a List, &'a Servers, Option<usize>);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(trace, list, servers, chosen) = *self;
                for (index, (step, label)) in trace.steps().iter().zip(list.labels()).enumerate() {
                    if index > 0 {
                        f.write_char(',')?;
                    }
                    // Every request with a log pays for this: `write!` costs a multiple.
                    f.write_str(label)?;
                    f.write_char(':')?;
                    f.write_str(step.verdict.as_str())?;
                    if let Some(server) = step.server {
                        f.write_char('>')?;
                        f.write_str(&servers[server].name)?;
                    }
                }
                if let (true, Some(server)) = (trace.balanced, chosen) {
                    let comma = if trace.len > 0 { "," } else { "" };
                    write!(f, "{comma}balance>{}", servers[server].name)?;
                }
                Ok(())
            }
        }
        Shown(self, list, servers, chosen)
    }
}
