//! A worker in a thread of this process.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use balancer::access_log::AccessLog;
use balancer::balance;
use balancer::cli;
use balancer::config::{
    AccessLogConfig, Balance, Config, HealthConfig, Host, IdentityConfig, Limits, LogFormat, LogTarget, Mode,
    Plan, RetryConfig, ServerConfig, ServerId, Timeouts,
};
use balancer::health;
use balancer::persist::decide::Policy;
use balancer::persist::{List, Method};
use balancer::proxy::{Order, Worker};
use balancer::server::{FastLoads, Identity, Server, Servers};
use balancer::service::Service;
use balancer::stats::{Front, Snapshot, Stats};
use balancer::table::{HashKey, Tables};
use balancer_ebpf::affinity::Affinity;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::PATIENCE;
use super::client::Client;

/// Life of an entry in these tests' tables, in seconds.
pub const TABLE_TIMEOUT: u32 = 1600;

pub struct Builder {
    methods: Vec<Method>,
    servers: Vec<ServerConfig>,
    listen: SocketAddr,
    balance: Balance,
    retry: RetryConfig,
    timeouts: Timeouts,
    identity: IdentityConfig,
    mode: Mode,
    max_connections: Option<u32>,
    health: HealthConfig,
    fast: Option<Box<dyn FastLoads>>,
    workers: usize,
    policy: Policy,
    persist_ignore: Vec<String>,
    log_format: LogFormat,
}

/// `cookie=SRV,insert,indirect`
pub fn cookie() -> Method {
    method("cookie=SRV,insert,indirect")
}

/// `source`
pub fn source() -> Method {
    method(&format!("source,timeout={TABLE_TIMEOUT}s,size=1000"))
}

/// What this value of `--persist` means.
pub fn method(text: &str) -> Method {
    settings(&["--persist", text]).persist.methods()[0].clone()
}

/// What these flags mean, beside those that every service needs.
pub fn settings(flags: &[&str]) -> Config {
    settings_of(&[&["--server", "s1=127.0.0.1:81"], flags].concat())
}

/// The same with the servers among the flags.
fn settings_of(flags: &[&str]) -> Config {
    let words = ["balancer", "run", "--listen", "127.0.0.1:80"];
    let words = words.iter().chain(flags).map(std::ffi::OsString::from);
    match cli::parse(words).unwrap_or_else(|stop| panic!("{flags:?}: {stop:?}")) {
        cli::Command::Run(run, settings) => {
            let host = Host { root: true, runtime_directory: None, cores: 1, local_ports: None };
            Plan::new(&run, settings, &host).unwrap_or_else(|stop| panic!("{flags:?}: {stop:?}")).config
        }
        other => panic!("{other:?}"),
    }
}

impl Builder {
    pub fn new(methods: impl Into<Vec<Method>>) -> Self {
        Self {
            methods: methods.into(),
            servers: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            balance: Balance::default(),
            retry: RetryConfig { retries: 2, pause: Duration::from_millis(100), redispatch: true },
            timeouts: Timeouts::default(),
            identity: IdentityConfig::default(),
            mode: Mode::Http,
            max_connections: None,
            health: HealthConfig::default(),
            fast: None,
            workers: 1,
            policy: Policy::default(),
            persist_ignore: Vec::new(),
            log_format: LogFormat::Text,
        }
    }

    /// With these flags about persistence.
    pub fn of_flags(flags: &[&str]) -> Self {
        let Config { persist, policy, persist_ignore, retry, identity, .. } = settings(flags);
        Self { policy, persist_ignore, retry, identity, ..Self::new(persist.methods()) }
    }

    /// With these flags, servers and all.
    pub fn of_servers_and_flags(flags: &[&str]) -> Self {
        let Config { servers, persist, policy, persist_ignore, retry, .. } = settings_of(flags);
        Self { servers, policy, persist_ignore, retry, ..Self::new(persist.methods()) }
    }

    /// A server named s1, s2, …, with its name as its id.
    pub fn server(mut self, address: SocketAddr) -> Self {
        let name = format!("s{}", self.servers.len() + 1);
        self.servers.push(ServerConfig {
            id: ServerId::Name,
            name,
            address,
            host: None,
            weight: 1,
            backup: false,
            disabled: false,
            maxconn: None,
            maxqueue: None,
        });
        self
    }

