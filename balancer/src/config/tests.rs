use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::cli::{self, Command, Stop};
use crate::persist::Method;

/// A host of root's with four cores and the kernel's usual port range.
fn host() -> Host {
    Host { root: true, runtime_directory: None, cores: 4, local_ports: Some((32768, 60999)) }
}

fn plan_on(host: &Host, line: &str) -> Result<Plan, Stop> {
    let words = ["balancer", "run"].into_iter().chain(line.split_whitespace());
    match cli::parse(words.map(Into::into))? {
        Command::Run(run, settings) => Plan::new(&run, settings, host),
        other => panic!("{other:?}"),
    }
}

/// With what every service needs already there.
pub(crate) fn plan(line: &str) -> Plan {
    let line = format!("--listen 127.0.0.1:80 --server s1=10.0.0.1:80 {line}");
    plan_on(&host(), &line).unwrap_or_else(|stop| panic!("{line}: {stop:?}"))
}

fn refused(line: &str) -> String {
    match plan_on(&host(), line) {
        Err(Stop::Usage(message)) => message,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused_beside(line: &str) -> String {
    refused(&format!("--listen 127.0.0.1:80 --server s1=10.0.0.1:80 {line}"))
}

#[test]
fn what_every_service_needs() {
    assert_eq!(refused("--server s1=10.0.0.1:80"), "--listen is missing; write --listen ADDR:PORT");
    assert_eq!(refused("--listen 127.0.0.1:80"), "--server is missing; write --server NAME=ADDR:PORT");
}

#[test]
fn a_process_that_gives_up_root_cannot_take_the_program_off_at_the_end() {
    let message = refused_beside("--persist source --xdp eth0 --user nobody --detach-on-stop");
    assert!(message.contains("--detach-on-stop") && message.contains("--user"), "{message}");
    let owner = plan("--user nobody").config.owner.expect("a change");
    assert_eq!(owner.name, "nobody");
}

#[test]
fn a_minimal_service_has_the_documented_defaults() {
    let Plan { config, warnings, .. } = plan("");
    assert_eq!(config.name, "balancer");
    assert_eq!(config.listen, ["127.0.0.1:80".parse().expect("address")]);
    assert_eq!(config.servers[0].cookie().as_deref(), Some("s1"));
    assert_eq!(config.admin, PathBuf::from("/run/balancer/balancer.sock"));
    assert_eq!((config.workers, config.retry.retries, config.retry.redispatch), (4, 3, true));
    assert_eq!((&*config.timeouts.now(), &config.limits), (&Timeouts::default(), &Limits::default()));
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert_eq!((config.admin_mode, config.takeover, config.owner), (0o600, false, None));
    let health = config.health.now();
    assert_eq!((health.observe, health.slow_start), (None, None));
    assert_eq!(health.on_marked_down, OnMarkedDown::Keep);
    let check = health.check.clone().expect("tcp");
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
    assert_eq!((check.rise, check.fall), (2, 3));
    assert!(config.datapath.is_none() && config.access_log.is_none() && config.persist.methods().is_empty());
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn wrong_listen_addresses() {
    let server = "--server s1=10.0.0.1:80";
    let table = [
        ("--listen 10.0.0.1", "--listen \"10.0.0.1\" has no port"),
        (
            "--listen localhost:80",
            "--listen \"localhost:80\" has a host name; write an address, as in 127.0.0.1:80",
        ),
        ("--listen 224.0.0.1:80", "is a multicast address"),
        ("--listen 1.1.1.1:80 --listen 1.1.1.1:80", "--listen \"1.1.1.1:80\" is given twice"),
        ("--listen 0.0.0.0:80 --listen 1.1.1.1:80", "--listen \"1.1.1.1:80\" overlaps --listen 0.0.0.0:80"),
        ("--listen 10.0.0.1:80", "--server s1 has the address of --listen 10.0.0.1:80"),
        ("--listen 1.1.1.1:0 --xdp eth0", "--listen \"1.1.1.1:0\" has port 0 while --xdp"),
    ];
    for (line, expected) in table {
        let found = refused(&format!("{server} {line}"));
        assert!(found.contains(expected), "{line}: {found}");
    }
    let both = "--listen 0.0.0.0:80 --listen [::]:80 --server s1=[fe80::1]:80 --xdp eth0";
    assert_eq!(plan_on(&host(), both).expect("allowed").config.listen.len(), 2);
}

#[test]
fn wrong_servers() {
    let table = [
        ("s1=10.0.0.2:80", "has the name of a server before it"),
        ("s2=10.0.0.2:80,id=s1", "has the id \"s1\", which server s1 has too"),
        ("10.0.0.2:80", "has no name; write NAME=ADDR:PORT"),
        ("=10.0.0.2:80", "has a name that is not allowed"),
        ("s/2=10.0.0.2:80", "has a name that is not allowed"),
        ("s2=10.0.0.2", "has no port; write 10.0.0.2:PORT"),
        ("s2=10.0.0.2:0", "has port 0"),
        ("s2=0.0.0.0:80", "nothing can be connected to"),
        ("s2=web:http", "has a port that is not a number"),
        ("s2=web:0", "has port 0"),
        ("s2=web", "has no port; write web:PORT"),
        ("s2=10.0.0.2:80,check", "has an unknown option \"check\"; all servers are checked"),
        ("s2=10.0.0.2:80,cookie=x", "; a server's cookie is id=VALUE"),
        ("s2=10.0.0.2:80,disabled,disabled", "has disabled twice"),
        ("s2=10.0.0.2:80,weight=257", "has the weight \"257\"; write 0 to 256"),
        ("s2=10.0.0.2:80,weight=+1", "has the weight \"+1\"; write 0 to 256"),
        ("s2=10.0.0.2:80,weight=", "has the weight \"\"; write 0 to 256"),
        ("s2=10.0.0.2:80,backup,backup", "has backup twice"),
        ("s2=10.0.0.2:80,backup=yes", "has a value for backup, which takes none"),
        ("s2=10.0.0.2:80,maxconn=", "has maxconn=; write 1 to 1000000, 0 for no limit"),
        ("s2=10.0.0.2:80,maxconn=-1", "has maxconn=-1; write 1 to"),
        ("s2=10.0.0.2:80,maxconn=1,maxqueue=1000001", "has maxqueue=1000001; write 1 to"),
        ("s2=10.0.0.2:80,maxconn=1,maxconn=1", "has maxconn twice"),
        ("s2=10.0.0.2:80,maxqueue=5", "has maxqueue=5, though nobody waits"),
        ("s2=10.0.0.2:80,colour=red", "has an unknown option \"colour\""),
        ("s2=10.0.0.2:80,", "has an empty option"),
        ("s2=10.0.0.2:80,id=a,id=b", "has id twice"),
        ("s2=10.0.0.2:80,id=a~b", "has an id that a cookie cannot carry"),
        ("s2=10.0.0.2:80,id=a|b", "has an id that a cookie cannot carry"),
        ("s2=10.0.0.2:80,id=a\"b", "has an id that a cookie cannot carry"),
        ("s2=10.0.0.2:80,id=a;b", "has an id that a cookie cannot carry"),
        ("s2=10.0.0.2:80,id=ä", "has an id that a cookie cannot carry"),
    ];
    for (server, expected) in table {
        let found = refused_beside(&format!("--server {server}"));
        assert!(found.starts_with("--server "), "{server}: {found}");
        assert!(found.contains(expected) && !found.contains('\n'), "{server}: {found}");
    }
    let long = "x".repeat(64);
    assert!(refused_beside(&format!("--server {long}=10.0.0.2:80")).contains("1 to 63"));
}

#[test]
fn names_of_hosts_are_kept_until_somebody_has_asked() {
    let config =
        plan("--listen 0.0.0.0:81 --server s2=App.example:81,disabled --resolver 127.0.0.1:5353").config;
    let server = &config.servers[1];
    assert_eq!((server.host.as_deref(), server.location().as_str()), (Some("app.example"), "app.example:81"));
    assert!(server.address.ip().is_unspecified() && server.disabled && !config.servers[0].disabled);
    assert_eq!(config.servers[0].location(), "10.0.0.1:80");
    assert_eq!(config.resolvers, ["127.0.0.1:5353".parse().expect("address")]);
    let both = plan("--resolver 192.0.2.1 --resolver 2001:db8::1").config.resolvers;
    assert_eq!(both, ["192.0.2.1:53", "[2001:db8::1]:53"].map(|text| text.parse().expect("address")));
    for (text, expected) in [
        ("ns1.example", "is not an address"),
        ("192.0.2.1:x", "is not an address"),
        ("0.0.0.0", "is nobody who can be asked"),
        ("192.0.2.1:0", "is nobody who can be asked"),
        ("192.0.2.1 --resolver 192.0.2.1:53", "is given twice"),
    ] {
        let found = refused_beside(&format!("--resolver {text}"));
        assert!(found.starts_with("--resolver ") && found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn limits_of_servers_and_how_long_is_waited_for_them() {
    let Plan { config, warnings, .. } = plan(
        "--server s2=10.0.0.2:80,maxqueue=7,maxconn=100 --server s3=10.0.0.3:80,maxconn=0,maxqueue=0 \
         --timeout-connect 3s",
    );
    let limits: Vec<_> = config.servers.iter().map(|server| (server.maxconn, server.maxqueue)).collect();
    assert_eq!(limits, [(None, None), (Some(100), Some(7)), (None, None)]);
    assert_eq!(config.timeouts.now().queue, Duration::from_secs(3), "as long as for a connection");
    assert!(warnings.is_empty(), "{warnings:?}");
    let Plan { config, warnings, .. } = plan("--timeout-queue 20s");
    assert_eq!(config.timeouts.now().queue, Duration::from_secs(20));
    assert_eq!(warnings, ["--timeout-queue has no effect without a server that has maxconn="]);
    let dump = plan("--timeout-connect 3s").dump();
    assert!(
        dump.contains("\n--timeout-queue 3s") && dump.contains("# default, that of --timeout-connect"),
        "{dump}"
    );
    let used = plan("--server s2=10.0.0.2:80,maxconn=1 --timeout-queue 20s");
    assert!(used.warnings.is_empty() && used.dump().contains("\n--timeout-queue 20s"));
}

#[test]
fn cookie_values_of_servers() {
    let config =
        plan("--server s2=10.0.0.2:80,id=two --server s3=10.0.0.3:80,id= --server S-4.x=[::1]:80").config;
    let cookies: Vec<_> = config.servers.iter().map(ServerConfig::cookie).collect();
    assert_eq!(cookies, ["s1", "two", "", "S-4.x"].map(|id| Some(id.to_owned()).filter(|id| !id.is_empty())));
}

#[test]
fn the_ordered_list() {
    let table = [
        ("cookie=SRV", "SRV", false),
        ("cookie=SRV,insert", "SRV", false),
        ("cookie=SRV,insert,indirect", "SRV", true),
        ("cookie=SRV,indirect", "SRV", true),
    ];
    for (method, name, indirect) in table {
        let config = plan(&format!("--persist {method}")).config;
        let cookie = config.persist.cookie().expect(method);
        assert_eq!((cookie.name.as_str(), cookie.indirect), (name, indirect), "{method}");
    }
    let config = plan("--persist source,timeout=1h,size=100k --persist cookie=SRV").config;
    assert!(matches!(config.persist.methods(), [Method::Source(_), Method::Cookie(_)]));
    let source = config.persist.source().expect("source");
    assert_eq!((source.table.timeout, source.table.size), (3600, 100_000));
    assert_eq!(
        plan("--persist source").config.persist.source().map(|source| source.table.timeout),
        Some(1800)
    );
}

#[test]
fn wrong_methods() {
    let table = [
        ("cookie", "does not name the cookie"),
        ("cookie=", "has a cookie name that is not allowed"),
        ("cookie=$A", "begins with $"),
        ("cookie=a;b", "has a cookie name that is not allowed"),
        ("cookie=a=b", "has a cookie name that is not allowed"),
        ("cookie=A,insert,rewrite", "has two modes, insert and rewrite"),
        ("cookie=A,insert,insert", "has two modes, insert and insert"),
        ("cookie=A,rewrite,indirect", "has indirect with rewrite, which does not go together"),
        ("cookie=A,prefix,indirect", "has indirect with prefix, which does not go together"),
        ("cookie=A,passive,preserve", "has preserve with passive, which does not go together"),
        ("cookie=A,prefix,maxidle=30m", "maxidle needs insert"),
        ("cookie=A,rewrite,maxlife=8h", "maxlife needs insert"),
        ("cookie=A,maxidle=1s", "has a maxidle that is out of range"),
        ("cookie=A,domain", "has domain without a value"),
        ("cookie=A,domain=", "has a domain that is none"),
        ("cookie=A,domain=x,domain=x", "has a domain too many"),
        ("cookie=A,path=app", "has a path that is none"),
        ("cookie=A,samesite=some", "has a samesite that is none"),
        ("cookie=A,samesite=none", "samesite=none without secure"),
        ("cookie=__Secure-A", "accept with secure only"),
        ("cookie=__Host-A,secure,domain=x.org", "refuse with a domain"),
        ("cookie=__Host-A,secure,path=/app", "refuse with a domain and with any path but /"),
        ("cookie=A,attr=Max-Age=0", "write max-age=VALUE instead"),
        ("cookie=A,attr=SameSite=Lax,samesite=strict", "samesite as an option and as attr="),
        ("cookie=A,attr=Priority=High,attr=priority=Low", "the attribute priority twice"),
        ("cookie=A,attr=a;b", "has an attr that a cookie cannot carry"),
        ("cookie=A,dynamic-key=", "has an empty dynamic-key"),
        ("cookie=A,sign-key=/nonexistent", "has a sign-key that cannot be read"),
        ("cookie=A,indirect,indirect", "has indirect twice"),
        ("cookie=A,frob", "has an unknown option \"frob\""),
        ("cookie=A,frob=1", "has an unknown option \"frob\""),
        ("source=x", "gives source a name"),
        ("source,timeout=5", "has a timeout that has no unit; write 5s"),
        ("source,timeout=1500ms", "has a timeout with a part of a second"),
        ("source,size=0", "has a size that is out of range"),
        ("source,mask4=0", "has the mask4 \"0\"; write how many bits count, 1 to 32"),
        ("source,mask6=129", "has the mask6 \"129\""),
        ("source,timeout=1h,timeout=2h", "has timeout twice"),
        ("session", "does not name the application's session id; write session=NAME"),
        ("session=", "has a cookie name that is not allowed"),
        (
            "session=JS,in=cookie+body",
            "looks in \"cookie+body\"; write one or more of cookie, path, query, header",
        ),
        ("session=JS,in=cookie+cookie", "each once"),
        ("session=JS,learn-status=2", "learns from \"2\""),
        ("session=JS,request-learn,no-request-learn", "has request-learn twice"),
        ("session=JS,indirect", "has an unknown option \"indirect\""),
        ("route=JS,in=query", "looks in \"query\"; write one or more of cookie, path joined"),
        ("route=JS,timeout=1h", "has an unknown option \"timeout\""),
        ("header", "does not name the header"),
        ("header=a:b", "has a header name that is not allowed"),
        ("query=x,mask4=8", "has an unknown option \"mask4\""),
        ("sauce", "is not a known method; write cookie=NAME, session=NAME"),
        ("source --persist source,timeout=1h", "is the second source method"),
        ("cookie=A --persist cookie=B", "is the second cookie method"),
        ("session=A --persist session=A,timeout=1h", "is the second session=A method"),
        (
            "session=A --persist session=B --persist session=C --persist session=D --persist session=E --persist \
             session=F --persist session=G --persist session=H --persist session=I",
            "is one method too many; 8 are the most",
        ),
    ];
    for (method, expected) in table {
        let found = refused_beside(&format!("--persist {method}"));
        assert!(found.starts_with("--persist ") && found.contains(expected), "{method}: {found}");
    }
}

#[test]
fn methods_and_servers_that_do_not_go_together() {
    let table = [
        ("--persist cookie=A,prefix --server s2=10.0.0.2:80,id=", "--server s2=10.0.0.2:80 has no id"),
        (
            "--persist cookie=A,rewrite --server s2=10.0.0.2:80,id=",
            "which a cookie with rewrite or prefix needs",
        ),
        (
            "--persist route=JS --server s.2=10.0.0.2:80",
            "has the id \"s.2\", in which --persist route=JS cannot",
        ),
        ("--persist cookie=A,dynamic-key=K --server s2=10.0.0.1:80", "gives two servers the id"),
    ];
    for (flags, expected) in table {
        let found = refused_beside(flags);
        assert!(found.contains(expected), "{flags}: {found}");
    }
    let config = plan("--persist cookie=A,dynamic-key=K --server s2=127.0.0.1:8080,id=two").config;
    let ids: Vec<_> = config.servers.iter().map(|server| server.cookie().expect("an id")).collect();
    assert_eq!(ids, [crate::persist::dynamic::id("K", config.servers[0].address), "two".into()]);
}

#[test]
fn servers_of_run_time_follow_the_rules_of_the_list() {
    let one = |flags: &str, text: &str| servers::one(text, &[], &[], &plan(flags).config.persist);
    let server = one("--persist cookie=A,dynamic-key=K", "s2=127.0.0.1:80").expect("allowed");
    assert_eq!(server.cookie().as_deref(), Some("62f15d6c4f710633"), "the digest, as in the flags");
    let mut named = one("--persist cookie=A,dynamic-key=K", "s2=app.lab:80").expect("allowed");
    assert_eq!(named.cookie(), None, "nobody knows where it is");
    named.address.set_ip([127, 0, 0, 1].into());
    assert_eq!(named.cookie(), server.cookie());
    for (flags, text, expected) in [
        ("--persist route=JS", "s.3=127.0.0.1:80", "cannot tell the dot"),
        ("--persist cookie=A,prefix", "s3=127.0.0.1:80,id=", "has no id"),
    ] {
        let refused = one(flags, text).expect_err("refused");
        assert!(refused.contains(expected), "{refused}");
    }
    let named = "--persist cookie=A,dynamic-key=K --server a=a.lab:80 --server b=b.lab:80";
    assert_eq!(plan(named).config.servers.len(), 3, "two names are not one address");
}

#[test]
fn all_options_of_methods() {
    use crate::persist::{CookieMode, Place};
    let list = plan(
        "--persist cookie=JS,prefix,httponly,secure,samesite=None,domain=.a.example,domain=b.example,path=/app,\
         max-age=1h,attr=Priority=High --persist session=JS,in=path+header,prefix-name,no-request-learn,\
         learn-status=200,timeout=1h,size=10,nopurge --persist route=R,in=path --persist header=X-User \
         --persist query=u,timeout=1m --persist source,mask4=24,mask6=48",
    )
    .config
    .persist;
    let [
        Method::Cookie(cookie),
        Method::Session(session),
        Method::Route(route),
        Method::Header(header),
        Method::Query(query),
        Method::Source(source),
    ] = list.methods()
    else {
        panic!("{list:?}")
    };
    assert_eq!((cookie.mode, cookie.attributes.domains.len()), (CookieMode::Prefix, 2));
    assert_eq!((cookie.attributes.same_site, cookie.attributes.max_age), (Some("None"), Some(3600)));
    assert_eq!(session.places, [Place::Path, Place::Header]);
    assert_eq!((session.is_prefix, session.request_learn, session.table.nopurge), (true, false, true));
    assert!(session.learn_status.contains(200) && !session.learn_status.contains(201));
    assert_eq!(route.places, [Place::Path]);
    assert_eq!((header.table.timeout, query.table.timeout), (3 * 3600, 60));
    assert_eq!((source.mask4, source.mask6), (24, 48));
    let session = plan("--persist session=JS").config.persist;
    let Method::Session(session) = &session.methods()[0] else { panic!("{session:?}") };
    assert_eq!((session.table.timeout, &*session.places), (3 * 3600, &[Place::Cookie, Place::Path][..]));
    assert!([200, 302, 401].iter().all(|status| session.learn_status.contains(*status)));
    assert!(![403, 500].iter().any(|status| session.learn_status.contains(*status)));
}

#[test]
fn what_is_done_about_clients_of_servers_that_are_down() {
    use crate::persist::decide::{OnDown, Policy};
    let policy = |flags: &str| plan(flags).config.policy;
    assert_eq!(policy(""), Policy { on_down: OnDown::Move, leave_backup: false });
    let wait = OnDown::Wait(Duration::from_secs(5));
    assert_eq!(policy("--on-down wait=5s --leave-backup"), Policy { on_down: wait, leave_backup: true });
    assert_eq!(policy("--on-down fail").on_down, OnDown::Fail);
    assert_eq!(plan("--persist-ignore /a --persist-ignore /b/").config.persist_ignore, ["/a", "/b/"]);
    let table = [
        ("--on-down wait", "does not say how long"),
        ("--on-down wait=5", "waits for a time that has no unit"),
        ("--on-down stay", "is not known; write move, wait=T or fail"),
        ("--persist-ignore static", "is not how a path begins"),
    ];
    for (flags, expected) in table {
        let found = refused_beside(flags);
        assert!(found.contains(expected), "{flags}: {found}");
    }
}

#[test]
fn other_wrong_flags() {
    let table = [
        ("--name Web", "--name \"Web\" is not a name"),
        ("--name a.b", "--name \"a.b\" is not a name"),
        ("--name 123456789012345678901234567890123", "is not a name"),
        (
            "--balance roundrobin=2",
            "--balance \"roundrobin=2\" is not known; write roundrobin, leastconn, random, first, source, uri, header=NAME or query=NAME",
        ),
        (
            "--balance header=",
            "--balance \"header=\" does not name one; write header=NAME in letters, digits, dots, _ and -",
        ),
        ("--balance rr", "--balance \"rr\" is not known; write roundrobin"),
        ("--check ping", "--check \"ping\" is not known; write none, tcp or http=PATH"),
        ("--check http", "--check \"http\" has no path; write http=/PATH"),
        ("--check http=x", "has a path that a request cannot carry"),
        ("--check http=/x,expect=2", "expects \"2\"; write statuses from 100 to 599"),
        ("--check http=/x,drain-on=4xx", "drains on \"4xx\"; write one status"),
        ("--check http=/x,expect=404,drain-on=404", "both expects 404 and drains on it"),
        ("--check http=/x,host=a/b", "has the host \"a/b\"; write a host name"),
        ("--check http=/x,method=HEAD", "has an unknown option \"method\""),
        ("--observe syn", "--observe \"syn\" observes \"syn\"; write connect, 5xx or connect+5xx"),
        ("--observe connect+", "observes \"\""),
        ("--observe connect+connect", "has connect twice; give it once"),
        ("--observe 5xx,limit=0", "has the limit \"0\"; write a number from 1 to 1000000"),
        ("--observe 5xx,limit=1,limit=2", "has limit twice"),
        ("--observe 5xx,max=2", "has an unknown option \"max\""),
        ("--observe connect --check none", "--observe \"connect\" needs checks to bring a server up again"),
        (
            "--observe connect+5xx --mode tcp --persist source",
            "which --mode tcp does not; write connect alone",
        ),
        ("--access-log /", "--access-log \"/\" does not name a file"),
        ("--log-format JSON", "--log-format \"JSON\" is not known; write text, json or haproxy"),
        ("--admin ..", "--admin \"..\" does not name a file"),
        ("--xdp auto --xdp auto,mode=native", "has auto twice"),
        ("--xdp auto,mode=fast", "has an unknown mode"),
        ("--xdp eth0,mode=fast", "has an unknown mode"),
        ("--xdp eth0,mtu=9", "has an unknown option \"mtu\""),
        ("--xdp eth0 --xdp eth0,mode=native", "names an interface a second time"),
        ("--xdp an-interface-name", "does not name an interface"),
        ("--snat-ip eth0", "--snat-ip \"eth0\" is not an address"),
        ("--snat-ip ::1", "is not an address servers can answer to"),
        ("--snat-ip fe80::1", "is not an address servers can answer to"),
        ("--snat-ip 2001:db8::1 --snat-ip 2001:db8:0::1", "is given twice"),
        ("--snat-ip 127.0.0.1", "is not an address servers can answer to"),
        ("--snat-ip 10.0.0.9 --snat-ip 10.0.0.9", "is given twice"),
        ("--snat-ports 10000", "--snat-ports \"10000\" is not a range of ports"),
        ("--snat-ports 2000-1500", "is the wrong way round; write 1500-2000"),
        ("--fast-path-exclude 10.0.0.1/8", "--fast-path-exclude \"10.0.0.1/8\" has bits after its prefix"),
        (
            "--fast-path-exclude @",
            "--fast-path-exclude \"@\" does not name a file; write --fast-path-exclude @FILE",
        ),
        ("--mss 87", "--mss"),
        ("--mss 32768", "--mss"),
        ("--snat-ports 1023-2000", "takes ports that belong to services"),
    ];
    for (line, expected) in table {
        let found = refused_beside(line);
        assert!(found.contains(expected), "{line}: {found}");
    }
    assert!(refused_beside(&format!("--admin /{}", "x".repeat(100))).contains("too long for a socket"));
}

#[test]
fn a_fast_path_needs_an_interface_and_something_to_learn() {
    for word in ["exclusive", "always"] {
        let without_xdp = refused_beside(&format!("--fast-path {word} --persist source"));
        assert!(without_xdp.contains("--fast-path") && without_xdp.contains("--xdp"), "{without_xdp}");
        let without_source = refused_beside(&format!("--fast-path {word} --persist cookie=A --xdp eth0"));
        assert!(without_source.contains("--persist source"), "{without_source}");
    }
    assert!(plan("--fast-path auto").config.datapath.is_none());
    assert!(plan("--fast-path off").config.datapath.is_none());
}

#[test]
fn who_is_denied_comes_from_flags_and_files() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("deny");
    std::fs::write(&file, "# bad\n192.0.2.0/24 # all of it\n\n  2001:db8::7\r\n").expect("written");
    let at = format!("@{}", file.display());
    let deny = plan(&format!("--deny 198.51.100.7 --deny {at}")).config.identity.deny;
    let has = |address: &str| deny.contains(address.parse().expect(address));
    assert!(has("198.51.100.7") && has("192.0.2.255") && has("2001:db8::7"));
    assert!(!has("198.51.100.8") && !has("2001:db8::8"));

    std::fs::write(&file, "192.0.2.1\n192.0.2.1/24\n").expect("written");
    let found = refused_beside(&format!("--deny {at}"));
    assert!(
        found.starts_with(&format!("--deny \"{at}\" line 2: \"192.0.2.1/24\" has bits after")),
        "{found}"
    );
    let table = [
        ("--deny @", "--deny \"@\" does not name a file"),
        ("--deny @/nowhere/at/all", "--deny \"@/nowhere/at/all\" cannot be read: no such file"),
        ("--deny example.org", "--deny \"example.org\" is neither an address nor a block"),
        ("--accept-proxy 10.0.0.1/8", "--accept-proxy \"10.0.0.1/8\" has bits after its prefix"),
        ("--accept-proxy @x", "--accept-proxy \"@x\" is neither"),
    ];
    for (line, expected) in table {
        let found = refused_beside(line);
        assert!(found.starts_with(expected), "{line}: {found}");
    }
}

#[test]
fn what_needs_bytes_cannot_go_with_a_fast_path() {
    let flags = [
        "--accept-proxy 10.0.0.0/8",
        "--send-proxy v2",
        "--forwarded x-forwarded-for",
        "--forwarded forwarded",
        "--persist cookie=A,prefix",
        "--persist cookie=A,rewrite",
        "--persist cookie=A,maxidle=30m",
        "--persist cookie=A,maxlife=8h",
    ];
    for flag in flags {
        let name = flag.split([' ', ',', '=']).find(|word| !["--persist", "cookie", "A"].contains(word));
        let name = name.expect("a flag");
        for word in ["exclusive", "always"] {
            let found = refused_beside(&format!("--persist source --xdp eth0 --fast-path {word} {flag}"));
            assert!(
                found.starts_with(&format!("--fast-path {word} ")) && found.contains(name),
                "{flag}: {found}"
            );
        }
        let datapath =
            plan(&format!("--persist source --xdp eth0 {flag}")).config.datapath.expect("datapath");
        assert_eq!(datapath.fast_path, FastPath::Off, "{flag}");
        assert!(datapath.fast_path_reason.expect("reason").contains(name), "{flag}");
        assert!(
            plan(&format!("--persist source --xdp eth0 --fast-path off {flag}")).config.datapath.is_some()
        );
    }
}

#[test]
fn a_header_with_the_client_is_believable_from_nobody_but_this_host() {
    let gateway = "--persist source --xdp eth0 --forward gateway --forwarded forwarded";
    for more in ["", "--fast-path always", "--fast-path exclusive"] {
        let plan = plan(&format!("{gateway} {more}"));
        assert_ne!(plan.config.datapath.expect("datapath").fast_path, FastPath::Off, "{more}");
        let warning =
            plan.warnings.iter().find(|warning| warning.contains("--forwarded with --forward gateway"));
        assert!(warning.is_some_and(|warning| warning.contains("this host's own addresses")), "{more}");
    }
    let refused = refused_beside(&format!("{gateway} --send-proxy v2 --fast-path always"));
    assert!(refused.contains("--send-proxy"), "{refused}");
}

#[test]
fn what_direct_answers_cannot_do_is_refused() {
    let dsr = |listen: &str, server: &str| {
        format!("--listen {listen} --server s1=10.0.0.1:80{server} --persist source --xdp eth0 --forward dsr")
    };
    for (line, words) in [
        (dsr("0.0.0.0:80", ""), ["--listen 0.0.0.0:80", "--forward dsr"]),
        (dsr("[::]:80", ""), ["--listen [::]:80", "--forward dsr"]),
        (dsr("192.0.2.1:8080", ""), ["another port than --listen 192.0.2.1:8080", "--server s1"]),
        (dsr("192.0.2.1:80", ",maxconn=4"), ["--server s1=10.0.0.1:80,maxconn", "--forward dsr"]),
    ] {
        let told = refused(&line);
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
        plan_on(&host(), &format!("{line} --fast-path off")).expect("nobody is fast");
    }
    plan_on(&host(), &dsr("192.0.2.1:80", ",weight=4")).expect("right");
}

#[test]
fn a_gateway_has_no_addresses_and_ports_of_its_own() {
    let gateway = "--persist source --xdp eth0 --forward gateway --snat-ports 30000-40000 --snat-ip 10.0.0.9";
    let plan = plan(gateway);
    assert_eq!(plan.config.datapath.expect("datapath").forward, Forward::Gateway);
    for flag in ["--snat-ports", "--snat-ip"] {
        let idle = format!("{flag} has no effect with --forward gateway");
        assert!(plan.warnings.contains(&idle), "{:?}", plan.warnings);
    }
    assert!(refused_beside("--xdp eth0 --forward tunnel").contains("--forward"));
}

#[test]
fn the_fast_path_and_tables_that_it_cannot_read() {
    for option in ["nopurge"] {
        let list = format!("--persist source,{option} --xdp eth0");
        for word in ["exclusive", "always"] {
            let found = refused_beside(&format!("{list} --fast-path {word}"));
            let expected = format!("--fast-path {word} cannot go with --persist source,");
            assert!(found.starts_with(&expected) && found.contains("the fast path "), "{found}");
        }
        let datapath = plan(&list).config.datapath.expect("datapath");
        assert_eq!(datapath.fast_path, FastPath::Off);
        let reason = datapath.fast_path_reason.expect("a reason");
        assert!(reason.contains(option.split('=').next().expect("a word")), "{reason}");
    }
    for (options, masks) in [("", (32, 64)), (",mask4=24", (24, 64)), (",mask4=32,mask6=48", (32, 48))] {
        let read = plan(&format!("--persist source{options} --xdp eth0")).config.datapath.expect("datapath");
        assert_eq!((read.fast_path, read.masks), (FastPath::Always, masks));
    }
}

#[test]
fn a_state_file_has_a_name() {
    assert_eq!(plan("--state-file /var/lib/x.state").config.state_file, Some("/var/lib/x.state".into()));
    assert!(plan("--state-file x").config.state_file.is_some_and(|path| path.is_absolute()));
    assert_eq!(plan("").config.state_file, None);
    for path in ["/", "..", "/var/lib/"] {
        let found = refused_beside(&format!("--state-file {path}"));
        assert!(found.contains("does not name a file"), "{found}");
    }
}

#[test]
fn tcp_takes_nothing_that_needs_http() {
    let table = [
        ("--persist cookie=A", "--persist \"cookie=A\" is about HTTP, which --mode tcp does not read"),
        ("--persist source --persist cookie=A,indirect", "--persist \"cookie=A,indirect\" is about HTTP"),
        ("--forwarded forwarded", "--forwarded is about HTTP, which --mode tcp does not write"),
        (
            "--balance header=X-User",
            "--balance \"header=X-User\" is about HTTP, which --mode tcp does not read",
        ),
    ];
    for (line, expected) in table {
        let found = refused_beside(&format!("--mode tcp {line}"));
        assert!(found.starts_with(expected), "{line}: {found}");
    }
    let plan = plan("--mode tcp --persist source --xdp eth0 --max-head 8k --timeout-request 5s");
    assert_eq!(plan.config.mode, Mode::Tcp);
    assert_eq!(plan.config.datapath.expect("datapath").fast_path, FastPath::Always);
    assert_eq!(
        plan.warnings,
        [
            "--max-head has no effect with --mode tcp",
            "--timeout-request has no effect with --mode tcp and without --accept-proxy"
        ]
    );
}

#[test]
fn servers_have_weights_and_places() {
    let servers =
        plan("--server s2=10.0.0.2:80,weight=3 --server s3=10.0.0.3:80,backup,weight=0").config.servers;
    let found: Vec<_> = servers.iter().map(|server| (server.weight, server.backup)).collect();
    assert_eq!(found, [(1, false), (3, false), (0, true)]);
}

#[test]
fn balancing_algorithms_are_read() {
    let table =
        ["roundrobin", "leastconn", "random", "first", "source", "uri", "header=X-User", "query=user"];
    for text in table {
        assert_eq!(plan(&format!("--balance {text}")).config.balance.to_string(), text);
    }
}

#[test]
fn interfaces_are_named_or_found_or_both() {
    let datapath =
        |line: &str| plan(&format!("--persist source {line}")).config.datapath.expect("a fast path");
    let auto = datapath("--xdp auto");
    assert_eq!((auto.auto, auto.interfaces.len()), (Some(XdpMode::Auto), 0));
    let both = datapath("--xdp auto,mode=native --xdp eth0,mode=generic");
    assert_eq!((both.auto, both.interfaces[0].mode), (Some(XdpMode::Native), XdpMode::Generic));
    assert_eq!(datapath("--xdp eth0").auto, None);
}

#[test]
fn a_doctor_takes_what_there_is_of_a_service_and_refuses_what_is_wrong() {
    let subject = |line: &str| {
        let words = ["balancer", "doctor"].into_iter().chain(line.split_whitespace());
        match cli::parse(words.map(Into::into))? {
            Command::Doctor(run, settings, asked) => Subject::new(&run, &settings, &asked.interface, &host()),
            other => panic!("{other:?}"),
        }
    };
    let told = |line: &str| subject(line).unwrap_or_else(|stop| panic!("{line}: {stop:?}"));
    let names = |subject: &Subject| {
        subject.interfaces.iter().map(|interface| interface.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert!(told("").plan.is_none() && told("").interfaces.is_empty());
    assert_eq!(names(&told("--xdp eth0 --xdp eth1,mode=native")), "eth0 eth1");
    assert_eq!(names(&told("--xdp eth0 --interface eth2")), "eth2", "what is asked for by name");
    assert_eq!(told("--xdp auto --interface eth2").auto, None);
    let whole = "--listen 127.0.0.1:80 --server s1=10.0.0.1:80 --xdp eth0 --persist source";
    assert!(told(whole).plan.is_some());
    let overlapping = format!("{whole} --snat-ports 30000-40000");
    assert!(told(&overlapping).plan.is_some(), "there is a row for that");
    for (line, complaint) in [
        ("--listen nowhere", "--listen"),
        ("--server s1", "--server"),
        ("--xdp eth0,mode=fast", "has an unknown mode"),
        (&*format!("{whole} --on-down perhaps"), "--on-down"),
    ] {
        match subject(line) {
            Err(Stop::Usage(message)) => assert!(message.contains(complaint), "{line}: {message}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn auto_is_resolved_with_a_reason() {
    let table = [
        ("--persist source", FastPath::Always, "source decides before everything else"),
        ("--persist source --persist cookie=A", FastPath::Always, "source decides before everything else"),
        ("--persist cookie=A --persist source", FastPath::Off, "put `--persist source` first"),
        ("--persist cookie=A", FastPath::Off, "add `--persist source`"),
        ("", FastPath::Off, "add `--persist source`"),
    ];
    for (line, expected, reason) in table {
        let datapath = plan(&format!("--xdp eth0 {line}")).config.datapath.expect("datapath");
        assert_eq!(datapath.fast_path, expected, "{line}");
        assert!(datapath.fast_path_reason.expect("reason").contains(reason), "{line}");
    }
    let datapath = plan("--xdp eth0 --fast-path off --persist source").config.datapath.expect("datapath");
    assert_eq!((datapath.fast_path, datapath.fast_path_reason), (FastPath::Off, None));
}

#[test]
fn misrouting_is_warned_of_in_the_agreed_words() {
    let words =
        "the first connections of a second user behind one NAT, bound elsewhere by a cookie, are misrouted";
    let table = [
        ("--fast-path exclusive --persist cookie=A --persist source", true),
        ("--fast-path exclusive --persist source --persist cookie=A", true),
        ("--fast-path always --persist cookie=A --persist source", true),
        ("--fast-path always --persist source --persist cookie=A", false),
        ("--fast-path auto --persist source --persist cookie=A", false),
        ("--fast-path off --persist cookie=A --persist source", false),
    ];
    for (line, expected) in table {
        let warnings = plan(&format!("--xdp eth0 {line}")).warnings;
        assert_eq!(warnings.iter().any(|warning| warning.contains(words)), expected, "{line}: {warnings:?}");
    }
}

#[test]
fn flags_without_effect_are_warned_of() {
    let warnings = plan("--check none --check-rise 3 --snat-ports 10000-20000 --log-format json").warnings;
    assert_eq!(
        warnings,
        [
            "--snat-ports has no effect without --xdp",
            "--log-format has no effect without --access-log",
            "--check-rise has no effect with --check none"
        ]
    );
}

#[test]
fn the_access_log_has_a_target_and_a_format() {
    let table = [
        ("--access-log -", LogTarget::Stdout, LogFormat::Text),
        ("--access-log /a --log-format text", LogTarget::File("/a".into()), LogFormat::Text),
        ("--access-log /a --log-format json", LogTarget::File("/a".into()), LogFormat::Json),
        ("--access-log /a --log-format haproxy", LogTarget::File("/a".into()), LogFormat::Haproxy),
    ];
    for (line, target, format) in table {
        let Plan { config, warnings, .. } = plan(line);
        assert_eq!(config.access_log, Some(AccessLogConfig { target, format }), "{line}");
        assert!(warnings.is_empty(), "{line}: {warnings:?}");
    }
}

#[test]
fn ports_that_the_kernel_uses_are_refused_with_the_line_to_type() {
    let overlap = |local: (u16, u16), ports: &str| {
        let host = Host { local_ports: Some(local), ..host() };
        let line = format!(
            "--listen 1.1.1.1:80 --server s=10.0.0.1:80 --persist source --xdp e --snat-ports {ports}"
        );
        match plan_on(&host, &line) {
            Ok(_) => None,
            Err(Stop::Failed(message)) => Some(message),
            Err(other) => panic!("{other:?}"),
        }
    };
    let table = [
        ((32768, 60999), "10000-32767", None),
        ((32768, 60999), "61000-65535", None),
        ((1024, 65535), "10000-32767", Some("type sysctl -w net.ipv4.ip_local_port_range=\"32768 65535\"")),
        (
            (32768, 60999),
            "20000-40000",
            Some(
                "type sysctl -w net.ipv4.ip_local_port_range=\"40001 60999\" or choose --snat-ports 10000-32767",
            ),
        ),
        ((32768, 60999), "32768-60999", Some("choose --snat-ports 10000-32767")),
        ((1024, 20000), "10000-30000", Some("type sysctl -w net.ipv4.ip_local_port_range=\"30001 60999\"")),
    ];
    for (local, ports, expected) in table {
        match (overlap(local, ports), expected) {
            (None, None) => {}
            (Some(found), Some(part)) => assert!(found.ends_with(part), "{local:?} {ports}: {found}"),
            (found, _) => panic!("{local:?} {ports}: {found:?}"),
        }
    }
    let off = "--listen 1.1.1.1:80 --server s=10.0.0.1:80 --xdp e --fast-path off --snat-ports 40000-50000";
    assert!(plan_on(&host(), off).is_ok(), "without flows no port is taken");
}

#[test]
fn the_admin_socket_has_a_default_place() {
    let path = |root, directory: Option<&str>| {
        let host = Host { root, runtime_directory: directory.map(PathBuf::from), ..host() };
        host.admin_path("web", None)
    };
    assert_eq!(path(true, None).expect("root"), PathBuf::from("/run/balancer/web.sock"));
    assert_eq!(
        path(false, Some("/run/user/7")).expect("user"),
        PathBuf::from("/run/user/7/balancer/web.sock")
    );
    assert!(matches!(path(false, None), Err(Stop::Usage(message)) if message.contains("write --admin PATH")));
}

#[test]
fn a_dump_says_what_takes_effect_and_can_be_read_back() {
    let plan = plan("--name web --xdp eth0 --detach-on-stop --access-log -");
    let dump = plan.dump();
    let has = |flag: &str, origin: &str| {
        dump.lines().any(|line| {
            let (text, from) = line.rsplit_once("  # ").expect("origin");
            text.trim() == flag && from == origin
        })
    };
    assert!(has("--name web", "flag"), "{dump}");
    assert!(has("--workers 4", "default, the cores available"), "{dump}");
    assert!(has("--fast-path off", "default, auto resolved"), "{dump}");
    assert!(has("--admin /run/balancer/web.sock", "default"), "{dump}");
    assert!(has("--detach-on-stop", "flag"), "{dump}");
    assert!(has("# no --snat-ip", "default"), "{dump}");

    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("flags");
    std::fs::write(&file, &dump).expect("written");
    let again = plan_on(&host(), &format!("@{}", file.display())).expect("valid");
    assert_eq!(format!("{:?}", again.config), {
        // The reason belongs to `auto`, which the dump has resolved.
        let mut config = plan.config.clone();
        if let Some(datapath) = &mut config.datapath {
            datapath.fast_path_reason = None;
        }
        format!("{config:?}")
    });
}

#[test]
fn what_is_made_of_real_traffic() {
    let health = |line: &str| plan(line).config.health.now();
    let observed = |line: &str| health(line).observe.map(|kinds| (kinds.connect, kinds.answers, kinds.limit));
    assert_eq!(observed("--observe connect+5xx"), Some((true, true, 10)));
    assert_eq!(observed("--observe 5xx,limit=3"), Some((false, true, 3)));
    assert_eq!(observed("--observe connect --mode tcp --persist source"), Some((true, false, 10)));
    assert_eq!(health("--slow-start 30s").slow_start, Some(Duration::from_secs(30)));
    assert_eq!(health("--on-marked-down reset").on_marked_down, OnMarkedDown::Reset);
    let warnings = plan("--check none --on-marked-down reset --slow-start 1s").warnings;
    assert_eq!(warnings, ["--on-marked-down has no effect with --check none"]);
}
