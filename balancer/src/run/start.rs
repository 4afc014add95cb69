//! The start: predecessor → locks → limits → kernel side → listening sockets → admin socket → logs → attach → give up root
//! → workers → ready.
//!
//! With a predecessor everything up to its last word may fail, and it goes on as if nothing had been. So names, locks
//! and what is published count as its own until then, and the workers wait.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::workers::Workers;
use super::{Daemon, Reload, Restart, Supervisor, activation};
use crate::access_log;
use crate::admin::{self, Access, Desk, http};
use crate::balance::Balance;
use crate::cli::settings::Origin;
use crate::config::{Config, Plan};
use crate::datapath::{self, Datapath, Enrolled, Known, Opened};
use crate::instance::Instance;
use crate::intent::ledger::Ledger;
use crate::intent::muster::Member;
use crate::listen::{self, Bound};
use crate::names::Answers;
use crate::names::follow::Names;
use crate::proxy::Order;
use crate::proxy::descriptors::Seats;
use crate::server::{Health, Server, Servers};
use crate::service::{Service, Shared};
use crate::state_file::{self, Keeper, Kept};
use crate::stats::Statistics;
use crate::table::Tables;
use crate::takeover::predecessor::{Heritage, Predecessor};
use crate::takeover::streams::{self, Streams};
use crate::takeover::successor::{self, Estate};
use crate::takeover::wire::{Descriptor, Ready};
use crate::visit::Books;
use crate::{log, privileges};

impl Daemon {
    /// `answers`: who the hosts of the servers are.
    pub(super) fn start(plan: Plan, answers: Answers) -> anyhow::Result<Self> {
        let restart = Restart::new(plan.config.takeover && plan.settings.origin("takeover") == Origin::Flag);
        let reload = Reload::new(plan.clone());
        let Plan { config, mut warnings, .. } = plan;
        listen::raise_descriptor_limit();
        warnings.extend(Seats::new(&config).shortfall(&config));
        let mut predecessor = predecessor(&config)?;
        let passed = predecessor.as_mut().map(Predecessor::heritage).transpose()?.unwrap_or_default();
        state_file::check(&config)?;
        let kept = kept(&config, predecessor.as_ref())?;
        let mut known = Known { answers: answers.clone(), ..Known::default() };
        if let Some(predecessor) = &predecessor {
            predecessor.tell(&mut known);
        }
        let key = predecessor.as_ref().map(|predecessor| predecessor.inventory.hash_key);
        known.hash_key = key.or(kept.as_ref().map(Kept::key));
        known.kept = kept.as_ref().map(Kept::intents).unwrap_or_default();
        let Held { mut instance, mut socket, http, opened, bound } = Held::take(&config, passed, &known)?;
        let access_log = open_log(&config)?;
        let Made { service, ledger, tables, datapath, mut notes, warnings: more, wants_entries } =
            Made::of(config, opened, predecessor.as_mut())?;
        warnings.extend(more);
        // Where everything is in the kernel still, a file has nothing to add.
        if let Some(kept) = kept.filter(|_| tables.iter().any(|(_, table)| table.is_new)) {
            let is_known = |label: &str| predecessor.as_ref().is_some_and(|known| known.has_table(label));
            notes.push(kept.restore(&tables, &service.servers, is_known));
        }
        if let Some(datapath) = &datapath {
            datapath.tables_are_complete()?;
        }
        let (heir, heirs) = mpsc::unbounded_channel();
        let offered =
            offer(&instance, (&socket, http.as_ref()), datapath.as_deref(), &service.config, &bound)?;
        let (attempt, fast) = (restart.attempt(), datapath.clone());
        let estate = Estate::new(Arc::clone(&service), Rc::clone(&ledger), fast, offered, heir, attempt);

        if let Some(owner) = &service.config.owner {
            instance.give_to(owner).context("--user: cannot give the lock away")?;
            privileges::drop_to(owner)?;
            notes.push(format!("root is given up, the user is {}", owner.name));
        }
        let access_log = access_log.map(access_log::Opened::start).transpose();
        let access_log = access_log.context("cannot start a thread")?;
        let order = if predecessor.is_some() { Order::Wait } else { Order::Serve };
        let workers = Workers::spawn(&service, &tables, bound.workers, access_log.as_ref(), order)?;
        let mut stats = Statistics::new(&service, workers.stats.clone());
        let has_predecessor = predecessor.is_some();
        if let Some(predecessor) = &mut predecessor {
            let streams = if streams::are_wanted() { predecessor.streams()? } else { None };
            let is_fast = datapath.as_ref().is_some_and(|datapath| datapath.is_fast());
            let (pid, taken) = (std::process::id(), bound.addresses.clone());
            let ready = Ready { pid, taken, is_fast, wants_entries };
            notes.push(succession(predecessor));
            let history = predecessor.succeed(ready, &tables, &service.servers, &ledger);
            stats = stats.with_history(history.context("--takeover")?);
            workers.tell(Order::Serve);
            predecessor.serving().context("--takeover")?;
            streams.into_iter().for_each(Streams::adopt);
            instance.inherit(&service.config.admin);
            socket.inherit();
        }
        let settled =
            datapath.as_ref().map_or(Ok(()), |datapath| datapath.settle()).and_then(|()| ledger.settle());
        if let Err(error) = settled {
            if !has_predecessor {
                return Err(error);
            }
            log::warn(format_args!(
                "what this start has changed is not all written down, and the next start may not know it: {}",
                log::chain(&error)
            ));
        }
        if let Some(predecessor) = predecessor.filter(|_| wants_entries) {
            spawn_local(predecessor.follow(tables.handle(), Arc::clone(&service)));
        }
        let keeper = keeper(&service, &tables, &ledger)?;
        let names = Names::new(&service, &ledger, &bound.addresses);
        let view = datapath.as_ref().and_then(Datapath::view);
        let desk = Rc::new(Desk {
            service: Arc::clone(&service),
            ledger,
            names,
            books: Rc::new(Books::new(Arc::clone(&service), tables)),
            decisions: RefCell::default(),
            table_turn: tokio::sync::Mutex::default(),
            census: RefCell::default(),
            bulk: Arc::new(tokio::sync::Semaphore::new(admin::MOST_BULKY)),
            view,
            walked: RefCell::default(),
            stats: Rc::new(stats),
            listen: bound.addresses,
            warnings,
            started: Instant::now(),
            draining: Cell::new(false),
            was_ready: Cell::new(false),
            log: access_log.as_ref().map(access_log::AccessLog::sender),
            estate: RefCell::new(Some(estate)),
        });
        let clerk = None;
        Ok(Self {
            workers,
            access_log,
            keeper,
            desk,
            datapath,
            socket,
            clerk,
            http,
            http_clerk: None,
            service,
            answers,
            notes,
            restart,
            reload,
            supervisor: Supervisor::default(),
            heirs,
            instance,
        })
    }
}

