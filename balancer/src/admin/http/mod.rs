//! `--http-admin`: what programs ask over HTTP. Nothing can be changed here.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | counters, times and states as OpenMetrics, for Prometheus |
//! | `/healthz` | 200 as long as the process answers |
//! | `/readyz` | 200 when clients are to be sent here; 503 before the first round of checks is complete, and from the beginning of a drain |
//! | `/status.json` | everything at a glance, in one object: see `admin::status` |
//! | `/status` | a page that shows it |
//! | `/explain.json` | what `balancer explain` says, on this host only |
//!
//! | module | what it does |
//! |---|---|
//! | [`request`] | bytes → what is asked, or why not (pure) |
//! | [`metrics`] | the figures of a moment as OpenMetrics |
//! | [`explain`] | the question in a URL |
//! | [`status`] | what may stand behind `/status.json` |
//! | [`page`] | the page |
//! | [`server`] | the socket, its limits, and who is told what |
//!
//! A page that a browser has open anywhere can have it send requests here. It cannot read the answers, unless its name is
//! made to lead here (DNS rebinding): then the request names that host, and is refused. Names that are answered are
//! addresses, `localhost` and that of this host.

mod explain;
mod metrics;
mod page;
mod request;
mod server;
mod status;

pub use server::Listener;
