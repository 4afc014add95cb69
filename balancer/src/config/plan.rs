//! Flags → [`Config`]: the one place where a command line becomes a service.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::options::Value;
use super::{
    AccessLogConfig, Balance, Config, FastPath, Forward, Host, Limits, LogFormat, LogTarget, Mode,
    RetryConfig, Timeouts, address, check, fast_path, health, identity, owner, persistence, resolver,
    servers, tcp,
};
use crate::cli::flags::{LogLevelArg, ModeArg, ProcessArgs, RunArgs};
use crate::cli::settings::{Origin, Settings};
use crate::cli::{Stop, parse_duration};
use crate::live::Live;
use crate::log::Level;
use crate::persist::decide::{OnDown, Policy};

/// Each of them costs a descriptor per worker.
const MOST_LISTENERS: usize = 64;

const ALGORITHMS: &str = "roundrobin, leastconn, random, first, source, uri, header=NAME or query=NAME";

/// More than any machine has cores.
const MOST_WORKERS: u32 = 256;

/// A service that can be run, and what should be said about it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is to do.
    pub config: Config,
    /// What is allowed and yet should be known, one line each.
    pub warnings: Vec<String>,
    /// Where the settings came from.
    pub settings: Settings,
    /// What the host was when they were looked at: the process may give some of it up.
    pub host: Host,
}

impl Plan {
    /// Validates.
    ///
    /// # Errors
    /// [`Stop::Usage`] for what is wrong with a flag, [`Stop::Failed`] for what this host cannot do.
    pub fn new(args: &RunArgs, settings: Settings, host: &Host) -> Result<Self, Stop> {
        let config = Config::new(args, host).map_err(|stop| settings.with_place(stop))?;
        let warnings = warnings(&config, &settings);
        Ok(Self { config, warnings, settings, host: host.clone() })
    }
}

impl Config {
    fn new(args: &RunArgs, host: &Host) -> Result<Self, Stop> {
        let (service, process, limits) = (&args.service, &args.process, &args.limits);
        let listen = listen(&service.listen, !args.datapath.xdp.is_empty())?;
        let mut servers = servers::servers(&service.server)?;
        for server in &servers {
            if let Some(rest) = servers::goes_round(server, &listen) {
                return Err(Stop::Usage(format!("--server {} {rest}", server.name)));
            }
        }
        let resolvers = resolver::resolvers(&service.resolver)?;
        let persist = persistence::list(&service.persist, &service.name)?;
        persistence::together::servers(&persist, &mut servers)?;
        let identity = identity::identity(&args.identity)?;
        let balance = balance(&service.balance)?;
        let mode = match service.mode {
            ModeArg::Http => Mode::Http,
            ModeArg::Tcp => {
                tcp::check(&service.persist, &persist, &identity, &balance, &service.persist_ignore)
                    .map(|()| Mode::Tcp)?
            }
        };
        let health = health::health(&args.check, check::check(&args.check)?, mode)?;
        let access_log = access_log(process)?;
        let datapath = fast_path::datapath(&args.datapath, &persist, &identity, host)?;
        if let Some(datapath) = &datapath {
            fast_path::direct(datapath, &listen, &servers)?;
        }
        let state_file = state_file(process)?;
        let admin = host.admin_path(&service.name, process.admin.as_deref())?;
        let http_admin = http_admin(process.http_admin.as_deref(), &listen)?;
        let owner = owner::owner(process.user.as_deref(), process.group.as_deref(), host)?;
        if owner.is_some() && args.datapath.detach_on_stop {
            return Err(Stop::Usage(
                "--detach-on-stop needs root to the end, which --user gives up; leave one of them out, and run \
                 `balancer detach` as root after the stop"
                    .into(),
            ));
        }
        Ok(Self {
            name: service.name.clone(),
            mode,
            listen,
            servers,
            resolvers,
            persist,
            persist_ignore: ignored(&service.persist_ignore)?,
            policy: Policy { on_down: on_down(&service.on_down)?, leave_backup: service.leave_backup },
            identity,
            balance,
            health: health.into(),
            admin,
            admin_mode: process.admin_mode,
            http_admin,
            workers: process.workers.unwrap_or(host.cores).clamp(1, MOST_WORKERS) as usize,
            log_level: match process.log_level {
                LogLevelArg::Error => Level::Error,
                LogLevelArg::Warn => Level::Warn,
                LogLevelArg::Info => Level::Info,
            },
            access_log,
            state_file,
            datapath,
            retry: RetryConfig {
                retries: service.retries,
                pause: service.retry_pause,
                redispatch: service.redispatch,
            },
            timeouts: Live::from(Timeouts {
                client: limits.timeout_client,
                server: limits.timeout_server,
                connect: limits.timeout_connect,
                request: limits.timeout_request,
                keepalive: limits.timeout_keepalive,
                tunnel: limits.timeout_tunnel,
                queue: limits.timeout_queue.unwrap_or(limits.timeout_connect),
            }),
            limits: Limits { head: limits.max_head, headers: limits.max_headers as usize },
            max_connections: limits.max_connections,
            mss: args.datapath.mss,
            drain_timeout: process.drain_timeout,
            takeover: process.takeover,
            owner,
        })
    }
}

