//! `server`, `server-template` and `default-server`.

use std::collections::HashSet;
use std::net::IpAddr;

use super::cookie::Cookie;
use super::pair::{Pair, Side};
use super::sections::Directive;
use super::server_options::{Given, Options, add, value};
use super::sheet::{Sheet, Verdict};
use super::trial::{so_far, trial};
use crate::config::servers::{MOST_SERVERS, one};
use crate::persist::List;

/// A server that is carried over.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    pub(super) line: &'a Directive,
    pub(super) options: Options<'a>,
}

/// Options that are each server's own here as well, and are looked at in this file.
const OWN: &[&str] = &["cookie", "weight", "maxconn", "maxqueue", "backup", "disabled", "minconn"];

/// Options that are for all servers here; [`super::checks`] looks at them.
pub(super) const COMMON: &[&str] = &[
    "check",
    "inter",
    "fastinter",
    "rise",
    "fall",
    "observe",
    "error-limit",
    "on-error",
    "on-marked-down",
    "slowstart",
    "send-proxy",
    "send-proxy-v2",
    "check-send-proxy",
    "addr",
    "port",
];

/// What there is to say of the others.
const OTHERS: &[(&str, Verdict, &str, &str)] = &[
    (
        "downinter",
        Verdict::Differs,
        "a server that is down is checked as often as any other",
        "--check-interval T",
    ),
    (
        "agent-check",
        Verdict::Left,
        "there are no agents",
        "balancer set server NAME drain|maint|weight N, by a script",
    ),
    ("agent-addr", Verdict::Left, "there are no agents", ""),
    ("agent-inter", Verdict::Left, "there are no agents", ""),
    ("agent-port", Verdict::Left, "there are no agents", ""),
    ("agent-send", Verdict::Left, "there are no agents", ""),
    ("check-ssl", Verdict::Left, "there is no TLS here", "--check tcp"),
    ("check-alpn", Verdict::Left, "there is no TLS here", ""),
    ("check-sni", Verdict::Left, "there is no TLS here", ""),
    ("check-proto", Verdict::Left, "checks speak HTTP/1", ""),
    ("check-via-socks4", Verdict::Left, "there is no SOCKS", ""),
    ("id", Verdict::Moot, "servers are known by their names, in tables as well", ""),
    ("guid", Verdict::Moot, "servers are known by their names", ""),
    (
        "init-addr",
        Verdict::Moot,
        "a name that was never found is down until it is, of which check says that it cannot be resolved",
        "",
    ),
    (
        "resolve-prefer",
        Verdict::Differs,
        "of the addresses of a name the first IPv4 one is taken, else IPv6",
        "",
    ),
    ("resolve-net", Verdict::Left, "all addresses of a name are the same", ""),
    ("resolve-opts", Verdict::Left, "there are no such options", ""),
    ("resolvers", Verdict::Moot, "names are followed, always; --resolver says whom to ask", ""),
    (
        "on-marked-up",
        Verdict::Left,
        "connections to backups go on",
        "--leave-backup, by which clients leave a backup",
    ),
    ("track", Verdict::Left, "each server is checked by itself", ""),
    ("redir", Verdict::Left, "nobody is redirected", ""),
    (
        "source",
        Verdict::Left,
        "the kernel chooses the address that servers see",
        "--send-proxy v2, or --forwarded x-forwarded-for",
    ),
    ("non-stick", Verdict::Left, "every server that has answered is remembered", ""),
    ("send-proxy-v2-ssl", Verdict::Left, "there is no TLS to tell of", "--send-proxy v2"),
    ("send-proxy-v2-ssl-cn", Verdict::Left, "there is no TLS to tell of", "--send-proxy v2"),
    (
        "set-proxy-v2-tlv-fmt",
        Verdict::Left,
        "a PROXY header has no more than the addresses",
        "--send-proxy v2",
    ),
    ("proxy-v2-options", Verdict::Left, "a PROXY header has no more than the addresses", "--send-proxy v2"),
    ("namespace", Verdict::Left, "a process has one network namespace", ""),
    ("proto", Verdict::Left, "servers are spoken to in HTTP/1", ""),
    ("alpn", Verdict::Left, "servers are spoken to in HTTP/1", ""),
    ("ws", Verdict::Left, "servers are spoken to in HTTP/1", ""),
    ("socks4", Verdict::Left, "there is no SOCKS", ""),
    ("tcp-ut", Verdict::Left, "there is no such time-out", "--timeout-server T"),
    ("tfo", Verdict::Left, "there is no TCP Fast Open", ""),
    ("max-reuse", Verdict::Left, "connections are reused for as long as the server keeps them", ""),
    ("pool-low-conn", Verdict::Moot, "the pool of connections needs no tuning", ""),
    ("pool-max-conn", Verdict::Moot, "the pool of connections needs no tuning", ""),
    ("pool-purge-delay", Verdict::Moot, "the pool of connections needs no tuning", ""),
    ("shard", Verdict::Moot, "there are no peers", ""),
    ("hash-key", Verdict::Moot, "keys are spread over names", ""),
    // Without `ssl` these say nothing.
    ("verify", Verdict::Moot, "the server is spoken to without TLS", ""),
    ("verifyhost", Verdict::Moot, "the server is spoken to without TLS", ""),
    ("sni", Verdict::Moot, "the server is spoken to without TLS", ""),
    ("ca-file", Verdict::Moot, "the server is spoken to without TLS", ""),
    ("crt", Verdict::Moot, "the server is spoken to without TLS", ""),
    ("ciphers", Verdict::Moot, "the server is spoken to without TLS", ""),
];