    /// The last server serves only when no other can.
    pub fn backup(mut self) -> Self {
        self.servers.last_mut().expect("just added").backup = true;
        self
    }

    /// The last server serves so many at one time.
    pub fn maxconn(mut self, most: u32) -> Self {
        self.servers.last_mut().expect("just added").maxconn = Some(most);
        self
    }

    /// So many may wait for the last server.
    pub fn maxqueue(mut self, most: u32) -> Self {
        self.servers.last_mut().expect("just added").maxqueue = Some(most);
        self
    }

    /// So many threads, each with an address of its own.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    pub fn balance(mut self, algorithm: Balance) -> Self {
        self.balance = algorithm;
        self
    }

    pub fn log_format(mut self, format: LogFormat) -> Self {
        self.log_format = format;
        self
    }

    pub fn retries(mut self, count: u32) -> Self {
        self.retry.retries = count;
        self
    }

    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    pub fn no_redispatch(mut self) -> Self {
        self.retry = RetryConfig { retries: 1, redispatch: false, ..self.retry };
        self
    }

    pub fn retry_pause(mut self, pause: Duration) -> Self {
        self.retry.pause = pause;
        self
    }

    pub fn timeouts(mut self, set: impl FnOnce(&mut Timeouts)) -> Self {
        set(&mut self.timeouts);
        self
    }

    pub fn identity(mut self, set: impl FnOnce(&mut IdentityConfig)) -> Self {
        set(&mut self.identity);
        self
    }

    pub fn tcp(mut self) -> Self {
        self.mode = Mode::Tcp;
        self
    }

    pub fn max_connections(mut self, most: u32) -> Self {
        self.max_connections = Some(most);
        self
    }

    /// Somebody watches over the servers.
    pub fn health(mut self, health: HealthConfig) -> Self {
        self.health = health;
        self
    }

    /// There is a fast path, as far as anybody can tell.
    pub fn fast(mut self, loads: impl FastLoads + 'static) -> Self {
        self.fast = Some(Box::new(loads));
        self
    }

    pub fn start(mut self) -> Balancer {
        let listeners = (0..self.workers).map(|_| TcpListener::bind(self.listen).expect("bind"));
        let listeners: Vec<_> = listeners.collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("address"));
        let addresses: Vec<_> = addresses.collect();
        let folder = tempfile::tempdir().expect("folder");
        let log_path = folder.path().join("access.log");
        let servers = self.servers.iter().zip(1..).map(|(server, id)| {
            let identity = Identity { id, generation: 1 };
            Server::new(server.name.clone(), server.cookie(), server.address, identity)
                .with_weight(server.weight)
                .as_backup(server.backup)
                .with_capacity(server.maxconn, server.maxqueue)
        });
        let servers = Servers::new(servers.collect());
        if let Some(loads) = self.fast.take() {
            servers.count_fast_with(loads);
        }
        let service = Arc::new(Service {
            balance: balance::Balance::new(self.balance.clone(), &servers),
            servers,
            config: self.config(addresses.clone(), &log_path, folder.path()),
        });
        let tables = Tables::in_memory(&service.config.persist, HashKey::from_bytes([1; 16]));
        let log = AccessLog::open(service.config.access_log.as_ref().expect("a log"), "web").expect("log");
        let (stop, order) = watch::channel(Order::Serve);
        let mut workers = Vec::new();
        for listener in listeners {
            let stats = Arc::<Stats>::default();
            let worker = Worker {
                service: Arc::clone(&service),
                tables: tables.handle(),
                listeners: vec![listener],
                log: Some(log.sender()),
                stats: Arc::clone(&stats),
                order: order.clone(),
            };
            workers.push((stats, thread::spawn(move || worker.run().expect("worker"))));
        }
        let control = Control::start(&service);
        let (stats, threads) = workers.into_iter().unzip();
        let address = addresses[0];
        Balancer {
            address,
            addresses,
            service,
            tables,
            stats,
            stop,
            threads,
            log_path,
            _control: control,
            _log: log,
            _folder: folder,
        }
    }

    fn config(&self, listen: Vec<SocketAddr>, log: &std::path::Path, folder: &std::path::Path) -> Config {
        Config {
            name: "test".into(),
            mode: self.mode,
            listen,
            servers: self.servers.clone(),
            resolvers: Vec::new(),
            persist: List::new(self.methods.clone()),
            persist_ignore: self.persist_ignore.clone(),
            policy: self.policy,
            identity: self.identity.clone(),
            balance: self.balance.clone(),
            health: self.health.clone().into(),
            admin: folder.join("admin.sock"),
            workers: self.workers,
            log_level: balancer::log::Level::Info,
            access_log: Some(AccessLogConfig {
                target: LogTarget::File(log.to_owned()),
                format: self.log_format,
            }),
            state_file: None,
            datapath: None,
            retry: self.retry.clone(),
            timeouts: self.timeouts.clone().into(),
            limits: Limits::default(),
            max_connections: self.max_connections,
            mss: None,
            drain_timeout: Duration::from_secs(5),
            admin_mode: 0o600,
            http_admin: None,
            takeover: false,
            owner: None,
        }
    }
}