/// `--persist-ignore`.
fn ignored(texts: &[String]) -> Result<Vec<String>, Stop> {
    let prefix = |text: &String| {
        let value = Value { flag: "--persist-ignore", text };
        let is_path =
            text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?');
        is_path.then(|| text.clone()).ok_or_else(|| {
            value.wrong("is not how a path begins; write for example /static/, escaped as in requests")
        })
    };
    texts.iter().map(prefix).collect()
}

/// `--on-down`.
fn on_down(text: &str) -> Result<OnDown, Stop> {
    let value = Value { flag: "--on-down", text };
    match text.split_once('=') {
        None if text == "move" => Ok(OnDown::Move),
        None if text == "fail" => Ok(OnDown::Fail),
        Some(("wait", limit)) => parse_duration(limit)
            .map(OnDown::Wait)
            .map_err(|rest| value.wrong(format_args!("waits for a time that {rest}"))),
        _ if text == "wait" => Err(value.wrong("does not say how long; write for example wait=5s")),
        _ => Err(value.wrong("is not known; write move, wait=T or fail")),
    }
}

pub(super) fn listen(texts: &[String], with_xdp: bool) -> Result<Vec<SocketAddr>, Stop> {
    if texts.is_empty() {
        return Err(Stop::Usage("--listen is missing; write --listen ADDR:PORT".into()));
    }
    if texts.len() > MOST_LISTENERS {
        return Err(Stop::Usage(format!(
            "--listen is given {} times; {MOST_LISTENERS} is the most",
            texts.len()
        )));
    }
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(texts.len());
    for text in texts {
        let value = Value { flag: "--listen", text };
        let address = address::parse(text).map_err(|rest| value.wrong(rest))?;
        if address.ip().is_multicast() {
            return Err(value.wrong("is a multicast address; write one that clients can connect to"));
        }
        if address.port() == 0 && with_xdp {
            return Err(
                value.wrong("has port 0 while --xdp needs to know the port; write a port from 1 to 65535")
            );
        }
        if addresses.contains(&address) {
            return Err(value.wrong("is given twice; give it once"));
        }
        if let Some(earlier) = addresses.iter().find(|earlier| overlap(earlier, &address)) {
            return Err(value.wrong(format_args!(
                "overlaps --listen {earlier}, one of them is for every address of this host; leave the other out"
            )));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// The same port of the same family, once for every address and once for one.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    any && one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4()
}

/// `--http-admin`.
fn http_admin(text: Option<&str>, listen: &[SocketAddr]) -> Result<Option<SocketAddr>, Stop> {
    let Some(text) = text else { return Ok(None) };
    let value = Value { flag: "--http-admin", text };
    let address = match text.parse::<u16>() {
        Ok(port) => Err(format!("has no address; write 127.0.0.1:{port}, which only this host can reach")),
        Err(_) => address::parse(text),
    };
    let address = address.map_err(|rest| value.wrong(rest))?;
    let other = listen.iter().find(|listen| **listen == address || overlap(listen, &address));
    match other.filter(|_| address.port() != 0) {
        Some(other) => {
            Err(value.wrong(format_args!("is what clients have, --listen {other}; write another port")))
        }
        None => Ok(Some(address)),
    }
}

fn balance(text: &str) -> Result<Balance, Stop> {
    let value = Value { flag: "--balance", text };
    let named = |what: &str, name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.is_empty() && name.chars().all(fits) {
            Ok(name.to_owned())
        } else {
            Err(value.wrong(format_args!(
                "does not name one; write {what}=NAME in letters, digits, dots, _ and -"
            )))
        }
    };
    Ok(match text.split_once('=').unwrap_or((text, "")) {
        ("roundrobin", "") => Balance::RoundRobin,
        ("leastconn", "") => Balance::LeastConn,
        ("random", "") => Balance::Random,
        ("first", "") => Balance::First,
        ("source", "") => Balance::Source,
        ("uri", "") => Balance::Uri,
        ("header", name) => Balance::Header(named("header", name)?),
        ("query", name) => Balance::Query(named("query", name)?),
        _ => return Err(value.wrong(format_args!("is not known; write {ALGORITHMS}"))),
    })
}

fn access_log(args: &ProcessArgs) -> Result<Option<AccessLogConfig>, Stop> {
    // The format is read even when there is nothing to write: what is wrong is wrong.
    let format = log_format(&args.log_format)?;
    let target = match &args.access_log {
        None => return Ok(None),
        Some(path) if path.as_os_str() == "-" => LogTarget::Stdout,
        Some(path) if path.file_name().is_none() => {
            return Err(Stop::Usage(format!(
                "--access-log {path:?} does not name a file; write a path or -"
            )));
        }
        Some(path) => LogTarget::File(path.clone()),
    };
    Ok(Some(AccessLogConfig { target, format }))
}

fn state_file(args: &ProcessArgs) -> Result<Option<PathBuf>, Stop> {
    let Some(path) = &args.state_file else { return Ok(None) };
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Stop::Usage(format!("--state-file {path:?} does not name a file; write a path")));
    }
    Ok(Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())))
}

