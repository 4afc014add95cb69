//! What the fast path carries for each server: counts, limits, ends, and servers that come and go while it runs.
#![allow(unreachable_pub, missing_docs, reason = "a test is nobody's library")]

#[allow(dead_code, reason = "shared with the tests of the fast path")]
mod site;

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use balancer::cli::{self, Command};
use balancer::config::{Config, Host, Plan};
use balancer::datapath::kernel_table::{KernelTable, Shape};
use balancer::datapath::loads::Loads;
use balancer::datapath::maps::{self, Maps};
use balancer::datapath::pins::{Pins, Rollback};
use balancer::datapath::tend::Ending;
use balancer::datapath::{self, Datapath, Known, program};
use balancer::server::{Identity, Operator, Server, Servers};
use balancer::table::{Tables, source_key};
use balancer_ebpf::abi::{MAX_SERVERS, SCHEMA, SERVER_ABSENT, SERVER_UP, Server as KernelServer, ServerMeta};
use balancer_ebpf::affinity::Affinity;
use libtest_mimic::Arguments;
use site::{BALANCER, PATIENCE, SOURCE_FIRST, Site, Visit, all_flags, start, trial};
use xtask::lab::http::{self, Connection};
use xtask::lab::{self, Lab, wait_until};

fn main() {
    let arguments = Arguments::from_args();
    let trials = vec![
        trial("connections_are_counted_and_the_count_goes_back_to_nothing", counted),
        trial("counts_are_exact_under_load_from_many_clients", counted_under_load),
        trial("counts_survive_kill_9_and_what_happens_meanwhile", counted_without_a_process),
        trial("beyond_its_limit_a_server_gets_connections_through_the_proxy", limited),
        trial("a_limit_that_an_earlier_process_has_left_holds_nobody_up", limit_left_behind),
        trial("what_has_not_been_lent_is_not_fast_from_the_start", not_lent),
        trial("a_server_that_refuses_is_counted", refused),
        trial("a_server_that_does_not_answer_is_counted_after_3_s", unanswered),
        trial("what_is_ended_is_reset_on_both_sides", ended),
        trial("a_server_that_is_added_is_fast_and_one_that_is_deleted_is_not", come_and_go),
        trial("a_server_at_another_address_keeps_its_connections_and_gets_no_strangers", moved),
        trial("maps_of_another_version_are_let_alone", other_schema),
        trial("a_program_of_another_version_is_replaced_when_its_time_is_over", other_program),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The loads that the daemon has.
fn loads(site: &Site) -> Result<Loads> {
    let map = MapData::from_pin(site.pins().join("LOADS"))?;
    Ok(Loads::of(std::os::fd::AsFd::as_fd(map.fd()))?)
}

fn id(site: &Site, server: &str) -> Result<u16> {
    let row = site.daemon.server(server)?;
    Ok(u16::try_from(row["id"].as_u64().context("an id")?)?)
}

/// Fast connections to a server, as the operator sees them.
fn fast(site: &Site, server: &str) -> Result<u64> {
    site.daemon.server(server)?["fast"].as_u64().context("a count")
}

fn wait_for_count(site: &Site, server: &str, count: u64) -> Result<()> {
    wait_until(PATIENCE, &format!("{count} fast connections to {server}"), || {
        fast(site, server).is_ok_and(|now| now == count)
    })
}

/// A connection that has had an answer by the fast path, and stays open.
fn keep(site: &Site, client: usize) -> Result<Connection> {
    let mut connection = site.connect(client)?;
    ensure!(Visit::of(&connection.get("/", &[])?)?.fast);
    Ok(connection)
}

fn counted() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    ensure!(fast(&site, &home)? == 0);
    let kept = [keep(&site, 0)?, keep(&site, 0)?, keep(&site, 0)?];
    for _ in 0..20 {
        ensure!(site.visit(0, &[])?.fast);
    }
    wait_for_count(&site, &home, 3)?;
    ensure!(fast(&site, site.other(&home))? == 0);
    let table = String::from_utf8(site.daemon.client(&["show", "servers"])?.stdout.into())?;
    ensure!(table.lines().next().is_some_and(|line| line.contains("fast")), "{table}");
    drop(kept);
    wait_for_count(&site, &home, 0)
}

/// Ordinary ends from either side, and resets, on all CPUs at once.
fn counted_under_load() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let homes: Vec<_> = (0..3).map(|client| site.introduce(client)).collect::<Result<_>>()?;
    std::thread::scope(|scope| -> Result<()> {
        let site = &site;
        let clients = (0..6).map(|n| scope.spawn(move || visit_in_many_ways(site, n % 3)));
        let clients: Vec<_> = clients.collect();
        clients.into_iter().try_for_each(|client| client.join().expect("the thread"))
    })?;
    let (loads, forwarded) = (loads(&site)?, site.daemon.counter("syn_forwarded")?);
    let mut opened = 0;
    for server in ["s1", "s2"] {
        if homes.iter().any(|home| home == server) {
            wait_for_count(&site, server, 0)?;
        }
        opened += loads.opened(id(&site, server)?);
    }
    // One that was reset and whose port comes back within a second is the same flow, revived: counted twice, sent once.
    ensure!(forwarded > 300 && opened >= forwarded, "{opened} counted, {forwarded} forwarded");
    ensure!(!site.daemon.log().contains("count of fast connections"), "{}", site.daemon.log());
    Ok(())
}