/// What is made of the settings and of what was opened.
struct Made {
    service: Shared,
    ledger: Rc<Ledger>,
    tables: Tables,
    datapath: Option<Rc<Datapath>>,
    notes: Vec<String>,
    warnings: Vec<String>,
    /// Entries were copied from the predecessor, and there may be later ones.
    wants_entries: bool,
}

impl Made {
    fn of(config: Config, opened: Opened, mut predecessor: Option<&mut Predecessor>) -> anyhow::Result<Self> {
        let Opened { members, ledger, tables, datapath, mut notes, warnings } = opened;
        let is_checked = config.health.look().check.is_some();
        let servers = members.into_iter().map(|Enrolled { member, identity, health }| {
            let Member { settings, wish, weight } = member;
            let server = Server::configured(settings, identity)
                .with_operator(wish)
                .with_weight_now(weight)
                .with_health_on_record(health);
            let server = match &predecessor {
                Some(predecessor) => predecessor.resume(server),
                None => server,
            };
            // What earlier checks have found would stay for ever where there are none.
            if is_checked { server } else { server.with_health(Health::Unknown) }
        });
        let servers = Servers::new(servers.collect());
        let balance = Balance::new(config.balance.clone(), &servers);
        let service = Arc::new(Service { config, servers, balance });
        let datapath = datapath.map(Rc::new);
        if let Some(datapath) = &datapath {
            service.servers.publish_with(datapath.publisher());
            // Before anybody can be fast: what an earlier process has left there are its limits.
            if let Some(loads) = datapath.loads() {
                service.servers.count_fast_with(loads);
            }
            notes.extend(datapath.attach()?);
        }
        let wants_entries = match &mut predecessor {
            Some(predecessor) => predecessor.copy_entries(&tables, &service.servers)?,
            None => false,
        };
        let ledger = Rc::new(ledger);
        Ok(Self { service, ledger, tables, datapath, notes, warnings, wants_entries })
    }
}