fn log_format(text: &str) -> Result<LogFormat, Stop> {
    let value = Value { flag: "--log-format", text };
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "haproxy" => Ok(LogFormat::Haproxy),
        _ => Err(value.wrong("is not known; write text, json or haproxy")),
    }
}

fn warnings(config: &Config, settings: &Settings) -> Vec<String> {
    let mut warnings: Vec<String> = config
        .datapath
        .as_ref()
        .map_or_else(Vec::new, |datapath| fast_path::warnings(datapath, &config.persist, &config.identity));
    let fast_path = config.datapath.as_ref().map_or(FastPath::Off, |datapath| datapath.fast_path);
    warnings.extend(persistence::together::warnings(&config.persist, fast_path));
    let idle = |because: &str, flags: &[&str]| {
        let given = |flag: &&&str| settings.origin(flag) != Origin::Default;
        let say = |flag: &&str| format!("--{flag} has no effect with{because}");
        flags.iter().filter(given).map(say).collect::<Vec<_>>()
    };
    if config.datapath.is_none() {
        let flags = [
            "verify-share",
            "fast-path-exclude",
            "forward",
            "snat-ip",
            "snat-ports",
            "flow-table",
            "datapath-hold",
            "detach-on-stop",
        ];
        warnings.extend(idle("out --xdp", &flags));
    }
    if let Some(address) = config.http_admin.filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!(
            "--http-admin {address} is open to whoever can reach that address; /status.json there does not say who the \
             clients are"
        ));
    }
    let forward = config.datapath.as_ref().map_or(Forward::Nat, |datapath| datapath.forward);
    if forward != Forward::Nat {
        warnings.extend(idle(&format!(" --forward {}", forward.as_str()), &["snat-ip", "snat-ports"]));
    }
    if config.access_log.is_none() {
        warnings.extend(idle("out --access-log", &["log-format"]));
    }
    if config.health.look().check.is_none() {
        let flags = ["check-interval", "check-timeout", "check-rise", "check-fall", "on-marked-down"];
        warnings.extend(idle(" --check none", &flags));
    }
    if config.servers.iter().all(|server| server.maxconn.is_none()) {
        warnings.extend(idle("out a server that has maxconn=", &["timeout-queue"]));
    }
    if config.mode == Mode::Tcp {
        warnings.extend(idle(" --mode tcp", &tcp::IDLE));
        if config.identity.accept_proxy.is_empty() {
            warnings.extend(idle(" --mode tcp and without --accept-proxy", &["timeout-request"]));
        }
    }
    warnings
}
