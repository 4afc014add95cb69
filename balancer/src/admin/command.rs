//! The commands of the admin socket.

use std::net::IpAddr;

use crate::config::servers::LARGEST_WEIGHT;
use crate::server::Operator;

/// What `help` and anything unknown is answered with.
pub const HELP: &str = "\
  help                                  : this list
  prompt                                : go on after the answer, with a prompt before each command; again: no longer
  quit                                  : after `prompt`, the end
  set timeout cli TIME                  : how long the prompt waits, in seconds or with a unit
  show process [json]                   : the process, its counters and its fast path
  show status json                      : everything at a glance, with the last ten minutes: one object for programs
  show info [typed|json]                : the process, in HAProxy's keys
  show stat [NAME|IID TYPE SID] [up|no-maint] [typed|json]
                                        : clients, servers and all of them together, in HAProxy's columns
  show servers state|conn [NAME]        : the servers in HAProxy's state file; their connections
  show sess                             : the clients that are connected to the proxy
  show backend                          : the name of the service, which is that of frontend and backend
  show errors [NAME] [request|response] : the last messages that were not understood, without what is secret
  show version                          : of this program
  clear counters [all]                  : forget the largest values, or all that was counted, for show stat
  show servers [json]                   : the servers and their states
  show server [B/]S [json]              : one of them, with its connections and learned entries
  show table [text|json]                : the learned tables
  show table NAME [key K|data.server_id OP N|data.server_key eq|ne S]... [text|json]
                                        : the entries of one; K is the plain key
  set table NAME key K data.server_key S: the entry of K names server S from now on
  load table NAME [dry]                 : set many entries; lines follow, of NUMBER KEY SERVER MILLISECONDS|- joined by ;,
                                          percent-encoded, then a line `end`; `dry` only says what would become of them
  clear table NAME [key K|data.server_id OP N]...
                                        : forget entries
  show flows [client ADDR] [server [B/]S] [limit N] [json]
                                        : the connections on the fast path
  show decisions [json]                 : the last few hundred requests, and why they went where they went
  explain src=ADDR [method=M] [path=P] [header=NAME:VALUE]... [json]
                                        : what would become of a request, and why; its parts are percent-encoded
  set server [B/]S [state] ready|drain|maint : put a server in service or take it out
  set server [B/]S weight N|N%          : its share, 0 to 256, or of the configured one; also: set weight B/S N|N%
  get weight [B/]S                      : its share, and the configured one
  enable server [B/]S                   : set server B/S ready
  disable server [B/]S                  : set server B/S maint
  enable|disable health [B/]S           : check it again, or no longer: it stays what it is
  add server [B/]S ADDR:PORT[,OPTION...] : another server, as in --server, ready unless it is `disabled`
  del server [B/]S [force]              : take a server out for good that is in maint and has no connections; force: any
  shutdown sessions server [B/]S        : end what is being served by it, on both paths
  reset flows [client ADDR] [server [B/]S] : end connections on the fast path: those of a client, to a server, or both
";

/// One command that is not about tables, its words still those of the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// `help`
    Help,
    /// `show process [json]`
    ShowProcess {
        /// Not for people.
        json: bool,
    },
    /// `show status json`
    ShowStatus,
    /// `show servers [json]`
    ShowServers {
        /// Not for people.
        json: bool,
    },
    /// `show server S [json]`
    ShowServer {
        /// The server.
        name: &'a str,
        /// Not for people.
        json: bool,
    },
    /// `show flows [client ADDR] [server S] [limit N] [json]`
    ShowFlows {
        /// Which.
        which: Which<'a>,
        /// Not for people.
        json: bool,
    },
    /// `reset flows [client ADDR] [server S]`
    ResetFlows {
        /// Which.
        which: Which<'a>,
    },
    /// `set server S [state] ready|drain|maint`, and what HAProxy has for it
    SetServer {
        /// The server.
        name: &'a str,
        /// What it is to be.
        state: &'a str,
    },
    /// `set server S weight N|N%`, `set weight S N|N%`
    SetWeight {
        /// The server.
        name: &'a str,
        /// The number, perhaps in percent.
        weight: &'a str,
    },
    /// `get weight S`
    GetWeight {
        /// The server.
        name: &'a str,
    },
    /// `add server S ADDR:PORT[,OPTION…]`
    AddServer {
        /// The words after `server`.
        words: Vec<&'a str>,
    },
    /// `del server S [force]`
    DelServer {
        /// The server.
        name: &'a str,
        /// Whatever it is doing.
        force: bool,
    },
    /// `shutdown sessions server S`
    ShutdownSessions {
        /// The server.
        name: &'a str,
    },
}

