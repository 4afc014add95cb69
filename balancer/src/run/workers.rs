//! The threads that serve clients.

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use crate::access_log::AccessLog;
use crate::log;
use crate::proxy::{Order, Worker};
use crate::service::Shared;
use crate::stats::Stats;
use crate::table::Tables;

/// All of them. Dropping it tells them to drain.
#[derive(Debug)]
pub(super) struct Workers {
    /// The counters of each.
    pub(super) stats: Vec<Arc<Stats>>,
    order: watch::Sender<Order>,
    ends: mpsc::UnboundedReceiver<Ended>,
    running: usize,
}

/// A worker that has come to its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) worker: usize,
    /// `Err`: not because it was told to.
    outcome: Result<(), String>,
}

impl Ended {
    pub(super) fn why(&self) -> &str {
        self.outcome.as_ref().err().map_or("it ended without being told to", String::as_str)
    }
}

impl Workers {
    /// One thread for each set of listeners, with `order` as the first one.
    pub(super) fn spawn(
        service: &Shared,
        tables: &Tables,
        listeners: Vec<Vec<TcpListener>>,
        access_log: Option<&AccessLog>,
        order: Order,
    ) -> anyhow::Result<Self> {
        let (order, told) = watch::channel(order);
        let (report, ends) = mpsc::unbounded_channel();
        let mut workers = Self { stats: Vec::new(), order, ends, running: 0 };
        for listeners in listeners {
            let stats = Arc::<Stats>::default();
            let worker = Worker {
                service: Arc::clone(service),
                tables: tables.handle(),
                listeners,
                log: access_log.map(AccessLog::sender),
                stats: Arc::clone(&stats),
                order: told.clone(),
            };
            workers.stats.push(stats);
            let (report, number) = (report.clone(), workers.running);
            workers.running += 1;
            let body = move || {
                // A panic has been reported by the time it arrives here; what matters is that it is not the end of
                // one thread alone.
                let outcome = match catch_unwind(AssertUnwindSafe(|| worker.run())) {
                    Ok(outcome) => outcome.map_err(|error| log::reason(&error)),
                    Err(_) => Err("it panicked".to_owned()),
                };
                // Nobody listens any more: the process is ending.
                let _ = report.send(Ended { worker: number, outcome });
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(body)
                .context("cannot start a thread")?;
        }
        Ok(workers)
    }

    /// Tells them what to do next.
    pub(super) fn tell(&self, order: Order) {
        self.order.send_replace(order);
    }

    /// The next one that ends.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.ends.recv().await {
            Some(ended) => {
                self.running -= 1;
                ended
            }
            // All have ended and said so.
            None => std::future::pending().await,
        }
    }

    /// Until the last one has ended.
    pub(super) async fn finished(&mut self) {
        while self.running > 0 {
            let ended = self.ended().await;
            if ended.outcome.is_err() {
                log::error(format_args!(
                    "worker {} has died while draining, and its connections with it: {}",
                    ended.worker,
                    ended.why()
                ));
            }
        }
    }

    /// Client connections that are open now.
    pub(super) fn connections(&self) -> u64 {
        self.stats.iter().map(|stats| stats.active()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::balance::Balance;
    use crate::cli;
    use crate::config::{Host, Plan};
    use crate::server::tests::servers;
    use crate::service::Service;

    fn service() -> Shared {
        let line = "balancer run --listen 127.0.0.1:0 --server s1=10.0.0.1:80 --admin /x/y.sock";
        let Ok(cli::Command::Run(run, settings)) = cli::parse(line.split(' ').map(Into::into)) else {
            panic!("{line}");
        };
        let config = Plan::new(&run, settings, &Host::read()).expect("valid").config;
        let servers = servers(1);
        let balance = Balance::new(config.balance.clone(), &servers);
        Arc::new(Service { config, servers, balance })
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
    }

    #[test]
    fn a_worker_that_dies_is_noticed() {
        let good = TcpListener::bind("127.0.0.1:0").expect("bound");
        let bad = TcpListener::from(OwnedFd::from(File::open("/dev/null").expect("there")));
        let mut workers =
            Workers::spawn(&service(), &Tables::default(), vec![vec![good], vec![bad]], None, Order::Serve)
                .expect("started");
        let ended = block_on(workers.ended());
        assert_eq!((ended.worker, ended.why()), (1, "socket operation on non-socket"));
        workers.tell(Order::Drain);
        block_on(workers.finished());
        assert_eq!(workers.running, 0);
    }
}