fn visit_in_many_ways(site: &Site, client: usize) -> Result<()> {
    for round in 0..60 {
        let mut connection = site.connect(client)?;
        match round % 3 {
            0 => drop(connection.get("/", &[])?),
            1 => drop(connection.get("/", &[("Connection", "close")])?),
            _ => socket2::SockRef::from(connection.stream()).set_linger(Some(std::time::Duration::ZERO))?,
        }
    }
    Ok(())
}

fn counted_without_a_process() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let (gone, stays) = (keep(&site, 0)?, keep(&site, 0)?);
    site.daemon.kill();
    drop(gone);
    let meanwhile = keep(&site, 0)?;
    site.daemon.restart()?;
    wait_for_count(&site, &home, 2)?;
    drop((stays, meanwhile));
    wait_for_count(&site, &home, 0)
}

fn limited() -> Result<()> {
    let site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    let loads = loads(&site)?;
    loads.set_limit(id(&site, &home)?, 2);
    let (first, second) = (keep(&site, 0)?, keep(&site, 0)?);
    let third = site.visit(0, &[])?;
    ensure!(!third.fast && third.server == home, "{third:?}");
    ensure!(site.daemon.counter("pass_server_full")? == 1);
    ensure!(fast(&site, &home)? == 2);
    drop(first);
    wait_for_count(&site, &home, 1)?;
    ensure!(site.visit(0, &[])?.fast, "there is room again");
    drop(second);
    Ok(())
}

fn limit_left_behind() -> Result<()> {
    let mut site = Site::open(SOURCE_FIRST)?;
    let home = site.introduce(0)?;
    loads(&site)?.set_limit(id(&site, &home)?, 0);
    ensure!(!site.visit(0, &[])?.fast);
    site.daemon.kill();
    ensure!(site.connect(0).is_err(), "a limit holds without a process");
    site.daemon.restart()?;
    ensure!(site.visit(0, &[])?.fast);
    Ok(())
}

/// A site whose servers are not checked: that they are gone is for the clients to find out.
fn unchecked_site() -> Result<Site> {
    let lab = Lab::star().client_addresses(3).build()?;
    let servers = site::start_servers(&lab)?;
    let flags = all_flags(&lab, 80, SOURCE_FIRST);
    let flags: Vec<&str> = flags.iter().map(|flag| if flag == "tcp" { "none" } else { flag }).collect();
    let daemon = xtask::lab::Daemon::start(&lab.balancer, Path::new(BALANCER), "web", &flags)?;
    Ok(Site { daemon, servers, lab })
}

fn refused() -> Result<()> {
    let site = unchecked_site()?;
    let home = site.introduce(0)?;
    let (loads, id) = (loads(&site)?, id(&site, &home)?);
    site.nginx(&home).child.kill();
    let error = site.connect(0).err().context("a connection to a dead server")?;
    ensure!(format!("{error:#}").contains("refused"), "{error:#}");
    ensure!((loads.refused(id), loads.unanswered(id), loads.connections(id)) == (1, 0, 0));
    Ok(())
}

