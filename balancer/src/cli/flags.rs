//! The flags of `run` and `check`, in the groups that `--help` shows. Their text is checked here only as far as one
//! value can be wrong by itself; what they mean together is [`crate::config`]'s business.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::settings::{Origin, Settings};
use super::units::{count, duration, duration_or_zero, number, on_off, permissions, size, switch};
use crate::http::fields::MAX_HEADERS;

/// Everything that `run` and `check` take.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    #[command(flatten, next_help_heading = "Service")]
    pub(crate) service: ServiceArgs,
    #[command(flatten, next_help_heading = "Clients")]
    pub(crate) identity: IdentityArgs,
    #[command(flatten, next_help_heading = "Health checks")]
    pub(crate) check: CheckArgs,
    #[command(flatten, next_help_heading = "Fast path")]
    pub(crate) datapath: DatapathArgs,
    #[command(flatten, next_help_heading = "Timeouts and limits")]
    pub(crate) limits: LimitArgs,
    #[command(flatten, next_help_heading = "Process")]
    pub(crate) process: ProcessArgs,
}

impl RunArgs {
    /// A repeatable flag has one value per line in the environment; blank lines there are no values.
    pub(super) fn drop_blank_lines(&mut self, settings: &Settings) {
        let Self { service, identity, datapath, .. } = self;
        let repeatable = [
            ("listen", &mut service.listen),
            ("server", &mut service.server),
            ("resolver", &mut service.resolver),
            ("persist", &mut service.persist),
            ("persist-ignore", &mut service.persist_ignore),
            ("deny", &mut identity.deny),
            ("accept-proxy", &mut identity.accept_proxy),
            ("debug-from", &mut identity.debug_from),
            ("xdp", &mut datapath.xdp),
            ("fast-path-exclude", &mut datapath.fast_path_exclude),
            ("snat-ip", &mut datapath.snat_ip),
        ];
        for (flag, values) in repeatable {
            if settings.origin(flag) == Origin::Environment {
                values.iter_mut().for_each(|value| *value = value.trim().to_owned());
                values.retain(|value| !value.is_empty());
            }
        }
    }
}

/// What is served and by whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServiceArgs {
    /// Name of the service: its pins, log lines and admin socket are called by it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_NAME)]
    pub(crate) name: String,
    /// What is balanced: requests, or connections whose bytes nobody reads
    #[arg(long, value_name = "MODE", default_value = "http", value_enum)]
    pub(crate) mode: ModeArg,
    /// Where clients connect, IPv4 or [IPv6]; repeatable
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<String>,
    /// A server; repeatable. ADDR may be the name of a host. VALUE is its persistence cookie, NAME unless given; empty
    /// for none. weight: its share, 0 to 256, 1 unless given. backup: serves only when no other server can. maxconn:
    /// requests (with --mode tcp connections) that it serves at one time; others wait. maxqueue: how many may wait for
    /// this very server. disabled: in maintenance until `set server` says otherwise
    #[arg(long, value_name = "NAME=ADDR:PORT[,OPTION...]")]
    pub(crate) server: Vec<String>,
    /// DNS server that is asked for the names of servers' hosts; repeatable [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) resolver: Vec<String>,
    /// How a client keeps its server; repeatable, the first one that names a usable server decides: cookie=NAME,
    /// session=NAME, route=NAME, header=NAME, query=NAME, source; options follow after commas
    #[arg(long, value_name = "METHOD[,OPTION...]")]
    pub(crate) persist: Vec<String>,
    /// Requests whose path begins so are only balanced: nothing decides, is learned or issued; repeatable
    #[arg(long, value_name = "PATHPREFIX")]
    pub(crate) persist_ignore: Vec<String>,
    /// A client whose server is down: move it, wait for the server, or fail the request and keep the client bound
    #[arg(long, value_name = "move|wait=T|fail", default_value = "move")]
    pub(crate) on_down: String,
    /// Clients that are bound to a backup leave it as soon as a primary can serve
    #[arg(long)]
    pub(crate) leave_backup: bool,
    /// Who gets a request that no --persist has decided: roundrobin, leastconn, random, first, source, uri, header=NAME,
    /// query=NAME
    #[arg(long, value_name = "ALGORITHM", default_value = "roundrobin")]
    pub(crate) balance: String,
    /// The last attempt to connect goes to another server
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = on_off, action = ArgAction::Set)]
    pub(crate) redispatch: bool,
    /// Attempts to connect to a server after the first one
    #[arg(long, value_name = "N", default_value = "3", value_parser = number(0..=10))]
    pub(crate) retries: u32,
    /// Time between two attempts to connect to the same server, at most --timeout-connect: in it the server can come back
    #[arg(long, value_name = "T", default_value = "100ms", value_parser = duration)]
    pub(crate) retry_pause: Duration,
}

/// `--mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ModeArg {
    /// HTTP/1
    Http,
    /// Bytes, both ways; persistence by the client's address only
    Tcp,
}

