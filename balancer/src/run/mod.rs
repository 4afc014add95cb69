//! `balancer run`: the life of the daemon.
//!
//! The [`start`] is told there. Whatever fails on the way is one line and leaves nothing behind, because everything that
//! was made so far takes itself back when it is dropped. The process's main thread is the control thread: signals, checks, the admin socket and the upkeep
//! of the fast path run there; clients are served by the [`workers`].

mod activation;
mod reload;
mod restart;
mod signals;
mod start;
pub mod succession;
mod supervisor;
mod workers;

use std::rc::Rc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::access_log::AccessLog;
use crate::admin::{self, Desk, http};
use crate::config::{Config, Plan};
use crate::datapath::Datapath;
use crate::instance::Instance;
use crate::log::{self, counted};
use crate::names::Answers;
use crate::proxy::Order;
use crate::proxy::descriptors::Seats;
use crate::service::Shared;
use crate::state_file::Keeper;
use crate::table::collector;
use crate::takeover::wire::Ready;
use crate::{check, health};
use reload::{Reload, Running};
use restart::Restart;
use signals::{Signal, Signals};
use supervisor::Supervisor;
use workers::Workers;

/// For those who are cut off to be told.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// For the last lines of the access log to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// For the state to be saved: what a hundred times as many entries as usual take on a slow disk.
const LAST_SAVING: Duration = Duration::from_secs(60);

/// Runs the service until it is told to stop, or until a successor has taken over.
///
/// # Errors
/// What kept it from starting, or what ended it.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    log::limit(plan.config.log_level);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, async {
        // Before anything is made that a signal could leave behind.
        let mut signals = Signals::new()?;
        let answers = tokio::select! {
            answers = Answers::ask(&plan.config) => answers,
            () = signals.stop() => return Ok(()),
        };
        let mut daemon = Daemon::start(plan, answers)?;
        daemon.keep_up()?;
        daemon.announce();
        daemon.supervisor = Supervisor::start(&daemon.service, daemon.workers.stats.clone());
        let end = daemon.serve(&mut signals).await?;
        daemon.stop(end, &mut signals).await;
        Ok(())
    });
    // A thread may still be telling something to somebody who does not read.
    runtime.shutdown_background();
    outcome
}

/// Everything that makes up the running service. Dropped from top to bottom.
struct Daemon {
    workers: Workers,
    access_log: Option<AccessLog>,
    keeper: Option<Keeper>,
    desk: Rc<Desk>,
    datapath: Option<Rc<Datapath>>,
    socket: admin::Socket,
    /// The task that answers operators, once it runs.
    clerk: Option<JoinHandle<()>>,
    /// `--http-admin`, and the task that answers there.
    http: Option<http::Listener>,
    http_clerk: Option<JoinHandle<()>>,
    service: Shared,
    answers: Answers,
    notes: Vec<String>,
    restart: Restart,
    /// The flags that are in force.
    reload: Reload,
    supervisor: Supervisor,
    /// Who has taken over.
    heirs: mpsc::UnboundedReceiver<Ready>,
    instance: Instance,
}

/// Why the service ends.
enum End {
    /// It was told to.
    Stop,
    /// A successor serves.
    HandOver(Ready),
}

impl Daemon {
    /// Starts what goes on beside the serving.
    fn keep_up(&mut self) -> anyhow::Result<()> {
        health::spawn(&self.service);
        for place in self.service.servers.places() {
            let host = self.service.servers[place].host.as_deref().unwrap_or_default();
            let (first, is_lost) = self.answers.due(host);
            self.desk.names.follow(place, first, is_lost);
        }
        spawn_local(Rc::clone(&self.desk.stats).watch());
        spawn_local(collector::run(self.desk.books.tables.handle()));
        let clerk = self.socket.serve(Rc::clone(&self.desk)).context("admin socket")?;
        self.clerk = Some(spawn_local(clerk));
        if let Some(http) = &self.http {
            self.http_clerk = Some(spawn_local(http.serve(Rc::clone(&self.desk)).context("--http-admin")?));
        }
        if let Some(datapath) = &self.datapath {
            let log = self.access_log.as_ref().map(AccessLog::sender);
            spawn_local(Rc::clone(datapath).upkeep(log));
        }
        Ok(())
    }

