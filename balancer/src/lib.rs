//! `balancer`: a load balancer whose first promise is the session.
//!
//! ```text
//! client ─SYN─▶ XDP ──known source, usable server──▶ server           datapath
//!                └──anything else─▶ proxy ──▶ server                    proxy, http, persist
//!                                     └─ learned affinity ─▶ pinned map, read by XDP at the next SYN    table
//! ```
//!
//! The life of a request on the slow path is told in [`proxy::session`]: read head → decide → connect or reuse →
//! forward → read response head → learn → relay → log.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`config`] | flags → syntax → validated settings |
//! | [`import`] | a HAProxy configuration → flags |
//! | [`persist`] | the ordered list: who decides, what is learned (pure) |
//! | [`balance`] | who gets a request that nothing has decided (pure but for one cursor) |
//! | [`server`] | the servers and their states |
//! | [`intent`] | what the operator wants of them, across restarts (pure but for the ledger) |
//! | [`names`] | names of hosts: resolved at start and followed |
//! | [`table`], [`state_file`] | learned tables, in the kernel or in memory; what is kept of them over a reboot |
//! | [`visit`] | one request's way through the list: looked up, decided, reserved, learned |
//! | [`http`] | HTTP/1 messages: heads, bodies, cookies (pure) |
//! | [`proxy`] | sockets around them: accept, relay, pool |
//! | [`proxy_protocol`], [`cidr`] | who the client is when another proxy is in front; sets of addresses (pure)
//! | [`health`] | who is well: checks, real traffic, slow start (pure), and a task per server around it |
//! | [`datapath`] | the XDP program: pins, registry, interfaces, flows |
//! | [`netlink`] | what the kernel knows of interfaces, routes and neighbours |
//! | [`admin`], [`top`] | the operator's socket and its client; a live view of what it says |
//! | [`access_log`], [`log`] | one line a request; what the operator reads on stderr |
//! | [`run`] | the life of the daemon: start, serve, drain |
//! | [`check`], [`doctor`] | what would happen, without doing it; what this host offers, and how to mend it |
//! | [`instance`], [`listen`], `occupant` | one process per name; its listening sockets; who else has their addresses |
//! | [`takeover`], [`privileges`] | hot restart: one process takes over from another; giving up root |
//! | [`stats`] | what is counted and timed, of clients and of each server |
//! | [`clock`], [`live`] | boot time and wall clock; settings that are replaced while they are in use |

pub mod access_log;
pub mod admin;
pub mod balance;
pub mod check;
pub mod cidr;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath;
pub mod doctor;
pub mod health;
pub mod http;
pub mod import;
pub mod instance;
pub mod intent;
pub mod listen;
pub mod live;
pub mod log;
pub mod names;
pub mod netlink;
mod occupant;
pub mod persist;
pub mod privileges;
pub mod proxy;
pub mod proxy_protocol;
pub mod run;
pub mod server;
pub mod service;
pub mod state_file;
pub mod stats;
pub mod table;
pub mod takeover;
pub mod top;
pub mod visit;
