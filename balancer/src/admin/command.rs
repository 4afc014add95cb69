//! The commands of the admin socket.

/// What `help` and anything unknown is answered with.
pub const HELP: &str = "\
  help                                  : this list
  show info [json]                      : the process, its counters and its fast path
  show servers [json]                   : the servers and their states
  show table [json]                     : the learned tables
  show table NAME [json]                : the entries of one
  show flows [json]                     : the connections on the fast path
  set server NAME ready|drain|maint     : put a server in service or take it out
";

/// One command, its words still those of the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// `help`
    Help,
    /// `show info [json]`
    ShowInfo {
        /// Not for people.
        json: bool,
    },
    /// `show servers [json]`
    ShowServers {
        /// Not for people.
        json: bool,
    },
    /// `show table [json]`
    ShowTables {
        /// Not for people.
        json: bool,
    },
    /// `show table NAME [json]`
    ShowTable {
        /// The table.
        name: &'a str,
        /// Not for people.
        json: bool,
    },
    /// `show flows [json]`
    ShowFlows {
        /// Not for people.
        json: bool,
    },
    /// `set server NAME [state] ready|drain|maint`
    SetServer {
        /// The server.
        name: &'a str,
        /// What it is to be.
        state: &'a str,
    },
}

impl<'a> Command<'a> {
    /// The command, unless there is none like it.
    pub fn parse(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (words, json) = match words.as_slice() {
            [init @ .., "json"] => (init, true),
            all => (all, false),
        };
        let command = match *words {
            ["show", "info"] => Self::ShowInfo { json },
            ["show", "servers"] => Self::ShowServers { json },
            ["show", "table" | "tables"] => Self::ShowTables { json },
            ["show", "table", name] => Self::ShowTable { name, json },
            ["show", "flows"] => Self::ShowFlows { json },
            ["help"] if !json => Self::Help,
            ["set", "server", name, "state", state] | ["set", "server", name, state] if !json => {
                Self::SetServer { name, state }
            }
            _ => return None,
        };
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let table = [
            ("help", Some(Command::Help)),
            ("show info", Some(Command::ShowInfo { json: false })),
            ("  show\tinfo  json ", Some(Command::ShowInfo { json: true })),
            ("show table", Some(Command::ShowTables { json: false })),
            ("show tables json", Some(Command::ShowTables { json: true })),
            ("show table source json", Some(Command::ShowTable { name: "source", json: true })),
            ("show flows", Some(Command::ShowFlows { json: false })),
            ("set server s1 drain", Some(Command::SetServer { name: "s1", state: "drain" })),
            ("set server s1 state maint", Some(Command::SetServer { name: "s1", state: "maint" })),
            ("set server s1", None),
            ("set server s1 drain json", None),
            ("show", None),
            ("show info please", None),
            ("SHOW INFO", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(Command::parse(text), expected, "{text:?}");
        }
    }
}