/// Which flows are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Which<'a> {
    /// Those of this client.
    pub client: Option<IpAddr>,
    /// Those to this server.
    pub server: Option<&'a str>,
    /// So many at most.
    pub limit: Option<usize>,
}

impl<'a> Which<'a> {
    /// Pairs of words, in any order.
    fn parse(mut words: &[&'a str]) -> Option<Self> {
        let mut which = Self::default();
        while let [name, value, rest @ ..] = words {
            match *name {
                "client" => which.client = Some(value.parse().ok()?),
                "server" => which.server = Some(value),
                "limit" => which.limit = Some(value.parse().ok()?),
                _ => return None,
            }
            words = rest;
        }
        words.is_empty().then_some(which)
    }
}

impl<'a> Command<'a> {
    /// The command, unless there is none like it.
    pub fn parse(text: &'a str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let ["show", rest @ ..] = &*words {
            return Self::show(rest);
        }
        let command = match *words {
            ["help"] => Self::Help,
            ["set", "server", name, "weight", weight] | ["set", "weight", name, weight] => {
                Self::SetWeight { name, weight }
            }
            ["set", "server", name, "state", state] | ["set", "server", name, state] => {
                Self::SetServer { name, state }
            }
            ["get", "weight", name] => Self::GetWeight { name },
            ["enable", "server", name] => Self::SetServer { name, state: Operator::Ready.as_str() },
            ["disable", "server", name] => Self::SetServer { name, state: Operator::Maint.as_str() },
            ["add", "server", ..] if words.len() > 2 => Self::AddServer { words: words[2..].to_vec() },
            ["del" | "delete", "server", name] => Self::DelServer { name, force: false },
            ["del" | "delete", "server", name, "force"] => Self::DelServer { name, force: true },
            ["shutdown", "sessions", "server", name] => Self::ShutdownSessions { name },
            ["reset", "flows", ref which @ ..] => {
                let which = Which::parse(which).filter(|which| which.limit.is_none())?;
                Self::ResetFlows { which }
            }
            _ => return None,
        };
        Some(command)
    }

    fn show(words: &[&'a str]) -> Option<Self> {
        let (words, json) = match words {
            [init @ .., "json"] => (init, true),
            all => (all, false),
        };
        let command = match *words {
            ["process"] => Self::ShowProcess { json },
            ["status"] if json => Self::ShowStatus,
            ["servers"] => Self::ShowServers { json },
            ["server", name] => Self::ShowServer { name, json },
            ["flows", ref which @ ..] => Self::ShowFlows { which: Which::parse(which)?, json },
            _ => return None,
        };
        Some(command)
    }
}

/// A weight: a number, or a percentage of the `configured` one, which is cut off at the largest there is.
pub fn weight(text: &str, configured: u32) -> Result<u32, String> {
    let (digits, is_share) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u32>().ok().filter(|_| is_number);
    let weight = match (number, is_share) {
        (Some(share), true) => {
            Some((u64::from(configured) * u64::from(share) / 100).min(LARGEST_WEIGHT.into()) as u32)
        }
        (Some(weight), false) if weight <= LARGEST_WEIGHT => Some(weight),
        _ => None,
    };
    weight.ok_or_else(|| {
        format!("{text:?} is no weight; write 0 to {LARGEST_WEIGHT}, or a percentage of the configured one, as in 50%")
    })
}

/// What `--server` would say of `add server` and these words: `S=ADDR:PORT[,OPTION…]` as there, or HAProxy's
/// `B/S ADDR:PORT OPTION [VALUE] …`.
pub fn server_text(words: &[&str], service: &str) -> Result<String, String> {
    let [first, rest @ ..] = words else { return Err("add server needs a name and an address".to_owned()) };
    let first = own_name(first, service);
    if first.contains('=') {
        return match rest {
            [] => Ok(first.to_owned()),
            [word, ..] => {
                Err(format!("{word:?} is not expected after {first:?}; separate options by commas"))
            }
        };
    }
    let [location, options @ ..] = rest else {
        return Err(format!("server {first:?} has no address; write add server NAME ADDR:PORT[,OPTION...]"));
    };
    let mut text = format!("{first}={location}");
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let name = match *option {
            // Checks are all servers' or nobody's here, and what is not disabled is enabled.
            "check" | "enabled" => continue,
            "backup" | "disabled" => {
                text = text + "," + option;
                continue;
            }
            "cookie" => "id",
            "weight" | "maxconn" | "maxqueue" => option,
            _ => return Err(format!("server {first:?} has an unknown option {option:?}; see help")),
        };
        let value = options.next().ok_or_else(|| format!("server {first:?} has no value for {option}"))?;
        text = format!("{text},{name}={value}");
    }
    Ok(text)
}

