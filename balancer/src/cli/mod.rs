//! The command line: words → [`Command`]. Also the exit codes, and one line for everything that can be wrong.
//!
//! | module | what it does |
//! |---|---|
//! | [`flags`] | the flags of `run` and `check` |
//! | `argument_file` | `@FILE` |
//! | `documents` | completions and the man page |
//! | `units` | durations, sizes, counts |
//! | `usage` | clap's errors in one line |
//! | [`settings`] | where each setting came from, for `check --dump` |

mod argument_file;
mod documents;
pub mod flags;
pub mod settings;
pub(crate) mod units;
mod usage;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::admin::load::LoadArgs;
use crate::import::ImportArgs;
use crate::log;
use crate::top::TopArgs;
pub use flags::RunArgs;
use settings::Settings;
use units::duration;
pub(crate) use units::{count as parse_count, duration as parse_duration, switch as parse_switch};
pub(crate) use usage::nearest;

/// What the user wants done.
#[derive(Debug)]
pub enum Command {
    /// `run`.
    Run(Box<RunArgs>, Settings),
    /// `check`; `true` for `--dump`.
    Check(Box<RunArgs>, Settings, bool),
    /// `doctor`.
    Doctor(Box<RunArgs>, Settings, Examination),
    /// `show`, `set` and so on: the line to send to the admin socket.
    Ask(ClientArgs, String),
    /// The same, and then wait until nothing leads to a server any more.
    AskAndWait(ClientArgs, String, Wait),
    /// `table load`, perhaps with the table's name before it.
    Load(LoadArgs),
    /// `detach`, of one service or of all; `true` for `--force`.
    Detach(Option<ClientArgs>, bool),
    /// `reload`.
    Reload(Box<RunArgs>, Settings),
    /// `completions`, `man`: a text for stdout.
    Print(String),
    /// `import`.
    Import(ImportArgs),
    /// `top`.
    Top(TopArgs),
}

/// What `doctor` is asked besides the flags of `run`.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default)]
pub struct Examination {
    /// An interface to look at; repeatable [default: those of the flags; without any, all that are up]
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Also attach a program to every interface that has none, for a moment: the one sure answer, but some network cards
    /// lose packets over it
    #[arg(long)]
    pub probe: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// The server that is to be left.
    pub server: String,
    /// For how long; `None`: as long as it takes.
    pub limit: Option<Duration>,
    /// Learned entries do not count.
    pub connections_only: bool,
}

/// Why the program ends without having done what it was asked to.
#[derive(Debug)]
pub enum Stop {
    /// `--help`, `--version`: the text goes to stdout.
    Shown(String),
    /// The command line is wrong: what is wrong with which flag; what would be right.
    Usage(String),
    /// It failed at run time.
    Failed(String),
    /// It was done in part: what is left to do.
    Incomplete(String),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(log::chain(&error))
    }
}

impl Stop {
    /// What it says, wherever that is to go.
    pub(crate) fn into_message(self) -> String {
        match self {
            Self::Shown(text) => text,
            Self::Usage(message) | Self::Failed(message) | Self::Incomplete(message) => message,
        }
    }

    /// Prints it where it belongs, unless nobody reads that, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let (message, code) = match self {
            Self::Shown(text) => {
                let _ = io::stdout().write_all(text.as_bytes());
                return ExitCode::SUCCESS;
            }
            Self::Usage(message) => (message, 2),
            Self::Failed(message) => (message, 1),
            Self::Incomplete(message) => (message, 3),
        };
        let prefix = log::prefix(log::Level::Error);
        let _ = io::stderr().write_all(log::one_line(&format!("{prefix}balancer: {message}")).as_bytes());
        ExitCode::from(code)
    }
}

/// Reads the command line, the environment and the files that they name.
///
/// # Errors
/// See [`Stop`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Stop> {
    let command = definition();
    let args = argument_file::expand(args, |flag| takes_value(&command, flag)).map_err(Stop::Usage)?;
    let cli = command.clone().try_get_matches_from(args.iter().map(|arg| &arg.word)).and_then(|matches| {
        let settings = Settings::collect(&command, &matches, &args);
        Ok((Cli::from_arg_matches(&matches)?, settings))
    });
    match cli {
        Ok((cli, settings)) => cli.command.complete(settings, &command),
        Err(error) => Err(usage::condense(&error, &command, &args)),
    }
}

