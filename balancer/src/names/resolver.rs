//! Asks who a host is: `/etc/hosts` first, then DNS.
//!
//! Both files of the host are read anew each time: a daemon runs for longer than a resolver has one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::timeout;

/// An answer holds for as long as it says, but nobody is asked more often than this,
pub const SOONEST: Duration = Duration::from_secs(1);

/// and a server that has moved is found within this.
pub const LATEST: Duration = Duration::from_secs(60);

/// For a look-up as a whole.
pub const LIMIT: Duration = Duration::from_secs(5);

/// For one server to answer: the next one has to have its turn within the limit.
const TURN: Duration = Duration::from_millis(1500);

/// Addresses of a host that are looked at.
const MOST_ADDRESSES: usize = 256;

/// Who a host is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// As they came.
    pub addresses: Vec<IpAddr>,
    /// For how long that holds.
    pub life: Duration,
    /// Nobody else was asked: it is this host's own knowledge.
    pub is_local: bool,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// `servers`: DNS servers; none: those of `/etc/resolv.conf`.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec() }
    }

    /// The addresses of a host, at least one.
    ///
    /// # Errors
    /// Why there are none, as the rest of a sentence about the host.
    pub async fn resolve(&self, host: &str) -> Result<Answer, String> {
        let name = Name::from_str(host).map_err(|_| "is not a name that can be resolved".to_owned())?;
        if let Some(addresses) = own_knowledge(host, &name) {
            return Ok(Answer { addresses, life: LATEST, is_local: true });
        }
        let why = |error: &NetError| format!("cannot be resolved: {}", reason(error));
        let resolver = self.client().map_err(|error| why(&error))?;
        let both = async { tokio::join!(resolver.ipv4_lookup(name.clone()), resolver.ipv6_lookup(name)) };
        let Ok((v4, v6)) = timeout(LIMIT, both).await else {
            return Err(format!("cannot be resolved: no answer within {LIMIT:?}"));
        };
        let (mut addresses, mut life, mut trouble) = (Vec::new(), LATEST, None);
        let halves = [v4, v6].map(|half| {
            half.map(|found| {
                let addresses = found.answers().iter().filter_map(|record| record.data.ip_addr());
                (addresses.collect::<Vec<_>>(), found.valid_until())
            })
        });
        for half in halves {
            match half {
                Ok((found, until)) => {
                    addresses.extend(found);
                    life = life.min(until.saturating_duration_since(Instant::now()));
                }
                // The name has none of that kind.
                Err(error) if error.is_no_records_found() && !error.is_nx_domain() => {}
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        // Half an answer is none: a server is not to move to its other kind of address because nobody knows the one.
        if let Some(error) = trouble {
            return Err(why(&error));
        }
        addresses.truncate(MOST_ADDRESSES);
        if addresses.is_empty() {
            return Err("cannot be resolved: it has no address".to_owned());
        }
        Ok(Answer { addresses, life: life.clamp(SOONEST, LATEST), is_local: false })
    }

    fn client(&self) -> Result<TokioResolver, NetError> {
        let (config, found) = if self.servers.is_empty() {
            system_conf::read_system_conf()?
        } else {
            let servers = self.servers.iter().map(|server| {
                let at = |connection: ConnectionConfig| {
                    let mut connection = connection;
                    connection.port = server.port();
                    connection
                };
                let connections = vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())];
                NameServerConfig::new(server.ip(), true, connections)
            });
            (ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default())
        };
        let mut options = found;
        options.timeout = options.timeout.min(TURN);
        options.use_hosts_file = ResolveHosts::Never;
        // Each look-up is to find out what is so now.
        options.cache_size = 0;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
    }
}

/// What `/etc/hosts` says, and what a name means by itself (RFC 6761 §6.3).
fn own_knowledge(host: &str, name: &Name) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().unwrap_or_default();
    let of_kind = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let found = [RecordType::A, RecordType::AAAA].into_iter().filter_map(of_kind);
    let found: Vec<IpAddr> = found
        .flat_map(|lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .take(MOST_ADDRESSES)
        .collect();
    let host = host.trim_end_matches('.');
    if found.is_empty() && (host == "localhost" || host.ends_with(".localhost")) {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    (!found.is_empty()).then_some(found)
}

/// For people; the library's own words are for its developers.
fn reason(error: &NetError) -> String {
    match error {
        _ if error.is_nx_domain() => "there is no such name".to_owned(),
        _ if error.is_no_records_found() => "it has no address".to_owned(),
        NetError::Timeout => "no answer".to_owned(),
        NetError::NoConnections => "no DNS server can be reached".to_owned(),
        NetError::Io(error) => crate::log::reason(error),
        NetError::Proto(_) => "the answer is not understood".to_owned(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
