//! A value, and the three ways in which HAProxy writes a list of them.

use std::fmt::{self, Display, Write};

use serde_json::{Value as Json, json};

/// What stands in a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    U32(u64),
    S32(i64),
    U64(u64),
    Str(String),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::U32(_) => "u32",
            Self::S32(_) => "s32",
            Self::U64(_) => "u64",
            Self::Str(_) => "str",
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::U32(value) | Self::U64(value) => json!(value),
            Self::S32(value) => json!(value),
            Self::Str(value) => json!(value),
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What does not fit into its type would be read as something else.
            Self::U32(value) => u32::try_from(*value).unwrap_or(u32::MAX).fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::S32(value) => value.fmt(f),
            Self::Str(value) => f.write_str(value),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// How a list is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Plain,
    Typed,
    Json,
}

/// One value with all that is said about it.
pub(super) struct Cell<'a> {
    pub(super) position: usize,
    pub(super) name: &'a str,
    /// Origin, nature, scope.
    pub(super) tags: &'a str,
    pub(super) value: &'a Value,
}

impl Cell<'_> {
    /// `prefix`: of what it is, with the dot behind it.
    pub(super) fn typed(&self, text: &mut String, prefix: &str) {
        let Self { position, name, tags, value } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{prefix}{position}.{name}.1:{tags}:{}:{value}", value.kind());
    }

    pub(super) fn json(&self) -> Json {
        let mut tags = self.tags.chars();
        let mut tag = |word: fn(char) -> &'static str| tags.next().map_or("Unknown", word);
        json!({
            "field": {"pos": self.position, "name": self.name},
            "processNum": 1,
            "tags": {"origin": tag(origin), "nature": tag(nature), "scope": tag(scope)},
            "value": {"type": self.value.kind(), "value": self.value.json()},
        })
    }
}

fn origin(letter: char) -> &'static str {
    match letter {
        'M' => "Metric",
        'S' => "Status",
        'K' => "Key",
        'C' => "Config",
        'P' => "Product",
        _ => "Unknown",
    }
}

fn nature(letter: char) -> &'static str {
    match letter {
        'A' => "Age",
        'a' => "Avg",
        'C' => "Counter",
        'D' => "Duration",
        'G' => "Gauge",
        'L' => "Limit",
        'M' => "Max",
        'm' => "Min",
        'N' => "Name",
        'O' => "Output",
        'R' => "Rate",
        'T' => "Time",
        _ => "Unknown",
    }
}

fn scope(letter: char) -> &'static str {
    match letter {
        'C' => "Cluster",
        'S' => "Service",
        'P' => "Process",
        _ => "Unknown",
    }
}

/// As a cell of a CSV file: in quotes where it would be taken for something else.
pub(super) fn csv(value: &Value) -> String {
    match value {
        Value::Str(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " "))
        }
        value => value.to_string(),
    }
}