/// The flags of `check` in the text of an `@FILE`, whatever the environment says.
///
/// # Errors
/// See [`Stop`].
pub(crate) fn reread(text: &str) -> Result<(Box<RunArgs>, Settings), Stop> {
    let words = argument_file::words(text)
        .map_err(|(line, what)| Stop::Usage(format!("line {line}: {what}")))?
        .into_iter()
        .map(|(_, word)| OsString::from(word));
    let args = ["balancer", "check"].map(OsString::from).into_iter().chain(words);
    let args: Vec<_> = args.map(argument_file::Argument::from).collect();
    let command = Cli::command();
    let matches = command
        .clone()
        .try_get_matches_from(args.iter().map(|arg| &arg.word))
        .map_err(|error| usage::condense(&error, &command, &args))?;
    let settings = Settings::collect(&command, &matches, &args);
    match Cli::from_arg_matches(&matches).map(|cli| cli.command) {
        Ok(Verb::Check { run, .. }) => Ok((run, settings)),
        Ok(_) => Err(Stop::Usage("not the flags of a service".into())),
        Err(error) => Err(usage::condense(&error, &command, &args)),
    }
}

/// A load balancer whose first promise is the session.
#[derive(Parser, Debug)]
#[command(name = "balancer", version, max_term_width = 110, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

const ABOUT_VALUES: &str = "\
Every flag can be given as an environment variable BALANCER_<FLAG>, for example BALANCER_CHECK_INTERVAL=5s; the flag \
comes before the environment, the environment before the default. A repeatable flag has one value per line there.\n\
An argument @FILE reads more flags from a file, one or more per line, # comments.\n\
Durations: 250ms 2s 30m 3h. Sizes: 64k 1m. Counts: 100k.";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Serve, in the foreground; logs go to stderr
    #[command(after_help = ABOUT_VALUES)]
    Run(Box<RunArgs>),
    /// Check the flags of `run` and this host; bind and attach nothing
    #[command(after_help = ABOUT_VALUES)]
    Check {
        #[command(flatten)]
        run: Box<RunArgs>,
        /// Print every setting and where it came from; the output can be used as an @FILE
        #[arg(long)]
        dump: bool,
    },
    /// What this host offers to a balancer, and how to mend what it lacks; with the flags of `run`, what it offers to that
    /// service. Changes nothing. Exit code 1: something is missing
    #[command(after_help = ABOUT_VALUES)]
    Doctor {
        #[command(flatten)]
        examination: Examination,
        #[command(flatten)]
        run: Box<RunArgs>,
    },
    /// Ask a running instance
    Show {
        #[command(subcommand)]
        what: Show,
    },
    /// Watch a running instance: figures, servers, tables, fast connections, decisions. Keys: ? in it
    Top(TopArgs),
    /// Ask a running instance what would become of a request, and why; changes nothing
    Explain {
        /// The client's address
        #[arg(long, value_name = "ADDR", value_parser = client_address)]
        src: IpAddr,
        /// The request's method
        #[arg(long, value_name = "M", default_value = "GET")]
        method: String,
        /// The request's path and query
        #[arg(long, value_name = "P", default_value = "/")]
        path: String,
        /// A header line, as in 'Cookie: a=b'; repeatable
        #[arg(long, value_name = "NAME: VALUE")]
        header: Vec<String>,
        #[command(flatten)]
        question: Question,
    },
    /// Tell a running instance
    Set {
        #[command(subcommand)]
        what: Set,
    },
    /// Give a running instance another server
    Add {
        #[command(subcommand)]
        what: Add,
    },
    /// Take a server from a running instance for good
    Del {
        #[command(subcommand)]
        what: Del,
    },
    /// End what a server of a running instance is doing
    Shutdown {
        #[command(subcommand)]
        what: Shutdown,
    },
    /// Tell a running instance what to do with connections on its fast path
    Flows {
        #[command(subcommand)]
        what: Flows,
    },
    /// Look up, set, load or forget entries of a learned table
    Table {
        /// The table, called as in its flag: source, session=JSESSIONID
        #[arg(value_name = "NAME", value_parser = word)]
        table: Option<String>,
        #[command(subcommand)]
        what: Entry,
    },
    /// Turn a HAProxy configuration into an @FILE of flags, and say what could not be carried over. Exit code 3: something
    /// was left out, or means something else here
    Import(ImportArgs),
    /// Remove what a stopped service has left in the kernel: pinned maps and the XDP program
    Detach {
        #[command(flatten)]
        client: ClientArgs,
        /// Of all services in this network namespace that are not running
        #[arg(long, conflicts_with_all = ["name", "admin"])]
        all: bool,
        /// Also while the instance is running
        #[arg(long)]
        force: bool,
    },
    /// Start `run` with these flags as a process that takes over from the running instance, and wait until it serves. No
    /// connection is lost; if it fails, the running instance goes on and the exit code is 1
    #[command(after_help = ABOUT_VALUES)]
    Reload(Box<RunArgs>),
    /// Print what completes the words of this command line in a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL", value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the man page, balancer(8)
    Man,
}