/// What has a name that others could want.
struct Held {
    instance: Instance,
    opened: Opened,
    bound: Bound,
    socket: admin::Socket,
    http: Option<http::Listener>,
}

impl Held {
    fn take(config: &Config, mut passed: Heritage, known: &Known) -> anyhow::Result<Self> {
        let instance = match passed.instance {
            Some(lock) => Instance::share(&config.name, &config.admin, lock)?,
            None => Instance::claim(&config.name, &config.admin)?,
        };
        let opened = datapath::open(config, passed.role, known)?;
        if passed.listeners.is_empty() {
            let mut wanted = config.listen.clone();
            wanted.extend(config.http_admin);
            passed.listeners = activation::sockets(&wanted)?;
        }
        let http = config.http_admin.map(|address| http::Listener::bind(address, &mut passed.listeners));
        let http = http.transpose()?;
        let bound = listen::bind(&config.listen, config.workers, passed.listeners)?;
        bound.limit_segments(config.mss).context("the kernel does not take --mss")?;
        let access = Access { mode: config.admin_mode, owner: config.owner.as_ref() };
        let socket = match passed.admin {
            Some(listener) => admin::Socket::share(&config.admin, access, listener)?,
            None => admin::Socket::bind(&config.admin, access, &instance)?,
        };
        Ok(Self { instance, opened, bound, socket, http })
    }
}

fn predecessor(config: &Config) -> anyhow::Result<Option<Predecessor>> {
    if !config.takeover {
        return Ok(None);
    }
    let found = Predecessor::find(config)?;
    if found.is_none() {
        let admin = config.admin.display();
        log::info(format_args!("--takeover: nobody holds {admin}, so there is nothing to take over"));
    }
    Ok(found)
}

/// The state file, unless a predecessor has all that could be in it.
fn kept(config: &Config, predecessor: Option<&Predecessor>) -> anyhow::Result<Option<Kept>> {
    let is_known = |label: &str| predecessor.is_some_and(|known| known.has_table(label));
    if predecessor.is_some() && config.persist.tables().all(|(_, label, _)| is_known(&label)) {
        return Ok(None);
    }
    Kept::find(config)
}

/// Second descriptors of everything that a successor will need, made while it is certain that there are some.
fn offer(
    instance: &Instance,
    (socket, http): (&admin::Socket, Option<&http::Listener>),
    datapath: Option<&Datapath>,
    config: &Config,
    bound: &Bound,
) -> anyhow::Result<Vec<(Descriptor, OwnedFd)>> {
    let role: Option<File> = datapath.map(Datapath::role).transpose()?.flatten();
    let mut offered = vec![(Descriptor::Instance, OwnedFd::from(instance.descriptor()?))];
    offered.extend(role.map(|role| (Descriptor::Role, OwnedFd::from(role))));
    offered.push((Descriptor::Admin, socket.descriptor()?.into()));
    if let Some(http) = http {
        offered.push((Descriptor::Listener(http.address()?), http.descriptor()?.into()));
    }
    offered.extend(successor::listeners(bound.workers.iter().flatten(), &config.listen, &bound.addresses)?);
    Ok(offered)
}

/// What the log should say of it.
fn succession(predecessor: &Predecessor) -> String {
    let inventory = &predecessor.inventory;
    let is_listener = |kind: &&Descriptor| matches!(kind, Descriptor::Listener(_));
    let sockets = inventory.descriptors.iter().filter(is_listener).count();
    format!(
        "took over from pid {}, balancer {}: {sockets} listening sockets",
        inventory.pid, inventory.version
    )
}

fn keeper(service: &Shared, tables: &Tables, ledger: &Ledger) -> anyhow::Result<Option<Keeper>> {
    let Some(path) = &service.config.state_file else { return Ok(None) };
    let keeper = Keeper::start(path.clone(), Arc::clone(service), tables.handle(), Box::new(ledger.lines()));
    keeper.map(Some).context("cannot start a thread")
}

fn open_log(config: &Config) -> anyhow::Result<Option<access_log::Opened>> {
    let Some(log) = &config.access_log else { return Ok(None) };
    access_log::Opened::new(log, &config.name, config.owner.as_ref()).map(Some).map_err(|error| {
        let (target, reason) = (&log.target, log::reason(&error));
        anyhow!(
            "--access-log {target}: cannot be opened: {reason}; name a file in a folder that can be written \
             to"
        )
    })
}
