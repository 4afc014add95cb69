//! What `balancer doctor` looks at: as much of a service as the flags say.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{Forward, Host, InterfaceConfig, Plan, ServerConfig, XdpMode, fast_path, plan, servers};
use crate::cli::Stop;
use crate::cli::flags::RunArgs;
use crate::cli::settings::{Origin, Settings};

/// A service that may lack its addresses, its servers, or both.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// `--name`.
    pub name: String,
    /// `--listen`.
    pub listen: Vec<SocketAddr>,
    /// `--server`.
    pub servers: Vec<ServerConfig>,
    /// `--interface` or `--xdp`, without `auto`.
    pub interfaces: Vec<InterfaceConfig>,
    /// `--xdp auto`.
    pub auto: Option<XdpMode>,
    /// `--forward`.
    pub forward: Forward,
    /// `--snat-ip`.
    pub snat_ips: Vec<IpAddr>,
    /// `--snat-ports`.
    pub snat_ports: (u16, u16),
    /// `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u16, u16)>,
    /// Where the instance's socket would be, and with it its lock.
    pub admin: Option<PathBuf>,
    /// The service as a whole, if the flags say one.
    pub plan: Option<Plan>,
}

impl Subject {
    /// Of flags that may not be enough for `run`. What there is of them has to be right.
    ///
    /// # Errors
    /// What is wrong with a flag.
    pub fn new(
        args: &RunArgs,
        settings: &Settings,
        interfaces: &[String],
        host: &Host,
    ) -> Result<Self, Stop> {
        Self::read(args, settings, interfaces, host).map_err(|stop| settings.with_place(stop))
    }

    fn read(args: &RunArgs, settings: &Settings, interfaces: &[String], host: &Host) -> Result<Self, Stop> {
        let service = &args.service;
        let listen = match service.listen.as_slice() {
            [] => Vec::new(),
            texts => plan::listen(texts, !args.datapath.xdp.is_empty())?,
        };
        let servers = match service.server.as_slice() {
            [] => Vec::new(),
            texts => servers::servers(texts)?,
        };
        let (named, auto) = fast_path::interfaces(&args.datapath.xdp)?;
        let snat_ips = fast_path::snat_ips(&args.datapath.snat_ip)?;
        let admin = host.admin_path(&service.name, args.process.admin.as_deref());
        // Without a folder for sockets there is no lock to look at, and nothing is wrong with the flags.
        let admin = match admin {
            Err(stop) if settings.origin("admin") != Origin::Default => return Err(stop),
            admin => admin.ok(),
        };
        let snat_ports = fast_path::snat_ports(&args.datapath.snat_ports)?;
        let plan = match (listen.is_empty(), servers.is_empty(), &admin) {
            (false, false, Some(_)) => {
                // The doctor has a row for the ports.
                let host = Host { local_ports: None, ..host.clone() };
                Some(Plan::new(args, settings.clone(), &host)?)
            }
            _ => None,
        };
        let found = |name: &String| InterfaceConfig { name: name.clone(), ..InterfaceConfig::default() };
        Ok(Self {
            name: service.name.clone(),
            listen,
            servers,
            interfaces: if interfaces.is_empty() { named } else { interfaces.iter().map(found).collect() },
            auto: auto.filter(|_| interfaces.is_empty()),
            forward: fast_path::forward(&args.datapath),
            snat_ips,
            snat_ports,
            local_ports: host.local_ports,
            admin,
            plan,
        })
    }
}