fn unanswered() -> Result<()> {
    let site = unchecked_site()?;
    let home = site.introduce(0)?;
    let (loads, id) = (loads(&site)?, id(&site, &home)?);
    let host = site.lab.server(home[1..].parse()?);
    let gateway = format!("{}/32", host.gateway);
    host.ns.output("ip", &["route", "add", "blackhole", &gateway])?;
    std::thread::scope(|scope| -> Result<()> {
        let client = scope.spawn(|| site.visit(0, &[]));
        wait_until(PATIENCE, "the silence to be counted", || loads.unanswered(id) == 1)?;
        host.ns.output("ip", &["route", "del", "blackhole", &gateway])?;
        let late = client.join().expect("the thread")?;
        ensure!(late.fast && late.server == home, "{late:?}");
        Ok(())
    })?;
    ensure!((loads.refused(id), loads.unanswered(id)) == (0, 1));
    Ok(())
}

/// A server that hands the test its connections when it has answered one request on each.
fn answering_server(lab: &Lab) -> Result<mpsc::Receiver<TcpStream>> {
    let listener = lab.server(1).ns.run(|| TcpListener::bind(lab.server(1).at(8080)))??;
    let (sender, connections) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let length = stream.read(&mut [0; 1024]).unwrap_or(0);
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if length > 0 && stream.write_all(answer.as_bytes()).is_ok() && sender.send(stream).is_err() {
                break;
            }
        }
    });
    Ok(connections)
}

/// Speaks, and waits for what the other end's host says to that.
fn is_reset(stream: &mut TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let outcome = stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 16]));
    Ok(outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
}

fn ended() -> Result<()> {
    let lab = Lab::star().servers(1).client_addresses(2).build()?;
    let connections = answering_server(&lab)?;
    let daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    let site = Site { daemon, servers: Vec::new(), lab };
    let lab = &site.lab;
    http::get(&lab.client().ns, Some(site.address(0)), lab.client().gateway_at(80), "/", &[])?;
    site.wait_until_learned(0, "s1")?;
    connections.recv_timeout(PATIENCE)?;
    let mut client = site.connect(0)?;
    client.get("/", &[])?;
    let mut server = connections.recv_timeout(PATIENCE)?;
    ensure!(fast(&site, "s1")? == 1);
    let id = id(&site, "s1")?;
    let ended = lab.balancer.run(|| -> Result<u64> {
        let (mut ebpf, maps) = maps::load(&Pins::locate()?, 32_768, &mut Rollback::default())?;
        program::verify(&mut ebpf)?;
        // As a process does that has given up root.
        lab::as_nobody(move || {
            let mut ending = Ending::of(id);
            while !ending.step(&maps, &mut ebpf, |_, flow| flow.server == id)? {}
            Ok(ending.ended)
        })?
    })??;
    ensure!(ended == 1 && fast(&site, "s1")? == 0, "{ended}");
    ensure!(is_reset(&mut client.stream().try_clone()?)?, "the client");
    ensure!(is_reset(&mut server)?, "the server");
    Ok(())
}

/// The kernel side of a service without the rest of it. Nobody listens where it does, so that what is not fast is refused.
struct Kernel<'a> {
    lab: &'a Lab,
    servers: Servers,
    tables: Tables,
    datapath: Datapath,
}

impl<'a> Kernel<'a> {
    /// With the first of two servers, which is s1. To be called in the balancer's namespace.
    fn open(lab: &'a Lab, maxconn: Option<u32>) -> Result<Self> {
        let config = config(lab)?;
        let opened = datapath::open(&config, None, &Known::default())?;
        let (datapath, tables) = (opened.datapath.context("XDP")?, opened.tables);
        let identity = opened.members.first().context("a server")?.identity;
        let first = server("s1", lab.server(1).at(8080), identity).with_capacity(maxconn, None);
        let servers = Servers::new(vec![first]);
        servers.publish_with(datapath.publisher());
        servers.count_fast_with(datapath.loads().context("XDP")?);
        datapath.attach()?;
        for host in &lab.servers {
            // So that the neighbours are known, which is otherwise the proxy's and the checks' business.
            TcpStream::connect(host.at(8080))?;
        }
        Ok(Self { lab, servers, tables, datapath })
    }

