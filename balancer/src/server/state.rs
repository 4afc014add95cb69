//! What servers may be used for: the operator's wish, what the checks say, and both taken together.

use serde::{Deserialize, Serialize};

/// What a server may be used for now: the operator's wish and the health check taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Takes everyone.
    Up,
    /// Keeps the users it has, takes no new ones: the operator's wish, or its own (`drain-on=`).
    Drain,
    /// The health check failed.
    Down,
    /// Taken out by the operator: nobody is sent there, whatever the options.
    Maint,
}

impl State {
    /// Of a server that is there.
    pub fn of(operator: Operator, health: Health) -> Self {
        match (operator, health) {
            (Operator::Maint, _) => Self::Maint,
            (_, Health::Down) => Self::Down,
            (Operator::Drain, _) | (_, Health::Draining) => Self::Drain,
            (Operator::Ready, _) => Self::Up,
        }
    }

    /// A user bound to a server in this state stays there.
    pub fn keeps_users(self) -> bool {
        matches!(self, Self::Up | Self::Drain)
    }

    /// The word used in tables, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Maint => "maint",
        }
    }
}

/// The operator's wish, kept across restarts in the registry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Operator {
    /// No wish: health decides.
    #[default]
    Ready = 0,
    /// Existing users stay, new ones go elsewhere.
    Drain = 1,
    /// Nobody.
    Maint = 2,
}

impl Operator {
    /// The wish stored as `value`; an unknown value (a newer version's) is taken as [`Self::Ready`].
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Drain,
            2 => Self::Maint,
            _ => Self::Ready,
        }
    }

    /// The wish called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ready, Self::Drain, Self::Maint].into_iter().find(|wish| wish.as_str() == word)
    }

    /// The word used in commands, tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

/// What the health checks say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet, or checks are off: usable.
    #[default]
    Unknown = 0,
    /// The last checks succeeded.
    Up = 1,
    /// The last checks failed.
    Down = 2,
    /// The last check succeeded, and the server asks to be given nobody new.
    Draining = 3,
}

impl Health {
    /// The verdict stored as `value`; an unknown one (a newer version's) is none.
    pub fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Up,
            2 => Self::Down,
            3 => Self::Draining,
            _ => Self::Unknown,
        }
    }

    /// The word used in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
        }
    }
}