pub struct Balancer {
    pub address: SocketAddr,
    /// Of each worker.
    pub addresses: Vec<SocketAddr>,
    pub service: Arc<Service>,
    pub tables: Tables,
    stats: Vec<Arc<Stats>>,
    stop: watch::Sender<Order>,
    threads: Vec<JoinHandle<()>>,
    pub log_path: PathBuf,
    _control: Control,
    _log: AccessLog,
    _folder: tempfile::TempDir,
}

impl Balancer {
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn stats(&self) -> Snapshot {
        self.stats.iter().map(|stats| stats.front()).sum::<Front>().into()
    }

    /// The log's line of that number, from 0, once it is there.
    pub fn log_line(&self, number: usize) -> String {
        wait_for("a log line", || {
            let text = std::fs::read_to_string(&self.log_path).expect("log");
            text.split_inclusive('\n').nth(number).filter(|line| line.ends_with('\n')).map(str::to_owned)
        })
    }

    /// The two letters of that line.
    pub fn letters(&self, number: usize) -> String {
        self.log_line(number).split(' ').nth(8).expect("the letters' place").to_owned()
    }

    pub fn entry(&self, client: &str) -> Option<Affinity> {
        let table = self.tables.source().expect("a table");
        table.get(&table.source_key(client.parse::<IpAddr>().expect("address")))
    }

    /// Puts an entry that names the server of that registry id.
    pub fn learn(&self, client: &str, server: u16) {
        let entry = Affinity::new(server, 1, balancer::clock::boot_seconds() + TABLE_TIMEOUT);
        let table = self.tables.source().expect("a table");
        table.put(&table.source_key(client.parse::<IpAddr>().expect("address")), entry).expect("put");
    }

    pub fn drain(&self) {
        self.stop.send_replace(Order::Drain);
    }

    /// A successor has all the sockets.
    pub fn hand_over(&self) {
        self.stop.send_replace(Order::HandOver([self.address].into()));
    }

    pub fn cut_off(&self) {
        self.stop.send_replace(Order::CutOff);
    }

    /// The workers have ended by themselves.
    pub fn expect_end(&mut self) {
        for thread in self.threads.drain(..) {
            wait_for("the worker's end", || thread.is_finished().then_some(()));
            thread.join().expect("no panic");
        }
    }
}

/// What the main thread of the daemon does for the servers, until dropped.
struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    fn start(service: &Arc<Service>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let service = Arc::clone(service);
        // Here, so that it is there when somebody takes all descriptors.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let thread = thread::spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                health::spawn(&service);
                let _ = stopped.await;
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let (Some(thread), false) = (self.thread.take(), thread::panicking()) {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Unless it is to end sooner.
        self.stop.send_if_modified(|order| {
            let is_serving = *order == Order::Serve;
            if is_serving {
                *order = Order::Drain;
            }
            is_serving
        });
        if !thread::panicking() {
            self.expect_end();
        }
    }
}

/// Asks until there is an answer, for at most [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "no sign of {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