    /// Binds the client to a server.
    fn learn(&self, identity: Identity) -> Result<()> {
        let later = balancer::clock::boot_seconds() + 600;
        let entry = Affinity::new(identity.id, identity.generation, later);
        Ok(self
            .tables
            .source()
            .context("a table")?
            .put(&source_key(self.lab.client().address().into()), entry)?)
    }

    fn connect(&self) -> Result<Connection> {
        Connection::open(&self.lab.client().ns, None, self.lab.client().gateway_at(80))
    }

    /// The server that answers the client; `None` if it is refused.
    fn visit(&self) -> Result<Option<String>> {
        let Ok(mut connection) = self.connect() else { return Ok(None) };
        Ok(Some(Visit::of(&connection.get("/", &[])?)?.server))
    }

    /// What the program is told of a server.
    fn entry(&self, id: u16) -> Result<KernelServer> {
        let map = MapData::from_pin(site::pins(self.lab).join("SERVERS"))?;
        let map = aya::maps::Array::<_, KernelServer>::try_from(aya::maps::Map::Array(map))?;
        Ok(map.get(&u32::from(id), 0)?)
    }

    fn state(&self, id: u16) -> Result<u8> {
        Ok(ServerMeta::unpack(self.entry(id)?.meta).state)
    }
}

fn config(lab: &Lab) -> Result<Config> {
    let flags = all_flags(lab, 80, SOURCE_FIRST);
    let admin = lab.balancer.fresh_path("admin.sock");
    let words = ["balancer", "run", "--admin"].into_iter().map(Into::into);
    let words = words.chain([admin.into_os_string()]).chain(flags.iter().map(Into::into));
    match cli::parse(words) {
        Ok(Command::Run(run, settings)) => match Plan::new(&run, settings, &Host::read()) {
            Ok(plan) => Ok(plan.config),
            Err(stop) => anyhow::bail!("{stop:?}"),
        },
        other => anyhow::bail!("{other:?}"),
    }
}

fn server(name: &str, address: SocketAddr, identity: Identity) -> Server {
    Server::new(name.to_owned(), None, address, identity)
}

/// A story about the kernel side alone, in the balancer's namespace.
fn with_kernel(maxconn: Option<u32>, story: impl FnOnce(&Kernel<'_>) -> Result<()> + Send) -> Result<()> {
    let lab = Lab::star().build()?;
    let _servers = site::start_servers(&lab)?;
    lab.balancer.run(|| story(&Kernel::open(&lab, maxconn)?))?
}

fn not_lent() -> Result<()> {
    with_kernel(Some(2), |kernel| {
        kernel.learn(kernel.servers[0].identity)?;
        ensure!(kernel.visit()?.is_none(), "the proxy has lent nothing yet");
        kernel.servers.settle_with_fast_path();
        let mut kept = kernel.connect()?;
        ensure!(Visit::of(&kept.get("/", &[])?)?.fast);
        ensure!(kernel.visit()?.is_none(), "half of two was lent");
        Ok(())
    })
}

fn come_and_go() -> Result<()> {
    with_kernel(None, |kernel| {
        // Far from what the registry has given away.
        let added = Identity { id: MAX_SERVERS as u16 - 1, generation: 1 };
        kernel.learn(added)?;
        ensure!(kernel.visit()?.is_none(), "nobody has said that there is such a server");
        let second = || server("s2", kernel.lab.server(2).at(8080), added);
        let place = kernel.servers.add(second())?;
        ensure!(kernel.visit()?.as_deref() == Some("s2"));
        let mut kept = kernel.connect()?;
        kept.get("/", &[])?;
        ensure!(kernel.servers.fast_connections(place) > 0);
        kernel.servers.retire(place);
        ensure!(kernel.state(added.id)? == SERVER_ABSENT && kernel.visit()?.is_none());
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == "s2", "what is running goes on");
        kernel.servers.set_operator(place, Operator::Ready);
        ensure!(kernel.state(added.id)? == SERVER_ABSENT, "for good");
        let again = kernel.servers.add(second())?;
        kernel.servers.set_operator(place, Operator::Maint);
        ensure!(kernel.state(added.id)? == SERVER_UP, "somebody else is there now");
        ensure!(kernel.visit()?.as_deref() == Some("s2"));
        let ended = kernel.servers.end_sessions(again).fast;
        ensure!(ended > 0 && kernel.servers.fast_connections(again) == 0, "{ended}");
        kernel.datapath.settle()
    })
}

