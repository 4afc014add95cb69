//! `balancer run`: the life of the daemon.
//!
//! Start: lock → limits → kernel side → listening sockets → admin socket → workers → attach → ready. Whatever fails
//! on the way is one line and leaves nothing behind, because everything that was made so far takes itself back when
//! it is dropped. The process's main thread is the control thread: signals, checks, the admin socket and the upkeep
//! of the fast path run there; clients are served by the [`workers`].

mod signals;
mod workers;

use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::access_log::AccessLog;
use crate::admin::{self, Desk};
use crate::balance::Balance;
use crate::config::{AccessLogConfig, Config, LogTarget, Plan};
use crate::datapath::{self, Datapath, Opened};
use crate::instance::Instance;
use crate::listen::{self, Bound};
use crate::log;
use crate::proxy::descriptors::Seats;
use crate::server::{Server, Servers};
use crate::service::{Service, Shared};
use crate::table::Table;
use crate::{check, health};
use signals::{Signal, Signals};
use workers::Workers;

/// For the last lines of the access log to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs the service until it is told to stop.
///
/// # Errors
/// What kept it from starting, or what ended it.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // Before anything is made that a signal could leave behind.
        let mut signals = Signals::new()?;
        let mut daemon = Daemon::start(plan)?;
        daemon.keep_up()?;
        daemon.announce();
        daemon.serve(&mut signals).await?;
        daemon.stop(&mut signals).await;
        Ok(())
    })
}

/// Everything that makes up the running service. Dropped from top to bottom.
struct Daemon {
    workers: Workers,
    access_log: Option<AccessLog>,
    desk: Rc<Desk>,
    datapath: Option<Rc<Datapath>>,
    socket: admin::Socket,
    service: Shared,
    notes: Vec<String>,
    _instance: Instance,
}

impl Daemon {
    fn start(plan: Plan) -> anyhow::Result<Self> {
        let Plan { config, mut warnings, .. } = plan;
        let instance = Instance::claim(&config.name, &config.admin)?;
        listen::raise_descriptor_limit();
        warnings.extend(Seats::new(&config).shortfall(&config));
        let Opened { servers, source, datapath, mut notes } = datapath::open(&config)?;
        let Bound { addresses, workers: listeners } = listen::bind(&config.listen, config.workers)?;
        let socket = admin::Socket::bind(&config.admin, &instance)?;
        let access_log = config.access_log.as_ref().map(open_log).transpose()?;

        let source =
            source.zip(config.persist.source()).map(|(store, method)| Table::new(store, method.timeout));
        let servers = config.servers.iter().zip(servers).map(|(server, (identity, operator))| {
            Server::new(server.name.clone(), server.cookie.clone(), server.address, identity)
                .with_weight(server.weight)
                .as_backup(server.backup)
                .with_operator(operator)
        });
        let servers = Servers::new(servers.collect());
        let balance = Balance::new(config.balance.clone(), &servers);
        let service = Arc::new(Service { config, servers, balance });
        let datapath = datapath.map(Rc::new);
        if let Some(datapath) = &datapath {
            service.servers.publish_with(datapath.publisher());
        }
        let workers = Workers::spawn(&service, source.as_ref(), listeners, access_log.as_ref())?;
        if let Some(datapath) = &datapath {
            notes.extend(datapath.attach()?);
        }
        let desk = Rc::new(Desk {
            service: Arc::clone(&service),
            source,
            view: datapath.as_ref().and_then(Datapath::view),
            stats: workers.stats.clone(),
            listen: addresses,
            warnings,
            started: Instant::now(),
        });
        Ok(Self { workers, access_log, desk, datapath, socket, service, notes, _instance: instance })
    }

    /// Starts what goes on beside the serving.
    fn keep_up(&self) -> anyhow::Result<()> {
        health::spawn(&self.service);
        spawn_local(self.socket.serve(Rc::clone(&self.desk)).context("admin socket")?);
        if let Some(datapath) = &self.datapath {
            spawn_local(Rc::clone(datapath).upkeep());
        }
        Ok(())
    }

    /// The start-up log. Its last line is the sign that clients are served.
    fn announce(&self) {
        let Config { name, servers, admin, .. } = &self.service.config;
        self.desk.warnings.iter().for_each(log::warn);
        self.notes.iter().for_each(log::info);
        log::info(format_args!("servers: {}", names(servers.iter().map(|server| server.name.as_str()))));
        if let Some(table) = &self.desk.source {
            let place = if table.kind() == "kernel" { "the kernel" } else { table.kind() };
            log::info(format_args!("tables: source, in {place}"));
        }
        match check::fast_path(&self.service.config) {
            Some(line) => log::info(line),
            None => log::info("fast path none: there is no --xdp"),
        }
        if let Some(view) = &self.desk.view {
            for interface in view.info().interfaces {
                log::info(format_args!("XDP on {}, {}", interface.name, interface.mode));
            }
        }
        log::info(format_args!("clients: at most {} at one time", Seats::new(&self.service.config).limit));
        log::info(format_args!("admin socket {}", admin.display()));
        let listen: Vec<_> = self.desk.listen.iter().map(ToString::to_string).collect();
        log::info(format_args!(
            "ready: balancer {} serves {name:?} on {} with {} workers, pid {}",
            env!("CARGO_PKG_VERSION"),
            listen.join(" "),
            self.service.config.workers,
            std::process::id()
        ));
    }

    /// Until told to stop, or until a worker dies: the rest would be a service that answers some and not others.
    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ok(()),
                    Signal::Reopen => self.reopen_logs(),
                },
                ended = self.workers.ended() => bail!("worker {} has died: {}; stopping", ended.worker, ended.why()),
            }
        }
    }

    fn reopen_logs(&self) {
        if let Some(log) = &self.access_log {
            log.reopen();
            log::info("access log opened anew");
        }
    }

    /// New connections go elsewhere from here on; what is being served may finish.
    async fn stop(mut self, signals: &mut Signals) {
        let limit = self.service.config.drain_timeout;
        if let Some(datapath) = &self.datapath {
            datapath.drain();
        }
        self.workers.drain();
        log::info(format_args!("draining for at most {limit:?}, another signal stops at once"));
        let finished = tokio::select! {
            () = self.workers.finished() => true,
            () = sleep(limit) => false,
            () = signals.stop() => false,
        };
        if let Some(datapath) = &self.datapath {
            datapath.leave();
        }
        if !finished {
            log::warn(format_args!("{} connections are cut off", self.workers.connections()));
        }
        tokio::select! {
            () = finish_log(self.access_log.take()) => {}
            () = signals.stop() => {}
        }
        log::info("stopped");
    }
}

fn open_log(config: &AccessLogConfig) -> anyhow::Result<AccessLog> {
    AccessLog::open(config).map_err(|error| match &config.target {
        LogTarget::Stdout => anyhow!("--access-log -: {}", log::reason(&error)),
        LogTarget::File(path) => anyhow!("--access-log {}: {}", path.display(), log::reason(&error)),
    })
}

/// Writes the last lines, unless whoever reads them has stopped reading.
async fn finish_log(log: Option<AccessLog>) {
    let Some(log) = log else { return };
    let (done, written) = oneshot::channel();
    // A thread that nobody waits for: the process may end before it does.
    thread::spawn(move || {
        drop(log);
        let _ = done.send(());
    });
    let _ = timeout(LAST_LINES, written).await;
}

/// The first few, and how many more there are.
fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
