//! Rules of the packet filter that name a port of the service: fast packets do not meet them.

use std::net::SocketAddr;
use std::process::Command;

use super::row::Row;

/// Where the tools are that PATH may leave out.
const FOLDERS: [&str; 2] = ["/usr/sbin/", "/sbin/"];

pub(super) fn examine(listen: &[SocketAddr]) -> Vec<Row> {
    let mut ports: Vec<u16> = listen.iter().map(SocketAddr::port).filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return Vec::new();
    }
    let listings = [("nft", &["list", "ruleset"][..]), ("iptables-save", &[]), ("ip6tables-save", &[])]
        .map(|(program, arguments)| list(program, arguments));
    vec![judge(&ports, &listings)]
}

/// What a tool has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Listing {
    Rules(String),
    /// It may not look.
    Refused,
    /// There is no such tool.
    NoTool,
}

fn list(program: &str, arguments: &[&str]) -> Listing {
    let run = |program: String| Command::new(program).args(arguments).output().ok();
    let found =
        run(program.to_owned()).or_else(|| FOLDERS.iter().find_map(|at| run(format!("{at}{program}"))));
    match found {
        None => Listing::NoTool,
        Some(output) if !output.status.success() => Listing::Refused,
        Some(output) => Listing::Rules(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}

fn judge(ports: &[u16], listings: &[Listing]) -> Row {
    let check = "netfilter";
    if listings.iter().all(|listing| *listing == Listing::NoTool) {
        return Row::warning(check, "rules cannot be looked at: neither nft nor iptables-save is there");
    }
    let mut naming: Vec<&str> = Vec::new();
    for listing in listings {
        let Listing::Rules(rules) = listing else { continue };
        naming
            .extend(rules.lines().map(str::trim).filter(|line| ports.iter().any(|port| names(line, *port))));
    }
    if let Some(first) = naming.first() {
        let more = match naming.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let detail =
            format!("fast packets do not meet these rules, which name a port of the service: {first}{more}");
        return Row::warning(check, detail)
            .mend("give what they refuse to --deny, which holds on both paths");
    }
    if listings.contains(&Listing::Refused) {
        return Row::warning(check, "rules cannot be looked at: not permitted")
            .mend("run balancer doctor as root");
    }
    Row::ok(check, "no rule names a port of the service")
}

/// `tcp dport 80`, `dport { 22, 80-90 }`, `--dport 80`, `--dports 22,80:90`. Sets with names are not looked into.
fn names(rule: &str, port: u16) -> bool {
    let Some((_, rest)) = rule.split_once("dport") else { return false };
    let rest = rest.strip_prefix('s').unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix("!=").unwrap_or(rest).trim_start();
    let list = match rest.strip_prefix('{') {
        Some(set) => set.split('}').next().unwrap_or_default(),
        None => rest.split_whitespace().next().unwrap_or_default(),
    };
    list.split(',').map(str::trim).any(|item| match item.split_once(['-', ':']) {
        Some((low, high)) => match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) => (low..=high).contains(&port),
            _ => false,
        },
        None => item.parse() == Ok(port),
    })
}

#[cfg(test)]
mod tests {
    use super::super::row::State;
    use super::*;

    #[test]
    fn a_port_is_named_alone_in_a_list_or_in_a_range() {
        for rule in [
            "tcp dport 80 drop",
            "tcp dport { 22, 80 } counter",
            "tcp dport { 22, 79-90 } accept",
            "-A INPUT -p tcp -m tcp --dport 80 -j DROP",
            "-A INPUT -p tcp -m multiport --dports 22,79:81 -j DROP",
            "tcp dport != 80 drop",
        ] {
            assert!(names(rule, 80), "{rule}");
        }
        for rule in [
            "tcp dport 8080 drop",
            "tcp dport { 22, 443 } accept",
            "tcp sport 80 drop",
            "tcp dport @web drop",
        ] {
            assert!(!names(rule, 80), "{rule}");
        }
    }

    #[test]
    fn silence_is_not_taken_for_the_absence_of_rules() {
        let rules = |text: &str| Listing::Rules(text.to_owned());
        assert_eq!(judge(&[80], &[rules(""), Listing::NoTool]).state, State::Ok);
        assert_eq!(judge(&[80], &[Listing::NoTool]).state, State::Warning);
        assert_eq!(judge(&[80], &[Listing::Refused, rules("")]).state, State::Warning);
        let row = judge(&[80], &[rules("chain x {\n\ttcp dport 80 drop\n\ttcp dport 80 log\n}")]);
        assert!(row.detail.ends_with("tcp dport 80 drop, and 1 more"), "{row:?}");
    }
}