/// All servers become flags; those that did. `ports`: where clients connect, for servers whose port is that.
pub(super) fn carry<'a>(
    pair: &Pair<'a>,
    sheet: &mut Sheet,
    cookie: Cookie,
    ports: Vec<u16>,
) -> Vec<Server<'a>> {
    let mut defaults = Options::new();
    let mut writer = Writer {
        cookie,
        ports,
        known: Vec::new(),
        names: HashSet::new(),
        ids: HashSet::new(),
        locations: HashSet::new(),
        servers: Vec::new(),
        listen: Vec::new(),
    };
    if let Ok(plan) = trial(&so_far(&sheet.flags)) {
        writer.listen = plan.config.listen;
    }
    let mut lines = pair.all(Side::Back, &["server"]);
    for word in ["server-template", "default-server"] {
        lines.extend(pair.all(Side::Back, &[word]));
    }
    // What is a default holds from there on.
    lines.sort_by_key(|line| line.place);
    for line in lines {
        match line.word(0) {
            "default-server" => {
                add(&mut defaults, line, line.after(1));
                sheet.moot(line, "the servers behind it have what it says");
            }
            _ if writer.is_full() => sheet.left(line, too_many(), ""),
            "server" => {
                let mut options = defaults.clone();
                add(&mut options, line, line.after(3));
                writer.server(sheet, line, line.word(1), line.word(2), options);
            }
            _ => {
                let mut options = defaults.clone();
                add(&mut options, line, line.after(4));
                writer.template(sheet, line, &options);
            }
        }
    }
    for line in pair.all(Side::Back, &["dispatch"]) {
        sheet.left(line, "there is no address beside those of the servers", "--server NAME=ADDR:PORT");
    }
    writer.servers
}

struct Writer<'a> {
    cookie: Cookie,
    ports: Vec<u16>,
    known: Vec<crate::config::ServerConfig>,
    names: HashSet<String>,
    /// Ids that are taken.
    ids: HashSet<String>,
    /// Addresses that an id is made of.
    locations: HashSet<String>,
    servers: Vec<Server<'a>>,
    listen: Vec<std::net::SocketAddr>,
}

fn too_many() -> String {
    format!("{MOST_SERVERS} servers are the most")
}

impl<'a> Writer<'a> {
    fn is_full(&self) -> bool {
        self.known.len() >= MOST_SERVERS
    }

