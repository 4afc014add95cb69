//! What the service is to do: validated once, after which nothing in it can be wrong.
//!
//! Flags → [`crate::cli::RunArgs`] (syntax) → [`Plan::new`] → [`Config`] (meaning).

mod address;
mod check;
mod dump;
pub mod fast_path;
mod features;
mod health;
mod host;
mod identity;
mod options;
mod owner;
mod persistence;
mod plan;
pub(crate) mod resolver;
pub(crate) mod servers;
mod subject;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::cidr::{AddressSet, SharedSet};
use crate::http::forwarded;
use crate::live::Live;
use crate::log::Level;
use crate::persist::decide::Policy;
use crate::persist::{List, dynamic};
use crate::proxy_protocol;

pub use check::Statuses;
pub(crate) use dump::quoted;
pub use features::{Effect, Feature};
pub use host::Host;
pub use owner::Owner;
pub use plan::Plan;
pub use subject::Subject;

/// A validated service.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--name`: `[a-z0-9_-]{1,32}`; names pins, logs and the admin socket.
    pub name: String,
    /// `--mode`.
    pub mode: Mode,
    /// `--listen`, at least one, without duplicates.
    pub listen: Vec<SocketAddr>,
    /// `--server`, at least one; names and cookie values are unique.
    pub servers: Vec<ServerConfig>,
    /// `--resolver`; empty: the host's own.
    pub resolvers: Vec<SocketAddr>,
    /// `--persist`, in order.
    pub persist: List,
    /// `--persist-ignore`: paths that begin so are balanced and leave nothing behind.
    pub persist_ignore: Vec<String>,
    /// `--on-down`, `--leave-backup`.
    pub policy: Policy,
    /// `--deny`, `--accept-proxy`, `--send-proxy`, `--forwarded`.
    pub identity: IdentityConfig,
    /// `--balance`.
    pub balance: Balance,
    /// `--check`, `--observe`, and what follows from them.
    pub health: Live<HealthConfig>,
    /// `--admin`.
    pub admin: PathBuf,
    /// `--admin-mode`: permissions of the admin socket.
    pub admin_mode: u32,
    /// `--http-admin`.
    pub http_admin: Option<SocketAddr>,
    /// `--workers`, at least 1.
    pub workers: usize,
    /// `--log-level`: what goes to stderr.
    pub log_level: Level,
    /// `--access-log`, `--log-format`.
    pub access_log: Option<AccessLogConfig>,
    /// `--state-file`.
    pub state_file: Option<PathBuf>,
    /// `--xdp` and what belongs to it; `None`: no fast path.
    pub datapath: Option<DatapathConfig>,
    /// `--redispatch`, `--retries`, `--retry-pause`.
    pub retry: RetryConfig,
    /// `--timeout-…`.
    pub timeouts: Live<Timeouts>,
    /// `--max-head`, `--max-headers`.
    pub limits: Limits,
    /// `--max-connections`; `None`: what the descriptor limit allows.
    pub max_connections: Option<u32>,
    /// `--mss`: the largest segments that clients are told of.
    pub mss: Option<u32>,
    /// `--drain-timeout`.
    pub drain_timeout: Duration,
    /// `--takeover`.
    pub takeover: bool,
    /// `--user`, `--group`: whom the process becomes before it serves; `None`: it stays who it is.
    pub owner: Option<Owner>,
}

/// `--mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Requests.
    #[default]
    Http,
    /// Connections.
    Tcp,
}

/// Who the client is, and who may be one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdentityConfig {
    /// `--deny`: closed at once, never forwarded.
    pub deny: SharedSet,
    /// `--accept-proxy`: peers whose connections start with a PROXY header.
    pub accept_proxy: AddressSet,
    /// `--debug-from`: peers that are told why they went where they went.
    pub debug_from: AddressSet,
    /// `--send-proxy`: the header that connections to servers start with.
    pub send_proxy: Option<proxy_protocol::Version>,
    /// `--forwarded`: the headers that requests get.
    pub forwarded: Option<forwarded::Style>,
}