    /// The start-up log. Its last line is the sign that clients are served.
    fn announce(&self) {
        let Config { name, admin, .. } = &self.service.config;
        self.desk.warnings.iter().for_each(log::warn);
        self.notes.iter().for_each(log::info);
        log::info(format_args!(
            "servers: {}",
            log::first_few(self.service.servers.iter().map(|server| server.name.as_str()))
        ));
        log::info(format_args!("persistence: {}", check::persistence(&self.service.config)));
        let tables = &self.desk.books.tables;
        if let Some(kind) = tables.kind() {
            let place = if kind == "kernel" { "the kernel, where they outlive this process" } else { kind };
            let names: Vec<_> = tables.iter().map(|(label, _)| label).collect();
            log::info(format_args!("tables: {}, in {place}", names.join(", ")));
        }
        match check::fast_path(&self.service.config) {
            Some(line) if self.desk.view.is_some() => log::info(line),
            // --xdp auto has found nothing, and has said so.
            Some(_) => {}
            None => log::info("fast path off: there is no --xdp, so everything goes through the proxy"),
        }
        if let Some(view) = &self.desk.view {
            for interface in view.info().interfaces {
                log::info(format_args!("XDP on {}, {}", interface.name, interface.mode));
            }
        }
        log::info(format_args!("clients: at most {} at one time", Seats::new(&self.service.config).limit));
        log::info(format_args!("admin socket {}", admin.display()));
        if let Some(Ok(address)) = self.http.as_ref().map(http::Listener::address) {
            log::info(format_args!("http admin {address}"));
        }
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
    async fn serve(&mut self, signals: &mut Signals) -> anyhow::Result<End> {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ok(End::Stop),
                    Signal::Reopen => {
                        self.reopen_logs();
                        self.supervisor.reloaded();
                    }
                    Signal::Restart => self.restart.begin(self.obstacle()),
                },
                Some(successor) = self.heirs.recv() => return Ok(End::HandOver(successor)),
                ended = self.workers.ended() => {
                    bail!("worker {} has died, so all stop: {}", ended.worker, ended.why())
                }
            }
        }
    }

    /// HUP.
    fn reopen_logs(&mut self) {
        if let Some(log) = &self.access_log {
            log.reopen();
        }
        self.reload.run(&Running {
            desk: &self.desk,
            datapath: self.datapath.as_deref(),
            access_log: self.access_log.as_ref(),
        });
    }

    /// Why a process that is started by this one could not do what this one does.
    fn obstacle(&self) -> Option<&'static str> {
        let has_dropped = self.service.config.owner.is_some();
        (has_dropped && self.datapath.is_some())
            .then_some("the kernel's tables and XDP need root, which --user has given up here")
    }

    /// New connections go elsewhere from here on; what is being served may finish.
    async fn stop(mut self, mut end: End, signals: &mut Signals) {
        let limit = self.service.config.drain_timeout;
        self.desk.draining.set(true);
        // So that the sockets are closed when the workers close theirs.
        let estate = self.desk.estate.take();
        if let Some(estate) = &estate {
            estate.close();
            estate.certainty().await;
        }
        if let Ok(successor) = self.heirs.try_recv() {
            end = End::HandOver(successor);
        }
        let is_last = matches!(end, End::Stop);
        match end {
            End::Stop => {
                self.supervisor.stopping(limit + 3 * LAST_ANSWERS + LAST_SAVING + LAST_LINES).await;
                self.restart.call_off();
                if let Some(datapath) = &self.datapath {
                    datapath.drain();
                }
                self.workers.tell(Order::Drain);
                log::info(format_args!(
                    "draining: {} may finish within {limit:?} (--drain-timeout), and no new ones are taken; \
                     another signal stops at once",
                    counted(self.workers.connections(), "connection")
                ));
            }
            End::HandOver(successor) => {
                self.restart.is_over();
                self.supervisor.hand_over(successor.pid).await;
                // From here on everything that has a name is the successor's.
                if let Some(keeper) = self.keeper.take() {
                    keeper.abandon();
                }
                self.instance.give_up();
                self.socket.give_up();
                // Who is being answered gets the rest; who waits in the queue is the successor's.
                if let Some(clerk) = &self.clerk {
                    clerk.abort();
                }
                self.http.take().into_iter().for_each(http::Listener::close);
                if let Some(datapath) = &self.datapath {
                    datapath.hand_over(successor.is_fast);
                }
                self.service.servers.leave_fast_path();
                self.workers.tell(Order::HandOver(successor.taken.into()));
                log::info(format_args!(
                    "handed over to pid {}; {} may finish here within {limit:?} (--drain-timeout)",
                    successor.pid,
                    counted(self.workers.connections(), "connection")
                ));
            }
        }
        let unfinished = tokio::select! {
            () = self.workers.finished() => None,
            () = sleep(limit) => Some(format!("not finished within {limit:?} (--drain-timeout)")),
            () = signals.stop() => Some("a second signal has come".to_owned()),
        };
        if let (true, Some(datapath)) = (is_last, &self.datapath) {
            datapath.leave();
        }
        if let Some(why) = unfinished {
            log::warn(format_args!("cut off: {}: {why}", counted(self.workers.connections(), "connection")));
            self.workers.tell(Order::CutOff);
            // Who is not done by then is connecting to a server that does not answer.
            let _ = timeout(LAST_ANSWERS, self.workers.finished()).await;
        }
        if let Some(estate) = estate {
            let _ = timeout(LAST_ANSWERS, estate.all_is_told()).await;
        }
        if let Some(keeper) = self.keeper.take() {
            tokio::select! {
                () = keeper.finish() => {}
                () = sleep(LAST_SAVING) => log::warn(format_args!(
                    "state file: it was not written within {LAST_SAVING:?}; the one that was saved before \
                     stays"
                )),
                () = signals.stop() => {}
            }
        }
        // Whoever asks just now how things are is told.
        self.http.take().into_iter().for_each(http::Listener::close);
        if let Some(clerk) = self.http_clerk.take() {
            let _ = timeout(LAST_ANSWERS, clerk).await;
        }
        // What is read from here on would not be written: the next process reads it.
        if let Some(datapath) = &self.datapath {
            datapath.fall_silent();
        }
        tokio::select! {
            () = finish_log(self.access_log.take()) => {}
            () = signals.stop() => {}
        }
        log::info("stopped");
    }
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