    /// `server-template PREFIX N|FIRST-LAST ADDRESS …`
    fn template(&mut self, sheet: &mut Sheet, line: &'a Directive, options: &Options<'a>) {
        let (first, last) = line.word(2).split_once('-').unwrap_or(("1", line.word(2)));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
            return sheet.left(line, "says how many servers there are in a way that is not understood", "");
        };
        if last == 0 || last < first {
            return sheet.left(line, "is of no server, which HAProxy refuses", "");
        }
        if (last - first) as usize >= MOST_SERVERS {
            return sheet.left(
                line,
                too_many(),
                "a range of what there is; the others by balancer add server",
            );
        }
        for number in first..=last {
            let name = format!("{}{number}", line.word(1));
            // What is wrong with one is wrong with all, and said once.
            if !self.server(sheet, line, &name, line.word(3), options.clone()) {
                break;
            }
        }
    }

    /// False: it is left, and that was said.
    fn server(
        &mut self,
        sheet: &mut Sheet,
        line: &'a Directive,
        name: &str,
        address: &str,
        options: Options<'a>,
    ) -> bool {
        if self.is_full() {
            sheet.left(line, too_many(), "");
            return false;
        }
        if options.contains_key("ssl") {
            let why = "there is no TLS here, and the server must not be spoken to in the clear";
            sheet.left(line, why, "a port of the server without TLS, or a TLS client in between");
            return false;
        }
        let location = match location(address, &self.ports) {
            Ok(location) => location,
            Err(why) => {
                let why = if line.unset.is_empty() {
                    why
                } else {
                    format!("{} is not set here; set it as HAProxy has it", line.unset())
                };
                sheet.left(line, why, "--server NAME=ADDR:PORT");
                return false;
            }
        };
        let ours = self.name(name);
        if ours != name {
            let why = format!("is not a name here; the server is called {ours}");
            sheet.part(Verdict::Differs, line, name, why, "");
        }
        let mut text = format!("{ours}={location}");
        self.own(sheet, line, &ours, &options, &mut text);
        if self.cookie.is_dynamic && !text.contains(",id=") && !self.locations.insert(location) {
            text += &format!(",id={ours}");
            let why = "an id that is made of its address would be that of another server; it is its name";
            sheet.part(Verdict::Differs, line, "no cookie", why, "id=VALUE");
        }
        match one(&text, &self.known, &self.listen, &List::new(Vec::new())) {
            Ok(config) => {
                self.ids.extend(config.cookie());
                self.known.push(config);
            }
            Err(why) => {
                sheet.left(line, why, "");
                return false;
            }
        }
        if address.starts_with("ipv6@")
            && address.contains(|c: char| c.is_ascii_alphabetic())
            && !address.contains("::")
        {
            let why = "of the addresses of a name the first IPv4 one is taken, else IPv6";
            sheet.part(Verdict::Differs, line, address, why, "its IPv6 address");
        }
        self.names.insert(ours);
        sheet.flag("--server", text, &[line]);
        self.remark(sheet, line, &options);
        self.servers.push(Server { line, options });
        true
    }

    /// The same name, unless there are characters in it that none has here, or it is taken.
    fn name(&self, name: &str) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut ours: String = name.chars().map(|c| if fits(c) { c } else { '_' }).take(63).collect();
        // What begins with a dash would be taken for a flag.
        if ours.is_empty() || ours.starts_with('-') {
            ours = format!("_{}", ours.get(1..).unwrap_or_default());
        }
        let begun: String = ours.chars().take(58).collect();
        let mut count = 2;
        // HAProxy refuses a name twice; two that were changed may have become one.
        while self.names.contains(&ours) && ours != name {
            ours = format!("{begun}_{count}");
            count += 1;
        }
        ours
    }

    /// What is each server's own here, too.
    fn own(
        &mut self,
        sheet: &mut Sheet,
        line: &Directive,
        name: &str,
        options: &Options<'_>,
        text: &mut String,
    ) {
        let cookie = value(options, "cookie");
        let is_free = |id: &str| !self.ids.contains(id);
        if self.cookie.is_there {
            match cookie {
                "" if self.cookie.is_dynamic => {}
                "" if self.cookie.needs_ids => {
                    let why = "it has no cookie in HAProxy, and here it needs one; it is its name";
                    sheet.part(Verdict::Differs, line, "no cookie", why, "id=VALUE");
                }
                "" => text.push_str(",id="),
                id if id == name && is_free(id) => {}
                id if is_free(id) && self.takes(name, id) => *text += &format!(",id={id}"),
                id => {
                    let why = if is_free(id) {
                        "a cookie cannot carry that value here"
                    } else {
                        "another server has the same cookie, and here it can name one"
                    };
                    sheet.left_part(line, &format!("cookie {id}"), why, "");
                    if !self.cookie.needs_ids && !self.cookie.is_dynamic {
                        text.push_str(",id=");
                    }
                }
            }
        } else if !cookie.is_empty() {
            sheet.part(Verdict::Moot, line, &format!("cookie {cookie}"), "the backend has no cookie", "");
        }
        // With minconn alone HAProxy takes it for the limit.
        let (minconn, maxconn) = (value(options, "minconn"), value(options, "maxconn"));
        let is_limit = matches!(maxconn, "" | "0") && !matches!(minconn, "" | "0");
        let limit = if is_limit { minconn } else { maxconn };
        for (option, number, is_kept) in [
            ("weight", value(options, "weight"), true),
            ("maxconn", limit, true),
            ("maxqueue", value(options, "maxqueue"), !matches!(limit, "" | "0")),
        ] {
            match number {
                "" => {}
                "0" if option != "weight" => {}
                _ if !is_kept => {
                    let why = "nobody waits for a server that has no maxconn";
                    sheet.part(Verdict::Moot, line, &format!("{option} {number}"), why, "");
                }
                _ => {
                    let more = format!(",{option}={number}");
                    let whole = if option == "maxqueue" {
                        format!("{text}{more}")
                    } else {
                        format!("{name}=192.0.2.1:1{more}")
                    };
                    match one(&whole, &[], &[], &List::new(Vec::new())) {
                        Ok(_) => *text += &more,
                        Err(why) => sheet.left_part(line, &format!("{option} {number}"), why, ""),
                    }
                }
            }
        }
        for flag in ["backup", "disabled"] {
            if options.contains_key(flag) {
                text.push(',');
                text.push_str(flag);
            }
        }
        if !minconn.is_empty() {
            let part = format!("minconn {minconn}");
            if is_limit {
                sheet.part(
                    Verdict::Moot,
                    line,
                    &part,
                    "without maxconn it is the limit, and so it is here",
                    "",
                );
            } else {
                let why = "the limit does not move with the load; maxconn is the limit";
                sheet.left_part(line, &part, why, "maxconn=N");
            }
        }
    }

    fn takes(&self, name: &str, id: &str) -> bool {
        !id.contains(',')
            && one(&format!("{name}=192.0.2.1:1,id={id}"), &[], &[], &List::new(Vec::new())).is_ok()
    }

    /// What is neither its own nor for all.
    fn remark(&self, sheet: &mut Sheet, line: &Directive, options: &Options<'_>) {
        for (name, Given { arguments, .. }) in options {
            if OWN.contains(name) || COMMON.contains(name) {
                continue;
            }
            let part = [&[(*name).to_owned()], *arguments].concat().join(" ");
            match OTHERS.iter().find(|(known, ..)| known == name) {
                Some((_, verdict, why, nearest)) => sheet.part(*verdict, line, &part, *why, *nearest),
                None => sheet.left_part(line, &part, "no server here has such an option", ""),
            }
        }
    }
}