fn moved() -> Result<()> {
    with_kernel(None, |kernel| {
        let old = kernel.servers[0].identity;
        kernel.learn(old)?;
        let mut kept = kernel.connect()?;
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == "s1");
        let new = Identity { generation: old.generation + 1, ..old };
        let place = kernel.servers.replace(0, server("s1", kernel.lab.server(2).at(8080), new))?;
        ensure!(kernel.visit()?.is_none(), "the proxy decides about clients of another generation");
        ensure!(Visit::of(&kept.get("/", &[])?)?.server == "s1", "what is running goes on");
        kernel.servers.set_operator(0, Operator::Maint);
        ensure!(kernel.state(old.id)? == SERVER_UP, "the old place says nothing about the new one");
        ensure!(kernel.entry(old.id)?.address == kernel.lab.server(2).address().into());
        kernel.learn(new)?;
        ensure!(kernel.visit()?.as_deref() == Some("s2"), "it is at the other one's address");
        wait_until(PATIENCE, "only the old connection to be counted", || {
            kernel.servers.fast_connections(place) == 1
        })?;
        Ok(())
    })
}

/// The folder of a version with other maps.
fn other_folder(lab: &Lab) -> std::path::PathBuf {
    let cookie = lab.balancer.cookie().to_string();
    Path::new("/sys/fs/bpf/balancer").join(format!("v{}", SCHEMA - 1)).join(cookie)
}

/// Takes a folder of pins away at the end of a test.
struct Cleared(std::path::PathBuf);

impl Drop for Cleared {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn other_schema() -> Result<()> {
    let lab = Lab::star().build()?;
    let folder = Cleared(other_folder(&lab));
    let table = folder.0.join("web/source");
    fs::create_dir_all(folder.0.join("web"))?;
    drop(KernelTable::open(&table, Shape { size: 64, evicts: true })?);
    let _servers = site::start_servers(&lab)?;
    let mut daemon = start(&lab, "web", 80, SOURCE_FIRST)?;
    daemon.child.signal(nix::sys::signal::Signal::SIGTERM)?;
    daemon.child.wait(PATIENCE)?;
    let done = lab.balancer.command(BALANCER).args(["detach", "--name", "web"]).output(PATIENCE)?;
    ensure!(done.status.success(), "{done:?}");
    ensure!(!site::pins(&lab).exists() && table.exists());
    Ok(())
}

/// Nothing is known of its flows, so it has all the time there is.
fn other_program() -> Result<()> {
    let lab = Lab::star().build()?;
    let folder = Cleared(other_folder(&lab));
    fs::create_dir_all(&folder.0)?;
    lab.balancer.run(|| attach_as_another_version(&folder.0))??;
    let _servers = site::start_servers(&lab)?;
    let daemon = start(&lab, "web", 80, &[SOURCE_FIRST, &["--drain-timeout", "1s"]].concat())?;
    let named = format!("the program of a version with schema {} is on c1", SCHEMA - 1);
    ensure!(daemon.log().contains(&named), "{}", daemon.log());
    wait_until(PATIENCE, "it to be replaced", || daemon.log().contains("is replaced on c1"))?;
    let interfaces = || Ok::<_, anyhow::Error>(daemon.show(&["info"])?["datapath"]["interfaces"].to_string());
    wait_until(PATIENCE, "the others to be attached to", || {
        interfaces().is_ok_and(|all| ["c1", "s1", "s2"].iter().all(|name| all.contains(name)))
    })?;
    ensure!(!folder.0.exists(), "its pins are left");
    Ok(())
}

fn attach_as_another_version(folder: &Path) -> Result<()> {
    let index = nix::net::if_::if_nametoindex("c1")?;
    let (mut ebpf, _maps): (_, Maps) = maps::load_unpinned(1024)?;
    program::verify(&mut ebpf)?;
    let program = program::of(&mut ebpf)?;
    let id = program.attach_to_if_index(index, XdpMode::Driver)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    link.pin(folder.join(format!("link-{index}")))?;
    Ok(())
}