/// The server's own name: HAProxy's scripts write BACKEND/SERVER; the backend is called like the service.
pub fn own_name<'a>(name: &'a str, service: &str) -> &'a str {
    name.strip_prefix(service).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn commands() {
        let table = [
            ("help", Some(Command::Help)),
            ("show process", Some(Command::ShowProcess { json: false })),
            ("  show\tprocess  json ", Some(Command::ShowProcess { json: true })),
            ("show server s1 json", Some(Command::ShowServer { name: "s1", json: true })),
            ("show server", None),
            ("show flows", Some(Command::ShowFlows { which: Which::default(), json: false })),
            (
                "show flows server web/s1 limit 5 client ::1 json",
                Some(Command::ShowFlows {
                    which: Which {
                        client: Some(Ipv6Addr::LOCALHOST.into()),
                        server: Some("web/s1"),
                        limit: Some(5),
                    },
                    json: true,
                }),
            ),
            ("show flows client", None),
            ("show flows client s1", None),
            ("show flows limit -1", None),
            (
                "reset flows server s1",
                Some(Command::ResetFlows { which: Which { server: Some("s1"), ..Which::default() } }),
            ),
            ("reset flows", Some(Command::ResetFlows { which: Which::default() })),
            ("reset flows limit 5", None),
            ("set server s1 drain", Some(Command::SetServer { name: "s1", state: "drain" })),
            ("set server s1 state maint", Some(Command::SetServer { name: "s1", state: "maint" })),
            ("enable server web/s1", Some(Command::SetServer { name: "web/s1", state: "ready" })),
            ("disable server web/s1", Some(Command::SetServer { name: "web/s1", state: "maint" })),
            ("set server s1 weight 50%", Some(Command::SetWeight { name: "s1", weight: "50%" })),
            ("set weight web/s1 7", Some(Command::SetWeight { name: "web/s1", weight: "7" })),
            ("get weight web/s1", Some(Command::GetWeight { name: "web/s1" })),
            ("set weight web/s1", None),
            ("add server s3 10.0.0.3:80", Some(Command::AddServer { words: vec!["s3", "10.0.0.3:80"] })),
            ("add server", None),
            ("del server s3", Some(Command::DelServer { name: "s3", force: false })),
            ("delete server s3 force", Some(Command::DelServer { name: "s3", force: true })),
            ("del server s3 now", None),
            ("shutdown sessions server s3", Some(Command::ShutdownSessions { name: "s3" })),
            ("shutdown sessions s3", None),
            ("set server s1", None),
            ("set server s1 drain json", None),
            ("show", None),
            ("show process please", None),
            ("SHOW PROCESS", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(Command::parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn weights_are_numbers_or_shares_of_the_configured_one() {
        for (text, configured, expected) in [
            ("0", 5, 0),
            ("256", 5, 256),
            ("50%", 10, 5),
            ("0%", 10, 0),
            ("300%", 100, 256),
            ("4294967295%", 256, 256),
        ] {
            assert_eq!(weight(text, configured), Ok(expected), "{text}");
        }
        for text in ["", "%", "257", "-1", "+1", "1.5", "5%%", "4294967296%", "x"] {
            let refused = weight(text, 1).expect_err(text);
            assert!(refused.contains("write 0 to 256"), "{refused}");
        }
    }

    #[test]
    fn servers_are_written_as_in_the_flag_or_as_in_haproxy() {
        let table = [
            ("s3=10.0.0.3:80,weight=2", Ok("s3=10.0.0.3:80,weight=2")),
            ("web/s3=10.0.0.3:80", Ok("s3=10.0.0.3:80")),
            ("s3 10.0.0.3:80,weight=2,backup", Ok("s3=10.0.0.3:80,weight=2,backup")),
            (
                "web/s3 10.0.0.3:80 weight 2 backup check cookie c3",
                Ok("s3=10.0.0.3:80,weight=2,backup,id=c3"),
            ),
            ("shop/s3 10.0.0.3:80", Ok("shop/s3=10.0.0.3:80")),
            ("s3", Err("has no address")),
            ("s3 10.0.0.3:80 weight", Err("has no value for weight")),
            ("s3 10.0.0.3:80 ssl", Err("unknown option \"ssl\"")),
            ("s3=10.0.0.3:80 backup", Err("separate options by commas")),
        ];
        for (line, expected) in table {
            let words: Vec<_> = line.split(' ').collect();
            match (server_text(&words, "web"), expected) {
                (Ok(found), Ok(text)) => assert_eq!(found, text, "{line}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{line}: {found}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }
}
