//! The words behind a server's address, `default-server` applied.

use std::collections::BTreeMap;

use super::sections::Directive;

/// One option as it counts for a server.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    /// Its words, without the option itself.
    pub(super) arguments: &'a [String],
    /// The line it stands on: that of the server, or a `default-server`.
    pub(super) line: &'a Directive,
}

/// Options by their name.
pub(super) type Options<'a> = BTreeMap<&'a str, Given<'a>>;

/// Options that take more words than none.
const VALUED: &[&str] = &[
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "ca-file",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "cookie",
    "crl-file",
    "crt",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "guid",
    "hash-key",
    "id",
    "init-addr",
    "inter",
    "log-bufsize",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "namespace",
    "npn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "shard",
    "sigalgs",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-ut",
    "track",
    "verify",
    "verifyhost",
    "weight",
    "ws",
];

/// Adds what `words` of `line` say to `options`; a later word takes the place of an earlier one.
pub(super) fn add<'a>(options: &mut Options<'a>, line: &'a Directive, words: &'a [String]) {
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let mut count = usize::from(VALUED.contains(&word.as_str()));
        if word == "source" && after.get(1).is_some_and(|word| word == "usesrc" || word == "interface") {
            count = 3;
        }
        let (arguments, after) = after.split_at(count.min(after.len()));
        rest = after;
        match word.strip_prefix("no-") {
            Some(name) => {
                options.remove(name);
            }
            None if word == "enabled" => {
                options.remove("disabled");
            }
            None => {
                options.insert(word, Given { arguments, line });
            }
        }
    }
}

/// The value of an option; empty where there is none.
pub(super) fn value<'o>(options: &'o Options<'_>, name: &str) -> &'o str {
    options.get(name).and_then(|given| given.arguments.first()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::super::sections::Configuration;
    use super::*;

    #[test]
    fn a_server_has_the_defaults_unless_it_says_otherwise() {
        let text = "listen x\n default-server inter 5s check weight 10 source 1.2.3.4 usesrc clientip backup\n \
                    server a 10.0.0.1:80 weight 20 no-check cookie check disabled enabled\n";
        let read = Configuration::read(&[("f".into(), text.into())], &|_| None).expect("read");
        let [defaults, server] = &read.sections[0].directives[..] else { panic!("two lines") };
        let mut options = Options::new();
        add(&mut options, defaults, defaults.after(1));
        add(&mut options, server, server.after(3));
        let names: Vec<&str> = options.keys().copied().collect();
        assert_eq!(names, ["backup", "cookie", "inter", "source", "weight"]);
        assert_eq!((value(&options, "weight"), value(&options, "inter")), ("20", "5s"));
        assert_eq!((value(&options, "cookie"), value(&options, "rise")), ("check", ""));
    }
}