/// Who the client is, and who may be one.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdentityArgs {
    /// Clients that are turned away, on both paths; repeatable. A file has one block or address per line, # comments
    #[arg(long, value_name = "CIDR|@FILE")]
    pub(crate) deny: Vec<String>,
    /// Proxies in front of this one: they, and only they, must say by a PROXY header who their client is; repeatable
    #[arg(long, value_name = "CIDR")]
    pub(crate) accept_proxy: Vec<String>,
    /// Peers whose answers say in a header, X-Balancer, which server they are from and why; repeatable
    #[arg(long, value_name = "CIDR")]
    pub(crate) debug_from: Vec<String>,
    /// Tell servers by a PROXY header who the client is; checks have one, too
    #[arg(long, value_name = "v1|v2", value_enum)]
    pub(crate) send_proxy: Option<SendProxyArg>,
    /// Tell servers by HTTP headers who the client is
    #[arg(long, value_name = "HEADERS", default_value = "none", value_enum)]
    pub(crate) forwarded: ForwardedArg,
}

/// `--send-proxy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SendProxyArg {
    /// A line of text
    V1,
    /// Binary
    V2,
}

/// `--forwarded`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ForwardedArg {
    /// What the client sends in such headers passes as it is
    None,
    /// X-Forwarded-For gets another element; X-Forwarded-Proto, -Host and -Port are ours alone
    XForwardedFor,
    /// Forwarded (RFC 7239) gets another element
    Forwarded,
}

/// `--check` and its timing.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// How servers are checked: tcp (connect); http=PATH[,host=H][,expect=STATUSES][,drain-on=STATUS] (GET; 200-399
    /// unless told otherwise, as in expect=200+3xx); none
    #[arg(long, value_name = "none|tcp|http=PATH", default_value = "tcp")]
    pub(crate) check: String,
    /// Time between two checks of a server
    #[arg(long, value_name = "T", default_value = "2s", value_parser = duration)]
    pub(crate) check_interval: Duration,
    /// How long a check may take
    #[arg(long, value_name = "T", default_value = "1s", value_parser = duration)]
    pub(crate) check_timeout: Duration,
    /// Successes in a row that bring a server up
    #[arg(long, value_name = "N", default_value = "2", value_parser = number(1..=100))]
    pub(crate) check_rise: u32,
    /// Failures in a row that take a server down
    #[arg(long, value_name = "N", default_value = "3", value_parser = number(1..=100))]
    pub(crate) check_fall: u32,
    /// Errors of real traffic that count against a server, on both paths: connect (it cannot be connected to), 5xx (it
    /// fails to answer, or says that it has failed). N in a row (10) take it down, until checks bring it up
    #[arg(long, value_name = "connect+5xx[,limit=N]")]
    pub(crate) observe: Option<String>,
    /// A server that has come up gets new clients by and by, and after T its full share
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) slow_start: Option<Duration>,
    /// What becomes of the connections of a server that is taken to be down
    #[arg(long, value_name = "keep|reset", default_value = "keep", value_enum)]
    pub(crate) on_marked_down: OnMarkedDownArg,
}

/// `--on-marked-down`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum OnMarkedDownArg {
    /// They go on for as long as they can
    Keep,
    /// They are ended, on both paths
    Reset,
}

/// `--xdp` and what belongs to it.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatapathArgs {
    /// An interface to attach the XDP program to; repeatable. auto: those of the listen addresses and towards the
    /// servers, as far as they can. Without it there is no fast path
    #[arg(long, value_name = "auto|IF[,mode=auto|native|generic]")]
    pub(crate) xdp: Vec<String>,
    /// When a new connection may take the fast path
    #[arg(long, value_name = "WHEN", default_value = "auto", value_enum)]
    pub(crate) fast_path: FastPathArg,
    /// With --fast-path exclusive, one in N new connections of a known client goes through the proxy
    #[arg(long, value_name = "N", default_value = "16", value_parser = number(2..=u32::MAX))]
    pub(crate) verify_share: u32,
    /// Clients that always go through the proxy; repeatable
    #[arg(long, value_name = "CIDR|@FILE")]
    pub(crate) fast_path_exclude: Vec<String>,
    /// How fast packets travel. nat: servers see an address of this host. gateway: they see the client, and must route
    /// their answers back through this host. dsr: they have the listen address, too, and answer the client directly
    #[arg(long, value_name = "nat|gateway|dsr", default_value = "nat", value_enum)]
    pub(crate) forward: ForwardArg,
    /// Address that servers see; repeatable. Without it: the one the kernel would use towards each server
    #[arg(long, value_name = "ADDR")]
    pub(crate) snat_ip: Vec<String>,
    /// Ports that servers see
    #[arg(long, value_name = "A-B", default_value = "10000-32767")]
    pub(crate) snat_ports: String,
    /// Largest segments that clients, and servers on the fast path, are told of: for tunnels with a smaller MTU
    #[arg(long, value_name = "N", value_parser = number(88..=32_767))]
    pub(crate) mss: Option<u32>,
    /// Most connections on the fast path at one time
    #[arg(long, value_name = "N", default_value = "256k", value_parser = count(1_000..=16_000_000))]
    pub(crate) flow_table: u32,
    /// How long known clients are served after the process has stopped answering
    #[arg(long, value_name = "T", default_value = "60s", value_parser = duration)]
    pub(crate) datapath_hold: Duration,
    /// Take the XDP program off when the process ends; live fast connections end with it
    #[arg(long, value_parser = switch)]
    pub(crate) detach_on_stop: bool,
}