/// `ADDR:PORT` as a flag has it.
fn location(text: &str, ports: &[u16]) -> Result<String, String> {
    let rest = match text.split_once('@') {
        Some(("ipv4" | "ipv6" | "tcp" | "tcp4" | "tcp6", rest)) => rest,
        Some(_) => return Err("its address is none of TCP".into()),
        None => text,
    };
    if rest.contains(|c: char| c == ',' || c.is_whitespace()) {
        return Err("its address has a comma or a space in it, after which options begin here".into());
    }
    if rest.starts_with('/') {
        return Err("it is a Unix socket, and servers are addresses and ports here".into());
    }
    // The last colon is the port's, in an IPv6 address without brackets as well.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port).filter(|port| !port.is_empty())),
        _ => (rest, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.starts_with('_') {
        return Err("its address is a name of services (SRV), and such records are not looked up".into());
    }
    let is_wild = |address: IpAddr| address.is_unspecified();
    if matches!(bare, "" | "*") || bare.parse().is_ok_and(is_wild) {
        return Err("its address is that of the client's own connection, which is not used here".into());
    }
    let host = match bare.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Err(_) if bare.contains(':') => {
            return Err("after its last colon is its port, and what is before that is no address".into());
        }
        _ => bare.to_owned(),
    };
    let port = match (port, ports) {
        (Some(port), _) if !port.starts_with(['+', '-']) => port.to_owned(),
        (shift, [listen]) => {
            let shift: i32 = shift.map_or(Ok(0), str::parse).map_err(|_| "its port is none")?;
            let port =
                u16::try_from(i32::from(*listen).saturating_add(shift)).map_err(|_| "its port is none")?;
            port.to_string()
        }
        _ => {
            return Err(
                "its port is that of the client's connection, which is not always the same here".into()
            );
        }
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        let table = [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("ipv4@10.0.0.1:80", "10.0.0.1:80"),
            ("app.example:80", "app.example:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("ipv6@2001:db8::1:80", "[2001:db8::1]:80"),
            ("2001:db8::1:80", "[2001:db8::1]:80"),
            ("::1:80", "[::1]:80"),
            ("2001:db8::1:", "[2001:db8::1]:8000"),
            ("2001:db8::1:+3", "[2001:db8::1]:8003"),
            ("[2001:db8::1]", "[2001:db8::1]:8000"),
            ("10.0.0.1", "10.0.0.1:8000"),
            ("10.0.0.1:", "10.0.0.1:8000"),
            ("10.0.0.1:+100", "10.0.0.1:8100"),
            ("10.0.0.1:-100", "10.0.0.1:7900"),
        ];
        for (text, expected) in table {
            assert_eq!(location(text, &[8000]).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "/run/x",
            "unix@x",
            "*:80",
            "0.0.0.0:80",
            "10.0.0.1:-9000",
            "10.0.0.1:+x",
            "10.0.0.1:80,backup",
            "2001:db8::1",
            "::1",
            "[2001:db8::1",
        ] {
            assert!(location(text, &[8000]).is_err(), "{text}");
        }
        assert!(location("10.0.0.1", &[80, 81]).is_err());
    }
}