#[derive(Subcommand, Debug)]
enum Show {
    /// The process, its counters and its fast path
    Info(Question),
    /// The servers and their states
    Servers(Question),
    /// One server, with its connections and learned entries
    Server {
        /// The server
        #[arg(value_name = "NAME", value_parser = word)]
        server: String,
        #[command(flatten)]
        question: Question,
    },
    /// The learned tables
    Tables(Question),
    /// The learned tables, or the entries of one
    Table {
        /// The table, called as in its flag: source, session=JSESSIONID
        #[arg(value_name = "NAME", value_parser = word)]
        table: Option<String>,
        #[command(flatten)]
        question: Question,
    },
    /// The connections on the fast path
    Flows {
        #[command(flatten)]
        which: Which,
        /// So many at most [default: 1000, or with --json all]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        question: Question,
    },
    /// The last few hundred requests, and why they went where they went
    Decisions(Question),
    /// What is counted of clients and servers, in HAProxy's columns
    Stat(Question),
    /// The clients that are connected to the proxy
    Sess(ClientArgs),
    /// The last messages that were not understood, without what is secret
    Errors(ClientArgs),
}

/// Which connections are meant.
#[derive(Args, Debug)]
struct Which {
    /// Those of this client
    #[arg(long, value_name = "ADDR", value_parser = client_address)]
    client: Option<IpAddr>,
    /// Those to this server
    #[arg(id = ONE_SERVER, long = "server", value_name = "NAME", value_parser = word)]
    server: Option<String>,
}

/// Not the flag of `run` that is called like it, which may be in the environment.
const ONE_SERVER: &str = "one-server";

/// Nor these, which are `import`'s.
pub(crate) const OTHER_LISTEN: &str = "other-listen";
pub(crate) const OTHER_NAME: &str = "other-name";

impl Which {
    fn words(&self) -> String {
        let client = self.client.map_or_else(String::new, |client| format!(" client {client}"));
        let server = self.server.as_ref().map_or_else(String::new, |server| format!(" server {server}"));
        client + &server
    }
}

#[derive(Subcommand, Debug)]
enum Flows {
    /// End the connections of a client, those to a server, or those of a client to a server
    Reset {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        instance: ClientArgs,
    },
}

#[derive(Args, Debug)]
struct Question {
    #[command(flatten)]
    client: ClientArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Set {
    /// Put a server in service or take it out, or give it another weight; either survives a restart
    Server {
        /// The server
        #[arg(value_name = "NAME", value_parser = word)]
        server: String,
        /// What it is to be
        #[arg(value_name = "STATE", value_enum)]
        state: Wish,
        /// With weight: 0 to 256, or a percentage of the configured one
        #[arg(value_name = "N|N%", value_parser = word, required_if_eq("state", "weight"))]
        weight: Option<String>,
        /// With drain and maint: wait until no connection and no learned entry leads there any more; exit 1 if some do
        /// after T
        #[arg(long, value_name = "T", num_args = 0..=1, require_equals = true, value_parser = duration,
              default_missing_value = FOREVER)]
        wait: Option<Duration>,
        /// Wait for connections only: learned entries last until their users have been away for their timeout
        #[arg(long, requires = "wait")]
        connections_only: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Subcommand, Debug)]