/// One `--server`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// The name: tables, the registry and the operator use it.
    pub name: String,
    /// Where it listens. With a name of a host this is the unspecified address until the name is resolved.
    pub address: SocketAddr,
    /// The name of its host, in small letters, if that is what was given.
    pub host: Option<String>,
    /// What clients know it by.
    pub id: ServerId,
    /// `weight=`: its share of what is balanced, 0–256.
    pub weight: u32,
    /// `backup`: serves only when no primary can.
    pub backup: bool,
    /// `maxconn=`: the most that it serves at one time; `None`: no limit.
    pub maxconn: Option<u32>,
    /// `maxqueue=`: the most that wait for it and no other; `None`: no limit.
    pub maxqueue: Option<u32>,
    /// `disabled`: in maintenance until the operator says otherwise.
    pub disabled: bool,
}

/// What clients know a server by: the value of its cookie, or what stands behind a route's dot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ServerId {
    /// Its name.
    #[default]
    Name,
    /// `id=VALUE`
    Given(String),
    /// `id=`: nothing.
    Nothing,
    /// Made of its address with the key of `dynamic-key=`.
    Dynamic(String),
}

impl ServerConfig {
    /// The value of its cookie. One that is made of an address is not known before the address is.
    pub fn cookie(&self) -> Option<String> {
        match &self.id {
            ServerId::Name => Some(self.name.clone()),
            ServerId::Given(id) => Some(id.clone()),
            ServerId::Dynamic(key) if !self.address.ip().is_unspecified() => {
                Some(dynamic::id(key, self.address))
            }
            ServerId::Nothing | ServerId::Dynamic(_) => None,
        }
    }

    /// Where it listens, as it was given: the name of a host, or an address; and the port.
    pub fn location(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}:{}", self.address.port()),
            None => self.address.to_string(),
        }
    }
}

/// `--balance`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// One after the other, by weight.
    #[default]
    RoundRobin,
    /// Whoever serves the fewest requests for its weight.
    LeastConn,
    /// The less loaded of two drawn by weight.
    Random,
    /// The first that will do.
    First,
    /// By the client's address.
    Source,
    /// By the target up to its query.
    Uri,
    /// By the first header of that name.
    Header(String),
    /// By the first parameter of that name in the query.
    Query(String),
}

impl Balance {
    /// The same key goes to the same server.
    pub fn hashes(&self) -> bool {
        matches!(self, Self::Source | Self::Uri | Self::Header(_) | Self::Query(_))
    }
}

impl std::fmt::Display for Balance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("roundrobin"),
            Self::LeastConn => f.write_str("leastconn"),
            Self::Random => f.write_str("random"),
            Self::First => f.write_str("first"),
            Self::Source => f.write_str("source"),
            Self::Uri => f.write_str("uri"),
            Self::Header(name) => write!(f, "header={name}"),
            Self::Query(name) => write!(f, "query={name}"),
        }
    }
}

/// What a check does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Connects.
    Tcp,
    /// Connects and asks.
    Http {
        /// What for.
        path: String,
        /// Whom; `None`: the server's address.
        host: Option<String>,
        /// What it answers when it is well.
        expect: Statuses,
        /// What it answers when it wants nobody new.
        drain_on: Option<u16>,
    },
}

/// `--check` and its timing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckConfig {
    /// What is done.
    pub probe: Probe,
    /// Time between two checks of one server.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Successes in a row that bring a server up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
}

/// How it is found out which servers are well, and what follows from that.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HealthConfig {
    /// `--check` and its timing; `None`: servers are taken to be up.
    pub check: Option<CheckConfig>,
    /// `--observe`; only together with checks, which bring a server up again.
    pub observe: Option<ObserveConfig>,
    /// `--slow-start`: the time in which a server that has come up gets to its full weight.
    pub slow_start: Option<Duration>,
    /// `--on-marked-down`.
    pub on_marked_down: OnMarkedDown,
}

/// `--observe`: which errors of real traffic count against a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObserveConfig {
    /// Connections that cannot be made.
    pub connect: bool,
    /// Answers that are missing, broken or say that the server has failed.
    pub answers: bool,
    /// So many errors in a row take a server down.
    pub limit: u32,
}

/// `--on-marked-down`: what becomes of the connections of a server that is taken to be down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnMarkedDown {
    /// They go on for as long as they can.
    #[default]
    Keep,
    /// They are ended.
    Reset,
}

/// `--access-log` and its format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessLogConfig {
    /// Where it goes.
    pub target: LogTarget,
    /// What a line looks like.
    pub format: LogFormat,
}