/// `--fast-path`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum FastPathArg {
    /// Like always if `source` is the first --persist, else off
    Auto,
    /// Never
    Off,
    /// The client's address is known and belongs to one user, as far as has been seen
    Exclusive,
    /// The client's address is known
    Always,
}

/// `--forward`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ForwardArg {
    /// Servers see an address and a port of this host
    Nat,
    /// Servers see the client, and route their answers back through this host
    Gateway,
    /// Servers have the listen address as well, see the client, and answer it directly
    Dsr,
}

/// `--timeout-…` and `--max-…`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LimitArgs {
    /// Silence of a client in the middle of a message
    #[arg(long, value_name = "T", default_value = "30s", value_parser = duration)]
    pub(crate) timeout_client: Duration,
    /// Silence of a server before or in the middle of an answer
    #[arg(long, value_name = "T", default_value = "60s", value_parser = duration)]
    pub(crate) timeout_server: Duration,
    /// Connecting to a server
    #[arg(long, value_name = "T", default_value = "5s", value_parser = duration)]
    pub(crate) timeout_connect: Duration,
    /// A request's head, from its first byte
    #[arg(long, value_name = "T", default_value = "10s", value_parser = duration)]
    pub(crate) timeout_request: Duration,
    /// A client connection between two requests
    #[arg(long, value_name = "T", default_value = "60s", value_parser = duration)]
    pub(crate) timeout_keepalive: Duration,
    /// Silence of both sides of a WebSocket, or of a connection with --mode tcp
    #[arg(long, value_name = "T", default_value = "1h", value_parser = duration)]
    pub(crate) timeout_tunnel: Duration,
    /// Waiting for a server to have room (maxconn=) [default: that of --timeout-connect]
    #[arg(long, value_name = "T", value_parser = duration)]
    pub(crate) timeout_queue: Option<Duration>,
    /// Most client connections at one time [default: what the descriptor limit allows]
    #[arg(long, value_name = "N", value_parser = count(1..=16_000_000))]
    pub(crate) max_connections: Option<u32>,
    /// Largest head of a request or an answer
    #[arg(long, value_name = "SIZE", default_value = "16k", value_parser = size(1024..=1024 * 1024))]
    pub(crate) max_head: usize,
    /// Most header lines in a head
    #[arg(long, value_name = "N", default_value = "100", value_parser = number(1..=MAX_HEADERS as u32))]
    pub(crate) max_headers: u32,
}

/// What concerns the process.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProcessArgs {
    /// The admin socket [default: /run/balancer/NAME.sock for root, else under XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH")]
    pub(crate) admin: Option<PathBuf>,
    /// Who may talk to the admin socket, as permissions of its file
    #[arg(long, value_name = "OCTAL", default_value = "0600", value_parser = permissions)]
    pub(crate) admin_mode: u32,
    /// Where people and programs ask by HTTP: a page at /status, and /status.json, /metrics, /healthz, /readyz. Loopback,
    /// unless others are to reach it
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) http_admin: Option<String>,
    /// Threads that serve clients [default: the cores available]
    #[arg(long, value_name = "N", value_parser = number(1..=256))]
    pub(crate) workers: Option<u32>,
    /// One line a request, to stdout (-) or appended to a file
    #[arg(long, value_name = "-|PATH")]
    pub(crate) access_log: Option<PathBuf>,
    /// What such a line looks like; haproxy: as with its `option httplog`
    #[arg(long, value_name = "text|json|haproxy", default_value = "text")]
    pub(crate) log_format: String,
    /// What goes to stderr: this and what is more urgent
    #[arg(long, value_name = "error|warn|info", default_value = "info", value_enum)]
    pub(crate) log_level: LogLevelArg,
    /// Where learned tables and the key of their hashes are kept over a reboot; saved every minute and at exit
    #[arg(long, value_name = "PATH")]
    pub(crate) state_file: Option<PathBuf>,
    /// How long requests may take to finish after TERM or INT; a second signal ends it at once
    #[arg(long, value_name = "T", default_value = "30s", value_parser = duration_or_zero)]
    pub(crate) drain_timeout: Duration,
    /// Take sockets, tables and the role over from the instance that holds the admin socket; without one, just start
    #[arg(long, value_parser = switch)]
    pub(crate) takeover: bool,
    /// User to become once everything is open; needs root
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Group to become [default: that of --user]
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
}

/// `--log-level`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogLevelArg {
    /// What stops the service or a part of it
    Error,
    /// What should be looked at
    Warn,
    /// What may be good to know
    Info,
}

/// `--name` unless given.
pub(crate) const DEFAULT_NAME: &str = "balancer";