enum Entry {
    /// The entry of a key
    Get {
        /// A client's address, or the id as clients send it
        #[arg(value_name = "KEY", value_parser = key)]
        key: String,
        #[command(flatten)]
        question: Question,
    },
    /// From now on the key belongs to that server
    Set {
        /// A client's address, or the id as clients send it
        #[arg(value_name = "KEY", value_parser = key)]
        key: String,
        /// The server
        #[arg(value_name = "SERVER", value_parser = word)]
        server: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Take many entries along, from HAProxy or from another instance; they count, whatever was known of their keys. Exit
    /// code 3: some were not loaded
    Load(LoadArgs),
    /// Forget a key, or everything
    Clear {
        /// A client's address, or the id as clients send it
        #[arg(value_name = "KEY", value_parser = key)]
        key: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What a wait without a limit is limited by.
const FOREVER: &str = "365d";

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Wish {
    /// Health decides
    Ready,
    /// Existing users stay, new ones go elsewhere
    Drain,
    /// Nobody is sent there
    Maint,
    /// Another share of what is balanced
    Weight,
}

#[derive(Subcommand, Debug)]
enum Add {
    /// A server more, ready unless it is `disabled`; it stays until it is deleted, or until the flags name it
    Server {
        /// As in --server
        #[arg(value_name = "NAME=ADDR:PORT[,OPTION...]", value_parser = word)]
        server: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Subcommand, Debug)]
enum Del {
    /// A server less: it has to be in maint and without connections. It stays away until it is added, or until the flags
    /// say another address
    Server {
        /// The server
        #[arg(value_name = "NAME", value_parser = word)]
        server: String,
        /// Whatever it is doing; who is being served by it may finish
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Subcommand, Debug)]
enum Shutdown {
    /// Cut off whoever a server is serving now, on both paths
    Sessions {
        /// The server
        #[arg(value_name = "NAME", value_parser = word)]
        server: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Which instance is meant.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// The instance's --name
    #[arg(long, value_name = "NAME", default_value = flags::DEFAULT_NAME)]
    pub name: String,
    /// Its admin socket [default: the one of that name]
    #[arg(long, value_name = "PATH")]
    pub admin: Option<PathBuf>,
}

impl Verb {
    fn complete(self, settings: Settings, definition: &clap::Command) -> Result<Command, Stop> {
        Ok(match self {
            Self::Run(mut run) => {
                run.drop_blank_lines(&settings);
                Command::Run(run, settings)
            }
            Self::Check { mut run, dump } => {
                run.drop_blank_lines(&settings);
                Command::Check(run, settings, dump)
            }
            Self::Doctor { mut run, examination } => {
                run.drop_blank_lines(&settings);
                Command::Doctor(run, settings, examination)
            }
            Self::Show { what } => what.complete(),
            Self::Set { what } => what.complete()?,
            Self::Add { what: Add::Server { server, client } } => {
                Command::Ask(client, format!("add server {server}"))
            }
            Self::Del { what: Del::Server { server, force, client } } => {
                Command::Ask(client, format!("del server {server}{}", if force { " force" } else { "" }))
            }
            Self::Shutdown { what: Shutdown::Sessions { server, client } } => {
                Command::Ask(client, format!("shutdown sessions server {server}"))
            }
            Self::Flows { what: Flows::Reset { which, instance } } => {
                Command::Ask(instance, format!("reset flows{}", which.words()))
            }
            Self::Explain { src, method, path, header, question } => {
                let encoded = |text: &str| percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string();
                let mut line = format!(
                    "explain src={} method={} path={}",
                    encoded(&src.to_string()),
                    encoded(&method),
                    encoded(&path)
                );
                header.iter().for_each(|header| line += &format!(" header={}", encoded(header)));
                Command::Ask(question.client, if question.json { line + " json" } else { line })
            }
            Self::Table { table, what } => what.complete(table)?,
            Self::Detach { client, all, force } => Command::Detach((!all).then_some(client), force),
            Self::Reload(mut run) => {
                run.drop_blank_lines(&settings);
                Command::Reload(run, settings)
            }
            Self::Completions { shell } => Command::Print(documents::completions(definition, shell)),
            Self::Man => Command::Print(documents::manual(definition).map_err(anyhow::Error::from)?),
            Self::Import(import) => Command::Import(import),
            Self::Top(top) => Command::Top(top),
        })
    }
}

impl Set {
    fn complete(self) -> Result<Command, Stop> {
        let Self::Server { server, state, weight, wait, connections_only, client } = self;
        let word = match (state, &weight) {
            (Wish::Ready, _) => "ready".to_owned(),
            (Wish::Drain, _) => "drain".to_owned(),
            (Wish::Maint, _) => "maint".to_owned(),
            (Wish::Weight, weight) => format!("weight {}", weight.as_deref().unwrap_or_default()),
        };
        if let (Some(extra), true) = (weight, state != Wish::Weight) {
            return Err(Stop::Usage(format!("{extra:?} is not expected after {word}; leave it out")));
        }
        let line = format!("set server {server} {word}");
        let Some(limit) = wait else { return Ok(Command::Ask(client, line)) };
        if matches!(state, Wish::Ready | Wish::Weight) {
            return Err(Stop::Usage(
                "--wait is for a server that takes nobody new; write drain or maint".into(),
            ));
        }
        let limit = Some(limit).filter(|limit| duration(FOREVER) != Ok(*limit));
        Ok(Command::AskAndWait(client, line, Wait { server, limit, connections_only }))
    }
}

impl Show {
    fn complete(self) -> Command {
        let (line, question) = match self {
            Self::Info(question) => ("show process".into(), question),
            Self::Servers(question) => ("show servers".into(), question),
            Self::Server { server, question } => (format!("show server {server}"), question),
            Self::Tables(question) | Self::Table { table: None, question } => {
                return question.about_tables("show table");
            }
            Self::Table { table: Some(table), question } => {
                return question.about_tables(&format!("show table {table}"));
            }
            Self::Flows { which, limit, question } => {
                let limit = limit.map_or_else(String::new, |limit| format!(" limit {limit}"));
                (format!("show flows{}{limit}", which.words()), question)
            }
            Self::Decisions(question) => ("show decisions".into(), question),
            Self::Stat(question) => ("show stat".into(), question),
            Self::Sess(client) => return Command::Ask(client, "show sess".into()),
            Self::Errors(client) => return Command::Ask(client, "show errors".into()),
        };
        Command::Ask(question.client, if question.json { line + " json" } else { line })
    }
}

impl Entry {
    fn complete(self, table: Option<String>) -> Result<Command, Stop> {
        Ok(match (self, table) {
            (Self::Load(LoadArgs { table: Some(other), .. }), Some(table)) => {
                let message = format!("--table {other:?} is given beside {table:?}; name the table once");
                return Err(Stop::Usage(message));
            }
            (Self::Load(load), table) => Command::Load(LoadArgs { table: load.table.or(table), ..load }),
            (_, None) => {
                return Err(Stop::Usage(
                    "table needs to know which; write for example balancer table source get 192.0.2.7".into(),
                ));
            }
            (Self::Get { key, question }, Some(table)) => {
                question.about_tables(&format!("show table {table} key {key}"))
            }
            (Self::Set { key, server, client }, Some(table)) => {
                Command::Ask(client, format!("set table {table} key {key} data.server_key {server} text"))
            }
            (Self::Clear { key: Some(key), client }, Some(table)) => {
                Command::Ask(client, format!("clear table {table} key {key} text"))
            }
            (Self::Clear { key: None, client }, Some(table)) => {
                Command::Ask(client, format!("clear table {table} text"))
            }
        })
    }
}

impl Question {
    /// Without a form the answer would be HAProxy's.
    fn about_tables(self, line: &str) -> Command {
        Command::Ask(self.client, format!("{line} {}", if self.json { "json" } else { "text" }))
    }
}

/// A key as a word of the admin protocol.
fn key(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty; such keys are never stored".into());
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters, which no key has".into());
    }
    let escaped = |c: char| c.is_whitespace() || matches!(c, '\\' | ';');
    let mut word = String::new();
    for c in text.chars() {
        word.extend(escaped(c).then_some('\\'));
        word.push(c);
    }
    Ok(word)
}

/// Of a client.
fn client_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "is not an address; write for example 192.0.2.7 or 2001:db8::7".into())
}

/// One word of the admin protocol.
fn word(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && c != ';';
    if text.is_empty() || !text.chars().all(fits) {
        return Err("is not a name; names consist of letters, digits and . _ -".into());
    }
    Ok(text.to_owned())
}

/// The derived command line, with the environment added: `BALANCER_` and the flag's name.
fn definition() -> clap::Command {
    let with_environment = |arg: clap::Arg| match arg.get_long() {
        Some(
            "all" | "dump" | "json" | "force" | "wait" | "connections-only" | "client" | "limit"
            | "interface" | "probe" | "frontend" | "backend" | "once" | "interval" | "table" | "len"
            | "dry-run",
        )
        | None => arg,
        _ if [ONE_SERVER, OTHER_LISTEN, OTHER_NAME].contains(&arg.get_id().as_str()) => arg,
        Some(long) => {
            let variable = settings::variable(long);
            let arg = arg.env(variable).hide_env(true);
            match arg.get_action() {
                clap::ArgAction::Append => arg.value_delimiter('\n'),
                clap::ArgAction::Set => arg.allow_negative_numbers(true),
                _ => arg,
            }
        }
    };
    fn descend(command: clap::Command, apply: &impl Fn(clap::Arg) -> clap::Arg) -> clap::Command {
        command.mut_args(apply).mut_subcommands(|sub| descend(sub, apply))
    }
    descend(Cli::command(), &with_environment)
}

fn takes_value(command: &clap::Command, flag: &str) -> bool {
    let Some(long) = flag.strip_prefix("--") else { return false };
    let here =
        command.get_arguments().any(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values());
    here || command.get_subcommands().any(|sub| takes_value(sub, flag))
}

#[cfg(test)]
mod tests;