/// `--log-format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Words, for people.
    #[default]
    Text,
    /// An object a line, for programs.
    Json,
    /// HAProxy's `option httplog`, for what reads that.
    Haproxy,
}

/// Where the access log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTarget {
    /// `-`.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

impl std::fmt::Display for LogTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("-"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// What happens when a connection to a server cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryConfig {
    /// Attempts after the first.
    pub retries: u32,
    /// Time between two attempts at one server.
    pub pause: Duration,
    /// The last attempt goes to another server.
    pub redispatch: bool,
}

/// How long things may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Silence of a client in the middle of a message.
    pub client: Duration,
    /// Silence of a server in the middle of an answer, or before it.
    pub server: Duration,
    /// A connection to a server.
    pub connect: Duration,
    /// A request's head, from its first byte.
    pub request: Duration,
    /// A client connection without a request.
    pub keepalive: Duration,
    /// Silence of both sides of a tunnel.
    pub tunnel: Duration,
    /// The wait for a server that has no room.
    pub queue: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            client: Duration::from_secs(30),
            server: Duration::from_secs(60),
            connect: Duration::from_secs(5),
            request: Duration::from_secs(10),
            keepalive: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            queue: Duration::from_secs(5),
        }
    }
}

/// How much a message may hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a head, request line and empty line included.
    pub head: usize,
    /// Header lines of a head.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 16 * 1024, headers: 100 }
    }
}

/// What the fast path does with a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FastPath {
    /// Nothing: the program is attached and every new connection goes to the proxy.
    Off,
    /// Fast when the source is known, not ambiguous and passes the sampling.
    Exclusive,
    /// Fast when the source is known.
    Always,
}

/// `--forward`: how a fast packet travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Forward {
    /// Servers see an address and a port of this host.
    #[default]
    Nat,
    /// Servers see the client, and route their answers back through this host.
    Gateway,
    /// Servers on the same link have the listen address as well, see the client, and answer it directly.
    Dsr,
}

impl Forward {
    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Gateway => "gateway",
            Self::Dsr => "dsr",
        }
    }
}

/// `--xdp` and the flags that belong to it.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Interfaces to attach to, by name; empty only with `auto`.
    pub interfaces: Vec<InterfaceConfig>,
    /// `--xdp auto`: also those of the listen addresses and towards the servers, in that mode, as far as they can.
    pub auto: Option<XdpMode>,
    /// `--fast-path`, `auto` resolved.
    pub fast_path: FastPath,
    /// What `auto` was resolved to and why, for the start-up log.
    pub fast_path_reason: Option<String>,
    /// `--verify-share`: one in this many new connections goes through the proxy in `exclusive`.
    pub verify_share: u32,
    /// `--fast-path-exclude`.
    pub exclude: AddressSet,
    /// `--forward`.
    pub forward: Forward,
    /// `--snat-ip`; empty: the address the kernel would use towards each server.
    pub snat_ips: Vec<IpAddr>,
    /// `--snat-ports`, both ends included.
    pub snat_ports: (u16, u16),
    /// `--mss`; 0: none.
    pub mss: u16,
    /// Leading bits of IPv4 and of IPv6 addresses that count in the table of sources.
    pub masks: (u8, u8),
    /// `--flow-table`: flows, not entries.
    pub flow_table: u32,
    /// `--datapath-hold`: how long known clients are served after the process has stopped answering.
    pub hold: Duration,
    /// `--detach-on-stop`.
    pub detach_on_stop: bool,
}

impl DatapathConfig {
    /// Servers answer clients directly, if there are fast connections at all.
    pub fn is_direct(&self) -> bool {
        self.forward == Forward::Dsr && self.fast_path != FastPath::Off
    }
}

/// One `--xdp`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InterfaceConfig {
    /// The interface's name.
    pub name: String,
    /// `mode=`.
    pub mode: XdpMode,
    /// By `--xdp auto`: if nothing can be attached to it, that is said, and the others serve.
    pub is_found: bool,
}

/// `mode=` of `--xdp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack, before it.
    Generic,
}

/// The list that `--persist` texts mean.
#[cfg(test)]
pub(crate) fn persist_list(texts: &[String]) -> Result<List, crate::cli::Stop> {
    persistence::list(texts, "web")
}

#[cfg(test)]
pub(crate) mod tests;
